"""The table of rows lowered to steps: convolutions over planes, splits by parity, pools, upsampling, sums, heads.

A value of the walk is a list of (map, channel), so that a concat moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.targets.c.maps import LANES, Map, rounded

LOG2E = 1 / np.log(2)

# Largest kernel and margin of a convolution over shifted planes; others go through the plain loop.
_MOST_KERNEL, _MOST_MARGIN = 15, 8

# Largest kernel of a depthwise convolution with a loop of its own, whose sums are not made of shorter ones.
_MOST_DEPTHWISE = 11


class Kind(IntEnum):
    """Kind of a step, numbered as `enum Kind` of runtime/network.h."""

    IMAGE = 0
    STEM = 1
    PARITY = 2
    CONVOLUTION = 3
    WINOGRAD = 4
    PLAIN = 5
    ADD = 6
    POOL = 7
    UPSAMPLE = 8
    HEAD = 9
    DEPTHWISE = 10


SHIFTED = (Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.WINOGRAD)
"""Kinds of convolutions over shifted planes, whose windows read the margins of maps."""


class Activation(IntEnum):
    """Activation behind a convolution, numbered as `enum Activation` of runtime/network.h."""

    LINEAR = 0
    SILU = 1
    RELU6 = 2
    HARDSWISH = 3
    MISH = 4
    SIGMOID = 5


Value = list[tuple[Map, int]]


@dataclass(eq=False)
class Op:
    """A step of the program before it has a place in memory.

    reads: maps that it reads. out: map that it writes. rows: number of rows that are shared out, the output's for all but upsampling. near: whether
    row y needs only rows of the same part of the picture, so that the step can follow its producer without all threads waiting for each other.
    x: planes that are read. weight: `[out, in / groups, kernel, kernel]`; it and the bias are in units of log2(e). add: map that is added behind the
    activation. parity: of a convolution of stride 2, the maps that every map was split into. narrow: whether Winograd's transform takes all lines of
    a band at once. box: first box of a head.
    """

    kind: Kind
    row: Row
    reads: list[Map]
    out: Map | None
    rows: int
    near: bool
    x: Value = field(default_factory=list)
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    add: Map | None = None
    parity: dict[Map, Map] = field(default_factory=dict)
    narrow: bool = False
    level: int = 0
    box: int = 0
    stage: int = 0

    @property
    def activation(self) -> Activation:
        name = self.row.activation_name.upper()
        return Activation[name] if name in Activation.__members__ else Activation.LINEAR

    @property
    def slope(self) -> float:
        """Factor of values below zero in the activation LINEAR."""
        if self.row.activation == "relu":
            return 0.0
        return self.row.slope if self.row.activation_name == "leaky_relu" else 1.0


class CompilerOps:
    """`Ops` over lists of planes. `ops` are the steps in the order in which they are computed."""

    def __init__(self, model: Model, height: int, width: int) -> None:
        self.model, self.height, self.width = model, height, width
        self.ops: list[Op] = []
        self.producer: dict[Map, Op] = {}
        self.derived: dict[tuple[Any, ...], Map] = {}
        self.margins: dict[tuple[int, int], int] = {}
        self.readers = [name for row in model.network.rows for name in row.inputs]
        self.boxes = 0

    def image(self) -> Value:
        """The picture as the walk's first value: no planes yet, because bytes become planes only when a row asks for them."""
        return []

    def conv(self, row: Row, x: Value) -> Value:
        if row.name in self.model.network.heads and (row.kernel, row.stride, row.padding) == (1, 1, 0):
            return self._planes(row, x)  # the head's step computes this convolution
        weight, bias = self._weights(row)
        if row.inputs == ("images",) and self._is_stem(row):
            return self._stem(row, weight, bias)
        x = self._planes(row, x)
        maps = list(dict.fromkeys(m for m, _ in x))
        height, width = ((side + 2 * row.padding - row.kernel) // row.stride + 1 for side in maps[0].size)
        out = Map(row.name, row.channels, height, width)
        op = Op(Kind.PLAIN, row, maps, out, height, row.kernel == row.stride == 1 and row.padding == 0, x, weight, bias)
        if row.stride == 1 and self._takes_margin(row, maps[0].size, (height, width), 1):
            op.kind = Kind.DEPTHWISE if _is_depthwise(row, len(x)) else Kind.CONVOLUTION
            self._pad(maps, row.padding)
        elif row.stride == 2 and maps[0].height % 2 == maps[0].width % 2 == 0 and self._takes_margin(row, maps[0].size, (height, width), 2):
            op.kind = Kind.DEPTHWISE if _is_depthwise(row, len(x)) else Kind.CONVOLUTION
            op.parity = {m: self._parity(m, row) for m in maps}
            op.reads = list(op.parity.values())
            self._pad(op.reads, self._reach(row, maps[0].size, (height, width), 2))
        return self._made(op)

    def add(self, row: Row, a: Value, b: Value) -> Value:
        for x, other, name in ((b, a, row.inputs[1]), (a, b, row.inputs[0])):
            if self._can_carry(x, other, name):
                op = self.producer[x[0][0]]
                op.add = other[0][0]
                op.reads = [*op.reads, other[0][0]]
                return x
        a, b = self._planes(row, a), self._planes(row, b)
        maps = list(dict.fromkeys(m for m, _ in [*a, *b]))
        out = Map(row.name, len(a), *maps[0].size)
        return self._made(Op(Kind.ADD, row, maps, out, out.height, True, [*a, *b]))

    def concat(self, row: Row, xs: Sequence[Value]) -> Value:
        return [plane for x in xs for plane in self._planes(row, x)]

    def maxpool(self, row: Row, x: Value) -> Value:
        x = self._planes(row, x)

        def pool(m: Map) -> Map:
            height, width = ((side + 2 * row.padding - row.kernel) // row.stride + 1 for side in m.size)
            return self._derive(Op(Kind.POOL, row, [m], Map(row.name, m.channels, height, width), m.channels, False))

        return self._each(x, ("pool", row.kernel, row.stride, row.padding), pool)

    def upsample(self, row: Row, x: Value) -> Value:
        x = self._planes(row, x)

        def grow(m: Map) -> Map:
            out = Map(row.name, m.channels, m.height * row.stride, m.width * row.stride)
            return self._derive(Op(Kind.UPSAMPLE, row, [m], out, m.height, True))

        return self._each(x, ("upsample", row.stride), grow)

    def detect(self, row: Row, heads: Sequence[Value]) -> list[Value]:
        network = self.model.network
        convs = {conv.name: conv for conv in network.convs}
        for level, (name, x) in enumerate(zip(row.inputs, heads, strict=True)):
            conv = convs[name]
            if (conv.kernel, conv.stride, conv.padding) == (1, 1, 0):
                weight, bias = self._weights(conv)
            else:  # here the convolution is a step of its own, and the head only decodes
                weight, bias = np.eye(conv.channels)[:, :, None, None], np.zeros(conv.channels)
            maps = list(dict.fromkeys(m for m, _ in x))
            height, width = maps[0].size
            self.ops.append(Op(Kind.HEAD, conv, maps, None, height, True, x, weight, bias, level=level, box=self.boxes))
            self.boxes += len(network.anchors[level]) * height * width
        return list(heads)

    def _weights(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias for maps that carry their values times log2(e), which saves a product in every exponential."""
        weight, bias = folded_conv(self.model, row)
        return weight, bias * LOG2E

    def _planes(self, row: Row, x: Value) -> Value:
        """The planes of a value; those of the picture are made when they are first asked for."""
        if x or "images" not in row.inputs:
            return x
        if ("images",) not in self.derived:
            out = Map("images", 3, self.height, self.width)
            self.derived[("images",)] = self._derive(Op(Kind.IMAGE, self.model.network.rows[0], [], out, self.height, True))
        return [(self.derived[("images",)], channel) for channel in range(3)]

    def _is_stem(self, row: Row) -> bool:
        return (row.kernel, row.stride, row.padding, row.groups) == (6, 2, 2, 1) and self.height % 8 == 0 and self.takes_lines()

    def takes_lines(self) -> bool:
        """Whether lines of the picture can be unpacked to lines of every fourth column."""
        return self.width % 4 == 0 and self.width >= 4 * LANES

    def _stem(self, row: Row, weight: np.ndarray, bias: np.ndarray) -> Value:
        out = Map(row.name, row.channels, self.height // 2, self.width // 2)
        return self._made(Op(Kind.STEM, row, [], out, out.height, False, [], weight * (LOG2E / 255), bias))

    def _made(self, op: Op) -> Value:
        assert op.out is not None
        self._derive(op)
        return [(op.out, channel) for channel in range(op.out.channels)]

    def _derive(self, op: Op) -> Map:
        assert op.out is not None
        self.ops.append(op)
        self.producer[op.out] = op
        return op.out

    def _each(self, x: Value, key: tuple[Any, ...], make: Any) -> Value:
        """Call `make` once for every map of the value; two rows that ask for the same map share what it made."""
        for m in dict.fromkeys(m for m, _ in x):
            if (m, *key) not in self.derived:
                self.derived[(m, *key)] = make(m)
        return [(self.derived[(m, *key)], channel) for m, channel in x]

    def _parity(self, m: Map, row: Row) -> Map:
        if (m, "parity") not in self.derived:
            out = Map(f"{m.name} by parity", m.channels * 4, m.height // 2, m.width // 2)
            self.derived[(m, "parity")] = self._derive(Op(Kind.PARITY, row, [m], out, out.height, True))
        return self.derived[(m, "parity")]

    def _reach(self, row: Row, size: tuple[int, int], out: tuple[int, int], stride: int) -> int:
        """How far a window reaches over the border of the planes that it reads, in pixels of these planes."""
        before = -((-row.padding) // stride)
        after = max(o - 1 + (row.kernel - 1 - row.padding) // stride - (side // stride - 1) for o, side in zip(out, size, strict=True))
        return max(before, after)

    def _takes_margin(self, row: Row, size: tuple[int, int], out: tuple[int, int], stride: int) -> bool:
        return row.kernel <= _MOST_KERNEL and self._reach(row, size, out, stride) <= _MOST_MARGIN

    def _pad(self, maps: Sequence[Map], margin: int) -> None:
        for m in maps:
            m.padded = m.padded or margin > 0
            self.margins[m.size] = max(self.margins.get(m.size, 1), margin)

    def _can_carry(self, x: Value, other: Value, name: str) -> bool:
        """Whether the convolution that makes x can add `other`, too: nothing else reads x, and `other` is one map, made before."""
        if not x or not other:
            return False
        op = self.producer[x[0][0]]
        before = self.producer[other[0][0]]
        whole = [(op.out, channel) for channel in range(len(x))] == x and [(other[0][0], channel) for channel in range(len(other))] == other
        fits = op.kind in (Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.PLAIN) and op.add is None and op.row.name == name and self.readers.count(name) == 1
        same = op.out is not None and op.out.channels == len(x) == other[0][0].channels
        return fits and whole and same and self.ops.index(before) < self.ops.index(op)


def lowered(model: Model, height: int, width: int) -> CompilerOps:
    """The steps of a network for pictures of one size; their maps have their margins."""
    ops = CompilerOps(model, height, width)
    walk(model.network, ops, ops.image())
    _split_where_made(ops)
    for op in ops.ops:
        if op.out is not None:
            op.out.margin = ops.margins.get(op.out.size, 1)
        if op.kind == Kind.CONVOLUTION and op.out is not None and _for_winograd(op):
            op.narrow = not _fills_vectors(op.out)
            if not op.narrow or _gains_narrow(op.out):
                op.kind = Kind.WINOGRAD
    return ops


def _split_where_made(ops: CompilerOps) -> None:
    """Let the stem, or the step that reads the picture, write planes split by parity where only a convolution of stride 2 reads them, as in every
    YOLOv5, and drop the step that split."""
    for op in [op for op in ops.ops if op.kind == Kind.STEM or (op.kind == Kind.IMAGE and ops.takes_lines())]:
        readers = [other for other in ops.ops if op.out in other.reads]
        if [other.kind for other in readers] == [Kind.PARITY]:
            ops.ops.remove(readers[0])
            op.out, op.rows = readers[0].out, op.rows if op.kind == Kind.STEM else readers[0].rows


def _is_depthwise(row: Row, inputs: int) -> bool:
    """Whether every channel of a convolution is a convolution of one of the `inputs` planes with itself."""
    return row.groups == row.channels == inputs > 1 and row.kernel <= _MOST_DEPTHWISE


def _for_winograd(op: Op) -> bool:
    """Whether Winograd's transform can do a convolution: 3 x 3 at stride 1."""
    row = op.row
    return (row.kernel, row.stride, row.padding, row.groups) == (3, 1, 1, 1)


def _fills_vectors(m: Map) -> bool:
    """Whether single lines of the map fill vectors, and its height is made of tiles of four."""
    return m.width >= LANES and m.width / rounded(m.width) > 0.7 and m.height % 4 == 0


def _gains_narrow(m: Map) -> bool:
    """Whether Winograd's transform of half the map, tiles of four lines one behind the other, makes a quarter fewer products of vectors."""
    rows = -(-m.height // 2)
    tiles = -(-rows // 4)
    return 6 * 3 * rounded(tiles * m.pitch - 1) < 0.75 * 9 * rounded(rows * m.pitch) and tiles * m.pitch > LANES
