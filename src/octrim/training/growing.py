"""Sparsity training towards a target: the penalty falls on the channels that the loss needs least, and grows until they are dead.

After growing regularisation (Wang et al. 2021): the other channels are left alone, so that the network can take over what the dying ones did. Which
channels come next is asked little by little, of the scores of that time; once chosen, a channel's scales and shifts fall to exact zeros within a
fixed share of the training. At each step they are drawn to zero by as much as would bring them there in time on a straight line: where gradients
resist, the pull grows, and at the end nothing is left. Where the activation of zero is zero, a dead channel emits nothing at all, and to cut it
changes nothing, at the borders of pictures neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import paddle
from octrim.errors import InputError
from octrim.training.cutting import count_at
from octrim.training.learner import Learner
from octrim.training.sparsity import PenalisedChannels, Penalty

CHOSEN = 0.5
"""Share of the training after which all channels that are to die are chosen."""

DYING = 0.1
"""Share of the training that a chosen channel takes to die."""


class GrowingPenalty:
    """The steps of one training.

    wanted: number of channels that are to die, per group with the scope "group", else in all. dies: float `[channels]`, the share of the training at
    which each channel is dead, -1 where it is not to die.
    """

    def __init__(self, learner: Learner, penalised: PenalisedChannels, penalty: Penalty, pictures: int, dies: Sequence[float] | None = None) -> None:
        """Prepare the steps of a training. pictures: number of training pictures in all of its epochs. dies: what `notes` told of earlier steps."""
        self.penalised, self.penalty, self.learner, self.pictures = penalised, penalty, learner, pictures
        self.wanted = penalised.dead_counts(penalty)
        self.parameters = learner.weights.parameters
        self._places = [penalised.places_in(self.parameters, part) for part in ("weight", "bias")]
        self._index = paddle.to_tensor(np.concatenate(self._places))
        self.dies = np.where(self.norms() == 0, 0.0, -1.0) if dies is None else np.asarray(dies, np.float64)
        if len(self.dies) != len(penalised.group):
            raise InputError(f"a damaged checkpoint: it tells of {len(self.dies)} channels that may die, there are {len(penalised.group)}")

    def norms(self) -> np.ndarray:
        """Root mean square of every channel's coupled scales, float64 `[channels]`."""
        return self.penalised.norms(paddle.gather(self.parameters.vector, paddle.to_tensor(self._places[0])).numpy())

    def dead(self) -> float:
        """Fraction of the penalised channels whose scales are all zero."""
        return float((self.norms() == 0).mean())

    def columns(self) -> dict[str, float]:
        """Columns of results.csv: the fraction of dead channels, and of those that are chosen but not dead yet."""
        dead = self.norms() == 0
        return {"sparsity/dead": float(dead.mean()), "sparsity/dying": float(((self.dies >= 0) & ~dead).mean())}

    def notes(self) -> dict[str, Any]:
        """What a resumed training has to know of the steps so far, as JSON values."""
        return {"dies": self.dies.tolist()}

    def step(self, rate: float, pictures: int, share: float) -> None:
        """Choose channels, and draw the chosen ones towards zero, after an optimizer step.

        rate: not used: how fast a channel dies does not depend on the learning rate. pictures: number of pictures in the step. share: share of the
        training that is over, 0..1.
        """
        self.dies[self._choice(share)] = min(share + DYING, 1.0)
        falling = self.dies >= 0
        if not falling.any():
            return
        left = np.maximum(self.dies - share, 0.0)
        factor = np.where(falling, left / (left + pictures / self.pictures), 1.0)
        values = paddle.gather(self.parameters.vector, self._index).numpy()
        values = (values * np.tile(factor[self.penalised.channel], 2)).astype(np.float32)
        paddle.scatter_(self.parameters.vector, self._index, paddle.to_tensor(values))

    def _choice(self, share: float) -> np.ndarray:
        """Indices of the channels that are chosen now, those with the lowest scores first, when `share` of the training is over."""
        assert self.learner.taylor is not None
        group, counts, chosen = self.penalised.group, self.penalised.counts, self.dies >= 0
        scores = np.where(chosen, np.inf, self.learner.taylor.of_labels()[self.penalised.label])
        ranks, before = self.penalised.ranks(scores), np.bincount(group[chosen], minlength=len(counts))
        part = min(share / CHOSEN, 1.0)
        if self.penalty.scope == "group":
            pairs = zip(counts.tolist(), self.wanted.tolist(), strict=True)
            due = [count - count_at(part, count, count - dead, number) for number, (count, dead) in enumerate(pairs)]
            return np.flatnonzero(~chosen & (ranks < (np.asarray(due) - before)[group]))
        wanted = int(self.wanted[0])
        due = wanted - count_at(part, wanted, 0, 0) - int(chosen.sum())
        # The most important channels of a group, `align` of them, must live.
        free = np.flatnonzero(~chosen & (ranks < (counts - before - np.minimum(counts, self.penalty.align))[group]))
        return free[np.argsort(scores[free], kind="stable")[: max(due, 0)]]

    def silence(self, values: np.ndarray) -> np.ndarray:
        """A moving average (a flat vector, parameters first) with zeros where the weights' channels are dead."""
        result = values.copy()
        dead = (self.norms() == 0)[self.penalised.channel]
        for places in self._places:
            result[places[dead]] = 0
        return result
