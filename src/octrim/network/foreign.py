"""Tells what a file is whose name promises a checkpoint but which is something else, by its first bytes or the classes that its pickle names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_POINTER = b"version https://git-lfs"
_STARTS = (
    (b"\x80\x02", "a bare pickle, as PyTorch before 1.6 wrote it; save it with a newer PyTorch (torch.save(torch.load(FILE), FILE))"),
    (b"\x80\x04", "a bare pickle, as PyTorch before 1.6 wrote it; save it with a newer PyTorch (torch.save(torch.load(FILE), FILE))"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"ftrt", "a TensorRT engine: name it .engine"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head")


def placeholder(path: Path) -> str | None:
    """Tell, as the rest of an error line, what a file holds instead of real contents: nothing, zeros, a Git LFS pointer or a web page; else None."""
    with path.open("rb") as file:
        start = file.read(1024)
    if not start.strip(b"\0"):
        return f"the file holds zeros only: {path.stat().st_size} of them; copy or download it again" if start else "the file is empty"
    if start.startswith(_POINTER):
        return "a Git LFS pointer, not the file itself: run git lfs pull where it was cloned"
    markup = _PAGES if path.suffix.lower() == ".xml" else (*_PAGES, b"<?xml")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(markup):
        return "a web page, not a file of weights: the download was an error or a log-in page; download it again"
    return None


def what_it_is(path: Path) -> str | None:
    """Tell, as the rest of an error line, what a file is that is no zip archive; None for a zip archive, as checkpoints are."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(b"PK\x03\x04"):
        return None
    instead = placeholder(path)
    if instead is not None:
        return instead
    kind = kind_of(path)
    if kind is None:
        return f"not a PyTorch checkpoint: it starts with {start[:4]!r}, expected a zip archive"
    return kind if kind.startswith("a bare pickle") else f"not a PyTorch checkpoint but {kind}"


def kind_of(path: Path) -> str | None:
    """Tell what kind of file a path is by the file's first bytes, and the ending that it should have; None where they tell nothing."""
    with path.open("rb") as file:
        start = file.read(1024)
    for beginning, what in _STARTS:
        if start.startswith(beginning):
            return what
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, as the checkpoints of YOLOv5 are: name those .pt"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model: name it .tflite"
    if start[8:10] == b'{"':
        return "a safetensors file: name it .safetensors"
    producers = (b"pytorch", b"onnx", b"images", b"octrim")
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x1a", b"\x3a") and any(word in start for word in producers):
        return "an ONNX file: name it .onnx"
    return None


_FAMILIES = (
    ("ultralytics.", "an anchor-free checkpoint of the ultralytics package (YOLOv5u, YOLOv8 or newer)"),
    ("models.yolo.Segment", "a YOLOv5 segmentation checkpoint"),
    ("models.common.Proto", "a YOLOv5 segmentation checkpoint"),
    ("models.yolo.Classif", "a YOLOv5 classification checkpoint"),
    ("models.common.Classify", "a YOLOv5 classification checkpoint"),
    ("models.common.StemBlock", "a checkpoint of yolov5-face (stem block, landmarks)"),
    ("models.common.Shuffle_Block", "a checkpoint of YOLOv5-Lite (channel shuffling)"),
    ("models.common.ShuffleV2Block", "a checkpoint of a ShuffleNet fork (channel shuffling)"),
    ("models.common.conv_bn_relu_maxpool", "a checkpoint of YOLOv5-Lite"),
    ("models.common.RepVGGBlock", "a checkpoint of YOLOv5-Lite (RepVGG)"),
    ("models.yolo.IDetect", "a YOLOv7 checkpoint"),
    ("models.yolo.IAuxDetect", "a YOLOv7 checkpoint"),
    ("models.yolo.IKeypoint", "a YOLOv7 pose checkpoint"),
    ("models.common.RepConv", "a YOLOv7 checkpoint"),
    ("models.yolo.DDetect", "a YOLOv9 checkpoint"),
    ("models.yolo.DualD", "a YOLOv9 checkpoint"),
    ("models.common.RepNCSPELAN", "a YOLOv9 checkpoint"),
    ("models.models.Darknet", "a Darknet-style checkpoint (YOLOR, ScaledYOLOv4, YOLOv3)"),
    ("yolox.", "a YOLOX checkpoint"),
    ("yolov6.", "a YOLOv6 checkpoint"),
    ("torchvision.", "a checkpoint of torchvision"),
    ("mmdet.", "a checkpoint of MMDetection"),
    ("mmengine.", "a checkpoint of OpenMMLab"),
    ("detectron2.", "a checkpoint of detectron2"),
)
"""Beginnings of class names that only other families of networks have, and the words for those families in errors."""


def family_of(names: Collection[str]) -> str | None:
    """Return the family of networks that a checkpoint belongs to by the classes that its pickle names; None for YOLOv5 detectors and unknown ones."""
    return next((family for prefix, family in _FAMILIES if any(name.startswith(prefix) for name in names)), None)
