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


def loss_gains(network: Network, hyper: Hyperparameters, side: int) -> tuple[float, float, float]:
    """The gains of the box, objectness and class loss: the recipe's, scaled to the network's levels and classes and to pictures of `side` pixels."""
    levels = len(network.strides)
    return hyper.box * 3 / levels, hyper.obj * (side / 640) ** 2 * 3 / levels, hyper.cls * network.classes / 80 * 3 / levels


def anchors_in_cells(network: Network) -> list[np.ndarray]:
    """Width and height of the anchors in cells of their level, float32 `[anchors, 2]` per level."""
    return [np.asarray(level, np.float32) / stride for level, stride in zip(network.anchors, network.strides, strict=True)]


Boxes = tuple[Any, Any, Any, Any]
"""Boxes by columns: cx, cy, w and h, each a tensor `[n]`. Columns by themselves are cheaper than slices of a table."""


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
        self.anchors = anchors_in_cells(network)
        self.balance = level_balance(len(network.strides))
        self.box, self.obj, self.cls = loss_gains(network, hyper, side)

    def __call__(self, heads: Sequence[Any], targets: np.ndarray) -> Loss:
        """Loss of a batch. heads: per level logits `[batch, anchors x (5 + classes), height, width]`. targets: float32 `[n, 6]`: image, class,
        cx, cy, w, h in fractions of the picture."""
        shapes = [(head.shape[2], head.shape[3]) for head in heads]
        matched = assign(targets, shapes, self.anchors, self.hyper.anchor_t)
        logits = [by_anchor(head, len(anchors)) for head, anchors in zip(heads, self.anchors, strict=True)]
        wanted = [np.zeros((one.shape[0], one.shape[1], one.shape[3]), np.float32) for one in logits]
        cells = [Cells(level.image, level.anchor, level.row * width + level.column) for level, (_, width) in zip(matched, shapes, strict=True)]
        box = objectness = classes = paddle.zeros([])
        # What is computed for each cell by itself is computed for all levels at once: operations on few numbers cost what starting them costs.
        found = chosen(logits, cells)
        if found is not None:
            sizes = np.concatenate([anchors[level.anchor] for anchors, level in zip(self.anchors, matched, strict=True)])
            labels = paddle.to_tensor(np.concatenate([level.boxes for level in matched]).T.copy())
            overlap = ciou(decoded(found, sizes), tuple(labels.unbind()))
            for part in by_level(1 - overlap, cells):
                box = box + part.mean()
            known = np.maximum(overlap.detach().numpy(), 0)
            for target, level, part in zip(wanted, cells, np.split(known, np.cumsum([len(level) for level in cells])[:-1]), strict=True):
                # Where two labels claim the same cell and anchor, the last in match order stays: NumPy assigns in order.
                target[level.image, level.anchor, level.cell] = part
            if self.classes > 1:
                right = np.concatenate([level.label for level in matched])
                truth = np.full((self.classes, len(right)), 0.5 * self.hyper.label_smoothing, np.float32)
                truth[right, np.arange(len(right))] = 1 - 0.5 * self.hyper.label_smoothing
                for part in by_level(self._cross_entropies(found[5:], truth, self.hyper.cls_pw), cells):
                    classes = classes + part.mean()
        scores = paddle.concat([one[:, :, 4].reshape([-1]) for one in logits])
        entropies = self._cross_entropies(scores, np.concatenate([target.reshape(-1) for target in wanted]), self.hyper.obj_pw)
        for part, balance in zip(paddle.split(entropies, [target.size for target in wanted]), self.balance, strict=False):
            objectness = objectness + balance * part.mean()
        parts = [box * self.box, objectness * self.obj, classes * self.cls]
        return Loss((parts[0] + parts[1] + parts[2]) * heads[0].shape[0], paddle.stack([part.detach() for part in parts]))

    def _cross_entropies(self, logits: Any, wanted: np.ndarray, positive: float) -> Any:
        """Binary cross entropies, number by number; with fl_gamma the focal loss of Lin et al. (2017), alpha 0.25. positive: weight of the positive
        part."""
        other, known = paddle.to_tensor(1 - wanted), paddle.to_tensor(wanted)
        loss = F.softplus(-logits)
        if positive != 1:
            loss = (1 + (positive - 1) * known) * loss
        loss = other * logits + loss
        if self.hyper.fl_gamma:
            probability = F.sigmoid(logits)
            right = known * probability + other * (1 - probability)
            loss = loss * (known * 0.25 + other * 0.75) * (1 - right) ** self.hyper.fl_gamma
        return loss


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of one level, each with an anchor: int64 `[n]` for image, anchor, and cell counted row by row."""

    image: np.ndarray
    anchor: np.ndarray
    cell: np.ndarray

    def __len__(self) -> int:
        return len(self.cell)


def by_anchor(head: Any, anchors: int) -> Any:
    """A level's logits `[batch, anchors x (5 + classes), height, width]` as float32 `[batch, anchors, 5 + classes, height x width]`."""
    batch, channels, height, width = head.shape
    return head.astype("float32").reshape([batch, anchors, channels // anchors, height * width])


def chosen(logits: Sequence[Any], cells: Sequence[Cells]) -> Any:
    """The logits of cells, `[5 + classes, n]`, level after level; None where no level has any. logits: per level, as `by_anchor` gives them."""
    found = []
    for level, some in zip(logits, cells, strict=True):
        if len(some):
            _, anchors, values, size = level.shape
            first = (some.image * anchors + some.anchor) * values * size + some.cell
            places = paddle.to_tensor((first + np.arange(values)[:, None] * size).reshape(-1))
            found.append(paddle.gather(level.reshape([-1]), places).reshape([values, -1]))
    if len(found) > 1:
        return paddle.concat(found, axis=1)
    return found[0] if found else None


def by_level(values: Any, cells: Sequence[Cells]) -> list[Any]:
    """Values `[.., n]` of the cells that `chosen` gives, as a list with those of each level that has any."""
    counts = [len(some) for some in cells if len(some)]
    return [values] if len(counts) == 1 else paddle.split(values, counts, axis=-1)


def decoded(logits: Any, sizes: np.ndarray) -> Boxes:
    """Boxes in cells, the centre relative to the upper left corner of the box's cell. logits: `[4 or more, n]`.

    sizes: width and height of each box's anchor in cells, `[n, 2]`.
    """
    x, y, w, h = (F.sigmoid(logits[:4]) * 2).unbind()
    across, down = (paddle.to_tensor(np.ascontiguousarray(side)) for side in sizes.T)
    return x - 0.5, y - 0.5, paddle.square(w) * across, paddle.square(h) * down


def ciou(found: Boxes, wanted: Boxes) -> Any:
    """Complete IoU, `[n]`, of boxes in one unit: IoU - rho^2 / c^2 - alpha v (Zheng et al., 2020), -1.5 .. 1.

    rho: distance of the centres; c: diagonal of the box around both; v: difference of aspects; alpha weighs it and is not differentiated.
    """
    (x1, y1, w1, h1), (x2, y2, w2, h2) = found, wanted
    # Sides are clipped because logits below -40 give sides of 0 in float32, which would lead to 0 / 0.
    w1, h1, w2, h2 = (paddle.clip(side, min=_EPS) for side in (w1, h1, w2, h2))
    across, down = _around(x1, w1, x2, w2), _around(y1, h1, y2, h2)
    # The overlap of two intervals is the sum of their lengths minus the length from the first start to the last end.
    overlap = F.relu(w1 + w2 - across) * F.relu(h1 + h2 - down)
    iou = overlap / (w1 * h1 + w2 * h2 - overlap + _EPS)
    distance = (paddle.square(x2 - x1) + paddle.square(y2 - y1)) / (paddle.square(across) + paddle.square(down) + _EPS)
    v = (4 / math.pi**2) * paddle.square(paddle.atan(w2 / h2) - paddle.atan(w1 / h1))
    aspect = v.detach()
    alpha = aspect / paddle.clip(aspect - iou.detach() + (1 + _EPS), min=_EPS)  # the IoU of equal boxes may be rounded to more than 1
    return iou - distance - alpha * v


def _around(centre1: Any, side1: Any, centre2: Any, side2: Any) -> Any:
    """Length from the first start to the last end of two intervals."""
    half1, half2 = side1 * 0.5, side2 * 0.5
    return paddle.maximum(centre1 + half1, centre2 + half2) - paddle.minimum(centre1 - half1, centre2 - half2)
