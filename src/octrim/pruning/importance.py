"""Criteria: how much each channel matters. Coupled channels are scored jointly, and scores of different layers compare.

A criterion is a function `(model, labels, seed) -> float64 [labels.count]`, larger meaning more important; a label that no convolution
produces has no meaning in it. Add one to `CRITERIA`, or hand a function to `plan`, as `taylor(gradients)` makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Row
from octrim.pruning.labels import ChannelLabels
from octrim.pruning.moments import activation_moments

Criterion = Callable[[Model, ChannelLabels, int], np.ndarray]


def criterion_name(criterion: str | Criterion) -> str:
    """What plans and messages call a criterion: its name in `CRITERIA`, or that of the user's function or object."""
    return criterion if isinstance(criterion, str) else str(getattr(criterion, "__name__", type(criterion).__name__))


def channel_scores(criterion: str | Criterion, model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """What a criterion gives for a model, float64 `[labels.count]`.

    Raises InputError, naming the criterion, for one that is unknown or no function, that fails, or that gives anything but one finite number for
    every channel that a convolution produces.
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise InputError(f"criterion {shown(criterion)} is unknown; known are {', '.join(CRITERIA)}")
        function = CRITERIA[criterion]
    elif callable(criterion):
        function = criterion
    else:
        raise InputError(f"criterion is {shown(criterion)}, expected a name or a function of (model, labels, seed)")
    name = criterion_name(criterion)
    try:
        scores = np.asarray(function(model, labels, seed))
    except InputError:
        raise
    except Exception as error:  # whatever somebody's function raises
        raise InputError(f"criterion {name}: fails with {type(error).__name__}: {shown(str(error))}") from error
    if scores.dtype.kind not in "biuf" or scores.shape != (labels.count,):
        raise InputError(f"criterion {name}: gives {scores.dtype} {list(scores.shape)}, expected numbers [{labels.count}], one per label")
    scores = scores.astype(np.float64)
    for group in labels.groups:
        wrong = group.labels[~np.isfinite(scores[group.labels])]
        if len(wrong):
            raise InputError(f"criterion {name}: gives {scores[wrong[0]]} for label {wrong[0]} of {group.name}, expected a finite number")
    return scores


def bn(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Batch-norm scale (network slimming, Liu et al. 2017): root mean square of the coupled channels' gamma, relative to the group's mean."""
    sums = _Sums(labels)
    for row in _prunable_convs(model, labels):
        sums.add(row.name, _batch_norm(model, row)["weight"] ** 2)
    return _relative(labels, np.sqrt(sums.mean()))


def live_channels(model: Model, labels: ChannelLabels) -> np.ndarray:
    """Which channels are alive, bool `[labels.count]`: dead are those whose batch-norm scales are zero in all of their coupled convolutions, as
    sparsity training leaves them. A convolution without batch norm keeps its channels alive; a label that no convolution produces is dead."""
    live = np.zeros(labels.count, bool)
    for row in model.network.convs:
        if not row.pads or row.groups == 1:
            own = labels.labels[row.name]
            live[own[_batch_norm(model, row)["weight"] != 0] if row.norm else own] = True
    return live


def l1(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017), relative to the convolution's mean filter, averaged over coupled convolutions."""
    return _filter_norms(model, labels, lambda weight: np.abs(weight).sum(1))


def l2(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Euclidean norm of the filter, relative to the convolution's mean filter, averaged over coupled convolutions."""
    return _filter_norms(model, labels, lambda weight: np.sqrt((weight**2).sum(1)))


def group_l2(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Euclidean norm over all weights that go with the channel: its filters and what the consumers read of it (DepGraph, Fang et al. 2023).

    Each convolution's squares are relative to their mean, so that large layers do not drown small ones.
    """
    sums = _Sums(labels)
    for row in model.network.convs:
        squares = model.tensors[row.weight_name].astype(np.float64) ** 2
        if row.name not in model.network.heads:
            own = squares.sum((1, 2, 3))
            sums.add(row.name, own / max(own.mean(), _TINY))
        if row.groups == 1:
            read = squares.sum((0, 2, 3))
            sums.add(row.inputs[0], read / max(read.mean(), _TINY))
    return np.sqrt(sums.mean())


def fpgm(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Distance to the other filters (geometric median, He et al. 2019): what the others can stand in for goes first. Relative to the group's mean."""
    scores = np.zeros(labels.count)
    for group in labels.groups:
        distances = np.zeros((len(group), len(group)))
        for name in group.convs:
            row = next(row for row in model.network.convs if row.name == name)
            weight = model.tensors[row.weight_name].reshape(row.channels, -1).astype(np.float64)
            rows = weight[labels.first_channels(group, name)]
            squares = (rows**2).sum(1)
            between = np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0)
            distances += between / max(squares.mean(), _TINY)
        scores[group.labels] = np.sqrt(distances).sum(1)
    return _relative(labels, scores)


def scale(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Batch-norm scale times the consumers' weights for the channel, in units of what the consumers' batch norm divides by."""
    gamma = _Sums(labels)
    for row in _prunable_convs(model, labels):
        gamma.add(row.name, _batch_norm(model, row)["weight"] ** 2)
    return np.sqrt(gamma.mean() * _consumers_power(model, labels, gamma.mean()))


def signal(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Share of the consumers' outputs that varies with the channel: root of its activation's variance times the consumers' power.

    Batch norm says how the channel is distributed before its activation, N(beta, gamma^2); the variance behind it follows. What does not
    vary is a constant, which repair puts into the consumers.
    """
    variance = _variances(model, labels)
    return np.sqrt(variance * _consumers_power(model, labels, variance))


def random(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
    """Scores drawn uniformly from 0..1, the control for every other criterion. Each group draws from its own stream."""
    scores = np.zeros(labels.count)
    for group in labels.groups:
        scores[group.labels] = np.random.default_rng((seed, crc32(group.name.encode()))).random(len(group))
    return scores


def taylor(gradients: Sequence[Mapping[str, np.ndarray]]) -> Criterion:
    """What the loss changes by, to first order, when a channel goes (Molchanov et al. 2019), over batches.

    gradients: one mapping per batch, tensor name to gradient of the loss, `[channels]`, with `{row}.bn.weight` and `{row}.bn.bias` of every
    convolution that may be cut (`octrim.training.gradients.batch_gradients`). Per batch the change is the sum over the coupled channels of
    gamma dL/dgamma + beta dL/dbeta: they go together, so their changes add up before a sign is lost. The score is its root mean square over
    the batches. The gradient of all batches together would not do: where training has converged it vanishes, whatever a channel is worth.

    Not relative to the group's mean, unlike scales and norms: the score is in units of the loss, the same for every layer, so that a global
    budget compares what it is about. Dividing by the mean would call half the channels of a layer that hardly matters important.
    Raises InputError without batches, and where a convolution's gradient is missing, of another size, or no numbers.
    """
    if not gradients:
        raise InputError("taylor needs the gradients of one batch or more")

    def criterion(model: Model, labels: ChannelLabels, seed: int) -> np.ndarray:
        squares = np.zeros(labels.count)
        rows = [(row, _batch_norm(model, row)) for row in _prunable_convs(model, labels)]
        for batch in gradients:
            change = np.zeros(labels.count)
            for row, parts in rows:
                for part in ("weight", "bias"):
                    name = f"{row.name}.bn.{part}"
                    gradient = None if batch.get(name) is None else np.asarray(batch[name])
                    if gradient is None or gradient.shape != (row.channels,) or gradient.dtype.kind not in "iuf":
                        found = "none" if gradient is None else f"{gradient.dtype} {list(gradient.shape)}"
                        raise InputError(f"taylor needs a gradient [{row.channels}] of {name}, found {found}")
                    change += np.bincount(labels.labels[row.name], weights=parts[part] * gradient.astype(np.float64), minlength=labels.count)
            squares += change**2
        return np.sqrt(squares / len(gradients))

    criterion.__name__ = "taylor"  # plans and lineages name the criterion so
    return criterion


_TINY = float(np.finfo(float).tiny)

_STILL = 1e-100  # variance up to which an output counts as one that does not vary


class _Sums:
    """Values per channel of several convolutions, summed per label, with how many values each label has."""

    def __init__(self, labels: ChannelLabels) -> None:
        self.labels = labels
        self.sums, self.counts = np.zeros(labels.count), np.zeros(labels.count)

    def add(self, row: str, values: np.ndarray) -> None:
        own = self.labels.labels[row]
        self.sums += np.bincount(own, weights=values, minlength=self.labels.count)
        self.counts += np.bincount(own, minlength=self.labels.count)

    def mean(self) -> np.ndarray:
        return self.sums / np.maximum(self.counts, 1)


def _prunable_convs(model: Model, labels: ChannelLabels) -> list[Row]:
    """Return the convolutions of all groups that may be cut."""
    names = {name for group in labels.groups if group.reason is None for name in group.convs}
    return [row for row in model.network.convs if row.name in names]


def _batch_norm(model: Model, row: Row) -> dict[str, np.ndarray]:
    if not row.norm:
        raise InputError(f"{row.name} has no batch norm, which this criterion needs; use another, such as l2")
    return {part: model.tensors[f"{row.name}.bn.{part}"].astype(np.float64) for part in ("weight", "bias", "running_var")}


def _relative(labels: ChannelLabels, scores: np.ndarray) -> np.ndarray:
    """Return scores divided by the mean of their group."""
    result = scores.copy()
    for group in labels.groups:
        result[group.labels] /= max(scores[group.labels].mean(), _TINY)
    return result


def _filter_norms(model: Model, labels: ChannelLabels, norm: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    sums = _Sums(labels)
    for row in model.network.convs:
        norms = norm(model.tensors[row.weight_name].reshape(row.channels, -1).astype(np.float64))
        sums.add(row.name, norms / max(norms.mean(), _TINY))
    return sums.mean()


def _variances(model: Model, labels: ChannelLabels) -> np.ndarray:
    """Return the variance of each label's activation; where a residual adds maps, of their sum."""
    variance = np.zeros(labels.count)
    for row in _prunable_convs(model, labels):
        parts = _batch_norm(model, row)
        _, own = activation_moments(row, parts["bias"], parts["weight"])
        variance += np.bincount(labels.labels[row.name], weights=own, minlength=labels.count)
    return variance


def _consumers_power(model: Model, labels: ChannelLabels, variance: np.ndarray) -> np.ndarray:
    """Return, per label and over all consumers, the mean square weight for the channel in units of the variance of the consumer's output.

    That variance is batch norm's; for Detect's convolutions it follows from the variances of what they read. A channel has no part in an output that
    does not vary, such as that of a convolution which reads dead channels only.
    """
    power = np.zeros(labels.count)
    for row in model.network.convs:
        if row.groups > 1:
            continue  # a depthwise consumer is coupled itself; other grouped ones are never cut
        read = labels.labels[row.inputs[0]]
        squares = (model.tensors[row.weight_name].astype(np.float64) ** 2).sum((2, 3))
        output = _batch_norm(model, row)["running_var"] + BATCH_NORM_EPS if row.norm else squares @ variance[read]
        shares = np.divide(squares, output[:, None], out=np.zeros_like(squares), where=output[:, None] > _STILL)
        power += np.bincount(read, weights=shares.mean(0), minlength=labels.count)
    return power


CRITERIA: dict[str, Criterion] = {
    "bn": bn,
    "l1": l1,
    "l2": l2,
    "group-l2": group_l2,
    "fpgm": fpgm,
    "scale": scale,
    "signal": signal,
    "random": random,
}
