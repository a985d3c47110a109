"""`octrim predict`."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import arg

from octrim.errors import InputError
from octrim.options import Conf, Folder, ImageSize, Iou, Number, Range, Text
from octrim.targets.options import Execution

if TYPE_CHECKING:
    from octrim.data.streams import Frame
    from octrim.detector import Detector
    from octrim.evaluate.output import Output
    from octrim.runs import Run

STAGES = ("read", "pre", "network", "post", "write")
"""Parts of the time that a picture takes, in their order."""


@dataclass(frozen=True)
class Predict(Execution, Folder):
    """Detect objects in a picture, folder, glob, video, stream or camera."""

    command: ClassVar[str] = "predict"

    weights: str = "best.safetensors"
    """Model file, checkpoint (.pt), what octrim export wrote (.onnx, .engine, a folder, ..), or pong, the network that comes with OcTrim."""
    source: Text = None
    """Picture, video, folder or glob of them, list of them (.txt), stream address, list of streams (.streams), or camera number (default:
    camera 0; with --weights pong the game that comes with OcTrim)."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Least confidence of a detection that is shown."""
    iou: Iou = 0.45
    """IoU above which boxes of one class suppress each other."""
    max_det: Annotated[int, Range(1)] = 300
    """Largest number of boxes per picture."""
    classes: Annotated[tuple[int | str, ...] | None, arg(metavar="N|NAME [..]", help_behavior_hint=""), Range(0)] = None
    """Keep only these classes, by number or name."""
    agnostic: Annotated[bool, arg(aliases=["--agnostic-nms"])] = False
    """Let boxes of different classes suppress each other, too."""
    score_voting: bool = False
    """Make each box the mean of the boxes of its class that overlap it, by confidence and overlap: boxes fit better (score voting)."""
    save_txt: bool = False
    """Write labels/*.txt in YOLO format."""
    save_conf: bool = False
    """Write the confidence as the last column of labels/*.txt."""
    save_json: bool = False
    """Write predictions.json (COCO results)."""
    save_crop: bool = False
    """Write every box as a picture of its own into crops/CLASS."""
    nosave: bool = False
    """Write no annotated pictures and videos."""
    vid_stride: Annotated[int, Range(1, 10_000)] = 1
    """Number of frames of a video or stream of which one is looked at."""
    retries: Annotated[int, Range(0, 1_000_000)] = 5
    """How often in a row a stream that was lost is opened again, after 1, 2, 4, .. seconds; 0 ends with it."""
    line_thickness: Annotated[Number, Range(1, 100)] = None
    """Pixels of the drawn lines (default: by the picture's size)."""
    hide_labels: bool = False
    """Draw boxes without names."""
    hide_conf: bool = False
    """Draw names without confidences."""

    def run(self) -> None:
        """Detect in every picture or frame of the source and leave what was asked for in the run's folder.

        A picture that cannot be read does not stop the others; it is named in the end, and the command then fails.
        """
        from octrim.data.sources import open_source
        from octrim.detector import Detector
        from octrim.evaluate.output import Output, Wanted
        from octrim.runs import new_run
        from octrim.shipped import film_of

        suppression = (self.conf, self.iou, self.classes, self.agnostic, self.max_det)
        execution = (self.runtime, self.precision, self.threads, self.device)
        detector = Detector(self.weights, self.imgsz, *suppression, *execution, self.score_voting)
        if detector.info.batch not in (None, 1):
            raise InputError(f"{self.weights}: was built for batches of {detector.info.batch}; predict runs one picture at a time")
        log = _Log()
        wanted = str(film_of(self.weights) or 0) if self.source is None else self.source
        source = open_source(wanted, self.vid_stride, self.retries, log.tell)
        frames = iter(source)
        failures: list[str] = []
        first = next(frames, None)
        while first is not None and first.image is None:
            failures.append(first.error or first.source)
            first = next(frames, None)
        if first is None:  # a source without a readable frame is refused before a run folder exists
            raise InputError(f"{source.video}: no frame could be read" if source.video is not None else _failed(failures, len(failures)))
        run = log.run = new_run(self)
        for note in log.notes:
            run.print(note)
        drawn = (self.line_thickness, not self.hide_labels, not self.hide_conf)
        output = Output(
            Wanted(not self.nosave, self.save_txt, self.save_conf, self.save_json, self.save_crop, *drawn), run.path, source.together, log.tell
        )
        try:
            milliseconds, lost = _look(detector, itertools.chain([first], frames), source.total, output, run, failures)
        finally:  # also on Ctrl-C: a video keeps the frames it has
            output.close()
        _report(run, output, milliseconds)
        if lost:
            raise InputError(f"{'; '.join([*lost, *failures][:5])}; the {output.count} frames before are in {run.path}")
        if failures:
            others = "the other one is" if output.count == 1 else f"the other {output.count} are"
            raise InputError(f"{_failed(failures, len(failures) + output.count)}; {others} in {run.path}")


class _Log:
    """Lines that a source says: kept until there is a run's folder, then printed and logged there."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.run: Run | None = None

    def tell(self, line: str) -> None:
        if self.run is None:
            self.notes.append(line)
        else:
            self.run.print(line)


def _look(
    detector: Detector, frames: Iterator[Frame], total: int | None, output: Output, run: Run, failures: list[str]
) -> tuple[dict[str, list[float]], list[str]]:
    """Detect in all frames. Returns milliseconds of each by stage, and a line for every video that was lost; adds to `failures` one per picture."""
    from octrim.progress import progress_bar

    milliseconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    lost: list[str] = []
    with progress_bar("predict", total, run.console) as bar:
        while True:
            start = perf_counter()
            frame = next(frames, None)
            if frame is None:
                return milliseconds, lost
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
            bar.advance()


def _failed(failures: list[str], count: int) -> str:
    return failures[0] if count == 1 else f"{len(failures)} of {count} pictures could not be read: {'; '.join(failures[:5])}"


def _report(run: Run, output: Output, milliseconds: dict[str, list[float]]) -> None:
    from octrim.atomic import write_text

    count = output.count
    for name, frames in output.frames.items():
        objects = output.objects[name]
        run.print(f"{name}: {frames} frames, {sum(objects.values())} boxes: {_counts(objects)}")
    per_picture = {stage: median(values) for stage, values in milliseconds.items()}
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in per_picture.items())
    total = sum(per_picture.values())
    pictures = "1 picture" if count == 1 else f"{count} pictures"
    run.print(f"{pictures}; median milliseconds each: {stages}; {1000 / total:.1f} pictures/s")
    write_text(run.path / "speed.json", json.dumps({"pictures": count, "median_ms": per_picture, "pictures_per_second": 1000 / total}, indent=1))
    run.print(f"results: {run.path}")


def _counts(objects: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in objects.most_common()) or "none"
