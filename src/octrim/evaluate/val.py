"""A network is run over a data set: what `octrim val` does, and every training after its epochs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from octrim.data.dataset import Dataset
from octrim.errors import InputError
from octrim.evaluate.batches import Batch, Planned, fixed_plan, read_batches, rectangular_plan
from octrim.evaluate.classes import map_classes
from octrim.evaluate.evaluation import Evaluation, measure
from octrim.evaluate.nms import non_max_suppression
from octrim.network.options import image_size
from octrim.targets.session import Session


@dataclass(frozen=True, eq=False)
class Detected:
    """What a network detected. detections: per picture of the data set, as in `Evaluation`; empty for pictures of another's part.

    failures: a line per unreadable picture, unread: their numbers. seconds: by stage, of all pictures together.
    """

    detections: list[np.ndarray]
    failures: list[str]
    unread: list[int]
    seconds: dict[str, float]


def detect(
    session: Session,
    dataset: Dataset,
    imgsz: int | Sequence[int] | None = None,
    batch: int = 8,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] = (0, 1),
    observe: Callable[[Batch], None] | None = None,
    score_voting: bool = False,
) -> Detected:
    """Run a network over a data set; options as in `evaluate`.

    part: (number, count): of processes that share the batches. observe: called after each batch that had pictures.
    """
    mapping, _ = map_classes(session.info.names, dataset.names)
    if not len(dataset):
        raise InputError("the data set has no pictures")
    plan, side = _plan(session, dataset, imgsz, batch)
    chosen = np.flatnonzero(mapping >= 0).tolist()
    classes = chosen if len(chosen) < len(mapping) else None
    detections = [np.zeros((0, 6), np.float32)] * len(dataset)
    failures: list[str] = []
    unread: list[int] = []
    seconds: dict[str, float] = dict.fromkeys(("read", "pre", "network", "post"), 0.0)
    for group in read_batches(dataset, plan[part[0] :: part[1]], side, _limits(session)[0]):
        failures += group.failures
        unread += group.unread
        if group.pictures:
            session.prepare(*group.images.shape[:3])  # outside the times: a shape is compiled once
            start = perf_counter()
            predictions = session(group.images)
            run = perf_counter()
            for slot, picture, box in zip(group.slots, group.pictures, group.boxes, strict=True):
                found = non_max_suppression(predictions[slot], conf, iou, classes, max_det=max_det, multi_label=True, score_voting=score_voting)
                height, width = dataset.sizes[picture].tolist()
                found[:, :4] = box.to_picture(found[:, :4], height, width)
                found[:, 5] = mapping[found[:, 5].astype(int)]
                detections[picture] = found
            times = {"read": group.read, "pre": group.pre, "network": run - start, "post": perf_counter() - run}
            seconds = {stage: value + times[stage] for stage, value in seconds.items()}
            if observe is not None:
                observe(group)
        if progress is not None:
            progress(len(group.pictures) + len(group.failures))
    return Detected(detections, failures, unread, seconds)


def evaluate(
    session: Session,
    dataset: Dataset,
    imgsz: int | Sequence[int] | None = None,
    batch: int = 8,
    conf: float = 0.001,
    iou: float = 0.6,
    max_det: int = 300,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    score_voting: bool = False,
) -> Evaluation:
    """Run a network over a data set and measure it as COCO does.

    imgsz: longer side of the pictures, which come in rectangular batches; (height, width) of different lengths, and a graph of fixed
    size, letterbox every picture to that size. conf, iou, max_det, score_voting: of suppression, with every class of a box above `conf` on its own.
    bootstrap: 0 leaves the intervals out, for callers in a hurry. progress: called with the number of pictures just done.
    Raises InputError for options out of range, classes that do not go together, an empty data set, and when no picture can be read.
    """
    check_options(conf, iou, batch, max_det, bootstrap)
    found = detect(session, dataset, imgsz, batch, conf, iou, max_det, progress, score_voting=score_voting)
    if len(found.failures) == len(dataset):
        raise InputError(f"none of the {len(dataset)} pictures can be read: {found.failures[0]}")
    speed_ms = {stage: 1000 * value / (len(dataset) - len(found.failures)) for stage, value in found.seconds.items()}
    return measure(dataset, found.detections, max_det, bootstrap, seed, found.failures, speed_ms, found.unread)


def check_options(conf: float, iou: float, batch: int, max_det: int, resamples: int) -> None:
    """Raise InputError for what is out of range."""
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}, expected 0 to 1")
    for name, value, least in (("batch", batch, 1), ("max_det", max_det, 1), ("bootstrap", resamples, 0)):
        if value < least:
            raise InputError(f"{name} is {value}, expected {least} or more")


def _limits(session: Session) -> tuple[int, int]:
    """The fewest and the most pictures that a batch may have."""
    info = session.info
    return (info.batch, info.batch) if info.batch is not None else info.batches or (1, sys.maxsize)


def _plan(session: Session, dataset: Dataset, imgsz: int | Sequence[int] | None, batch: int) -> tuple[list[Planned], int]:
    """The batches, and the longer side that pictures are fitted to."""
    info = session.info
    low, high = _limits(session)
    batch = min(max(batch, low), high)
    height, width = image_size(imgsz, info.image_size, info.stride)
    if info.size is not None:
        if imgsz is not None and (height, width) != info.size:
            raise InputError(f"this graph was built for {info.size[0]}x{info.size[1]} pixels; imgsz cannot change that")
        height, width = info.size
    if info.size is None and height == width:
        return rectangular_plan(dataset.sizes, height, batch, info.stride), height
    return fixed_plan(len(dataset), height, width, batch), max(height, width)
