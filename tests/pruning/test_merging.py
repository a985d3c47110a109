"""Merging of cut channels: exact where they are linear functions of those that stay, least squares where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps
from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.pruning.cut import cut_tensors
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import RIDGE, MapMoments, merged, read_maps
from octrim.pruning.plan import cut_network
from tests.networks import lively_model


def network_of(kernel: int) -> Network:
    """Two convolutions without activation, joined, then read by one with batch norm and by Detect's."""
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 6, 3, 2, 1, norm=True),
        Row("b", "conv", ("images",), 5, 3, 2, 1, norm=True),
        Row("join", "concat", ("a", "b")),
        Row("c", "conv", ("join",), 7, kernel, 1, kernel // 2, norm=True, activation="silu"),
        Row("level0", "conv", ("join",), 14, bias=True),
        Row("level1", "conv", ("c",), 14, bias=True),
        Row("detect", "detect", ("level0", "level1")),
    )
    return Network(rows, (((4.0, 5.0), (9.0, 7.0)), ((4.0, 5.0), (9.0, 7.0))))


class Recording(NumpyOps):
    """Keeps every map."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, np.float64)
        self.maps: dict[str, np.ndarray] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        self.maps[row.inputs[0]] = x
        return super().conv(row, x)


def dependent(model: Model) -> Model:
    """The model with a's channel 4 = 2 x its channel 1 - 3 everywhere, and b's channel 2 = -a's channel 0."""
    tensors = {name: tensor.copy() for name, tensor in model.tensors.items()}
    for source, place, name, channel, factor, shift in (("a", 1, "a", 4, 2.0, -3.0), ("a", 0, "b", 2, -1.0, 0.0)):
        for part in ("conv.weight", "bn.running_mean", "bn.running_var"):
            tensors[f"{name}.{part}"][channel] = model.tensors[f"{source}.{part}"][place]
        tensors[f"{name}.bn.weight"][channel] = factor * model.tensors[f"{source}.bn.weight"][place]
        tensors[f"{name}.bn.bias"][channel] = factor * model.tensors[f"{source}.bn.bias"][place] + shift
    return replace(model, tensors=tensors)


def moments_of(values: np.ndarray) -> MapMoments:
    samples = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
    return MapMoments(samples.mean(0), np.cov(samples.T, bias=True))


@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_that_others_determine_go_without_a_trace(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octrim.pruning.merging.RIDGE", 1e-13)
    model = dependent(lively_model(network_of(kernel), seed=2))
    network, labels = model.network, channel_labels(model.network)
    gone = np.zeros(labels.count, bool)
    gone[[labels.labels["a"][4], labels.labels["b"][2]]] = True
    assert read_maps(model, gone) == {"join"}
    images = np.random.default_rng(0).random((2, 3, 32, 32))
    ops = Recording(model)
    before = walk(network, ops, images)
    predictions = {"join": moments_of(ops.maps["join"]).prediction(gone[labels.labels["join"]])}
    kept = {row.name: np.flatnonzero(~gone[labels.labels[row.name]]) for row in network.convs}
    tensors = cut_tensors(network, labels, gone, model.tensors) | {
        name: values.astype(np.float32) for name, values in merged(model, gone, predictions).items()
    }
    small = replace(model, network=cut_network(network, labels, kept), tensors=tensors)
    assert {name: tensor.shape for name, tensor in tensors.items()} == tensor_shapes(small.network)
    after = walk(small.network, NumpyOps(small, np.float64), images)
    border = kernel // 2  # zero padding stands for what was -3 there
    for one, other in zip(before, after, strict=True):
        inner = (slice(None), slice(None), *[slice(border, side - border) for side in one.shape[2:]])
        np.testing.assert_allclose(other[inner], one[inner], rtol=1e-3, atol=1e-3)


@settings(max_examples=30)
@given(st.integers(3, 9), st.integers(1, 2), st.integers(0, 99))
def test_predictions_are_ridge_regression(channels: int, cut: int, seed: int) -> None:
    """Against the normal equations' other form: least squares on samples with the ridge's rows below them."""
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal((200, channels)) @ generator.standard_normal((channels, channels)) + generator.standard_normal(channels)
    gone = np.zeros(channels, bool)
    gone[generator.permutation(channels)[:cut]] = True
    coefficients, constants = MapMoments(samples.mean(0), np.cov(samples.T, bias=True)).prediction(gone)
    centred = samples - samples.mean(0)
    inputs, outputs = centred[:, ~gone], centred[:, gone]
    ridge = np.sqrt(RIDGE * (inputs**2).mean() * len(samples)) * np.eye(inputs.shape[1])
    found = np.linalg.lstsq(np.vstack([inputs, ridge]), np.vstack([outputs, np.zeros((len(ridge), cut))]), rcond=None)[0].T
    np.testing.assert_allclose(coefficients, found, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(constants + found @ samples.mean(0)[~gone], samples.mean(0)[gone], rtol=1e-6, atol=1e-8)
