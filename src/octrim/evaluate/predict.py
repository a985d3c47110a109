"""`octrim predict`."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from octrim.atomic import write_text
from octrim.data.sources import open_source
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.evaluate.output import Output
from octrim.runs import Run, new_run

if TYPE_CHECKING:
    from octrim.commands import Predict

STAGES = ("read", "pre", "network", "post", "write")


def predict(config: Predict) -> None:
    """Detect in every picture or frame of the source and leave what was asked for in the run's folder.

    A picture that cannot be read does not stop the others; it is named in the end, and the command then fails.
    """
    detector = Detector(
        config.weights,
        config.imgsz,
        config.conf,
        config.iou,
        config.classes,
        config.agnostic,
        config.max_det,
        config.runtime,
        config.precision,
        config.threads,
    )
    if detector.info.batch not in (None, 1):
        raise InputError(f"{config.weights}: was built for batches of {detector.info.batch}; predict runs one picture at a time")
    notes: list[str] = []  # what a source says before the run's folder exists
    run: Run | None = None

    def tell(line: str) -> None:
        if run is None:
            notes.append(line)
        else:
            run.print(line)

    source = open_source(config.source, config.vid_stride, config.retries, tell)
    frames = iter(source)
    failures: list[str] = []
    first = next(frames, None)
    while first is not None and first.image is None:
        failures.append(first.error or first.source)
        first = next(frames, None)
    if first is None:  # nothing to lose yet: fail before a run folder exists
        raise InputError(f"{source.video}: no frame could be read" if source.video is not None else _failed(failures, len(failures)))
    run = new_run(config)
    for note in notes:
        run.print(note)
    output = Output(config, run.path, source.together)
    milliseconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    lost: list[str] = []
    frames = itertools.chain([first], frames)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as progress:
            task = progress.add_task("predict", total=source.total)
            while True:
                start = perf_counter()
                frame = next(frames, None)
                if frame is None:
                    break
                if frame.image is None:
                    (failures if frame.index is None else lost).append(frame.error or frame.source)
                else:
                    milliseconds["read"].append(1000 * (perf_counter() - start))
                    found = detector.detect(frame.image, frame.source, frame.index)
                    for stage, value in found.speed_ms.items():
                        milliseconds[stage].append(value)
                    start = perf_counter()
                    output.write(frame, found)
                    milliseconds["write"].append(1000 * (perf_counter() - start))
                    if frame.index is None:
                        run.print(f"{frame.source}: {found.summary()}")
                progress.advance(task)
    finally:  # also on Ctrl-C: a video keeps the frames it has
        output.close()
    _report(run, output, milliseconds)
    if lost:
        raise InputError(f"{'; '.join([*lost, *failures][:5])}; the {output.count} frames before are in {run.path}")
    if failures:
        raise InputError(f"{_failed(failures, len(failures) + output.count)}; the other {output.count} are in {run.path}")


def _failed(failures: list[str], count: int) -> str:
    return failures[0] if count == 1 else f"{len(failures)} of {count} pictures could not be read: {'; '.join(failures[:5])}"


def _report(run: Run, output: Output, milliseconds: dict[str, list[float]]) -> None:
    count = output.count
    for name, frames in output.frames.items():
        objects = output.objects[name]
        run.print(f"{name}: {frames} frames, {sum(objects.values())} boxes: {_counts(objects)}")
    per_picture = {stage: float(np.median(values)) for stage, values in milliseconds.items()}
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in per_picture.items())
    total = sum(per_picture.values())
    run.print(f"{count} pictures; median milliseconds each: {stages}; {1000 / total:.1f} pictures/s")
    write_text(run.path / "speed.json", json.dumps({"pictures": count, "median_ms": per_picture, "pictures_per_second": 1000 / total}, indent=1))
    run.print(f"results: {run.path}")


def _counts(objects: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in objects.most_common()) or "none"
