"""Merging of cut channels into those that stay, for small cuts: what a cut channel emits is, for the most part, a linear function of what the other
channels of its map emit, and a convolution that reads them all can take that part from them.

Per feature map the least squares of the cut channels on the others, over positions of some pictures, gives y_cut = B y_kept + b; each consumer's
kernel W_kept becomes W_kept + W_cut B, and W_cut b goes into its batch-norm mean or its bias, as the constant of `octrim.pruning.repair.compensated`
does. The kernel may have any size, because B is the same at every position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from octrim.network.model import Model
from octrim.pruning.labels import channel_labels

RIDGE = 0.01
"""Regularisation of the least squares, relative to the mean variance of the channels that stay."""


@dataclass(frozen=True, eq=False)
class MapMoments:
    """Moments of a feature map over positions and pictures. mean: float64 `[channels]`. covariance: float64 `[channels, channels]`."""

    mean: np.ndarray
    covariance: np.ndarray

    def prediction(self, gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The coefficients B, float64 `[channels that go, channels that stay]`, and constants b `[channels that go]` by which those that stay predict
        those that go. gone: bool `[channels]`."""
        kept = ~gone
        inner = self.covariance[np.ix_(kept, kept)]
        ridge = RIDGE * np.trace(inner) / max(len(inner), 1) + np.finfo(float).tiny
        coefficients = np.linalg.solve(inner + ridge * np.eye(len(inner)), self.covariance[np.ix_(kept, gone)]).T
        return coefficients, self.mean[gone] - coefficients @ self.mean[kept]


def read_maps(model: Model, gone: np.ndarray) -> set[str]:
    """Names of the rows that a cut takes channels from and that a convolution reads which may combine channels. gone: bool `[labels.count]`."""
    labels = channel_labels(model.network)
    return {row.inputs[0] for row in model.network.convs if row.groups == 1 and gone[labels.labels[row.inputs[0]]].any()}


def merged(model: Model, gone: np.ndarray, predictions: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tensors that merging changes, of the network without the channels that go: by tensor name, float64.

    gone: bool `[labels.count]`, the labels that go. predictions: by row, what `MapMoments.prediction` gives; for every row of `read_maps`.
    """
    labels = channel_labels(model.network)
    tensors: dict[str, np.ndarray] = {}
    for row in model.network.convs:
        if row.inputs[0] not in predictions or row.groups > 1:
            continue
        stays, cut = ~gone[labels.labels[row.name]], gone[labels.labels[row.inputs[0]]]
        coefficients, constants = predictions[row.inputs[0]]
        weight = model.tensors[row.weight_name][stays].astype(np.float64)
        taken = weight[:, cut]
        tensors[row.weight_name] = weight[:, ~cut] + np.einsum("ogyx,gk->okyx", taken, coefficients)
        shift = taken.sum((2, 3)) @ constants
        if row.norm:
            name = f"{row.name}.bn.running_mean"
            tensors[name] = model.tensors[name][stays] - shift
        elif row.bias:
            name = f"{row.name}.bias"
            tensors[name] = model.tensors[name][stays] + shift
    return tensors
