"""The data that needs no download: pictures of Pong, made where a compression is given none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from octrim.errors import InputError
from octrim.pong.dataset import data
from octrim.runs import wide_console

if TYPE_CHECKING:
    from octrim.commands import Compress

PICTURES = 400
SIDE = 256


def with_pong(config: Compress) -> Compress:
    """The options, with Pong's pictures where no data are given and a fresh yolov5n where no network is.

    They are made once, `PICTURES` of them, SIDE pixels wide unless --imgsz says something else, in the folder of the runs, and used again by the
    next run with the same size and seed. Raises InputError where that folder cannot be written to.
    """
    if config.data is not None:
        return config
    from octrim.pong.commands import PongData

    if config.imgsz is not None and len(set(config.imgsz)) != 1:
        raise InputError(f"imgsz is {config.imgsz}; training pictures are square, give one side")
    side = SIDE if config.imgsz is None else config.imgsz[0]
    folder = Path(config.project or "runs/compress") / f"pong-{PICTURES}-{side}-{config.seed}"
    if not (folder / "data.yaml").is_file():
        wide_console().print(f"no --data: making {PICTURES} labelled pictures of Pong, {side} px")
        data(PongData(images=PICTURES, out=str(folder), imgsz=side, seed=config.seed, workers=config.workers or None))
    cfg = "yolov5n" if config.weights is None and config.cfg is None else config.cfg
    return replace(config, data=str(folder / "data.yaml"), cfg=cfg, imgsz=(side,), preset=config.preset or "demo")
