"""Forward passes of a network whose weights stay as they are, by oneDNN, in float32 or bfloat16: what a teacher needs.

    infer = Inference(model, "bfloat16")
    heads, features = infer(images, features=True)

Unlike in `program`, which also trains, weights are brought into oneDNN's layout once, a convolution applies its activation before it writes its map,
and maps and weights may be in bfloat16. In float32 the numbers are the same to the bit.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from octrim.backends.onednn import library as dnn
from octrim.backends.onednn.library import Attributes, Description, Memory, Operation, PrimitiveCall, RefusedError
from octrim.backends.onednn.memory_plan import PROGRAMS_KEPT, aligned_block, places
from octrim.backends.onednn.program import ACTIVATIONS, window_of_maxpool
from octrim.network.model import Model
from octrim.network.rows import Row, walk

Precision = Literal["float32", "bfloat16"]


class Inference:
    """The network of `model`, for any shape of batch.

    model: a model without batch norm (`folded`). precision: number format of maps and weights; sums, biases and outputs are float32 always. Raises
    RefusedError where oneDNN, or in bfloat16 the processor, cannot run it fast.
    """

    def __init__(self, model: Model, precision: Precision = "float32") -> None:
        if dnn.library() is None:
            raise RefusedError("no oneDNN")
        if precision == "bfloat16" and not dnn.has_bfloat16():
            raise RefusedError("the processor has no instructions for bfloat16")
        self.model = model
        self._weights = _Weights(model, dnn.BFLOAT16 if precision == "bfloat16" else dnn.FLOAT32)
        self._programs: OrderedDict[Any, _Program] = OrderedDict()
        self._block = aligned_block(0)

    def __call__(self, images: np.ndarray, features: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Logits per level, float32 `[batch, anchors x (5 + classes), height, width]`, and with `features` per level the map, float32
        `[batch, channels, height, width]`, that Detect's convolution reads.

        images: float32 `[batch, 3, height, width]`, 0..1.
        """
        images = np.ascontiguousarray(images, np.float32)
        made = [np.empty(shape, np.float32) for shape in self.outputs(images.shape, features)]
        self.run(images, made, features)
        levels = len(self.model.network.heads)
        return made[:levels], made[levels:]

    def outputs(self, shape: tuple[int, ...], features: bool = False) -> list[tuple[int, ...]]:
        """Shapes of what is computed for images of a shape: logits per level, then maps."""
        return self._program(shape, features).outputs

    def run(self, images: np.ndarray, outputs: Sequence[np.ndarray], features: bool = False) -> None:
        """Write logits and maps for images into arrays of the shapes that `outputs` gives. All are float32 and contiguous."""
        program = self._program(images.shape, features)
        if self._block.nbytes < program.bytes:
            self._block = aligned_block(program.bytes)
        program.run(self._block.ctypes.data, images, outputs)

    def _program(self, shape: tuple[int, ...], features: bool) -> _Program:
        key = shape, features
        if key not in self._programs:
            self._programs[key] = _Program(self.model, self._weights, shape, features)
            if len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]


class _Weights:
    """Weights and biases where oneDNN reads them, in every layout that a convolution has asked for so far. kind: number format of the weights."""

    def __init__(self, model: Model, kind: int) -> None:
        self.kind, self._model = kind, model
        self._kept: dict[str, list[tuple[Memory, np.ndarray]]] = {}  # by name; the arrays are what the memories point to

    def weight(self, row: Row, plain: Description, wanted: Description) -> Memory:
        """The weight of a convolution in the layout `wanted`. plain: the layout of the model's tensor."""
        kept = self._kept.setdefault(row.weight_name, [])
        for memory, _ in kept:
            if memory.description == wanted:
                return memory
        target = self._keep(row.weight_name, wanted, aligned_block(wanted.bytes))
        values = np.ascontiguousarray(self._model.tensors[row.weight_name], np.float32)
        source = Memory(plain)
        source.at(values.ctypes.data)
        PrimitiveCall(dnn.reorder(plain, wanted), {dnn.SRC: source, dnn.DST: target})()
        return target

    def bias(self, row: Row) -> Memory:
        name = f"{row.name}.bias"
        if name not in self._kept:
            values = np.ascontiguousarray(self._model.tensors[name], np.float32)
            return self._keep(name, Description((row.channels,), dnn.VECTOR), values)
        return self._kept[name][0][0]

    def _keep(self, name: str, description: Description, block: np.ndarray) -> Memory:
        memory = Memory(description)
        memory.at(block.ctypes.data)
        self._kept.setdefault(name, []).append((memory, block))
        return memory


class _Program:
    """The forward pass for one shape. As an `Ops` it reads the table and emits steps.

    outputs: shapes of the outputs: the heads, and with `features` the maps that the heads' convolutions read. bytes: size of the block that it needs.
    """

    def __init__(self, model: Model, weights: _Weights, shape: tuple[int, ...], features: bool) -> None:
        self._weights, self._kind = weights, weights.kind
        self._features: dict[str, Any] = dict.fromkeys(model.network.rows[-1].inputs) if features else {}
        self._steps: list[PrimitiveCall] = []
        self._constant: set[int] = set()
        self._images = Memory(Description(shape, dnn.NCHW))
        self._outputs: list[Memory] = []
        walk(model.network, self, self._reordered(self._images, self._map(shape)))
        self.outputs = [output.description.shape for output in self._outputs]
        outside = {*self._constant, *map(id, (self._images, *self._outputs))}
        self.bytes, self._places = places(self._steps, len(self._steps), [], outside)
        self._base = 0

    def run(self, block: int, images: np.ndarray, outputs: Sequence[np.ndarray]) -> None:
        """Compute the outputs of contiguous images, with the maps in the block at the address `block`."""
        if block != self._base:
            for memory, offset in self._places:
                memory.at(block + offset)
            self._base = block
        for memory, array in zip((self._images, *self._outputs), (images, *outputs), strict=True):
            memory.at(array.ctypes.data)
        for step in self._steps:
            step()

    def _map(self, shape: Sequence[int]) -> Description:
        return Description(shape, dnn.NHWC, self._kind)

    def _emit(self, operation: Operation, arguments: dict[int, Memory]) -> Memory:
        self._steps.append(PrimitiveCall(operation, arguments))
        return arguments[dnn.DST]

    def _reordered(self, source: Memory, wanted: Description) -> Memory:
        return self._emit(dnn.reorder(source.description, wanted), {dnn.SRC: source, dnn.DST: Memory(wanted)})

    def conv(self, row: Row, x: Memory) -> Memory:
        if row.name in self._features:
            self._features[row.name] = x
        batch, channels, height, width = x.description.shape
        out = [(side + 2 * row.padding - row.kernel) // row.stride + 1 for side in (height, width)]
        result = self._map((batch, row.channels, *out))
        shape, plain = (row.channels, channels // row.groups, row.kernel, row.kernel), dnn.NCHW
        if row.groups > 1:
            shape, plain = (row.groups, row.channels // row.groups, *shape[1:]), dnn.GROUPED
        window = (dnn.numbers(row.stride, row.stride), dnn.numbers(0, 0), *[dnn.numbers(row.padding, row.padding)] * 2)
        weights, bias = Description(shape, kind=self._kind), self._weights.bias(row)
        arguments = (dnn.FORWARD_INFERENCE, dnn.DIRECT, x.description, weights, bias.description, result, *window)
        attributes = _activation(row)
        operation = Operation("convolution_forward", *arguments, attributes=attributes, channels=row.channels)
        weight = self._weights.weight(row, Description(shape, plain), Description.chosen(operation, dnn.WEIGHTS))
        self._constant |= {id(weight), id(bias)}
        return self._emit(operation, {dnn.SRC: x, dnn.WEIGHTS: weight, dnn.BIAS: bias, dnn.DST: Memory(result)})

    def add(self, row: Row, a: Memory, b: Memory) -> Memory:
        result = Memory(a.description)
        operation = Operation("sum", a.description, 2, (ctypes.c_float * 2)(1.0, 1.0), dnn.handles([a.description, b.description]))
        return self._emit(operation, {dnn.MULTIPLE_SRC: a, dnn.MULTIPLE_SRC + 1: b, dnn.DST: result})

    def concat(self, row: Row, xs: Sequence[Memory]) -> Memory:
        batch, _, height, width = xs[0].description.shape
        result = self._map((batch, sum(x.description.shape[1] for x in xs), height, width))
        operation = Operation("concat", result, len(xs), 1, dnn.handles([x.description for x in xs]))
        return self._emit(operation, {**{dnn.MULTIPLE_SRC + index: x for index, x in enumerate(xs)}, dnn.DST: Memory(result)})

    def maxpool(self, row: Row, x: Memory) -> Memory:
        shape, window = window_of_maxpool(row, x.description.shape)
        result = self._map(shape)
        operation = Operation("pooling_forward", dnn.FORWARD_INFERENCE, dnn.MAX_POOLING, x.description, result, *window)
        return self._emit(operation, {dnn.SRC: x, dnn.DST: Memory(result)})

    def upsample(self, row: Row, x: Memory) -> Memory:
        batch, channels, height, width = x.description.shape
        result = self._map((batch, channels, height * row.stride, width * row.stride))
        operation = Operation("resampling_forward", dnn.FORWARD_INFERENCE, dnn.NEAREST, None, x.description, result)
        return self._emit(operation, {dnn.SRC: x, dnn.DST: Memory(result)})

    def detect(self, row: Row, heads: Sequence[Memory]) -> list[Memory]:
        for output in (*heads, *self._features.values()):
            self._outputs.append(self._reordered(output, Description(output.description.shape, dnn.NCHW)))
        return list(heads)


def _activation(row: Row) -> Attributes | None:
    """What a convolution does with its result before it is written; None for a convolution without an activation."""
    if row.activation is None:
        return None
    algorithm, alpha, beta = ACTIVATIONS[row.activation_name]
    return Attributes.activation(algorithm, row.slope if row.activation_name == "leaky_relu" else alpha, beta)
