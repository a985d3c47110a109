"""Start of a training: options, data, network and run folder, checked before anything is written, or all of it read from a run to resume."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.digests import data_digest, same_data
from octrim.data.open import open_labelled
from octrim.data.overlap import trained_on
from octrim.data.unlabelled import Unlabelled, open_unlabelled
from octrim.errors import InputError, counted, shown
from octrim.network.adapt import adapted, known_classes, with_activation
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.dropping import rows_to_drop, told, without_rows
from octrim.network.folding import folded
from octrim.network.model import Model, sha256
from octrim.network.options import image_size, model_from
from octrim.network.rows import Network
from octrim.network.yolov5 import anchors_to_fit
from octrim.resuming import Resumed, absolute, run_to_resume
from octrim.runs import Run, new_run, open_run, require_space
from octrim.shipped import network_file
from octrim.training.anchors import auto_anchors
from octrim.training.checkpoint import CHECKPOINT, QUANTIZATION, State, load_state, training_bytes
from octrim.training.freezing import frozen
from octrim.training.hyper import Hyperparameters, read_hyperparameters, stored_hyperparameters
from octrim.training.options import Distilled, Finetuning, Training
from octrim.training.parallel import World, world
from octrim.training.pictures import save_labels
from octrim.training.vectors import kind_of, unflattened


@dataclass(eq=False)
class Setup:
    """Everything that a training needs, checked before it starts. run: the run's folder; None in all processes but the first. unlabelled: pictures
    without labels that join the training, or None. whole: the table of the network before rows were dropped from it, None where none were.
    taught: the network with the activation that its weights were trained with, None in a run that goes on."""

    config: Any
    hyper: Hyperparameters
    model: Model
    train_set: Dataset
    val_set: Dataset | None
    state: State
    run: Run | None
    world: World
    unlabelled: Unlabelled | None = None
    whole: Network | None = None
    taught: Model | None = None


def begun(config: Training, examine: Callable[[Model, Any, Network | None], object] | None = None) -> Setup:
    """Set up a new training. Raises InputError for whatever does not fit together, before the run's folder is made.

    examine: called with the network, the options and `Setup.whole` before anything is written; it may raise InputError, too.
    """
    check(config)
    config = absolute(config)
    hyper = read_hyperparameters(config.hyp)
    if config.lr0 is not None:
        hyper = dataclasses.replace(hyper, lr0=config.lr0)
    hyper = dataclasses.replace(hyper, box=hyper.box * config.box_weight)
    here = world(choose_device(config.device, config.devices, config.sync_bn))
    base = model_from(config, anchors_to_fit=True)
    train_set, val_set = _datasets(config, base.names)
    unlabelled = _unlabelled(config, train_set, val_set, here)
    gone = rows_to_drop(base.network, config.patterns, config.strides) if isinstance(config, Finetuning) else ()
    model, lines = _fitted(config, without_rows(base, gone), train_set, hyper)
    if config.weights is not None:
        model = dataclasses.replace(model, lineage=(*model.lineage, {"action": "start", "weights": Path(config.weights).name}))
    whole = None
    if gone:
        lines.append(f"dropped: {told(base.network, gone)}")
        model = dataclasses.replace(model, lineage=(*model.lineage, {"action": "drop", "rows": list(gone)}))
        whole = adapted(base, train_set.names, model.image_size).network
    if isinstance(config, Finetuning) and config.qat:
        model, hyper = with_roundings(model, base, config), dataclasses.replace(hyper, warmup_epochs=0.0)
        lines.append(f"int8: {len(model.scales)} scales, batch norm folded, no warm-up; it is evaluated in int8")
    taught = model
    if isinstance(config, Finetuning) and config.activation is not None:
        model = with_activation(model, config.activation)
        before = _activations(base)
        told_of = "which the network has already" if before == config.activation else f"in place of {before}"
        lines.append(f"activation: {config.activation}, {told_of}")
    frozen([name for name in tensor_shapes(model.network) if kind_of(name) < 3], config.freeze)  # raises InputError for a pattern that fits nothing
    extra: dict[str, Any] = {"hyper": dataclasses.asdict(hyper), "weights": sha256(network_file(config.weights)) if config.weights else None}
    if unlabelled is not None:
        extra["unlabelled"] = unlabelled.facts()
    if model.scales:
        extra[QUANTIZATION] = {name: scale.tolist() for name, scale in model.scales.items()}
    state = State(model.network, model.names, model.image_size, model.lineage, data_digest(train_set, val_set), {}, extra=extra)
    if examine is not None:
        examine(model, config, whole)
    require_space(config.project or ".", training_bytes(model.network))
    if here.first and config.exist_ok:
        _forget(config)
    run = new_run(config) if here.first else None
    if run is not None:
        save_labels(train_set, run.path / "labels.png", model.image_size, model.network.anchors, hyper.anchor_t)
    _tell(run, [*_about(config, train_set, val_set, hyper), *_about_unlabelled(unlabelled, train_set), *lines], model)
    return Setup(config, hyper, model, train_set, val_set, state, run, here, unlabelled, whole, taught)


def _forget(config: Training) -> None:
    """Remove the checkpoint of an earlier training in the folder of a new one, which would be taken for the new one's after an early kill.

    Raises InputError where another process works in the folder.
    """
    folder = Path(config.project or f"runs/{config.command}") / config.name
    if (folder / CHECKPOINT).is_file():
        open_run(folder)
        (folder / CHECKPOINT).unlink()


def resumed(config: Training) -> Setup:
    """Set up the training that `config.resume` names, where it stands. Raises InputError for a damaged folder, and data of other classes."""
    folder = Path(config.resume or "")
    state = load_state(folder / CHECKPOINT)
    resuming = to_resume(config)
    resuming.require("data", *(("teacher", "unlabelled") if getattr(resuming.config, "distill", "none") != "none" else ()))
    if config.weights is not None:
        _same_weights(config.weights, state)
    config = resuming.config
    check(config)
    try:
        hyper = stored_hyperparameters(state.extra.get("hyper"))  # the recipe's file may have changed since the run began
    except InputError as error:
        raise InputError(f"{folder / CHECKPOINT}: a damaged checkpoint: {error}") from None
    here = world(choose_device(config.device, config.devices, config.sync_bn))
    train_set, val_set = _datasets(config, state.names)
    if state.names != train_set.names:
        raise InputError(f"{config.resume}: trains the classes {shown(state.names)}; {config.data} now has {shown(train_set.names)}")
    unlabelled = _unlabelled(config, train_set, val_set, here)
    if state.extra.get("unlabelled") != (None if unlabelled is None else unlabelled.facts()):
        raise InputError(f"{_named(config)}: not the unlabelled pictures that {folder} began with")
    lines = [f"resumed after {state.epoch} epochs and {state.batch} batches"]
    if not same_data(state.data, (train_set, val_set), resuming.began.data, config.data):
        lines.append("the data set is not what it was when this run began: its results will not be those of an undisturbed run")
    state.data = data_digest(train_set, val_set)
    if state.waiting and not state.waiting_pictures:  # OcTrim 0.1 did not count pictures; all batches but an epoch's last one are full
        batches = -(-len(train_set) // config.batch)
        last = [(state.batch - 1 - back) % batches for back in range(state.waiting)]
        state.waiting_pictures = sum(min(config.batch, len(train_set) - number * config.batch) for number in last)
    model = Model(state.network, unflattened(state.network, state.arrays["average"]), state.names, state.image_size, state.lineage, state.scales)
    run = open_run(folder) if here.first else None
    if run is not None:
        for leftover in (*folder.glob(".*-*.safetensors"), *(folder / CHECKPOINT).parent.glob(".*-*.safetensors")):
            leftover.unlink(missing_ok=True)  # left by a write that was killed
        resuming.keep()
    _tell(run, [*_about(config, train_set, val_set, hyper), *_about_unlabelled(unlabelled, train_set), *lines], model)
    return Setup(config, hyper, model, train_set, val_set, state, run, here, unlabelled)


def to_resume(config: Training) -> Resumed:
    """The run that `config.resume` names. Options that may be given with it: devices, device, workers, cache, and the places of data, unlabelled
    pictures, teacher and weights."""
    return run_to_resume(config, ("devices", "device", "workers", "cache", "data", "unlabelled", "teacher", "weights"))


def _same_weights(weights: str, state: State) -> None:
    """Raise InputError where `weights` are not those that the run began with. A resumed run reads its checkpoint instead of them."""
    if not network_file(weights).is_file():
        raise InputError(f"{weights}: no such file; leave out --weights: a run that goes on has its own")
    digest = sha256(network_file(weights))
    if state.extra.get("weights", digest) != digest:  # OcTrim 0.1 did not note the weights
        raise InputError(f"{weights}: not the weights that this run began with; leave them out: a run that goes on has its own")


def check(config: Training) -> None:
    """Raise InputError for options that contradict each other or that this machine cannot fulfil."""
    devices = 1 if config.devices is None else config.devices
    if config.batch % devices:
        raise InputError(f"batch is {config.batch}, expected a multiple of the {devices} devices that share it")
    if config.tensorboard and find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs tensorboardX: pip install 'octrim[tensorboard]'")


def choose_device(device: str, devices: int | None = None, sync_bn: bool = False) -> str:
    """Make Paddle use the device that the options name, and return it: "cpu" or "gpu". Raises InputError where this machine does not have it."""
    from octrim.backends.paddle import gpus, use_device  # imported late: it takes seconds, and errors in options are told first

    count = gpus()
    if device != "cpu" and count:
        if (devices or 1) > count:
            raise InputError(f"devices is {devices}; there are {count} GPUs")
        return "gpu"
    use_device(device)  # refuses a GPU that is not there
    if sync_bn:
        raise InputError("sync_bn needs GPUs: Paddle has no synchronised batch norm for processors")
    use_device("cpu")
    return "cpu"


def check_data(config: Training, names: tuple[str, ...]) -> None:
    """Raise InputError for data that no training can be set up with. names: classes that the network knows."""
    _datasets(config, names)


def _datasets(config: Training, names: tuple[str, ...]) -> tuple[Dataset, Dataset | None]:
    """The training and the validation part of the data set; None for the latter where there is none and the options do not ask to evaluate."""
    train_set = _part(config, "train", names)
    try:
        val_set = _part(config, "val", names)
    except InputError as error:
        if not config.noval:
            raise InputError(f"{error}; --noval trains all the same") from None
        val_set = None
    if val_set is not None and val_set.names != train_set.names:
        raise InputError(f"{config.data}: train has the classes {shown(train_set.names)}, val {shown(val_set.names)}")
    return train_set, val_set


def _part(config: Training, split: str, names: tuple[str, ...]) -> Dataset:
    dataset = open_labelled(config.data, split, names, "learn" if split == "train" else "measure", **config.reading())
    if config.single_cls:
        return dataclasses.replace(dataset, names=("object",), labels=np.zeros_like(dataset.labels), category_ids=(0,))
    return dataset


def _unlabelled(config: Training, train_set: Dataset, val_set: Dataset | None, here: World) -> Unlabelled | None:
    """The unlabelled pictures that the options name, where the command has such options; else None."""
    if not isinstance(config, Distilled) or not config.unlabelled:
        return None
    return open_unlabelled(config.unlabelled, train_set, val_set, config.batch, here.size, config.unlabelled_share, **config.reading())


def _named(config: Training) -> str:
    """The sources of unlabelled pictures for an error; empty where the command has none."""
    return ", ".join(config.unlabelled) if isinstance(config, Distilled) else ""


def _about_unlabelled(unlabelled: Unlabelled | None, train_set: Dataset) -> list[str]:
    return [] if unlabelled is None else [unlabelled.line(len(train_set)), *unlabelled.dataset.lines()]


def _fitted(config: Training, base: Model, train_set: Dataset, hyper: Hyperparameters) -> tuple[Model, list[str]]:
    """The network fitted to the data: classes, picture size and anchors; and lines for people about what was changed."""
    height, width = image_size(config.imgsz, base.image_size, base.network.stride)
    if height != width:
        raise InputError(f"imgsz is {height} {width}; training pictures are square, give one side")
    lines, anchors = [], None
    provisional = config.cfg is not None and anchors_to_fit(config.cfg)
    if provisional and config.no_autoanchor:
        raise InputError(
            f"{config.cfg}: gives only the number of anchors; with --no-autoanchor or a teacher it needs a list of them per level, "
            "and octrim compress --student takes the teacher's"
        )
    if not config.no_autoanchor:
        report = auto_anchors(train_set, height, base.network.anchors, base.network.strides, hyper.anchor_t, config.seed, provisional)
        lines += report.lines()
        anchors = report.anchors if report.changed else None
    if train_set.names != base.names and config.cfg is None:  # fresh weights know no class
        known = len(known_classes(base.names, train_set.names))
        lines.append(f"classes: {len(train_set.names)} instead of {len(base.names)}; {known} of them known to the network, the others start fresh")
    return adapted(base, train_set.names, height, anchors, config.seed), lines


def with_roundings(model: Model, base: Model, config: Finetuning) -> Model:
    """The network for a training with the roundings of int8: with the scales that `base` was read with, and batch norm folded.

    Raises InputError where there are no scales, and for options that would change what they belong to.
    """
    if not base.scales:
        raise InputError(f"--qat trains a quantized network, and {config.weights or config.cfg} has no scales: octrim quantize makes them")
    given = [name for name in ("activation", "drop", "levels", "keep", "budget", "keep_map") if getattr(config, name) not in (None, ())]
    if given:
        raise InputError(
            f"--qat keeps the scales of the network, which --{given[0].replace('_', '-')} would make wrong: do that first, then octrim quantize"
        )
    return dataclasses.replace(folded(model), scales=base.scales)


def _activations(model: Model) -> str:
    """The activations of a network, the most frequent one first."""
    found = Counter(row.activation for row in model.network.convs if row.activation not in (None, "sigmoid"))
    return ", ".join(str(name) for name, _ in found.most_common())


def _about(config: Training, train_set: Dataset, val_set: Dataset | None, hyper: Hyperparameters) -> list[str]:
    """Lines for people about the data, faults of it, and parts of the recipe that cannot be done."""
    pictures, classes = counted(len(train_set), "picture"), counted(len(train_set.names), "class", "classes")
    counts = f"{pictures} to train on, {len(val_set) if val_set else 0} to validate, {classes}"
    parts = [part for part in (train_set, val_set) if part is not None]
    told = dict.fromkeys(line for part in parts for line in part.lines())
    return [f"{config.data}: {counts}", *told, *trained_on(train_set, val_set), *hyper.notes]


def _tell(run: Run | None, lines: list[str], model: Model) -> None:
    """Print the lines, and the network's cost."""
    if run is None:
        return
    cost = network_cost(model.network, model.image_size)
    for line in lines:
        run.print(line)
    run.print(f"network: {cost.parameters:,} parameters, {cost.macs / 1e6:,.0f} M MACs at {model.image_size} px, {cost.channels:,} channels")
