"""Importance of channels from the gradients that a training computes anyway: a running mean over its optimizer steps (Molchanov et al. 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np

from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.labels import ChannelLabels, channel_labels
from octrim.training.optimizer import Weights
from octrim.training.vectors import kind_of

_DECAY = 0.98
"""Factor of what earlier steps told: one step's gradient is noise, and what is older than some 50 steps is about another network."""


class TaylorScores:
    """The running mean of the squared change of the loss when a channel goes, to first order.

    Per optimizer step the change is the sum over coupled channels of gamma dL/dgamma + beta dL/dbeta, as for the criterion `taylor`
    (`octrim.pruning.importance.taylor`). values: float32 `[batch-norm weights]`, in the order of the flat vector of weights; coupled channels have
    the same value.
    """

    def __init__(self, network: Network, values: np.ndarray | None = None) -> None:
        labels = channel_labels(network)
        scales = [row for row in network.convs if row.norm]
        self._label = np.concatenate([np.zeros(0, np.int64), *(labels.labels[row.name] for row in scales)])
        places, start = {}, 0
        for name, shape in tensor_shapes(network).items():
            if kind_of(name) == 2:
                places[name] = np.arange(start, start + shape[0])
                start += shape[0]
        self._biases = np.concatenate([np.zeros(0, np.int64), *(places[f"{row.name}.bn.bias"] for row in scales)])
        self._count = labels.count
        self.values = np.zeros(len(self._label), np.float32) if values is None else values

    def observe(self, weights: Weights, gradient: Any) -> None:
        """Take note of an optimizer step before it is done. gradient: flat vector like the parameters, the sum over all pictures of the step."""
        _, scales, biases = weights.groups
        parameters = weights.parameters.vector
        own = (parameters[scales] * gradient[scales]).numpy().astype(np.float64)
        own += (parameters[biases] * gradient[biases]).numpy()[self._biases]
        change = np.bincount(self._label, weights=own, minlength=self._count)[self._label]
        self.values = (_DECAY * self.values + (1 - _DECAY) * change**2).astype(np.float32)

    def of_labels(self) -> np.ndarray:
        """The scores by label, float64 `[labels.count]`: root mean squares. 0 for labels that no batch norm has."""
        scores = np.zeros(self._count)
        scores[self._label] = np.sqrt(self.values.astype(np.float64))
        return scores

    def criterion(self, model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
        """A criterion as `octrim.pruning.plan.plan` takes it, for the network that is trained: float64 `[labels.count]`."""
        return self.of_labels()
