"""Budgets that no cut of channels meets: what has to be dropped for them, and the least that is possible when everything goes that may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from octrim.errors import InputError
from octrim.network.dropping import LEVEL, droppable
from octrim.network.rows import Network
from octrim.pruning.budget import UnmetBudgetError
from octrim.pruning.plan import Plan

PlanWithout = Callable[[Sequence[str], Sequence[int]], Plan]
"""Function from patterns of rows that are dropped, and strides of the detection levels that stay (all where there are none), to the plan that meets a
budget then; it raises UnmetBudgetError where nothing meets it."""


def names_that_may_go(network: Network, blocks: bool, levels: bool) -> list[str]:
    """Names of what can be dropped from a network, in the table's order. blocks, levels: whether blocks, and whether levels, are among them."""
    return [name for name in droppable(network) if (levels if name.startswith(LEVEL) else blocks)]


def dropped_for_budget(
    network: Network, names: Sequence[str], make: PlanWithout, drop: Sequence[str] = (), levels: Sequence[int] = ()
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Patterns of rows to drop, and strides of levels that stay, with which a plan meets its budget: those given where they are enough, or else with
    all blocks and all levels but one dropped, too, or as many of them as can go together.

    network: what the plans are of. names: blocks and levels that may go, as `names_that_may_go` gives them. drop: patterns of rows that go in any
    case. levels: strides of the only levels that may stay.
    Raises UnmetBudgetError where nothing is enough, saying the least that is possible then, and InputError as `make` does for what is given.
    """
    try:
        make(drop, levels)
    except UnmetBudgetError as error:
        least = error
    else:
        return tuple(drop), tuple(levels)
    blocks = [name for name in names if not name.startswith(LEVEL)]
    seen: list[set[int]] = []
    for strides in _choices_of_levels(network, names, levels):
        if any(fewer <= set(strides) for fewer in seen):
            continue  # more levels only cost more
        found = _with_all(network, blocks, make, drop, strides)
        if isinstance(found, tuple):
            return found, strides
        if found is not None:
            seen.append(set(strides))
            least = min(least, found, key=lambda error: error.excess)
    if not names:
        raise least
    kinds = ["blocks"] * bool(blocks) + ["levels"] * (len(blocks) < len(names))
    raise UnmetBudgetError(f"{least}, with all {' and '.join(kinds)} dropped that may go", least.excess)


def _choices_of_levels(network: Network, names: Sequence[str], levels: Sequence[int]) -> list[tuple[int, ...]]:
    """Strides of levels that could stay, the fewest first; only those given where none may go."""
    if not any(name.startswith(LEVEL) for name in names):
        return [tuple(levels)]
    there = tuple(levels) or network.strides
    return [strides for count in range(1, len(there) + 1) for strides in combinations(there, count)]


def _with_all(
    network: Network, blocks: Sequence[str], make: PlanWithout, drop: Sequence[str], strides: tuple[int, ...]
) -> tuple[str, ...] | UnmetBudgetError | None:
    """Patterns of rows with which the budget is met, `drop` and as many of the blocks as can go together; how it is missed, where it is; None where
    the levels alone cannot go."""
    try:
        make((*drop, *blocks), strides)
    except UnmetBudgetError as error:
        return error
    except InputError:  # not all together, such as where one has a convolution that --exclude names
        return _with_many(network, blocks, make, drop, strides)
    return (*drop, *blocks)


def _with_many(
    network: Network, blocks: Sequence[str], make: PlanWithout, drop: Sequence[str], strides: tuple[int, ...]
) -> tuple[str, ...] | UnmetBudgetError | None:
    """What `_with_all` gives, with one block after the other, the largest first; those that cannot go beside the others stay."""
    rows = droppable(network)
    taken = tuple(drop)
    missed: UnmetBudgetError | None = None
    for name in ("", *sorted(blocks, key=lambda name: -len(rows[name]))):
        more = (*taken, name) if name else taken
        try:
            make(more, strides)
        except UnmetBudgetError as error:
            taken, missed = more, error
        except InputError:
            continue
        else:
            return more
    return missed
