"""`octrim bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Conf, Folder, ImageSize, Iou, Range, Seed, Text
from octrim.targets.options import Execution

if TYPE_CHECKING:
    from octrim.network.model import Model


@dataclass(frozen=True)
class Bench(Execution, Folder):
    """Time networks side by side, interleaved in one process, stage by stage."""

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
    iterations: Annotated[int, Range(1)] = 100
    """Number of timed rounds; every network runs once in each."""
    warmup: Annotated[int, Range(0)] = 10
    """Number of rounds before the timed ones."""
    source: Text = None
    """Picture to run on (default: a drawn one of 1280x720 pixels)."""
    conf: Conf = 0.25
    """Least confidence of boxes that suppression looks at."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""

    def run(self) -> None:
        from octrim.data.pictures import read_picture
        from octrim.data.scenes import drawn_scene
        from octrim.deploy.bench import Options, compared
        from octrim.deploy.bench_report import show_bench, write_bench
        from octrim.network.initialize import fresh_model
        from octrim.runs import new_run, wide_console

        image = read_picture(self.source) if self.source else drawn_scene(0)
        networks: list[tuple[str, str | Model]] = [(name, name) for name in self.weights]
        if self.cfg is not None:
            networks.insert(0, (self.cfg, fresh_model(self.cfg, seed=self.seed)))
        timed = (self.iterations, self.warmup, self.conf, self.iou, self.runtime, self.precision, self.threads)
        found = compared(networks, Options(self.imgsz, self.batch, *timed), image, wide_console())
        run = new_run(self)
        show_bench(found, run)
        write_bench(found, run.path)
        run.print(f"results: {run.path}")
