"""Training from options or from a run to resume, and the files that it leaves; sparsity training and fine-tuning share its loop and its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from octrim.errors import InputError
from octrim.evaluate.evaluation import Evaluation
from octrim.evaluate.result_files import write_evaluation
from octrim.evaluate.val import evaluate
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.options import from_python
from octrim.pruning.fractions import LIVE
from octrim.pruning.plan_files import write_plan
from octrim.runs import typed
from octrim.targets.opening import open_session
from octrim.training.checkpoint import BEST, LAST, State, chooses_best
from octrim.training.options import Training
from octrim.training.setup import Setup, begun, resumed

if TYPE_CHECKING:
    from octrim.training.cutting import GradualCut
    from octrim.training.distillation import Distillation
    from octrim.training.record import Record
    from octrim.training.sparsity import Penalty

T = TypeVar("T", bound=Training)


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training: its folder, the file with the resulting weights, the network in it, and its evaluation (None without a validation part).

    The result is the network of the last epoch. Only where `--patience` has ended the training early, and in runs of OcTrim 0.1 that went on, it is
    that of the best epoch: patience lets the validation part choose the epoch.
    """

    folder: Path
    weights: Path
    model: Model
    evaluation: Evaluation | None


def train(**options: Any) -> Trained:
    """Train a detector from Python: `train(weights="yolov5n.pt", data="bccd", epochs=50)`.

    Takes the options of `octrim train`, with underscores, and leaves a run folder as that command does. Raises InputError for bad input, and for
    several devices, which only the command starts.
    """
    return run_training(alone(from_python(Training, options)))


def run_training(config: Training) -> Trained:
    """Train in this process, which may be one of several that a launcher has started."""
    return to_the_end(begun(config) if config.resume is None else resumed(config))


def alone(config: T) -> T:
    """The configuration of a training in one process. Raises InputError where it asks for several processes."""
    if (config.devices or 1) > 1:
        raise InputError(f"devices: several processes are started by `octrim {config.command} --devices N`, not from Python")
    return config


def to_the_end(setup: Setup, distillation: Distillation | None = None, penalty: Penalty | None = None, cut: GradualCut | None = None) -> Trained:
    """Train from the state of `setup` to the end, and write the results. distillation, penalty, cut: as `fit` takes them."""
    from octrim.training.cutting import told_of_the_last_cut, whole_cut
    from octrim.training.fit import fit
    from octrim.training.record import Record

    with Record(setup.run, setup.config, setup.val_set) as record:
        record.write_results(setup.state)
        sets = (setup.train_set, setup.val_set, setup.state, record, setup.world)
        state = fit(setup.config, setup.hyper, setup.model, *sets, distillation, penalty, cut, setup.unlabelled)
        if cut is not None and setup.run is not None:
            write_plan(whole_cut(state), setup.run.path)
            for line in told_of_the_last_cut(state):
                setup.run.print(f"shape of the last cut: {line}")
        return _finished(setup, state, record)


def _finished(setup: Setup, state: State, record: Record) -> Trained:
    """Evaluate the resulting weights, write what `octrim val` writes, and print the table."""
    folder = setup.run.path if setup.run is not None else Path()
    weights, epoch = folder / LAST, len(state.rows)
    if state.epoch < setup.config.epochs or chooses_best(state):
        weights, epoch = folder / BEST, state.best[1] + 1
    model, evaluation = setup.model, None
    if setup.run is not None:
        model = load(weights)
        if setup.val_set is not None:
            evaluation = evaluate(
                open_session(model, precision="int8" if model.scales else "fp32"),
                setup.val_set,
                model.image_size,
                setup.config.batch,
                seed=setup.config.seed,
            )
            write_evaluation(folder, setup.val_set, evaluation, weights.name)
            record.show_predictions(evaluation)
            setup.run.print(evaluation.table())
            for name, (low, high) in evaluation.interval.items():
                setup.run.print(f"{name} 95 % interval {low:.4f} to {high:.4f} (pictures resampled)")
        chosen = "last" if weights.name == LAST else "best"
        setup.run.print(f"{chosen} epoch, {epoch} of {len(state.rows)}: {weights} ({weights.stat().st_size / 1e6:.2f} MB)")
        if weights.name == LAST and state.best[1] + 1 != epoch:
            setup.run.print(f"best epoch by the validation part, which flatters: {state.best[1] + 1}: {folder / BEST}")
        setup.run.print(f"next: {_next_command(setup.config, weights)}")
    return Trained(folder, weights, model, evaluation)


def _next_command(config: Any, weights: Path) -> str:
    match config.command:
        case "sparsify":
            return typed("prune", "--weights", weights, "--keep", LIVE, "--compensate")
        case "finetune":
            return typed("export", "--weights", weights, *(("--precision", "int8") if config.qat else ()))
    return typed("prune", "--weights", weights)
