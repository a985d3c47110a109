"""`octrim prune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Criterion, Folder, ImageSize, Range, Reading, Text, Weights


@dataclass(frozen=True)
class Prune(Weights, Reading, Folder):
    """Cut channels: plan, show the plan, cut, and write one model file."""

    command: ClassVar[str] = "prune"

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: Annotated[int, Range(1)] = 8
    """Number that all channel counts are multiples of, and at least."""
    budget: Annotated[str | None, arg(metavar="{channels,params,macs}=F", help_behavior_hint="")] = None
    """Fraction of the whole network's channels, parameters or MACs to reach by cutting the least important channels, wherever they are."""
    criterion: Criterion = "signal"
    """Criterion by which channels are ranked."""
    data: Text = None
    """Labelled data for the criterion taylor: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    exclude: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions to keep whole: model.0, 'model.2.*', ..."""
    keep_map: Text = None
    """JSON or YAML file that maps patterns of convolutions to fractions, where these differ from --keep."""
    imgsz: ImageSize = None
    """Side, or height and width, that the plan counts MACs for."""
    compensate: bool = False
    """Put the constant that each cut channel stood for into its consumers."""
    reconstruct: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set) on which the weights behind each cut are fitted to what the original computes; feature maps wait on disk."""
    recalibrate: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Pictures (folder, glob, data set) on which batch-norm statistics are moved by as much as the cut has moved them; feature maps wait on disk."""
    pictures: Annotated[int, Range(1)] = 200
    """Largest number of pictures used by --reconstruct, --recalibrate and the criterion taylor; memory does not grow with it."""
    dry_run: bool = False
    """Show and write the plan, and cut nothing."""

    def run(self) -> None:
        from octrim.pruning.command import prune_command

        prune_command(self)
