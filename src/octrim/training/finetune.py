"""Training of a cut network, with the network before the cut as its teacher."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from octrim.errors import InputError
from octrim.latency.budget import Timed, advice, aligned_by, chosen_table, fitted_plan, refuse_unused_times, wants_times
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.options import image_size, model_from
from octrim.network.rows import Network
from octrim.options import from_python
from octrim.pruning.fractions import LIVE, require_matches
from octrim.pruning.plan_files import read_keep_map
from octrim.pruning.spectra import PICTURES, fraction_align, measured_by_variance
from octrim.runs import wide_console
from octrim.training.options import Distilled, Finetuning
from octrim.training.parallel import World, launched
from octrim.training.setup import Setup, begun, check_data, resumed
from octrim.training.train import Trained, alone, to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from octrim.latency.table import LatencyTable
    from octrim.pruning.plan import Plan
    from octrim.training.chosen_rows import ChosenRows
    from octrim.training.cutting import GradualCut
    from octrim.training.distillation import Distillation

T = TypeVar("T", bound=Distilled)


def finetune(**options: Any) -> Trained:
    """Fine-tune from Python: `finetune(weights="small.safetensors", teacher="best.safetensors", data="bccd")`.

    Takes the options of `octrim finetune`, and leaves a run folder as that command does. Raises InputError for bad input.
    """
    return run_finetuning(alone(from_python(Finetuning, options)))


def run_finetuning(config: Finetuning) -> Trained:
    """Fine-tune in this process, which may be one of several that a launcher has started."""
    from octrim.training.cutting import GradualCut

    if config.resume is None:
        cut = gradual_cut(config)
        config, chosen = with_chosen_rows(config, cut)
        setup = begun(with_teacher(config), partial(_examined, cut=cut))
        if chosen is not None and setup.run is not None:
            chosen.tell(setup.run)
        if cut is not None:
            cut = _begun(_settled(cut.sparing(setup.model.network, config.freeze), setup), setup)
    else:
        setup = resumed(config)
        cut = GradualCut.remembered(setup.state)
    if setup.run is not None and setup.config.teacher is None:  # a resumed run has the teacher in setup.config only
        setup.run.print("no --teacher: learning from the labels alone")
    return to_the_end(setup, distillation(setup), cut=cut)


def with_chosen_rows(config: Finetuning, cut: GradualCut | None) -> tuple[Finetuning, ChosenRows | None]:
    """The options with the blocks and levels that are chosen by measuring in place of `auto`, and the choice; None where nothing is chosen.

    cut: what is to be left. Raises InputError where the choice cannot be made.
    """
    if not any(config.chooses) or config.qat:  # a training with --qat drops nothing, and says so
        return config, None
    from octrim.training.dropping import choose_rows, require_choosable
    from octrim.training.labelled import open_in_classes

    require_choosable(config, config.budget)
    if _several(config):
        raise InputError("--drop auto and --levels auto are not for several --devices: choose with octrim prune --dry-run, and give what it chose")
    assert cut is not None  # there is a budget
    model = model_from(config)
    size = image_size(config.imgsz, model.image_size, model.network.stride)
    model = dataclasses.replace(model, image_size=max(size))

    def planned(drop: Sequence[str], levels: Sequence[int], criterion: str) -> Plan:
        left = without_rows(model, rows_to_drop(model.network, drop, levels))
        return cut.sparing(left.network, config.freeze).goal(left, model.network, criterion)

    dataset, _ = open_in_classes(config.data, "train", model.names, **config.reading())
    chosen = choose_rows(model, dataset, size, config, cut.latency, planned, console=wide_console())
    return dataclasses.replace(config, drop=chosen.drop, levels=chosen.levels), chosen


def _begun(cut: GradualCut, setup: Setup) -> GradualCut | None:
    """Note in the training's state what it cuts, and return the cut; None where the rows that were dropped already meet what is asked for."""
    goal = cut.check(setup.model, setup.whole)
    if goal.after.channels == goal.before.channels:
        if setup.run is not None:
            setup.run.print("without the dropped rows the network is as small as it is to be: no channels are cut")
        return None
    cut.begin(setup.model, setup.state, setup.whole)
    return cut


def gradual_cut(config: Finetuning) -> GradualCut | None:
    """What the options say about cutting while training; None where nothing is to be cut. Raises InputError where they contradict each other."""
    from octrim.training.cutting import GradualCut

    if config.keep is None and config.budget is None and config.keep_map is None:
        given = [name for name in _ABOUT_CUTTING if getattr(config, name) != getattr(type(config), name)]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} is about cutting: say with --keep, --budget or --keep-map what is to be left")
        return None
    if config.keep == LIVE:
        raise InputError(f"--keep {LIVE} is for octrim prune: in fine-tuning dead channels come to life again; cut them first")
    refuse_unused_times(config, config.budget)
    epochs = -(-config.epochs // 3) if config.cut_epochs is None else config.cut_epochs
    if epochs > config.epochs:
        raise InputError(f"cut_epochs is {epochs}, more than all {config.epochs} epochs")
    keep_map = read_keep_map(config.keep_map) if config.keep_map else {}
    criterion = config.criterion or "taylor"
    latency = _times(config)
    align = config.align if isinstance(config.align, int) else aligned_by(latency, config.widths)
    cut = GradualCut(epochs, config.keep, align, config.budget, criterion, config.exclude, keep_map, config.cut_interval, config.seed)
    return dataclasses.replace(cut, latency=latency)


_ABOUT_CUTTING = ("widths", "cut_epochs", "cut_interval", "align", "criterion", "exclude", "latency_table", "runtime", "threads", "precision")
"""Options that mean nothing where no channels are cut."""


def _several(config: Finetuning) -> bool:
    """Whether several processes train together, started by `--devices` or by a launcher on several machines."""
    return (config.devices or 1) > 1 or launched()


def _times(config: Finetuning) -> LatencyTable | None:
    """The latency table for a budget of milliseconds, from a file or measured now. Raises InputError as `chosen_table` does."""
    if not wants_times(config.budget):
        return None
    if _several(config) and config.latency_table is None:
        raise InputError("--budget latency=.. with --devices needs --latency-table: the processes would measure beside each other")
    model = model_from(config)
    size = image_size(config.imgsz, model.image_size, model.network.stride)

    def check() -> None:
        left = without_rows(model, rows_to_drop(model.network, config.patterns, config.strides))
        require_matches(left.network, config.exclude, read_keep_map(config.keep_map) if config.keep_map else {})
        check_data(config, model.names)

    table = chosen_table(config, config.budget, model.network, size, wide_console(), check)
    return table if table is None or config.activation is None else table.with_activation(config.activation)


def _settled(cut: GradualCut, setup: Setup) -> GradualCut:
    """The cut with all that is known before the first step: a latency table corrected by measuring what it would leave by today's weights, and with
    `--widths variance` the number of channels that every group keeps. Several processes measure no times."""
    by_variance = setup.config.widths == "variance"
    if cut.latency is None and not by_variance:
        return cut
    make = _by_variance(cut, setup) if by_variance else partial(_goal, cut, setup)
    if cut.latency is None:
        timed = Timed(make(None))
    elif setup.world.size > 1:
        made, machine = make(cut.latency), cut.latency.machine
        told = f"predicted for {machine}: {cut.latency.predict(made.network):.3g} ms; several processes train, so it was not measured"
        timed = Timed(made, cut.latency, None, (told,))
    else:
        timed = fitted_plan(cut.latency, cut.budget, _whole(setup), make)
    _tell(setup, [*timed.told, *advice(timed, cut.budget, setup.config.drop, _whole(setup))])
    if not by_variance:
        return dataclasses.replace(cut, latency=timed.table)
    before, after = timed.plan.before, timed.plan.after
    totals = f"channels {before.channels:,} → {after.channels:,}, MACs {before.macs:,} → {after.macs:,}"
    _tell(setup, [f"planned by the variance of feature maps: {totals}"])
    return cut.shaped(counted_by_the_first(timed.plan, setup.world), f"variance of feature maps, {timed.plan.settings['budget']}")


def _whole(setup: Setup) -> Network:
    """The network that fractions and budgets are of."""
    return setup.whole or setup.model.network


def _goal(cut: GradualCut, setup: Setup, table: LatencyTable | None) -> Plan:
    return dataclasses.replace(cut, latency=table).check(setup.model, setup.whole)


def _by_variance(cut: GradualCut, setup: Setup) -> Callable[[LatencyTable | None], Plan]:
    """The plan that a latency table gives by the variance of maps on training pictures, within the budget or for the MACs of the fraction in
    multiples of 8. Maps are those of the network that was trained, with its own activation. Raises InputError where no picture can be read."""
    from octrim.training.labelled import drawn

    taught = setup.taught or setup.model
    console = None if setup.run is None else setup.run.console
    paths = drawn(setup.train_set, PICTURES, setup.config.seed).paths
    criterion, lines = measured_by_variance(cut.known_criterion, taught, paths, (taught.image_size, taught.image_size), console)
    _tell(setup, lines)
    if cut.budget is None:
        uniform = _goal(_of_fraction(cut), setup, None)
        cut = dataclasses.replace(cut, keep=None, budget=uniform.macs_budget(_whole(setup)))
    return lambda table: dataclasses.replace(cut, latency=table).goal(setup.model, _whole(setup), criterion)


def _of_fraction(cut: GradualCut) -> GradualCut:
    """The cut to the network whose MACs a plan by variance spends where there is no budget."""
    return dataclasses.replace(cut, align=fraction_align(cut.align, cut.keep_map))


def counted_by_the_first(made: Plan, world: World) -> Plan:
    """The plan with the numbers of channels that the first process has planned: the same sums may differ in the last bits on other machines."""
    counts = world.gather(np.array([[group.after] for group in made.groups], np.float32))[0][:, 0]
    groups = tuple(dataclasses.replace(group, after=int(count)) for group, count in zip(made.groups, counts, strict=True))
    return dataclasses.replace(made, groups=groups)


def _tell(setup: Setup, lines: Sequence[str]) -> None:
    if setup.run is not None:
        for line in lines:
            setup.run.print(line)


def _examined(model: Model, config: Finetuning, whole: Network | None, cut: GradualCut | None) -> None:
    """Raise InputError where the teacher does not fit the network, or the network cannot be cut as the options say."""
    checked_teacher(model, config)
    if cut is None:
        return
    cut = cut.sparing(model.network, config.freeze)
    cut.check(model, whole)
    if config.widths == "variance" and cut.budget is None:
        try:
            _of_fraction(cut).check(model, whole)
        except InputError as error:
            raise InputError(f"{error}; --widths variance counts the MACs of a fraction in multiples of 8: give a --budget") from None


def with_teacher(config: T) -> T:
    """The options for training with a teacher: the anchors stay, because the teacher's outputs refer to them. Raises InputError for bad options."""
    if config.teacher is None and config.distill not in (type(config).distill, "none"):
        raise InputError(f"--distill {config.distill} needs --teacher")
    taught = config.teacher is not None and config.distill != "none"
    if config.teacher_precision != "fp32" and not taught:
        raise InputError(f"--teacher-precision {config.teacher_precision} needs --teacher")
    if config.unlabelled and not taught:
        raise InputError("--unlabelled needs --teacher: without labels, only a teacher says what is on a picture")
    if config.unlabelled_share is not None and not config.unlabelled:
        raise InputError("--unlabelled-share needs --unlabelled")
    used = {"both": ("output_weight", "feature_weight"), "output": ("output_weight",), "feature": ("feature_weight",), "none": ()}[config.distill]
    if taught and not any(getattr(config, name) for name in used):
        raise InputError(f"--distill {config.distill} with {' and '.join(used)} 0 takes nothing from the teacher: give --distill none")
    return dataclasses.replace(config, no_autoanchor=True) if taught else config


def checked_teacher(model: Model, config: Distilled) -> Model | None:
    """The teacher that the options ask for, or None. Raises InputError for a teacher that does not fit the network to train."""
    from octrim.training.distillation import check_teacher
    from octrim.training.teacher import require_precision

    if config.teacher is None or config.distill == "none":
        return None
    require_precision(config.teacher_precision)
    teacher = load(config.teacher)
    check_teacher(teacher, model)
    return teacher


def distillation(setup: Setup) -> Distillation | None:
    """The loss against the teacher that the options ask for, or None. Raises InputError where the teacher changed since the run began."""
    from octrim.training.distillation import Distillation

    config, model = setup.config, setup.model
    teacher = checked_teacher(model, config)
    if teacher is None:
        return None
    digest = _digest(teacher)
    if setup.state.extra.setdefault("teacher", digest) != digest:
        raise InputError(f"{config.teacher}: not the teacher that this run began with")
    weights = (config.output_weight * (config.distill != "feature"), config.feature_weight * (config.distill != "output"))
    return Distillation(teacher, model, setup.hyper, model.image_size, *weights, config.teacher_precision)


def _digest(model: Model) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in model.tensors.items():
        digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()
