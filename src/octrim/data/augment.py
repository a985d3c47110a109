"""YOLOv5's augmentations: mosaic, perspective, mixup, HSV and flips, under their published names.

Each augmentation is a pair of functions: one draws the random numbers, the other applies what was drawn. Boxes are float32 x1 y1 x2 y2 in pixels;
a coordinate is the edge of a pixel, so that a box from 0 to 2 covers pixels 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import cos, radians, sin, tan
from typing import NamedTuple

import cv2
import numpy as np

from octrim.data.pictures import PADDING
from octrim.errors import InputError, shown

_GREY = (PADDING,) * 3
_MIN_SIDE, _MIN_AREA, _MAX_ASPECT = 2, 0.1, 100  # YOLOv5's values: pixels; share of the box's area before; longer side by shorter
_LIMITS = {"degrees": 180, "scale": 0.95, "shear": 60, "perspective": 0.001}  # largest allowed values; 1 for all others


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the variations of training pictures; the defaults are YOLOv5's published "low" recipe. 0 switches a variation off.

    hsv_h, hsv_s, hsv_v: gains are drawn from 1 +- this, 0..1. degrees: rotation within +- this, 0..180. translate: shift within +- this
    share of the side, 0..1. scale: factor from 1 +- this, 0..0.95. shear: degrees within +- this, 0..60. perspective: per pixel, 0..0.001.
    flipud, fliplr, mosaic, mixup: probabilities. Raises InputError for anything outside these ranges.
    """

    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(Augmentation)):  # a subclass checks the fields that it adds itself
            value = getattr(self, name)
            limit = _LIMITS.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise InputError(f"augmentation {name} is {shown(value)}, expected a number from 0 to {limit}")


class TrainingScene(NamedTuple):
    """A training picture with its boxes.

    image: uint8 `[height, width, 3]`. boxes_xyxy: float32 `[n, 4]` in pixels. labels: int32 `[n]`, class numbers.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray


def mosaic(generator: np.random.Generator, scenes: Sequence[TrainingScene], side: int) -> TrainingScene:
    """Return `mosaic_at` of four scenes, with a centre drawn from the middle half of the canvas."""
    x, y = generator.uniform(side / 2, 3 * side / 2, 2)
    return mosaic_at(scenes, side, int(x), int(y))


def mosaic_at(scenes: Sequence[TrainingScene], side: int, x: int, y: int) -> TrainingScene:
    """Return four scenes that meet at (x, y) on a grey canvas of twice the side, in the order upper left, upper right, lower left, lower right.

    The scenes' pictures are at most side x side. Parts outside the canvas are cut off; boxes wholly outside are dropped.
    """
    canvas = np.full((2 * side, 2 * side, 3), PADDING, np.uint8)
    boxes = []
    for number, scene in enumerate(scenes):
        height, width = scene.image.shape[:2]
        left, top = x - width * (number % 2 == 0), y - height * (number < 2)
        columns, rows = slice(max(left, 0), min(left + width, 2 * side)), slice(max(top, 0), min(top + height, 2 * side))
        canvas[rows, columns] = scene.image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        boxes.append(scene.boxes_xyxy + np.asarray((left, top, left, top), np.float32))
    boxes_xyxy = np.concatenate(boxes).clip(0, 2 * side)
    seen = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
    return TrainingScene(canvas, boxes_xyxy[seen], np.concatenate([scene.labels for scene in scenes])[seen])


def random_perspective(generator: np.random.Generator, scene: TrainingScene, augmentation: Augmentation, side: int) -> TrainingScene:
    """Return the scene after YOLOv5's random perspective, cut to side x side; with all strengths 0 this cuts out the middle."""
    height, width = scene.image.shape[:2]
    return warped(scene, *drawn_matrix(generator, augmentation, height, width, side), side)


def drawn_matrix(generator: np.random.Generator, augmentation: Augmentation, height: int, width: int, side: int) -> tuple[np.ndarray, float]:
    """Draw a matrix `[3, 3]` that maps points of a height x width picture to those of a side x side one, and return it with the scale in it.

    The matrix applies in this order: the picture's middle to the origin, perspective, rotation and scale, shear, translation.
    """
    draws = generator.uniform(-1, 1, 8).tolist()
    # The strength is bounded so that the horizon, w = 0, stays outside the picture: behind it everything would appear again, mirrored.
    strength = min(augmentation.perspective, 1.6 / (height + width))
    angle, scale = radians(draws[2] * augmentation.degrees), 1 + draws[3] * augmentation.scale
    cosine, sine = scale * cos(angle), scale * sin(angle)
    centre = np.asarray([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    perspective = np.asarray([[1, 0, 0], [0, 1, 0], [draws[0] * strength, draws[1] * strength, 1]])
    rotation = np.asarray([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    shears = [tan(radians(draw * augmentation.shear)) for draw in draws[4:6]]
    x, y = ((0.5 + draw * augmentation.translate) * side for draw in draws[6:])
    shear_then_move = np.asarray([[1, shears[0], x], [shears[1], 1, y], [0, 0, 1]])
    return shear_then_move @ rotation @ perspective @ centre, scale


def warped(scene: TrainingScene, matrix: np.ndarray, scale: float, side: int) -> TrainingScene:
    """Return the scene mapped by `matrix` into side x side pixels, grey where there is nothing; boxes become the hulls of their moved corners.

    A box stays when more than 2 pixels of both its sides and more than a tenth of its area (times scale^2) are left, and it is not
    100 times longer than wide.
    """
    straight = not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1])
    found = _straight(scene.image, matrix, side) if straight else None
    if found is not None:
        image, matrix = found
    else:
        # OpenCV's coordinates are those of the pixels' middles, half a pixel from their edges.
        half = np.asarray([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        inner = np.linalg.inv(half) @ matrix @ half
        if matrix[2, 0] or matrix[2, 1]:
            image = cv2.warpPerspective(scene.image, inner, (side, side), borderValue=_GREY)
        else:
            image = cv2.warpAffine(scene.image, inner[:2], (side, side), borderValue=_GREY)
    boxes = scene.boxes_xyxy.astype(np.float64)
    if straight:
        moved = boxes * np.tile(matrix[[0, 1], [0, 1]], 2) + np.tile(matrix[:2, 2], 2)
    else:
        corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
        corners = (corners[:, :2] / corners[:, 2:]).reshape(-1, 4, 2)
        moved = np.concatenate([corners.min(1), corners.max(1)], 1)
    moved = moved.clip(0, side)
    stay = survivors(boxes, moved, scale)
    return TrainingScene(image, moved[stay].astype(np.float32), scene.labels[stay])


def _straight(image: np.ndarray, matrix: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Apply a matrix that only scales and shifts, as in the default recipe: `resize` does this in a third of the time of `warpAffine`.

    `resize` takes whole pixels, so the visible window is rounded to them. Returns the side x side picture and the matrix of the rounded window,
    or None where most of the window would be grey.
    """
    height, width = image.shape[:2]
    shift, factors = matrix[:2, 2], matrix[[0, 1], [0, 1]]
    left, top = np.rint(-shift / factors).astype(int).tolist()
    right, bottom = np.rint((side - shift) / factors).astype(int).tolist()
    columns, rows = right - left, bottom - top
    if columns < 1 or rows < 1 or columns * rows > 2 * height * width:
        return None
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if (x1, y1, x2, y2) == (left, top, right, bottom):
        window = image[y1:y2, x1:x2]
    else:
        window = np.full((rows, columns, 3), PADDING, np.uint8)
        if x2 > x1 and y2 > y1:
            window[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    if (rows, columns) != (side, side):
        window = cv2.resize(window, (side, side), interpolation=cv2.INTER_LINEAR)
    x, y = side / columns, side / rows
    return window, np.asarray([[x, 0, -left * x], [0, y, -top * y], [0, 0, 1]])


def survivors(before_xyxy: np.ndarray, after_xyxy: np.ndarray, scale: float) -> np.ndarray:
    """Return a bool mask `[n]` of the boxes that are worth keeping after scaling by `scale` and clipping; `warped` says by which rules."""
    before = (before_xyxy[:, 2:] - before_xyxy[:, :2]).prod(1) * scale**2
    width, height = (after_xyxy[:, 2:] - after_xyxy[:, :2]).T
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return (shorter > _MIN_SIDE) & (width * height > _MIN_AREA * before) & (longer < _MAX_ASPECT * shorter)


def mixup(generator: np.random.Generator, first: TrainingScene, second: TrainingScene) -> TrainingScene:
    """Return `mixed` of two scenes, with a share drawn from Beta(32, 32), which is within .5 +- .12 nineteen times of twenty."""
    return mixed(first, second, float(generator.beta(32, 32)))


def mixed(first: TrainingScene, second: TrainingScene, share: float) -> TrainingScene:
    """Return two scenes of one size laid over each other, with the boxes of both. share: weight of the first picture, 0..1."""
    image = cv2.addWeighted(first.image, share, second.image, 1 - share, 0)
    return TrainingScene(image, np.concatenate([first.boxes_xyxy, second.boxes_xyxy]), np.concatenate([first.labels, second.labels]))


def hsv(generator: np.random.Generator, image: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Return `scaled_hsv` of a BGR picture, with one gain per channel drawn for the whole picture."""
    strengths = (augmentation.hsv_h, augmentation.hsv_s, augmentation.hsv_v)
    return scaled_hsv(image, 1 + generator.uniform(-1, 1, 3) * strengths)


def scaled_hsv(image: np.ndarray, gains: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a uint8 BGR picture as RGB, its hue, saturation and value multiplied by `gains`; the hue wraps around."""
    if tuple(gains) == (1, 1, 1):  # going through HSV in 8 bits would lose a little
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    table = np.arange(256)[:, None] * np.asarray(gains)
    table = np.rint(table).clip(0, (np.inf, 255, 255))
    table[:, 0] %= 180  # OpenCV's hue in 8 bits counts steps of two degrees
    channels = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(channels, table.astype(np.uint8)[None]), cv2.COLOR_HSV2RGB)


def flips(generator: np.random.Generator, scene: TrainingScene, augmentation: Augmentation) -> TrainingScene:
    """Return `flipped` of a scene, in the directions drawn with the augmentation's probabilities."""
    vertical, horizontal = generator.random(2)
    return flipped(scene, bool(vertical < augmentation.flipud), bool(horizontal < augmentation.fliplr))


def flipped(scene: TrainingScene, vertical: bool, horizontal: bool) -> TrainingScene:
    """Return the scene mirrored upside down (`vertical`), left to right (`horizontal`), or both."""
    if not (vertical or horizontal):
        return scene
    height, width = scene.image.shape[:2]
    boxes = scene.boxes_xyxy.copy()
    if vertical:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    if horizontal:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    code = {(True, False): 0, (False, True): 1}.get((vertical, horizontal), -1)  # as OpenCV names the axes; -1 is both
    return TrainingScene(cv2.flip(scene.image, code), boxes, scene.labels)
