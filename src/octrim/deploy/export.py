"""Write a deployable, and compare it on pictures with another runtime before calling it done."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from octrim.atomic import named, write_bytes, write_text
from octrim.data.dataset import Dataset
from octrim.data.open import open_labelled
from octrim.data.pictures import Readable
from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.deploy.compare import Comparison, Limits, compare, fitted, judge, limits_of
from octrim.errors import InputError
from octrim.evaluate.val import evaluate
from octrim.network.model import Model
from octrim.network.options import image_size, model_from
from octrim.runs import Run, new_run, wide_console
from octrim.targets.opening import open_session
from octrim.targets.session import Session
from octrim.targets.table import TARGETS, program
from octrim.targets.table import target as target_named
from octrim.targets.target import Batch, Order, Target
from octrim.targets.tensorrt.options import EngineOptions
from octrim.targets.tensorrt.options import Progress as BuildProgress

if TYPE_CHECKING:
    from octrim.commands import Export

__all__ = ["FORMATS", "ExportReport", "export", "export_command"]

FORMATS = tuple(name for name, one in TARGETS.items() if one.portable)
"""What every machine can write and run."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far it is from the reference, over all boxes of the pictures compared.

    path: file or folder. reference: what it was compared with: Paddle, or ONNX Runtime in the same precision for engines, which are built
    where there may be no Paddle, and for OpenVINO in int8. runtime: what ran the deployable. batch: None for any number, three numbers for an
    engine's fewest, typical and most. score_error: largest absolute difference of objectness and class scores. box_error: of box coordinates, in
    pixels. parts: largest and mean per part of the output. energy, boxes, matched, iou: as in `octrim.deploy.compare`. map: mAP50-95 of reference
    and deployable, where labelled data was given. not_compared: why this machine cannot run the deployable; then nothing is said of differences.
    """

    path: str
    format: str
    precision: str
    height: int
    width: int
    batch: Batch
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
    batch: Batch = 1,
    pictures: Sequence[np.ndarray] | None = None,
    verify: bool = False,
    data: Dataset | None = None,
    engine: EngineOptions | None = None,
) -> ExportReport:
    """Write `path` and return how it compares: with Paddle, or an engine with ONNX Runtime.

    path: `.onnx`, `.engine` (and its header `.engine.json` beside it), or a folder for OpenVINO IR and Paddle Inference.
    precision: "fp32"; "fp16": float16 feature maps and weights in ONNX and TensorRT, float16 weights in OpenVINO; "int8" for a model with scales
    (`octrim.quantize`), not in Paddle. imgsz: side, or (height, width), in pixels.
    batch: pictures per batch; None for any number, which an engine cannot; (fewest, typical, most), which only an engine can.
    pictures: uint8 BGR arrays to compare on; drawn ones by default. verify: the boxes that both detect must agree, too.
    data: labelled pictures on which mAP50-95 must agree. engine: how a TensorRT engine is built.
    Raises InputError, leaving nothing behind, when the deployable differs by more than its precision explains, and where TensorRT, CUDA or Paddle
    is needed and missing.
    """
    path, target = Path(path), target_named(format)
    size = image_size(imgsz, model.image_size, model.network.stride)
    order = Order(precision, *size, batch, engine)
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
            report = _compared(report, model, made, target, fitted(pictures, *size), verify, data)
        files = _place(made, path)
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return replace(report, bytes=sum(file.stat().st_size for file in files), sha256=digests)


def _check(model: Model, path: Path, target: Target, order: Order) -> None:
    """Raise InputError for options that do not go together, before anything takes time."""
    precision, batch = order.precision, order.batch
    if precision not in target.precisions:
        raise InputError(f"precision {precision!r} is unknown to {target.name}; known are {', '.join(target.precisions)}")
    if precision == "int8" and not model.scales:
        raise InputError("int8 needs a model with scales, and this one has none: octrim quantize makes them")
    counts = batch if isinstance(batch, tuple) else () if batch is None else (batch,)
    if not all(1 <= count <= 4096 for count in counts) or len(counts) not in (0, 1, 3):
        raise InputError(f"batch is {batch}, expected 1 to 4096 pictures")
    if batch is None and not target.any_batch:
        raise InputError(f"{target.what} must know the most pictures that a batch may have: give --batch N with --dynamic")
    if len(counts) == 3 and not target.batch_range:
        able = ", ".join(one.name for one in TARGETS.values() if one.batch_range)
        raise InputError(f"batch is {batch}; three numbers (fewest, typical, most) are only for {able}")
    if path.suffix != target.ending:
        raise InputError(f"{path}: expected {f'a file name that ends in {target.ending}' if target.ending else 'a folder name'}")
    if not path.parent.is_dir() or (path.exists() and path.is_dir() != (not target.ending)):
        raise InputError(f"{path}: {'exists already' if path.exists() else 'its folder does not exist'}")
    target.check(model, order)


def _compared(report: ExportReport, model: Model, made: Path, target: Target, images: np.ndarray, verify: bool, data: Dataset | None) -> ExportReport:
    """The report with how the deployable `made` compares. Raises InputError where it differs by more than its precision explains."""
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


def _at_once(batch: Batch, pictures: int) -> int:
    """Pictures per batch of the comparison."""
    if isinstance(batch, tuple):
        return min(max(pictures, batch[0]), batch[2])
    return min(pictures, 8) if batch is None else batch  # of 32 large ones the maps would fill the memory


def _maps(reference: Session, session: Session, data: Dataset, limits: Limits, name: str) -> tuple[float, float]:
    """mAP50-95 of both. Raises InputError where the deployable's is too low."""
    low, high = session.info.batches if session.info.batches is not None else (1, 8)
    size = min(max(8, low), high)
    expected, given = (evaluate(one, data, batch=size, bootstrap=0).map for one in (reference, session))
    if not given >= expected - limits.map:
        raise InputError(f"mAP50-95 is {given:.4f} where {name} has {expected:.4f}; {limits.map:g} less are allowed; nothing was written")
    return expected, given


def _place(made: Path, path: Path) -> list[Path]:
    """Move what passed to where it belongs, whole file by whole file; other files in a folder stay."""
    if made.is_dir():
        path.mkdir(exist_ok=True)
        pairs = [(file, path / file.name) for file in sorted(made.iterdir())]
    else:  # an engine's header stands beside it; it comes last
        pairs = [(file, path.with_name(path.name + file.name.removeprefix(made.name))) for file in sorted(made.parent.iterdir())]
    for source, target in pairs:
        write_bytes(target, source.read_bytes())
    return [target for _, target in pairs]


def export_command(config: Export) -> None:
    """`octrim export`."""
    model = model_from(config)
    batch = _batch(config)
    pictures, failures = _pictures(config.source)
    data = None if config.data is None else open_labelled(config.data, config.split, model.names)
    ending = target_named(config.format).ending
    name = f"model{ending}" if ending else config.format
    with tempfile.TemporaryDirectory(prefix="octrim-") as folder:  # a run folder is made for what has passed the comparison
        with _progress() as progress:
            report = export(
                model,
                Path(folder) / name,
                config.format,
                config.precision,
                config.imgsz,
                batch,
                pictures,
                config.verify,
                data,
                EngineOptions(config.pad_channels, config.workspace, config.builder_level, config.timing_cache, progress, config.high_precision),
            )
        run = new_run(config)
        for line in failures:
            run.print(f"left out: {line}")
        target = run.path / name
        if target.is_dir():  # --exist-ok
            shutil.rmtree(target)
        _place(Path(report.path), target)
    report = replace(report, path=str(target))
    write_text(run.path / "export.json", json.dumps(asdict(report), indent=1))
    _print(run, report, config.verify)


def _batch(config: Export) -> Batch:
    """What --batch and --dynamic ask for, as `export` takes it."""
    counts = list(config.batch)
    if len(counts) == 3 and not config.dynamic:
        return counts[0], counts[1], counts[2]
    if len(counts) != 1:
        raise InputError("--batch takes a number, or three for an engine without --dynamic: fewest, typical, most")
    if not config.dynamic:
        return counts[0]
    if target_named(config.format).any_batch:
        return None
    return None if counts[0] == 1 else (1, counts[0], counts[0])  # a full batch is what is in a hurry


def _pictures(source: str | None) -> tuple[list[np.ndarray] | None, list[str]]:
    """The first 32 pictures of the source that can be read, and a line for each other. Raises InputError where none can, and for a video."""
    if source is None:
        return None, []
    opened = open_source(source)
    if opened.video is not None:
        raise InputError(f"{source}: expected pictures to compare on")
    readable = Readable([str(path) for path in opened.pictures])
    pictures = list(islice(readable, 32))
    if not pictures:
        readable.require()
    return pictures, readable.failures


@contextmanager
def _progress() -> Iterator[BuildProgress]:
    """A bar per phase of the building of an engine; it takes minutes."""
    console = wide_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done, total=total)

        yield show


def _print(run: Run, report: ExportReport, verify: bool) -> None:
    few_and_many = report.batch if isinstance(report.batch, tuple) else None
    count = f"{few_and_many[0]} to {few_and_many[2]}" if few_and_many else report.batch or "any"
    layout = f"{report.height} x {report.width} x 3, uint8" if report.format == "tensorrt" else f"3 x {report.height} x {report.width}"
    run.print(f"{report.path}: {report.format} {report.precision}, {report.bytes / 1e6:.2f} MB, input {count} x {layout}")
    if report.not_compared is not None:
        run.print(f"not compared with anything: {report.not_compared}")
        return
    run.print(
        f"compared with {report.reference} on {report.pictures} pictures in {report.runtime}: "
        f"largest difference {report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
    )
    if verify:
        found = Comparison(parts=report.parts)
        run.print(found.table())
        boxes = f"{report.matched} of the {report.boxes} boxes of either agree, mean IoU {report.iou:.4f}" if report.boxes else "neither found a box"
        run.print(f"{boxes}; scores differ by {report.energy:.2g} of their magnitude")
    if report.map is not None:
        run.print(f"mAP50-95 {report.map[1]:.4f}, {report.reference} {report.map[0]:.4f}")
    run.print(f"next: octrim predict --weights {report.path} --source PICTURE")
