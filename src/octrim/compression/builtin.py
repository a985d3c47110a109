"""The data that needs no download: pictures of Pong, made where a compression is given none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from octrim.compression.options import Compression
from octrim.errors import InputError
from octrim.pong.dataset import data
from octrim.runs import wide_console

PICTURES = 400
SIDE = 256


def on_pong(config: Compression) -> Compression:
    """The options of a compression without data: Pong's pictures, SIDE pixels wide unless --imgsz says something else, and a fresh yolov5n where no
    network is named. The pictures lie in the folder of the runs, for every run with the same size and seed.
    """
    if config.imgsz is not None and len(set(config.imgsz)) != 1:
        raise InputError(f"imgsz is {config.imgsz}; training pictures are square, give one side")
    side = SIDE if config.imgsz is None else config.imgsz[0]
    path = Path(config.project or "runs/compress") / f"pong-{PICTURES}-{side}-{config.seed}" / "data.yaml"
    cfg = "yolov5n" if config.weights is None and config.cfg is None else config.cfg
    return replace(config, data=str(path), cfg=cfg, imgsz=(side,), preset=config.preset or "demo")


def make_pictures(config: Compression) -> None:
    """Make the pictures that `on_pong` names, unless they are there. Raises InputError where that folder cannot be written to."""
    assert config.data is not None and config.imgsz is not None  # on_pong's
    path, (side,) = Path(config.data), config.imgsz
    if not path.is_file():
        wide_console().print(f"no --data: making {PICTURES} labelled pictures of Pong, {side} px")
        data(path.parent, PICTURES, side, config.seed, config.workers or None)
