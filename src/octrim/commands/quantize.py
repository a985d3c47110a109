"""`octrim quantize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.options import Folder, ImageSize, Range, Text, Weights


@dataclass(frozen=True)
class Quantize(Weights, Folder):
    """Calibrate int8 scales on pictures and write them into a model file; the weights stay as they are."""

    command: ClassVar[str] = "quantize"

    data: Text = None
    """Data set whose training pictures calibrate: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    source: Text = None
    """Instead of a data set: a picture, folder or glob."""
    method: Literal["max", "percentile", "histogram"] = "percentile"
    """Where values are clipped: the largest, a percentile, or the least squared error."""
    percentile: Annotated[float, Range(50, 100)] = 99.999
    """For the method percentile: so many percent of the magnitudes are not clipped."""
    pictures: Annotated[int, Range(1)] = 200
    """How many are used at most."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    skip: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions and additions that stay in high precision: model.0, 'model.2.*', ... Detect's always do."""
    sensitivity: bool = False
    """Also quantize each layer by itself and measure the error of the logits."""

    def run(self) -> None:
        from octrim.quantization.command import quantize_command

        quantize_command(self)
