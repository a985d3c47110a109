"""`octrim predict`."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from octrim.atomic import replacing, write_text
from octrim.data.sources import Frame, Source, open_source
from octrim.data.video import Video
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.runs import Run, new_run

if TYPE_CHECKING:
    from octrim.commands import Predict

STAGES = ("read", "pre", "network", "post", "write")


def predict(config: Predict) -> None:
    """Detect in every picture or frame of the source and leave what was asked for in the run's folder.

    A picture that cannot be read does not stop the others; it is named in the end, and the command then fails.
    """
    if config.device != "cpu":
        raise InputError(f"device is {config.device!r}; only cpu is supported so far")
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
    source = open_source(config.source)
    frames = iter(source)
    failures: list[str] = []
    first = next(frames, None)
    while first is not None and first.image is None:
        failures.append(first.error or first.source)
        first = next(frames, None)
    if first is None:  # nothing to lose yet: fail before a run folder exists
        raise InputError(f"{source.video}: no frame could be read" if source.video is not None else _failed(failures, len(failures)))
    run = new_run(config)
    output = _Output(config, run, source)
    milliseconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
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
                    failures.append(frame.error or frame.source)
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
    _report(run, source, output, milliseconds)
    if failures:
        raise InputError(f"{_failed(failures, len(failures) + output.count)}; the other {output.count} are in {run.path}")


def _failed(failures: list[str], count: int) -> str:
    return failures[0] if count == 1 else f"{len(failures)} of {count} pictures could not be read: {'; '.join(failures[:5])}"


def _report(run: Run, source: Source, output: _Output, milliseconds: dict[str, list[float]]) -> None:
    count = output.count
    if source.video is not None:
        run.print(f"{source.video}: {count} frames, {sum(output.objects.values())} boxes: {_counts(output.objects)}")
        if source.frames is not None and count < source.frames:
            run.print(f"{source.video}: ended after {count} of the {source.frames} frames that its header claims")
    per_picture = {stage: float(np.median(values)) for stage, values in milliseconds.items()}
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in per_picture.items())
    total = sum(per_picture.values())
    run.print(f"{count} pictures; median milliseconds each: {stages}; {1000 / total:.1f} pictures/s")
    write_text(run.path / "speed.json", json.dumps({"pictures": count, "median_ms": per_picture, "pictures_per_second": 1000 / total}, indent=1))
    run.print(f"results: {run.path}")


def _counts(objects: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in objects.most_common()) or "none"


class _Output:
    """Everything that `predict` leaves in the run's folder."""

    def __init__(self, config: Predict, run: Run, source: Source) -> None:
        self.config, self.run, self.source = config, run, source
        self.count = 0
        self.objects: Counter[str] = Counter()
        self.taken: set[tuple[str, str]] = set()
        self.results: list[dict[str, Any]] = []
        self.video: Video | None = None

    def write(self, frame: Frame, found: Detections) -> None:
        assert frame.image is not None
        self.count += 1
        self.objects.update(self.names(found))
        stem = self.stem(frame)
        if not self.config.nosave:
            drawn = found.draw(frame.image)
            if frame.index is None:
                self.picture(self.run.path, stem, Path(frame.source).suffix.lower(), drawn)
            else:
                self.video = self.video or Video(self.run.path / f"{stem}.mp4", self.source.fps, drawn.shape[1], drawn.shape[0])
                self.video.write(drawn)
        name = stem if frame.index is None else f"{stem}_{frame.index}"
        if self.config.save_txt:
            folder = self.run.path / "labels"
            folder.mkdir(exist_ok=True)
            write_text(folder / f"{name}.txt", found.to_yolo(self.config.save_conf))
        if self.config.save_json:
            self.results += [{"image_id": name, **entry} for entry in found.to_json()]
        if self.config.save_crop:
            self.crop(frame.image, found, name)

    @staticmethod
    def names(found: Detections) -> list[str]:
        return [found.names[label] for label in found.class_id.tolist()]

    def stem(self, frame: Frame) -> str:
        """The source's name; numbered where pictures of one name come from different folders or formats."""
        if frame.index is not None:
            return Path(str(frame.source).partition("?")[0]).stem or "video"
        return self.free("", Path(frame.source).stem)

    def free(self, folder: str, stem: str) -> str:
        """`stem`, or `stem-2`, .. where that is taken already."""
        for number in itertools.count(1):
            name = stem if number == 1 else f"{stem}-{number}"
            if (folder, name) not in self.taken:
                self.taken.add((folder, name))
                return name
        raise AssertionError("unreachable: count() does not end")

    def picture(self, folder: Path, stem: str, suffix: str, image: np.ndarray) -> None:
        # OpenCV cannot write every format that it reads, and writes no file names that it cannot spell: encode, then write bytes.
        suffix = suffix if suffix in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff") else ".jpg"
        encoded, data = cv2.imencode(suffix, image)
        if not encoded:
            raise InputError(f"{folder / stem}{suffix}: OpenCV cannot encode this picture")
        with replacing(folder / f"{stem}{suffix}") as temporary:
            temporary.write_bytes(data.tobytes())

    def crop(self, image: np.ndarray, found: Detections, name: str) -> None:
        for box in found:
            x1, y1, x2, y2 = (round(side) for side in box.xyxy)
            part = image[max(y1, 0) : y2, max(x1, 0) : x2]
            if part.size:
                # A class name is data, not a path.
                label = "".join(c if c.isalnum() or c in " -_." else "_" for c in box.name).strip(". ") or "class"
                folder = self.run.path / "crops" / label
                folder.mkdir(parents=True, exist_ok=True)
                self.picture(folder, self.free(label, name), ".jpg", part)

    def close(self) -> None:
        if self.video is not None:
            self.video.close()
        if self.config.save_json:
            write_text(self.run.path / "predictions.json", json.dumps(self.results, indent=1, ensure_ascii=False))
