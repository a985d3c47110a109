"""`octrim prune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Criterion, Folder, ImageSize, Range, Text, Weights


@dataclass(frozen=True)
class Prune(Weights, Folder):
    """Cut channels: plan, show the plan, cut, and write one model file."""

    command: ClassVar[str] = "prune"

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: Annotated[int, Range(1)] = 8
    """Channel counts are multiples of this, and at least this."""
    budget: Annotated[str | None, arg(metavar="{channels,params,macs}=F", help_behavior_hint="")] = None
    """Instead of the same fraction everywhere: cut the least important channels anywhere until this fraction of the whole is left."""
    criterion: Criterion = "signal"
    """What ranks the channels."""
    data: Text = None
    """Labelled data for the criterion taylor: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""
    keep_map: Text = None
    """JSON or YAML file: pattern to fraction, where it differs from --keep."""
    imgsz: ImageSize = None
    """Side, or height and width, that the plan counts MACs for."""
    compensate: bool = False
    """Put the constant that each cut channel stood for into its consumers."""
    reconstruct: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set): fit the consumers' weights to what the original computes on them."""
    recalibrate: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures: move batch-norm statistics by as much as the cut has moved them there."""
    pictures: Annotated[int, Range(1)] = 200
    """How many of them are used at most."""
    dry_run: bool = False
    """Stop after the plan."""

    def run(self) -> None:
        from octrim.pruning.command import prune_command

        prune_command(self)
