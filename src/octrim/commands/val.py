"""`octrim val`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from octrim.options import Batch, Conf, Execution, Folder, ImageSize, Iou, Range, Seed, Text


@dataclass(frozen=True)
class Val(Execution, Folder):
    """Evaluate a network on labelled pictures: COCO mAP, per class, curves."""

    command: ClassVar[str] = "val"

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
    data: Text = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "val"
    """Which part of it."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Batch = 8
    """Pictures per batch."""
    conf: Conf = 0.001
    """Least confidence."""
    iou: Iou = 0.6
    """IoU above which boxes of one class suppress each other."""
    max_det: Annotated[int, Range(1)] = 300
    """Boxes per picture at most."""
    bootstrap: Annotated[int, Range(0)] = 1000
    """Resamplings for the confidence interval of mAP; 0 leaves it out."""
    seed: Seed = 0
    """Of the resampling."""

    def run(self) -> None:
        from octrim.evaluate.val import val

        val(self)
