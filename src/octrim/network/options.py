"""Interprets what users say of a network on the command line: which one, and the picture size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octrim.errors import InputError, shown
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.options import OneNetwork, plain


def model_from(config: OneNetwork, anchors_to_fit: bool = False) -> Model:
    """Return the model that `--weights` or `--cfg` names. anchors_to_fit: as `fresh_model` takes it.

    Raises InputError unless exactly one of them is given.
    """
    if (config.weights is None) == (config.cfg is None):
        raise InputError("give either --weights (a model file or a checkpoint) or --cfg (a layout to initialise)")
    return load(config.weights) if config.weights is not None else fresh_model(config.cfg or "", seed=config.seed, anchors_to_fit=anchors_to_fit)


def image_size(imgsz: int | Sequence[int] | None, default: int, stride: int) -> tuple[int, int]:
    """Return the picture size (height, width) in pixels that users give, rounded up to multiples of the stride.

    imgsz: a side, or height and width, of 1 to 16384 pixels; None takes `default`. Raises InputError for anything else.
    """
    given: Any = plain(default if imgsz is None else imgsz)
    sides = given if isinstance(given, list) else [given]
    if len(sides) not in (1, 2) or not all(type(side) is int and 1 <= side <= 16384 for side in sides):
        raise InputError(f"imgsz is {' '.join(map(shown, sides)) or 'empty'}, expected a side, or height and width, of 1 to 16384 pixels")
    return -(-sides[0] // stride) * stride, -(-sides[-1] // stride) * stride
