"""Budgets of a plan: how they are written, and which channels go until a network fits one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.cost import network_cost
from octrim.network.rows import Network
from octrim.pruning.fractions import parse_fraction
from octrim.pruning.labels import ChannelLabels
from octrim.pruning.variants import Counted, KeptChannels

MEASURES = {"channels": "channels", "params": "parameters", "macs": "macs"}
"""Budgets that are counted in the table alone, and the attribute of `Cost` that each is about."""

LATENCY = "latency"
"""The budget in milliseconds."""

_Costs = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Function from the channels of convolutions, int `[networks]` each, to what these networks cost, `[networks]`."""


class UnmetBudgetError(InputError):
    """A budget that cannot be met; its text says what the least is.

    excess: what the least possible network costs more than the budget allows, in channels, parameters, MACs or milliseconds.
    """

    def __init__(self, text: str, excess: float) -> None:
        super().__init__(text)
        self.excess = excess


EVEN = 8
"""Number that counts of channels are multiples of where nothing says what a machine's kernels want."""

FINE = 4
"""The same where the variance of feature maps says how many channels each group keeps: the early layers that it makes thin have 16 and 32."""


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

    def higher(self, count: int, align: int) -> int:
        """The next multiple of `align` above `count` channels, or `most`, where that is less."""
        return min((count // align + 1) * align, self.most)


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

    def counts(self, choices: Sequence[Choice], align: int, labels: ChannelLabels, network: Network) -> list[int]:
        """How many channels every group of `network` keeps.

        Raises InputError for a budget that is not understood, or cannot be met, saying what the least is.
        """
        kept = KeptChannels(network, labels, [choice.labels for choice in choices])
        what, value = parsed_budget(self.text)
        limit: float | Fraction
        limit, costs = self._in_time(value, network) if what == LATENCY else self._counted(what, value, network)
        bound = math.floor(limit) if isinstance(limit, Fraction) else limit  # what is counted is whole

        def costs_of(counts: np.ndarray) -> np.ndarray:
            return costs(kept.of(counts))

        wide = _wide_enough_for_detect(choices, align, labels, network)
        if float(costs_of(cheapest_counts(wide, align, costs_of, bound)[None])[0]) <= bound:
            return counts_within(wide, align, costs_of, bound)
        cheapest = cheapest_counts(choices, align, costs_of, bound)
        least = float(costs_of(cheapest[None])[0])
        if least > limit:
            raise UnmetBudgetError(
                f"budget {self.text} cannot be met: the least possible is {self._told(what, least)}", float(Fraction(least) - limit)
            )
        return counts_within(choices, align, costs_of, bound)

    def _counted(self, what: str, value: str, network: Network) -> tuple[Fraction, _Costs]:
        """The limit of a budget that is counted in the table alone, and what networks cost in its unit."""
        measure = MEASURES[what]
        limit = parse_fraction(value, f"budget {what}") * getattr(network_cost(self.original, self.height, self.width), measure)
        counted = Counted(network, self.height, self.width)
        return limit, lambda channels: counted.costs(measure, channels)

    def _in_time(self, value: str, network: Network) -> tuple[float, _Costs]:
        """The limit of a budget of milliseconds, and what networks take."""
        latency = self.latency
        if latency is None:
            raise InputError("a budget of latency needs to know times: give a latency table (octrim bench --latency-table FILE makes one)")
        return latency.limit(value, self.original), lambda channels: latency.variants(network, channels)

    def _told(self, what: str, least: float) -> str:
        """The least possible cost as a budget that can be met, which is why it is rounded up."""
        if what == LATENCY:
            return f"latency={_rounded_up(Fraction(least))} (milliseconds)"
        measure = MEASURES[what]
        total = getattr(network_cost(self.original, self.height, self.width), measure)
        return f"{what}={_rounded_up(Fraction(least) / total)} ({least:,.0f} {measure})"


def _rounded_up(value: Fraction) -> str:
    """A number as text with at most four decimals, all digits before them, and not less than the number."""
    whole, rest = divmod(math.ceil(value * 10_000), 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


_DETECT = 16
"""Channels that a map which Detect reads keeps where the budget allows it."""


def _wide_enough_for_detect(choices: Sequence[Choice], align: int, labels: ChannelLabels, network: Network) -> list[Choice]:
    """The choices, those of the maps that Detect reads with at least _DETECT channels.

    Detect's outputs are linear in a map's channels, so with few of them boxes and classes cannot vary on their own, whatever the layers before
    have found. Of the variance of a YOLOv5n's logits 4 dimensions hold 86 to 97 %, 8 hold 95 to 99 %, 16 hold more than 99 %.
    """
    rows = {row.name: row for row in network.rows}
    read = np.concatenate([labels.labels[name] for head in network.heads for name in rows[head].inputs])
    least = -(-_DETECT // align) * align
    return [replace(choice, least=min(max(choice.least, least), choice.most)) if np.isin(choice.labels, read).any() else choice for choice in choices]


_AHEAD = 3
"""Steps of one group that are looked at together: with kernels of blocks of 16 channels, one step of 8 alone may save nothing."""

_STEPS = 32
"""Most steps from all channels of a group to the fewest."""


_UNEVEN = 8
"""Next counts of a group that may cost less than one channel less does: runtimes have extra work where counts are no multiple of 8."""


def cheapest_counts(choices: Sequence[Choice], align: int, costs: Callable[[np.ndarray], np.ndarray], enough: float) -> np.ndarray:
    """Counts that cost least: the least of every group, or a few channels more of some where these cost less, as counts that are no multiple of 8 do
    in some runtimes; int `[groups]`. Groups are changed one by one, as long as the cost is above `enough` and falls."""
    counts = np.array([choice.least for choice in choices])
    now = float(costs(counts[None])[0])
    while now > enough:
        moves = []
        for index, choice in enumerate(choices):
            count = int(counts[index])
            for _ in range(_UNEVEN):
                if count < choice.most:
                    count = choice.higher(count, align)
                    moves.append((index, count))
        if not moves:
            break
        after = costs(_moved(counts, moves))
        best = int(np.argmin(after))
        if after[best] >= now:
            break
        counts[moves[best][0]], now = moves[best][1], float(after[best])
    return counts


def counts_within(choices: Sequence[Choice], align: int, costs: Callable[[np.ndarray], np.ndarray], limit: float) -> list[int]:
    """How many channels every group keeps so that the cost is at or below the limit, and no group's last step back would leave it there.

    What goes next are the steps of one group that take least for what they save, which is looked up anew after each, because what a convolution
    costs depends on the channels that it reads, too. What is kept small is the sum of `thinness` over all groups.

    costs: what networks with these counts cost, int `[networks, groups]` to `[networks]`, in the unit of the limit. Those that
    `cheapest_counts` finds are within the limit.
    """
    strides = [align * max(1, (choice.most - choice.least) // (align * _STEPS)) for choice in choices]
    thin = [thinness(choice.scores) for choice in choices]
    counts = np.array([choice.most for choice in choices])
    now = float(costs(counts[None])[0])
    while now > limit:
        moves = _moves(choices, strides, counts)
        if not moves:  # the least counts are not the cheapest
            counts = cheapest_counts(choices, align, costs, limit)
            break
        lost = np.array([thin[index][lower - 1] - thin[index][counts[index] - 1] for index, lower in moves])
        saved = np.maximum(now - costs(_moved(counts, moves)), 1e-9 * now)  # what saves nothing comes last
        index, lower = moves[int(np.argmin(np.maximum(lost, 1e-9) / saved))]
        counts[index] = lower
        now = float(costs(counts[None])[0])
    return _restored(choices, align, counts, costs, limit, thin)


def thinness(scores: np.ndarray) -> np.ndarray:
    """How thin a group is with its first channel, its first two, .., float64 `[channels]`: the inverse of the share of its importance that it keeps.

    An error that comes of averaging over channels falls with the inverse of their number. Shares of the group's own importance mean that no group is
    emptied because others have larger scores. scores: of the group's channels, falling; those below 0 count as 0. Without any all count alike.
    """
    kept = np.cumsum(np.maximum(scores, 0))
    if kept[-1] == 0:
        kept = np.arange(1.0, len(scores) + 1)
    return kept[-1] / kept


def _moves(choices: Sequence[Choice], strides: Sequence[int], counts: np.ndarray) -> list[tuple[int, int]]:
    """(group, channels afterwards) of one to _AHEAD steps of every group, and of half of its channels.

    Half of them, because kernels of blocks may make each of the next steps dearer: where counts that are no multiple of 8 cost more, a group of 64
    saves nothing by any count down to 57.
    """
    found = []
    for index, choice in enumerate(choices):
        count = int(counts[index])
        half = choice.lower(count // 2 + 1, strides[index])
        for _ in range(_AHEAD):
            if count > choice.least:
                count = choice.lower(count, strides[index])
                found.append((index, count))
        if half < count:
            found.append((index, half))
    return found


def _moved(counts: np.ndarray, moves: Sequence[tuple[int, int]]) -> np.ndarray:
    """Counts after each of the moves, int `[moves, groups]`."""
    after = np.repeat(counts[None], len(moves), 0)
    for line, (index, count) in zip(after, moves, strict=True):
        line[index] = count
    return after


def _restored(
    choices: Sequence[Choice], align: int, counts: np.ndarray, costs: Callable[[np.ndarray], np.ndarray], limit: float, thin: Sequence[np.ndarray]
) -> list[int]:
    """Counts with steps back that still fit, those that bring most for their cost first, until none fits."""
    while True:
        short = [index for index, choice in enumerate(choices) if counts[index] < choice.most]
        moves = [(index, choices[index].higher(int(counts[index]), align)) for index in short]
        if not moves:
            break
        after, now = costs(_moved(counts, moves)), float(costs(counts[None])[0])
        gains = [thin[index][counts[index] - 1] - thin[index][higher - 1] for index, higher in moves]
        worth = [gain / max(cost - now, 1e-12) if cost <= limit else -1.0 for gain, cost in zip(gains, after, strict=True)]
        best = int(np.argmax(worth))
        if worth[best] < 0:
            break
        counts[moves[best][0]] = moves[best][1]
    return counts.tolist()
