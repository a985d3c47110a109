"""A network with one group of channels cut, without building it anew: zeros in whoever reads the group, and only what follows is run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.pruning.labels import ChannelLabels, Group


def cut_consumers(model: Model, labels: ChannelLabels, group: Group, cut: np.ndarray) -> dict[str, np.ndarray]:
    """Weights of the convolutions that read the group, by tensor name, with 0 for what they read of the cut labels.

    For every other tensor as it is, the network then computes what `octrim.pruning.cut.prune` leaves, whatever the activations are:
    a channel passes unchanged in number through additions, pooling, concatenation and depthwise convolutions, and is 0 to whoever mixes it.
    Silencing the channel itself would not do: sigmoid(0) is 1/2.
    """
    changed = {}
    for row in model.network.convs:
        if row.groups == 1 and np.isin(labels.labels[row.inputs[0]], group.labels).any():
            weight = model.tensors[row.weight_name].copy()
            weight[:, np.isin(labels.labels[row.inputs[0]], cut)] = 0
            changed[row.weight_name] = weight
    return changed


class PartialOps:
    """`Ops` over Paddle tensors for several runs on the same pictures, between which only some rows' results change.

    changed: the rows whose weights differ from run to run. All that does not follow from them is computed in the first run, and of that only
    what later runs read is remembered.
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
            return self.maps.get(row.name)  # None for what nobody reads any more
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
