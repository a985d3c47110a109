"""Average precision, precision and recall against confidence, bootstrap intervals, and COCO's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.data.dataset import Dataset
from octrim.evaluate.matching import IOUS, Matches

RECALLS = np.linspace(0, 1, 101)
CONFIDENCES = np.linspace(0, 1, 1000)

AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""COCO's sizes, square pixels of the original picture. Of the box here: data sets need not have masks, whose area COCO takes."""

_CHUNK = 10_000_000
"""Numbers held at once while resampling."""


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """Return AP per class and IoU, float64 `[classes, 10, resamples]`, nan where a class has no objects.

    The area under the precision envelope, at 101 recalls, as COCO has it. weights: int `[pictures, resamples]`, how often each
    resample holds each picture; by default every picture once.
    """
    if weights is None:
        weights = np.ones((matches.pictures, 1), np.int32)
    result = np.full((matches.classes, len(IOUS), weights.shape[1]), np.nan)
    order = np.lexsort((-matches.confidence, matches.label))
    bounds = np.searchsorted(matches.label[order], np.arange(matches.classes + 1))
    for label in np.unique(matches.object_label).tolist():
        rows = order[bounds[label] : bounds[label + 1]]
        owners = matches.object_picture[matches.object_label == label]
        step = max(_CHUNK // (len(rows) + len(owners)), 1)
        for start in range(0, weights.shape[1], step):
            part = slice(start, start + step)
            result[label, :, part] = _class_ap(matches, rows, weights[:, part], weights[owners, part].sum(0))
    return result


def _class_ap(matches: Matches, rows: np.ndarray, weights: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return one class's AP, `[10, resamples]`.

    rows: the class's detections, most confident first. objects: `[resamples]`, how many are to be found.
    """
    copies = weights[matches.picture[rows]]
    seen = np.cumsum(copies, 0, dtype=np.int32)
    matched, ignored = matches.matched[rows], matches.ignored[rows]
    result = np.zeros((len(IOUS), len(objects)))
    for index in range(len(IOUS)):
        # Wrong detections only lower the precision, so its envelope and the steps of the recall are settled at the right ones.
        right = np.flatnonzero(matched[:, index])
        if ignored[:, index].any():
            total = np.cumsum(copies * ~ignored[:, index, None], 0, dtype=np.int32)[right]
        else:
            total = seen[right]
        true = np.cumsum(copies[right], 0, dtype=np.int32)
        envelope = np.maximum.accumulate((true / np.maximum(total, 1))[::-1], 0)[::-1]
        reached = np.searchsorted(RECALLS, true / np.maximum(objects, 1), "right")
        result[index] = (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)
    result[:, objects == 0] = np.nan
    return result


def mean_ap(ap: np.ndarray) -> tuple[float, float]:
    """Return mAP50-95 and mAP50 from AP `[classes, 10]`, over the classes that have objects; nan where none has."""
    held = ap[~np.isnan(ap[:, 0])]
    return (float(held.mean()), float(held[:, 0].mean())) if len(held) else (float("nan"), float("nan"))


def bootstrap_intervals(matches: Matches, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of mAP50-95 and mAP50: percentiles 2.5 and 97.5 over resamplings of the pictures with replacement.

    A class without objects in a resample is left out of its mean. Rare classes make the interval lean upwards: where a resample has
    one at all, it has more of its pictures than of those that can show it wrongly.
    """
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(matches.pictures, np.full(matches.pictures, 1 / matches.pictures), resamples).T.astype(np.int32, order="C")
    ap = average_precision(matches, weights)
    held = ~np.isnan(ap[:, 0])
    ap = np.where(held[:, None], ap, 0)[:, :, held.any(0)]
    count = held.sum(0)[held.any(0)]
    means = {"mAP50-95": ap.mean(1).sum(0) / count, "mAP50": ap[:, 0].sum(0) / count}
    return {name: (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))) for name, values in means.items() if count.size}


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision, recall and F1 at IoU .5, float64 `[classes, 1000]`, of the detections at or above each of CONFIDENCES.

    Rows of classes without objects are nan. best: index of the confidence at which the smoothed mean F1 is highest.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    best: int


def confidence_curves(matches: Matches) -> Curves:
    """Return the curves of all classes. Above the most confident detection precision is 1 by convention; a class without any detection has 0."""
    precision, recall = np.full((2, matches.classes, len(CONFIDENCES)), np.nan)
    for label in np.unique(matches.object_label).tolist():
        rows = np.flatnonzero((matches.label == label) & ~matches.ignored[:, 0])
        rows = rows[np.argsort(-matches.confidence[rows], kind="stable")]
        above = np.searchsorted(-matches.confidence[rows], -CONFIDENCES, "right")
        true = np.concatenate([[0], np.cumsum(matches.matched[rows, 0])])[above]
        recall[label] = true / (matches.object_label == label).sum()
        precision[label] = np.where(above > 0, true / np.maximum(above, 1), float(len(rows) > 0))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-16)
    held = ~np.isnan(f1[:, 0])
    mean = f1[held].mean(0) if held.any() else np.zeros(len(CONFIDENCES))
    # Over a tenth of the confidences: a single lucky one should not decide.
    padded = np.pad(mean, 50, mode="edge")
    return Curves(precision, recall, f1, int(np.convolve(padded, np.full(101, 1 / 101), "valid").argmax()))


def recall_curves(matches: Matches) -> np.ndarray:
    """Return the precision envelope at each of RECALLS, `[classes, 101]`, at IoU .5; nan for classes without objects."""
    result = np.full((matches.classes, len(RECALLS)), np.nan)
    for label in np.unique(matches.object_label).tolist():
        rows = np.flatnonzero((matches.label == label) & ~matches.ignored[:, 0])
        rows = rows[np.argsort(-matches.confidence[rows], kind="stable")]
        true = np.cumsum(matches.matched[rows, 0])
        envelope = np.maximum.accumulate((true / np.arange(1, len(rows) + 1))[::-1])[::-1]
        first = np.searchsorted(true / (matches.object_label == label).sum(), RECALLS)
        result[label] = np.concatenate([envelope, [0.0]])[first]
    return result


def recall_curves_json(matches: Matches, ap50: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return the content of `curves.json`: precision at each of RECALLS for every class with objects, at IoU .5.

    ap50: `[classes]`, nan where a class has none.
    """
    curves = np.round(recall_curves(matches), 4)
    held = np.flatnonzero(~np.isnan(curves[:, 0])).tolist()
    classes = [{"name": names[label], "AP50": round(float(ap50[label]), 6), "precision": curves[label].tolist()} for label in held]
    return {"iou": 0.5, "recall": RECALLS.round(2).tolist(), "classes": classes}


def coco_metrics(dataset: Dataset, detections: Sequence[np.ndarray], max_det: int = 300) -> tuple[np.ndarray, dict[str, float]]:
    """Return AP `[classes, 10]` by faster-coco-eval, nan where a class has no objects, and mAP50-95 of AREAS (nan where there are no such objects).

    detections: per picture, as for `match`. max_det: of one class in one picture; COCO's own 100 would drop detections that YOLOv5's
    evaluation, with its 300 per picture, counts.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    # One class at a time: the library holds every box as a dictionary, which takes a gigabyte for the million of a large data set.
    owner = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))
    found_owner = np.repeat(np.arange(len(detections)), [len(found) for found in detections])
    flat = np.concatenate([np.zeros((0, 6), np.float32), *detections])
    ap = np.full((len(dataset.names), len(IOUS)), np.nan)
    areas = np.full((len(dataset.names), len(AREAS)), np.nan)
    for label in np.unique(dataset.labels[~dataset.crowd]).tolist():
        own, found = np.flatnonzero(dataset.labels == label), np.flatnonzero(flat[:, 5] == label)
        pictures = np.union1d(owner[own], found_owner[found])
        images = [{"id": int(picture) + 1} for picture in pictures]
        categories = [{"id": 1, "name": "object"}]
        objects = _annotations(owner[own], dataset.boxes[own], {"iscrowd": dataset.crowd[own].astype(int).tolist()})
        results = _annotations(found_owner[found], flat[found, :4], {"score": flat[found, 4].tolist(), "iscrowd": [0] * len(found)})
        truth = COCO({"images": images, "categories": categories, "annotations": objects})
        answer = COCO({"images": images, "categories": categories, "annotations": results})
        evaluator = COCOeval_faster(truth, answer, "bbox", ranges=AREAS, print_function=_silent)
        evaluator.params.maxDets = [max_det]
        evaluator.evaluate()
        evaluator.accumulate()
        precision: np.ndarray = np.asarray(evaluator.eval["precision"])[:, :, 0, :, 0]  # IoUs, recalls, areas
        mean = np.where(precision[:, 0] < 0, np.nan, precision.mean(1))
        ap[label], areas[label] = mean[:, 0], mean[:, 1:].mean(0)
    held = ~np.isnan(areas)
    return ap, {name: float(areas[held[:, index], index].mean()) if held[:, index].any() else float("nan") for index, name in enumerate(AREAS)}


def _annotations(owner: np.ndarray, boxes_xyxy: np.ndarray, more: dict[str, list[Any]]) -> list[dict[str, Any]]:
    corners = boxes_xyxy.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    columns = (owner.tolist(), np.hstack([corners[:, :2], sides]).tolist(), sides.prod(1).tolist(), *more.values())
    return [
        {"id": number, "image_id": picture + 1, "category_id": 1, "bbox": box, "area": area, **dict(zip(more, rest, strict=True))}
        for number, (picture, box, area, *rest) in enumerate(zip(*columns, strict=True), 1)
    ]


def _silent(*_: Any) -> None:
    pass
