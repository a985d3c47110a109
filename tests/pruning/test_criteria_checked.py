"""What a user hands to `plan` is checked: criteria, gradients and keep maps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.importance import CRITERIA, channel_scores, taylor
from octrim.pruning.labels import ChannelLabels, channel_labels
from octrim.pruning.plan import plan
from tests.networks import lively_model, random_networks


@pytest.fixture(scope="module")
def model() -> Model:
    return fresh_model("yolov5n", classes=1)


def one_is(value: float) -> Callable[[Model, ChannelLabels, int], np.ndarray]:
    """A criterion that gives `value` for the first channel of the second group."""

    def mine(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
        scores = np.ones(labels.count)
        scores[labels.groups[1].labels[0]] = value
        return scores

    return mine


def failing(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    raise KeyError("model.99")


class Scorer:
    def __call__(self, model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
        return np.arange(labels.count)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (one_is(np.nan), r"criterion mine: gives nan for label \d+ of model\.1"),
        (one_is(np.inf), "criterion mine: gives inf"),
        (lambda model, labels, seed: np.ones(labels.count - 1), r"criterion <lambda>: gives float64 \[\d+\], expected numbers \[\d+\]"),
        (lambda model, labels, seed: np.ones((labels.count, 1)), "expected numbers"),
        (lambda model, labels, seed: np.ones(labels.count, np.complex64), "gives complex64"),
        (lambda model, labels, seed: ["a"] * labels.count, "gives <U1"),
        (lambda model, labels, seed: None, "gives object"),
        (failing, "criterion failing: fails with KeyError"),
        (3, "criterion is 3, expected a name or a function"),
        ("best", "criterion 'best' is unknown"),
    ],
)
def test_criteria_that_give_nonsense(model: Model, criterion: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(model, criterion=criterion)  # type: ignore[arg-type]


def test_criteria_without_a_name_and_of_other_numbers(model: Model) -> None:
    """Whole numbers will do, and an object or a partial function is called by its class's name."""
    assert plan(model, criterion=Scorer()).settings["criterion"] == "Scorer"
    assert plan(model, criterion=partial(one_is(2.0))).settings["criterion"] == "partial"


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"random"}))
def test_a_network_with_a_weight_that_is_no_number(model: Model, criterion: str) -> None:
    """It once came out of a plan, with an importance of nan."""
    tensors = {name: tensor.copy() for name, tensor in model.tensors.items()}
    for name, tensor in tensors.items():
        if name.startswith("model.2.cv1."):
            tensor.flat[0] = np.nan
    with pytest.raises(InputError, match=f"criterion {criterion}: gives nan"):
        plan(replace(model, tensors=tensors), criterion=criterion)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor[:-1], r"taylor needs a gradient \[16\] of model\.0\.bn\.weight, found float32 \[15\]"),
        (lambda tensor: None, "found none"),
        (lambda tensor: ["x"] * len(tensor), "found <U1"),
        (lambda tensor: tensor * np.nan, "criterion taylor: gives nan"),
    ],
)
def test_gradients_that_make_no_sense(model: Model, change: Callable[[np.ndarray], object], message: str) -> None:
    gradients = {name: tensor for name, tensor in model.tensors.items() if name.endswith((".bn.weight", ".bn.bias"))}
    gradients |= {"model.0.bn.weight": change(model.tensors["model.0.bn.weight"])}  # type: ignore[dict-item]
    with pytest.raises(InputError, match=message):
        plan(model, criterion=taylor([gradients]))


@pytest.mark.slow
@settings(max_examples=60)
@given(network=random_networks(), seed=st.integers(0, 9), dead=st.integers(0, 13))
def test_every_criterion_scores_every_network_with_batch_norm(network: Network, seed: int, dead: int) -> None:
    """Grouped convolutions, concatenations of a map with itself, a map that is dead: finite scores, and no warning."""
    rows = tuple(replace(row, norm=True, bias=False) if row.op == "conv" and row.name not in network.heads else row for row in network.rows)
    model = lively_model(Network(rows, network.anchors), seed)
    normed = [row for row in model.network.convs if row.norm]
    model.tensors[f"{normed[dead % len(normed)].name}.bn.weight"][:] = 0
    labels = channel_labels(model.network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for criterion in CRITERIA:
            channel_scores(criterion, model, labels, seed)


def test_what_detect_reads_may_be_constant() -> None:
    """A level whose map is dead has no part in what other channels are worth, and its own channels are worth nothing."""
    stem = Row("stem", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu")
    still = Row("still", "conv", ("stem",), 8, 3, 2, 1, norm=True, activation="silu")
    heads = (Row("one", "conv", ("stem",), 6, bias=True), Row("two", "conv", ("still",), 6, bias=True))
    rows = (Row("images", "image", channels=3), stem, still, *heads, Row("detect", "detect", ("one", "two")))
    model = lively_model(Network(rows, (((8.0, 8.0),), ((16.0, 16.0),))))
    model.tensors["still.bn.weight"][:] = 0
    labels = channel_labels(model.network)
    scores = channel_scores("signal", model, labels, 0)
    assert (scores[labels.labels["still"]] == 0).all() and (scores[labels.labels["stem"]] > 0).all()
