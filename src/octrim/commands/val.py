"""`octrim val`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, ClassVar

from octrim.errors import counted
from octrim.options import BatchSize, Conf, Folder, ImageSize, Iou, Range, Reading, Seed, Text
from octrim.targets.options import Execution

if TYPE_CHECKING:
    from octrim.evaluate.evaluation import Evaluation
    from octrim.runs import Run


@dataclass(frozen=True)
class Val(Execution, Reading, Folder):
    """Evaluate a network on labelled pictures: COCO mAP, per class, curves."""

    command: ClassVar[str] = "val"

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
    data: Text = None
    """Data set: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    split: str = "val"
    """Split of the data set to evaluate on."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: BatchSize = 8
    """Pictures per batch."""
    conf: Conf = 0.001
    """Least confidence of a detection that counts."""
    iou: Iou = 0.6
    """IoU above which boxes of one class suppress each other."""
    max_det: Annotated[int, Range(1)] = 300
    """Largest number of boxes per picture."""
    score_voting: bool = False
    """Make each box the mean of the boxes of its class that overlap it, by confidence and overlap: boxes fit better (score voting)."""
    bootstrap: Annotated[int, Range(0)] = 1000
    """Number of times that pictures are resampled for the confidence interval of mAP; 0: no interval."""
    seed: Seed = 0
    """Seed of the resampling."""

    def run(self) -> None:
        from octrim.data.open import open_labelled
        from octrim.evaluate.classes import map_classes
        from octrim.evaluate.result_files import write_evaluation
        from octrim.evaluate.val import evaluate
        from octrim.progress import progress_bar
        from octrim.runs import new_run
        from octrim.targets.opening import open_session

        session = open_session(self.weights, self.runtime, self.precision, self.threads, self.device)
        dataset = open_labelled(self.data, self.split, session.info.names, **self.reading())
        _, note = map_classes(session.info.names, dataset.names)
        run = new_run(self)
        boxes = int((~dataset.crowd).sum())
        counts = counted(len(dataset), "picture"), counted(boxes, "object"), counted(len(dataset.names), "class", "classes")
        run.print(f"{self.data}, {self.split}: {', '.join(counts)}")
        for line in [note] * (note is not None) + dataset.lines():
            run.print(line)
        start = perf_counter()
        with progress_bar("val", len(dataset), run.console) as bar:
            suppression = (self.conf, self.iou, self.max_det)
            resampling = (self.bootstrap, self.seed)
            result = evaluate(session, dataset, self.imgsz, self.batch, *suppression, *resampling, bar.advance, self.score_voting)
        write_evaluation(run.path, dataset, result)
        _report(run, result, perf_counter() - start)


def _report(run: Run, result: Evaluation, seconds: float) -> None:
    run.print(result.table())
    for name, (low, high) in result.interval.items():
        value = result.map if name == "mAP50-95" else result.map50
        run.print(f"{name} {value:.4f}, 95 % interval {low:.4f} to {high:.4f} (pictures resampled)")
    areas = ", ".join(f"{name} {value:.3f}" for name, value in result.areas.items() if not isnan(value))
    run.print(f"mAP50-95 by size of the box: {areas}; P and R at confidence {result.confidence:.3f}")
    if result.failures:
        shown = "; ".join(result.failures[:5])
        run.print(f"{len(result.failures)} of {result.images} pictures could not be read, they and their objects are left out: {shown}")
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in result.speed_ms.items())
    run.print(f"mean milliseconds per picture: {stages}; {seconds:.1f} s in all")
    run.print(f"results: {run.path}")
