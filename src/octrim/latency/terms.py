"""Rows of a network as the terms that its time is a sum of: for every row its kind, and the channels that it reads and writes.

A row of a kind (operation, window, size of the map, activation) costs a fixed time, and times that grow with the channels it reads, with those it
writes, and with their product. Kernels work on blocks of channels, so channels count in whole blocks; counts that are no multiple of 8 may cost
extra. What one row costs beside another (fusion, caches, changes of layout) is in these terms as far as it is usual, because they are fitted to
whole networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from octrim.network.cost import shapes
from octrim.network.rows import Network, Row, Shape
from octrim.pruning.labels import is_depthwise
from octrim.pruning.variants import row_channels

TERMS = ("fixed", "input", "output", "product", "uneven_input", "uneven_output")
"""Terms of a row: 1, blocks of channels read, blocks written, and their product; channels read and written where they are no multiple of 8."""

Blocks = tuple[int, int]
"""Channels per block of those that a row reads, and of those that it writes."""

BLOCKS: tuple[Blocks, ...] = tuple(product((1, 8, 16), (1, 4, 8, 16)))
"""Blocks that a fit chooses from."""

_UNIT = 16.0  # channels in which terms are counted, so that coefficients of different terms have similar sizes
_EVEN = 8  # counts of channels that are multiples of it are taken for even


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of networks that differ in their numbers of channels only.

    kinds: kind of each row. read, written: channels of each row, float64 `[networks, rows]`. groups: what a convolution's product of channels is
    divided by, `[networks, rows]`.
    """

    kinds: tuple[str, ...]
    read: np.ndarray
    written: np.ndarray
    groups: np.ndarray

    def terms(self, blocks: Blocks) -> np.ndarray:
        """The terms of every row, float64 `[networks, rows, terms]`, in the order of TERMS."""
        inputs = np.ceil(self.read / blocks[0]) * blocks[0] / _UNIT
        outputs = np.ceil(self.written / blocks[1]) * blocks[1] / _UNIT
        uneven = [np.where(counts % _EVEN, counts / _UNIT, 0.0) for counts in (self.read, self.written)]
        return np.stack([np.ones_like(inputs), inputs, outputs, inputs * outputs / self.groups, *uneven], -1)


def rows_of(network: Network, height: int, width: int, channels: Mapping[str, np.ndarray] | None = None) -> Rows:
    """The rows of a network for pictures of height x width pixels, or of several that have other numbers of channels.

    channels: for every convolution the output channels in each of the networks, int `[networks]`; by default one network, with its own.
    Raises InputError as `octrim.network.cost.shapes` does.
    """
    found = row_channels(network, channels)
    return Rows(_kinds(network, height, width), found.read, found.written, found.groups)


@lru_cache(maxsize=4)  # a plan asks for the rows of one network thousands of times
def _kinds(network: Network, height: int, width: int) -> tuple[str, ...]:
    """The kind of every row between the picture and Detect."""
    maps = shapes(network, height, width)
    return tuple(_kind(network, row, maps) for row in network.rows[1:-1])


def _kind(network: Network, row: Row, maps: Mapping[str, Shape]) -> str:
    """The kind of a row in words: rows of one kind differ in their numbers of channels only."""
    size = "x".join(map(str, maps[row.name][1:]))
    if row.op != "conv":
        window = {"maxpool": f" {row.kernel}/{row.stride}", "upsample": f" {row.stride}"}.get(row.op, "")
        return f"{row.op}{window} at {size}"
    words = [f"conv {row.kernel}/{row.stride}"]
    if row.groups > 1:
        words.append("depthwise" if is_depthwise(row, maps[row.inputs[0]][0]) else f"{row.groups} groups")
    if row.inputs[0] == network.rows[0].name:
        words.append("of the picture")
    if row.name in network.heads:
        words.append("to boxes")
    if row.activation:
        words.append(row.activation)
    return f"{' '.join(words)} at {size}"
