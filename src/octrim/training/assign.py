"""Assignment of labels to the cells and anchors that learn them.

A label goes to every anchor of a similar size, in its own cell and in the nearest neighbours: left or right, above or below, depending on where
in its cell the centre lies. Several anchors on several levels, each in up to three cells, learn one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_NEAR = np.float32(0.5)  # a neighbour learns the label, too, when the label's centre lies in the half of its cell towards that neighbour


@dataclass(frozen=True, eq=False)
class Matched:
    """The matches of one level, in match order: int64 `[n]` each for image, anchor, row and column of the cell, and label (class).

    boxes: float32 `[n, 4]`, cx cy w h in cells, the centre relative to the upper left corner of the matched cell (-0.5 .. 1.5).
    """

    image: np.ndarray
    anchor: np.ndarray
    row: np.ndarray
    column: np.ndarray
    label: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def assign(targets: np.ndarray, shapes: Sequence[tuple[int, int]], anchors: Sequence[np.ndarray], threshold: float = 4.0) -> list[Matched]:
    """Match labels to cells and anchors, for every level.

    targets: float32 `[n, 6]`: image, class, cx, cy, w, h in fractions of the picture. shapes: height and width of each level in cells.
    anchors: per level `[anchors, 2]`, width and height in cells. threshold: a label fits an anchor when each side is less than `threshold` times
    longer or shorter than the anchor's.
    """
    matched = []
    for (height, width), level in zip(shapes, anchors, strict=True):
        size = np.asarray([width, height], np.float32)
        scaled = targets[:, 2:6].astype(np.float32) * np.concatenate([size, size])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = scaled[None, :, 2:] / level.astype(np.float32)[:, None]
            fits = np.maximum(ratio, 1 / ratio).max(2) < threshold
        anchor, label = np.nonzero(fits)  # pairs that fit, ordered by anchor, then by label
        centre = scaled[label, :2]
        # Distances to the picture's borders; their fractions tell in which half of the cell the centre lies. Beyond the border is no neighbour.
        low, high = centre, size - centre
        left, above = ((low % 1 < _NEAR) & (low > 1)).T
        right, below = ((high % 1 < _NEAR) & (high > 1)).T
        wanted = np.stack([np.ones(len(label), bool), left, above, right, below])
        moves = np.asarray([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float32) * _NEAR
        move, match = np.nonzero(wanted)
        anchor, label = anchor[match], label[match]
        cell = np.trunc(centre[match] - moves[move]).astype(np.int64)
        cell = np.clip(cell, 0, size.astype(np.int64) - 1)  # a centre on the right or lower border lies in the last cell
        boxes = np.concatenate([scaled[label, :2] - cell, scaled[label, 2:]], axis=1).astype(np.float32)
        image, classes = targets[label, 0].astype(np.int64), targets[label, 1].astype(np.int64)
        matched.append(Matched(image, anchor, cell[:, 1], cell[:, 0], classes, boxes))
    return matched
