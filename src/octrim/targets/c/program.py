"""A network as tables for the runtime in C: maps, steps, stages, offsets of taps, and packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

import numpy as np

from octrim.network.cost import shapes
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.c.bands import banded, halo
from octrim.targets.c.lowering import Kind, Op, lowered
from octrim.targets.c.maps import LANES, Map, place, rounded
from octrim.targets.c.schedule import Stage, scheduled

# Transforms of the weights of Winograd's F(4, 3) and F(2, 3).
_F43 = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])
_F23 = np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]])

BLOCK = 8  # number of channels in a block of weights

_KEPT_ONCE = 100_000  # most numbers of an array that is kept once: looking for equal ones needs a copy


@dataclass(frozen=True)
class MapEntry:
    """A map as the struct `Map` of runtime/network.h."""

    at: int
    plane: int
    pitch: int
    channels: int
    height: int
    width: int
    margin: int
    padded: int
    rows: int


@dataclass(frozen=True)
class StepEntry:
    """A step as the struct `Step` of runtime/network.h."""

    kind: int
    activation: int = 0
    rows: int = 1
    input: int = -1
    output: int = -1
    add: int = -1
    taps: int = 0
    count: int = 0
    weights: int = 0
    bias: int = 0
    slope: int = 0
    groups: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pitch: int = 0
    tiles: int = 1
    box: int = 0
    anchors: int = 0
    halo: int = 0
    above: int = 0
    below: int = 0
    reach: int = 0


@dataclass(frozen=True)
class StageEntry:
    """A stage as the struct `Stage` of runtime/network.h."""

    first: int
    steps: int
    chunks: int
    size: int
    extent: int
    split: int
    planes: int


@dataclass(frozen=True, eq=False)
class Program:
    """The tables and weights that the runtime needs for pictures of one size.

    boxes, values: shape of the result. arena: floats for all maps, per band. scratch: floats per thread. map_names, step_names: for readers of the C
    file. taps: int32. weights: float32.
    """

    height: int
    width: int
    boxes: int
    values: int
    arena: int
    scratch: int
    bands: int
    maps: tuple[MapEntry, ...]
    steps: tuple[StepEntry, ...]
    stages: tuple[StageEntry, ...]
    map_names: tuple[str, ...]
    step_names: tuple[str, ...]
    taps: np.ndarray
    weights: np.ndarray

    @property
    def map_bytes(self) -> int:
        """Bytes of all maps of all bands."""
        return 4 * self.bands * self.arena


@dataclass(eq=False)
class ConstantPool:
    """Arrays one behind the other; small ones that are equal are kept once."""

    parts: list[np.ndarray] = field(default_factory=list)
    size: int = 0
    known: dict[bytes | None, int] = field(default_factory=dict)

    def add(self, values: np.ndarray | Sequence[int] | Sequence[float], dtype: type) -> int:
        """Append the values, unless an equal array is there; returns the index of their first number."""
        array = np.ascontiguousarray(values, dtype).ravel()
        key = array.tobytes() if array.size <= _KEPT_ONCE else None
        if key in self.known:
            return self.known[key]
        start = self.size
        if key is not None:
            self.known[key] = start
        self.parts.append(array)
        self.size += array.size
        return start

    def joined(self, dtype: type) -> np.ndarray:
        return np.concatenate(self.parts) if self.parts else np.zeros(0, dtype)


def program(model: Model, height: int, width: int) -> Program:
    """Tables and weights for pictures of height x width pixels. Raises InputError for a size that the network cannot take."""
    shapes(model.network, height, width)
    ops = lowered(model, height, width)
    bands = banded(ops.ops)
    stages = scheduled(ops.ops, bands)
    maps = list(dict.fromkeys(op.out for stage in stages for op in stage.ops if op.out is not None))
    arena = place(maps)
    builder = _Builder(model.network, {m: index for index, m in enumerate(maps)})
    entries: list[StageEntry] = []
    for stage in stages:
        entries.append(StageEntry(len(builder.steps), len(stage.ops), stage.chunks, stage.size, stage.extent, stage.split, int(stage.planes)))
        for op in stage.ops:
            builder.step(op, stage)
    return Program(
        height=height,
        width=width,
        boxes=ops.boxes,
        values=5 + model.network.classes,
        arena=rounded(arena),
        scratch=rounded(builder.scratch + 2 * LANES),
        bands=bands.count,
        maps=tuple(MapEntry(m.pixel(), m.plane, m.pitch, m.channels, m.height, m.width, m.margin, int(m.padded), m.rows) for m in maps),
        steps=tuple(builder.steps),
        stages=tuple(entries),
        map_names=tuple(m.name for m in maps),
        step_names=tuple(builder.names),
        taps=builder.taps.joined(np.int32),
        weights=builder.weights.joined(np.float32),
    )


class _Builder:
    """Packs the weights of one step after the other and writes down its offsets."""

    def __init__(self, network: Network, numbers: dict[Map, int]) -> None:
        self.network, self.numbers = network, numbers
        self.taps, self.weights = ConstantPool(), ConstantPool()
        self.steps: list[StepEntry] = []
        self.names: list[str] = []
        self.scratch = 0

    def step(self, op: Op, stage: Stage) -> None:
        base = 1 if stage.planes else op.rows // stage.extent
        read = self.numbers[op.reads[0]] if op.reads else -1
        common = {
            "kind": int(op.kind),
            "rows": base,
            "input": read,
            "output": -1 if op.out is None else self.numbers[op.out],
            "add": -1 if op.add is None else self.numbers[op.add],
        }
        reach, above, below = halo(op)
        if reach:
            common |= {"halo": self._offsets([*above, *below]), "above": len(above), "below": len(below), "reach": reach}
        make = {
            Kind.IMAGE: self._image,
            Kind.STEM: self._stem,
            Kind.CONVOLUTION: self._convolution,
            Kind.DEPTHWISE: self._depthwise,
            Kind.WINOGRAD: self._winograd,
            Kind.PLAIN: self._plain,
            Kind.ADD: self._add,
            Kind.POOL: self._pool,
            Kind.HEAD: self._head,
        }.get(op.kind, self._other)
        more = make(op)
        self.steps.append(StepEntry(**{**common, **more}))
        self.names.append(_described(op))

    def _offsets(self, values: Sequence[int]) -> int:
        return self.taps.add(values, np.int32)

    def _numbers(self, values: np.ndarray | Sequence[float]) -> int:
        return self.weights.add(values, np.float32)

    def _activation(self, op: Op) -> dict[str, int]:
        return {"activation": int(op.activation), "slope": self._numbers([op.slope])}

    def _bias(self, bias: np.ndarray, groups: int = 1) -> int:
        per_group = bias.reshape(groups, -1)
        return self._numbers(np.pad(per_group, ((0, 0), (0, -per_group.shape[1] % BLOCK))))

    def _image(self, op: Op) -> dict[str, int]:
        assert op.out is not None
        if op.out.channels == 3:
            return {}
        self.scratch = max(self.scratch, 12 * op.out.width // 2)
        return {"stride": 2}

    def _stem(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None and op.out is not None
        # Planes: channel, parity of the row, parity of the column; [out, 3 rows, 3 columns] each.
        order = [(channel, line, column) for line in (0, 1) for channel in range(3) for column in (0, 1)]
        windows = np.stack([op.weight[:, channel, line::2, column::2] for channel, line, column in order])
        tiles = np.einsum("kx,jy,toyx->kjto", _F23, _F43, windows).reshape(24, len(order), -1)
        columns = self._picture_width(op) // 4
        length = rounded(columns) + 2 * LANES
        self.scratch = max(self.scratch, LANES + (144 + 288) * length + LANES)
        split = op.out.channels != op.row.channels
        return {
            **self._activation(op),
            "taps": self._offsets([plane * length for plane in range(12)]),
            "count": 12,
            "weights": self._numbers(_blocks(tiles).transpose(1, 0, 2, 3)),
            "bias": self._bias(op.bias),
            "stride": 2 if split else 1,
        }

    def _picture_width(self, op: Op) -> int:
        assert op.out is not None
        split = op.out.channels != op.row.channels
        return op.out.width * (4 if split else 2)

    def _convolution(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None
        groups = op.weight.reshape(op.row.groups, op.weight.shape[0] // op.row.groups, -1)
        weights = self._numbers(np.stack([_blocks(weight.T[None])[0] for weight in groups]))
        return {**self._shifted(op), "weights": weights, "bias": self._bias(op.bias, op.row.groups)}

    def _depthwise(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None
        return {**self._shifted(op), "weights": self._numbers(op.weight), "bias": self._numbers(op.bias)}

    def _shifted(self, op: Op) -> dict[str, int]:
        """What a sum over taps needs besides weights and bias."""
        assert op.weight is not None
        row, inputs = op.row, op.weight.shape[1]
        window = [(i, y, x) for i in range(inputs) for y in range(row.kernel) for x in range(row.kernel)]
        offsets = [_tap(op, group * inputs + i, y, x) for group in range(row.groups) for i, y, x in window]
        return {
            **self._activation(op),
            "taps": self._offsets(offsets),
            "count": len(window),
            "groups": row.groups,
            "kernel": row.kernel,
            "stride": row.stride,
            "padding": row.padding,
            "pitch": op.reads[0].pitch,
        }

    def _winograd(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None and op.out is not None
        outputs, inputs = op.weight.shape[:2]
        count = -(-op.out.rows // 4) if op.narrow else 1
        line = rounded((count - 1) * op.out.pitch + op.out.width + 2 + LANES)
        tiles = np.einsum("ky,oiyx->kixo", _F43, op.weight).reshape(6, inputs * 3, outputs)
        offsets = [i * line + x for i in range(inputs) for x in range(3)] + [m.pixel(channel) for m, channel in op.x]
        self.scratch = max(self.scratch, (6 * inputs + 4 * BLOCK) * line + LANES)
        return {
            **self._activation(op),
            "taps": self._offsets(offsets),
            "count": inputs * 3,
            "weights": self._numbers(_blocks(tiles).transpose(1, 0, 2, 3)),
            "bias": self._bias(op.bias),
            "kernel": 3,
            "padding": 1,
            "pitch": op.out.pitch,
            "tiles": count,
        }

    def _plain(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None
        row = op.row
        return {
            **self._activation(op),
            "taps": self._offsets([m.pixel(channel) for m, channel in op.x]),
            "count": op.weight.shape[1],
            "weights": self._numbers(op.weight),
            "bias": self._numbers(op.bias),
            "groups": row.groups,
            "kernel": row.kernel,
            "stride": row.stride,
            "padding": row.padding,
        }

    def _add(self, op: Op) -> dict[str, int]:
        return {"taps": self._offsets([m.pixel(channel) for m, channel in op.x]), "count": len(op.x) // 2}

    def _pool(self, op: Op) -> dict[str, int]:
        assert op.out is not None
        m, row = op.reads[0], op.row
        padded = (m.height + 2 * row.padding) * (m.width + max(row.padding, 1))
        line = rounded(2 * op.out.width * row.stride + 2 * row.kernel + m.width + row.padding)
        self.scratch = max(self.scratch, 2 * padded + row.kernel + row.padding + 6 * LANES, 3 * line)
        return {"count": line, "kernel": row.kernel, "stride": row.stride, "padding": row.padding}

    def _head(self, op: Op) -> dict[str, int]:
        assert op.weight is not None and op.bias is not None
        anchors, stride = np.asarray(self.network.anchors[op.level]), self.network.strides[op.level]
        values = 5 + self.network.classes
        lanes = np.zeros((5, len(anchors), values))  # bias; a, b of s (a s + b) + c; what c grows by per column, per row
        lanes[0] = op.bias.reshape(len(anchors), values)
        lanes[2] = 1
        lanes[2, :, :2] = 2 * stride
        lanes[1, :, 2:4], lanes[2, :, 2:4] = 4 * anchors, 0
        lanes[3, :, 0] = lanes[4, :, 1] = stride
        padding = -len(op.bias) % LANES
        weight = np.pad(op.weight[:, :, 0, 0], ((0, padding), (0, 0)))
        self.scratch = max(self.scratch, BLOCK * len(weight))
        return {
            "taps": self._offsets([m.pixel(channel) for m, channel in op.x]),
            "count": op.weight.shape[1],
            "weights": self._numbers(weight.reshape(-1, LANES, op.weight.shape[1]).swapaxes(1, 2)),
            "bias": self._numbers(np.pad(lanes.reshape(5, -1), ((0, 0), (0, padding)))),
            "stride": stride,
            "box": op.box,
            "anchors": len(anchors),
        }

    def _other(self, op: Op) -> dict[str, int]:
        return {"stride": op.row.stride} if op.kind == Kind.UPSAMPLE else {}


def _tap(op: Op, plane: int, y: int, x: int) -> int:
    """Offset in the arena of a plane, shifted by one element of the window."""
    m, channel = op.x[plane]
    dy, dx = y - op.row.padding, x - op.row.padding
    if op.row.stride == 1:
        return m.pixel(channel, dy, dx)
    return op.parity[m].pixel(channel * 4 + dy % 2 * 2 + dx % 2, dy // 2, dx // 2)


def _blocks(tiles: np.ndarray) -> np.ndarray:
    """Weights `[k, taps, out]` in blocks of eight channels, `[k, blocks, taps, 8]`, filled up with zeros."""
    k, taps, outputs = tiles.shape
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, -outputs % BLOCK)))
    return padded.reshape(k, taps, -1, BLOCK).transpose(0, 2, 1, 3)


def _described(op: Op) -> str:
    """The line about a step for readers of the C file."""
    row = op.row
    if op.kind == Kind.HEAD:
        return f"{row.name}: level {op.level}"
    if op.weight is None:
        return f"{row.name}: {op.kind.name.lower()}"
    kind = {
        Kind.STEM: "stem",
        Kind.DEPTHWISE: "depthwise convolution",
        Kind.WINOGRAD: "convolution by Winograd",
        Kind.PLAIN: "plain convolution",
    }.get(op.kind, "convolution")
    outputs, inputs = op.weight.shape[0], op.weight.shape[1] * row.groups
    groups = f", {row.groups} groups" if row.groups > 1 and op.kind != Kind.DEPTHWISE else ""
    return f"{row.name}: {kind} {row.kernel}x{row.kernel}, {inputs} -> {outputs}, stride {row.stride}{groups}, {row.activation or 'no activation'}"


def entry(values: MapEntry | StepEntry | StageEntry) -> tuple[int, ...]:
    """The fields of an entry in the order of the struct in C."""
    return astuple(values)
