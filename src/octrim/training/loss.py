"""YOLOv5's loss: CIoU of the boxes, objectness of all cells, classes of the matched ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.backends.paddle import F, paddle
from octrim.network.rows import Network
from octrim.training.assign import assign
from octrim.training.hyper import Hyperparameters

_EPS = 1e-7

# Weights of the levels' objectness losses by number of levels, finest first: errors count more on a fine level, which has more cells.
_BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}


def level_balance(levels: int) -> tuple[float, ...]:
    """The weight of each level's objectness, finest first."""
    return _BALANCE.get(levels, (4.0, 1.0, 0.25, 0.06, 0.02)[:levels] if levels < 6 else (1.0,) * levels)


@dataclass(frozen=True, eq=False)
class Loss:
    """Loss of one batch. total: scalar tensor to differentiate, the loss times the batch size. parts: float32 `[3]`, box, objectness and class
    loss with their gains, detached."""

    total: Any
    parts: Any


class DetectionLoss:
    """The loss of a network's logits against labels.

        loss = DetectionLoss(network, hyper, side=640)
        loss(heads, targets).total.backward()

    side: side of the training pictures in pixels; the objectness gain grows with their area.
    """

    def __init__(self, network: Network, hyper: Hyperparameters, side: int) -> None:
        self.hyper = hyper
        self.classes = network.classes
        levels = len(network.strides)
        self.anchors = [np.asarray(level, np.float32) / stride for level, stride in zip(network.anchors, network.strides, strict=True)]
        self.balance = level_balance(levels)
        self.box = hyper.box * 3 / levels
        self.cls = hyper.cls * self.classes / 80 * 3 / levels
        self.obj = hyper.obj * (side / 640) ** 2 * 3 / levels

    def __call__(self, heads: Sequence[Any], targets: np.ndarray) -> Loss:
        """Loss of a batch. heads: per level logits `[batch, anchors x (5 + classes), height, width]`. targets: float32 `[n, 6]`: image, class,
        cx, cy, w, h in fractions of the picture."""
        shapes = [(head.shape[2], head.shape[3]) for head in heads]
        matched = assign(targets, shapes, self.anchors, self.hyper.anchor_t)
        box = objectness = classes = paddle.zeros([])
        values = 5 + self.classes
        for logits, anchors, level, balance in zip(heads, self.anchors, matched, self.balance, strict=True):
            batch, _, height, width = logits.shape
            cells = height * width
            logits = logits.astype("float32").reshape([batch, len(anchors), values, cells])
            wanted = np.zeros((batch, len(anchors), cells), np.float32)
            if len(level):
                cell = level.row * width + level.column
                first = ((level.image * len(anchors) + level.anchor) * values) * cells + cell
                found = paddle.gather(logits.reshape([-1]), paddle.to_tensor((first[:, None] + np.arange(values) * cells).reshape(-1)))
                found = found.reshape([-1, values])
                centre = F.sigmoid(found[:, :2]) * 2 - 0.5
                size = (F.sigmoid(found[:, 2:4]) * 2) ** 2 * paddle.to_tensor(anchors[level.anchor])
                overlap = ciou(paddle.concat([centre, size], axis=1), paddle.to_tensor(level.boxes))
                box = box + (1 - overlap).mean()
                # Where two labels claim the same cell and anchor, the last in match order stays: NumPy assigns in order.
                wanted[level.image, level.anchor, cell] = np.maximum(overlap.detach().numpy(), 0)
                if self.classes > 1:
                    truth = np.full((len(level), self.classes), 0.5 * self.hyper.label_smoothing, np.float32)
                    truth[np.arange(len(level)), level.label] = 1 - 0.5 * self.hyper.label_smoothing
                    classes = classes + self._cross_entropy(found[:, 5:], paddle.to_tensor(truth), self.hyper.cls_pw)
            objectness = objectness + balance * self._cross_entropy(logits[:, :, 4], paddle.to_tensor(wanted), self.hyper.obj_pw)
        parts = [box * self.box, objectness * self.obj, classes * self.cls]
        return Loss((parts[0] + parts[1] + parts[2]) * heads[0].shape[0], paddle.stack([part.detach() for part in parts]))

    def _cross_entropy(self, logits: Any, wanted: Any, positive: float) -> Any:
        """Mean binary cross entropy; with fl_gamma the focal loss of Lin et al. (2017), alpha 0.25. positive: weight of the positive part."""
        loss = (1 - wanted) * logits + (1 + (positive - 1) * wanted) * F.softplus(-logits)
        if self.hyper.fl_gamma:
            probability = F.sigmoid(logits)
            right = wanted * probability + (1 - wanted) * (1 - probability)
            loss = loss * (wanted * 0.25 + (1 - wanted) * 0.75) * (1 - right) ** self.hyper.fl_gamma
        return loss.mean()


def ciou(found_cxcywh: Any, wanted_cxcywh: Any) -> Any:
    """Complete IoU, `[n]`, of boxes `[n, 4]` in one unit: IoU - rho^2 / c^2 - alpha v (Zheng et al., 2020), -1.5 .. 1.

    rho: distance of the centres; c: diagonal of the box around both; v: difference of aspects; alpha weighs it and is not differentiated.
    """
    (x1, y1, w1, h1), (x2, y2, w2, h2) = (boxes.unbind(axis=1) for boxes in (found_cxcywh, wanted_cxcywh))
    # Sides are clipped because logits below -40 give sides of 0 in float32, which would lead to 0 / 0.
    w1, h1, w2, h2 = (paddle.clip(side, min=_EPS) for side in (w1, h1, w2, h2))
    left, right = paddle.minimum(x1 - w1 / 2, x2 - w2 / 2), paddle.maximum(x1 + w1 / 2, x2 + w2 / 2)
    top, bottom = paddle.minimum(y1 - h1 / 2, y2 - h2 / 2), paddle.maximum(y1 + h1 / 2, y2 + h2 / 2)
    # The overlap of two intervals is the sum of their lengths minus the length from the first start to the last end.
    overlap = F.relu(w1 + w2 - (right - left)) * F.relu(h1 + h2 - (bottom - top))
    iou = overlap / (w1 * h1 + w2 * h2 - overlap + _EPS)
    distance = ((x2 - x1) ** 2 + (y2 - y1) ** 2) / ((right - left) ** 2 + (bottom - top) ** 2 + _EPS)
    v = (4 / math.pi**2) * (paddle.atan(w2 / h2) - paddle.atan(w1 / h1)) ** 2
    alpha = (v / paddle.clip(v - iou + (1 + _EPS), min=_EPS)).detach()  # the IoU of equal boxes may be rounded to more than 1
    return iou - distance - alpha * v
