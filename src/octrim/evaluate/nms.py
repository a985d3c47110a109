"""From a network's predictions to boxes: confidence, classes, non-maximum suppression, score voting."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import cv2
import numpy as np

from octrim.evaluate.matching import box_iou

MOST_CANDIDATES = 30_000
"""Boxes that enter suppression at most, the most confident ones."""

# Moving each class's boxes by more than boxes are apart keeps classes apart in one suppression; in float64 hardly anything is rounded.
_CLASS_OFFSET = 7680.0

_MOST_OFFSET = 2.0**31  # boxes farther apart are of damaged weights; moved as far, the others would be rounded

_VOTING_VARIANCE = 0.05  # of 1 - IoU in score voting; 0.025 where it was published is not as good for small networks (docs/notebook.md)

_VOTES_AT_ONCE = 200_000  # pairs of boxes whose overlaps are in memory in score voting


def non_max_suppression(
    predictions: np.ndarray,
    conf: float = 0.25,
    iou: float = 0.45,
    classes: Collection[int] | None = None,
    agnostic: bool = False,
    max_det: int = 300,
    multi_label: bool = False,
    score_voting: bool = False,
) -> np.ndarray:
    """Return the boxes of one picture, float32 `[n, 6]`: x1, y1, x2, y2 in the predictions' pixels, confidence, class; most confident first.

    predictions: `[boxes, 5 + classes]` as sessions return them. A box's confidence is objectness times class score and must exceed
    `conf`; of two boxes of one class (of any class where `agnostic`) with IoU above `iou`, the more confident stays.
    classes: keep only these. multi_label: every class above `conf` makes a box of its own (as in evaluation), not only the best one.
    score_voting: each box that stays becomes the mean of all candidates of its class (of any class where `agnostic`) that overlap it,
    weighted by confidence times exp(-(1 - IoU)^2 / 0.05). Confidences, classes and order stay. After Kim and Lee, Probabilistic Anchor
    Assignment with IoU Prediction for Object Detection, ECCV 2020.
    """
    candidates = predictions[predictions[:, 4] > conf]
    candidates = candidates[np.isfinite(candidates).all(1)]  # a network with damaged weights finds nothing
    scores = candidates[:, 5:] * candidates[:, 4:5]
    if multi_label and scores.shape[1] > 1:
        index, label = np.nonzero(scores > conf)
        score = scores[index, label]
    else:
        label = scores.argmax(1) if len(scores) else np.zeros(0, np.intp)
        score = scores[np.arange(len(scores)), label]
        index = np.flatnonzero(score > conf)
        label, score = label[index], score[index]
    if classes is not None:
        chosen = np.isin(label, list(classes))
        index, label, score = index[chosen], label[chosen], score[chosen]
    order = np.argsort(-score, kind="stable")[:MOST_CANDIDATES]
    index, label, score = index[order], label[order], score[order]
    centre, size = candidates[index, :2].astype(np.float64), candidates[index, 2:4].astype(np.float64)
    corner = centre - size / 2
    moved = corner if agnostic else corner + _class_offset(corner, size) * label[:, None]
    kept = _suppress(np.hstack([moved, size]), score, iou, max_det)
    boxes = np.hstack([corner, corner + size])
    if score_voting:
        boxes[kept] = _voted(boxes, score, np.zeros_like(label) if agnostic else label, kept)
    return np.column_stack([boxes[kept], score[kept], label[kept]]).astype(np.float32)


def _class_offset(corner: np.ndarray, size: np.ndarray) -> float:
    """Pixels by which the boxes of each class are moved, so that none reaches those of the class before. corner, size: float64 `[n, 2]`."""
    extent = float(np.max(corner + size, initial=0.0) - np.min(corner, initial=0.0))
    return min(max(extent, _CLASS_OFFSET), _MOST_OFFSET)


def _suppress(boxes_xywh: np.ndarray, score: np.ndarray, iou: float, max_det: int) -> np.ndarray:
    """Return the numbers of the boxes that stay, at most `max_det`. score: falling.

    What the most confident boxes keep does not depend on the rest, so the rest is looked at only until there are `max_det`: early in
    training nearly every box of every class is a candidate, and time grows with candidates times boxes kept.
    """
    kept = np.zeros(0, np.intp)
    nms: Any = cv2.dnn.NMSBoxes  # its stubs ask for lists, where arrays are read faster
    for count in (1000, 4000, len(score)):
        if len(score):
            kept = np.asarray(nms(boxes_xywh[:count], score[:count], 0.0, iou, top_k=0), np.intp).ravel()[:max_det]
        if len(kept) == max_det or count >= len(score):
            break
    return kept


def _voted(boxes_xyxy: np.ndarray, score: np.ndarray, label: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return means of the boxes of its label around each kept one, float64 `[kept, 4]`."""
    voted = boxes_xyxy[kept]
    for one in np.unique(label[kept]):
        voters, places = np.flatnonzero(label == one), np.flatnonzero(label[kept] == one)
        at_once = max(_VOTES_AT_ONCE // len(voters), 1)
        for some in (places[start : start + at_once] for start in range(0, len(places), at_once)):
            iou = box_iou(boxes_xyxy[kept[some]], boxes_xyxy[voters])
            weight = np.where(iou > 0, score[voters] * np.exp(-((1 - iou) ** 2) / _VOTING_VARIANCE), 0)
            total = weight.sum(1)
            counts = total > 0  # a box without area overlaps nothing, not even itself
            mean = np.einsum("kv,vc->kc", weight[counts], boxes_xyxy[voters])  # in one order, unlike a product by a library of several threads
            voted[some[counts]] = mean / total[counts, None]
    return voted
