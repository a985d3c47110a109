"""Networks and states of trainings that tests cut."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.training.checkpoint import State
from octrim.training.schedule import averaging
from octrim.training.vectors import flattened, kind_of
from tests.networks import lively_tensors

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.training.optimizer import MovingAverage
from octrim.training.parallel import World
from octrim.training.taylor import TaylorScores


def simple_network() -> Network:
    from octrim.network.yolov5 import yolov5_network

    return yolov5_network("yolov5n", classes=2)


def state_of(model: Model, seed: int = 0) -> State:
    """A training's state with the model's weights, another model's as their average, and random vectors."""
    generator = np.random.default_rng(seed)
    sizes = [0, 0, 0, 0]
    for name, shape in tensor_shapes(model.network).items():
        sizes[kind_of(name)] += int(np.prod(shape))
    average = lively_tensors(model.network, seed + 1)
    arrays = {"values": flattened(model.network, model.tensors), "average": flattened(model.network, average)}
    arrays |= {name: generator.random(sum(sizes[:3])).astype(np.float32) for name in ("gradient", "moment0", "moment1")}
    arrays["taylor"] = generator.random(sizes[1]).astype(np.float32)
    return State(model.network, model.names, model.image_size, (), "digest", arrays, epoch=3, steps=7, updates=7)


def learner_of(state: State, criterion: str) -> Any:
    """A stand-in for `Learner` that only counts: what is cut must follow from the state alone."""

    class Learner:
        world = World()
        weights = types.SimpleNamespace(vector=None)
        optimizer = type("Optimizer", (), {"steps": 0})
        average = MovingAverage(state.arrays["average"], averaging(60))
        taylor = TaylorScores(state.network, state.arrays["taylor"]) if criterion == "taylor" else None

        def snapshot(self, state: State) -> State:
            return state

        def go_on_with(self, state: State) -> None:
            if self.taylor is not None:
                self.taylor = TaylorScores(state.network, state.arrays["taylor"])

    return Learner()
