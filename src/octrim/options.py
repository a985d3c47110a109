"""Options that several commands share, and the command line that gives a configuration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg

ImageSize = Annotated[tuple[int, ...] | None, arg(aliases=["--img", "--img-size"], metavar="PX [PX]", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
File = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Runtime = Annotated[
    Literal["openvino", "onnxruntime", "paddle", "numpy"] | None, arg(metavar="{openvino,onnxruntime,paddle,numpy}", help_behavior_hint="")
]
Conf = Annotated[float, arg(aliases=["--conf-thres"])]
Iou = Annotated[float, arg(aliases=["--iou-thres"])]
Batch = Annotated[int, arg(aliases=["--batch-size"])]
Criterion = Literal["bn", "l1", "l2", "group-l2", "fpgm", "scale", "signal", "taylor", "random"]


@dataclass(frozen=True)
class Weights:
    """Options of every command that reads one network."""

    weights: Text = None
    """Model file (.safetensors) or YOLOv5 checkpoint (.pt)."""
    cfg: Text = None
    """Instead of weights: yolov5n .. yolov5x6 or a YAML layout, freshly initialised."""
    seed: int = 0
    """Of the fresh weights and of the criterion random."""


@dataclass(frozen=True)
class Folder:
    """Options of every command that leaves files."""

    project: Text = None
    """Folder of runs (default: runs/COMMAND)."""
    name: str = "exp"
    """The run's name; numbered where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""


@dataclass(frozen=True)
class Execution:
    """Options of every command that runs networks."""

    runtime: Runtime = None
    """What runs the network (default: openvino; onnxruntime for an .onnx file; engines and Paddle Inference have their own)."""
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    """What it computes in; int8 after octrim quantize."""
    threads: Number = None
    """Processor threads (default: all)."""


def arguments_of(config: Any) -> list[str]:
    """The command line that gives this configuration."""
    arguments = config.command.split()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            arguments.append(f"--{field.name.replace('_', '-')}")
            arguments += [] if value is True else map(str, value) if isinstance(value, tuple) else [str(value)]
    return arguments
