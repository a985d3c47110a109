"""`octrim prune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from octrim.latency.options import TimeOptions
from octrim.options import CriterionName, Folder, ImageSize, Range, Reading, Text, Widths
from octrim.pruning.options import Cutting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from octrim.data.pictures import Readable
    from octrim.latency.budget import Timed
    from octrim.latency.table import LatencyTable
    from octrim.network.model import Model
    from octrim.pruning.importance import Criterion
    from octrim.pruning.plan import Plan
    from octrim.runs import Run
    from octrim.training.chosen_rows import ChosenRows


@dataclass(frozen=True)
class Prune(Cutting, TimeOptions, Reading, Folder):
    """Cut channels, and drop blocks and levels: plan, show the plan, cut, and write one model file."""

    command: ClassVar[str] = "prune"

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8; 1 cuts none), or live: all but those that sparsity training left dead;
    with --budget the least that any keeps."""
    criterion: CriterionName = "signal"
    """Criterion by which channels are ranked."""
    data: Text = None
    """Labelled data for the criterion taylor, and for --drop auto and --levels auto: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO
    annotation file. For --widths variance pictures are enough (folder, glob, data set)."""
    widths: Widths = "importance"
    """What says how many channels each group keeps: importance within --budget, and --keep alike everywhere without one; or the variance of its
    feature maps on the pictures of --data, within --budget, or for the MACs that --keep leaves in multiples of 8; keep-map.json in the run's folder
    then has the counts. Which channels stay is the criterion's."""
    imgsz: ImageSize = None
    """Side, or height and width, that the plan counts MACs for."""
    compensate: bool = False
    """Put the constant that each cut channel stood for into its consumers."""
    reconstruct: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set) on which the weights behind each cut are fitted to what the original computes; feature maps wait on disk."""
    recalibrate: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set) on which batch-norm statistics are moved by as much as the cut has moved them; feature maps wait on disk."""
    pictures: Annotated[int, Range(1)] = 200
    """Largest number of pictures used by --widths variance, --reconstruct, --recalibrate and the criterion taylor; memory does not grow with it."""
    dry_run: bool = False
    """Show and write the plan, and cut nothing."""

    def run(self) -> None:
        """Plan, show the plan, and unless `dry_run` cut and write the model. The plan's files are written either way."""
        from octrim.runs import new_run

        asked, chosen, notes = self._with_chosen_rows(self._asked())
        timed, more = self._planned(asked)
        pictures = self._pictures_to_mend_by()
        run = new_run(self)
        for line in (*notes, *more):
            run.print(line)
        if chosen is not None:
            chosen.tell(run)
        self._tell(run, asked, timed)
        self._write(run, asked, timed)
        if self.dry_run:
            run.print(f"plan only, nothing was cut: {run.path}")
        else:
            self._cut(run, asked, timed.plan, pictures)

    def _asked(self) -> _Asked:
        """What the options ask for. Raises InputError where they contradict each other, or do not fit the network.

        A latency table that is needed is measured, which takes minutes; whatever else can be wrong is told before.
        """
        from octrim.data.picture_paths import picture_paths
        from octrim.errors import InputError
        from octrim.latency.budget import aligned_by, chosen_table, refuse_unused_times
        from octrim.network.dropping import rows_to_drop, without_rows
        from octrim.network.options import image_size, model_from
        from octrim.pruning.fractions import LIVE, require_matches
        from octrim.pruning.plan_files import read_keep_map
        from octrim.runs import wide_console

        model = model_from(self)
        keep_map = read_keep_map(self.keep_map) if self.keep_map else {}
        size = image_size(self.imgsz, model.image_size, model.network.stride)
        refuse_unused_times(self, self.budget, predicts=True)
        if self.widths == "variance" and self.data is None:
            raise InputError("--widths variance needs --data: pictures on which the variance of feature maps is measured")
        if self.widths == "variance" and self.keep == LIVE and self.budget is None:
            raise InputError(f"--keep {LIVE} says by itself how many channels each group keeps: leave out --widths variance, or give a --budget")

        def check() -> None:
            left = without_rows(model, rows_to_drop(model.network, self.patterns, self.strides))
            require_matches(left.network, self.exclude, keep_map)
            if self.widths == "variance":
                picture_paths(self.data or "", self.pictures, self.seed, **self.reading())

        table = chosen_table(self, self.budget, model.network, size, wide_console(), check)
        align = aligned_by(table, self.widths) if self.align == "auto" else self.align
        return _Asked(model, size, self.keep, align, self.exclude, keep_map, self.seed, self.budget, self.patterns, self.strides, table)

    def _with_chosen_rows(self, asked: _Asked) -> tuple[_Asked, ChosenRows | None, list[str]]:
        """What is asked for with the blocks and levels that are chosen by measuring, the choice, None where there is none, and lines for people.

        Raises InputError where they are to be chosen and cannot be.
        """
        if not any(self.chooses):
            return asked, None, []
        # Only this choice needs Paddle.
        from octrim.errors import InputError
        from octrim.pruning.budget import UnmetBudgetError
        from octrim.runs import wide_console
        from octrim.training.dropping import PICTURES, choose_rows, require_choosable
        from octrim.training.labelled import open_in_classes

        require_choosable(self, self.budget)
        if self.data is None:
            try:
                asked.plan("random")
            except UnmetBudgetError as error:
                raise InputError(f"{error}; --drop auto and --levels auto need --data, on which blocks and levels are measured") from None
            return asked, None, ["--drop auto and --levels auto need --data, on which blocks and levels are measured: only channels are cut"]

        def planned(drop: Sequence[str], levels: Sequence[int], criterion: str) -> Plan:
            return replace(asked, drop=tuple(drop), levels=tuple(levels)).plan(criterion)

        dataset, notes = open_in_classes(self.data, "train", asked.model.names, **self.reading())
        pictures = min(self.pictures, PICTURES)
        chosen = choose_rows(asked.model, dataset, asked.size, self, asked.table, planned, pictures, wide_console(), notes.append)
        return replace(asked, drop=chosen.drop, levels=chosen.levels), chosen, notes

    def _planned(self, asked: _Asked) -> tuple[Timed, list[str]]:
        """The plan, and lines for people about the data by which channels were ranked and counted. Raises InputError where there is none."""
        from octrim.data.picture_paths import picture_paths
        from octrim.latency.budget import Timed, fitted_plan
        from octrim.pruning.spectra import fraction_align, measured_by_variance
        from octrim.runs import wide_console

        criterion, lines = self._ranking(asked)
        if self.widths == "variance":
            if asked.budget is None:
                uniform = replace(asked, align=fraction_align(asked.align, asked.keep_map), table=None).plan("random")
                asked = replace(asked, keep=None, budget=uniform.macs_budget(asked.model.network))
            paths = picture_paths(self.data or "", self.pictures, self.seed, **self.reading())
            criterion, more = measured_by_variance(criterion, asked.left, paths, asked.size, wide_console())
            lines += more
        if asked.table is None:
            return Timed(asked.plan(criterion)), lines
        timed = fitted_plan(asked.table, self.budget, asked.model.network, lambda table: replace(asked, table=table).plan(criterion))
        return timed, lines

    def _ranking(self, asked: _Asked) -> tuple[str | Criterion, list[str]]:
        """The criterion that ranks channels, and lines for people about the data that it needs."""
        if self.criterion != "taylor":
            return self.criterion, []
        # Only this criterion needs Paddle and a loss.
        from octrim.runs import wide_console
        from octrim.training.gradients import taylor_on

        asked.plan("random")  # options that make no sense are told before gradients are computed
        return taylor_on(asked.left, self.data, asked.size, self.pictures, self.seed, wide_console(), **self.reading())

    def _pictures_to_mend_by(self) -> dict[str, Readable]:
        """The pictures of `reconstruct` and `recalibrate`, by what the option says. Raises InputError where none of them can be read."""
        from octrim.data.picture_paths import picture_paths
        from octrim.data.pictures import Readable

        sources = [data for data in (self.reconstruct, self.recalibrate) if data]
        pictures = {data: Readable(picture_paths(data, self.pictures, self.seed, **self.reading())) for data in sources}
        for readable in pictures.values():
            readable.require()
        return pictures

    def _tell(self, run: Run, asked: _Asked, timed: Timed) -> None:
        """Print the plan, and what is known of its network's time."""
        from octrim.latency.budget import advice
        from octrim.pruning.fractions import LIVE

        run.print(timed.plan.table())
        if timed.plan.network == asked.model.network:
            none_dead = "no channel is dead, or too few for a multiple of --align: nothing is cut (octrim sparsify lets channels die)"
            run.print(none_dead if self.keep == LIVE else "nothing is cut: the network keeps all of its channels and rows")
        for line in (*timed.told, *advice(timed, self.budget, self.drop, asked.model.network)):
            run.print(line)

    def _write(self, run: Run, asked: _Asked, timed: Timed) -> None:
        """Write the files of the plan into the run's folder, and print the command that trains its shape where that is said by a keep-map."""
        from octrim.latency.table import write_table
        from octrim.pruning.plan_files import write_keep_map, write_plan

        write_plan(timed.plan, run.path)
        if self.widths == "variance":
            keep_map = run.path / "keep-map.json"
            write_keep_map(timed.plan, keep_map)
            if timed.plan.network != asked.model.network:
                run.print(f"this shape, cut while it trains: {self._compressing(keep_map, asked)}")
        if timed.table is not None:
            write_table(timed.table, run.path / "latency.json")

    def _cut(self, run: Run, asked: _Asked, made: Plan, pictures: dict[str, Readable]) -> None:
        """Cut and mend the network as the plan says, and write it. pictures: those to mend by, as `_pictures_to_mend_by` gives them."""
        from octrim.data.pictures import network_inputs
        from octrim.pruning.repaired import cut_and_repaired
        from octrim.runs import typed

        reconstruct, recalibrate = (network_inputs(pictures[data], *asked.size) if data else None for data in (self.reconstruct, self.recalibrate))
        smaller = cut_and_repaired(asked.model, made, self.compensate, reconstruct, recalibrate, self.seed, run.console)
        for line in dict.fromkeys(line for readable in pictures.values() for line in readable.failures):
            run.print(f"left out: {line}")
        path = run.path / "model.safetensors"
        smaller.save(path)
        run.print(f"pruned model: {path} ({path.stat().st_size / 1e6:.2f} MB)")
        run.print(f"next: {typed('bench', '--weights', *([self.weights] if self.weights else []), path)}")

    def _compressing(self, keep_map: Path, asked: _Asked) -> str:
        """The command that cuts the network to the shape of a keep-map while it trains.

        Pictures that are no labelled data set, with which nothing can be trained, are DATA in it.
        """
        from octrim.data.open import open_labelled
        from octrim.errors import InputError
        from octrim.runs import typed

        data = str(self.data)
        try:
            for split in ("train", "val"):
                open_labelled(data, split, asked.model.names, **self.reading())
        except InputError:
            data = "DATA"
        source = ["--weights", str(self.weights), "--train-epochs", "0"] if self.weights else ["--cfg", str(self.cfg)]
        words = ["compress", "--data", data, *source, "--keep", "1", "--keep-map", str(keep_map), "--align", str(asked.align)]
        words += ["--drop", *asked.drop] if asked.drop else []
        words += ["--levels", *map(str, asked.levels)] if asked.levels else []
        height, width = asked.size
        words += ["--imgsz", str(height)] if height == width else []  # trainings take square pictures
        return typed(*words)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is to be planned, in values that `octrim.pruning.plan.plan` takes.

    model: the whole network. size: height and width of pictures. drop, levels: rows that are dropped, and levels that stay. table: what predicts
    times, None where nothing asks for them.
    """

    model: Model
    size: tuple[int, int]
    keep: str | None
    align: int
    exclude: tuple[str, ...]
    keep_map: dict[str, Any]
    seed: int
    budget: str | None
    drop: tuple[str, ...]
    levels: tuple[int, ...]
    table: LatencyTable | None

    @property
    def left(self) -> Model:
        """The network without the rows that are dropped."""
        from octrim.network.dropping import rows_to_drop, without_rows

        return without_rows(self.model, rows_to_drop(self.model.network, self.drop, self.levels))

    def plan(self, criterion: str | Criterion) -> Plan:
        """The plan by a criterion. Raises InputError as `octrim.pruning.plan.plan` does."""
        from octrim.pruning.plan import plan

        how = {"drop": self.drop, "levels": self.levels, "latency": self.table}
        return plan(self.model, self.keep, self.align, criterion, self.exclude, self.keep_map, self.seed, self.size, self.budget, **how)
