"""Reads labelme's annotations: one JSON file per picture, with a label and points for every shape."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.data.labelfiles import AREA, INCOMPLETE, LINE, MOST_WITH_PICTURE, NUMBER, POLYGON, READ, UNREADABLE, Objects, read_labels
from octrim.data.shapes import polygon_box
from octrim.data.texts import decoded
from octrim.data.values import name, number


def labelme_labels(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a table (see `labelfiles`) of labelme's annotations: rows `class x1 y1 x2 y2` in pixels; `line` is the shape's number, from 1."""
    digests, states, contents = read_labels(paths, MOST_WITH_PICTURE)
    objects = Objects(len(paths))
    for index, data in enumerate(contents):
        if states[index] != READ:
            continue
        document = annotation(data)
        if document is None:
            states[index] = UNREADABLE
            continue
        for place, shape in enumerate(document["shapes"], 1):
            objects.add(index, place, _shape(shape))
    return {"digest": digests, "state": states} | objects.table()


def annotation(data: bytes) -> dict[str, Any] | None:
    """Return the JSON document of a labelme annotation; None where the bytes are no such annotation."""
    try:
        document = json.loads(decoded(data))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("shapes"), list) else None


def picture_name(document: dict[str, Any]) -> str | None:
    """Return the path that a labelme annotation gives to its picture; None where it gives none."""
    path = document.get("imagePath")
    return path if isinstance(path, str) and path.strip() else None


def picture_inside(data: bytes) -> bytes | None:
    """Return the bytes of the picture file that a labelme annotation holds in `imageData`; None where it holds none."""
    document = annotation(data)
    text = None if document is None else document.get("imageData")
    if not isinstance(text, str) or not text:
        return None
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=False)
    except (binascii.Error, ValueError):
        return None


def _shape(shape: Any) -> tuple[str, list[float], int] | int:
    """Return the name, box x1 y1 x2 y2 and mark of a shape, or its place in ROW_PROBLEMS where it is unusable."""
    if not isinstance(shape, dict):
        return INCOMPLETE
    label, points = name(shape.get("label")), shape.get("points")
    kind = shape.get("shape_type") or "polygon"  # the oldest versions of labelme had only polygons and wrote no type
    if label is None or not isinstance(points, list) or not points:
        return INCOMPLETE
    if kind in ("point", "points", "line", "linestrip"):
        return LINE
    box = _circle(points) if kind == "circle" else polygon_box(points)
    if box is None or not all(map(math.isfinite, box)):
        return NUMBER
    if box[0] >= box[2] or box[1] >= box[3]:
        return AREA
    return re.sub(r"\s+", " ", label.strip()), box, POLYGON if kind not in ("rectangle", "mask") else 0


def _circle(points: list[Any]) -> list[float] | None:
    """Return the box x1 y1 x2 y2 around a circle, given by its centre and a point on it; None where the points are not two pairs of numbers."""
    values = [number(value) for point in points[:2] if isinstance(point, list) for value in point]
    if len(points) != 2 or len(values) != 4 or None in values:
        return None
    x, y, edge_x, edge_y = np.asarray(values, np.float64).tolist()
    radius = math.hypot(edge_x - x, edge_y - y)
    return [x - radius, y - radius, x + radius, y + radius]
