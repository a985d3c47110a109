"""`octrim sensitivity`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.options import BatchSize, CriterionName, Folder, ImageSize, OneNetwork, Range, Reading, Text

if TYPE_CHECKING:
    from octrim.data.dataset import Dataset
    from octrim.network.model import Model
    from octrim.pruning.importance import Criterion
    from octrim.runs import Run
    from octrim.training.sensitivity_curves import SensitivityCurves

_FILE = "sensitivity.json"


@dataclass(frozen=True)
class Sensitivity(OneNetwork, Reading, Folder):
    """Accuracy or loss as each group of channels is cut by 10 .. 90 %, the rest left whole, and as each block or level is dropped; and a keep-map."""

    command: ClassVar[str] = "sensitivity"

    data: Text = None
    """Data set: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    split: str = "val"
    """Split of the data set whose pictures are used."""
    metric: Literal["map", "loss"] = "map"
    """Metric of the network: mAP50-95, or the training loss."""
    criterion: CriterionName = "signal"
    """Criterion by which the channels of a group are ranked."""
    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    batch: BatchSize = 16
    """Pictures per batch."""
    pictures: Annotated[int, Range(1)] = 200
    """Largest number of pictures that are used."""
    tolerance: Annotated[float, Range(0)] = 0.005
    """Harm that a cut of one group may do in the keep-map: mAP50-95 lost, or the share by which the loss rises; the harm of all groups adds up."""
    align: Annotated[int, Range(1)] = 8
    """Number of channels that fractions in the keep-map are rounded up to multiples of."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; only --data, --weights and --cfg may be given anew, where they lie elsewhere now."""

    def run(self) -> None:
        """Measure, or go on measuring; write sensitivity.json after every group, and at the end the picture and the keep-map."""
        from octrim.network.options import image_size, model_from
        from octrim.resuming import absolute, run_to_resume
        from octrim.runs import new_run, open_run, typed
        from octrim.training.gradients import taylor_on, taylor_pictures
        from octrim.training.labelled import drawn, open_in_classes
        from octrim.training.sensitivity import check_inputs
        from octrim.training.sensitivity_curves import load_curves

        config, run, known, ranked_on, resuming = absolute(self), None, None, None, None
        if self.resume is not None:
            resuming = run_to_resume(self, ("data", "weights", "cfg"))
            resuming.require("data", "weights", "cfg")
            config, run = resuming.config, open_run(self.resume)
            known = load_curves(run.path / _FILE) if (run.path / _FILE).exists() else None
        model = model_from(config)
        size = image_size(config.imgsz, model.image_size, model.network.stride)
        whole, notes = open_in_classes(config.data, config.split, model.names, **config.reading())
        dataset = drawn(whole, config.pictures, config.seed)
        if config.criterion == "taylor":
            ranked_on, _ = taylor_pictures(model, config.data, config.pictures, config.seed, **config.reading())
        if known is not None:
            check_inputs(known, model, dataset, ranked_on)
        if resuming is not None:
            resuming.keep()
        run = run or new_run(config)
        part = f", {len(dataset)} of them drawn" if len(dataset) < len(whole) else ""
        notes = [f"{config.data}, {config.split}: {len(whole)} pictures{part}", *notes]
        criterion = config.criterion
        if criterion == "taylor":
            criterion, more = taylor_on(model, config.data, size, config.pictures, config.seed, run.console, **config.reading())
            notes += more
        if known is not None:
            notes.append(f"resumed after {len(known.groups)} groups")
        for line in notes:
            run.print(line)
        try:
            curves = _measured(config, run, model, dataset, criterion, size, known, ranked_on)
        except KeyboardInterrupt:
            run.print(f"stopped; go on with: {typed('sensitivity', '--resume', run.path)}")
            raise
        _finish(config, run, curves)


def _measured(
    config: Sensitivity,
    run: Run,
    model: Model,
    dataset: Dataset,
    criterion: str | Criterion,
    size: tuple[int, int],
    known: SensitivityCurves | None,
    ranked_on: Dataset | None,
) -> SensitivityCurves:
    """Measure the groups that `known` does not have, and write all of them after each."""
    from octrim.atomic import write_text
    from octrim.network.dropping import droppable
    from octrim.progress import progress_bar
    from octrim.pruning.labels import channel_labels
    from octrim.training.sensitivity import sensitivity

    groups = sum(group.reason is None for group in channel_labels(model.network).groups)
    blocks = len(droppable(model.network))
    with progress_bar("sensitivity", len(dataset) * (groups + blocks + 1), run.console) as bar:

        def keep(curves: SensitivityCurves) -> None:
            write_text(run.path / _FILE, json.dumps(curves.to_json(), indent=1))
            bar.advance(0, f"{len(curves.groups)} of {groups} groups, {len(curves.blocks)} of {blocks} blocks")
            run.print(curves.line())

        options = (config.metric, criterion, size, config.batch, config.pictures, config.seed)
        return sensitivity(model, dataset, *options, known=known, on_group=keep, progress=bar.advance, report=run.print, ranked_on=ranked_on)


def _finish(config: Sensitivity, run: Run, curves: SensitivityCurves) -> None:
    """Write the keep-map and the picture, and print the table."""
    from octrim.atomic import write_text
    from octrim.runs import typed
    from octrim.training.sensitivity_chart import save_sensitivity_chart

    keep_map = curves.keep_map(config.tolerance, config.align)
    write_text(run.path / "keep-map.json", json.dumps(keep_map, indent=1))
    save_sensitivity_chart(curves, config.tolerance, run.path / "sensitivity.png")
    run.print(curves.table(config.tolerance))
    if curves.blocks:
        run.print(curves.blocks_table())
    kept = sum(int(curve.channels * Fraction(keep_map[curve.convs[0]])) for curve in curves.groups)
    total = sum(curve.channels for curve in curves.groups)
    run.print(f"keep-map for a tolerance of {config.tolerance:g} in every group by itself: {kept} of {total} channels; all at once cost more")
    network = ("--weights", config.weights) if config.weights is not None else ("--cfg", config.cfg)
    cut = ("--keep-map", run.path / "keep-map.json", "--align", config.align, "--criterion", config.criterion)
    run.print(f"next: {typed('prune', *network, *cut)}")
