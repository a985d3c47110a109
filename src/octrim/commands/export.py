"""`octrim export`."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import arg

from octrim.errors import InputError
from octrim.options import Folder, ImageSize, OneNetwork, Range, Reading, Text
from octrim.targets.options import ExportPrecision, Format

if TYPE_CHECKING:
    import numpy as np

    from octrim.deploy.export import ExportReport
    from octrim.runs import Run
    from octrim.targets.target import BatchSizes

_COMPARED = 32  # pictures of the source that are compared at most


@dataclass(frozen=True)
class Export(OneNetwork, Reading, Folder):
    """Write a deployable, compared on pictures with another runtime before it is called done."""

    command: ClassVar[str] = "export"

    format: Format = "onnx"
    precision: ExportPrecision = "fp32"
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"], metavar="N [N N]"), Range(1, 4096)] = (1,)
    """Pictures per batch; for tensorrt also three numbers: fewest, typical, most."""
    dynamic: bool = False
    """Let the deployable take any number of pictures per batch; an engine takes 1 to --batch."""
    raw_heads: bool = False
    """Write the logits of each level instead of boxes, as compilers for NPUs want, and a JSON file that says how they become boxes (onnx, litert)."""
    example: Text = None
    """Picture or film that a page (web) carries and shows when it is opened (default with --weights pong: a game)."""
    source: Text = None
    """Picture, folder or glob to compare on (default: drawn pictures)."""
    verify: bool = False
    """Also show the differences by part of the output, and demand that the detected boxes agree."""
    data: Text = None
    """Labelled data on which mAP must agree: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    split: str = "val"
    """Split of the labelled data that mAP is measured on."""
    pad_channels: Annotated[int, Range(1, 128)] = 1
    """Number of channels that tensorrt's convolutions are padded with zeros to multiples of."""
    high_precision: Literal["fp16", "fp32"] = "fp16"
    """Precision of what is not int8 in an engine of int8; with fp32 its integers are those of an ONNX file."""
    workspace: Annotated[float, Range(0, 1 << 20, above=True)] = 1.0
    """GiB of GPU memory that tensorrt may use while it builds."""
    builder_level: Annotated[int, Range(0, 5)] = 3
    """How hard tensorrt searches: 0 builds fast, 5 runs fast."""
    timing_cache: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """File of kernel times that tensorrt reads and writes, so that later builds are faster."""

    def run(self) -> None:
        from octrim.atomic import write_text
        from octrim.data.open import open_labelled
        from octrim.deploy.export import export, place
        from octrim.network.options import model_from
        from octrim.progress import progress_bar
        from octrim.runs import new_run
        from octrim.targets.table import target
        from octrim.targets.tensorrt.options import EngineOptions

        model = model_from(self)
        batch = _batch(self)
        example = _example(self)
        pictures, failures = _pictures(self.source)
        data = None if self.data is None else open_labelled(self.data, self.split, model.names, **self.reading())
        ending = target(self.format).ending
        name = f"model{ending}" if ending else self.format
        with tempfile.TemporaryDirectory(prefix="octrim-") as folder:  # a run folder is made for what has passed the comparison
            with progress_bar(self.format, None) as bar:
                engine = EngineOptions(self.pad_channels, self.workspace, self.builder_level, self.timing_cache, bar.phase, self.high_precision)
                path = Path(folder) / name
                report = export(
                    model, path, self.format, self.precision, self.imgsz, batch, pictures, self.verify, data, engine, self.raw_heads, example
                )
            run = new_run(self)
            for line in failures:
                run.print(f"left out: {line}")
            kept = run.path / name
            if kept.is_dir():  # --exist-ok
                shutil.rmtree(kept)
            place(Path(report.path), kept)
        report = replace(report, path=str(kept))
        write_text(run.path / "export.json", json.dumps(asdict(report), indent=1))
        _print(run, report, self.verify)


def _batch(config: Export) -> BatchSizes:
    """What --batch and --dynamic ask for, as `export` takes it."""
    from octrim.targets.table import target

    counts = list(config.batch)
    if len(counts) == 3 and not config.dynamic:
        return counts[0], counts[1], counts[2]
    if len(counts) != 1:
        raise InputError("--batch takes a number, or three for an engine without --dynamic: fewest, typical, most")
    if not config.dynamic:
        return counts[0]
    if target(config.format).any_batch:
        return None
    return None if counts[0] == 1 else (1, counts[0], counts[0])  # a full batch is what is in a hurry


def _example(config: Export) -> Path | None:
    """The picture or film that the deployable is to carry. Raises InputError for a file that is not there."""
    from octrim.shipped import film_of
    from octrim.targets.table import target

    if config.example is None:
        return film_of(config.weights) if config.weights is not None and target(config.format).examples else None
    path = Path(config.example)
    if not path.is_file():
        raise InputError(f"{path}: no such file; --example takes a picture or a film")
    return path


def _pictures(source: str | None) -> tuple[list[np.ndarray] | None, list[str]]:
    """The first 32 pictures of the source that can be read, and a line for each other. Raises InputError where none can, and for a video."""
    from octrim.data.pictures import Readable
    from octrim.data.sources import open_source

    if source is None:
        return None, []
    opened = open_source(source)
    if opened.video is not None:
        raise InputError(f"{source}: expected pictures to compare on")
    readable = Readable([str(path) for path in opened.pictures])
    pictures = list(itertools.islice(readable, _COMPARED))
    if not pictures:
        readable.require()
    return pictures, readable.failures


def _print(run: Run, report: ExportReport, verify: bool) -> None:
    """Say what was written and how it compares."""
    from octrim.deploy.compare import Comparison
    from octrim.runs import typed

    few_and_many = report.batch if isinstance(report.batch, tuple) else None
    count = f"{few_and_many[0]} to {few_and_many[2]}" if few_and_many else report.batch or "any"
    layout = f"{report.height} x {report.width} x 3, uint8" if report.format == "tensorrt" else f"3 x {report.height} x {report.width}"
    run.print(f"{report.path}: {report.format} {report.precision}, {report.bytes / 1e6:.2f} MB, input {count} x {layout}")
    if report.not_compared is not None:
        run.print(f"not compared with anything: {report.not_compared}")
        return
    difference = f"largest difference {report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
    if report.precision == "int8":  # single values move far where a rounding falls the other way: their largest difference tells nothing
        difference = f"scores differ by {report.energy:.2g} of their magnitude, as roundings to eight bits explain"
    run.print(f"compared with {report.reference} on {report.pictures} pictures in {report.runtime}: {difference}")
    if verify:
        found = Comparison(parts=report.parts)
        run.print(found.table())
        boxes = f"{report.matched} of the {report.boxes} boxes of either agree, mean IoU {report.iou:.4f}" if report.boxes else "neither found a box"
        run.print(f"{boxes}; scores differ by {report.energy:.2g} of their magnitude")
    if report.map is not None:
        run.print(f"mAP50-95 {report.map[1]:.4f}, {report.reference} {report.map[0]:.4f}")
    elif report.precision == "int8":
        run.print(f"what int8 costs in accuracy: {typed('val', '--weights', report.path, '--data', 'D')}")
    run.print(f"next: {typed('predict', '--weights', report.path, '--source', 'PICTURE')}")
