"""Looks of the game: the classic look of the window, and random ones for training a detector.

A random look is fair: a person finds ball and paddles in the picture, and takes nothing else for them. Ball and paddles differ in brightness
from everything behind them, and every distractor is paler than they are: its colour lies nearer to the background's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

Colour = tuple[int, int, int]  # RGB, 0 to 255
Texture = Literal["plain", "spot", "gradient", "clouds", "stripes", "checks", "grain", "photo"]
Thing = Literal["disc", "ring", "square", "frame", "bar", "triangle", "cross", "letter"]
Net = Literal["dashed", "dotted", "solid", "none"]
Digits = Literal["blocks", "font", "none"]
THINGS: tuple[Thing, ...] = get_args(Thing)

LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in the brightness, after ITU-R BT.601
PALE = 0.5  # largest distance of a distractor's colour from the background's, in units of the nearest object's distance
LIKE_A_BALL = 0.35  # largest such distance of a distractor that could be a ball by its shape and size
VISIBLE = 0.12  # least difference of brightness (0 to 1) between an object and what may lie behind it, under the look's light

T = TypeVar("T")
# Weights with which textures, nets and digits are drawn at random. The window's own texture is not among the textures.
_TEXTURES: dict[Texture, int] = {"plain": 3, "gradient": 3, "clouds": 3, "stripes": 2, "checks": 2, "grain": 2, "photo": 5}
_NETS: dict[Net, int] = {"dashed": 2, "dotted": 1, "solid": 1, "none": 1}
_DIGITS: dict[Digits, int] = {"blocks": 2, "font": 2, "none": 1}


@dataclass(frozen=True)
class Distractor:
    """Thing in the background that is neither ball nor paddle.

    x, y: its centre, in shares of the picture's width and height. size: half its larger extent, in shares of the picture's height. angle: its
    rotation in degrees, clockwise.
    """

    thing: Thing
    x: float
    y: float
    size: float
    colour: Colour
    angle: float = 0.0


@dataclass(frozen=True)
class Look:
    """Everything about a frame that the game does not decide. `Look()` is the classic game.

    Lengths (digit_size, blur, shake) are in field heights, so that a look is the same at every size of the picture.
    """

    seed: int = 0
    """Seed of the texture and the noise."""
    background: Colour = (17, 23, 40)
    texture: Texture = "spot"
    amplitude: float = 7.0
    """Largest change of the background's channels by the texture, up and down, in levels of 0 to 255."""
    outside: Colour | None = (7, 9, 16)
    """Colour around the field; None: the background goes on there."""
    ball: Colour = (255, 255, 255)
    left: Colour = (86, 204, 242)
    """Colour of the left paddle."""
    right: Colour = (255, 158, 88)
    ball_shape: Literal["disc", "square"] = "disc"
    ball_scale: float = 1.0
    """Size of the ball in the picture over its size in the game."""
    paddle_scale: tuple[float, float] = (1.0, 1.0)
    """Width and height of a paddle in the picture over those in the game."""
    roundness: float = 0.6
    """Roundness of a paddle's corners: 0 sharp, 1 half discs at its ends."""
    net: Net = "dashed"
    net_colour: Colour = (58, 70, 100)
    digits: Digits = "blocks"
    digit_colour: Colour = (98, 113, 152)
    digit_size: float = 0.14
    zoom: float = 1.0
    """Size of the field in the picture: 1 is the largest that fits."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Offset of the field's centre from the picture's centre, in shares of the picture's width and height."""
    distractors: tuple[Distractor, ...] = ()
    blur: float = 0.0
    """Standard deviation of the blur, in field heights."""
    shake: tuple[float, float] = (0.0, 0.0)
    """Path of the camera during the exposure, right and down, in field heights."""
    vignette: float = 0.0
    """Share of the light that the corners lose."""
    contrast: float = 1.0
    """Factor of the contrast around middle grey; then brightness is added (in full ranges), then v becomes v ** gamma (v from 0 to 1)."""
    brightness: float = 0.0
    gamma: float = 1.0
    scanlines: float = 0.0
    """Share of the light that every other row loses."""
    noise: float = 0.0
    """Standard deviation of the noise, in levels of 0 to 255."""
    jpeg: int = 0
    """JPEG quality of the compression that the picture goes through, 1 to 100; 0: no compression."""


CLASSIC = Look()


def random_look(generator: np.random.Generator) -> Look:
    """A look in which a person would find ball and paddles."""
    for _ in itertools.count():
        look = _drawn(generator)
        if visibility(look) >= VISIBLE:
            return look
    raise AssertionError("unreachable: count() does not end")


def visibility(look: Look) -> float:
    """The least difference of brightness, 0 to 1, between ball or paddles and whatever may lie behind them, in the darkest corner."""
    background = np.asarray(look.background, float)
    behind = [background - look.amplitude, background + look.amplitude, look.net_colour, look.digit_colour]
    behind += [thing.colour for thing in look.distractors]
    behind += [look.outside] if look.outside is not None else []
    tones = np.array([_brightness(colour, look) for colour in behind])
    gaps = [_gap(_brightness(colour, look), tones) for colour in (look.ball, look.left, look.right)]
    return min(gaps) * (1 - look.vignette) * (1 - look.scanlines / 2)


def tone(values: np.ndarray, look: Look) -> np.ndarray:
    """Values from 0 to 1 after the look's contrast, brightness and gamma, again from 0 to 1."""
    return np.clip((values - 0.5) * look.contrast + 0.5 + look.brightness, 0, 1) ** look.gamma


def _brightness(colour: Sequence[float] | np.ndarray, look: Look) -> float:
    return float(tone(np.clip(np.asarray(colour, float) / 255, 0, 1), look) @ LUMA)


def _gap(value: float, others: np.ndarray) -> float:
    """Distance of a value from the range of the others; negative inside the range."""
    return float(max(value - others.max(), others.min() - value))


def _drawn(generator: np.random.Generator) -> Look:
    uniform, chance = generator.uniform, generator.random
    texture = _one_of(generator, _TEXTURES)
    amplitude = 0.0 if texture == "plain" else float(uniform(10, 55))
    luma = float(uniform(*_one_of(generator, {(0.05, 0.35): 5, (0.35, 0.65): 2, (0.65, 0.95): 3})))
    background = _coloured(generator, luma)
    objects = [_object_colour(generator, luma, amplitude / 255) for _ in range(3)]
    if chance() < 0.5:  # half of the games have one colour for both paddles, or for paddles and ball
        objects[2] = objects[1]
        objects[0] = objects[1] if chance() < 0.5 else objects[0]
    nearest = min(_distance(colour, background) for colour in objects)

    def pale(most: float = PALE) -> Colour:
        """A colour that is nearer to the background's than ball and paddles are."""
        colour = _coloured(generator, float(uniform(0, 1)))
        wanted = nearest * most * float(uniform(0.4, 1))
        share = min(wanted / max(_distance(colour, background), 1e-9), 1.0)
        return _mixed(background, colour, share)

    zoomed = chance() < 0.6
    shift = (float(generator.normal(0, 0.04)), float(generator.normal(0, 0.06))) if chance() < 0.5 else (0.0, 0.0)
    blurred = chance()
    return Look(
        seed=int(generator.integers(2**32)),
        background=background,
        texture=texture,
        amplitude=amplitude,
        outside=pale() if chance() < 0.5 else None,
        ball=objects[0],
        left=objects[1],
        right=objects[2],
        ball_shape="disc" if chance() < 0.7 else "square",
        ball_scale=float(uniform(0.85, 1.5)),
        paddle_scale=(float(uniform(0.8, 1.6)), float(uniform(0.8, 1.3))),
        roundness=_one_of(generator, {0.0: 1, 1.0: 1, float(uniform(0, 1)): 1}),
        net=_one_of(generator, _NETS),
        net_colour=pale(),
        digits=_one_of(generator, _DIGITS),
        digit_colour=pale(),
        digit_size=float(uniform(0.06, 0.25)),
        zoom=float(uniform(0.75, 1.12)) if zoomed else 1.0,
        shift=shift,
        distractors=tuple(_distractor(generator, pale) for _ in range(generator.integers(1, 9) if chance() < 0.6 else 0)),
        blur=float(uniform(0, 0.005)) if blurred < 0.4 else 0.0,
        shake=(float(generator.normal(0, 0.006)), float(generator.normal(0, 0.004))) if blurred > 0.8 else (0.0, 0.0),
        vignette=float(uniform(0, 0.4)) if chance() < 0.3 else 0.0,
        contrast=float(uniform(0.65, 1.2)),
        brightness=float(uniform(-0.12, 0.12)),
        gamma=float(np.exp(uniform(-0.35, 0.35))),
        scanlines=float(uniform(0.1, 0.4)) if chance() < 0.1 else 0.0,
        noise=float(uniform(0, 9)) if chance() < 0.6 else 0.0,
        jpeg=int(uniform(25, 90)) if chance() < 0.4 else 0,
    )


def _coloured(generator: np.random.Generator, luma: float) -> Colour:
    """A random colour, mixed with black or white until its brightness is `luma`, 0 to 1."""
    colour = generator.random(3)
    colour = colour.mean() + (colour - colour.mean()) * generator.random()  # greys are frequent, as in life
    own = colour @ LUMA
    colour = colour * (luma / own) if own > luma else 1 - (1 - colour) * ((1 - luma) / (1 - own))
    red, green, blue = np.clip(np.rint(255 * colour), 0, 255).astype(int).tolist()
    return red, green, blue


def _object_colour(generator: np.random.Generator, luma: float, amplitude: float) -> Colour:
    """A random colour for ball or paddles: brighter or darker than the background, where there is more room, by a random part of that room.

    luma: brightness of the background, 0 to 1. amplitude: largest deviation of the background from it, 0 to 1.
    """
    room = (luma - amplitude, 1 - luma - amplitude)
    up = generator.random() < 0.5 if min(room) > 0.3 else room[1] > room[0]
    step = float(generator.uniform(0.4, 1)) * max(room[up], 0.0)
    return _coloured(generator, float(np.clip(luma + (amplitude + step) * (1 if up else -1), 0, 1)))


def _distractor(generator: np.random.Generator, pale: Callable[[float], Colour]) -> Distractor:
    thing = THINGS[generator.integers(len(THINGS))]
    size = float(np.exp(generator.uniform(*np.log((0.05, 0.2) if thing == "bar" else (0.012, 0.2)))))
    x, y = generator.random(2).tolist()
    if thing == "bar":  # a bar is never upright, as a paddle is
        angle = float(generator.uniform(-60, 60))
    else:
        angle = float(generator.uniform(0, 360)) if thing in ("triangle", "cross") else 0.0
    return Distractor(thing, x, y, size, pale(LIKE_A_BALL if thing in ("disc", "square") and size < 0.08 else PALE), angle)


def _one_of(generator: np.random.Generator, weights: dict[T, int]) -> T:
    share = np.array(list(weights.values())) / sum(weights.values())
    return list(weights)[generator.choice(len(weights), p=share)]


def _distance(colour: Colour, other: Colour) -> float:
    return float(np.linalg.norm(np.subtract(colour, other)))


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = np.rint(np.add(np.multiply(colour, 1 - share), np.multiply(other, share))).astype(int).tolist()
    return red, green, blue
