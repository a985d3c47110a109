"""Players of the two sides, made from their names on the command line."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np

from octrim.errors import InputError, shown
from octrim.pong.options import MatchOptions, PlayOptions
from octrim.pong.players import LEVELS, Computer, Keyboard, Player
from octrim.pong.vision import VisionPlayer

NAMES = ("left", "right")

SHIPPED = "pong"
"""Network of a vision player that names none."""


def player(
    spec: str, side: int, config: PlayOptions | MatchOptions, seed: int | None = None, detectors: MutableMapping[str, Any] | None = None
) -> Player:
    """A new player: `human` (in a window), `computer:LEVEL`, or `vision:WEIGHTS` with any model or deployable; `vision` alone has the
    network that comes with OcTrim.

    seed: seed of a computer's errors; by default it follows from the configuration's seed and the side. detectors: networks by weights; those
    found there are used again, others are added. Without it every vision player has a network of its own, as players in threads need it. In a
    window vision players are live: their close() ends their threads. Raises InputError for a spec that is no player, and for weights that cannot
    be used or lack the classes ball and paddle.
    """
    kind, _, rest = spec.partition(":")
    if kind == "human" and not rest:
        if isinstance(config, PlayOptions):
            return Keyboard(side)
        raise InputError(f"{NAMES[side]}: human plays in a window (octrim pong play); here computer:LEVEL or vision:WEIGHTS")
    if kind == "computer" and rest in LEVELS:
        return Computer(side, rest, game_seed(config.seed, 0, 1 + side) if seed is None else seed)
    if kind == "vision" and (rest or spec == kind):
        return _vision(rest or SHIPPED, side, config, detectors)
    raise InputError(
        f"{NAMES[side]}: {shown(spec)} is no player; expected "
        f"{'human, ' if isinstance(config, PlayOptions) else ''}computer:LEVEL ({', '.join(LEVELS)}) or vision:WEIGHTS"
    )


def game_seed(seed: int, index: int, part: int) -> int:
    """Seed of a part of game `index` of a series. part: 0 the serves, 1 the left player, 2 the right one. Raises InputError for a negative seed."""
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    return int(np.random.SeedSequence((seed, index)).generate_state(3)[part])


def _vision(weights: str, side: int, config: PlayOptions | MatchOptions, detectors: MutableMapping[str, Any] | None) -> VisionPlayer:
    detectors = {} if detectors is None else detectors
    if weights not in detectors:
        from octrim.detector import Detector

        threads = config.threads
        if threads is None and config.latency_ms is not None and config.runtime != "numpy":
            threads = 1  # the number of threads changes the last bits of sums, and games with a fixed latency are to be the same anywhere
        detector = Detector(
            weights, config.imgsz, config.conf, runtime=config.runtime, precision=config.precision, threads=threads, device=config.device
        )
        if detector.info.batch not in (None, 1):
            raise InputError(f"{weights}: was built for batches of {detector.info.batch}; players look at one picture at a time")
        detectors[weights] = detector
    latency = None if config.latency_ms is None else config.latency_ms / 1000
    try:
        return VisionPlayer(side, detectors[weights], latency=latency, live=isinstance(config, PlayOptions), rules=config.rules())
    except InputError as error:
        raise InputError(f"{NAMES[side]}: {weights}: {error}") from None
