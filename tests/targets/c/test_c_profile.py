"""Times of layers in C: what each step adds to a run, told by the rows that the steps belong to."""

from __future__ import annotations

import numpy as np
import pytest

from octrim.network.cost import network_cost
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.c import profile
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.engine import Engine, Library
from octrim.targets.c.profile import layer_times, step_seconds
from octrim.targets.c.program import Program, program
from octrim.targets.c.session import runtime_library
from tests.networks import lively_model
from tests.targets.c.material import calm, picture

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C compiler")


@pytest.fixture(scope="module")
def small() -> Model:
    model = calm(lively_model(yolov5_network("yolov5n", 3)))
    return prune(model, plan(model, keep="1/8", align=8))


def test_a_step_takes_what_it_adds(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says how many steps a program has: every step takes as long as its number in the program; the rest is sums by rows."""
    made = program(small, 64, 96)
    lengths: list[int] = []

    def clock(library: Library, part: Program, pixels: np.ndarray, rounds: int) -> float:
        steps = sum(stage.steps for stage in part.stages)
        assert part.stages[-1].first + part.stages[-1].steps == steps and part.steps == made.steps
        lengths.append(steps)
        return 1e-3 * steps * (steps + 1) / 2

    monkeypatch.setattr(profile, "_fastest", clock)
    numbers = np.arange(1, len(made.steps) + 1)
    assert step_seconds(runtime_library(), made) == pytest.approx(1e-3 * numbers)
    assert lengths == [len(made.steps), *numbers]  # all of it once, to know how long it takes, then every beginning
    layers = layer_times(small, 64, 96)
    for layer in layers:
        own = [number for number, name in zip(numbers, made.step_names, strict=True) if name.startswith(f"{layer.name}: ")]
        assert layer.milliseconds == pytest.approx(sum(own))
    assert sum(layer.milliseconds for layer in layers) == pytest.approx(numbers.sum())


def test_a_step_that_seems_to_take_less_than_nothing_takes_nothing(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = program(small, 64, 96)
    seconds = iter([9.0, 1.0, 3.0, 2.0, 5.0, *[5.0] * len(made.steps)])
    monkeypatch.setattr(profile, "_fastest", lambda *_: next(seconds))
    assert step_seconds(runtime_library(), made)[:5] == [1.0, 2.0, 0.0, 2.0, 0.0]


def test_every_convolution_is_there_with_its_cost(small: Model) -> None:
    layers = {layer.name: layer for layer in layer_times(small, 64, 96)}
    convs = network_cost(small.network, 64, 96).convs
    assert {name: layer.macs for name, layer in layers.items() if layer.macs} == {name: conv.macs for name, conv in convs.items()}
    assert all(layer.milliseconds >= 0 for layer in layers.values()) and layers["model.0"].what.startswith("stem 6x6, 3 -> ")


def test_the_last_beginning_is_the_network(small: Model) -> None:
    """What is timed computes what the network computes."""
    made = program(small, 64, 96)
    library, batch = runtime_library(), picture(64, 96)
    parts = list(profile._prefixes(made))  # pyright: ignore[reportPrivateUsage]
    assert np.array_equal(Engine(library, parts[-1], 1)(batch), Engine(library, made, 2)(batch))
