"""`octrim export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.options import Folder, ImageSize, Range, Text, Weights
from octrim.targets.options import ExportPrecision, Format


@dataclass(frozen=True)
class Export(Weights, Folder):
    """Write a deployable, compared on pictures with another runtime before it is called done."""

    command: ClassVar[str] = "export"

    format: Format = "onnx"
    precision: ExportPrecision = "fp32"
    """fp16: float16 feature maps and weights (onnx, tensorrt), float16 weights (openvino). int8: after octrim quantize; not for paddle."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N N]"), Range(1, 4096)] = (1,)
    """Pictures per batch; for tensorrt also three numbers: fewest, typical, most."""
    dynamic: bool = False
    """Let the deployable take any number of pictures per batch; an engine takes 1 to --batch."""
    source: Text = None
    """Picture, folder or glob to compare on (default: drawn pictures)."""
    verify: bool = False
    """Also show the differences by part of the output, and demand that the detected boxes agree."""
    data: Text = None
    """Labelled data on which mAP must agree: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Split of the labelled data that mAP is measured on."""
    pad_channels: Annotated[int, Range(1, 128)] = 1
    """Number of channels that tensorrt's convolutions are padded with zeros to multiples of."""
    high_precision: Literal["fp16", "fp32"] = "fp16"
    """Precision of what is not int8 in an engine of int8; with fp32 its integers are those of an ONNX file."""
    workspace: Annotated[float, Range(0, 1 << 20, above=True)] = 1.0
    """GiB of GPU memory that tensorrt may use while it builds."""
    builder_level: Annotated[int, Range(0, 5)] = 3
    """How hard tensorrt searches: 0 builds fast, 5 runs fast."""
    timing_cache: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """File of kernel times that tensorrt reads and writes, so that later builds are faster."""

    def run(self) -> None:
        from octrim.deploy.export import export_command

        export_command(self)
