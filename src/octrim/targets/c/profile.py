"""Times of a network's layers in C, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.targets.c.engine import Engine, Library
from octrim.targets.c.program import Program, program
from octrim.targets.c.session import runtime_library

_BUDGET = 3.0
"""Seconds that all measurements of a network take, about: large networks are run less often."""

_LEAST, _MOST = 3, 40
"""Limits of the number of runs that a measurement takes the fastest of."""


@dataclass(frozen=True)
class LayerTime:
    """The time of a row of the network's table. what: a line that describes it. milliseconds: of one picture, on one thread. macs: its
    multiply-accumulates, 0 for rows without weights."""

    name: str
    what: str
    milliseconds: float
    macs: int


def layer_times(model: Model, height: int, width: int) -> list[LayerTime]:
    """The time of every row that the runtime in C computes, in the order in which it does, for pictures of height x width pixels.

    The network is run up to each of its steps, and what a step adds to the fastest run is its time, so that no clock disturbs what it measures. A row
    of several steps has their sum. Raises InputError where nothing compiles C.
    """
    made = program(model, height, width)
    macs = network_cost(model.network, height, width).convs
    layers: dict[str, LayerTime] = {}
    for described, seconds in zip(made.step_names, step_seconds(runtime_library(), made), strict=True):
        name, _, what = described.partition(": ")
        known = layers.get(name, LayerTime(name, what, 0.0, macs[name].macs if name in macs else 0))
        more = "" if what in known.what else f", {what}"
        layers[name] = replace(known, milliseconds=known.milliseconds + 1000 * seconds, what=known.what + more)
    return list(layers.values())


def step_seconds(library: Library, made: Program) -> list[float]:
    """Seconds that each step adds to a run, none below zero; together those of the whole run."""
    picture = np.full((1, made.height, made.width, 3), 114, np.uint8)
    prefixes = list(_prefixes(made))
    whole = _fastest(library, made, picture, _LEAST)
    rounds = int(np.clip(_BUDGET / (len(prefixes) * max(whole, 1e-6) / 2), _LEAST, _MOST))
    until = np.maximum.accumulate([_fastest(library, part, picture, rounds) for part in prefixes])
    return np.diff(until, prepend=0.0).tolist()


def _prefixes(made: Program) -> Sequence[Program]:
    """The program up to and with each of its steps."""
    found = []
    for place, stage in enumerate(made.stages):
        found += [replace(made, stages=(*made.stages[:place], replace(stage, steps=count))) for count in range(1, stage.steps + 1)]
    return found


def _fastest(library: Library, made: Program, picture: np.ndarray, rounds: int) -> float:
    """Seconds of the fastest of some runs on one thread: whatever disturbs a run makes it longer."""
    engine = Engine(library, made, 1)
    engine(picture)
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        engine(picture)
        seconds.append(perf_counter() - start)
    engine.close()
    return min(seconds)
