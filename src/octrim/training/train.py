"""`octrim train`, and what the other commands that train share with it: data, network and run folder, from options or from a run to resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.open import open_labelled
from octrim.errors import InputError, shown
from octrim.evaluate.evaluation import Evaluation
from octrim.evaluate.result_files import write_evaluation
from octrim.evaluate.val import evaluate
from octrim.network.adapt import adapted, known_classes
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.model import Model, load
from octrim.network.options import image_size, model_from
from octrim.network.yolov5 import anchors_to_fit
from octrim.options import arguments_of, from_python
from octrim.pruning.plan import parse_fraction
from octrim.runs import Run, new_run, open_run, stored_config
from octrim.targets.opening import open_session
from octrim.training.anchors import auto_anchors
from octrim.training.checkpoint import CHECKPOINT, State, data_digest, kind_of, load_state, unflattened
from octrim.training.freezing import frozen
from octrim.training.hyper import Hyperparameters, read_hyperparameters
from octrim.training.options import Training
from octrim.training.parallel import World, launch, launched, world
from octrim.training.pictures import save_labels

if TYPE_CHECKING:
    from octrim.training.distillation import Distillation
    from octrim.training.sparsity import Penalty

T = TypeVar("T", bound=Training)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training left: its folder, the best weights, and what these find on the validation part (None without one)."""

    folder: Path
    model: Model
    evaluation: Evaluation | None


@dataclass(eq=False)
class Setup:
    """Everything that a training needs, checked before it starts. run: None in all processes but the first."""

    config: Any
    hyper: Hyperparameters
    model: Model
    train_set: Dataset
    val_set: Dataset | None
    state: State
    run: Run | None
    world: World


def train_command(config: Training) -> None:
    """`octrim train`."""
    start(config, _train)


def train(**options: Any) -> Trained:
    """Train a detector from Python; options as of `octrim train`, with underscores: `train(weights="yolov5n.pt", data="bccd", epochs=50)`.

    Leaves a run folder as the command does. Raises InputError for bad input; several devices are started by the command only.
    """
    return _train(alone(from_python(Training, options)))


def start(config: T, work: Callable[[T], Trained]) -> None:
    """Run a training command from options or a run to resume; with several devices, in as many processes."""
    devices = config.devices or 1
    if config.devices is None and config.resume is not None:
        devices = _stored(config, Path(config.resume)).devices or 1
    if devices > 1 and not launched():
        if config.resume is None:
            check(config)
        code = launch(arguments_of(dataclasses.replace(config, devices=devices)), devices)
        if code:
            raise SystemExit(code)
        return
    work(config)


def alone(config: T) -> T:
    """The configuration, of one process. Raises InputError for several."""
    if (config.devices or 1) > 1:
        raise InputError(f"devices: several processes are started by `octrim {config.command} --devices N`, not from Python")
    return config


def _train(config: Training) -> Trained:
    """Train in this process: alone, or as one of those that a launcher has started."""
    return run(prepare(config))


def run(setup: Setup, distillation: Distillation | None = None, penalty: Penalty | None = None) -> Trained:
    """The training itself, and what it leaves."""
    from octrim.training.fit import fit
    from octrim.training.record import Record

    with Record(setup.run, setup.config, setup.val_set) as record:
        record.write_results(setup.state)
        state = fit(setup.config, setup.hyper, setup.model, setup.train_set, setup.val_set, setup.state, record, setup.world, distillation, penalty)
        return finish(setup, state, record)


def prepare(config: Training, examine: Callable[[Model, Any], object] | None = None) -> Setup:
    """Read options, data and network, or all of it from the run to resume. Raises InputError for whatever does not fit together.

    examine: called with the model and the configuration before anything is written; may raise, too.
    """
    state = None
    if config.resume is not None:
        folder = Path(config.resume)
        state = load_state(folder / CHECKPOINT)
        config = _stored(config, folder)
        for leftover in (*folder.glob(".*-*.safetensors"), *(folder / CHECKPOINT).parent.glob(".*-*.safetensors")):
            leftover.unlink(missing_ok=True)  # of a write that was killed
    check(config)
    # A file may have changed since the run began.
    hyper = read_hyperparameters(config.hyp) if state is None else Hyperparameters(**state.extra["hyper"])
    if config.lr0 is not None and state is None:
        hyper = dataclasses.replace(hyper, lr0=config.lr0)
    here = world(_set_device(config))
    if state is None:
        base = model_from(config, anchors_to_fit=True)
        names, defaults = (), base.names
    else:
        base, names, defaults = None, state.names, state.names
    train_set = _dataset(config, "train", defaults)
    val_set = _val_set(config, defaults)
    if val_set is not None and val_set.names != train_set.names:
        raise InputError(f"{config.data}: train has the classes {shown(train_set.names)}, val {shown(val_set.names)}")
    if names and names != train_set.names:
        raise InputError(f"{config.resume}: trains the classes {shown(names)}; {config.data} now has {shown(train_set.names)}")
    digest = data_digest(train_set, val_set)
    lines = [f"{config.data}: {len(train_set)} pictures to train on, {len(val_set) if val_set else 0} to validate, {len(train_set.names)} classes"]
    lines += [line for part in (train_set, val_set) if part is not None for line in part.lines()]
    lines += hyper.notes
    if base is not None:
        model, more = _fitted(config, base, train_set, hyper)
        frozen([name for name in tensor_shapes(model.network) if kind_of(name) < 3], config.freeze)  # raises for what fits nothing
        lines += more
        lineage = model.lineage
        if config.weights is not None:
            lineage = (*lineage, {"action": "start", "weights": Path(config.weights).name})
        state = State(model.network, model.names, model.image_size, lineage, digest, {}, extra={"hyper": dataclasses.asdict(hyper)})
        if examine is not None:
            examine(model, config)
        run = new_run(config) if here.first else None
        if run is not None:
            save_labels(train_set, run.path / "labels.png", model.image_size, model.network.anchors, hyper.anchor_t)
    else:
        assert state is not None
        model = Model(state.network, unflattened(state.network, state.arrays["average"]), state.names, state.image_size, state.lineage)
        run = open_run(config.resume or "") if here.first else None
        lines.append(f"resumed after {state.epoch} epochs and {state.batch} batches")
        if state.data != digest:
            lines.append("the data set is not what it was when this run began: its results will not be those of an undisturbed run")
            state.data = digest
    if run is not None:
        cost = network_cost(model.network, model.image_size)
        lines.append(f"network: {cost.parameters:,} parameters, {cost.macs / 1e6:,.0f} M MACs at {model.image_size} px, {cost.channels:,} channels")
        for line in lines:
            run.print(line)
    return Setup(config, hyper, model, train_set, val_set, state, run, here)


def finish(setup: Setup, state: State, record: Any) -> Trained:
    """Evaluate the best weights, write what `octrim val` writes, and print the table."""
    folder = setup.run.path if setup.run is not None else Path()
    model, evaluation = setup.model, None
    if setup.run is not None:
        model = load(folder / "best.safetensors")
        if setup.val_set is not None:
            evaluation = evaluate(open_session(model), setup.val_set, model.image_size, setup.config.batch, seed=setup.config.seed)
            write_evaluation(folder, setup.val_set, evaluation)
            record.show_predictions(evaluation)
            setup.run.print(evaluation.table())
            for name, (low, high) in evaluation.interval.items():
                setup.run.print(f"{name} 95 % interval {low:.4f} to {high:.4f} (pictures resampled)")
        best = f"best epoch {state.best[1] + 1} of {len(state.rows)}"
        setup.run.print(f"{best}: {folder / 'best.safetensors'} ({(folder / 'best.safetensors').stat().st_size / 1e6:.2f} MB)")
        setup.run.print(f"next: {_next_command(setup.config, folder / 'best.safetensors')}")
    return Trained(folder, model, evaluation)


def _next_command(config: Any, weights: Path) -> str:
    match config.command:
        case "sparsify":
            keep = f" --keep {1 - parse_fraction(config.target, 'target')}" if config.target is not None and config.scope == "group" else ""
            return f"octrim prune --weights {weights} --criterion bn --compensate{keep} --align {config.align}"
        case "finetune":
            return f"octrim export --weights {weights}"
    return f"octrim prune --weights {weights}"


def check(config: Training) -> None:
    """Raise InputError for options that do not go together, or not with this machine."""
    devices = 1 if config.devices is None else config.devices
    if config.batch % devices:
        raise InputError(f"batch is {config.batch}, expected a multiple of the {devices} devices that share it")
    if config.tensorboard and find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX: pip install 'octrim[tensorboard]'")


def _set_device(config: Training) -> str:
    """Choose cpu or gpu, and say which."""
    from octrim.backends.paddle import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if config.device == "gpu" and not gpus:
        raise InputError("device is gpu; this Paddle has none (pip install paddlepaddle-gpu, and a driver)")
    if config.device != "cpu" and gpus:
        if (config.devices or 1) > gpus:
            raise InputError(f"devices is {config.devices}; there are {gpus} GPUs")
        return "gpu"
    if config.sync_bn:
        raise InputError("sync_bn needs GPUs: Paddle has no synchronised batch norm for processors")
    paddle.set_device("cpu")
    return "cpu"


def _stored(config: T, folder: Path) -> T:
    """The configuration of the run to resume. What may change: devices, device, workers, cache, and where data and teacher lie (digests tell)."""
    return stored_config(config, folder, ("devices", "device", "workers", "cache", "data", "teacher"))


def _val_set(config: Training, names: tuple[str, ...]) -> Dataset | None:
    """None where the data set has none and nobody asked to evaluate."""
    try:
        return _dataset(config, "val", names)
    except InputError as error:
        if config.noval:
            return None
        raise InputError(f"{error}; --noval trains all the same") from None


def _dataset(config: Training, split: str, names: tuple[str, ...]) -> Dataset:
    dataset = open_labelled(config.data, split, names, "learn" if split == "train" else "measure")
    if config.single_cls:
        return dataclasses.replace(dataset, names=("object",), labels=np.zeros_like(dataset.labels), category_ids=(0,))
    return dataset


def _fitted(config: Training, base: Model, train_set: Dataset, hyper: Hyperparameters) -> tuple[Model, list[str]]:
    """The network for this data: its classes, picture size and anchors; and what was done, for people."""
    height, width = image_size(config.imgsz, base.image_size, base.network.stride)
    if height != width:
        raise InputError(f"imgsz is {height} {width}; training pictures are square, give one side")
    lines, anchors = [], None
    provisional = config.cfg is not None and anchors_to_fit(config.cfg)
    if provisional and config.no_autoanchor:
        raise InputError(f"{config.cfg}: gives only the number of anchors; with --no-autoanchor or a teacher it needs a list of them per level")
    if not config.no_autoanchor:
        report = auto_anchors(train_set, height, base.network.anchors, base.network.strides, hyper.anchor_t, config.seed, provisional)
        lines += report.lines()
        anchors = report.anchors if report.changed else None
    if train_set.names != base.names:
        known = len(known_classes(base.names, train_set.names))
        lines.append(f"classes: {len(train_set.names)} instead of {len(base.names)}; {known} of them known to the network, the others start fresh")
    return adapted(base, train_set.names, height, anchors, config.seed), lines
