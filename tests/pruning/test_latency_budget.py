"""Budgets in milliseconds, on a machine whose times are known exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.latency.terms import TERMS
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.budget import Choice, UnmetBudgetError, counts_within
from octrim.pruning.cut import prune
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, cut_network, plan
from tests.latency.analytic import exact_table, exact_time
from tests.latency.test_fit import CHAIN
from tests.networks import lively_model, random_networks, variant


def check_time(model: Model, made: Plan, limit: float, align: int, side: int, product: float = 1e-6) -> None:
    """Within the limit, counts aligned, the least important channels gone; and with any group's last step back the limit is exceeded."""
    network, labels = model.network, channel_labels(model.network)
    assert exact_time(prune(model, made).network, side, product=product) <= limit * (1 + 1e-9)
    kept = np.zeros(labels.count, bool)
    for row in network.convs:
        kept[labels.labels[row.name][made.kept[row.name]]] = True
    for group, planned in zip(labels.groups, made.groups, strict=True):
        assert planned.after == planned.before or (planned.reason is None and planned.after % align == 0)
        gone = group.labels[~kept[group.labels]]
        if not len(gone):
            continue
        restored = kept.copy()
        restored[gone[: align - planned.after % align]] = True
        channels = {row.name: np.flatnonzero(restored[labels.labels[row.name]]) for row in network.convs}
        assert exact_time(cut_network(network, labels, channels), side, product=product) > limit * (1 - 1e-9)


@settings(max_examples=40)
@given(random_networks(), st.sampled_from(["1/2", "4/5", "99/100"]), st.sampled_from([1, 2, 4]))
def test_budgets_on_random_networks(network: Network, value: str, align: int) -> None:
    model, table = lively_model(network, seed=2), exact_table(network)
    limit = float(table.limit(value, network))
    try:
        made = plan(model, align=align, criterion="l2", budget=f"latency={value}", image_size=(64, 64), latency=table)
    except InputError as error:
        assert "the least possible is latency=" in str(error)
        least = plan(model, align=align, criterion="l2", keep="1/1000", image_size=(64, 64))
        assert exact_time(least.network) > limit
        return
    check_time(model, made, limit, align, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("value", "align"), [("1/2", 8), ("1/5", 8), ("1/5", 4), ("1/3", 1)])
def test_budgets_on_yolov5n(value: str, align: int) -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)
    made = plan(model, align=align, budget=f"latency={value}", image_size=(64, 64), latency=table)
    assert made.milliseconds is not None
    limit = table.limit(value, model.network)
    assert 0.98 * limit < made.milliseconds[1] <= limit
    assert made.milliseconds[0] == table.predict(model.network)
    assert "predicted milliseconds" in made.text() and made.to_json()["milliseconds"]["after"] == made.milliseconds[1]
    # No group is emptied for the others: that is what shares of its own importance are for.
    assert min(group.after / group.before for group in made.groups) >= 1 / 40


@pytest.mark.parametrize("uneven", [1, 2])
@pytest.mark.parametrize("share", [0.3, 0.1, 0.05, 0.03])
def test_no_group_is_stuck_at_counts_that_kernels_like(share: float, uneven: float) -> None:
    """A chain of three groups, where counts that are no multiple of 8 cost more: nearly as good as the best of all counts, which were all tried."""
    choices = [Choice(np.arange(24), np.ones(24), 24, 1)] * 3

    def costs(counts: np.ndarray) -> np.ndarray:
        a, b, c = counts.T
        return 3 * a + a * b + b * c + uneven * np.where(counts % 8, counts, 0).sum(1)

    limit = share * float(costs(np.array([[24, 24, 24]]))[0])
    every = np.stack(np.meshgrid(*[np.arange(1, 25)] * 3, indexing="ij"), -1).reshape(-1, 3)
    best = (24 / every[costs(every) <= limit]).sum(1).min()
    assert (24 / np.array(counts_within(choices, 1, costs, limit))).sum() <= 1.1 * best


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_says_the_least_and_that_can() -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)
    with pytest.raises(InputError, match=r"budget latency=0\.0001 cannot be met: the least possible is latency=0\.\d+") as caught:
        plan(model, budget="latency=0.0001", image_size=(64, 64), latency=table)
    least = str(caught.value).partition("possible is latency=")[2].split()[0]
    made = plan(model, budget=f"latency={least}", image_size=(64, 64), latency=table)
    assert made.after.macs == plan(model, keep="1/1000", image_size=(64, 64)).after.macs


def test_keep_exclude_and_the_map_hold_under_a_latency_budget() -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)
    made = plan(
        model, "1/2", 8, budget="latency=2/3", exclude=["model.0"], keep_map={"model.9.*": "1/4"}, image_size=(64, 64), latency=table
    )  # fmt: skip
    after = {group.name: (group.before, group.after) for group in made.groups}
    assert after["model.0"] == (16, 16)
    assert after["model.9.cv1"] == (128, 32)
    assert all(count >= before // 2 for name, (before, count) in after.items() if not name.startswith("model.9."))


def test_a_network_that_was_cut_before_is_planned_by_the_original() -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)
    half = prune(model, plan(model, "1/2", image_size=(64, 64)))
    made = plan(half, budget="latency=1/4", image_size=(64, 64), original=model.network, latency=table)
    assert 0.95 / 4 * table.predict(model.network) < table.predict(made.network) <= table.predict(model.network) / 4


def test_bad_input() -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)
    with pytest.raises(InputError, match="give a latency table"):
        plan(model, budget="latency=1/2", image_size=(64, 64))
    with pytest.raises(InputError, match="of 64x64 pixels, and the network is planned for 640x640"):
        plan(model, budget="latency=1/2", latency=table)
    with pytest.raises(InputError, match="expected more than 0"):
        plan(model, budget="latency=0", image_size=(64, 64), latency=table)
    with pytest.raises(InputError, match="at most 16 channels|has at most"):
        plan(variant("yolov5s"), budget="latency=1/2", image_size=(64, 64), latency=table)


def test_align_auto_is_what_the_kernels_of_the_machine_want() -> None:
    model = variant("yolov5n")
    table = exact_table(model.network, 64, 0.001)

    def aligned(runtime: str, block: int) -> int:
        there = replace(table, machine=replace(table.machine, runtime=runtime), fit=replace(table.fit, blocks=(1, block)))
        return plan(model, align="auto", budget="latency=1/2", image_size=(64, 64), latency=there).settings["align"]

    assert [aligned("openvino", 1), aligned("openvino", 16), aligned("c", 1), aligned("c", 4), aligned("onnxruntime", 16)] == [8, 8, 4, 4, 8]
    auto, eight = (plan(model, "1/8", align, image_size=(64, 64)) for align in ("auto", 8))
    assert auto.settings == eight.settings and auto.network == eight.network
    with pytest.raises(InputError, match="align is 'even', expected 1 or more"):
        plan(model, align="even", image_size=(64, 64))


def test_the_least_is_that_of_any_counts_where_uneven_ones_cost_more() -> None:
    """On a machine where rows are slow whose counts are no multiple of 8: with 8 channels the network takes less than with 4. Against all counts."""
    rows = tuple(replace(row, channels=16) if row.name in ("a", "b", "c", "d") else row for row in CHAIN.rows)
    model = lively_model(Network(rows, CHAIN.anchors))
    table = exact_table(model.network)
    coefficients = table.fit.coefficients.copy()
    coefficients[:, TERMS.index("uneven_input")] = 0.3
    coefficients[:, TERMS.index("uneven_output")] = 0.2
    coefficients[:, TERMS.index("input")] = [0.01, 0.2, 0.05, 0.7, 0.1][: len(coefficients)]
    table = replace(table, fit=replace(table.fit, coefficients=coefficients, blocks=(8, 4)))
    labels = channel_labels(model.network)
    free = [group for group in labels.groups if group.reason is None]
    times = []
    for counts in product((4, 8, 12, 16), repeat=len(free)):
        gone = np.zeros(labels.count, bool)
        for group, count in zip(free, counts, strict=True):
            gone[group.labels[count:]] = True
        channels = {row.name: np.flatnonzero(~gone[labels.labels[row.name]]) for row in model.network.convs}
        times.append(table.predict(cut_network(model.network, labels, channels)))
    fewest = table.predict(plan(model, "1/1000", 4, image_size=(64, 64)).network)
    assert min(times) < 0.98 * fewest
    with pytest.raises(UnmetBudgetError, match="the least possible is latency=") as caught:
        plan(model, align=4, budget="latency=0.0001", image_size=(64, 64), latency=table)
    assert caught.value.excess == pytest.approx(min(times) - 0.0001)
    made = plan(model, align=4, budget=f"latency={min(times) + 1e-4:.9f}", image_size=(64, 64), latency=table)
    assert table.predict(made.network) <= min(times) + 1e-4


@pytest.mark.parametrize("factor", [1, *np.linspace(1000, 30_000, 7)])
def test_the_least_budget_of_a_slow_machine_can_be_met(factor: float) -> None:
    """Its milliseconds have as many digits before the point as they need."""
    table = exact_table(CHAIN)
    table = replace(table, fit=replace(table.fit, coefficients=factor * table.fit.coefficients))
    model = lively_model(CHAIN)
    with pytest.raises(UnmetBudgetError) as caught:
        plan(model, budget="latency=0.1", image_size=(64, 64), latency=table)
    least = str(caught.value).partition("possible is latency=")[2].split()[0]
    made = plan(model, budget=f"latency={least}", image_size=(64, 64), latency=table)
    assert float(least) - 1.1e-4 < table.predict(made.network) <= float(least)
