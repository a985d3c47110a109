"""Criteria: how much each channel of a group matters. Coupled channels are scored jointly.

A criterion is a function `(model, labels, group, seed) -> float64 [len(group)]`, larger meaning more important; add one to `CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.pruning.labels import ChannelLabels, Group

Criterion = Callable[[Model, ChannelLabels, Group, int], np.ndarray]


def bn(model: Model, labels: ChannelLabels, group: Group, seed: int) -> np.ndarray:
    """Batch-norm scale (network slimming, Liu et al. 2017): root mean square of the coupled channels' |gamma|."""
    squares = np.zeros(len(group))
    for conv in group.convs:
        gamma = model.tensors.get(f"{conv}.bn.weight")
        if gamma is None:
            raise InputError(f"{conv} has no batch norm, which the criterion bn needs; use another, such as l2")
        squares += labels.gathered(group, conv, gamma.astype(np.float64) ** 2)
    return np.sqrt(squares / len(group.convs))


def l1(model: Model, labels: ChannelLabels, group: Group, seed: int) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017), relative to the convolution's mean filter, averaged over coupled convolutions."""
    return _filter_norms(model, labels, group, lambda weight: np.abs(weight).sum(1))


def l2(model: Model, labels: ChannelLabels, group: Group, seed: int) -> np.ndarray:
    """Euclidean norm of the filter, relative to the convolution's mean filter, averaged over coupled convolutions."""
    return _filter_norms(model, labels, group, lambda weight: np.sqrt((weight**2).sum(1)))


def random(model: Model, labels: ChannelLabels, group: Group, seed: int) -> np.ndarray:
    """Uniform in 0..1: the control for every other criterion. Each group draws from its own stream."""
    return np.random.default_rng((seed, crc32(group.name.encode()))).random(len(group))


def _filter_norms(model: Model, labels: ChannelLabels, group: Group, norm: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    total = np.zeros(len(group))
    for conv in group.convs:
        weight = model.tensors.get(f"{conv}.conv.weight", model.tensors.get(f"{conv}.weight"))
        assert weight is not None  # the model checked its tensors against the table
        norms = norm(weight.reshape(len(weight), -1).astype(np.float64))
        total += labels.gathered(group, conv, norms) / max(norms.mean(), np.finfo(float).tiny)
    return total / len(group.convs)


CRITERIA: dict[str, Criterion] = {"bn": bn, "l1": l1, "l2": l2, "random": random}
