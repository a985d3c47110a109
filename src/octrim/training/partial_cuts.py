"""Results of a network with one group of channels cut, without building a new network: zero weights in the convolutions that read the group; only
the rows that depend on them are run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.pruning.labels import ChannelLabels, Group


def cut_consumers(model: Model, labels: ChannelLabels, group: Group, cut: np.ndarray) -> dict[str, np.ndarray]:
    """Weights of the convolutions that read the group, by tensor name, with 0 for the input channels that carry cut labels.

    With all other tensors unchanged, the network then computes the same as the one that `octrim.pruning.cut.prune` returns, whatever the
    activations are: additions, pooling, concatenation and depthwise convolutions do not mix channels, and the convolutions that do mix them
    multiply the cut channels by 0. Zeroing the cut channels themselves would not do: an activation such as sigmoid makes 1/2 of 0.
    """
    changed = {}
    for row in model.network.convs:
        if row.groups == 1 and np.isin(labels.labels[row.inputs[0]], group.labels).any():
            weight = model.tensors[row.weight_name].copy()
            weight[:, np.isin(labels.labels[row.inputs[0]], cut)] = 0
            changed[row.weight_name] = weight
    return changed


class PartialOps:
    """`Ops` over Paddle tensors for several runs on the same pictures, between which only the results of some rows change.

    changed: rows whose weights differ from run to run. Rows that do not depend on them are computed in the first run only, and their results are
    remembered where later runs read them.
    """

    def __init__(self, network: PaddleNetwork, changed: set[str]) -> None:
        self.network = network
        self.behind = set(changed)
        for row in network.network.rows:
            if self.behind.intersection(row.inputs):
                self.behind.add(row.name)
        self.behind.add(network.network.rows[-1].name)
        read = {name for row in network.network.rows if row.name in self.behind for name in row.inputs}
        self.border = read - self.behind
        self.maps: dict[str, Any] = {}
        self.first = True

    def run(self, images: Any) -> list[Any]:
        heads = walk(self.network.network, self, images)
        self.first = False
        return heads

    def _row(self, op: Callable[..., Any], row: Row, *inputs: Any) -> Any:
        if row.name in self.behind:
            return op(row, *inputs)
        if not self.first:
            return self.maps.get(row.name)  # None for a map that no later run reads
        found = op(row, *inputs)
        if row.name in self.border:
            self.maps[row.name] = found
        return found

    def conv(self, row: Row, x: Any) -> Any:
        return self._row(self.network.conv, row, x)

    def add(self, row: Row, a: Any, b: Any) -> Any:
        return self._row(self.network.add, row, a, b)

    def concat(self, row: Row, xs: Sequence[Any]) -> Any:
        return self._row(self.network.concat, row, xs)

    def maxpool(self, row: Row, x: Any) -> Any:
        return self._row(self.network.maxpool, row, x)

    def upsample(self, row: Row, x: Any) -> Any:
        return self._row(self.network.upsample, row, x)

    def detect(self, row: Row, heads: Sequence[Any]) -> list[Any]:
        return list(heads)
