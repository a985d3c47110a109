"""Antialiased shapes whose extents are known: boxes with round corners, and digits made of them."""

from __future__ import annotations

import math

import numpy as np

from octrim.pong.looks import Colour

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels; pixel i reaches from i to i + 1

# Numbers of a digit's segments:
#  _0_
# 5   1
#  _6_
# 4   2
#  _3_
_SEGMENTS = ("012345", "12", "01346", "01236", "1256", "02356", "023456", "012", "0123456", "012356")
_PLACES = ((0, 0, 1, 0), (1, 0, 1, 1), (1, 1, 1, 2), (0, 2, 1, 2), (0, 1, 0, 2), (0, 0, 0, 1), (0, 1, 1, 1))


def fill(image: np.ndarray, box: Box, roundness: float, colour: Colour) -> None:
    """Fill a box of an RGB picture in place. roundness: 0 sharp corners, 1 half discs at its ends, so that a square becomes a disc.

    No pixel that the box does not touch is changed, and one that it covers by half is changed halfway.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    left, top, right, bottom = max(math.floor(x1), 0), max(math.floor(y1), 0), min(math.ceil(x2), width), min(math.ceil(y2), height)
    if left >= right or top >= bottom:
        return
    x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
    alpha = (np.minimum(y + 1, y2) - np.maximum(y, y1))[:, None] * (np.minimum(x + 1, x2) - np.maximum(x, x1))
    radius = roundness * min(x2 - x1, y2 - y1) / 2
    if radius > 0.5:  # a corner of less than a pixel cannot be seen
        from_x = np.maximum(np.abs(x + (0.5 - (x1 + x2) / 2)) - ((x2 - x1) / 2 - radius), 0)
        from_y = np.maximum(np.abs(y + (0.5 - (y1 + y2) / 2)) - ((y2 - y1) / 2 - radius), 0)
        alpha = np.minimum(alpha, np.clip(radius + 0.5 - np.sqrt(from_x**2 + from_y[:, None] ** 2), 0, 1))
    part = image[top:bottom, left:right]
    part[:] = part + alpha[..., None] * (np.asarray(colour, np.float32) - part) + 0.5


def visible(box: Box, roundness: float, width: int, height: int) -> Box:
    """Extents of the part of a filled box that lies in the picture; if there is none, x2 is less than x1 or y2 less than y1.

    The extents can be less than the clipped box: of a disc whose larger part is outside, only a flat segment is seen.
    """
    x1, y1, x2, y2 = box
    radius = roundness * min(x2 - x1, y2 - y1) / 2
    left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    less_x = _lost(radius, max(y1 + radius - bottom, top - (y2 - radius)))
    less_y = _lost(radius, max(x1 + radius - right, left - (x2 - radius)))
    return max(left, x1 + less_x), max(top, y1 + less_y), min(right, x2 - less_x), min(bottom, y2 - less_y)


def _lost(radius: float, distance: float) -> float:
    """Length by which a round corner's extent shrinks if only its part at `distance` or more from its centre, in the other direction, is seen."""
    return radius - math.sqrt(max(radius**2 - distance**2, 0.0)) if distance > 0 else 0.0


def number(image: np.ndarray, value: int, x: float, top: float, size: float, colour: Colour) -> None:
    """Draw a number in block digits, `size` pixels high, with its middle at x and its upper end at `top`."""
    wide, thick, gap = 0.5 * size, 0.14 * size, 0.25 * size
    text = str(value)
    left = x - (len(text) * wide + (len(text) - 1) * gap) / 2
    for place, digit in enumerate(text):
        start = left + place * (wide + gap)
        for segment in map(int, _SEGMENTS[int(digit)]):
            column, row, last_column, last_row = _PLACES[segment]
            x1, y1 = start + column * (wide - thick), top + row * (size - thick) / 2
            x2, y2 = start + last_column * (wide - thick) + thick, top + last_row * (size - thick) / 2 + thick
            # Segments lie on whole pixels and are at least one wide: the background would shine through blurred edges where segments meet.
            x1, y1 = round(x1), round(y1)
            fill(image, (x1, y1, max(round(x2), x1 + 1), max(round(y2), y1 + 1)), 0, colour)
