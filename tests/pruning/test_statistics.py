"""Statistics gathered in parts, against NumPy on everything at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.pruning.statistics import LeastSquares, Moments

PARTS = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(PARTS, st.integers(0, 99), st.sampled_from([0.0, 1.0, 1e5]))
def test_moments_of_parts_are_those_of_the_whole(parts: list[int], seed: int, offset: float) -> None:
    """Also far from zero, where a sum of squares would have lost the variance."""
    generator = np.random.default_rng(seed)
    maps = [(offset + generator.standard_normal((count, 3, 2, 5))).astype(np.float32) for count in parts]
    moments = Moments(3)
    for part in maps:
        moments.add(part)
    joined = np.concatenate(maps).astype(np.float64)
    assert moments.count == joined.size // 3
    np.testing.assert_allclose(moments.mean, joined.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.variance, joined.var((0, 2, 3)), rtol=1e-9)


@given(PARTS, st.integers(0, 99), st.sampled_from([1e-3, 1.0]))
def test_least_squares_of_parts_are_those_of_the_whole(parts: list[int], seed: int, ridge: float) -> None:
    generator = np.random.default_rng(seed)
    samples = [(5 + generator.standard_normal((count + 1, 4)), 3 * generator.standard_normal((count + 1, 2))) for count in parts]
    squares = LeastSquares(4, 2)
    for part in samples:
        squares.add(*part)
    inputs, outputs = (np.concatenate(side) for side in zip(*samples, strict=True))
    centred = inputs - inputs.mean(0)
    penalty = ridge * (centred**2).sum() / 4 * np.eye(4)
    wanted = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (outputs - outputs.mean(0))).T
    coefficients, intercept = squares.solve(ridge)
    np.testing.assert_allclose(coefficients, wanted, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(intercept, outputs.mean(0) - wanted @ inputs.mean(0), rtol=1e-8, atol=1e-9)


def test_least_squares_without_ridge_find_a_line() -> None:
    squares = LeastSquares(1, 1)
    squares.add(np.asarray([[0.0], [1.0]]), np.asarray([[1.0], [3.0]]))
    squares.add(np.asarray([[5.0]]), np.asarray([[11.0]]))
    coefficients, intercept = squares.solve(0.0)
    assert (coefficients.item(), intercept.item()) == (pytest.approx(2), pytest.approx(1))
