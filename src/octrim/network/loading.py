"""Reads any file that holds a network with its weights, a model file or a YOLOv5 checkpoint, by its suffix, or by its contents."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from octrim.errors import InputError, shown
from octrim.network.checkpoint import load_checkpoint
from octrim.network.foreign import what_it_is
from octrim.network.layout import VARIANTS
from octrim.network.model import Model, load_model_file
from octrim.shipped import network_file

_EXPECTED = "expected a model file (.safetensors) or a YOLOv5 checkpoint (.pt)"
_RELEASES = "https://github.com/ultralytics/yolov5/releases/download/v7.0/"


def load(path: str | Path) -> Model:
    """Read a model file (`.safetensors`), an official YOLOv5 v6/v7 detection checkpoint (`.pt`), or a network that comes with OcTrim (`pong`).

    Nothing in either is executed. Raises InputError, naming the file and what is wrong with it.
    """
    path = network_file(as_path(path))
    if not os.path.isfile(path):  # noqa: PTH113 (raises nothing, whatever the name)
        if os.path.isdir(path):  # noqa: PTH112
            raise InputError(f"{path}: is a folder, expected a file, or a folder that octrim export wrote (openvino, c, ncnn, web, paddle)")
        trained = path.parent.parent / f"{path.stem}.safetensors"  # OcTrim's file, where YOLOv5 would have RUN/weights/best.pt
        if path.parent.name == "weights" and os.path.isfile(trained):  # noqa: PTH113
            raise InputError(f"{path}: no such file; OcTrim's own is {trained}")
        published = path.suffix == ".pt" and path.stem in VARIANTS
        hint = f"; OcTrim downloads nothing: {_RELEASES}{path.name} (AGPL-3.0), or --cfg {path.stem} for fresh weights" if published else ""
        raise InputError(f"{path}: no such file{hint}")
    try:
        return _reader(path)(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def as_path(weights: object) -> Path:
    """Return the path that `weights` is. Raises InputError for what is none, such as None and empty text."""
    if not isinstance(weights, str | os.PathLike) or not os.fspath(weights):
        raise InputError(f"weights is {shown(weights)}, expected a path")
    return Path(weights)


def _reader(path: Path) -> Callable[[Path], Model]:
    """Return the function that reads a file. Raises InputError, without the file's name, for a file of another suffix and other contents."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return load_model_file
    if suffix in (".pt", ".pth"):
        return load_checkpoint
    if suffix in (".yaml", ".yml"):
        raise InputError(f"{_EXPECTED}; a layout goes to --cfg")
    with path.open("rb") as file:
        start = file.read(10)
    if start[8:10] == b'{"':
        return load_model_file
    if start.startswith(b"PK\x03\x04") and suffix != ".zip":
        return load_checkpoint
    raise InputError(f"{_EXPECTED}; this is {what_it_is(path) or 'a zip archive: unpack it'}")
