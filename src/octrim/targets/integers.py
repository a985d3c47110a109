"""A network in integers alone, from the picture's bytes to int8 logits: what every integer means. Microcontrollers and NPUs run this form.

It has more integers than ONNX's and TensorRT's (`octrim.network.scales`), where Detect's convolutions and all activations are float. Here

* the picture is its bytes, so that no bit of it is lost;
* weights of convolutions without scales, such as Detect's, get those of their largest weights;
* between a convolution and an activation other than ReLU and ReLU6 stands a map with a zero point, whose range follows from the activation's;
* logits are sixteenths between -8 and 8, where their sigmoid is .0003 and .9997.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.backends.numpy import activate
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.scales import LEVELS, Scales, quantized, scales_of

CLAMPED = {None: (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
"""Activations that are nothing but limits of a convolution's own integers, and these limits."""

_MOST_BIAS = 2.0**30  # of an int32, with room for the sum that it is added to

_FARTHEST = 12.0  # below zero, where every activation is within a rounding of its limit


@dataclass(frozen=True)
class Quantization:
    """Meaning of a map's integers: value = step (q - zero_point)."""

    step: float
    zero_point: int = 0

    @classmethod
    def of(cls, step: float | np.floating[Any], zero_point: int = 0) -> Quantization:
        """step: rounded to float32, in which files hold it."""
        return cls(float(np.float32(step)), zero_point)


PICTURE = Quantization.of(1 / 255, -128)
"""The picture's bytes less 128."""

LOGITS = Quantization.of(1 / 16)

BOX_LOGITS = Quantization.of(1 / 32)
"""Logits of a box's centre and size in C, from -4 to 4, where a side is 0.001 and 3.9 times the anchor's. Steps of a sixteenth would move a side by
up to 3 %."""


class Integers:
    """Quantizations of a model with scales, by row. Raises InputError where a map has no scale (`octrim quantize --skip`)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scales = Scales(model.network, model.scales)

    def map(self, row: Row) -> Quantization:
        """What the integers of the row's own map mean."""
        if row.op == "image":
            return PICTURE
        if row.name in self.model.network.heads:
            return LOGITS
        return Quantization.of(self.scale(row.name))

    def scale(self, name: str) -> np.float32:
        """Scale of the map of a row; of the picture that with which others than convolutions read it."""
        found = self.scales.map(name)
        if found is None:
            raise InputError(f"integers alone need a scale for every map, and {name} has none: octrim quantize, without --skip, makes them")
        return found

    def before_activation(self, row: Row) -> Quantization:
        """Integers from where the activation is within half a step of its limit below zero to where it reaches the largest value of the map."""
        low, high = self._range_before(row)
        step = (high - low) / 255
        return Quantization.of(step, int(np.clip(np.rint(-128 - low / step), -128, 127)))

    def _range_before(self, row: Row) -> tuple[float, float]:
        name = row.activation_name
        if name == "sigmoid":
            return -8.0, 8.0
        step = self.map(row).step
        largest = LEVELS * step
        if name == "leaky_relu":
            return -largest, largest
        above = np.linspace(0, largest + 2, 10_001)
        below = np.linspace(-_FARTHEST, 0, 10_001)
        high = above[np.searchsorted(activate(row, above), largest).clip(max=len(above) - 1)]
        low = below[np.argmax(np.abs(activate(row, below)) > step / 2)]
        return float(low), float(high)

    def parameters(self, row: Row, step: float, weight: np.ndarray, bias: np.ndarray, own: slice = slice(None)) -> Parameters:
        """Integers of a convolution that reads a map of this step. weight: `[out, ..]`, bias: `[out]`, float64. own: which of the row's channels."""
        stored = self.scales.weight(row)
        scale = scales_of(np.abs(weight).max(tuple(range(1, weight.ndim)))) if stored is None else stored[own]
        # A channel whose weights are tiny beside its bias would need a bias beyond int32: its weights get a coarser scale.
        scale = np.maximum(scale, (np.abs(bias) / (step * _MOST_BIAS)).astype(np.float32))
        along = scale.reshape([-1] + [1] * (weight.ndim - 1))
        units = scale.astype(np.float64) * step
        integers = np.clip(np.rint(bias / units), -(2**31), 2**31 - 1).astype(np.int32)
        return Parameters(quantized(weight.astype(np.float32), along), scale, integers, units)


@dataclass(frozen=True, eq=False)
class Parameters:
    """A convolution's integers. weight: int8, as it was given. scale: float32 `[out]`. bias: int32 `[out]`, in `units`, float64 `[out]`."""

    weight: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    units: np.ndarray
