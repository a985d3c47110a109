"""Quantization-aware training: the network with int8's roundings, in float32, as sessions of that precision compute it.

Benoit et al. 2018, with the straight-through estimator (Bengio et al. 2013): a rounding passes gradients on as they are, and none where a value is
clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from octrim.backends.paddle import F, PaddleNetwork, activate, paddle
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.scales import Scales


class QuantizedNetwork(PaddleNetwork):
    """A quantized network that can be trained: convolutions and additions read their inputs, and use weights, as int8 times a scale.

    model: a model with scales and without batch norm (`octrim.network.folding.folded`), because the weights that are rounded are those that have it
    folded in. What has no scale stays in float32, as in sessions. The scales themselves are not trained. It runs by Paddle's own ops.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._scales = Scales(model.network, model.scales)
        self._weight_scales = {
            row.name: paddle.to_tensor(scale[:, None, None, None]) for row in model.network.convs if (scale := self._scales.weight(row)) is not None
        }

    def conv(self, row: Row, x: Any) -> Any:
        if row.name not in self._weight_scales:
            return super().conv(row, x)
        if row.name in self._features:
            self._features[row.name] = x
        own = self._sub_layers[row.name].conv
        weight = rounded(own.weight, self._weight_scales[row.name])
        return activate(row, F.conv2d(self._read(row.inputs[0], x), weight, own.bias, row.stride, row.padding, groups=row.groups))

    def add(self, row: Row, a: Any, b: Any) -> Any:
        if not self._scales.reads(row):
            return super().add(row, a, b)
        return self._read(row.inputs[0], a) + self._read(row.inputs[1], b)

    def _read(self, name: str, x: Any) -> Any:
        """The map of a row as int8 times its scale."""
        scale = self._scales.map(name)
        assert scale is not None  # what is read in int8 has a scale
        return rounded(x, paddle.to_tensor(np.float32(scale)))


def rounded(x: Any, scale: Any) -> Any:
    """`x` as the int8 of `octrim.network.scales.quantized` times the scale; its gradient is 1 where nothing is clipped, else 0."""
    steps = paddle.clip(x / scale, -128.0, 127.0)
    return (steps + (paddle.round(steps) - steps).detach()) * scale


def trainable(model: Model) -> PaddleNetwork:
    """The network as a Paddle layer, with int8's roundings where the model has scales."""
    return QuantizedNetwork(model) if model.scales else PaddleNetwork(model)
