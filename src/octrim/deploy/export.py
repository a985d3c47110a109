"""Write a deployable, and compare it on pictures with another runtime before calling it done."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from octrim.atomic import named, write_bytes
from octrim.data.dataset import Dataset
from octrim.data.pictures import network_inputs
from octrim.data.scenes import drawn_scene
from octrim.deploy.compare import Limits, compare, judge, limits_of
from octrim.errors import InputError
from octrim.evaluate.val import evaluate
from octrim.network.model import Model
from octrim.network.options import image_size
from octrim.network.scales import require_scales
from octrim.targets.opening import open_session
from octrim.targets.session import Session
from octrim.targets.table import TARGETS, program
from octrim.targets.table import target as target_named
from octrim.targets.target import BatchSizes, Order, Target
from octrim.targets.tensorrt.options import EngineOptions

FORMATS = tuple(name for name, one in TARGETS.items() if one.portable)
"""Names of the targets that every machine can write and run."""


@dataclass(frozen=True)
class ExportReport:
    """Report of an export: what was written, and how far it is from the reference over all boxes of the pictures compared.

    path: written file or folder. reference: runtime that it was compared with: Paddle, or ONNX Runtime in the same precision for engines, which are
    built where there may be no Paddle, and for OpenVINO in int8. runtime: runtime that ran the deployable. batch: pictures per batch, None for any
    number, three numbers for an engine's fewest, typical and most. score_error: largest absolute difference of objectness and class scores.
    box_error: largest difference of box coordinates, in pixels. parts: largest and mean difference per part of the output. energy, boxes, matched,
    iou: as in `octrim.deploy.compare`. map: mAP50-95 of reference and deployable, where labelled data was given. not_compared: reason why this
    machine cannot run the deployable; differences are then unknown.
    """

    path: str
    format: str
    precision: str
    height: int
    width: int
    batch: BatchSizes
    bytes: int
    sha256: dict[str, str]
    pictures: int = 0
    reference: str = ""
    runtime: str = ""
    score_error: float = 0.0
    box_error: float = 0.0
    energy: float = 0.0
    boxes: int = 0
    matched: int = 0
    iou: float = 1.0
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    map: tuple[float, float] | None = None
    not_compared: str | None = None


def export(
    model: Model,
    path: str | Path,
    format: str = "onnx",
    precision: str = "fp32",
    imgsz: int | Sequence[int] | None = None,
    batch: BatchSizes = 1,
    pictures: Sequence[np.ndarray] | None = None,
    verify: bool = False,
    data: Dataset | None = None,
    engine: EngineOptions | None = None,
    raw_heads: bool = False,
    example: Path | None = None,
) -> ExportReport:
    """Write the deployable `path` and return a report of its differences from Paddle or, for an engine, from ONNX Runtime.

    path: `.onnx`, `.engine` (and its header `.engine.json` beside it), or a folder for OpenVINO IR and Paddle Inference.
    precision: "fp32"; "fp16": float16 feature maps and weights in ONNX and TensorRT, float16 weights in OpenVINO; "int8" for a model with scales
    (`octrim.quantize`), not in Paddle. imgsz: side, or (height, width), in pixels.
    batch: pictures per batch; None for any number, which an engine cannot; (fewest, typical, most), which only an engine can; C, ncnn, LiteRT and
    web take one picture at a time.
    pictures: uint8 BGR arrays to compare on; drawn ones by default. verify: the boxes that both detect must agree, too.
    data: labelled pictures on which mAP50-95 must agree. engine: how a TensorRT engine is built.
    raw_heads: whether an ONNX or `.tflite` file gives the logits of each level instead of boxes, with a JSON file beside it that describes them.
    example: picture or film that a page (web) shows when it is opened.
    Raises InputError, leaving nothing behind, when the deployable differs by more than its precision explains, and where TensorRT, CUDA or Paddle
    is needed and missing.
    """
    path, target = Path(path), target_named(format)
    size = image_size(imgsz, model.image_size, model.network.stride)
    order = Order(precision, *size, batch, engine, raw_heads, example)
    _check(model, path, target, order)
    if pictures is not None and not len(pictures):
        raise InputError("no pictures to compare on")
    if pictures is None:
        pictures = [drawn_scene(seed, *shape) for seed, shape in enumerate([(720, 1280), (480, 640), (900, 600)])]
    obstacle = target.obstacle()
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        made = Path(folder) / f"model{target.ending}"
        with named(path):
            target.write(model, made, order)
        report = ExportReport(str(path), format, precision, *size, batch, 0, {}, not_compared=obstacle)
        if obstacle is None:
            images = np.stack([*network_inputs(pictures, *size)])
            report = _compared(report, model, made, target, images, verify, data)
        files = place(made, path)
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return replace(report, bytes=sum(file.stat().st_size for file in files), sha256=digests)


def _check(model: Model, path: Path, target: Target, order: Order) -> None:
    """Raise InputError for options that do not go together, before anything takes time."""
    precision, batch = order.precision, order.batch
    if precision not in target.precisions:
        raise InputError(f"precision {precision!r} is unknown to {target.name}; known are {', '.join(target.precisions)}")
    if precision == "int8":
        require_scales(model.scales)
    counts: tuple[int, ...] = ()
    if isinstance(batch, tuple):
        counts = batch
    elif batch is not None:
        counts = (batch,)
    if not all(1 <= count <= 4096 for count in counts) or len(counts) not in (0, 1, 3):
        raise InputError(f"batch is {batch}, expected 1 to 4096 pictures")
    if batch is None and not target.any_batch:
        raise InputError(f"{target.what} must know the most pictures that a batch may have: give --batch N with --dynamic")
    if len(counts) == 3 and not target.batch_range:
        able = ", ".join(one.name for one in TARGETS.values() if one.batch_range)
        raise InputError(f"batch is {batch}; three numbers (fewest, typical, most) are only for {able}")
    if target.one_picture and (batch is None or max(counts) > 1):
        raise InputError(f"{target.what} takes one picture at a time, and programs call it in a loop: leave out --batch and --dynamic")
    if order.raw_heads and not target.raw_heads:
        raise InputError(f"{target.name} always decodes; raw heads are for {', '.join(one.name for one in TARGETS.values() if one.raw_heads)}")
    if order.example is not None and not target.examples:
        raise InputError(f"{target.name} carries no example; {', '.join(one.name for one in TARGETS.values() if one.examples)} does")
    for option in dataclasses.fields(EngineOptions):
        given = order.options is not None and option.name != "progress" and getattr(order.options, option.name) != option.default
        if given and not target.engine_options:
            able = ", ".join(one.name for one in TARGETS.values() if one.engine_options)
            raise InputError(f"{option.name} is for {able} alone; {target.name} has no use for it")
    if target.ending and path.suffix != target.ending:
        raise InputError(f"{path}: expected a file name that ends in {target.ending}")
    if not target.ending and path.suffix[1:2].isalpha():  # .2 is a part of det-v1.2, .onnx is the ending of a file
        raise InputError(f"{path}: expected a folder name, and {path.suffix} is the ending of a file")
    if not path.parent.is_dir() or (path.exists() and path.is_dir() != (not target.ending)):
        raise InputError(f"{path}: {'exists already' if path.exists() else 'its folder does not exist'}")
    target.check(model, order)


def _compared(report: ExportReport, model: Model, made: Path, target: Target, images: np.ndarray, verify: bool, data: Dataset | None) -> ExportReport:
    """The report with the differences of the deployable `made`. Raises InputError where they are larger than its precision explains."""
    session = open_session(made)
    try:
        reference = open_session(model, *target.judge(report.precision))
        reference.info = replace(reference.info, size=(report.height, report.width))
        limits = limits_of(report.precision, reference.info.precision)
        name = f"{program(reference.info.runtime)} {reference.info.version}"
        if reference.info.precision == "int8":
            name += " in int8"
        found = compare(reference, session, images, _at_once(report.batch, len(images)), limits)
        judge(found, limits, name, verify)
        maps = None if data is None else _maps(reference, session, data, limits, name)
        runtime = f"{session.info.runtime} {session.info.version}"
    finally:
        session.close()
    errors = {key: getattr(found, key) for key in ("score_error", "box_error", "energy", "boxes", "matched", "iou", "parts")}
    return replace(report, pictures=len(images), reference=name, runtime=runtime, map=maps, **errors)


def _at_once(batch: BatchSizes, pictures: int) -> int:
    """Number of pictures per batch in the comparison."""
    if isinstance(batch, tuple):
        return min(max(pictures, batch[0]), batch[2])
    return min(pictures, 8) if batch is None else batch  # at most 8, because the maps of 32 large pictures would fill the memory


def _maps(reference: Session, session: Session, data: Dataset, limits: Limits, name: str) -> tuple[float, float]:
    """mAP50-95 of the reference and of the deployable. Raises InputError where the deployable's is too low."""
    low, high = session.info.batches if session.info.batches is not None else (1, 8)
    size = min(max(8, low), high)
    expected, given = (evaluate(one, data, batch=size, bootstrap=0).map for one in (reference, session))
    if not given >= expected - limits.map:
        raise InputError(f"mAP50-95 is {given:.4f} where {name} has {expected:.4f}; {limits.map:g} less are allowed; nothing was written")
    return expected, given


def place(made: Path, path: Path) -> list[Path]:
    """Move the files of a checked deployable to their final place, each whole; other files in an existing folder stay."""
    if made.is_dir():
        path.mkdir(exist_ok=True)
        pairs = [(file, path / file.name) for file in sorted(made.iterdir())]
    else:  # an engine and the header beside it, which is moved last
        pairs = [(file, path.with_name(path.name + file.name.removeprefix(made.name))) for file in sorted(made.parent.iterdir())]
    for source, target in pairs:
        write_bytes(target, source.read_bytes())
    return [target for _, target in pairs]
