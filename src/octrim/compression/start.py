"""Start of a compression: options, data and network, read and checked before anything trains, and compared when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from octrim.atomic import write_text
from octrim.compression.options import Compression
from octrim.compression.planning import checking_criterion, keep_of, planned, sparsity, times_of, with_macs, with_what_must_go
from octrim.compression.presets import Preset, resolved
from octrim.compression.rehearsal import rehearse
from octrim.compression.shapes import equal_shapes
from octrim.compression.student import student_of
from octrim.data.dataset import Dataset
from octrim.data.digests import data_digest, same_data
from octrim.data.open import open_labelled
from octrim.data.unlabelled import Unlabelled, open_unlabelled, places_of
from octrim.errors import InputError, shown
from octrim.latency.budget import aligned_by, costs_by_rows, refuse_unused_times, table_file, wants_times
from octrim.network.adapt import adapted, known_classes, with_activation
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.model import Model, sha256
from octrim.network.options import image_size, model_from
from octrim.options import TeacherPrecision
from octrim.pruning.cut import prune
from octrim.pruning.fractions import LIVE, parse_fraction, require_matches
from octrim.pruning.options import AUTO
from octrim.pruning.plan_files import read_keep_map
from octrim.runs import Run, wide_console
from octrim.training.checkpoint import training_bytes
from octrim.training.dropping import require_choosable
from octrim.training.hyper import read_hyperparameters
from octrim.training.setup import choose_device
from octrim.training.sparsity import PenalisedChannels, Penalty

START = "start.json"
"""File in the run's folder with the preset's numbers and the digests of inputs that the run began with."""

_OLDER_NAMES = {"iterations": "cut_steps"}  # names of a preset's numbers in OcTrim 0.1, and their names today
# Of runs that do not say it: they are older than the choice.
_OLDER_VALUES = {"ema": "published", "finetune_optimizer": "SGD", "box_weight": 1.0, "widths": "importance"}

HYPER = "hyp.yaml"
"""File in the run's folder with a copy of the recipe, where the recipe is a file."""


@dataclass(frozen=True, eq=False)
class Start:
    """Checked options, data and network of a run. base: the network with the data's classes, made for the pictures' size. uncut: the network that is
    cut, base or a student with fresh weights.

    inputs: digests of the inputs that the run reads from outside its folder, by the input's name. unlabelled: pictures without labels that join the
    fine-tuning, or None.
    """

    config: Compression
    preset: Preset
    base: Model
    uncut: Model
    train_set: Dataset
    val_set: Dataset
    keep_map: dict[str, Any]
    inputs: dict[str, str]
    unlabelled: Unlabelled | None = None

    @property
    def steps(self) -> int:
        """Steps in an epoch of fine-tuning, which is one pass over the pictures with labels."""
        labelled = self.preset.finetune_batch - (self.unlabelled.places if self.unlabelled is not None else 0)
        return -(-len(self.train_set) // labelled)


def checked_network(config: Compression, preset: Preset) -> tuple[Model, dict[str, Any]]:
    """The network and the keep-map that the options name. Raises InputError for everything that is wrong with any data."""
    require_choosable(config, config.budget)
    if any(config.chooses) and config.search:
        raise InputError("--search tries shapes without blocks and levels by itself: leave out --drop auto and --levels auto, or --search")
    if not preset.int8 and (config.qat is not None or config.qat_epochs is not None):
        raise InputError(f"--{'qat' if config.qat is not None else 'qat-epochs'} is about the int8 network: give --int8, too")
    if preset.qat == "never" and config.qat_epochs is not None:
        raise InputError("--qat-epochs says how long to train with the roundings of int8, and --qat never does not train: leave one of them out")
    if preset.widths == "variance" and preset.sparsify_epochs:
        raise InputError("--widths variance measures feature maps, and sparsity training sets channels to zero by importance: leave one of them out")
    if config.teacher_precision != "fp32" and preset.distill == "none":
        raise InputError(f"--teacher-precision {config.teacher_precision} needs a teacher: leave out --distill none")
    choose_device(config.device)
    _require_precision(config.teacher_precision)
    read_hyperparameters(config.hyp)
    if config.keep == LIVE:
        raise InputError(f"--keep {LIVE} is for octrim prune; compress cuts while it trains, or what its own --sparsify-epochs left dead")
    keep_map = read_keep_map(config.keep_map) if config.keep_map else {}
    uniform = config.budget is None and (config.student is None or config.cuts_student) and parse_fraction(keep_of(config), "keep") == 1
    if uniform and not (keep_map or config.patterns or config.levels):
        raise InputError("keep is 1: nothing would be cut")
    if uniform and preset.sparsify_epochs:
        raise InputError("keep is 1 where the keep-map says nothing else: sparsity training has nothing to do; give --sparsify-epochs 0")
    model = model_from(config, anchors_to_fit=True)
    height, width = image_size(config.imgsz, model.image_size, model.network.stride)
    if height != width:
        raise InputError(f"imgsz is {height} {width}; training pictures are square, give one side")
    return replace(model, image_size=height), keep_map


def _require_precision(precision: TeacherPrecision) -> None:
    from octrim.training.teacher import require_precision  # imported late: Paddle takes seconds, and errors in options are told first

    require_precision(precision)


def checked_plan(config: Compression, preset: Preset, model: Model, names: Sequence[str], keep_map: dict[str, Any]) -> tuple[Model, Model, Model]:
    """The network with the classes `names`; the network that is cut, which is the same or a student; and the small network, with weights that mean
    nothing, which for a student that is not cut is the student.

    Raises InputError where no such cut can be planned, and where there are not as many shapes of the same cost as are to be tried.
    """
    if preset.train_epochs == 0:
        if config.weights is None:
            raise InputError("train_epochs is 0: fresh weights have to be trained first")
        unknown = [names[number] for number in range(len(names)) if number not in known_classes(model.names, names)]
        if unknown:
            raise InputError(
                f"train_epochs is 0, but {config.weights} does not know {len(unknown)} of the {len(names)} classes of {config.data} "
                f"({shown(unknown[0])}; it knows {shown(model.names)}): train it on this data first"
            )
    base = adapted(model, names, model.image_size, seed=config.seed)
    uncut = base if config.student is None else student_of(config, base)
    return base, uncut, uncut if preset.own_layout else _cut_as_planned(config, preset, uncut, keep_map)


def refuse_long_cuts(preset: Preset) -> None:
    """Raise InputError where channels are to go over more epochs than fine-tuning has, once it is known how many it has."""
    if preset.cut_epochs > preset.finetune_epochs:
        raise InputError(f"cut_epochs is {preset.cut_epochs}, more than the {preset.finetune_epochs} epochs of fine-tuning")


def _cut_as_planned(config: Compression, preset: Preset, uncut: Model, keep_map: dict[str, Any]) -> Model:
    """The network cut as the options say, by channels that mean nothing. Raises InputError as `checked_plan` does."""
    criterion = checking_criterion(config, preset)
    if preset.cut_epochs and preset.cut_steps > 1:
        raise InputError(
            f"cut_epochs is {preset.cut_epochs} and cut_steps is {preset.cut_steps}: cut either within fine-tuning or in steps before it"
        )
    config = with_what_must_go(config, preset, keep_map, uncut, criterion)
    planned(config, preset, keep_map, uncut, uncut.network, preset.cut_steps, criterion)  # one whole cut first: its errors name the given values
    small, counted = uncut, with_macs(config, preset, keep_map, uncut)
    for step in range(1, preset.cut_steps + 1):
        small = prune(small, planned(counted, preset, keep_map, small, uncut.network, step, criterion))
    if preset.sparsify_epochs:
        aim = sparsity(config, preset, keep_map)
        exclude = aim.pop("exclude")
        aim["target"] = parse_fraction(aim["target"], "target")
        PenalisedChannels(uncut.network, exclude).dead_counts(Penalty(None, **aim))
    if small.network == uncut.network:
        multiples = "" if counted == config else "; --widths variance counts the MACs of a fraction in multiples of 8: give a --budget"
        raise InputError(f"nothing would be cut: every convolution keeps all of its channels{multiples}")
    if preset.search:
        equal_shapes(config, keep_map, uncut, preset.search, times_of(config), preset.widths)
    return small


def with_times(config: Compression, preset: Preset, made: bool = True) -> Compression:
    """The options with the file of a latency table where a budget of milliseconds needs one, measured now if there is none; with a number to align
    to; and with `auto` for the blocks to drop where that pays and nothing is said of blocks.

    made: whether the data set exists already. Raises InputError as `table_file` does, and for options about times that are of no use.
    """
    refuse_unused_times(config, config.budget)
    if not wants_times(config.budget):
        return replace(config, align=aligned_by(None, preset.widths)) if config.align == "auto" else config
    model, keep_map = checked_network(config, preset)
    names = model.names
    if config.student is not None:
        model = student_of(config, model)

    def check() -> None:
        left = without_rows(model, rows_to_drop(model.network, config.patterns, config.strides))
        require_matches(left.network, config.exclude, keep_map)
        if made:
            _opened(config, names)

    path = table_file(config, config.budget, model.network, (model.image_size, model.image_size), wide_console(), check)
    config = replace(config, latency_table=path)
    table = times_of(config)
    assert table is not None  # its file was just named
    align = aligned_by(table) if config.align == "auto" else config.align
    drop = (AUTO,) if not config.drop and not preset.search and costs_by_rows(table) else config.drop
    return replace(config, align=align, drop=drop)


def space_needed(start: Start) -> int:
    """Largest number of bytes of disk space that a run takes, as if each of its stages were a training of the network before the cut."""
    trainings = len([stage for stage in start.preset.stages(start.config.control) if stage.network]) + start.preset.cut_steps
    trainings += sum(left for left, _ in start.preset.rounds())
    return trainings * training_bytes(start.base.network)


def checked(config: Compression, preset: Preset, check_names: Callable[[Sequence[str]], None]) -> Start:
    """Read what the options name. Raises InputError for everything that would only show after hours of training.

    check_names: raises InputError for names of classes with which a later stage can do nothing.
    """
    assert config.data is not None  # without data, builtin.with_data has put some in
    model, keep_map = checked_network(config, preset)
    train_set, val_set = _opened(config, model.names)
    check_names(train_set.names)
    base, uncut, small = checked_plan(config, preset, model, train_set.names, keep_map)
    files = {"weights": config.weights, "cfg": config.cfg, "student": config.student, "hyp": config.hyp}
    files |= {"keep-map": config.keep_map, "latency-table": config.latency_table}
    inputs = {what: sha256(Path(path)) for what, path in files.items() if path is not None and Path(path).is_file()}
    inputs["data"] = data_digest(train_set, val_set)
    unlabelled = _unlabelled(config, preset, train_set, val_set)
    if unlabelled is not None:
        inputs["unlabelled"] = unlabelled.digest
    rehearse(small if config.activation is None else with_activation(small, config.activation), preset.int8)  # last, because it takes seconds
    return Start(config, preset, base, uncut, train_set, val_set, keep_map, inputs, unlabelled)


def _opened(config: Compression, names: Sequence[str]) -> tuple[Dataset, Dataset]:
    """The training and the validation part of the data. names: classes that the network knows. Raises InputError for data that cannot be used."""
    train_set = open_labelled(config.data, "train", names, "learn", **config.reading())
    val_set = open_labelled(config.data, "val", names, "measure", **config.reading())
    if val_set.names != train_set.names:
        raise InputError(f"{config.data}: train has the classes {shown(train_set.names)}, val {shown(val_set.names)}")
    return train_set, val_set


def _unlabelled(config: Compression, preset: Preset, train_set: Dataset, val_set: Dataset) -> Unlabelled | None:
    """The unlabelled pictures that the options name, as the fine-tuning takes them. Raises InputError where it has no teacher."""
    if not config.unlabelled:
        if config.unlabelled_share is not None:
            raise InputError("--unlabelled-share needs --unlabelled")
        return None
    if preset.distill == "none":
        raise InputError("--unlabelled needs a teacher, which says what is on a picture without labels: leave out --distill none")
    share = config.unlabelled_share
    found = open_unlabelled(config.unlabelled, train_set, val_set, preset.finetune_batch, 1, share, **config.reading())
    if preset.sparsify_epochs:  # sparsity training takes them, too, in batches of its own size
        places_of(share, len(train_set), len(found.dataset), preset.batch, 1)
    return found


def remember(run: Run, start: Start) -> None:
    """Write the start of the run into its folder; from then on it can be resumed."""
    content = {"preset": asdict(start.preset), "sha256": start.inputs}
    write_text(run.path / START, json.dumps(content, indent=1))


def remembered(folder: Path, config: Compression) -> tuple[Preset, dict[str, str] | None]:
    """The preset's numbers that a run began with, whatever the presets are now, and its inputs' digests, None where it was killed before it began.

    Raises InputError for a damaged file.
    """
    path = folder / START
    if not path.is_file():
        return resolved(config), None
    try:
        content = json.loads(path.read_text("utf-8"))
        numbers: dict[str, Any] = {_OLDER_NAMES.get(str(name), str(name)): value for name, value in content["preset"].items()}
        for name, value in _OLDER_VALUES.items():
            numbers.setdefault(name, value)
        preset, inputs = Preset(**numbers), dict(content["sha256"])
        if any(type(getattr(preset, name)) is not kind for name, kind in get_type_hints(Preset).items()):
            raise TypeError
        if not all(isinstance(text, str) for text in (*inputs, *inputs.values())):
            raise TypeError
        return preset, inputs
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: damaged; start a new run") from None


def refuse_changes(folder: Path, start: Start, before: dict[str, str], data: str | None) -> None:
    """Raise InputError where an input has changed since the run began. before: digests from then; data: where the data lay then."""
    if same_data(before.get("data", ""), (start.train_set, start.val_set), data, start.config.data):
        before = before | {"data": start.inputs["data"]}
    for what in before | start.inputs:
        if before.get(what) != start.inputs.get(what):
            named = getattr(start.config, what.replace("-", "_"))
            name = ", ".join(named) if isinstance(named, tuple) else named
            raise InputError(
                f"{name} ({what}) has changed since {folder} began (sha256 {before.get(what, 'none')[:12]}, now "
                f"{start.inputs.get(what, 'none')[:12]}): its stages would not belong together; start a new run"
            )


def resolved_config(config: Compression, preset: Preset) -> Compression:
    """The options with the preset's numbers filled in, for config.yaml. A criterion that was not given stays open: it depends on the stage. So does
    what a search, int8 or a student would need where there is none: these options hold no 0."""
    own = {name: value for name, value in asdict(preset).items() if hasattr(config, name) and name != "criterion"}
    own |= {name: own[name] or None for name in ("search", "search_epochs", "qat_epochs", "student_epochs")}
    own["qat"] = own["qat"] if preset.int8 else None
    return replace(config, **own, keep=keep_of(config))
