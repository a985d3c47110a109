"""Which channels must be cut together: one integer label per channel, carried through the table.

`conv` makes new labels (a depthwise convolution passes its input's on), `concat` concatenates, `maxpool` and `upsample` pass on, and
`add` declares its inputs' labels equal. Channels whose labels end up equal are kept or cut together. Residuals, C3, SPPF, the PAN
concatenations and Detect's inputs follow from that without special cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from octrim.network.rows import Network, Row, walk


@dataclass(frozen=True, eq=False)
class Group:
    """Labels that the same convolutions produce: the unit in which channels are counted, ranked and cut.

    convs: the coupled convolutions, in the table's order. labels: in the order of the first convolution's channels.
    reason: why the group is kept whole, or None where it may be cut.
    """

    name: str
    convs: tuple[str, ...]
    labels: np.ndarray
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ChannelLabels:
    """Labels of all channels of a network. labels: per row, int64 `[channels]`; equal numbers are coupled. count: one more than the largest label."""

    labels: dict[str, np.ndarray]
    groups: tuple[Group, ...]
    count: int

    def first_channels(self, group: Group, conv: str) -> np.ndarray:
        """Return, for each label of the group, the first channel of the convolution that carries it."""
        own = self.labels[conv]
        order = np.argsort(own, kind="stable")
        return order[np.searchsorted(own, group.labels, sorter=order)]


def group_key(name: str) -> str:
    """A text that stands for the group of this name alone, `model.0~0`: the name of a convolution stands for all groups of its channels."""
    return name if "~" in name else f"{name}~0"


def is_depthwise(row: Row, input_channels: int) -> bool:
    return row.groups == row.channels == input_channels and row.groups > 1


@lru_cache(maxsize=4)  # plan, cut, repair and criteria each ask for the labels of the same network
def channel_labels(network: Network) -> ChannelLabels:
    """Labels of every row's output, and the groups they form; every call with the same network gives the same, read-only arrays."""
    ops = _LabelOps()
    image = ops.new(network.rows[0])
    ops.protect(image, "the picture's own channels")
    walk(network, ops, image)
    roots = ops.roots()
    labels = {name: roots[values] for name, values in ops.labels.items()}
    reasons = {int(roots[label]): reason for label, reason in ops.protected.items()}
    groups = _groups(network, labels, reasons)
    for array in (*labels.values(), *(group.labels for group in groups)):
        array.setflags(write=False)
    return ChannelLabels(labels, groups, len(roots))


class _LabelOps:
    """`Ops` over label arrays, with a union-find forest over the labels."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.labels: dict[str, np.ndarray] = {}
        self.protected: dict[int, str] = {}

    def new(self, row: Row) -> np.ndarray:
        first = len(self.parent)
        self.parent.extend(range(first, first + row.channels))
        self.labels[row.name] = np.arange(first, first + row.channels)
        return self.labels[row.name]

    def protect(self, labels: np.ndarray, reason: str) -> None:
        for label in labels.tolist():
            self.protected.setdefault(label, reason)

    def find(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]  # halve the path on the way
            label = self.parent[label]
        return label

    def roots(self) -> np.ndarray:
        return np.asarray([self.find(label) for label in range(len(self.parent))], np.int64)

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        if is_depthwise(row, len(x)):
            return self._pass_on(row, x)
        made = self.new(row)
        if row.groups > 1:
            reason = f"{row.name} has {row.groups} groups"
            self.protect(x, reason)
            self.protect(made, reason)
        return made

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            # The older label is the root, so that roots stand in the order of the table.
            low, high = sorted((self.find(one), self.find(other)))
            self.parent[high] = low
        return self._pass_on(row, a)

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return self._pass_on(row, np.concatenate(xs))

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._pass_on(row, x)

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self._pass_on(row, x)

    def detect(self, row: Row, heads: Sequence[np.ndarray]) -> list[np.ndarray]:
        for labels in heads:
            self.protect(labels, "Detect's outputs have a meaning")
        return list(heads)

    def _pass_on(self, row: Row, x: np.ndarray) -> np.ndarray:
        self.labels[row.name] = x
        return x


def _groups(network: Network, labels: dict[str, np.ndarray], reasons: dict[int, str]) -> tuple[Group, ...]:
    producers: dict[int, list[str]] = {}
    for row in network.convs:
        if row.pads and row.groups > 1:  # makes no channels: its constant weights copy them
            continue
        for label in labels[row.name].tolist():
            producers.setdefault(label, []).append(row.name)
    members: dict[tuple[tuple[str, ...], str | None], list[int]] = {}
    for label, convs in producers.items():
        members.setdefault((tuple(convs), reasons.get(label)), []).append(label)
    # Groups that begin with the same convolution are numbered. The number does not depend on which of their channels there are, so that it stays as
    # channels are cut.
    numbers: dict[tuple[tuple[str, ...], str | None], int] = {}
    started: Counter[str] = Counter()
    for convs, reason in sorted(members, key=str):
        numbers[convs, reason] = started[convs[0]]
        started[convs[0]] += 1
    groups: list[Group] = []
    for (convs, reason), found in members.items():
        number = numbers[convs, reason]
        name = f"{convs[0]}~{number}" if number else convs[0]
        # A label may stand twice in one convolution (a concat of a map with itself, added to something); it is named once here.
        groups.append(Group(name, tuple(dict.fromkeys(convs)), np.asarray(found), reason))
    return tuple(groups)
