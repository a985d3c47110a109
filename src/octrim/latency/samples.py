"""Random networks that a plan could choose, to be measured: cut to any counts, with blocks and levels left out, with other numbers of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from octrim.errors import InputError
from octrim.network.dropping import LEVEL, droppable, rows_to_drop, without
from octrim.network.rows import Network
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import cut_network

_CLASSES = (1, 3, 20, 80)
_SHARES = (1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 2, 1)  # of the channels, about which those of a network's groups lie
_SPREAD = 1.5  # powers of 2 by which groups of one network differ from its share at most
_DROPPED = (0, 0, 0, 0.2, 0.5)  # probabilities of a block to be left out
_ALIGNS = (8, 8, 1)


def random_networks(whole: Network, seed: int) -> Iterator[Network]:
    """Networks cut from `whole`, without end; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    blocks = [name for name in droppable(whole) if not name.startswith(LEVEL)]
    while True:
        network = _with_classes(whole, int(generator.choice((whole.classes, *_CLASSES))))
        network = _with_rows_left_out(network, blocks, generator)
        yield _cut(network, int(generator.choice(_ALIGNS)), generator)


def reference_network(whole: Network) -> Network:
    """A quarter of the network, which every other one is measured beside: fast, and with kernels of the usual sizes."""
    return with_share(whole, 1 / 4, 8)


def with_share(network: Network, share: float, align: int) -> Network:
    """The network with the first channels of every group, a share of them, rounded to multiples of `align`."""
    return _with_counts(network, [share] * len(channel_labels(network).groups), align)


def _cut(network: Network, align: int, generator: np.random.Generator) -> Network:
    groups = channel_labels(network).groups
    base, spread = float(generator.choice(_SHARES)), float(generator.choice((0, _SPREAD, _SPREAD, _SPREAD)))
    shares = base * 2 ** generator.uniform(-spread, spread, len(groups))
    return _with_counts(network, np.minimum(shares, 1).tolist(), align)


def _with_counts(network: Network, shares: list[float], align: int) -> Network:
    labels = channel_labels(network)
    gone = np.zeros(labels.count, bool)
    for group, share in zip(labels.groups, shares, strict=True):
        if group.reason is None:
            gone[group.labels[min(max(round(len(group) * share / align) * align, min(align, len(group))), len(group)) :]] = True
    return cut_network(network, labels, {row.name: np.flatnonzero(~gone[labels.labels[row.name]]) for row in network.convs})


def _with_classes(network: Network, classes: int) -> Network:
    channels = len(network.anchors[0]) * (5 + classes)
    rows = tuple(replace(row, channels=channels) if row.name in network.heads else row for row in network.rows)
    return Network(rows, network.anchors)


def _with_rows_left_out(network: Network, blocks: list[str], generator: np.random.Generator) -> Network:
    """The network without some of the blocks, and in a third of the cases without some of its levels."""
    share = float(generator.choice(_DROPPED))
    wanted = [name for name in blocks if generator.random() < share]
    strides = network.strides
    levels = [stride for stride in strides if generator.random() < 0.5] if generator.random() < 1 / 3 else list(strides)
    levels = levels or [strides[int(generator.integers(len(strides)))]]
    gone = rows_to_drop(network, (), levels)
    chosen: list[str] = []
    for name in wanted:  # not every two blocks can go together
        try:
            gone = rows_to_drop(network, [*chosen, name], levels)
        except InputError:
            continue
        chosen.append(name)
    return without(network, gone) if gone else network
