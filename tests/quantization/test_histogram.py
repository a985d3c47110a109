"""Histograms in a stream, and clips against brute force over the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.scales import LEAST_SCALE, LEVELS, scales_of
from octrim.quantization.histogram import BINS, METHODS, Histogram, check_method


def histogram_of(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def squared_error(x: np.ndarray, clip: float) -> float:
    scale = clip / LEVELS
    return float(np.square(x - np.clip(np.rint(x / scale), -LEVELS, LEVELS) * scale).sum())


@given(
    parts=st.lists(st.tuples(st.integers(0, 2**31), st.floats(-40, 25), st.integers(0, 400)), min_size=1, max_size=6),
    order=st.permutations(range(6)),
)
def test_a_stream_gives_what_all_at_once_gives(parts: list[tuple[int, float, int]], order: list[int]) -> None:
    """In any order, over ranges from far below the least scale to millions."""
    arrays = [(np.random.default_rng(seed).normal(size=size) * 2.0**exponent).astype(np.float32) for seed, exponent, size in parts]
    whole = histogram_of(np.concatenate(arrays))
    stream = histogram_of(*(arrays[index] for index in order if index < len(arrays)))
    assert stream.range == whole.range and stream.max == whole.max
    np.testing.assert_array_equal(stream.counts, whole.counts)
    every = np.abs(np.concatenate(arrays).astype(np.float64))
    edges = np.arange(BINS + 1) * whole.width
    np.testing.assert_array_equal(whole.counts, np.histogram(every, edges)[0])
    assert whole.max < whole.range


def test_bins_are_merged_by_hand() -> None:
    histogram = histogram_of([1.0, 0.75, 0.0])
    assert histogram.range == 2 and np.flatnonzero(histogram.counts).tolist() == [0, 768, 1024]
    histogram.add(np.asarray([-5.0], np.float32))
    assert histogram.range == 8 and histogram.max == 5 and np.flatnonzero(histogram.counts).tolist() == [0, 192, 256, 1280]


@given(seed=st.integers(0, 2**31), percentile=st.floats(50, 100), spread=st.floats(0.1, 3))
def test_percentile_within_a_bin(seed: int, percentile: float, spread: float) -> None:
    x = np.random.default_rng(seed).lognormal(0, spread, 3000).astype(np.float32)
    histogram = histogram_of(x)
    ordered = np.sort(np.abs(x))
    rank = percentile / 100 * len(x)
    low, high = ordered[max(int(np.floor(rank)) - 1, 0)], ordered[min(int(np.ceil(rank)), len(x) - 1)]
    assert low - histogram.width <= histogram.percentile(percentile) <= high + histogram.width
    assert histogram.percentile(100) == x.max()


@given(seed=st.integers(0, 2**31), clip=st.floats(0.05, 1), kind=st.sampled_from(["normal", "laplace", "uniform"]))
def test_squared_error_against_the_values(seed: int, clip: float, kind: str) -> None:
    """From the histogram within 3 % of what every value by itself adds up to."""
    x = getattr(np.random.default_rng(seed), kind)(size=40_000).astype(np.float32)
    histogram = histogram_of(x)
    found = histogram.squared_errors(np.asarray([clip * histogram.max]))[0]
    assert found == pytest.approx(squared_error(x.astype(np.float64), clip * histogram.max), rel=0.03)


@pytest.mark.parametrize("outlier", [None, 30.0, 300.0])
def test_mse_finds_the_best_clip(outlier: float | None) -> None:
    x = np.random.default_rng(1).normal(size=60_000).astype(np.float32)
    if outlier is not None:
        x[0] = outlier
    histogram = histogram_of(x)
    found = squared_error(x, histogram.clip("histogram"))
    best = min(squared_error(x, histogram.max * k / 400) for k in range(1, 401))
    assert found <= 1.05 * best
    assert histogram.clip("histogram") < histogram.max
    assert squared_error(x, histogram.clip("max")) > best


def test_share_above_the_clip() -> None:
    histogram = histogram_of(np.linspace(0, 1, 10_001, dtype=np.float32))
    assert histogram.above(0.25) == pytest.approx(0.75, abs=1e-3)
    assert histogram.above(1.0) == histogram.above(7.0) == 0
    assert Histogram().above(0.5) == 0


def test_dead_maps_get_the_least_scale() -> None:
    for histogram in (Histogram(), histogram_of(np.zeros(10)), histogram_of(np.full(3, 1e-9))):
        for method in METHODS:
            scale = scales_of(histogram.clip(method))
            assert scale.dtype == np.float32 and scale == np.float32(LEAST_SCALE)
    assert scales_of(127.0) == 1


def test_scales_are_float16_numbers() -> None:
    clips = np.random.default_rng(0).lognormal(0, 4, 1000)
    scales = scales_of(clips)
    assert scales.dtype == np.float32
    assert np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(scales, np.maximum(clips / 127, LEAST_SCALE), rtol=2**-11)
    assert scales_of(1e9) == np.float32(1e9 / 127)  # float16 has none so large


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        histogram_of([0.0, bad, 1.0])


def test_options_that_make_no_sense() -> None:
    for method, percentile in (("entropy", 99.0), ("max", 101.0), ("percentile", 10.0), ("percentile", float("nan"))):
        with pytest.raises(InputError, match="expected"):
            check_method(method, percentile)
