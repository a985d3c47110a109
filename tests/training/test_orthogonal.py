"""Orthogonal steps against the singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.network.initialize import fresh_model
from octrim.training.optimizer import Optimizer, Weights
from octrim.training.orthogonal import STEP, Orthogonal
from octrim.training.schedule import Settings


def by_decomposition(matrix: np.ndarray) -> np.ndarray:
    """The published iteration, done on the singular values alone: it leaves the singular vectors as they are."""
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    values = values / (np.sqrt((values**2).sum()) + 1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


def orthogonalised(matrices: np.ndarray) -> np.ndarray:
    """The steps of some kernels of one shape, divided by their lengths. matrices: float32 `[count, rows, columns]`, of two columns or more."""
    count, rows, columns = matrices.shape
    size = rows * columns
    slices = {str(number): slice(number * size, (number + 1) * size) for number in range(count)}
    steps = Orthogonal(slices, dict.fromkeys(slices, (rows, columns, 1, 1))).steps(paddle.to_tensor(matrices.reshape(-1)))
    return steps.numpy().reshape(matrices.shape) / (STEP * max(1.0, rows / columns) ** 0.5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 24), st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(-4, 4))
def test_singular_vectors_stay_and_singular_values_follow_the_polynomial(count: int, rows: int, columns: int, seed: int, power: float) -> None:
    matrices = np.random.default_rng(seed).normal(0, 10**power, (count, rows, columns)).astype(np.float32)
    found = orthogonalised(matrices)
    for one, matrix in zip(found, matrices, strict=True):
        np.testing.assert_allclose(one, by_decomposition(matrix), atol=2e-3)


def test_singular_values_become_about_one() -> None:
    matrices = np.random.default_rng(1).normal(size=(4, 16, 72)).astype(np.float32)
    values = np.linalg.svd(orthogonalised(matrices), compute_uv=False)
    assert values.min() > 0.67 and values.max() < 1.15


def test_zeros_stay_zeros() -> None:
    assert not orthogonalised(np.zeros((2, 8, 4), np.float32)).any()


def test_kernels_of_one_shape_and_of_others_each_get_their_own_step() -> None:
    shapes = {"a": (8, 4, 1, 1), "b": (4, 1, 3, 3), "c": (8, 4, 1, 1), "d": (2, 3, 3, 3)}
    sizes = np.cumsum([0, *(np.prod(shape) for shape in shapes.values())])
    slices = {name: slice(int(begin), int(end)) for name, begin, end in zip(shapes, sizes, sizes[1:], strict=False)}
    direction = np.random.default_rng(2).normal(size=sizes[-1]).astype(np.float32)
    steps = Orthogonal(slices, shapes).steps(paddle.to_tensor(direction)).numpy()
    for name, tall in (("a", 2.0), ("c", 2.0), ("d", 1.0)):
        wanted = by_decomposition(direction[slices[name]].reshape(shapes[name][0], -1)) * STEP * tall**0.5
        np.testing.assert_allclose(steps[slices[name]], wanted.reshape(-1), atol=2e-3)
    np.testing.assert_array_equal(steps[slices["b"]], direction[slices["b"]])  # depthwise


def test_muon_makes_steps_of_kernels_orthogonal_and_the_others_those_of_sgd() -> None:
    weights = Weights(PaddleNetwork(fresh_model("yolov5n", classes=2)))
    start = weights.parameters.values()
    rng = np.random.default_rng(3)
    pulls = [paddle.to_tensor(rng.normal(0, 1e-3, weights.parameters.size).astype(np.float32)) for _ in range(2)]
    rates = [Settings(0.01, 0.1, 0.8, 1), Settings(0.02, 0.05, 0.9, 1)]
    after = {}
    for kind in ("SGD", "Muon"):
        optimizer = Optimizer.create(weights, kind, 0.1)
        for pull, rate in zip(pulls, rates, strict=True):
            assert optimizer.step(pull, rate)
        after[kind] = weights.parameters.values().numpy()
        weights.parameters.assign(start)
    rest = slice(weights.groups[1].start, None)
    np.testing.assert_array_equal(after["Muon"][rest], after["SGD"][rest])
    name = "model.0.conv.weight"
    part, shape = weights.parameters.slices[name], weights.parameters.tensors[name].shape
    value, velocity = start.numpy()[part].astype(np.float64), 0.0
    for pull, rate in zip(pulls, rates, strict=True):
        gradient = pull.numpy()[part] + 0.1 * value
        velocity = rate.momentum * velocity + gradient
        step = by_decomposition((gradient + rate.momentum * velocity).reshape(shape[0], -1)).reshape(-1)
        value = value - rate.rate * STEP * step
    np.testing.assert_allclose(after["Muon"][part], value, atol=2e-5)
    assert np.abs(after["Muon"][part] - after["SGD"][part]).max() > 2e-4


@pytest.mark.parametrize("kind", ["SGD", "Muon"])
def test_a_gradient_that_is_not_finite_makes_no_step(kind: str) -> None:
    weights = Weights(PaddleNetwork(fresh_model("yolov5n", classes=2)))
    start = weights.parameters.values().numpy()
    gradient = np.zeros(weights.parameters.size, np.float32)
    gradient[7] = np.nan
    assert not Optimizer.create(weights, kind, 0.1).step(paddle.to_tensor(gradient), Settings(0.1, 0.1, 0.9, 1))
    np.testing.assert_array_equal(weights.parameters.values().numpy(), start)
