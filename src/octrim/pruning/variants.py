"""Channels and costs of many networks at once that differ in their numbers of channels only: a plan within a budget looks at thousands of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from octrim.network.cost import shapes
from octrim.network.rows import Network, Row, walk
from octrim.pruning.labels import ChannelLabels, is_depthwise


@dataclass(frozen=True, eq=False)
class RowChannels:
    """Channels of the rows between the picture and Detect, in the table's order. read, written: whole numbers, float64 `[networks, rows]`.

    groups: what the product of both is divided by for the weights of a convolution, `[networks, rows]`.
    """

    read: np.ndarray
    written: np.ndarray
    groups: np.ndarray


def row_channels(network: Network, channels: Mapping[str, np.ndarray] | None = None) -> RowChannels:
    """The channels of the rows of several networks. channels: for every convolution the output channels in each of the networks, int `[networks]`;
    by default one network, with its own."""
    if channels is None:
        channels = {row.name: np.array([row.channels]) for row in network.convs}
    linear = _linear(network)
    own = np.stack([channels[row.name] for row in network.convs], 1).astype(np.float64)
    read, written = (own @ part[1:] + network.rows[0].channels * part[0] for part in (linear.read, linear.written))
    # A depthwise convolution has as many groups as channels, however many are left.
    return RowChannels(read, written, np.where(linear.depthwise, read, linear.groups))


class Counted:
    """MACs, parameters and channels of networks that differ from one network in their numbers of channels, for pictures of height x width pixels."""

    def __init__(self, network: Network, height: int, width: int) -> None:
        maps, rows = shapes(network, height, width), network.rows[1:-1]
        self._network = network
        self._convolution = np.array([float(row.op == "conv") for row in rows])
        self._window = np.array([float(row.kernel**2 * (row.op == "conv")) for row in rows])
        self._pixels = np.array([float(maps[row.name][1] * maps[row.name][2]) for row in rows])
        self._trained = np.array([float(row.op == "conv" and not row.pads) for row in rows])  # a padding convolution's weights are constants
        self._each = np.array([float(2 * row.norm + row.bias) for row in rows])  # parameters per channel besides the weights

    def costs(self, measure: str, channels: Mapping[str, np.ndarray]) -> np.ndarray:
        """What `octrim.network.cost.network_cost` gives for each network, whole numbers as float64 `[networks]`.

        measure: an attribute of `Cost`: "macs", "parameters" or "channels". channels: as for `row_channels`.
        """
        rows = row_channels(self._network, channels)
        if measure == "channels":
            return rows.written @ self._convolution
        weights = rows.read * rows.written / rows.groups * self._window
        if measure == "macs":
            return weights @ self._pixels
        return (weights + rows.written * self._each) @ self._trained


class KeptChannels:
    """Channels that convolutions have left when each of some sets of labels keeps only its first ones.

    sets: labels of each set, in the order in which they stay; no label is in two sets, and what is in none stays.
    """

    def __init__(self, network: Network, labels: ChannelLabels, sets: Sequence[np.ndarray]) -> None:
        self._names = [row.name for row in network.convs]
        carried = np.stack([np.bincount(labels.labels[name], minlength=labels.count) for name in self._names], 1)
        others = np.ones(labels.count, bool)
        for own in sets:
            others[own] = False
        self._others = carried[others].sum(0)
        # A label may stand for several channels of a convolution, so what a set keeps of one is looked up and not multiplied.
        left = [np.vstack([np.zeros((1, carried.shape[1]), np.int64), np.cumsum(carried[own], 0)]) for own in sets]
        self._left = np.concatenate(left)
        self._first = np.cumsum([0, *(len(part) for part in left[:-1])])

    def of(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Channels by convolution, int64 `[networks]` each. counts: labels that each set keeps, int `[networks, sets]`."""
        # Networks that are looked at together differ in few sets, so only these are added up for each of them.
        base = self._others + self._left[self._first + counts[0]].sum(0)
        networks, sets = np.nonzero(counts != counts[0])
        channels = np.repeat(base[None], len(counts), 0)
        moved = self._left[self._first[sets] + counts[networks, sets]] - self._left[self._first[sets] + counts[0, sets]]
        np.add.at(channels, networks, moved)
        return dict(zip(self._names, channels.T, strict=True))


@dataclass(frozen=True, eq=False)
class _Linear:
    """How the channels of a network's rows follow from those of its picture and its convolutions.

    read, written: float64 `[1 + convolutions, rows]`, what a channel of the picture (first) or of a convolution adds to those of each row.
    depthwise: `[rows]`, bool. groups: `[rows]`, float64.
    """

    read: np.ndarray
    written: np.ndarray
    depthwise: np.ndarray
    groups: np.ndarray


@lru_cache(maxsize=4)  # a plan asks for the channels of one network thousands of times
def _linear(network: Network) -> _Linear:
    units = np.eye(1 + len(network.convs))
    ops = _ChannelOps({row.name: unit for row, unit in zip(network.convs, units[1:], strict=True)})
    walk(network, ops, units[0])
    read, written = (np.stack(column, 1) for column in zip(*ops.found, strict=True))
    rows, channels = network.rows[1:-1], network.channels
    depthwise = np.array([row.op == "conv" and is_depthwise(row, channels[row.inputs[0]]) for row in rows])
    return _Linear(read, written, depthwise, np.array([float(row.groups) for row in rows]))


class _ChannelOps:
    """`Ops` over numbers of channels as float64 `[parts]`, what each part contributes to them. found: (channels read, channels written) of every row.

    channels: of every convolution.
    """

    def __init__(self, channels: Mapping[str, np.ndarray]) -> None:
        self.channels = channels
        self.found: list[tuple[np.ndarray, np.ndarray]] = []

    def _row(self, read: np.ndarray, written: np.ndarray) -> np.ndarray:
        self.found.append((read, written))
        return written

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._row(x, self.channels[row.name])

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._row(a, b)

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        together = np.sum(xs, axis=0)
        return self._row(together, together)

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._row(x, x)

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._row(x, x)

    def detect(self, row: Row, heads: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(heads)
