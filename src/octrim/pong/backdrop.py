"""The backdrop behind ball and paddles: textures, the field with its net and numbers, distractors."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from octrim.pong.looks import Colour, Distractor, Look, Texture
from octrim.pong.shapes import Box, fill, number

_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)


@lru_cache(16)  # numbers change every second or so, and a match may have a view for each player
def still(look: Look, width: int, height: int, field: Box, score: tuple[int, int], rally: int, countdown: int) -> np.ndarray:
    """A frame without ball and paddles: uint8 RGB `[height, width, 3]`, read-only.

    field: box of the field in the picture, xyxy in pixels. score, rally, countdown: numbers to write; a rally or countdown of 0 is not shown.
    """
    empty = _empty(look, width, height, field)
    image = empty.copy()
    x1, top, x2, bottom = field
    middle, scale = (x1 + x2) / 2, bottom - top
    if look.digits != "none":
        size = look.digit_size * scale
        for value, x in zip(score, (middle - 0.6 * size - 0.1 * scale, middle + 0.6 * size + 0.1 * scale), strict=True):
            _write(image, look, value, x, top + 0.05 * scale, size)
        for value, y, size in ((countdown, 0.24, 0.14), (rally, 0.925, 0.045)):
            if value:  # the net is interrupted where the number stands
                box = (middle - 0.1 * scale, top + (y - 0.03) * scale, middle + 0.1 * scale, top + (y + size + 0.03) * scale)
                left, upper, right, lower = (max(round(side), 0) for side in box)
                image[upper:lower, left:right] = _empty(look, width, height, field, net=False)[upper:lower, left:right]
                _write(image, look, value, middle, top + y * scale, size * scale)
    image.setflags(write=False)
    return image


@lru_cache(8)
def _empty(look: Look, width: int, height: int, field: Box, net: bool = True) -> np.ndarray:
    """The field without numbers, read-only."""
    if net:
        image = _empty(look, width, height, field, net=False).copy()
        _draw_net(image, look, field)
        image.setflags(write=False)
        return image
    generator = np.random.default_rng(look.seed)
    image = _texture(look, generator, width, height)
    if look.outside is not None:
        inside = image
        image = np.full_like(inside, look.outside)
        x1, y1, x2, y2 = (max(round(side), 0) for side in field)
        image[y1:y2, x1:x2] = inside[y1:y2, x1:x2]
    for distractor in look.distractors:
        _draw_distractor(image, distractor, generator)
    image.setflags(write=False)
    return image


def _draw_net(image: np.ndarray, look: Look, field: Box) -> None:
    x1, top, x2, bottom = field
    middle, scale = (x1 + x2) / 2, bottom - top
    if look.net == "solid":
        fill(image, (middle - 0.003 * scale, top, middle + 0.003 * scale, bottom), 0, look.net_colour)
    elif look.net != "none":
        length = 0.028 if look.net == "dashed" else 0.008
        for place in range(20):
            y = top + scale * (place + 0.5) / 20
            fill(image, (middle - 0.004 * scale, y - length / 2 * scale, middle + 0.004 * scale, y + length / 2 * scale), 0, look.net_colour)


def _write(image: np.ndarray, look: Look, value: int, x: float, top: float, size: float) -> None:
    """Write a number `size` pixels high, its middle at x, in the look's digits."""
    if look.digits == "blocks":
        number(image, value, x, top, size, look.digit_colour)
    else:
        _put_text(image, str(value), x, top + size, size, look.digit_colour, _FONTS[look.seed % len(_FONTS)])


def _put_text(image: np.ndarray, text: str, x: float, bottom: float, size: float, colour: Colour, font: int) -> None:
    thickness = max(round(size / 14), 1)
    factor = cv2.getFontScaleFromHeight(font, max(round(size), 1), thickness)
    (wide, _), _ = cv2.getTextSize(text, font, factor, thickness)
    cv2.putText(image, text, (round(x - wide / 2), round(bottom)), font, factor, colour, thickness, cv2.LINE_AA)


def _draw_distractor(image: np.ndarray, distractor: Distractor, generator: np.random.Generator) -> None:
    height, width = image.shape[:2]
    x, y, size = distractor.x * width, distractor.y * height, max(distractor.size * height, 1.5)
    colour, thick = distractor.colour, max(round(0.25 * size), 1)
    if distractor.thing == "letter":
        text = "0123456789ABCDEFHKLMNPRTXYZ"[generator.integers(27)]
        _put_text(image, text, x, y + size, 2 * size, colour, _FONTS[generator.integers(len(_FONTS))])
        return
    corners = _OUTLINES[distractor.thing] * size
    turn = math.radians(distractor.angle)
    rotated = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + (x, y)
    points = np.rint(16 * (rotated - 0.5)).astype(np.int32)  # fixed point with four binary places; OpenCV's origin is the middle of pixel 0
    if distractor.thing in ("ring", "frame"):
        cv2.polylines(image, [points], True, colour, thick, cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA, 4)


_AROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_CIRCLE = np.stack([np.cos(_AROUND), np.sin(_AROUND)], 1)
_SQUARE = np.array([(-1.0, -1.0), (1, -1), (1, 1), (-1, 1)])
_CROSS = [
    (-1.0, -0.3),
    (-0.3, -0.3),
    (-0.3, -1),
    (0.3, -1),
    (0.3, -0.3),
    (1, -0.3),
    (1, 0.3),
    (0.3, 0.3),
    (0.3, 1),
    (-0.3, 1),
    (-0.3, 0.3),
    (-1, 0.3),
]
_OUTLINES: dict[str, np.ndarray] = {
    "disc": _CIRCLE,
    "ring": _CIRCLE,
    "square": _SQUARE,
    "frame": _SQUARE,
    "bar": _SQUARE * (1, 0.12),
    "triangle": np.array([(0, -1), (0.87, 0.5), (-0.87, 0.5)]),
    "cross": np.array(_CROSS),
}


def _texture(look: Look, generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The background's colour plus `amplitude` times a pattern from -1 to 1, uint8 RGB `[height, width, 3]`."""
    if look.texture == "plain":
        return np.full((height, width, 3), look.background, np.uint8)
    ends = np.array([(-1.0,) * 3, (1.0,) * 3])
    if look.texture in ("gradient", "stripes", "checks"):
        ends = generator.uniform(-1, 1, (2, 3))  # the pattern goes from one random colour to another
    pattern = _pattern(look.texture, generator, width, height)
    steps = ends[0] + np.linspace(0, 1, 256)[:, None] * (ends[1] - ends[0])
    table = np.rint(np.clip(np.asarray(look.background) + look.amplitude * steps, 0, 255)).astype(np.uint8)
    return cv2.LUT(pattern if pattern.ndim == 3 else cv2.merge([pattern] * 3), table[:, None, :])


def _pattern(texture: Texture, generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A texture's pattern, uint8 `[height, width]` or `[height, width, 3]`: 0 and 255 stand for the two ends of its colours."""
    if texture == "grain":
        shape = (max(height // int(generator.integers(1, 4)), 1), max(width // int(generator.integers(1, 4)), 1), 3)
        return cv2.resize(generator.integers(0, 256, shape, np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    if texture == "clouds":
        return _clouds(generator, width, height)
    if texture == "photo":
        return _photo(generator, width, height)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5)[None]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.5)[:, None]
    if texture == "spot":
        return (255.5 - 510 * np.minimum(x**2 + y**2, 0.5)).astype(np.uint8)
    if texture == "checks":
        cells = generator.uniform(3, 14)
        odd = (np.floor((x + 0.5) * (cells * width / height)) + np.floor((y + 0.5) * cells)) % 2
        return (255 * odd).astype(np.uint8)
    turn = generator.uniform(0, 2 * np.pi)
    along = np.float32(math.cos(turn)) * x + np.float32(math.sin(turn)) * y  # values lie within 0.71 of 0
    if texture == "stripes":
        sharpness, rate = generator.uniform(0.5, 4), generator.uniform(20, 160)
        along = np.clip(np.float32(sharpness) * np.sin(np.float32(rate) * along), -0.7, 0.7)
    return (127.5 + 180 * along).astype(np.uint8)


def _clouds(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Cloudy noise, uint8 RGB `[height, width, 3]`: every octave is half as strong as the one before."""
    total = np.zeros((64, 96, 3), np.float32)
    for cells in (2, 4, 8, 16, 32):
        grid = generator.uniform(-128, 128, (cells, cells + cells // 2, 3)).astype(np.float32)
        total += cv2.resize(grid, (96, 64), interpolation=cv2.INTER_LINEAR) / cells
    return cv2.resize(np.clip(total + 128, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def _photo(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A picture as unlike a plain field as a photograph: large soft regions, things with edges in front of them, and a little grain."""
    image = _clouds(generator, width, height)
    for _ in range(generator.integers(5, 30)):
        centre = (generator.random(2) * (width, height)).astype(int).tolist()
        size = np.maximum(generator.uniform(0.05, 0.4, 2) * height, 1).astype(int).tolist()
        turn, colour = float(generator.uniform(0, 180)), generator.integers(0, 256, 3).tolist()
        if generator.random() < 0.5:
            cv2.ellipse(image, centre, size, turn, 0, 360, colour, -1)
        else:
            corners = cv2.boxPoints((centre, size, turn))
            cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], colour)
    soft = cv2.GaussianBlur(image, (0, 0), max(height / 250, 0.5))
    grain = generator.integers(0, 24, (height, width), np.uint8)
    return cv2.addWeighted(soft, 1, cv2.merge([grain] * 3), 1, -12)
