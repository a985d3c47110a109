"""Sparsity training: a step after the optimizer's shrinks the batch-norm scales of coupled channels together, to exact zeros.

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

import numpy as np

from octrim.backends.paddle import paddle
from octrim.errors import InputError
from octrim.network.cost import tensor_shapes
from octrim.network.rows import Network
from octrim.pruning.fractions import aligned_count, matching_convs
from octrim.pruning.labels import channel_labels
from octrim.training.checkpoint import kind_of
from octrim.training.freezing import frozen
from octrim.training.optimizer import Weights
from octrim.training.schedule import Schedule

# Share of the training after which a target is reached; in the rest the live channels recover.
STEERED = 0.7

GROWN = 0.5  # share of the training over which a linear or cosine strength grows

BINS = 40
"""Number of bins of the histogram of scales that is kept per epoch; the last bin also counts scales above the range."""


@dataclass(frozen=True)
class Penalty:
    """Settings of the sparsity penalty. strength: a number, or None where a target steers it. target: fraction of channels that is dead at the end,
    0..1 exclusive.

    growth: how the strength grows, "constant", "linear" or "cosine". scope: where the target holds, "network" or "group". align: least number of live
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

    def norms(self, scales: np.ndarray) -> np.ndarray:
        """Root mean square of every channel's coupled scales, float64 `[channels]`."""
        return np.sqrt(np.bincount(self.channel, weights=scales.astype(np.float64) ** 2) / self.scales)

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
    """The proximal steps of one training.

    A given strength pulls scales towards zero with the same force throughout, once it has grown. With a target, the strength is computed at each
    step: the one that would kill the wanted number of channels by the time STEERED if gradients did not change their scales. Where gradients resist,
    the strength grows; at the time STEERED exactly the wanted number of channels is dead, and from then on these are held at zero. The strength
    follows from the weights and the time alone, so nothing has to be stored to resume.
    """

    def __init__(self, weights: Weights, penalised: PenalisedChannels, penalty: Penalty, schedule: Schedule, pictures: int) -> None:
        """Prepare the steps of a training. pictures: number of training pictures in an epoch."""
        self.penalised, self.penalty = penalised, penalty
        names = [f"{name}.bn.weight" for name in penalised.convs]
        self.parameters = weights.parameters
        self.places = np.concatenate([np.arange(self.parameters.size)[self.parameters.slices[name]] for name in names])[penalised.places]
        self._index = paddle.to_tensor(self.places)
        self.strength = 0.0  # strength in the last step
        self._dead = self.norms() == 0
        if penalty.target is not None:
            self.dead_counts = penalised.dead_counts(penalty)
        # Amount by which strength 1 shrinks a scale from each share of the training to the share STEERED, where the target must be reached.
        self._shares = np.linspace(0, STEERED, 20 * schedule.epochs + 1)
        middles = (self._shares[1:] + self._shares[:-1]) / 2
        rates = [schedule.hyper.lr0 * schedule.factor(int(share * schedule.epochs)) * self.growth(share) for share in middles]
        doses = np.asarray(rates) * np.diff(self._shares) * schedule.epochs * pictures / 64
        self._left = np.append(doses[::-1].cumsum()[::-1], 0)

    def growth(self, share: float) -> float:
        """Factor of the strength, 0..1, when `share` (0..1) of the training is over."""
        grown = min(share / GROWN, 1.0)
        return {"constant": 1.0, "linear": grown, "cosine": (1 - math.cos(math.pi * grown)) / 2}[self.penalty.growth]

    def norms(self) -> np.ndarray:
        return self.penalised.norms(self._scales())

    def _scales(self) -> np.ndarray:
        return paddle.gather(self.parameters.vector, self._index).numpy()

    def dead(self) -> float:
        """Fraction of the penalised channels whose scales are all zero."""
        return float((self.norms() == 0).mean())

    def step(self, rate: float, pictures: int, share: float) -> None:
        """Shrink scales after an optimizer step on `pictures` pictures, when `share` of the training is over. rate: learning rate without warm-up."""
        scales = self._scales()
        norms = self.penalised.norms(scales)
        dose = rate * self.growth(share) * pictures / 64
        if self.penalty.target is None:
            self.strength = (self.penalty.strength or 0.0) * self.growth(share)
            threshold = np.where(self._floor(norms), 0.0, rate * self.strength * pictures / 64)
            factor = np.where(norms <= threshold, 0.0, 1 - threshold / np.maximum(norms, np.finfo(float).tiny))
            factor[threshold == 0] = 1
        else:
            # After the target is met, dead channels stay dead, although momentum has moved their scales since.
            wanted, needed = self._wanted(norms if share < STEERED else np.where(self._dead, -1, norms))
            if share < STEERED:
                left = float(np.interp(share, self._shares, self._left))
                threshold = np.where(self._floor(norms), 0.0, needed[self.penalised.group] * (dose / (dose + left) if dose else 0.0))
                self.strength = self.growth(share) * float(needed.mean() / (dose + left)) if dose + left else 0.0
                factor = np.where(threshold > 0, np.maximum(0, 1 - threshold / np.maximum(norms, np.finfo(float).tiny)), 1)
            else:
                self.strength = 0.0
                factor = np.where(wanted, 0.0, 1.0)
        scales = (scales * factor[self.penalised.channel]).astype(np.float32)
        self._dead = self.penalised.norms(scales) == 0
        if (factor != 1).any():
            paddle.scatter_(self.parameters.vector, self._index, paddle.to_tensor(scales))

    def silence(self, values: np.ndarray) -> np.ndarray:
        """A moving average (a flat vector, parameters first) with zeros where the weights' channels are dead."""
        result = values.copy()
        result[self.places[(self.norms() == 0)[self.penalised.channel]]] = 0
        return result

    def histogram(self, norms: np.ndarray, top: float) -> list[int]:
        """Number of channels in each of BINS equal bins of their norms from 0 to `top`; the last bin also counts larger norms."""
        return np.bincount(np.minimum(norms / top * BINS, BINS - 1).astype(int), minlength=BINS).tolist()

    def _ranks(self, norms: np.ndarray) -> np.ndarray:
        """Rank of each channel within its group by its norm, 0 for the largest; among equal norms the earlier channel comes first."""
        group = self.penalised.group
        order = np.lexsort((np.arange(len(norms)), -norms, group))
        starts = np.cumsum([0, *self.penalised.counts[:-1]])
        ranks = np.empty(len(norms), int)
        ranks[order] = np.arange(len(norms)) - starts[group]
        return ranks

    def _floor(self, norms: np.ndarray) -> np.ndarray:
        """Mask of the channels that must live, because they are the `align` largest of their group."""
        return self._ranks(norms) < self.penalty.align

    def _wanted(self, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mask of the channels that would be dead if the target had to be met now; and the largest norm among them, for every group its own with the
        scope "group", else the same for all."""
        group, counts = self.penalised.group, self.penalised.counts
        if self.penalty.scope == "group":
            wanted = self._ranks(norms) >= (counts - self.dead_counts)[group]
        else:
            eligible = np.flatnonzero(~self._floor(norms))
            order = eligible[np.argsort(norms[eligible], kind="stable")]
            wanted = np.zeros(len(norms), bool)
            wanted[order[: self.dead_counts[0]]] = True
        needed = np.zeros(len(counts))
        if self.penalty.scope == "group":
            np.maximum.at(needed, group[wanted], norms[wanted])
        else:
            needed[:] = norms[wanted].max(initial=0)
        return wanted, needed
