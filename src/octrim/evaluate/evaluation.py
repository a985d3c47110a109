"""What an evaluation found, as numbers, as JSON and as a table; and the measuring of detections that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from octrim.data.dataset import Dataset
from octrim.evaluate.classes import distinct_names
from octrim.evaluate.matching import Matches, match
from octrim.evaluate.metrics import Curves, bootstrap_intervals, coco_metrics, confidence_curves, mean_ap

_TABLE_CLASSES = 20  # up to so many, the table also names classes without objects


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found. Means are over the classes that have objects; nan where there is nothing to measure.

    map, map50: mAP50-95 and mAP50, 0..1. precision, recall: means at IoU .5 and the confidence `confidence` of the best mean F1.
    ap: float64 `[classes, 10]`, per threshold of `matching.IOUS`. pictures, objects: int `[classes]`, pictures that show a class, and
    how often it occurs, without crowd regions. areas: mAP50-95 of small, medium and large objects. interval: 95 % interval of mAP50-95
    and mAP50, empty without bootstrapping. detections: per picture float32 `[n, 6]`, x1 y1 x2 y2 in its pixels, confidence, the data
    set's class number. failures: a line per unreadable picture; unread: their numbers, whose objects do not count. speed_ms: mean
    milliseconds per picture, of which `read` and `pre` pass while the network runs.
    """

    names: tuple[str, ...]
    images: int
    pictures: np.ndarray
    objects: np.ndarray
    map: float
    map50: float
    precision: float
    recall: float
    confidence: float
    ap: np.ndarray
    areas: dict[str, float]
    interval: dict[str, tuple[float, float]]
    curves: Curves
    matches: Matches
    detections: list[np.ndarray]
    failures: list[str]
    unread: tuple[int, ...]
    speed_ms: dict[str, float]

    def class_rows(self) -> list[dict[str, Any]]:
        """Return, per class: pictures, objects, precision, recall, mAP50, mAP50-95; nan for a class without objects."""
        best = self.curves.best
        columns = (self.curves.precision[:, best], self.curves.recall[:, best], self.ap[:, 0], self.ap.mean(1))
        keys = ("pictures", "objects", "precision", "recall", "mAP50", "mAP50-95")
        rows = zip(self.pictures.tolist(), self.objects.tolist(), *(column.tolist() for column in columns), strict=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `metrics.json`, rounded to six digits, with null for nan."""
        content = {
            "mAP50-95": self.map,
            "mAP50": self.map50,
            "precision": self.precision,
            "recall": self.recall,
            "confidence": self.confidence,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "areas": self.areas,
            "images": self.images,
            "objects": int(self.objects.sum()),
            "unreadable": len(self.failures),
            "per_class": dict(zip(distinct_names(self.names), self.class_rows(), strict=True)),
            "speed_ms": {stage: self.speed_ms[stage] for stage in ("pre", "network", "post") if stage in self.speed_ms},
        }
        return _rounded(content)

    def table(self) -> Table:
        """Return a table for people with all classes together, then each; of many classes only those that occur."""
        table = Table()
        for name in ("class", "pictures", "objects", "P", "R", "mAP50", "mAP50-95"):
            table.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
        total = (self.precision, self.recall, self.map50, self.map)
        table.add_row("all", str(self.images), str(int(self.objects.sum())), *(f"{value:.3f}" for value in total), style="bold")
        for name, row in zip(distinct_names(self.names), self.class_rows(), strict=True):
            if row["objects"]:
                values = (f"{row[key]:.3f}" for key in ("precision", "recall", "mAP50", "mAP50-95"))
                table.add_row(Text(name), str(row["pictures"]), str(row["objects"]), *values)
            elif len(self.names) <= _TABLE_CLASSES:
                table.add_row(Text(name), "0", "0", *[""] * 4)
        return table


def measure(
    dataset: Dataset,
    detections: list[np.ndarray],
    max_det: int = 300,
    bootstrap: int = 1000,
    seed: int = 0,
    failures: Sequence[str] = (),
    speed_ms: dict[str, float] | None = None,
    unread: Sequence[int] = (),
) -> Evaluation:
    """Measure detections that are there already: per picture float32 `[n, 6]` as in `Evaluation`, most confident first.

    unread: numbers of pictures that could not be read, whose objects do not count.
    """
    if unread:
        dataset = dataset.without_objects_of(unread)
    ap, areas = coco_metrics(dataset, detections, max_det)
    matches = match(dataset, detections)
    curves = confidence_curves(matches)
    held = ~np.isnan(ap[:, 0])
    precision, recall = (float(curve[held, curves.best].mean()) if held.any() else float("nan") for curve in (curves.precision, curves.recall))
    means = mean_ap(ap)
    shown_in = np.unique(np.stack([matches.object_picture, matches.object_label]), axis=1)[1]
    return Evaluation(
        names=dataset.names,
        images=len(dataset),
        pictures=np.bincount(shown_in, minlength=len(dataset.names)),
        objects=np.bincount(matches.object_label, minlength=len(dataset.names)),
        map=means[0],
        map50=means[1],
        precision=precision,
        recall=recall,
        confidence=curves.best / (curves.f1.shape[1] - 1),
        ap=ap,
        areas=areas,
        interval=bootstrap_intervals(matches, bootstrap, seed) if bootstrap else {},
        curves=curves,
        matches=matches,
        detections=detections,
        failures=list(failures),
        unread=tuple(sorted(unread)),
        speed_ms=speed_ms or {},
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return None if isnan(value) else round(value, 6)
    return value
