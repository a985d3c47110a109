"""Computes boxes around polygons and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.data.values import number, whole

MOST_RUNS = 1 << 22
"""Most runs of a mask in one annotation."""


def polygon_box(points: Any) -> list[float] | None:
    """Return the box x1 y1 x2 y2 around a polygon, given as [x, y, x, y, ..] or [[x, y], ..] of numbers or texts of numbers; None for all else."""
    if not isinstance(points, (list, tuple)) or not points:
        return None
    flat = [value for point in points for value in (point if isinstance(point, (list, tuple)) else (point,))]
    values = [number(value) for value in flat]
    if not values or len(values) % 2 or any(value is None for value in values):
        return None
    array = np.asarray(values, np.float64).reshape(-1, 2)
    return [*array.min(0).tolist(), *array.max(0).tolist()]


def union_box(boxes: Sequence[list[float]]) -> list[float]:
    """Return the box x1 y1 x2 y2 around all of the given boxes, of which there is at least one."""
    array = np.asarray(boxes, np.float64)
    return [*array[:, :2].min(0).tolist(), *array[:, 2:].max(0).tolist()]


def segmentation_box(segmentation: Any) -> list[float] | None:
    """Return the box x1 y1 x2 y2 in pixels around COCO's `segmentation`: polygons, or run-length encoded masks, compressed or not.

    Returns None where it is neither, or one of its parts has no box.
    """
    if isinstance(segmentation, dict):
        return mask_box(segmentation.get("counts"), segmentation.get("size"))
    if not isinstance(segmentation, list) or not segmentation:
        return None
    if all(isinstance(part, dict) for part in segmentation):
        boxes = [mask_box(part.get("counts"), part.get("size")) for part in segmentation]
    elif all(isinstance(part, list) and part for part in segmentation) and not _is_points(segmentation):
        boxes = [polygon_box(part) for part in segmentation]
    else:  # a single polygon that is not in a list of its own
        boxes = [polygon_box(segmentation)]
    found = [box for box in boxes if box is not None]
    return union_box(found) if len(found) == len(boxes) else None


def _is_points(parts: list[list[Any]]) -> bool:
    """Tell whether the parts are the points of one polygon, [x, y] each, and not several polygons."""
    return all(len(part) == 2 and not isinstance(part[0], list) for part in parts)


def mask_box(counts: Any, size: Any) -> list[float] | None:
    """Return the box x1 y1 x2 y2 around the pixels of a COCO mask; None where the arguments do not fit together, or no pixel is set.

    counts: lengths of runs of zeros and ones in turn, down the columns, as a list of whole numbers or text in COCO's compressed form.
    size: height and width of the mask.
    """
    if not isinstance(size, list) or len(size) != 2:
        return None
    height, width = (whole(side) or 0 for side in size)
    if not (0 < height < 2**31 and 0 < width < 2**31):
        return None
    runs = None
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list):
        runs = [whole(count) for count in counts]
    if runs is None or len(runs) > MOST_RUNS or any(run is None or not 0 <= run < 2**62 for run in runs):
        return None
    ends = np.cumsum(np.asarray(runs, np.float64))  # exact below 2**53, and a sum beyond that is refused
    if not len(ends) or ends[-1] > height * width or ends[-1] >= 2**53:
        return None
    whole_ends = ends.astype(np.int64)
    first, last = whole_ends[:-1:2], whole_ends[1::2] - 1
    first = first[: len(last)]
    set_runs = last >= first
    first, last = first[set_runs], last[set_runs]
    if not len(first):
        return None
    left, right = first // height, last // height
    # A run that goes on in the next column touches the bottom of one and the top of the other.
    top = np.where(left == right, first % height, 0)
    bottom = np.where(left == right, last % height, height - 1)
    return [float(left.min()), float(top.min()), float(right.max() + 1), float(bottom.max() + 1)]


def _uncompressed(text: str) -> list[int] | None:
    """Return the runs of COCO's compressed text, or None where it is damaged.

    A letter holds five bits of a number, and a sixth for "more follows". From the fourth run on, numbers are differences to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs
