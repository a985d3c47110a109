"""Chooses the blocks and detection levels that a plan within a budget drops: those that are missed less than the channels that they make room for.

Both are measured by the same thing, the mAP50-95 that the whole network loses on some training pictures, and told in the same unit, strain:

    strain of a plan  = -log2 of the share of its importance that a group of channels keeps, added up over all groups
    strain of a block = strain of the cut of channels that costs the whole network as much mAP50-95 as dropping the block does

What goes next is always the block or level without which the strain is least: that of the plan that then meets the budget, plus that of all that was
dropped. Networks of the budget's size are not measured: before they are trained they find nothing, whatever their shape.

Where cuts of channels alone cannot meet the budget, what has to go for that goes first, whatever it costs: what loses least mAP50-95 for each bit by
which it brings the budget nearer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from rich.console import Console

from octrim.data.dataset import Dataset
from octrim.errors import InputError, shown
from octrim.network.cost import network_cost
from octrim.network.dropping import LEVEL, rows_to_drop, told, without, without_rows
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.progress import progress_bar
from octrim.pruning.budget import LATENCY, MEASURES, Latency, UnmetBudgetError, parsed_budget
from octrim.pruning.dropped_for_budget import PlanWithout, dropped_for_budget, names_that_may_go
from octrim.pruning.labels import channel_labels
from octrim.pruning.options import AUTO, Cutting, Dropping
from octrim.pruning.plan import Plan, plan
from octrim.pruning.repaired import cut_and_repaired
from octrim.training.chosen_rows import Candidate, ChosenRows
from octrim.training.hyper import RECIPES
from octrim.training.labelled import drawn
from octrim.training.sensitivity import Measuring

PICTURES = 48
"""Most training pictures on which networks are measured."""

_SHARES = ("0.95", "0.9", "0.8", "0.65")  # MACs that are left by the cuts of channels with which blocks are compared
_WORTH = 0.05  # share of the strain that a drop must save; less is within the error of the comparison
_MOST_LOST = 0.5  # share of the mAP50-95 from which on losses are not compared any more: what is broken can hardly be broken further
_MOST_LOST_BY_LEVEL = 0.1  # share of the mAP50-95 from which on a level stays: nothing learns the objects that only it found, however long it trains
_BATCH = 8


@dataclass(frozen=True, eq=False)
class Budgeted:
    """What a budget asks of a network.

    plan: the plan that meets the budget. Its channels are ranked by `ranking`. unit, cost: the budget's, and what a network costs in it.
    """

    plan: PlanWithout
    unit: str
    cost: Callable[[Network], float]


def ranking(model: Model) -> str:
    """The criterion by which channels are ranked while rows are chosen: it needs neither gradients nor pictures."""
    heads = model.network.heads
    return "signal" if all(row.norm for row in model.network.convs if row.name not in heads) else "l2"


def strain(made: Plan) -> float:
    """How much a plan takes from groups of channels: -log2 of the share of its importance that each keeps, added up; 1 is half of one group."""
    return float(sum(-math.log2(max(1 - group.removed, 1e-9)) for group in made.groups))


def choose_rows(
    model: Model,
    dataset: Dataset,
    size: tuple[int, int],
    options: Cutting,
    latency: Latency | None,
    make: Callable[[Sequence[str], Sequence[int], str], Plan],
    pictures: int = PICTURES,
    console: Console | None = None,
    report: Callable[[str], None] | None = None,
) -> ChosenRows:
    """Choose what a plan within a budget drops.

    model: the whole network, trained. dataset: training pictures in the network's classes, of which at most `pictures` are used, drawn by the
    options' seed. size: height and width of pictures. options: their budget, whether blocks and levels may go, and the rows that go in any case;
    "the whole network" is then the one without these rows. latency: what predicts times, for a budget of milliseconds.
    make: function from patterns of rows that are dropped, strides of the levels that stay and the criterion by which channels are ranked to the plan
    that meets the budget then. report: called with a line for each unreadable picture.
    Where the network finds nothing on the pictures, nothing is chosen but what the budget cannot be met with. Raises UnmetBudgetError where it
    cannot be met whatever is dropped, and InputError as `make` does, and where no picture can be read.
    """
    drop, levels, criterion = options.patterns, options.strides, ranking(model)
    left = without_rows(model, rows_to_drop(model.network, drop, levels))

    def plan_without(more: Sequence[str], strides: Sequence[int]) -> Plan:
        return make((*drop, *more), strides or levels, criterion)

    budgeted = Budgeted(plan_without, *cost_in(options.budget or "", size, latency))
    names = names_that_may_go(left.network, *options.chooses)
    dropped_for_budget(left.network, names, budgeted.plan)  # a budget out of reach is told before anything is measured
    used = drawn(dataset, pictures, options.seed)
    with progress_bar("blocks and levels", 1 + len(_SHARES) + len(names), console) as bar:
        quiet = report or (lambda _: None)
        measuring = Measuring(left, channel_labels(left.network), used, "map", size, _BATCH, RECIPES["low"], lambda _: None, quiet)
        search = _Search(left, measuring, size, budgeted, names, bar.advance)
        search.run()
    all_dropped, strides = (*drop, *search.drop), search.levels or levels
    gone = rows_to_drop(model.network, all_dropped, strides)
    others = sorted(search.tried.values(), key=lambda candidate: (candidate.strain, candidate.name))
    dropping = told(model.network, gone) if gone else ""
    facts = (all_dropped, strides, dropping, budgeted.unit, len(used), search.accuracy, search.first, tuple(search.cuts))
    return ChosenRows(*facts, (*search.chosen, *others))


def require_choosable(options: Dropping, budget: str | None) -> None:
    """Raise InputError where options ask for a choice of blocks or levels that cannot be made."""
    if len(options.levels) > 1 and AUTO in options.levels:
        raise InputError(f"levels is {shown(options.levels)}: give strides, or auto alone")
    for name, chooses in zip(("drop", "levels"), options.chooses, strict=True):
        if chooses and budget is None:
            raise InputError(f"--{name} auto needs a --budget, for which blocks or levels make room")


def cost_in(budget: str, size: tuple[int, int], latency: Latency | None) -> tuple[str, Callable[[Network], float]]:
    """The unit of a budget, and what a network costs in it. size: height and width of pictures. latency: what predicts milliseconds."""
    what, _ = parsed_budget(budget)
    if what == LATENCY:
        assert latency is not None  # a plan for this budget has one
        return "ms", latency.predict
    units = {"channels": ("channels", 1), "params": ("k parameters", 1e3), "macs": ("M MACs", 1e6)}
    unit, divisor = units[what]
    return unit, lambda network: getattr(network_cost(network, *size), MEASURES[what]) / divisor


@dataclass(eq=False)
class _Search:
    """A search that drops one thing after the other: first what the budget cannot be met with, then more as long as that lowers the strain.

    names: what may go. advance: called with 1 after each measurement. drop, levels: patterns of rows that are dropped, and strides of the levels that
    stay, so far. tried: what was found of each name last. chosen: what goes, in order. cuts: strain of cuts of channels, and mAP50-95 after them.
    accuracy: that of the whole network. first: strain of the plan before anything was chosen. outcomes: what `_outcome` found, by what is dropped.
    """

    model: Model
    measuring: Measuring
    size: tuple[int, int]
    budgeted: Budgeted
    names: list[str]
    advance: Callable[[int], None]
    drop: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    tried: dict[str, Candidate] = field(default_factory=dict)
    chosen: list[Candidate] = field(default_factory=list)
    cuts: list[tuple[float, float]] = field(default_factory=list)
    accuracy: float = 0.0
    first: float = math.inf
    outcomes: dict[tuple[tuple[str, ...], tuple[int, ...]], tuple[float, float]] = field(default_factory=dict)

    def run(self) -> None:
        """Measure cuts of channels; then drop what has to go for the budget, and what lowers the strain most, until nothing does.

        Raises UnmetBudgetError where no choice meets the budget.
        """
        self.accuracy = self.measuring.of(self.model)
        self.advance(1)
        if self.accuracy > 0:
            self._measure_cuts()
        with contextlib.suppress(UnmetBudgetError):
            self.first = strain(self.budgeted.plan(self.drop, self.levels))
        now = self.first if math.isfinite(self.first) else self._meet()
        if self.accuracy > 0 and math.isfinite(now):
            self._improve(now)

    def _meet(self) -> float:
        """Drop things until the plan can meet the budget, and return the strain then: next goes always what loses least mAP50-95 for what it brings.

        Where one thing alone is enough, and leaves a better network than these together, it goes in their place.
        """
        # What each name lost for that when it was looked at last: the least that it can lose now, because losses grow with what is gone already.
        prices = dict.fromkeys(self.names, 0.0)
        before, enough = (self.drop, self.levels), []
        lacking, accuracy = self._outcome(*before)[1], self.accuracy
        while lacking:
            best: tuple[float, float, Candidate] | None = None
            for name in sorted(prices, key=lambda name: prices[name]):
                if best is not None and best[0] < prices[name]:
                    break
                found = self._candidate(name) if self._in_reach(name) else None
                if found is None:
                    del prices[name]
                    continue
                self.tried[name] = found
                brought = lacking - self._outcome(*self._with(name))[1]
                prices[name] = max(accuracy - found.accuracy, 0.0) / brought if brought > 0 else math.inf
                if best is None or (prices[name], -brought) < best[:2]:
                    best = prices[name], -brought, found
                if brought == lacking and not self.chosen:
                    enough.append(found)
            if best is None or best[0] == math.inf:
                self._drop_all()
                break
            self._drop(best[2])
            del prices[best[2].name]
            lacking, accuracy = self._outcome(self.drop, self.levels)[1], best[2].accuracy
        alone = min([*enough, self.chosen[-1]], key=lambda found: (found.strain, -found.accuracy))
        if alone is not self.chosen[-1]:
            self.tried |= {found.name: replace(found, chosen=False) for found in self.chosen} | {alone.name: alone}
            self.drop, self.levels, self.chosen = *before, []
            self._drop(alone)
        return self.chosen[-1].strain

    def _in_reach(self, name: str) -> bool:
        """Whether the budget can still be met, by dropping more if it must be, once a block or level is gone."""
        drop, levels = self._with(name)
        if name.startswith(LEVEL) and not levels:
            return False
        try:
            dropped_for_budget(self.model.network, self.names, self.budgeted.plan, drop, levels)
        except InputError:
            return False
        return True

    def _drop_all(self) -> None:
        """Drop all that can go together, where nothing by itself brings the budget nearer."""
        drop, levels = dropped_for_budget(self.model.network, self.names, self.budgeted.plan, self.drop, self.levels)
        for name in self.names:
            goes = int(name.removeprefix(LEVEL)) not in (levels or self.model.network.strides) if name.startswith(LEVEL) else name in drop
            found = self._candidate(name) if goes else None
            if found is not None:
                self.tried[name] = found
                self._drop(found)

    def _drop(self, found: Candidate) -> None:
        """Drop a candidate that was chosen."""
        self.drop, self.levels = self._with(found.name)
        self.chosen.append(replace(self.tried.pop(found.name), chosen=True))

    def _improve(self, now: float) -> None:
        """Drop what lowers the strain most, until nothing does. now: the strain with what is dropped already."""
        # Most that each name can gain: what it gained when it was looked at last, because losses grow with what is gone already.
        gains = dict.fromkeys(self.names, math.inf)
        while gains:
            best: Candidate | None = None
            for name in sorted(gains, key=lambda name: -gains[name]):
                if best is not None and now - best.strain >= gains[name]:
                    break
                found = self._candidate(name)
                if found is None:
                    del gains[name]
                    continue
                self.tried[name] = found
                gains[name] = now - found.strain if math.isfinite(found.strain) else -math.inf
                if best is None or found.strain < best.strain:
                    best = found
            if best is None or not best.strain < (1 - _WORTH) * now:
                return
            now = best.strain
            self._drop(best)
            del gains[best.name]

    def _measure_cuts(self) -> None:
        """Measure the whole network with some of its channels cut, repaired without pictures."""
        for share in _SHARES:
            made = plan(self.model, align=1, criterion=ranking(self.model), image_size=self.size, budget=f"macs={share}")
            self.cuts.append((strain(made), self.measuring.of(cut_and_repaired(self.model, made, compensate=True))))
            self.advance(1)

    def _candidate(self, name: str) -> Candidate | None:
        """What comes of dropping a block or level, too; None where it cannot go, or is gone already."""
        network = self.model.network
        before = rows_to_drop(network, self.drop, self.levels)
        drop, levels = self._with(name)
        if name.startswith(LEVEL) and not levels:
            return None
        try:
            gone = rows_to_drop(network, drop, levels)
        except InputError:  # not together with what is gone already
            return None
        if len(gone) == len(before):
            return None
        accuracy = self.measuring.without(gone) if self.accuracy > 0 else 0.0
        before_it = self.chosen[-1].accuracy if self.chosen else self.accuracy
        kept = name.startswith(LEVEL) and before_it - accuracy > _MOST_LOST_BY_LEVEL * self.accuracy
        found = math.inf if kept else self._strain_of(accuracy)
        if math.isfinite(found):
            found += self._outcome(drop, levels)[0]
        self.advance(1)
        saved = self.budgeted.cost(without(network, before)) - self.budgeted.cost(without(network, gone))
        return Candidate(name, len(gone) - len(before), saved, accuracy, found)

    def _with(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Patterns of rows that are dropped, and levels that stay, when a block or level goes, too; no level where it was the last."""
        if not name.startswith(LEVEL):
            return (*self.drop, name), self.levels
        stride = int(name.removeprefix(LEVEL))
        return self.drop, tuple(one for one in self.levels or self.model.network.strides if one != stride)

    def _outcome(self, drop: Sequence[str], levels: Sequence[int]) -> tuple[float, float]:
        """Strain of the plan that meets the budget, inf where none does, and what the least possible one then costs more than the budget allows."""
        known = self.outcomes.get((tuple(drop), tuple(levels)))
        if known is None:
            try:
                known = strain(self.budgeted.plan(drop, levels)), 0.0
            except UnmetBudgetError as error:
                known = math.inf, error.excess
            except InputError:  # such as an --exclude that names what is gone
                known = math.inf, math.inf
            self.outcomes[(tuple(drop), tuple(levels))] = known
        return known

    def _strain_of(self, accuracy: float) -> float:
        """Strain of a cut of channels after which the whole network has this mAP50-95, between those that were measured; inf for a half and less."""
        lost = self.accuracy - accuracy
        if lost <= 0:
            return 0.0
        if lost > _MOST_LOST * self.accuracy:
            return math.inf
        strains, losses = [0.0], [0.0]
        for one, kept in sorted(self.cuts):
            if self.accuracy - kept > losses[-1]:  # a deeper cut that loses less is due to chance
                strains.append(one)
                losses.append(self.accuracy - kept)
        if losses[-1] == 0:
            return math.inf  # channels can go for nothing
        if lost > losses[-1]:
            return strains[-1] * lost / losses[-1]
        return float(np.interp(lost, losses, strains))
