"""The table of rows lowered to steps over int8 maps, `[height][width][channels]`, with a place for each map in one block of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from octrim.backends.numpy import activate
from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.targets.integers import BOX_LOGITS, CLAMPED, Integers, Quantization

_STEPS = np.arange(-128, 128)


@dataclass(eq=False)
class IntegerMap:
    """A map. offset: its place in memory, in bytes; -1 for the picture. first, last: steps between which it holds something. positive: whether it has
    no number below zero. inside, place: the concatenation that it is a part of in memory, and its first channel there."""

    name: str
    height: int
    width: int
    channels: int
    meaning: Quantization
    offset: int = -1
    first: int = 0
    last: int = 0
    positive: bool = False
    inside: IntegerMap | None = None
    place: int = 0

    @property
    def size(self) -> int:
        return self.height * self.width * self.channels


@dataclass(eq=False)
class Step:
    """One step of the C file's `steps`. inputs: maps that it reads. multipliers, shifts, biases: per channel, or of a sum's inputs.

    place: the first channel of the output that it writes. table: what follows, 256 values, and -1 behind it for none. zero, low, high: added, and
    limits, in front of the table.
    """

    kind: str
    row: Row
    inputs: list[IntegerMap]
    output: IntegerMap
    channels: int
    place: int = 0
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    biases: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    multipliers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shifts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    table: np.ndarray | None = None
    zero: int = 0
    low: int = -128
    high: int = 127

    @property
    def words(self) -> int:
        """Number of words of 4 bytes in a line of a convolution's window."""
        return -(-self.row.kernel * self.inputs[0].channels // self.row.groups // 4)

    @property
    def depthwise(self) -> bool:
        """Whether every channel of a convolution is a convolution of one channel of the input."""
        return self.row.groups == self.channels == self.inputs[0].channels > 1

    def packed(self) -> np.ndarray:
        """Weights of a convolution in the order of the C file, int8, one dimension; lines are filled up with zeros to multiples of 8."""
        if self.depthwise:
            return self.weight[..., 0].transpose(1, 2, 0).ravel()
        outputs, kernel, _, inputs = self.weight.shape
        eights = (self.words + 1) // 2
        lines = np.zeros((outputs, kernel, 8 * eights), np.int8)
        lines[:, :, : kernel * inputs] = self.weight.reshape(outputs, kernel, -1)
        words = lines.reshape(outputs, kernel, eights, 8)
        each = outputs // self.row.groups
        blocks = [words[group + first : group + min(first + 8, each)] for group in range(0, outputs, each) for first in range(0, each, 8)]
        return np.concatenate([block.transpose(1, 2, 0, 3).ravel() for block in blocks])


class StepOps:
    """`Ops` over `IntegerMap`s; `steps` are in the order in which they are computed, and every map of `maps` has its place after `placed`."""

    def __init__(self, model: Model, height: int, width: int) -> None:
        self.model, self.integers = model, Integers(model)
        self.shapes = shapes(model.network, height, width)
        self.steps: list[Step] = []
        self.maps: list[IntegerMap] = []
        self.readers = Counter(name for one in model.network.rows for name in one.inputs)
        row = model.network.rows[0]
        # The convolution reads bytes as they are: 0 to 255 and no zero point.
        self.picture = IntegerMap(row.name, height, width, row.channels, Quantization(self.integers.map(row).step))

    def map(self, row: Row, name: str = "") -> IntegerMap:
        channels, height, width = self.shapes[row.name]
        made = IntegerMap(name or row.name, height, width, channels, self.integers.map(row), offset=0, first=len(self.steps))
        self.maps.append(made)
        return made

    def like(self, row: Row, x: IntegerMap) -> IntegerMap:
        """The map of a row whose numbers are some of those of `x`."""
        made = self.map(row)
        made.positive = x.positive
        return made

    def step(self, step: Step) -> IntegerMap:
        self.steps.append(step)
        for one in step.inputs:
            one.last = len(self.steps) - 1
        step.output.last = max(step.output.last, len(self.steps) - 1)
        return step.output

    def conv(self, row: Row, x: IntegerMap) -> IntegerMap:
        weight, bias = folded_conv(self.model, row)
        found = self.integers.parameters(row, x.meaning.step, weight, bias)
        output = self.map(row)
        step = Step("CONVOLUTION", row, [x], output, row.channels, weight=found.weight.transpose(0, 2, 3, 1), biases=found.bias)
        if row.activation in CLAMPED:
            meaning = output.meaning
            low, high = (limit / meaning.step + meaning.zero_point for limit in CLAMPED[row.activation])
            step.low, step.high = (int(np.clip(np.rint(limit), -128, 127)) for limit in (low, high))
        else:
            meaning = self.integers.before_activation(row)
            values = activate(row, (_STEPS - meaning.zero_point) * np.float64(meaning.step))
            step.table = integers(values, output.meaning)
        step.zero = meaning.zero_point
        output.positive = bool(step.low >= 0 if step.table is None else step.table.min() >= 0)
        step.multipliers, step.shifts = fixed_point(found.units / self.steps_of(row, meaning))
        return self.step(step)

    def steps_of(self, row: Row, meaning: Quantization) -> np.ndarray:
        """Step of each channel of a convolution's integers, `[channels]`: that of its map, but finer for centre and size of Detect's boxes."""
        steps = np.full(row.channels, meaning.step)
        if row.name in self.model.network.heads:
            steps.reshape(-1, 5 + self.model.network.classes)[:, :4] = BOX_LOGITS.step
        return steps

    def add(self, row: Row, a: IntegerMap, b: IntegerMap) -> IntegerMap:
        output = self.map(row)
        a, b = self.signed(row, a), self.signed(row, b)
        step = Step("ADD", row, [a, b], output, output.channels)
        ratios = np.asarray([one.meaning.step / output.meaning.step for one in (a, b)])
        # Two products of 22 bits and 8 bits, and half a step, fit 32 bits.
        shift = int(np.clip(21 - np.ceil(np.log2(ratios.max())), 1, 30))
        step.multipliers, step.shifts = np.rint(ratios * 2.0**shift).astype(np.int64), np.asarray([shift])
        output.positive = a.positive and b.positive
        return self.step(step)

    def concat(self, row: Row, xs: Sequence[IntegerMap]) -> IntegerMap:
        output = self.map(row)
        output.positive = all(x.positive or x is self.picture for x in xs)
        place = 0
        for x in xs:
            if not self.put_inside(x, output, place):
                self.step(Step("COPY", row, [x], output, x.channels, place, table=self.bytes_of(x, output.meaning)))
            place += x.channels
        output.last = max(output.last, len(self.steps) - 1)
        return output

    def put_inside(self, x: IntegerMap, output: IntegerMap, place: int) -> bool:
        """Let the step that makes `x` write it into a concatenation where that alone reads it; whether it can be done.

        Sums and tables go over a map in one line, which is faster than what a copy takes.
        """
        maker = next((step for step in self.steps if step.output is x), None)
        if maker is None or maker.kind not in ("CONVOLUTION", "UPSAMPLE") or maker.table is not None or self.readers[x.name] > 1:
            return False
        x.inside, x.place = output, place
        output.first = min(output.first, x.first)
        self.maps.remove(x)
        return True

    def maxpool(self, row: Row, x: IntegerMap) -> IntegerMap:
        x = self.signed(row, x)
        return self.step(Step("POOL", row, [x], self.like(row, x), x.channels))

    def upsample(self, row: Row, x: IntegerMap) -> IntegerMap:
        x = self.signed(row, x)
        return self.step(Step("UPSAMPLE", row, [x], self.like(row, x), x.channels))

    def detect(self, row: Row, heads: Sequence[IntegerMap]) -> list[IntegerMap]:
        for head in heads:
            head.last = len(self.steps)
        return list(heads)

    def signed(self, row: Row, x: IntegerMap) -> IntegerMap:
        """The map itself, or for the picture a map of its integers with the scale that rows besides convolutions read it in."""
        if x is not self.picture:
            return x
        meaning = Quantization.of(self.integers.scale(x.name))
        made = IntegerMap(f"{row.name}/{x.name}", x.height, x.width, x.channels, meaning, offset=0, first=len(self.steps), positive=True)
        self.maps.append(made)
        return self.step(Step("COPY", row, [x], made, x.channels, table=self.bytes_of(x, meaning)))

    def bytes_of(self, x: IntegerMap, meaning: Quantization) -> np.ndarray | None:
        """What the picture's bytes are in another map's integers; None for other maps, which have them already."""
        return integers(np.arange(256) * np.float64(x.meaning.step), meaning) if x is self.picture else None


def lowered(model: Model, height: int, width: int) -> tuple[StepOps, list[IntegerMap], int]:
    """The steps, the maps of the levels' logits, and the bytes of memory. Raises InputError where a map has no scale."""
    ops = StepOps(model, height, width)
    heads = walk(model.network, ops, ops.picture)
    return ops, heads, placed(ops.maps)


def placed(maps: Sequence[IntegerMap]) -> int:
    """Give every map a place that no other has in the meantime, the largest first, each as low as it can; returns the bytes of all."""
    done: list[IntegerMap] = []
    for one in sorted(maps, key=lambda one: (-one.size, one.first)):
        others = sorted((other for other in done if other.first <= one.last and one.first <= other.last), key=lambda other: other.offset)
        one.offset = 0
        for other in others:
            if one.offset + one.size <= other.offset:
                break
            one.offset = max(one.offset, _aligned(other.offset + other.size))
        done.append(one)
    return _aligned(max((one.offset + one.size for one in maps), default=0))


def _aligned(offset: int) -> int:
    return -(-offset // 4) * 4


def integers(values: np.ndarray, meaning: Quantization) -> np.ndarray:
    """Values as int8 of this meaning."""
    return np.clip(np.rint(values / meaning.step) + meaning.zero_point, -128, 127).astype(np.int8)


def fixed_point(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of 31 bits and shifts, for which ratio = multiplier / 2^shift; a ratio below 2^-32 is 0."""
    mantissa, exponent = np.frexp(ratios)
    multipliers = np.rint(mantissa * 2.0**31).astype(np.int64)
    over = multipliers == 2**31
    multipliers, exponent = np.where(over, 2**30, multipliers), exponent + over
    shifts = 31 - exponent
    tiny = shifts > 62
    return np.where(tiny, 0, multipliers), np.clip(shifts, 1, 62)
