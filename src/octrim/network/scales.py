"""Tells where a network is quantized to int8 and which feature maps share a scale, for calibration, ONNX and TensorRT alike.

Symmetric int8 without zero point: q = clip(round half to even(x / scale), -128, 127), x = q scale. Weights have a scale per output channel and
belong to the convolution with batch norm folded; a feature map has one scale. Biases and activations stay in high precision, and so do the
convolutions that Detect reads. A concatenation, a max-pool and an upsampling only move values: all maps that they touch share one scale, so that
int8 passes through.

A quantized model carries its scales as tensors beside the weights, float32: `{conv}.weight_scale` `[channels]` of every quantized convolution, and
`{row}.scale` `[1]` of every group of maps that share one, named after the group's first row. `scales_of` rounds them to float16 numbers, which
engines compute with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.rows import Network, Row, walk

LEAST_SCALE = 2.0**-14
"""Least value of any scale: the smallest normal float16, so that one file serves engines of both precisions."""

LEVELS = 127
"""Levels of int8 on each side of zero: a clip at c gives the scale c / 127, alike for both sides; -128 is left to values beyond -c."""


def scale_groups(network: Network) -> dict[str, str]:
    """Map the name of every row to the first row of the group whose feature maps share its scale."""
    ops = _GroupOps()
    image = network.rows[0].name
    ops.parent[image] = image
    walk(network, ops, image)
    return {name: ops.find(name) for name in ops.parent}


class _GroupOps:
    """`Ops` over row names that group the maps which share a scale in a union-find forest."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def _new(self, row: Row) -> str:
        self.parent[row.name] = row.name
        return row.name

    def _united(self, row: Row, xs: Sequence[str]) -> str:
        order = {name: index for index, name in enumerate(self.parent)}
        first, *others = sorted({self.find(x) for x in xs}, key=order.__getitem__)
        for other in others:
            self.parent[other] = first
        self.parent[row.name] = first
        return row.name

    def conv(self, row: Row, x: str) -> str:
        return self._new(row)

    def add(self, row: Row, a: str, b: str) -> str:
        return self._new(row)

    def concat(self, row: Row, xs: Sequence[str]) -> str:
        return self._united(row, xs)

    def maxpool(self, row: Row, x: str) -> str:
        return self._united(row, [x])

    def upsample(self, row: Row, x: str) -> str:
        return self._united(row, [x])

    def detect(self, row: Row, heads: Sequence[str]) -> list[str]:
        return list(heads)


class Scales:
    """The scales of a quantized model by row, as backends ask for them.

    network: the model's network. tensors: the model's scales by name; none for a model that is not quantized. Raises InputError where they do not
    belong together.
    """

    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray]) -> None:
        self.groups = scale_groups(network)
        self.tensors = tensors
        convs = {row.name: row for row in network.convs}
        for name, scale in tensors.items():
            row, _, kind = name.rpartition(".")
            if kind == "weight_scale" and row in convs and row not in network.heads:
                shape = (convs[row].channels,)
                if f"{self.groups[convs[row].inputs[0]]}.scale" not in tensors:
                    raise InputError(f"tensor {name}: the map that {row} reads, {convs[row].inputs[0]}, has no scale")
            elif kind == "scale" and self.groups.get(row) == row:
                shape = (1,)
            else:
                raise InputError(f"tensor {shown(name)} is the scale of nothing that is quantized")
            if scale.shape != shape or scale.dtype != np.float32:
                raise InputError(f"tensor {name} is {scale.dtype} {list(scale.shape)}; expected float32 {list(shape)}")
            if not (np.isfinite(scale).all() and (scale >= np.float32(LEAST_SCALE)).all()):
                raise InputError(f"tensor {name} has a scale of {scale.min():g}, expected at least {LEAST_SCALE:g} and finite")

    def map(self, row: str) -> np.float32 | None:
        """Return the scale of a row's feature map, or None where that stays in high precision."""
        found = self.tensors.get(f"{self.groups[row]}.scale")
        return None if found is None else np.float32(found[0])

    def weight(self, row: Row) -> np.ndarray | None:
        """Return the scales of a convolution's weight, `[channels]`, or None where it stays in high precision."""
        return self.tensors.get(f"{row.name}.weight_scale")

    def reads(self, row: Row) -> bool:
        """Tell whether a row reads its inputs in int8: a convolution whose weight has scales, or another row but Detect whose inputs all have one."""
        if row.op == "conv":
            return self.weight(row) is not None
        return row.op in ("add", "concat", "maxpool", "upsample") and all(self.map(x) is not None for x in row.inputs)


def require_scales(scales: Mapping[str, np.ndarray]) -> None:
    """Raise InputError for the scales of a model that has none: nothing can run it in int8."""
    if not scales:
        raise InputError("int8 needs a model with scales, and this one has none: octrim quantize makes them")


def scales_of(clips: np.ndarray | float) -> np.ndarray:
    """Return float32 scales for values clipped at `clips`, LEAST_SCALE for dead maps and channels.

    The scales are rounded to float16, so that an engine and ONNX make the same integers of the same values, except beyond float16's range.
    """
    scales = np.maximum(np.asarray(clips, np.float64) / LEVELS, LEAST_SCALE).astype(np.float32)
    with np.errstate(over="ignore"):
        rounded = scales.astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(rounded), rounded, scales)


def quantized(x: np.ndarray, scale: np.ndarray | np.float32) -> np.ndarray:
    """Quantize float values to int8, rounded and clipped as ONNX's QuantizeLinear and TensorRT do it. scale: broadcasts against `x`."""
    return np.clip(np.rint(x / scale), -128, 127).astype(np.int8)
