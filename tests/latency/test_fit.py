"""Coefficients of times: against all active sets, and on machines whose times are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.latency.fit import fitted, non_negative
from octrim.latency.terms import rows_of
from octrim.network.rows import Network, Row
from tests.latency.analytic import exact_time
from tests.networks import random_networks


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 12))
def test_non_negative_is_the_best_of_all_active_sets(seed: int, unknowns: int, equations: int) -> None:
    generator = np.random.default_rng(seed)
    matrix, values = generator.normal(size=(equations, unknowns)), generator.normal(size=equations)
    found = non_negative(matrix, values)
    assert (found >= 0).all()
    best = float((values**2).sum())
    for chosen in product([False, True], repeat=unknowns):
        places = np.flatnonzero(chosen)
        if not len(places):
            continue
        solution = np.linalg.lstsq(matrix[:, places], values, rcond=None)[0]
        if (solution >= 0).all():
            best = min(best, float(((matrix[:, places] @ solution - values) ** 2).sum()))
    assert float(((matrix @ found - values) ** 2).sum()) <= best + 1e-8


CHAIN = Network(
    (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 16, 3, 2, 1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 16, 3, 1, 1, norm=True, activation="silu"),
        Row("c", "conv", ("b",), 16, 3, 1, 1, norm=True, activation="silu"),
        Row("sum", "add", ("a", "c")),
        Row("d", "conv", ("sum",), 16, 3, 2, 1, norm=True, activation="silu"),
        Row("head", "conv", ("d",), 14, bias=True),
        Row("detect", "detect", ("head",)),
    ),
    (((4.0, 5.0), (9.0, 7.5)),),
)


def cut(network: Network, widths: dict[str, int]) -> Network:
    return Network(tuple(replace(row, channels=widths.get(row.name, row.channels)) for row in network.rows), network.anchors)


def without_sum(network: Network) -> Network:
    """The network without b, c and their sum: d reads a."""
    rows = [row for row in network.rows if row.name not in ("b", "c", "sum")]
    return Network(tuple(replace(row, inputs=("a",)) if row.name == "d" else row for row in rows), network.anchors)


def drawn(generator: np.random.Generator) -> Network:
    trunk, inner, last = (int(count) for count in generator.integers(1, 33, 3))
    network = cut(CHAIN, {"a": trunk, "b": inner, "c": trunk, "d": last})
    return without_sum(network) if generator.random() < 0.3 else network


def test_a_fit_finds_a_known_machine_and_predicts_networks_with_rows_left_out() -> None:
    generator = np.random.default_rng(0)
    networks = [drawn(generator) for _ in range(60)]
    fit = fitted([rows_of(network, 64, 64) for network in networks], [exact_time(network) for network in networks])
    for network in [CHAIN, without_sum(CHAIN), *(drawn(generator) for _ in range(20))]:
        assert fit.times(rows_of(network, 64, 64))[0] == pytest.approx(exact_time(network), rel=1e-3)


def test_disturbed_measurements_hardly_move_a_fit() -> None:
    generator = np.random.default_rng(1)
    networks = [drawn(generator) for _ in range(80)]
    times = np.array([exact_time(network) for network in networks])
    times[::10] *= 1.7
    fit = fitted([rows_of(network, 64, 64) for network in networks], times.tolist())
    errors = [fit.times(rows_of(network, 64, 64))[0] / exact_time(network) - 1 for network in (drawn(generator) for _ in range(20))]
    assert np.abs(errors).max() < 0.02


def test_blocks_are_found_by_the_times() -> None:
    generator = np.random.default_rng(2)
    networks = [drawn(generator) for _ in range(100)]

    def blocked(network: Network) -> float:
        return exact_time(cut(network, {row.name: -(-row.channels // 16) * 16 for row in network.convs if row.name != "head"}))

    rows = [rows_of(network, 64, 64) for network in networks]
    assert fitted(rows, [blocked(network) for network in networks]).blocks == (16, 16)
    assert fitted(rows, [exact_time(network) for network in networks]).blocks == (1, 1)


@settings(max_examples=40)
@given(random_networks(), st.integers(0, 10**6))
def test_channels_of_several_networks_are_those_of_each(network: Network, seed: int) -> None:
    """One walk over several networks that differ in their channels gives what a walk over each gives."""
    from octrim.pruning.labels import channel_labels
    from octrim.pruning.plan import cut_network

    generator, labels = np.random.default_rng(seed), channel_labels(network)
    cuts = [network]
    for _ in range(3):
        gone = np.zeros(labels.count, bool)
        for group in labels.groups:
            if group.reason is None:
                gone[group.labels[int(generator.integers(1, len(group) + 1)) :]] = True
        kept = {row.name: np.flatnonzero(~gone[labels.labels[row.name]]) for row in network.convs}
        cuts.append(cut_network(network, labels, kept))
    channels = {row.name: np.array([one.channels[row.name] for one in cuts]) for row in network.convs}
    together = rows_of(network, 64, 64, channels)
    for index, one in enumerate(cuts):
        alone = rows_of(one, 64, 64)
        np.testing.assert_array_equal(together.read[index], alone.read[0])
        np.testing.assert_array_equal(together.written[index], alone.written[0])
        products = [(each.read * each.written / each.groups)[place] for each, place in ((together, index), (alone, 0))]
        # A depthwise convolution that is cut to one channel is an ordinary one: the same product.
        np.testing.assert_array_equal(*products)
