"""`octrim predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Conf, Execution, Folder, ImageSize, Iou, Range


@dataclass(frozen=True)
class Predict(Execution, Folder):
    """Detect objects in a picture, folder, glob, video, stream or camera."""

    command: ClassVar[str] = "predict"

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
    source: str = "0"
    """Picture, folder, glob, video, stream address, or camera number."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Least confidence."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""
    max_det: Annotated[int, Range(1)] = 300
    """Boxes per picture at most."""
    classes: Annotated[tuple[int, ...] | None, arg(metavar="N [N ...]", help_behavior_hint=""), Range(0)] = None
    """Keep only these class numbers."""
    agnostic: Annotated[bool, arg(aliases=["--agnostic-nms"])] = False
    """Suppress across classes."""
    save_txt: bool = False
    """Write labels/*.txt in YOLO format."""
    save_conf: bool = False
    """Confidence as the last column of the labels."""
    save_json: bool = False
    """Write predictions.json (COCO results)."""
    save_crop: bool = False
    """Write every box as a picture, by class."""
    nosave: bool = False
    """No annotated pictures and videos."""
    device: str = "cpu"
    """Only cpu so far."""

    def run(self) -> None:
        from octrim.evaluate.predict import predict

        predict(self)
