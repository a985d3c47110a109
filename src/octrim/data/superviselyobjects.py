"""Reads Supervisely's annotations: one JSON file per picture, with a class title and a geometry for every object."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.data.labelfiles import AREA, INCOMPLETE, LINE, NUMBER, POLYGON, READ, UNREADABLE, Objects, read_labels
from octrim.data.shapes import polygon_box
from octrim.data.texts import decoded
from octrim.data.values import name, number

_LINES = ("point", "line", "polyline", "graph")


def supervisely_labels(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a table (see `labelfiles`) of Supervisely's annotations: rows `class x1 y1 x2 y2`, edges in pixels.

    `line` is the object's number, from 1.
    """
    digests, states, contents = read_labels(paths)
    objects = Objects(len(paths))
    for index, data in enumerate(contents):
        if states[index] != READ:
            continue
        found = _objects(data)
        if found is None:
            states[index] = UNREADABLE
            continue
        for place, entry in enumerate(found, 1):
            objects.add(index, place, _object(entry))
    return {"digest": digests, "state": states} | objects.table()


def _objects(data: bytes) -> list[Any] | None:
    """Return the objects of an annotation; None where the bytes are no such annotation."""
    try:
        document = json.loads(decoded(data))
    except (ValueError, RecursionError):
        return None
    found = document.get("objects") if isinstance(document, dict) else None
    return found if isinstance(found, list) else None


def _object(entry: Any) -> tuple[str, list[float], int] | int:
    """Return the name, box x1 y1 x2 y2 and mark of an object, or its place in ROW_PROBLEMS where it is unusable.

    Rectangles and outlines end on their last pixel, which is inside.
    """
    if not isinstance(entry, dict):
        return INCOMPLETE
    title, kind = name(entry.get("classTitle")), entry.get("geometryType")
    if title is None or not isinstance(kind, str):
        return INCOMPLETE
    if kind in _LINES:
        return LINE
    if kind in ("bitmap", "alpha_mask"):
        box = _mask_box(entry.get("bitmap"))
    else:
        points = entry.get("points")
        outline = polygon_box(points["exterior"]) if isinstance(points, dict) and isinstance(points.get("exterior"), list) else None
        box = None if outline is None else [outline[0], outline[1], outline[2] + 1, outline[3] + 1]
    if box is None or not all(map(math.isfinite, box)):
        return NUMBER
    if box[0] >= box[2] or box[1] >= box[3]:
        return AREA
    return re.sub(r"\s+", " ", title.strip()), box, 0 if kind == "rectangle" else POLYGON


def _mask_box(bitmap: Any) -> list[float] | None:
    """Return the box x1 y1 x2 y2 of a mask, a packed PNG that is cut to the object, by its origin and the PNG's size; None where it has neither."""
    if not isinstance(bitmap, dict) or not isinstance(bitmap.get("data"), str):
        return None
    origin = bitmap.get("origin")
    x, y = (number(value) for value in origin) if isinstance(origin, list) and len(origin) == 2 else (None, None)
    try:
        header = zlib.decompressobj().decompress(base64.b64decode(bitmap["data"], validate=False), 64)
        width, height = struct.unpack(">II", header[16:24])
    except (binascii.Error, ValueError, zlib.error, struct.error):
        return None
    if x is None or y is None or not header.startswith(b"\x89PNG"):
        return None
    return [x, y, x + width, y + height]
