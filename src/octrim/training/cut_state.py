"""Cutting of channels out of a training's state: its network, and every vector that has one value per weight."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.cut import cut_tensors
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import MapMoments, merged
from octrim.pruning.plan import cut_network, kept_channels
from octrim.pruning.repair import constants
from octrim.training.checkpoint import State
from octrim.training.vectors import flattened, kind_of, unflattened


def cut_state(state: State, gone: np.ndarray, maps: Mapping[str, MapMoments] | None = None) -> None:
    """Cut channels out of a training's state: network, weights, average, waiting gradient, moments, scores; everything else stays as it is.

    gone: bool `[labels.count]`, mask of the labels that go. maps: moments of the maps that lose channels, by row, with which these are merged into
    those that stay. Without them the constants that the channels stood for go into their consumers: for the weights by the weights' own batch norm,
    for the average by the average's.
    """
    network, labels = state.network, channel_labels(state.network)
    kept = kept_channels(network, labels, gone)
    smaller = cut_network(network, labels, kept)
    places = np.arange(len(state.arrays["values"]))
    places = flattened(smaller, cut_tensors(network, labels, gone, unflattened(network, places)))
    arrays = {}
    for name, vector in state.arrays.items():
        first, last = _extent(network, name)
        arrays[name] = vector[places[(places >= first) & (places < last)] - first]
    predictions = {row: moments.prediction(gone[labels.labels[row]]) for row, moments in (maps or {}).items()}
    for name in ("values", "average"):
        model = Model(network, unflattened(network, state.arrays[name]), state.names, state.image_size)
        tensors = unflattened(smaller, arrays[name])  # views of the vector
        if maps is not None:
            for part, values in merged(model, gone, predictions).items():
                tensors[part][:] = values
            continue
        for part, change in constants(model, kept).items():
            tensors[part][:] = tensors[part].astype(np.float64) + change
    state.network, state.arrays = smaller, arrays


def _extent(network: Network, name: str) -> tuple[int, int]:
    """First place in the vector of all values that the vector `name` of a state has, and the place after its last."""
    sizes = [0, 0, 0, 0]
    for tensor, shape in tensor_shapes(network).items():
        sizes[kind_of(tensor)] += math.prod(shape)
    if name in ("values", "average"):
        return 0, sum(sizes)
    if name == "taylor":
        return sizes[0], sizes[0] + sizes[1]
    return 0, sum(sizes[:3])
