"""`octrim predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Conf, Execution, Folder, ImageSize, Iou, Number, Range


@dataclass(frozen=True)
class Predict(Execution, Folder):
    """Detect objects in a picture, folder, glob, video, stream or camera."""

    command: ClassVar[str] = "predict"

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), or what octrim export wrote: .onnx, .engine, OpenVINO IR or a Paddle Inference folder."""
    source: str = "0"
    """Picture, video, folder or glob of them, list of them (.txt), stream address, list of streams (.streams), or camera number."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Least confidence."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""
    max_det: Annotated[int, Range(1)] = 300
    """Boxes per picture at most."""
    classes: Annotated[tuple[int | str, ...] | None, arg(metavar="N|NAME [..]", help_behavior_hint=""), Range(0)] = None
    """Keep only these classes, by number or name."""
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
    vid_stride: Annotated[int, Range(1, 10_000)] = 1
    """Every so many frames of a video or stream, one is looked at."""
    retries: Annotated[int, Range(0, 1_000_000)] = 5
    """How often in a row a stream that was lost is opened again, after 1, 2, 4, .. seconds; 0 ends with it."""
    line_thickness: Annotated[Number, Range(1, 100)] = None
    """Pixels of the drawn lines (default: by the picture's size)."""
    hide_labels: bool = False
    """Draw boxes without names."""
    hide_conf: bool = False
    """Draw names without confidences."""

    def run(self) -> None:
        from octrim.evaluate.predict import predict

        predict(self)
