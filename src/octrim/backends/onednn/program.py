"""Training steps of the network on a processor: the table compiled, for one shape of batch, into two lists of oneDNN operations.

Paddle's own kernels for a processor run each image's convolution as a matrix product, and batch norm and activations on one core. oneDNN's operations
use all cores, keep the maps with channels last, and reuse one block of memory step after step. `PaddleNetwork` uses this module in training mode
wherever it can and Paddle's ops wherever it cannot; to the outside there is no difference but the time.

Every operation makes new maps from old ones. A map's place in the block is free again after the last operation that reads it (`memory_plan`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.backends.onednn import library as dnn
from octrim.backends.onednn.library import Description, Memory, Operation, PrimitiveCall, RefusedError
from octrim.backends.onednn.memory_plan import NumpyStep, places
from octrim.network.rows import BATCH_NORM_EPS, Network, Row, walk

# Algorithm, alpha and beta of oneDNN's element-wise functions, by activation. Leaky ReLU's alpha is its slope.
ACTIVATIONS: Mapping[str, tuple[int, float, float]] = {
    "silu": (44, 1.0, 0.0),
    "relu": (32, 0.0, 0.0),
    "relu6": (47, 0.0, 6.0),
    "leaky_relu": (32, 0.0, 0.0),
    "hardswish": (52, 1 / 6, 0.5),
    "mish": (51, 0.0, 0.0),
    "sigmoid": (41, 0.0, 0.0),
}


@dataclass(eq=False)
class _Map:
    """A feature map of the program: its row's name, its memory, and whether it learns, i.e. whether a gradient is sent to it."""

    name: str
    memory: Memory
    learns: bool = True

    @property
    def description(self) -> Description:
        return self.memory.description


class TrainingProgram:
    """The forward and the backward pass for one shape. As an `Ops` it reads the table, emits the forward steps and notes the backward ones.

    moments: offsets in the block of the batch's mean and variance, and their length, by row.
    outside: memories whose tensors belong to Paddle, by name: "images", the parameters, their gradients as "grad:" + name, the outputs as
    "output0", .. and the outputs' gradients as "grad:output0", ... outputs: shapes of the outputs: the heads, and with `features` the maps that the
    heads' convolutions read, level by level.
    Raises RefusedError when oneDNN lacks fast code for a row.
    """

    def __init__(self, network: Network, shape: tuple[int, ...], frozen: frozenset[str], features: bool) -> None:
        self.outside: dict[str, Memory] = {}
        self.outputs: list[tuple[int, ...]] = []
        self._features: dict[str, Any] = dict.fromkeys(network.rows[-1].inputs) if features else {}
        self._moments: dict[str, tuple[Memory, Memory]] = {}
        self._frozen = frozen
        self._steps: list[PrimitiveCall | NumpyStep] = []
        self._backward: list[Callable[[], None]] = []
        self._gradients: dict[str, list[Memory]] = {}
        image = self._reordered(self._outside("images", shape, dnn.NCHW), Description(shape, dnn.NHWC))
        walk(network, self, _Map(network.rows[0].name, image, learns=False))
        self._forward_steps = len(self._steps)
        for emit in reversed(self._backward):
            emit()
        self._backward.clear()
        kept = [memory for pair in self._moments.values() for memory in pair]
        self.bytes, self._places = places(self._steps, self._forward_steps, kept, set(map(id, self.outside.values())))
        offsets = {id(memory): offset for memory, offset in self._places}
        self.moments = {row: (offsets[id(m)], offsets[id(v)], m.description.shape[0]) for row, (m, v) in self._moments.items()}
        self.forward, self.backward = self._steps[: self._forward_steps], self._steps[self._forward_steps :]
        self._base = 0

    def execute(self, steps: Sequence[PrimitiveCall | NumpyStep], block: int, addresses: Mapping[str, int]) -> None:
        """Run steps with the maps in the block at the address `block` and the outside tensors at `addresses`."""
        if block != self._base:
            for memory, offset in self._places:
                memory.at(block + offset)
            self._base = block
        for name, address in addresses.items():
            if name in self.outside:
                self.outside[name].at(address)
        for step in steps:
            step()

    # Helpers that emit steps

    def _outside(self, name: str, shape: Sequence[int], layout: int = dnn.VECTOR) -> Memory:
        if name not in self.outside:
            self.outside[name] = Memory(Description(shape, layout))
        return self.outside[name]

    def _emit(self, operation: Operation, arguments: Mapping[int, Memory]) -> None:
        self._steps.append(PrimitiveCall(operation, arguments))

    def _reordered(self, source: Memory, wanted: Description, target: Memory | None = None) -> Memory:
        """`source` in the wanted layout, in `target` where given."""
        if target is None and source.description == wanted:
            return source
        target = target or Memory(wanted)
        self._emit(dnn.reorder(source.description, wanted), {dnn.SRC: source, dnn.DST: target})
        return target

    def _gradient(self, value: _Map) -> Memory:
        """The gradient of a map: the sum of the gradients that its readers sent back."""
        parts = self._gradients.pop(value.name)
        if len(parts) == 1:
            return parts[0]
        total = Memory(value.description)
        descriptions = [part.description for part in parts]
        operation = Operation("sum", value.description, len(parts), (ctypes.c_float * len(parts))(*[1.0] * len(parts)), dnn.handles(descriptions))
        self._emit(operation, {**{dnn.MULTIPLE_SRC + index: part for index, part in enumerate(parts)}, dnn.DST: total})
        return total

    def _send(self, value: _Map, gradient: Memory) -> None:
        self._gradients.setdefault(value.name, []).append(gradient)

    # The ops of the table: each emits forward steps and notes the backward ones

    def conv(self, row: Row, x: _Map) -> _Map:
        if row.kernel == 1 and row.stride > 1:
            # For narrow maps oneDNN's gradient of such weights writes past its memory: github.com/uxlfoundation/oneDNN/issues/6035
            raise RefusedError(f"{row.name}: a 1x1 convolution with stride {row.stride}")
        if row.name in self._features:
            self._features[row.name] = x
        batch, channels, height, width = x.description.shape
        out = [(side + 2 * row.padding - row.kernel) // row.stride + 1 for side in (height, width)]
        result = Description((batch, row.channels, *out), dnn.NHWC)
        shape = (row.channels, channels // row.groups, row.kernel, row.kernel)
        plain = dnn.NCHW
        if row.groups > 1:
            shape, plain = (row.groups, row.channels // row.groups, *shape[1:]), dnn.GROUPED
        bias = Description((row.channels,), dnn.VECTOR) if row.bias else None
        window = (dnn.numbers(row.stride, row.stride), dnn.numbers(0, 0), *[dnn.numbers(row.padding, row.padding)] * 2)
        weights, stored = Description(shape), self._outside(row.weight_name, shape, plain)
        forward = Operation("convolution_forward", dnn.FORWARD, dnn.DIRECT, x.description, weights, bias, result, *window, channels=row.channels)
        y = Memory(result)
        arguments = {dnn.SRC: x.memory, dnn.WEIGHTS: self._reordered(stored, Description.chosen(forward, dnn.WEIGHTS)), dnn.DST: y}
        if row.bias:
            arguments[dnn.BIAS] = self._outside(f"{row.name}.bias", (row.channels,))
        self._emit(forward, arguments)

        trainable = row.weight_name not in self._frozen or (row.bias and f"{row.name}.bias" not in self._frozen)
        value = _Map(row.name, y, x.learns or trainable)
        normed = self._norm(row, value) if row.norm else None
        value.learns = normed[2] if normed else value.learns
        z = normed[0] if normed else y
        o, activation = self._activation(row, z) if row.activation else (z, None)

        def backward() -> None:
            value = _Map(row.name, o)
            if row.name not in self._gradients:
                return
            gradient = self._gradient(value)
            if activation:
                gradient = activation(gradient)
            if normed:
                gradient = normed[1](gradient)
            if trainable:
                operation = Operation(
                    "convolution_backward_weights", dnn.DIRECT, x.description, weights, bias, result, *window, forward, channels=row.channels
                )
                wanted = Description.chosen(operation, dnn.DIFF_WEIGHTS)
                target = self._outside(f"grad:{row.weight_name}", shape, plain)
                made = target if target.description == wanted else Memory(wanted)
                arguments = {dnn.SRC: x.memory, dnn.DIFF_DST: gradient, dnn.DIFF_WEIGHTS: made}
                if row.bias:
                    arguments[dnn.DIFF_BIAS] = self._outside(f"grad:{row.name}.bias", (row.channels,))
                self._emit(operation, arguments)
                if made is not target:
                    self._reordered(made, target.description, target)
            if x.learns:
                operation = Operation("convolution_backward_data", dnn.DIRECT, x.description, weights, result, *window, forward, channels=channels)
                arguments = {dnn.DIFF_DST: gradient, dnn.WEIGHTS: self._reordered(stored, Description.chosen(operation, dnn.WEIGHTS))}
                arguments[dnn.DIFF_SRC] = Memory(x.description)
                self._emit(operation, arguments)
                self._send(x, arguments[dnn.DIFF_SRC])

        self._backward.append(backward)
        return _Map(row.name, o, value.learns)

    def _norm(self, row: Row, value: _Map) -> tuple[Memory, Callable[[Memory], Memory], bool]:
        names = [f"{row.name}.bn.weight", f"{row.name}.bn.bias"]
        scale, shift = (self._outside(name, (row.channels,)) for name in names)
        same = value.description
        mean, variance = (Memory(scale.description) for _ in range(2))
        self._moments[row.name] = mean, variance
        epsilon = dnn.real(BATCH_NORM_EPS)
        z = Memory(same)
        known = {dnn.SRC: value.memory, dnn.MEAN: mean, dnn.VARIANCE: variance, dnn.SCALE: scale}
        self._moments_of(value.memory, z, mean, variance)
        normalize = Operation("batch_normalization_forward", dnn.FORWARD, same, same, epsilon, dnn.GLOBAL_STATISTICS | dnn.SCALE_AND_SHIFT)
        self._emit(normalize, {**known, dnn.SHIFT: shift, dnn.DST: z})
        forward = Operation("batch_normalization_forward", dnn.FORWARD, same, same, epsilon, dnn.SCALE_AND_SHIFT)

        def backward(gradient: Memory) -> Memory:
            operation = Operation("batch_normalization_backward", dnn.BACKWARD, same, same, same, epsilon, dnn.SCALE_AND_SHIFT, forward)
            result = Memory(same)
            made = [self._outside(f"grad:{name}", (row.channels,)) for name in names]
            self._emit(operation, {**known, dnn.DIFF_DST: gradient, dnn.DIFF_SRC: result, dnn.DIFF_SCALE: made[0], dnn.DIFF_SHIFT: made[1]})
            return result

        return z, backward, value.learns or not self._frozen.issuperset(names)

    def _moments_of(self, y: Memory, scratch: Memory, mean: Memory, variance: Memory) -> None:
        """Emit mean and biased variance of every channel.

        oneDNN adds up a channel one value after the other; in float32, after 400,000 values, the variance is off by 5e-5 and gradients by 1e-3 of
        their size. Here the same memory is read as `[batch x height, width x channels]`, so that every column of pixels has statistics of its own,
        which are then joined in float64.
        """
        batch, channels, height, width = y.description.shape
        wide = Description((batch * height, width * channels, 1, 1), dnn.NHWC)
        operation = Operation("batch_normalization_forward", dnn.FORWARD, wide, wide, dnn.real(BATCH_NORM_EPS), 0)
        source, result = Memory(wide, y), Memory(wide, scratch)
        means, variances = (Memory(Description((width * channels,), dnn.VECTOR)) for _ in range(2))
        self._emit(operation, {dnn.SRC: source, dnn.DST: result, dnn.MEAN: means, dnn.VARIANCE: variances})

        def join() -> None:
            # The same as NumPy's mean and var give, in a third of their time.
            found = means.array().reshape(width, channels).astype(np.float64)
            within = np.add.reduce(variances.array().reshape(width, channels).astype(np.float64)) / width
            average = np.add.reduce(found) / width
            found -= average
            np.multiply(found, found, out=found)
            mean.array()[:] = average
            variance.array()[:] = within + np.add.reduce(found) / width

        self._steps.append(NumpyStep(join, (means, variances, mean, variance)))

    def _activation(self, row: Row, z: Memory) -> tuple[Memory, Callable[[Memory], Memory]]:
        algorithm, alpha, beta = ACTIVATIONS[row.activation_name]
        parameters = (dnn.real(row.slope if row.activation_name == "leaky_relu" else alpha), dnn.real(beta))
        same = z.description
        forward = Operation("eltwise_forward", dnn.FORWARD, algorithm, same, same, *parameters)
        o = Memory(same)
        self._emit(forward, {dnn.SRC: z, dnn.DST: o})

        def backward(gradient: Memory) -> Memory:
            operation = Operation("eltwise_backward", algorithm, same, same, same, *parameters, forward)
            result = Memory(same)
            self._emit(operation, {dnn.SRC: z, dnn.DIFF_DST: gradient, dnn.DIFF_SRC: result})
            return result

        return o, backward

    def add(self, row: Row, a: _Map, b: _Map) -> _Map:
        descriptions = [a.description, b.description]
        result = Memory(a.description)
        operation = Operation("sum", a.description, 2, (ctypes.c_float * 2)(1.0, 1.0), dnn.handles(descriptions))
        self._emit(operation, {dnn.MULTIPLE_SRC: a.memory, dnn.MULTIPLE_SRC + 1: b.memory, dnn.DST: result})

        def send(gradient: Memory) -> None:
            for value in (a, b):
                if value.learns:
                    self._send(value, gradient)

        return self._made(row, result, send, a, b)

    def concat(self, row: Row, xs: Sequence[_Map]) -> _Map:
        batch, _, height, width = xs[0].description.shape
        counts = [x.description.shape[1] for x in xs]
        result = Memory(Description((batch, sum(counts), height, width), dnn.NHWC))
        operation = Operation("concat", result.description, len(xs), 1, dnn.handles([x.description for x in xs]))
        self._emit(operation, {**{dnn.MULTIPLE_SRC + index: x.memory for index, x in enumerate(xs)}, dnn.DST: result})

        def send(gradient: Memory) -> None:
            for x, first in zip(xs, np.cumsum([0, *counts[:-1]]).tolist(), strict=True):
                if x.learns:
                    part = gradient.description.part(x.description.shape, (0, first, 0, 0))
                    copy = Memory(x.description)
                    self._emit(dnn.reorder(part, x.description), {dnn.SRC: gradient, dnn.DST: copy})
                    self._send(x, copy)

        return self._made(row, result, send, *xs)

    def maxpool(self, row: Row, x: _Map) -> _Map:
        shape, window = window_of_maxpool(row, x.description.shape)
        result = Memory(Description(shape, dnn.NHWC))
        forward = Operation("pooling_forward", dnn.FORWARD, dnn.MAX_POOLING, x.description, result.description, *window)
        workspace = Memory(Description.chosen(forward, dnn.WORKSPACE))
        self._emit(forward, {dnn.SRC: x.memory, dnn.DST: result, dnn.WORKSPACE: workspace})

        def send(gradient: Memory) -> None:
            operation = Operation("pooling_backward", dnn.MAX_POOLING, x.description, result.description, *window, forward)
            made = Memory(x.description)
            self._emit(operation, {dnn.DIFF_DST: gradient, dnn.DIFF_SRC: made, dnn.WORKSPACE: workspace})
            self._send(x, made)

        return self._made(row, result, send, x)

    def upsample(self, row: Row, x: _Map) -> _Map:
        batch, channels, height, width = x.description.shape
        result = Memory(Description((batch, channels, height * row.stride, width * row.stride), dnn.NHWC))
        forward = Operation("resampling_forward", dnn.FORWARD, dnn.NEAREST, None, x.description, result.description)
        self._emit(forward, {dnn.SRC: x.memory, dnn.DST: result})

        def send(gradient: Memory) -> None:
            operation = Operation("resampling_backward", dnn.NEAREST, None, x.description, result.description, forward)
            made = Memory(x.description)
            self._emit(operation, {dnn.DIFF_DST: gradient, dnn.DIFF_SRC: made})
            self._send(x, made)

        return self._made(row, result, send, x)

    def _made(self, row: Row, memory: Memory, send: Callable[[Memory], None], *inputs: _Map) -> _Map:
        """The map of a row without parameters. send: function that emits the steps which pass the map's gradient on."""
        value = _Map(row.name, memory, any(x.learns for x in inputs))

        def backward() -> None:
            if row.name in self._gradients:
                send(self._gradient(value))

        if value.learns:
            self._backward.append(backward)
        return value

    def detect(self, row: Row, heads: Sequence[_Map]) -> list[_Map]:
        outputs = [*heads, *self._features.values()]
        self.outputs = [output.description.shape for output in outputs]
        for index, output in enumerate(outputs):
            outside = self._outside(f"output{index}", output.description.shape, dnn.NCHW)
            self._reordered(output.memory, outside.description, outside)

        def backward() -> None:
            for index, output in enumerate(outputs):
                if output.learns:
                    received = self._outside(f"grad:output{index}", output.description.shape, dnn.NCHW)
                    self._send(output, self._reordered(received, output.description))

        self._backward.append(backward)
        return list(heads)


def window_of_maxpool(row: Row, shape: Sequence[int]) -> tuple[tuple[int, ...], list[Any]]:
    """Shape of the map that a max-pooling makes of one of `shape`, `[batch, channels, height, width]`, and oneDNN's arguments for its window.

    These are strides, kernel, dilation, padding before and padding behind.
    """
    batch, channels, *sides = shape
    out = [(side + 2 * row.padding - row.kernel) // row.stride + 1 for side in sides]
    # Padding on the right and below, as far as the last window exceeds the picture; negative where the windows leave a rest of the picture over.
    excess = [(side - 1) * row.stride + row.kernel - row.padding - full for side, full in zip(out, sides, strict=True)]
    window = [dnn.numbers(*[size] * 2) for size in (row.stride, row.kernel, 0, row.padding)]
    return (batch, channels, *out), [*window, dnn.numbers(*excess)]
