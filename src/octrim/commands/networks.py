"""Commands that show a network or make another of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from octrim.commands.options import Criterion, Folder, ImageSize, Text, Weights


@dataclass(frozen=True)
class Info(Weights):
    """Show a network: its rows, parameters, MACs, coupled channels and lineage."""

    imgsz: ImageSize = None
    """Side, or height and width, that MACs are counted for."""

    def run(self) -> None:
        from octrim.network.describe import info

        info(self)


@dataclass(frozen=True)
class Prune(Weights, Folder):
    """Cut channels: plan, show the plan, cut, and write one model file."""

    keep: Text = None
    """Fraction of its channels that every convolution keeps (default: 1/8); with --budget the least that any keeps."""
    align: int = 8
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
    pictures: int = 200
    """How many of them are used at most."""
    dry_run: bool = False
    """Stop after the plan."""

    def run(self) -> None:
        from octrim.pruning.command import prune_command

        prune_command(self)


@dataclass(frozen=True)
class Quantize(Weights, Folder):
    """Calibrate int8 scales on pictures and write them into a model file; the weights stay as they are."""

    data: Text = None
    """Data set whose training pictures calibrate: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    source: Text = None
    """Instead of a data set: a picture, folder or glob."""
    method: Literal["max", "percentile", "histogram"] = "percentile"
    """Where values are clipped: the largest, a percentile, or the least squared error."""
    percentile: float = 99.999
    """For the method percentile: so many percent of the magnitudes are not clipped."""
    pictures: int = 200
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


@dataclass(frozen=True)
class Export(Weights, Folder):
    """Write a deployable, compared on pictures with another runtime before it is called done."""

    format: Literal["onnx", "openvino", "tensorrt", "paddle"] = "onnx"
    """What to write: a file for ONNX Runtime and others, OpenVINO IR, an engine for this machine's GPU, a folder for Paddle Inference."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """fp16: float16 feature maps and weights (onnx, tensorrt), float16 weights (openvino). int8: after octrim quantize; not for paddle."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N N]")] = (1,)
    """Pictures per batch; for tensorrt also three numbers: fewest, typical, most."""
    dynamic: bool = False
    """Any number of pictures per batch; for tensorrt 1 to --batch."""
    source: Text = None
    """Pictures to compare on (default: generated ones)."""
    verify: bool = False
    """Also show the differences by part of the output, and demand that the detected boxes agree."""
    data: Text = None
    """Labelled data on which mAP must agree: data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    pad_channels: int = 1
    """tensorrt: zeros up to a multiple of this many channels."""
    high_precision: Literal["fp16", "fp32"] = "fp16"
    """tensorrt in int8: what is not int8. fp32 makes the integers that ONNX makes."""
    workspace: float = 1.0
    """tensorrt: GiB of GPU memory for the build."""
    builder_level: int = 3
    """tensorrt: 0 builds fast, 5 runs fast."""
    timing_cache: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """tensorrt: kernel times, read and written, so that later builds are faster."""

    def run(self) -> None:
        from octrim.deploy.export import export_command

        export_command(self)
