"""Options of a bench: those of `octrim bench`, which `config.yaml` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Conf, File, Folder, ImageSize, Iou, Range, Seed, Text
from octrim.targets.options import Execution


@dataclass(frozen=True)
class BenchOptions(Execution, Folder):
    """Options of timing networks side by side."""

    command: ClassVar[str] = "bench"

    weights: Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]", help_behavior_hint="")] = ()
    """Any number of model files, checkpoints and deployables (.onnx, .engine, folders); the first is the yardstick."""
    cfg: Text = None
    """Layout of a freshly initialised network to time in front of the others: yolov5n .. yolov5x6, or a YAML file."""
    seed: Seed = 0
    """Seed of the fresh weights."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the first network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N ...]"), Range(1, 4096)] = (1,)
    """Pictures per batch; with several numbers, such as 1 8 32, everything is timed at each."""
    rounds: Annotated[int, arg(aliases=["--iterations"]), Range(1)] = 100
    """Number of timed rounds; every network runs once in each."""
    warmup: Annotated[int, Range(0)] = 10
    """Number of rounds before the timed ones."""
    source: Text = None
    """Picture to run on (default: a drawn one of 1280x720 pixels)."""
    conf: Conf = 0.25
    """Least confidence of boxes that suppression looks at."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""
    latency_table: File = None
    """File to write a latency table into instead: what rows of the network (--weights, --cfg, or yolov5n) cost in --runtime with --threads at
    --imgsz, measured in up to four minutes; --budget latency=.. plans by it."""
    share: bool = False
    """Time yolov5n and its cut to 1/8 (or --weights, or --cfg) in every runtime of this machine, and print a block to send to OcTrim's list of
    machines."""
