"""Budgets of a plan: how they are written, and which channels go until a network fits one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.cost import network_cost
from octrim.network.rows import Network
from octrim.pruning.fractions import parse_fraction
from octrim.pruning.labels import ChannelLabels

MEASURES = {"channels": "channels", "params": "parameters", "macs": "macs"}
"""Budgets that are counted in the table alone, and the attribute of `Cost` that each is about."""

LATENCY = "latency"
"""The budget in milliseconds."""


class UnmetBudgetError(InputError):
    """A budget that cannot be met; its text says what the least is.

    excess: what the least possible network costs more than the budget allows, in channels, parameters, MACs or milliseconds.
    """

    def __init__(self, text: str, excess: float) -> None:
        super().__init__(text)
        self.excess = excess


EVEN = 8
"""Number that counts of channels are multiples of where nothing says what a machine's kernels want."""


class Latency(Protocol):
    """Prediction of a network's time, as `octrim.latency.table.LatencyTable` makes it."""

    @property
    def align(self) -> int:
        """Number that counts of channels should be multiples of."""
        ...

    def predict(self, network: Network) -> float:
        """Milliseconds of one picture."""
        ...

    def variants(self, network: Network, channels: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Milliseconds of networks that differ from `network` in their channels: for every convolution int `[networks]`."""
        ...

    def require_size(self, height: int, width: int) -> None:
        """Raise InputError where times are those of another picture size."""
        ...

    def limit(self, value: str, whole: Network) -> float:
        """Milliseconds that a budget allows, given as in `latency=2` or `latency=1/6`."""
        ...


@dataclass(frozen=True, eq=False)
class Choice:
    """A group of channels as a budget sees it. labels, scores: of its channels, by falling score. most, least: channels that it may keep."""

    labels: np.ndarray
    scores: np.ndarray
    most: int
    least: int

    def lower(self, count: int, align: int) -> int:
        """The next multiple of `align` below `count` channels, or `least`, where that is more."""
        return max((count - 1) // align * align, self.least)

    def steps(self, align: int) -> list[tuple[int, int]]:
        """(channels before, channels after) of every step from `most` down to `least`."""
        found, count = [], self.most
        while count > self.least:
            found.append((count, self.lower(count, align)))
            count = found[-1][1]
        return found


def parsed_budget(budget: str) -> tuple[str, str]:
    """What a budget limits and the value, as text. Raises InputError for an unknown one."""
    what, _, value = budget.partition("=")
    if what not in (*MEASURES, LATENCY):
        raise InputError(f"budget is {shown(budget)}, expected {', '.join(f'{name}=FRACTION' for name in MEASURES)} or {LATENCY}=MILLISECONDS")
    if what == LATENCY:
        latency_value(value)
    else:
        parse_fraction(value, f"budget {what}")
    return what, value


def latency_value(value: str) -> float | Fraction:
    """Milliseconds as a float, from `2`, `0.8` or `2ms`; a fraction of the whole network's time as a Fraction, from `1/6`.

    Raises InputError for anything else, and for 0 and less.
    """
    text = value.strip()
    if re.fullmatch(r"-?[0-9]{1,9}/[0-9]{1,9}", text):
        return parse_fraction(text, "budget latency")
    number = re.fullmatch(r"(-?[0-9]{1,9}(?:\.[0-9]{0,20})?|-?\.[0-9]{1,20})(?: ?ms)?", text)
    if number is None:
        raise InputError(f"budget latency is {shown(value)}, expected milliseconds such as 2 or 0.8, or a fraction of the whole's such as 1/6")
    if float(number[1]) <= 0:
        raise InputError(f"budget latency is {text}, expected more than 0 milliseconds")
    return float(number[1])


@dataclass(frozen=True, eq=False)
class Budget:
    """A budget of a plan. text: as it was given. original: the network that it is of, for pictures of height x width pixels."""

    text: str
    original: Network
    height: int
    width: int
    latency: Latency | None

    def counts(
        self, choices: Sequence[Choice], align: int, labels: ChannelLabels, network: Network, cut: Callable[[Sequence[int]], Network]
    ) -> list[int]:
        """How many channels every group of `network` keeps. cut: the network with these counts.

        Raises InputError for a budget that is not understood, or cannot be met, saying what the least is.
        """
        what, value = parsed_budget(self.text)
        if what == LATENCY:
            return self._counts_in_time(value, choices, align, labels, network, cut)
        measure = MEASURES[what]
        total = getattr(network_cost(self.original, self.height, self.width), measure)
        limit = parse_fraction(value, f"budget {what}") * total

        def value_of(counts: Sequence[int]) -> int:
            return getattr(network_cost(cut(counts), self.height, self.width), measure)

        if (reached := value_of([choice.least for choice in choices])) > limit:
            share = math.ceil(reached / total * 1e4) / 1e4  # rounded up, so that as a budget it can be met
            text = f"budget {self.text} cannot be met: the least possible is {what}={share:g} ({reached:,} {measure})"
            raise UnmetBudgetError(text, float(reached - limit))
        return counts_by_score(choices, align, lambda counts: value_of(counts) <= limit)

    def _counts_in_time(
        self, value: str, choices: Sequence[Choice], align: int, labels: ChannelLabels, network: Network, cut: Callable[[Sequence[int]], Network]
    ) -> list[int]:
        latency = self.latency
        if latency is None:
            raise InputError("a budget of latency needs to know times: give a latency table (octrim bench --latency-table FILE makes one)")
        limit = latency.limit(value, self.original)
        if (reached := latency.predict(cut([choice.least for choice in choices]))) > limit:
            text = f"budget {self.text} cannot be met: the least possible is latency={math.ceil(reached * 1e4) / 1e4:g} (milliseconds)"
            raise UnmetBudgetError(text, reached - limit)
        shares = _shares(choices, labels, network)

        def times(counts: np.ndarray) -> np.ndarray:
            channels = np.rint(counts @ shares.T).astype(np.int64)
            return latency.variants(network, {row.name: channels[:, index] for index, row in enumerate(network.convs)})

        return counts_by_time(choices, align, times, limit)


def _shares(choices: Sequence[Choice], labels: ChannelLabels, network: Network) -> np.ndarray:
    """Channels of every convolution per channel of every group, float64 `[convolutions, groups]`."""
    group_of = np.full(labels.count, len(choices))
    for index, choice in enumerate(choices):
        group_of[choice.labels] = index
    sizes = np.array([len(choice.labels) for choice in choices])
    return np.stack([np.bincount(group_of[labels.labels[row.name]], minlength=len(choices) + 1)[:-1] / sizes for row in network.convs])


def counts_by_score(choices: Sequence[Choice], align: int, fits: Callable[[Sequence[int]], bool]) -> list[int]:
    """How many channels every group keeps: steps go in the order of their mean score until the network fits; the last one back, and it would not.

    fits: whether the network with these counts is within the budget, which it is with the least counts.
    """
    steps: list[tuple[float, int, int]] = []  # mean score of what goes, group, count afterwards
    for index, choice in enumerate(choices):
        steps += [(float(choice.scores[lower:count].mean()), index, lower) for count, lower in choice.steps(align)]
    # Scores fall along a group, so its steps are in order; on ties the stable sort keeps them so.
    steps.sort(key=lambda step: step[0])

    def counts_after(taken: int) -> list[int]:
        counts = [choice.most for choice in choices]
        for _, index, lower in steps[:taken]:
            counts[index] = min(counts[index], lower)
        return counts

    low, high = 0, len(steps)  # the fewest steps after which it fits
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(counts_after(middle)) else (middle + 1, high)
    return counts_after(low)


_AHEAD = 3
"""Steps of one group that are looked at together: with kernels of blocks of 16 channels, one step of 8 alone may save nothing."""

_STEPS = 32
"""Most steps from all channels of a group to the fewest."""


def counts_by_time(choices: Sequence[Choice], align: int, times: Callable[[np.ndarray], np.ndarray], limit: float) -> list[int]:
    """How many channels every group keeps so that the time is at or below the limit, and no group's last step back would leave it there.

    What goes next are the steps of one group that cost least for the time that they save, which is looked up anew after each, because a convolution's
    time depends on the channels that it reads, too. A step costs the share that it takes of the importance that its group still has (the sum of
    logarithms is what falls slowest): so no group is emptied because others have larger scores.

    times: milliseconds of networks with these counts, int `[networks, groups]` to float64 `[networks]`. Those with the least counts are within
    the limit.
    """
    strides = [align * max(1, (choice.most - choice.least) // (align * _STEPS)) for choice in choices]
    left = [np.log(np.maximum(np.cumsum(np.maximum(choice.scores, 0)), _TINY)) for choice in choices]
    counts = np.array([choice.most for choice in choices])
    now = float(times(counts[None])[0])
    while now > limit:
        moves = _moves(choices, strides, counts)
        lost = np.array([left[index][counts[index] - 1] - left[index][lower - 1] for index, lower in moves])
        saved = np.maximum(now - times(_moved(counts, moves)), 1e-9 * now)  # what saves nothing comes last
        index, lower = moves[int(np.argmin(np.maximum(lost, 1e-9) / saved))]
        counts[index] = lower
        now = float(times(counts[None])[0])
    return _restored(choices, align, counts, times, limit, left)


_TINY = 1e-30


def _moves(choices: Sequence[Choice], strides: Sequence[int], counts: np.ndarray) -> list[tuple[int, int]]:
    """(group, channels afterwards) of one to _AHEAD steps of every group."""
    found = []
    for index, choice in enumerate(choices):
        count = int(counts[index])
        for _ in range(_AHEAD):
            if count > choice.least:
                count = choice.lower(count, strides[index])
                found.append((index, count))
    return found


def _moved(counts: np.ndarray, moves: Sequence[tuple[int, int]]) -> np.ndarray:
    """Counts after each of the moves, int `[moves, groups]`."""
    after = np.repeat(counts[None], len(moves), 0)
    for line, (index, count) in zip(after, moves, strict=True):
        line[index] = count
    return after


def _restored(
    choices: Sequence[Choice], align: int, counts: np.ndarray, times: Callable[[np.ndarray], np.ndarray], limit: float, left: Sequence[np.ndarray]
) -> list[int]:
    """Counts with steps back that still fit, those that bring most for their time first, until none fits."""
    while True:
        short = [index for index, choice in enumerate(choices) if counts[index] < choice.most]
        moves = [(index, min((int(counts[index]) // align + 1) * align, choices[index].most)) for index in short]
        if not moves:
            break
        after, now = times(_moved(counts, moves)), float(times(counts[None])[0])
        gains = [left[index][higher - 1] - left[index][counts[index] - 1] for index, higher in moves]
        worth = [gain / max(time - now, 1e-12) if time <= limit else -1.0 for gain, time in zip(gains, after, strict=True)]
        best = int(np.argmax(worth))
        if worth[best] < 0:
            break
        counts[moves[best][0]] = moves[best][1]
    return counts.tolist()
