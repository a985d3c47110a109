"""The network for LiteRT in integers alone: int8 maps and weights, int32 biases, int8 input and outputs; decoding is left to the program.

Processors for networks and microcontrollers read this form. It has more integers than ONNX's (`octrim.network.scales`), where Detect's convolutions
and all activations are float: here

* the picture is its bytes less 128, so that no bit of it is lost;
* weights of convolutions without scales, such as Detect's, get those of their largest weights;
* between a convolution and an activation that is no part of it (all but ReLU and ReLU6) stands a map with a zero point, whose range follows from
  what the activation may give;
* logits are sixteenths between -8 and 8, where their sigmoid is .0003 and .9997.
"""

from __future__ import annotations

import numpy as np

from octrim.backends.numpy import activate
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.scales import LEVELS, Scales, quantized, scales_of
from octrim.targets.litert.builder import Quantization
from octrim.targets.litert.graph import LitertOps

PICTURE = Quantization.of(1 / 255, -128)
LOGITS = Quantization.of(1 / 16)
_SIGMOID = Quantization.of(1 / 256, -128)  # the one that LOGISTIC must have

_VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "LEAKY_RELU": 2,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "SPLIT": 2,
}
"""Versions of the operators that read int8, where they are not the first."""

_MOST_BIAS = 2.0**30  # of an int32, with room for the sum that it is added to

_FARTHEST = 12.0  # below which every activation is within a rounding of its limit


class Int8LitertOps(LitertOps):
    """`Ops` over int8 tensors. Raises InputError where a map has no scale, and for Mish, which has no operator for integers."""

    kind = "int8"
    versions = _VERSIONS

    def __init__(self, model: Model, height: int, width: int) -> None:
        super().__init__(model, height, width, decode=False)
        self.scales = Scales(model.network, model.scales)

    def quantization(self, row: Row) -> Quantization:
        if row.op == "image":
            return PICTURE
        if row.name in self.model.network.heads:
            return LOGITS
        return Quantization.of(self.scale(row.name))

    def scale(self, name: str) -> np.float32:
        found = self.scales.map(name)
        if found is None:
            raise InputError(f"int8 in litert needs a scale for every map, and {name} has none: octrim quantize, without --skip, makes them")
        return found

    def read(self, row: Row, x: int) -> int:
        wanted, given = self.quantization(row), self.builder.quantizations[x]
        if given is not None and (given.step, given.zero_point) == (wanted.step, wanted.zero_point):
            return x
        return self.made("QUANTIZE", [x], f"{row.name}/input{len(self.builder.tensors)}", self.builder.shape(x), wanted)

    def lowest(self, name: str, x: int) -> int:
        return self.builder.constant(f"{name}/lowest", np.asarray([-128], np.int8), self.builder.quantizations[x])

    def parameters(self, row: Row, x: int, weight: np.ndarray, bias: np.ndarray, axis: int, name: str, own: slice = slice(None)) -> tuple[int, int]:
        given = self.builder.quantizations[x]
        assert given is not None
        others = tuple(index for index in range(weight.ndim) if index != axis)
        stored = self.scales.weight(row)
        scale = scales_of(np.abs(weight).max(others)) if stored is None else stored[own]
        # A channel whose weights are tiny beside its bias would need a bias beyond int32: its weights get a coarser scale.
        scale = np.maximum(scale, (np.abs(bias) / (given.step * _MOST_BIAS)).astype(np.float32))
        along = scale.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        zeros = np.zeros(len(scale), np.int64)
        kept = self.builder.constant(f"{name}.weight", quantized(weight.astype(np.float32), along), Quantization(scale, zeros, axis))
        units = scale.astype(np.float64) * given.step
        integers = np.clip(np.rint(bias / units), -(2**31), 2**31 - 1).astype(np.int32)
        return kept, self.builder.constant(f"{name}.bias", integers, Quantization(units.astype(np.float32), zeros))

    def before_activation(self, row: Row) -> Quantization:
        """Integers from where the activation is within half a step of its limit below zero to where it reaches the largest value of the map."""
        low, high = self.range_before(row)
        step = (high - low) / 255
        return Quantization.of(step, int(np.clip(np.rint(-128 - low / step), -128, 127)))

    def range_before(self, row: Row) -> tuple[float, float]:
        name = (row.activation or "").partition(":")[0]
        if name == "sigmoid":
            return -8.0, 8.0
        step = self.quantization(row).step
        largest = LEVELS * step
        if name == "leaky_relu":
            return -largest, largest
        above = np.linspace(0, largest + 2, 10_001)
        below = np.linspace(-_FARTHEST, 0, 10_001)
        high = above[np.searchsorted(activate(row, above), largest).clip(max=len(above) - 1)]
        low = below[np.argmax(np.abs(activate(row, below)) > step / 2)]
        return float(low), float(high)

    def activate(self, row: Row, x: int) -> int:
        name = (row.activation or "").partition(":")[0]
        shape, given = self.size(row), self.quantization(row)
        if name == "silu":
            gate = self.made("LOGISTIC", [x], f"{row.name}/silu", shape, _SIGMOID)
            return self.made("MUL", [x, gate], row.name, shape, given)
        if name == "sigmoid":
            return self.made("QUANTIZE", [self.made("LOGISTIC", [x], f"{row.name}/sigmoid", shape, _SIGMOID)], row.name, shape, given)
        if name == "leaky_relu":
            return self.made("LEAKY_RELU", [x], row.name, shape, given, alpha=row.slope)
        if name == "hardswish":
            return self.made("HARD_SWISH", [x], row.name, shape, given)
        raise InputError(f"{row.name}: {name} has no operator in integers; int8 in litert takes silu, relu, relu6, leaky_relu, hardswish, sigmoid")
