"""`octrim prune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from octrim.latency.options import TimeOptions
from octrim.options import Align, Budget, CriterionName, Dropping, Folder, ImageSize, OneNetwork, Range, Reading, Text, Widths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from octrim.latency.table import LatencyTable
    from octrim.network.model import Model
    from octrim.pruning.importance import Criterion
    from octrim.pruning.plan import Plan
    from octrim.training.chosen_rows import ChosenRows


@dataclass(frozen=True)
class Prune(OneNetwork, Dropping, TimeOptions, Reading, Folder):
    """Cut channels, and drop blocks and levels: plan, show the plan, cut, and write one model file."""

    command: ClassVar[str] = "prune"

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8; 1 cuts none), or live: all but those that sparsity training left dead;
    with --budget the least that any keeps."""
    align: Align = "auto"
    """Number that all channel counts are multiples of, and at least; auto: as --latency-table's runtime wants it, else 8, by variance 4."""
    budget: Budget = None
    """Fraction of the whole network's channels, parameters or MACs to reach by cutting the least important channels, wherever they are; or its
    time, latency=2 (milliseconds) or latency=1/6 (of the whole network's), by --latency-table or as measured here."""
    criterion: CriterionName = "signal"
    """Criterion by which channels are ranked."""
    data: Text = None
    """Labelled data for the criterion taylor, and for --drop auto and --levels auto: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO
    annotation file. For --widths variance pictures are enough (folder, glob, data set)."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""
    keep_map: Text = None
    """JSON or YAML file that maps patterns of convolutions to fractions, where these differ from --keep."""
    widths: Widths = "importance"
    """What says how many channels each group keeps under --budget: importance, or the variance of its feature maps on the pictures of --data; without
    a budget for the MACs that --keep leaves in multiples of 8. Which stay is the criterion's. keep-map.json in the run's folder has the counts."""
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
        from functools import partial

        from octrim.data.picture_paths import picture_paths
        from octrim.data.pictures import Readable, network_inputs
        from octrim.errors import InputError
        from octrim.latency.budget import Timed, advice, aligned_by, chosen_table, fitted_plan, refuse_unused_times
        from octrim.latency.table import write_table
        from octrim.network.dropping import rows_to_drop, without_rows
        from octrim.network.options import image_size, model_from
        from octrim.pruning.budget import UnmetBudgetError
        from octrim.pruning.fractions import LIVE, require_matches
        from octrim.pruning.plan import plan
        from octrim.pruning.plan_files import read_keep_map, write_keep_map, write_plan
        from octrim.pruning.repaired import cut_and_repaired
        from octrim.pruning.spectra import fraction_align, measured_by_variance
        from octrim.runs import new_run, typed, wide_console

        model = model_from(self)
        keep_map = read_keep_map(self.keep_map) if self.keep_map else None
        size = image_size(self.imgsz, model.image_size, model.network.stride)

        refuse_unused_times(self, self.budget, predicts=True)
        if self.widths == "variance" and self.data is None:
            raise InputError("--widths variance needs --data: pictures on which the variance of feature maps is measured")
        if self.widths == "variance" and self.keep == LIVE and self.budget is None:
            raise InputError(f"--keep {LIVE} says by itself how many channels each group keeps: leave out --widths variance, or give a --budget")

        def check() -> None:
            left = without_rows(model, rows_to_drop(model.network, self.patterns, self.strides))
            require_matches(left.network, self.exclude, keep_map or {})
            if self.widths == "variance":
                picture_paths(self.data or "", self.pictures, self.seed, **self.reading())

        table = chosen_table(self, self.budget, model.network, size, wide_console(), check)
        dropping: dict[str, Any] = {"drop": self.patterns, "levels": self.strides}

        align = aligned_by(table, self.widths) if self.align == "auto" else self.align
        keep, budget = self.keep, self.budget

        def planned(criterion: str | Criterion, latency: LatencyTable | None = table) -> Plan:
            return plan(model, keep, align, criterion, self.exclude, keep_map, self.seed, size, budget, latency=latency, **dropping)

        chosen, notes = self._chosen(model, keep_map, size, table, align)
        if chosen is not None:
            dropping = {"drop": chosen.drop, "levels": chosen.levels}
        elif any(self.chooses):
            try:
                planned("random")
            except UnmetBudgetError as error:
                raise InputError(f"{error}; --drop auto and --levels auto need --data, on which blocks and levels are measured") from None
        if self.criterion == "taylor":
            # Only this criterion needs Paddle and a loss.
            from octrim.training.gradients import taylor_on

            planned("random")  # options that make no sense are told before gradients are computed
            left = without_rows(model, rows_to_drop(model.network, **dropping))
            criterion, more = taylor_on(left, self.data, size, self.pictures, self.seed, wide_console(), **self.reading())
            notes += more
        else:
            criterion = self.criterion
        if self.widths == "variance":
            if budget is None:
                uniform = plan(model, keep, fraction_align(align, keep_map or {}), "random", self.exclude, keep_map, self.seed, size, **dropping)
                keep, budget = None, uniform.macs_budget(model.network)
            left = without_rows(model, rows_to_drop(model.network, **dropping))
            paths = picture_paths(self.data or "", self.pictures, self.seed, **self.reading())
            criterion, more = measured_by_variance(criterion, left, paths, size, wide_console())
            notes += more
        timed = fitted_plan(table, self.budget, model.network, partial(planned, criterion)) if table else Timed(planned(criterion))
        made = timed.plan
        sources = [data for data in (self.reconstruct, self.recalibrate) if data]
        readable = {data: Readable(picture_paths(data, self.pictures, self.seed, **self.reading())) for data in sources}
        for some in readable.values():
            some.require()
        run = new_run(self)
        for line in notes:
            run.print(line)
        if chosen is not None:
            chosen.tell(run)
        run.print(made.table())
        if made.network == model.network:
            none_dead = "no channel is dead, or too few for a multiple of --align: nothing is cut (octrim sparsify lets channels die)"
            run.print(none_dead if self.keep == LIVE else "nothing is cut: the network keeps all of its channels and rows")
        for line in (*timed.told, *advice(timed, self.budget, self.drop, model.network)):
            run.print(line)
        write_plan(made, run.path)
        if self.widths == "variance":
            write_keep_map(made, run.path / "keep-map.json")
            if made.network != model.network:
                command = self._compressing(run.path / "keep-map.json", made.settings["align"], size, model.names, **dropping)
                run.print(f"this shape, cut while it trains: {command}")
        if timed.table is not None:
            write_table(timed.table, run.path / "latency.json")
        if self.dry_run:
            run.print(f"plan only, nothing was cut: {run.path}")
            return
        reconstruct, recalibrate = (network_inputs(readable[data], *size) if data else None for data in (self.reconstruct, self.recalibrate))
        smaller = cut_and_repaired(model, made, self.compensate, reconstruct, recalibrate, self.seed, run.console)
        for line in dict.fromkeys(line for some in readable.values() for line in some.failures):
            run.print(f"left out: {line}")
        path = run.path / "model.safetensors"
        smaller.save(path)
        run.print(f"pruned model: {path} ({path.stat().st_size / 1e6:.2f} MB)")
        run.print(f"next: {typed('bench', '--weights', *([self.weights] if self.weights else []), path)}")

    def _compressing(
        self, keep_map: Path, align: int, size: tuple[int, int], names: Sequence[str], drop: Sequence[str], levels: Sequence[int]
    ) -> str:
        """The command that cuts the network to the shape of a keep-map while it trains. drop, levels: blocks that go and levels that stay, too.

        names: the network's classes. Pictures that are no labelled data set, with which nothing can be trained, are DATA in it.
        """
        from octrim.data.open import open_labelled
        from octrim.errors import InputError
        from octrim.runs import typed

        data = str(self.data)
        try:
            for split in ("train", "val"):
                open_labelled(data, split, names, **self.reading())
        except InputError:
            data = "DATA"
        source = ["--weights", str(self.weights), "--train-epochs", "0"] if self.weights else ["--cfg", str(self.cfg)]
        words = ["compress", "--data", data, *source, "--keep", "1", "--keep-map", str(keep_map), "--align", str(align)]
        words += ["--drop", *drop] if drop else []
        words += ["--levels", *map(str, levels)] if levels else []
        words += ["--imgsz", str(size[0])] if size[0] == size[1] else []  # trainings take square pictures
        return typed(*words)

    def _chosen(
        self, model: Model, keep_map: dict[str, Any] | None, size: tuple[int, int], table: LatencyTable | None, align: int
    ) -> tuple[ChosenRows | None, list[str]]:
        """Blocks and levels that are chosen by measuring, None where none are, and lines for people. Raises InputError where none can be chosen."""
        from octrim.pruning.plan import plan
        from octrim.runs import wide_console

        if not any(self.chooses):
            return None, []
        # Only this choice needs Paddle.
        from octrim.training.dropping import PICTURES, Budgeted, choose_rows, cost_in, ranking, require_choosable
        from octrim.training.labelled import open_in_classes

        require_choosable(self, self.budget)
        if self.data is None:
            return None, ["--drop auto and --levels auto need --data, on which blocks and levels are measured: only channels are cut"]

        def planned(drop: Sequence[str], levels: Sequence[int]) -> Plan:
            options = {"drop": drop, "levels": levels, "latency": table}
            return plan(model, self.keep, align, ranking(model), self.exclude, keep_map, self.seed, size, self.budget, **options)

        dataset, notes = open_in_classes(self.data, "train", model.names, **self.reading())
        budgeted = Budgeted(planned, *cost_in(self.budget or "", size, table))
        console = wide_console()
        given = (*self.chooses, self.patterns, self.strides)
        chosen = choose_rows(model, dataset, size, budgeted, *given, min(self.pictures, PICTURES), self.seed, console, notes.append)
        return chosen, notes
