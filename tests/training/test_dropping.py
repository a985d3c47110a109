"""Choice of blocks and levels: strain by hand, and a search that is compared with one that tries everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.dropping import droppable, rows_to_drop, without
from octrim.network.rows import Network
from octrim.pruning.budget import UnmetBudgetError
from octrim.pruning.plan import Plan, PlannedGroup
from octrim.training.dropping import Budgeted, _Search, cost_in, ranking, strain
from octrim.training.sensitivity import Measuring
from tests.network.test_dropping import CHAIN
from tests.networks import lively_model
from tests.training.known_losses import KnownLosses


def group(removed: float) -> PlannedGroup:
    return PlannedGroup("a", ("a",), 8, 4, removed, 0, 0, None)


def made(*removed: float) -> Plan:
    cost = network_cost(CHAIN, 64)
    return Plan(tuple(group(one) for one in removed), {}, CHAIN, cost, cost, 0.0, {})


def test_strain_by_hand() -> None:
    """A half is one halving, three quarters are two; a group that keeps everything counts nothing."""
    assert strain(made()) == 0
    assert strain(made(0.5, 0.75, 0.0)) == pytest.approx(3)
    assert strain(made(1.0)) < 31  # channels always stay; scores of zero must not make it infinite


def search(accuracy: float, cuts: Sequence[tuple[float, float]]) -> _Search:
    nothing = cast(Any, None)
    found = _Search(nothing, nothing, (64, 64), nothing, [], lambda _: None, cuts=list(cuts))
    found.accuracy = accuracy
    return found


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (0.9, 0.0),  # better than the whole network
        (0.8, 0.0),
        (0.7, 1.0),  # half-way to the first cut
        (0.6, 2.0),
        (0.55, 3.0),  # between two cuts; the one between them, which measured better than an earlier one, does not count
        (0.5, 4.0),
        (0.45, 4.0 * 0.35 / 0.3),  # beyond the last cut in proportion
        (0.39, math.inf),  # more than half is lost
        (0.0, math.inf),
    ],
)
def test_strain_of_an_accuracy_by_hand(accuracy: float, expected: float) -> None:
    assert search(0.8, [(4.0, 0.5), (2.0, 0.6), (3.0, 0.65)])._strain_of(accuracy) == pytest.approx(expected)


def test_channels_that_can_go_for_nothing_go_first() -> None:
    assert search(0.8, [(4.0, 0.8), (8.0, 0.85)])._strain_of(0.79) == math.inf
    assert search(0.8, [(4.0, 0.8), (8.0, 0.85)])._strain_of(0.8) == 0


def run(
    losses: dict[str, float],
    strains: Callable[[Network], float],
    network: Network = CHAIN,
    excess: Callable[[Network], float] = lambda network: float(len(network.rows)),
    **given: Any,
) -> _Search:
    """A search in which rows cost `losses`, and the plan of what is left has the strain that `strains` says, or is too large by `excess`."""
    model = replace(lively_model(network), image_size=64)

    def planned(drop: Sequence[str], levels: Sequence[int]) -> Plan:
        left = without(network, rows_to_drop(network, drop, levels))
        wanted = strains(left)
        if math.isinf(wanted):
            raise UnmetBudgetError("budget: cannot be met", excess(left))
        return made(*[0.5] * int(wanted), 1 - 2 ** -(wanted - int(wanted)))

    budgeted = Budgeted(planned, "rows", lambda one: float(len(one.rows)))
    found = _Search(model, cast(Measuring, KnownLosses(model, losses)), (64, 64), budgeted, list(droppable(network)), lambda _: None, **given)
    found.run()
    return found


def test_what_goes_by_hand() -> None:
    """The plan's strain is a quarter of the square of the rows' number; the block costs hardly anything, the level of stride 2 too much, and
    that of stride 4 more than it brings."""
    found = run({"b.two": 0.01, "level4": 0.35, "level2": 0.45}, lambda network: len(network.rows) ** 2 / 4)
    assert [candidate.name for candidate in found.chosen] == ["b"]
    assert (found.drop, found.levels, found.first) == (("b",), (), 121 / 4)
    chosen = found.chosen[0]
    assert (chosen.rows, chosen.saved, chosen.accuracy) == (3, 3, pytest.approx(0.79))
    assert chosen.strain == pytest.approx(64 / 4 + found._strain_of(0.79))
    assert set(found.tried) == {"level 2", "level 4"}
    assert found.tried["level 4"].rows == 1


def test_a_level_that_nobody_misses_goes() -> None:
    found = run({"b.two": 0.5}, lambda network: len(network.rows) * 4.0)
    assert (found.drop, found.levels) == ((), (4,))  # without the level of stride 2, three rows go; without that of stride 4 one
    assert found.tried["b"].strain == math.inf
    assert "level 4" not in found.tried or found.tried["level 4"].strain > 0  # the last level always stays


def test_a_level_that_is_missed_stays_unless_the_budget_needs_it_gone() -> None:
    """A block may cost half of the mAP50-95 of .8 where the plan gains enough, a level a tenth."""

    def strains(network: Network) -> float:
        return len(network.rows) * 400.0

    assert [one.name for one in run({"level2": 0.079, "level4": 0.5, "b.two": 0.5}, strains).chosen] == ["level 2"]
    found = run({"level2": 0.081, "level4": 0.5, "b.two": 0.3}, strains)
    assert [one.name for one in found.chosen] == ["b"]
    assert found.tried["level 2"].strain == math.inf
    assert run({"level2": 0.081, "level4": 0.5, "b.two": 0.5}, **met_below(8)).chosen[0].name == "level 2"


def test_nothing_goes_for_little() -> None:
    """A drop that lowers the strain by less than a twentieth is left alone; so is what would raise it."""
    assert run({}, lambda network: 100.0 + len(network.rows) / 10).chosen == []
    assert run({}, lambda network: 100.0 - len(network.rows)).chosen == []


def test_a_budget_that_only_fewer_rows_can_meet() -> None:
    found = run({"b.two": 0.3, "level2": 0.01}, lambda network: math.inf if len(network.rows) > 8 else 10.0)
    assert found.first == math.inf
    assert found.chosen[0].name == "level 2"
    with pytest.raises(UnmetBudgetError, match="budget: cannot be met, with all blocks and levels dropped that may go"):
        run({}, lambda _: math.inf)


def met_below(rows: int) -> dict[str, Any]:
    """Arguments of `run` for a budget that a network of so many rows meets, and no larger one."""
    return {
        "strains": lambda network: math.inf if len(network.rows) > rows else 4.0 * len(network.rows),
        "excess": lambda network: float(len(network.rows) - rows),
    }


def test_what_has_to_go_goes_for_the_least_loss_for_each_row() -> None:
    """CHAIN has 11 rows: the block b has 3 that lose .06, the level of stride 2 has 3 that lose .09, and that of stride 4 has 1 that loses .01."""
    losses = {"b.two": 0.06, "level2": 0.09, "level4": 0.01}
    found = run(losses, **met_below(10))  # each is enough: that of the least strain goes, as where nothing has to
    assert (found.chosen[0].name, found.chosen[0].strain) == ("b", pytest.approx(4 * 8 + found._strain_of(0.74)))
    found = run(losses, **met_below(7))
    assert [one.name for one in found.chosen] == ["level 4", "b"]
    assert (found.chosen[0].strain, found.first) == (math.inf, math.inf)
    assert found.chosen[1].strain == pytest.approx(4 * 7 + found._strain_of(0.73))
    # Without the level of stride 4 no network would be small enough: it is kept though it would be the cheapest.
    found = run(losses, **met_below(5))
    assert {one.name for one in found.chosen} == {"b", "level 2"}


def test_what_has_to_go_goes_even_where_it_breaks_the_network() -> None:
    found = run({"b.two": 0.5, "level2": 0.7, "level4": 0.7}, **met_below(8))
    assert [one.name for one in found.chosen] == ["b"]
    assert found.chosen[0].strain == math.inf
    found = run({"b.two": 0.5, "level2": 0.7, "level4": 0.7}, **met_below(5))
    assert {one.name for one in found.chosen} == {"b", "level 2"}


def test_a_network_that_finds_nothing_drops_what_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownLosses, "of", lambda *_: 0.0)
    monkeypatch.setattr(KnownLosses, "without", None)
    assert run({}, lambda _: 5.0).chosen == []
    found = run({}, **met_below(8))
    assert len(found.chosen) == 1  # one with three rows is enough
    assert found.chosen[0].rows == 3


def test_what_only_helps_together_goes_together() -> None:
    """Neither the block nor the level of stride 2 alone brings the budget nearer."""

    def strains(network: Network) -> float:
        return 5.0 if len(network.rows) <= 5 else math.inf

    found = run({"b.two": 0.1}, strains, excess=lambda _: 3.0)
    assert {one.name for one in found.chosen} == {"b", "level 2"}
    assert (found.drop, found.levels) == (("b",), (4,))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_budgets_that_have_to_drop_are_met_where_any_choice_meets_them(data: st.DataObject) -> None:
    """Compared with all choices of blocks and levels in turn."""
    names = [name for name in droppable(CHAIN) if not name.startswith("level ")]
    worth = {row.name: data.draw(st.sampled_from([0.0, 1.0, 2.0, 5.0])) for row in CHAIN.rows}
    losses = {row.name: data.draw(st.sampled_from([0.0, 0.02, 0.1, 0.3])) for row in CHAIN.rows}
    limit = data.draw(st.sampled_from([0.0, 2.0, 5.0, 9.0, 14.0]))

    def cost(network: Network) -> float:
        return sum(worth[row.name] for row in network.rows if row.op == "conv")

    def strains(network: Network) -> float:
        return 20 + cost(network) if cost(network) <= limit else math.inf

    choices = [(some, strides) for count in range(len(names) + 1) for some in combinations(names, count) for strides in ((), (2,), (4,))]
    least = min(cost(without(CHAIN, rows_to_drop(CHAIN, some, strides))) for some, strides in choices)
    try:
        found = run(losses, strains, excess=lambda network: cost(network) - limit)
    except UnmetBudgetError as error:
        assert least > limit
        assert error.excess == pytest.approx(least - limit)
        return
    assert least <= limit
    assert cost(without(CHAIN, rows_to_drop(CHAIN, found.drop, found.levels))) <= limit


def test_options_that_make_no_sense_are_told() -> None:
    with pytest.raises(InputError, match="drop: 'z' matches no row"):
        run({}, lambda _: 1.0, drop=("z",))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_as_a_search_that_tries_everything_in_every_round(data: st.DataObject) -> None:
    """The search looks only at what may still be best; where strain and losses add up over rows, that is never another choice."""
    names = [row.name for row in CHAIN.rows]
    losses = {name: data.draw(st.sampled_from([0.0, 0.005, 0.02, 0.1])) for name in names}
    worth = {name: data.draw(st.sampled_from([0.5, 1.0, 3.0, 7.0])) for name in names}

    def strains(network: Network) -> float:
        return 5.0 + sum(worth[row.name] for row in network.rows)

    found = run(losses, strains)
    drop: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    now = strains(CHAIN)
    for candidate in [*found.chosen, None]:
        options: dict[str, float] = {}
        probe = search(0.8, found.cuts)
        probe.model, probe.drop, probe.levels = lively_model(CHAIN), drop, levels
        for name in droppable(CHAIN):
            some, strides = probe._with(name)
            if name.startswith("level ") and not strides:
                continue
            gone = rows_to_drop(CHAIN, some, strides)
            if gone == rows_to_drop(CHAIN, drop, levels):
                continue
            before, after = (KnownLosses(lively_model(CHAIN), losses).without(rows) for rows in (rows_to_drop(CHAIN, drop, levels), gone))
            missed = name.startswith("level ") and before - after > 0.1 * 0.8
            options[name] = math.inf if missed else strains(without(CHAIN, gone)) + found._strain_of(after)
        best = min(options.values(), default=math.inf)
        if candidate is None:
            assert best >= 0.95 * now - 1e-9
            break
        assert options[candidate.name] == pytest.approx(best)
        assert candidate.strain == pytest.approx(best)
        (drop, levels), now = probe._with(candidate.name), best
    assert (drop, levels) == (found.drop, found.levels)
    strain_by_turn = [found.first, *(candidate.strain for candidate in found.chosen)]
    assert all(after < 0.95 * before for before, after in pairwise(strain_by_turn))


def test_costs_in_the_units_of_budgets() -> None:
    cost = network_cost(CHAIN, 64)
    for budget, unit, expected in [
        ("macs=1/2", "M MACs", cost.macs / 1e6),
        ("params=1/2", "k parameters", cost.parameters / 1e3),
        ("channels=1/2", "channels", cost.channels),
    ]:
        found = cost_in(budget, (64, 64), None)
        assert (found[0], found[1](CHAIN)) == (unit, pytest.approx(expected))


def test_ranking_needs_batch_norm() -> None:
    assert ranking(lively_model(CHAIN)) == "signal"
    rows = tuple(replace(row, norm=False, bias=True) if row.name == "c" else row for row in CHAIN.rows)
    assert ranking(lively_model(Network(rows, CHAIN.anchors))) == "l2"
