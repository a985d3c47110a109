"""Which detections are right: COCO's matching of detections to objects, and the confusion of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octrim.data.dataset import Dataset

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds, .50:.05:.95."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections and objects of a whole data set, in flat arrays.

    picture, label: int `[n]`. confidence: float32 `[n]`. matched, ignored: bool `[n, 10]`, per threshold of IOUS: the detection found
    an object of its own; it lies in a crowd region and counts neither as right nor as wrong. object_picture, object_label: int `[m]`,
    of the objects to be found, without crowd regions.
    """

    pictures: int
    classes: int
    picture: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    object_picture: np.ndarray
    object_label: np.ndarray


def box_iou(found_xyxy: np.ndarray, boxes_xyxy: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Return the IoU of all pairs of boxes, float64 `[found, boxes]`.

    Where `crowd` (bool `[boxes]`), it is the intersection over the area of the found box instead.
    """
    found, boxes = found_xyxy.astype(np.float64), boxes_xyxy.astype(np.float64)
    low = np.maximum(found[:, None, :2], boxes[None, :, :2])
    high = np.minimum(found[:, None, 2:], boxes[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    found_area, area = np.prod(found[:, 2:] - found[:, :2], axis=1)[:, None], np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    union = found_area + area - inter
    if crowd is not None:
        union = np.where(crowd, found_area, union)
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)


def match(dataset: Dataset, detections: Sequence[np.ndarray]) -> Matches:
    """Match every picture's detections, float32 `[n, 6]` (x1 y1 x2 y2 in pixels of the picture, confidence, class), most confident first."""
    counts = [len(found) for found in detections]
    flat = np.concatenate([np.zeros((0, 6), np.float32), *detections])
    matched, ignored = np.zeros((2, len(flat), len(IOUS)), bool)
    start = 0
    for index, found in enumerate(detections):
        boxes, labels, crowd = dataset.targets(index)
        for label in np.unique(labels).tolist():
            rows = np.flatnonzero(found[:, 5] == label)
            if rows.size:
                own = labels == label
                matched[start + rows], ignored[start + rows] = match_class(found[rows, :4], boxes[own], crowd[own])
        start += len(found)
    owner = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))
    plain = ~dataset.crowd
    return Matches(
        len(dataset),
        len(dataset.names),
        np.repeat(np.arange(len(detections)), counts),
        flat[:, 5].astype(int),
        flat[:, 4].copy(),  # a view would keep all six columns
        matched,
        ignored,
        owner[plain],
        dataset.labels[plain],
    )


def match_class(found_xyxy: np.ndarray, boxes_xyxy: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `matched` and `ignored`, bool `[found, 10]`, for one class of one picture; detections most confident first.

    COCO's rules: each detection in turn takes the free object that it overlaps most (of equals the last), if the IoU reaches the
    threshold. Failing that, it is ignored where a crowd region holds enough of it; crowd regions are never used up.
    """
    iou = box_iou(found_xyxy, boxes_xyxy, crowd)
    plain, crowds = iou[:, ~crowd], iou[:, crowd]
    last = plain.shape[1] - 1
    free = np.ones((len(IOUS), last + 1), bool)
    matched = np.zeros((len(iou), len(IOUS)), bool)
    for row in np.flatnonzero(plain.max(1, initial=0.0) >= IOUS[0]):
        overlap = np.where(free & (plain[row] >= IOUS[:, None]), plain[row], -1.0)
        best = last - overlap[:, ::-1].argmax(1)
        hit = np.flatnonzero(overlap.max(1) >= 0)
        matched[row, hit] = True
        free[hit, best[hit]] = False
    return matched, ~matched & (crowds.max(1, initial=0.0)[:, None] >= IOUS)


def confusion_matrix(dataset: Dataset, detections: Sequence[np.ndarray], iou: float = 0.45, conf: float = 0.25) -> np.ndarray:
    """Count which classes are taken for which, int `[classes + 1, classes + 1]`: rows are predicted classes, columns true ones, the last of
    each is the background.

    Pairs are made across classes, the largest IoU first. Detections that only a crowd region explains are left out.
    """
    classes = len(dataset.names)
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for index, every in enumerate(detections):
        found = every[every[:, 4] > conf]
        boxes, labels, crowd = dataset.targets(index)
        overlap = box_iou(found[:, :4], boxes, crowd)
        plain, true, predicted = overlap[:, ~crowd], labels[~crowd], found[:, 5].astype(int)
        rows, columns = np.nonzero(plain > iou)
        free_row, free_column = np.ones(len(found), bool), np.ones(len(true), bool)
        for pair in np.argsort(-plain[rows, columns], kind="stable"):
            row, column = rows[pair], columns[pair]
            if free_row[row] and free_column[column]:
                free_row[row] = free_column[column] = False
                counts[predicted[row], true[column]] += 1
        wrong = free_row & (overlap[:, crowd].max(1, initial=0.0) <= iou)
        counts[:, classes] += np.bincount(predicted[wrong], minlength=classes + 1)
        counts[classes] += np.bincount(true[free_column], minlength=classes + 1)
    return counts
