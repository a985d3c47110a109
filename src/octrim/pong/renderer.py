"""Frames of the game as arrays, for the window, for vision players and, with random looks, for training.

picture = render(game.scene(), 640, 480)
picture.image, picture.boxes, picture.classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from octrim.errors import InputError
from octrim.pong.backdrop import still
from octrim.pong.camera import develop
from octrim.pong.looks import CLASSIC, Colour, Look, random_look
from octrim.pong.physics import LEFT, RIGHT, Rules, Scene, paddle_box
from octrim.pong.shapes import Box, fill, visible

__all__ = ["BALL", "CLASSES", "CLASSIC", "PADDLE", "Look", "Picture", "View", "field_view", "random_look", "render"]

CLASSES = ("ball", "paddle")
BALL, PADDLE = range(2)
_LEAST = 2.0  # pixels of its width and height that an object at the picture's border has to show in order to be drawn


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame and what is in it.

    image: uint8 RGB `[height, width, 3]`, which the caller may change. boxes: float32 `[n, 4]`, xyxy in pixels (pixel i reaches from i to
    i + 1), clipped to the picture. classes: int64 `[n]`, indices into CLASSES. The ball comes first, then the left and the right paddle; what is
    not drawn has no box.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class View:
    """Place of the field in a picture. scale: pixels per field height. left, top: the field's upper left corner, in pixels."""

    scale: float
    left: float
    top: float

    def to_pixels(self, box: Box) -> Box:
        x1, y1, x2, y2 = box
        return self.left + self.scale * x1, self.top + self.scale * y1, self.left + self.scale * x2, self.top + self.scale * y2

    def to_field(self, box: Box) -> Box:
        x1, y1, x2, y2 = box
        return (x1 - self.left) / self.scale, (y1 - self.top) / self.scale, (x2 - self.left) / self.scale, (y2 - self.top) / self.scale


def field_view(rules: Rules, width: int, height: int, look: Look = CLASSIC) -> View:
    """The place of the field in a picture of width x height pixels: as large as it fits, in the middle, unless the look zooms and shifts it."""
    scale = min(width / rules.width, height) * look.zoom
    left = (width - scale * rules.width) / 2 + look.shift[0] * width
    return View(scale, left, (height - scale) / 2 + look.shift[1] * height)


def render(scene: Scene, width: int, height: int, look: Look = CLASSIC) -> Picture:
    """The scene in a picture of width x height pixels.

    Boxes are extents before the camera blurs the objects: they hold all of an object that lies in the picture, also where another object covers
    it. An object that shows less than two pixels of its width or height at the border is not drawn and has no box; nor is the ball when
    the game is over. The same arguments give the same picture. Raises InputError for a picture without pixels.
    """
    if width < 1 or height < 1:
        raise InputError(f"a picture of {width} x {height} pixels was asked for, expected 1 x 1 or more")
    view = field_view(scene.rules, width, height, look)
    field = view.to_pixels((0, 0, scene.rules.width, 1))
    image = still(look, width, height, field, scene.score, scene.rally, _countdown(scene)).copy()
    boxes: list[Box] = []
    classes: list[int] = []
    drawn: list[tuple[Box, float, Colour]] = []
    for label, shape, roundness, colour in _objects(scene, look):
        box = view.to_pixels(shape)
        seen = visible(box, roundness, width, height)
        if any(seen[axis + 2] - seen[axis] < min(_LEAST, box[axis + 2] - box[axis]) for axis in (0, 1)):
            continue
        boxes.append(seen)
        classes.append(label)
        drawn.append((box, roundness, colour))
    for box, roundness, colour in reversed(drawn):  # the ball on top
        fill(image, box, roundness, colour)
    image = develop(image, look, view.scale, np.random.default_rng((look.seed, round(1e6 * scene.time))))
    return Picture(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def _objects(scene: Scene, look: Look) -> Iterator[tuple[int, Box, float, Colour]]:
    """Class, extents in the field, roundness and colour of everything that has a box."""
    if scene.phase != "over":
        ball, radius = scene.ball, scene.rules.ball_radius * look.ball_scale
        yield BALL, (ball.x - radius, ball.y - radius, ball.x + radius, ball.y + radius), float(look.ball_shape == "disc"), look.ball
    for side, colour in ((LEFT, look.left), (RIGHT, look.right)):
        x1, y1, x2, y2 = paddle_box(scene.rules, side, scene.paddles[side].y)
        more_x, more_y = (x2 - x1) * (look.paddle_scale[0] - 1) / 2, (y2 - y1) * (look.paddle_scale[1] - 1) / 2
        yield PADDLE, (x1 - more_x, y1 - more_y, x2 + more_x, y2 + more_y), look.roundness, colour


def _countdown(scene: Scene) -> int:
    """The number of the countdown: 3, 2, 1 in thirds of the time until the serve; 0 when no serve is awaited."""
    delay = scene.rules.serve_delay
    return math.ceil(3 * min(scene.wait / delay, 1)) if scene.phase == "serve" and delay > 0 and scene.wait > 0 else 0
