"""The network as LiteRT reads it (TensorFlow Lite), in float32 or with float16 weights, written operator by operator from the table.

Maps are NHWC. Contract: input `images` float32 `[1, height, width, 3]`, RGB 0..1; output `output0` float32 `[1, boxes, 5 + classes]` (cx, cy, w, h in
pixels, objectness, class scores), or without decoding `head0`, `head1`, ..: logits `[1, h, w, anchors x (5 + classes)]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.targets.decoding import level_constants
from octrim.targets.integers import Quantization
from octrim.targets.litert.builder import Builder, schema
from octrim.targets.rounding import rounded

_FUSED = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
"""Activations that a convolution's operator computes itself."""


class LitertOps:
    """`Ops` over tensors of a `Builder`. A row's tensor has the row's name, those that lead to it have a slash in theirs.

    half: weights are stored as float16, each behind an operator that makes float32 of it. decode: False leaves the levels' logits as they are.
    """

    kind = "float32"
    versions: Mapping[str, int] = {"DEQUANTIZE": 3}  # of operators, where they are not the first; the third reads float16

    def __init__(self, model: Model, height: int, width: int, half: bool = False, decode: bool = True) -> None:
        self.model, self.half, self.decode = model, half, decode
        self.builder = Builder()
        self.shapes = shapes(model.network, height, width)

    def image(self) -> int:
        """The input tensor."""
        row = self.model.network.rows[0]
        return self.map(row.name, self.size(row), self.quantization(row))

    def size(self, row: Row) -> tuple[int, int, int, int]:
        channels, height, width = self.shapes[row.name]
        return (1, height, width, channels)

    def map(self, name: str, shape: Sequence[int], quantization: Quantization | None = None) -> int:
        return self.builder.tensor(name, shape, self.kind, quantization)

    def made(self, operator: str, inputs: Sequence[int], name: str, shape: Sequence[int], quantization: Quantization | None, **options: Any) -> int:
        """The tensor that an operator computes of others."""
        output = self.map(name, shape, quantization)
        self.builder.operator(operator, inputs, [output], self.versions.get(operator, 1), **options)
        return output

    def quantization(self, row: Row) -> Quantization | None:
        """Meaning of the row's integers; None in float."""
        return None

    def indices(self, name: str, values: Any) -> int:
        return self.builder.constant(name, np.asarray(values, np.int32))

    # Convolutions

    def conv(self, row: Row, x: int) -> int:
        fused = row.activation in _FUSED
        name = row.name if fused else f"{row.name}/conv"
        y = self.convolved(row, x, name, self.quantization(row) if fused else self.before_activation(row), _FUSED.get(row.activation, 0))
        return y if fused else self.activate(row, y)

    def before_activation(self, row: Row) -> Quantization | None:
        """Meaning of the integers between a convolution and an activation that has operators of its own; None in float."""
        return None

    def convolved(self, row: Row, x: int, name: str, quantization: Quantization | None, fused: int) -> int:
        """The convolution: one operator where it is dense or has a filter per channel, else one per group between a split and a concatenation."""
        x, padding = self.padded(row, x, None)
        weight, bias = folded_conv(self.model, row)
        inputs = self.builder.shape(x)[-1]
        window = {"padding": padding, "strideW": row.stride, "strideH": row.stride, "fusedActivationFunction": fused}
        if row.groups == inputs and inputs > 1:
            parts = self.parameters(row, x, weight, bias, True, row.name)
            multiplier = row.channels // inputs
            return self.made("DEPTHWISE_CONV_2D", [x, *parts], name, self.size(row), quantization, depthMultiplier=multiplier, **window)
        if row.groups == 1:
            parts = self.parameters(row, x, weight, bias, False, row.name)
            return self.made("CONV_2D", [x, *parts], name, self.size(row), quantization, **window)
        batch, height, width, channels = self.builder.shape(x)
        group = (batch, height, width, channels // row.groups)
        splits = [self.map(f"{name}/input{index}", group, self.builder.quantizations[x]) for index in range(row.groups)]
        self.builder.operator("SPLIT", [self.indices(f"{name}/axis", 3), x], splits, self.versions.get("SPLIT", 1), numSplits=row.groups)
        outputs = row.channels // row.groups
        made = []
        for index, one in enumerate(splits):
            own = slice(index * outputs, (index + 1) * outputs)
            parts = self.parameters(row, one, weight[own], bias[own], False, f"{row.name}/{index}", own)
            shape = (*self.size(row)[:3], outputs)
            made.append(self.made("CONV_2D", [one, *parts], f"{name}/{index}", shape, quantization, **window))
        return self.made("CONCATENATION", made, name, self.size(row), quantization, axis=3)

    def parameters(
        self, row: Row, x: int, weight: np.ndarray, bias: np.ndarray, depthwise: bool, name: str, own: slice = slice(None)
    ) -> tuple[int, int]:
        """Tensors of filter and bias. weight: `[out, in / groups, kernel, kernel]`. own: the row's channels that they are.

        Raises InputError for weights beyond float16's range where they are stored in it.
        """
        values = self.arranged(weight, depthwise)
        constant = self.builder.constant(f"{name}.bias", bias.astype(np.float32))
        if not self.half:
            return self.builder.constant(f"{name}.weight", values.astype(np.float32)), constant
        stored = self.builder.constant(f"{name}.weight/float16", rounded(f"{row.name}: weight", values, np.float16))
        return self.made("DEQUANTIZE", [stored], f"{name}.weight", values.shape, None), constant

    def arranged(self, weight: np.ndarray, depthwise: bool) -> np.ndarray:
        """The filter as the operators read it: `[out, kernel, kernel, in]`, or `[1, kernel, kernel, out]` with a filter per channel."""
        return weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)

    def padded(self, row: Row, x: int, fill: float | None) -> tuple[int, int]:
        """The map and the operator's own padding that together pad as the row says. fill: value around the map, None for zeros.

        SAME pads as much as the output's size asks for, and more behind than in front; where that is not what the row says, the map is padded before.
        """
        same, valid = schema.Padding.SAME, schema.Padding.VALID
        if not row.padding:
            return x, valid
        batch, height, width, channels = self.builder.shape(x)
        if all(_same(side, row) for side in (height, width)):
            return x, same
        p, name = row.padding, f"{row.name}/padded"
        shape = (batch, height + 2 * p, width + 2 * p, channels)
        inputs = [x, self.indices(f"{name}/sides", [[0, 0], [p, p], [p, p], [0, 0]])]
        if fill is None:
            return self.made("PAD", inputs, name, shape, self.builder.quantizations[x]), valid
        return self.made("PADV2", [*inputs, self.lowest(name, x)], name, shape, self.builder.quantizations[x]), valid

    def lowest(self, name: str, x: int) -> int:
        """The least value of the map's type, which no maximum takes."""
        return self.builder.constant(f"{name}/lowest", np.asarray([np.finfo(np.float32).min], np.float32))

    def activate(self, row: Row, x: int) -> int:
        """What follows a convolution and is no part of its operator."""
        name = row.activation_name
        shape, gate = self.size(row), f"{row.name}/{name}"
        if name == "silu":
            return self.made("MUL", [x, self.made("LOGISTIC", [x], gate, shape, None)], row.name, shape, None)
        if name == "leaky_relu":
            return self.made("LEAKY_RELU", [x], row.name, shape, None, alpha=row.slope)
        if name == "mish":
            return self.made("MUL", [x, self.made("TANH", [self.softplus(row, x)], gate, shape, None)], row.name, shape, None)
        return self.made({"hardswish": "HARD_SWISH", "sigmoid": "LOGISTIC"}[name], [x], row.name, shape, None)

    def softplus(self, row: Row, x: int) -> int:
        """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow."""
        shape, name = self.size(row), f"{row.name}/softplus"
        folded = self.made("NEG", [self.made("ABS", [x], f"{name}/abs", shape, None)], f"{name}/neg", shape, None)
        power = self.made("EXP", [folded], f"{name}/exp", shape, None)
        one = self.builder.constant(f"{name}/one", np.asarray([1], np.float32))
        rest = self.made("LOG", [self.made("ADD", [power, one], f"{name}/plus", shape, None)], f"{name}/log", shape, None)
        return self.made("ADD", [self.made("RELU", [x], f"{name}/relu", shape, None), rest], name, shape, None)

    # Maps

    def add(self, row: Row, a: int, b: int) -> int:
        return self.made("ADD", [a, b], row.name, self.size(row), self.quantization(row))

    def concat(self, row: Row, xs: Sequence[int]) -> int:
        return self.made("CONCATENATION", [self.read(row, x) for x in xs], row.name, self.size(row), self.quantization(row), axis=3)

    def maxpool(self, row: Row, x: int) -> int:
        x, padding = self.padded(row, self.read(row, x), -np.inf)
        window = {"padding": padding, "strideW": row.stride, "strideH": row.stride, "filterWidth": row.kernel, "filterHeight": row.kernel}
        return self.made("MAX_POOL_2D", [x], row.name, self.size(row), self.quantization(row), **window)

    def upsample(self, row: Row, x: int) -> int:
        size = self.indices(f"{row.name}/size", self.size(row)[1:3])
        return self.made("RESIZE_NEAREST_NEIGHBOR", [self.read(row, x), size], row.name, self.size(row), self.quantization(row))

    def read(self, row: Row, x: int) -> int:
        """The map with the integers that the row's own map has; in float the map itself."""
        return x

    # Decoding

    def detect(self, row: Row, heads: Sequence[int]) -> list[int]:
        if not self.decode:
            return list(heads)
        levels = [self.level(row, level, x) for level, x in enumerate(heads)]
        boxes = sum(self.builder.shape(one)[1] for one in levels)
        return [self.made("CONCATENATION", levels, "output0", (1, boxes, self.builder.shape(levels[0])[2]), None, axis=1)]

    def level(self, row: Row, level: int, x: int) -> int:
        """Boxes of one level `[1, anchors x cells, 5 + classes]`."""
        network = self.model.network
        channels, height, width = self.shapes[row.inputs[level]]
        anchors, cells = len(network.anchors[level]), height * width
        values = channels // anchors
        scale, offset, size = level_constants(network, level, height, width)
        name = f"{row.name}/{level}"

        def step(operator: str, part: str, inputs: Sequence[int], last: int, **options: Any) -> int:
            return self.made(operator, inputs, f"{name}/{part}", (1, cells, anchors, last), None, **options)

        flat = self.indices(f"{name}/anchors/shape", (1, cells, anchors, values))
        s = step("RESHAPE", "anchors", [self.made("LOGISTIC", [x], f"{name}/sigmoid", self.builder.shape(x), None), flat], values)
        parts = [self.map(f"{name}/{part}", (1, cells, anchors, last)) for part, last in (("xy", 2), ("wh", 2), ("scores", values - 4))]
        cuts = [self.indices(f"{name}/lengths", (2, 2, values - 4)), self.indices(f"{name}/axis", 3)]
        self.builder.operator("SPLIT_V", [s, *cuts], parts, numSplits=3)
        scaled = step("MUL", "xy_scaled", [parts[0], self.builder.constant(f"{name}/scale", np.asarray([scale]))], 2)
        moved = self.builder.constant(f"{name}/offset", offset[0, 0].T.reshape(1, cells, 1, 2))
        squared = step("MUL", "wh_squared", [parts[1], parts[1]], 2)
        extent = self.builder.constant(f"{name}/size", size.reshape(1, 1, anchors, 2))
        joined = [step("ADD", "centre", [scaled, moved], 2), step("MUL", "extent", [squared, extent], 2), parts[2]]
        boxes = step("CONCATENATION", "boxes", joined, values, axis=3)
        order = self.indices(f"{name}/order", (0, 2, 1, 3))
        turned = self.made("TRANSPOSE", [boxes, order], f"{name}/rows", (1, anchors, cells, values), None)
        shape = self.indices(f"{name}/flat/shape", (1, anchors * cells, values))
        return self.made("RESHAPE", [turned, shape], f"{name}/flat", (1, anchors * cells, values), None)


def _same(side: int, row: Row) -> bool:
    """Whether SAME pads a side of this many pixels as the row says."""
    outputs = -(-side // row.stride)
    total = max((outputs - 1) * row.stride + row.kernel - side, 0)
    return total == 2 * row.padding and outputs == (side + 2 * row.padding - row.kernel) // row.stride + 1
