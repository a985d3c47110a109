"""The network for LiteRT in integers alone (`octrim.targets.integers`): int8 input and outputs; decoding is left to the program."""

from __future__ import annotations

import numpy as np

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.targets.integers import Integers, Quantization
from octrim.targets.litert.graph import LitertOps

_SIGMOID = Quantization.of(1 / 256, -128)  # the one that LOGISTIC must have

_HARD_SWISH = 128  # HARD_SWISH takes no input with a step of this many times that of its output

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


class Int8LitertOps(LitertOps):
    """`Ops` over int8 tensors. Raises InputError where a map has no scale, and for Mish, which has no operator for integers."""

    kind = "int8"
    versions = _VERSIONS

    def __init__(self, model: Model, height: int, width: int) -> None:
        super().__init__(model, height, width, decode=False)
        self.integers = Integers(model)

    def quantization(self, row: Row) -> Quantization:
        return self.integers.map(row)

    def before_activation(self, row: Row) -> Quantization:
        return self.integers.before_activation(row)

    def read(self, row: Row, x: int) -> int:
        wanted = self.quantization(row)
        if self.builder.quantizations[x] == wanted:
            return x
        return self.made("QUANTIZE", [x], f"{row.name}/input{len(self.builder.tensors)}", self.builder.shape(x), wanted)

    def lowest(self, name: str, x: int) -> int:
        given = self.builder.quantizations[x]
        assert given is not None and given.zero_point == 0  # a picture becomes the map's own integers before (`read`)
        return self.builder.constant(f"{name}/lowest", np.asarray([-128], np.int8), np.asarray([given.step]))

    def parameters(
        self, row: Row, x: int, weight: np.ndarray, bias: np.ndarray, depthwise: bool, name: str, own: slice = slice(None)
    ) -> tuple[int, int]:
        given = self.builder.quantizations[x]
        assert given is not None
        found = self.integers.parameters(row, given.step, weight, bias, own)
        values = self.arranged(found.weight, depthwise)
        kept = self.builder.constant(f"{name}.weight", values, found.scale, axis=3 if depthwise else 0)
        return kept, self.builder.constant(f"{name}.bias", found.bias, found.units)

    def activate(self, row: Row, x: int) -> int:
        name = row.activation_name
        shape, given = self.size(row), self.quantization(row)
        if name == "silu":
            gate = self.made("LOGISTIC", [x], f"{row.name}/silu", shape, _SIGMOID)
            return self.made("MUL", [x, gate], row.name, shape, given)
        if name == "sigmoid":
            return self.made("QUANTIZE", [self.made("LOGISTIC", [x], f"{row.name}/sigmoid", shape, _SIGMOID)], row.name, shape, given)
        if name == "leaky_relu":
            return self.made("LEAKY_RELU", [x], row.name, shape, given, alpha=row.slope)
        if name == "hardswish":
            least = self.before_activation(row).step / _HARD_SWISH
            if given.step > least:
                return self.made("HARD_SWISH", [x], row.name, shape, given)
            # A map of next to nothing, such as one whose channels are all dead.
            coarse = self.made("HARD_SWISH", [x], f"{row.name}/hardswish", shape, Quantization.of(2 * least))
            return self.made("QUANTIZE", [coarse], row.name, shape, given)
        raise InputError(f"{row.name}: {name} has no operator in integers; int8 in litert takes silu, relu, relu6, leaky_relu, hardswish, sigmoid")
