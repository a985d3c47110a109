"""Write a deployable, and compare it with Paddle on pictures before calling it done."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from octrim.atomic import write_bytes, write_text
from octrim.backends.session import Session, open_session
from octrim.data.pictures import letterbox
from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.options import image_size, model_from
from octrim.runs import new_run

if TYPE_CHECKING:
    from octrim.commands import Export

FORMATS = ("onnx", "openvino")

# Largest difference to Paddle that passes: of scores, and of box coordinates in pixels plus a share of their size. float16 keeps
# 11 bits, so its logits move in the third digit.
_TOLERANCE = {"fp32": (1e-3, 0.05, 1e-4), "fp16": (5e-2, 1.0, 3e-2)}


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far it is from Paddle, over all boxes of the pictures compared.

    path: file or folder. score_error: largest absolute difference of objectness and class scores. box_error: of box coordinates, in
    pixels. runtime: what ran the deployable.
    """

    path: str
    format: str
    precision: str
    height: int
    width: int
    batch: int | None
    bytes: int
    sha256: dict[str, str]
    pictures: int
    runtime: str
    score_error: float
    box_error: float


def export(
    model: Model,
    path: str | Path,
    format: str = "onnx",
    precision: str = "fp32",
    imgsz: int | Sequence[int] | None = None,
    batch: int | None = 1,
    pictures: Sequence[np.ndarray] | None = None,
) -> ExportReport:
    """Write `path` (`.onnx` file, or a folder for OpenVINO IR) and return how it compares with Paddle.

    precision: "fp32", or "fp16": float16 feature maps and weights in ONNX, float16 weights in OpenVINO. imgsz: side, or (height, width).
    batch: pictures per batch; None for any number. pictures: uint8 BGR arrays to compare on; drawn ones by default.
    Raises InputError, leaving nothing behind, when the deployable differs from Paddle by more than rounding explains.
    """
    path = Path(path)
    if format not in FORMATS:
        raise InputError(f"format {format!r} is unknown; known are {', '.join(FORMATS)}")
    if precision not in _TOLERANCE:
        raise InputError(f"precision {precision!r} is unknown; known are {', '.join(_TOLERANCE)}")
    if batch is not None and not 1 <= batch <= 4096:
        raise InputError(f"batch is {batch}, expected 1 to 4096 pictures")
    if path.suffix != (".onnx" if format == "onnx" else ""):
        raise InputError(f"{path}: expected {'a file name that ends in .onnx' if format == 'onnx' else 'a folder name'}")
    if not path.parent.is_dir() or (path.exists() and path.is_dir() != (format == "openvino")):
        raise InputError(f"{path}: {'exists already' if path.exists() else 'its folder does not exist'}")
    height, width = image_size(imgsz, model.image_size, model.network.stride)
    if pictures is not None and not len(pictures):
        raise InputError("no pictures to compare on")
    if pictures is None:
        pictures = [drawn_scene(seed, *size) for seed, size in enumerate([(720, 1280), (480, 640), (900, 600)])]
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        written = _write(model, Path(folder), format, precision, height, width, batch)
        session = open_session(written)
        errors = _compare(model, session, pictures, height, width, batch, precision)
        if format == "onnx":
            files = [path]
            write_bytes(path, written.read_bytes())
        else:
            files = [path / "model.bin", path / "model.xml"]
            path.mkdir(exist_ok=True)
            for file in files:
                write_bytes(file, (written.parent / file.name).read_bytes())
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    size = sum(file.stat().st_size for file in files)
    runtime = f"{session.info.runtime} {session.info.version}"
    return ExportReport(str(path), format, precision, height, width, batch, size, digests, len(pictures), runtime, *errors)


def _write(model: Model, folder: Path, format: str, precision: str, height: int, width: int, batch: int | None) -> Path:
    if format == "onnx":
        from octrim.backends.onnx import onnx_model

        file = folder / "model.onnx"
        file.write_bytes(onnx_model(model, height, width, batch, precision).SerializeToString(deterministic=True))
        return file
    import openvino as ov

    from octrim.backends.openvino import openvino_model

    file = folder / "ir" / "model.xml"
    file.parent.mkdir()
    ov.save_model(openvino_model(model, height, width, batch), file, compress_to_fp16=precision == "fp16")
    return file


def _compare(
    model: Model, session: Session, pictures: Sequence[np.ndarray], height: int, width: int, batch: int | None, precision: str
) -> tuple[float, float]:
    """Largest differences to Paddle, (scores, pixels). Raises InputError where they exceed what the precision explains."""
    paddle = open_session(model, "paddle")
    fitted = np.stack([cv2.cvtColor(letterbox(picture, height, width)[0], cv2.COLOR_BGR2RGB) for picture in pictures])
    size = len(fitted) if batch is None else batch
    score_limit, pixel_limit, relative = _TOLERANCE[precision]
    score_error = box_error = 0.0
    for start in range(0, len(fitted), size):
        part = np.take(fitted, range(start, start + size), axis=0, mode="wrap")  # a fixed batch is filled up from the start
        expected, found = paddle(part), session(part)
        if expected.shape != found.shape or not np.isfinite(found).all():
            raise InputError(f"export gave {list(found.shape)} values, not all of them finite perhaps; Paddle gives {list(expected.shape)}")
        difference = np.abs(expected - found)
        score_error = max(score_error, float(difference[..., 4:].max()))
        box_error = max(box_error, float(difference[..., :4].max()))
        if score_error > score_limit or (difference[..., :4] > pixel_limit + relative * np.abs(expected[..., :4])).any():
            raise InputError(
                f"the deployable differs from Paddle by {score_error:.2g} in scores and {box_error:.2g} px in boxes; "
                f"allowed are {score_limit:g}, and {pixel_limit:g} px plus {relative:g} of the coordinate; nothing was written"
            )
    return score_error, box_error


def export_command(config: Export) -> None:
    """`octrim export`."""
    model = model_from(config)
    pictures = None
    if config.source is not None:
        source = open_source(config.source)
        if source.video is not None:
            raise InputError(f"{config.source}: expected pictures to compare on")
        frames = [frame for _, frame in zip(range(32), source, strict=False)]
        broken = next((frame for frame in frames if frame.image is None), None)
        if broken is not None:
            raise InputError(broken.error or broken.source)
        pictures = [frame.image for frame in frames if frame.image is not None]
    name = "model.onnx" if config.format == "onnx" else config.format
    batch = None if config.dynamic else config.batch
    with tempfile.TemporaryDirectory(prefix="octrim-") as folder:  # a run folder is made for what has passed the comparison
        report = export(model, Path(folder) / name, config.format, config.precision, config.imgsz, batch, pictures)
        run = new_run("export", config)
        target = run.path / name
        if target.is_dir():  # --exist-ok
            shutil.rmtree(target)
        shutil.move(report.path, target)
    report = replace(report, path=str(target))
    write_text(run.path / "export.json", json.dumps(asdict(report), indent=1))
    shape = f"{report.batch or 'any'} x 3 x {report.height} x {report.width}"
    run.print(f"{report.path}: {report.format} {report.precision}, {report.bytes / 1e6:.2f} MB, input {shape}")
    run.print(
        f"compared with Paddle on {report.pictures} pictures in {report.runtime}: "
        f"largest difference {report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
    )
    run.print(f"next: octrim predict --weights {report.path} --source PICTURE")
