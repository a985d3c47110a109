"""Sparsity training towards a target: channels die one after the other, those that the loss needs least first, and the others are left alone.

The number of dead channels follows a cubic curve, as in `octrim.training.cutting`; which ones come next is asked at every death, of the scores that
the training's own gradients give. A dying channel is first merged into those of its map that live (`octrim.pruning.merging`), then its batch-norm
scales and shifts are set to zero, and held there. So the network hardly notices, step by step, and where the activation of zero is zero a dead
channel emits nothing at all: to cut it changes nothing, at the borders of pictures neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import paddle
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import merged, read_maps
from octrim.training.cutting import AT_ONCE, count_at
from octrim.training.learner import Learner
from octrim.training.maps import map_moments
from octrim.training.sparsity import PenalisedChannels, Penalty
from octrim.training.vectors import unflattened

CHOSEN = 0.6
"""Share of the training after which all channels that are to die are dead; the rest is for the network to recover."""


class DyingChannels:
    """The deaths of one training.

    wanted: number of channels that are to die, per group with the scope "group", else in all. gone: bool `[channels]`, those that are dead.
    """

    def __init__(
        self,
        learner: Learner,
        penalised: PenalisedChannels,
        penalty: Penalty,
        pictures: Sequence[np.ndarray] = (),
        gone: Sequence[bool] | None = None,
        warmup: float = 0.0,
    ) -> None:
        """Prepare the deaths of a training, which begin after its warm-up, or after a quarter of the time for them.

        pictures: sets of pictures as of `octrim.training.maps.cut_pictures`, on which dying channels are merged; without them they are only silenced.
        gone: what `notes` told of earlier steps. warmup: share of the training that is its warm-up.
        """
        self.start = min(warmup, CHOSEN / 4)
        self.penalised, self.penalty, self.learner, self.pictures = penalised, penalty, learner, pictures
        self.wanted = penalised.dead_counts(penalty)
        self.parameters = learner.weights.parameters
        self._places = [penalised.places_in(self.parameters, part) for part in ("weight", "bias")]
        self._scales = paddle.to_tensor(self._places[0])
        self.gone = self.norms() == 0 if gone is None else np.asarray(gone, bool)
        if len(self.gone) != len(penalised.group):
            raise InputError(f"a damaged checkpoint: it tells of {len(self.gone)} channels that may die, there are {len(penalised.group)}")

    def norms(self) -> np.ndarray:
        """Root mean square of every channel's coupled scales, float64 `[channels]`."""
        return self.penalised.norms(paddle.gather(self.parameters.vector, self._scales).numpy())

    def columns(self) -> dict[str, float]:
        """Columns of results.csv: the fraction of penalised channels that are dead."""
        return {"sparsity/dead": float(self.gone.mean())}

    def notes(self) -> dict[str, Any]:
        """What a resumed training has to know of the steps so far, as JSON values."""
        return {"dead": self.gone.tolist()}

    def step(self, rate: float, pictures: int, share: float) -> None:
        """Let the channels die that are due, and hold dead ones at zero, after an optimizer step.

        rate, pictures: not used: when a channel dies depends neither on the learning rate nor on the batch. share: share of the training that is
        over, 0..1.
        """
        chosen = self._choice(share)
        if len(chosen) and (share >= CHOSEN or len(chosen) >= AT_ONCE * np.count_nonzero(~self.gone)):
            self._merge(chosen)
        if self.gone.any():
            places = self._dead_places()
            paddle.scatter_(self.parameters.vector, paddle.to_tensor(places), paddle.zeros([len(places)]))

    def _dead_places(self) -> np.ndarray:
        """Places of the dead channels' scales and shifts in the flat vector."""
        dead = self.gone[self.penalised.channel]
        return np.concatenate([places[dead] for places in self._places])

    def _choice(self, share: float) -> np.ndarray:
        """Indices of the channels that are due when `share` of the training is over, those with the lowest scores."""
        assert self.learner.taylor is not None
        group, counts = self.penalised.group, self.penalised.counts
        scores = np.where(self.gone, np.inf, self.learner.taylor.of_labels()[self.penalised.label])
        ranks, before = self.penalised.ranks(scores), np.bincount(group[self.gone], minlength=len(counts))
        part = min(max((share - self.start) / (CHOSEN - self.start), 0.0), 1.0)
        if self.penalty.scope == "group":
            pairs = zip(counts.tolist(), self.wanted.tolist(), strict=True)
            due = [count - count_at(part, count, count - dead, number) for number, (count, dead) in enumerate(pairs)]
            return np.flatnonzero(~self.gone & (ranks < (np.asarray(due) - before)[group]))
        wanted = int(self.wanted[0])
        due = wanted - count_at(part, wanted, 0, 0) - int(self.gone.sum())
        # The most important channels of a group, `align` of them, must live.
        free = np.flatnonzero(~self.gone & (ranks < (counts - before - np.minimum(counts, self.penalty.align))[group]))
        return free[np.argsort(scores[free], kind="stable")[: max(due, 0)]]

    def _merge(self, chosen: np.ndarray) -> None:
        """Merge channels into those of their maps that live, in the weights and in their average, and silence them in the average."""
        learner, network = self.learner, self.learner.network.network
        labels = channel_labels(network)
        dying, dead = np.zeros(labels.count, bool), np.zeros(labels.count, bool)
        dying[self.penalised.label[chosen]] = True
        dead[self.penalised.label[self.gone]] = True
        vectors = [learner.weights.values().numpy(), learner.average.values.numpy()]
        names = [f"class{number}" for number in range(network.classes)]
        models = [Model(network, unflattened(network, vector), tuple(names)) for vector in vectors]
        if self.pictures:
            steps = learner.optimizer.steps
            maps = map_moments(learner, self.pictures[steps % len(self.pictures)], read_maps(models[0], dying), steps)
            predictions = {row: moments.prediction((dying | dead)[labels.labels[row]]) for row, moments in maps.items()}
            for model in models:
                for name, values in merged(model, dying | dead, predictions).items():
                    row = next(row for row in network.convs if name.startswith(f"{row.name}."))
                    stays, read = (np.flatnonzero(~(dying | dead)[labels.labels[one]]) for one in (row.name, row.inputs[0]))
                    places = np.ix_(stays, read) if values.ndim == 4 else stays
                    model.tensors[name][places] = values  # a view of the vector
        self.gone = self.gone | np.isin(np.arange(len(self.gone)), chosen)
        vectors[1][self._dead_places()] = 0
        learner.weights.assign(paddle.to_tensor(vectors[0]))
        learner.average.values = paddle.to_tensor(vectors[1])
        learner.world.average_in_place(learner.weights.vector)  # the same sums may differ in the last bits on other machines
        learner.world.average_in_place(learner.average.values)

    def silence(self, values: np.ndarray) -> np.ndarray:
        """A moving average (a flat vector, parameters first) with zeros where channels are dead."""
        result = values.copy()
        result[self._dead_places()] = 0
        return result
