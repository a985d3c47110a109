"""`octrim bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Conf, Execution, Folder, ImageSize, Iou, Range, Seed, Text


@dataclass(frozen=True)
class Bench(Execution, Folder):
    """Time networks side by side, interleaved in one process, stage by stage."""

    command: ClassVar[str] = "bench"

    weights: Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]", help_behavior_hint="")] = ()
    """Any number of model files, checkpoints and deployables (.onnx, .engine, folders); the first is the yardstick."""
    cfg: Text = None
    """A freshly initialised network in front of them."""
    seed: Seed = 0
    """Of the fresh weights."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the first network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N ...]"), Range(1, 4096)] = (1,)
    """Pictures per batch; with several numbers everything is timed at each, say 1 8 32."""
    iterations: Annotated[int, Range(1)] = 100
    """Timed rounds; every network runs once in each."""
    warmup: Annotated[int, Range(0)] = 10
    """Rounds before the timed ones."""
    source: Text = None
    """A picture to run on (default: a generated one, 1280x720)."""
    conf: Conf = 0.25
    """Least confidence."""
    iou: Iou = 0.45
    """IoU of suppression."""

    def run(self) -> None:
        from octrim.deploy.bench import bench_command

        bench_command(self)
