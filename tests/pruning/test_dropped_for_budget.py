"""Budgets that no cut of channels meets: the least with rows dropped, compared with all choices of blocks and levels in turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.dropping import LEVEL
from octrim.network.rows import Network
from octrim.pruning.budget import MEASURES, UnmetBudgetError
from octrim.pruning.dropped_for_budget import dropped_for_budget, names_that_may_go
from octrim.pruning.plan import Plan, plan
from tests.latency.analytic import exact_table
from tests.networks import lively_model, random_networks, tiny_model


def choices(network: Network, names: Sequence[str]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """All choices of some blocks to drop and some levels to keep."""
    blocks = [name for name in names if not name.startswith(LEVEL)]
    strides = network.strides if len(blocks) < len(names) else ()
    kept = [()] + [some for count in range(1, len(strides)) for some in combinations(strides, count)]
    return [(some, levels) for count in range(len(blocks) + 1) for some in combinations(blocks, count) for levels in kept]


@settings(max_examples=25)
@given(random_networks(), st.sampled_from([*MEASURES, "latency"]), st.sampled_from([(True, True), (True, False), (False, True)]))
def test_the_least_is_that_of_all_choices(network: Network, what: str, kinds: tuple[bool, bool]) -> None:
    names = names_that_may_go(network, *kinds)
    assume(1 <= len(names) <= 6)
    model, table = lively_model(network), exact_table(network)

    def cost(one: Network) -> float:
        return table.predict(one) if what == "latency" else getattr(network_cost(one, 64), MEASURES[what])

    def least(drop: Sequence[str], levels: Sequence[int]) -> float:
        try:
            return cost(plan(model, "1/1000", 2, "l2", image_size=(64, 64), drop=drop, levels=levels).network)
        except InputError:
            return float("inf")

    def make(budget: str, drop: Sequence[str], levels: Sequence[int]) -> Plan:
        return plan(model, None, 2, "l2", image_size=(64, 64), budget=budget, drop=drop, levels=levels, latency=table)

    best = min(least(*choice) for choice in choices(network, names))
    with pytest.raises(UnmetBudgetError, match="dropped that may go") as caught:
        dropped_for_budget(network, names, lambda *gone: make(f"{what}=0.000001", *gone))
    limit = 1e-6 if what == "latency" else 1e-6 * cost(network)
    assert caught.value.excess == pytest.approx(best - limit)
    said = str(caught.value).partition("possible is ")[2].split()[0].rstrip(",")
    made = make(said, *dropped_for_budget(network, names, lambda *gone: make(said, *gone)))
    assert cost(made.network) <= float(said.partition("=")[2]) * (1 if what == "latency" else cost(network))


def test_channels_alone_where_they_are_enough() -> None:
    model = tiny_model()
    names = names_that_may_go(model.network, True, True)
    found = dropped_for_budget(model.network, names, lambda *_: plan(model, "1/2", image_size=(64, 64)), ["model.2.m"], [8])
    assert found == (("model.2.m",), (8,))


def test_what_is_excluded_stays() -> None:
    """Where TINY must keep a convolution of model.2 whole, the least is that of all choices that leave it there."""
    model = tiny_model()
    names = names_that_may_go(model.network, True, True)

    exclude = ["model.2.m.0.cv1"]

    def make(drop: Sequence[str], levels: Sequence[int]) -> Plan:
        return plan(model, None, 1, "l2", exclude, image_size=(64, 64), budget="macs=0.00001", drop=drop, levels=levels)

    with pytest.raises(UnmetBudgetError) as caught:
        dropped_for_budget(model.network, names, make)
    costs = []
    for some, levels in choices(model.network, names):
        try:
            costs.append(plan(model, "1/1000", 1, "l2", exclude, image_size=(64, 64), drop=some, levels=levels).after.macs)
        except InputError:
            continue
    assert f"({min(costs):,} macs)" in str(caught.value)
