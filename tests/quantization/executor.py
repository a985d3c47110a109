"""Int8 in NumPy, written from the contract alone: what the ONNX graph is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octrim.backends.numpy import NumpyOps, activate, convolution
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.scales import scale_groups


def rounded(x: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
    """x on the grid of int8, float32."""
    scale = np.asarray(scale, np.float32)
    return np.clip(np.round(x.astype(np.float32) / scale), -128, 127) * scale


class Int8Ops(NumpyOps):
    """`Ops` over float32 arrays; rounds what a row reads where the model has scales for it. With `inputs`, a row computes on these maps by name
    instead of on those that the rows before gave, so that errors do not add up.
    """

    def __init__(self, model: Model, inputs: dict[str, np.ndarray] | None = None) -> None:
        super().__init__(model)
        self.model, self.inputs = model, inputs
        self.groups = scale_groups(model.network)
        self.outputs: dict[str, np.ndarray] = {}

    def scale(self, name: str) -> np.ndarray | None:
        return self.model.scales.get(f"{self.groups[name]}.scale")

    def read(self, row: Row, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.inputs is not None:
            values = [self.inputs[name] for name in row.inputs]
        scales = [self.scale(name) for name in row.inputs]
        if any(scale is None for scale in scales) or (row.op == "conv" and f"{row.name}.weight_scale" not in self.model.scales):
            return list(values)
        return [rounded(value, scale) for value, scale in zip(values, scales, strict=True)]

    def keep(self, row: Row, value: np.ndarray) -> np.ndarray:
        self.outputs[row.name] = value
        return value

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight, bias = (part.astype(np.float32) for part in folded_conv(self.model, row))
        if f"{row.name}.weight_scale" in self.model.scales:
            weight = rounded(weight, self.model.scales[f"{row.name}.weight_scale"].reshape(-1, 1, 1, 1))
        y = convolution(self.read(row, [x])[0], weight, row.stride, row.padding, row.groups)
        return self.keep(row, activate(row, y + bias[:, None, None]))

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.keep(row, super().add(row, *self.read(row, [a, b])))

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return self.keep(row, super().concat(row, self.read(row, xs)))

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self.keep(row, super().maxpool(row, self.read(row, [x])[0]))

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return self.keep(row, super().upsample(row, self.read(row, [x])[0]))
