"""`octrim sensitivity`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.options import Batch, Criterion, Folder, ImageSize, Range, Text, Weights


@dataclass(frozen=True)
class Sensitivity(Weights, Folder):
    """Accuracy or loss as each group of channels is cut by 10 .. 90 %, the rest left whole; and a keep-map that follows from it."""

    command: ClassVar[str] = "sensitivity"

    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    metric: Literal["map", "loss"] = "map"
    """What is measured: mAP50-95, or the training loss."""
    criterion: Criterion = "signal"
    """What ranks the channels of a group."""
    imgsz: ImageSize = None
    """Side of the pictures in pixels (default: what the network was made for)."""
    batch: Batch = 16
    """Pictures per batch."""
    pictures: Annotated[int, Range(1)] = 200
    """How many pictures are used at most."""
    tolerance: Annotated[float, Range(0)] = 0.005
    """For the keep-map: how far a cut of one group may lower mAP50-95, or raise the loss relative to what it was; the harm of all adds up."""
    align: Annotated[int, Range(1)] = 8
    """For the keep-map: fractions are rounded up to multiples of this."""
    resume: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to go on with; everything else is as it was."""

    def run(self) -> None:
        from octrim.training.sensitivity import sensitivity_command

        sensitivity_command(self)
