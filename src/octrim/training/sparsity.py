"""Sparsity training with a given strength: a step after the optimizer's shrinks the batch-norm scales of coupled channels together, to exact zeros.

The group lasso's proximal operator (Yuan and Lin, 2006; Parikh and Boyd, 2014) on the scales g of one channel's k coupled convolutions:
g *= max(0, 1 - t sqrt(k) / ||g||), with t = learning rate x strength x pictures in this step / 64. A gradient sums over pictures in the same way, so
neither batch size, accumulation, mixed precision nor the number of processes changes the effect of a strength. The learning rate is the schedule's
without warm-up: warm-up is counted in batches, so it would make the effect depend on their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from octrim.backends.paddle import paddle
from octrim.errors import InputError
from octrim.network.cost import tensor_shapes
from octrim.network.rows import Network
from octrim.pruning.fractions import aligned_count, matching_convs
from octrim.pruning.labels import channel_labels
from octrim.training.freezing import frozen
from octrim.training.optimizer import Flat, Weights
from octrim.training.vectors import kind_of

GROWN = 0.5  # share of the training over which a linear or cosine strength grows

BINS = 40
"""Number of bins of the histogram of scales that is kept per epoch; the last bin also counts scales above the range."""


@dataclass(frozen=True)
class Penalty:
    """Settings of the sparsity penalty. strength: a number, or None where there is a target. target: fraction of channels that is dead at the end,
    0..1 exclusive.

    growth: how a strength grows, "constant", "linear" or "cosine". scope: where the target holds, "network" or "group". align: least number of live
    channels in a group; with the scope "group" the number is a multiple of it. exclude: patterns of convolutions whose groups are not penalised.
    """

    strength: float | None
    target: Fraction | None
    growth: str = "constant"
    scope: str = "network"
    align: int = 8
    exclude: tuple[str, ...] = ()


class PenalisedChannels:
    """The channels that a penalty may kill: those of groups that may be cut and where every convolution has batch norm that trains.

    convs: names of the convolutions, in the table's order. places: int `[scales]`, indices of the penalised scales among all scales of these
    convolutions one after the other; not all are penalised, because a convolution may also have channels of a group that is left alone. channel: int
    `[scales]`, the channel of each penalised scale. group: int `[channels]`, the group of each channel. counts: number of channels of each group.
    label: int `[channels]`, the label of each channel in `octrim.pruning.labels.channel_labels`.
    exclude: patterns of convolutions to leave alone. freeze: layers and patterns as of `--freeze`, which are left alone, too.
    Raises InputError when no channel is left.
    """

    def __init__(self, network: Network, exclude: Sequence[str] = (), freeze: Sequence[str] = ()) -> None:
        labels = channel_labels(network)
        excluded = {name for pattern in exclude for name in matching_convs(network, pattern, "exclude")}
        still = set(frozen([name for name in tensor_shapes(network) if kind_of(name) < 3], freeze))
        normed = {row.name for row in network.convs if row.norm and f"{row.name}.bn.weight" not in still}
        groups = [group for group in labels.groups if group.reason is None and normed.issuperset(group.convs) and not excluded & set(group.convs)]
        if not groups:
            raise InputError("no group of channels can be made sparse: all are excluded, frozen, or have no batch norm")
        number = np.full(labels.count, -1)
        for channels in (group.labels for group in groups):
            number[channels] = number.max() + 1 + np.arange(len(channels))
        members = {name for group in groups for name in group.convs}
        self.convs = [row.name for row in network.convs if row.name in members]
        channel = number[np.concatenate([labels.labels[name] for name in self.convs])]
        self.places = np.flatnonzero(channel >= 0)
        self.channel = channel[self.places]
        self.counts = np.asarray([len(group) for group in groups])
        self.group = np.repeat(np.arange(len(groups)), self.counts)
        self.scales = np.bincount(self.channel)  # number of scales of each channel
        self.label = np.argsort(np.where(number >= 0, number, labels.count), kind="stable")[: len(self.group)]

    def places_in(self, parameters: Flat, part: str) -> np.ndarray:
        """Places of the penalised channels' batch-norm scales (part "weight") or shifts (part "bias") in the flat vector, int `[scales]`."""
        places = np.arange(parameters.size)
        return np.concatenate([places[parameters.slices[f"{name}.bn.{part}"]] for name in self.convs])[self.places]

    def norms(self, scales: np.ndarray) -> np.ndarray:
        """Root mean square of every channel's coupled scales, float64 `[channels]`."""
        return np.sqrt(np.bincount(self.channel, weights=scales.astype(np.float64) ** 2) / self.scales)

    def ranks(self, values: np.ndarray) -> np.ndarray:
        """Rank of each channel within its group, 0 for the lowest value; among equal values the earlier channel comes first."""
        order = np.lexsort((np.arange(len(values)), values, self.group))
        ranks = np.empty(len(values), int)
        ranks[order] = np.arange(len(values)) - np.cumsum([0, *self.counts[:-1]])[self.group]
        return ranks

    def dead_counts(self, penalty: Penalty) -> np.ndarray:
        """Number of channels that are dead at the end: per group with the scope "group", else in all. Raises InputError where `align` forbids it."""
        assert penalty.target is not None
        floor = np.minimum(self.counts, penalty.align)
        if penalty.scope == "group":
            return self.counts - [aligned_count(int(count), 1 - penalty.target, penalty.align) for count in self.counts]
        wanted, most = round(penalty.target * len(self.group)), int((self.counts - floor).sum())
        if wanted > most:
            raise InputError(
                f"target {penalty.target} is {wanted} of {len(self.group)} channels; "
                f"with at least {penalty.align} live ones per group at most {most} can die ({most / len(self.group):.3f})"
            )
        return np.asarray([wanted])


class Sparsity:
    """The proximal steps of one training with a given strength, which pulls scales towards zero with the same force throughout, once it has grown."""

    def __init__(self, weights: Weights, penalised: PenalisedChannels, penalty: Penalty, strength: float = 0.0) -> None:
        """Prepare the steps of a training. strength: the strength in its last step so far."""
        self.penalised, self.penalty, self.strength = penalised, penalty, strength
        self.parameters = weights.parameters
        self.places = penalised.places_in(self.parameters, "weight")
        self._index = paddle.to_tensor(self.places)

    def growth(self, share: float) -> float:
        """Factor of the strength, 0..1, when `share` (0..1) of the training is over."""
        grown = min(share / GROWN, 1.0)
        return {"constant": 1.0, "linear": grown, "cosine": (1 - math.cos(math.pi * grown)) / 2}[self.penalty.growth]

    def norms(self) -> np.ndarray:
        """Root mean square of every channel's coupled scales, float64 `[channels]`."""
        return self.penalised.norms(self._scales())

    def _scales(self) -> np.ndarray:
        return paddle.gather(self.parameters.vector, self._index).numpy()

    def dead(self) -> float:
        """Fraction of the penalised channels whose scales are all zero."""
        return float((self.norms() == 0).mean())

    def columns(self) -> dict[str, float]:
        """Columns of results.csv."""
        return {"sparsity/dead": self.dead(), "sparsity/strength": self.strength}

    def notes(self) -> dict[str, Any]:
        """What a resumed training has to know of the steps so far, as JSON values."""
        return {"strength": self.strength}

    def step(self, rate: float, pictures: int, share: float) -> None:
        """Shrink scales after an optimizer step on `pictures` pictures, when `share` of the training is over. rate: learning rate without warm-up."""
        scales = self._scales()
        norms = self.penalised.norms(scales)
        self.strength = (self.penalty.strength or 0.0) * self.growth(share)
        # A group's largest channels, `align` of them, must live.
        live = self.penalised.ranks(-norms) < self.penalty.align
        threshold = np.where(live, 0.0, rate * self.strength * pictures / 64)
        factor = np.where(norms <= threshold, 0.0, 1 - threshold / np.maximum(norms, np.finfo(float).tiny))
        factor[threshold == 0] = 1
        if (factor != 1).any():
            scales = (scales * factor[self.penalised.channel]).astype(np.float32)
            paddle.scatter_(self.parameters.vector, self._index, paddle.to_tensor(scales))

    def silence(self, values: np.ndarray) -> np.ndarray:
        """A moving average (a flat vector, parameters first) with zeros where the weights' channels are dead."""
        result = values.copy()
        result[self.places[(self.norms() == 0)[self.penalised.channel]]] = 0
        return result


def histogram(norms: np.ndarray, top: float) -> list[int]:
    """Number of channels in each of BINS equal bins of their norms from 0 to `top`; the last bin also counts larger norms."""
    return np.bincount(np.minimum(norms / top * BINS, BINS - 1).astype(int), minlength=BINS).tolist()
