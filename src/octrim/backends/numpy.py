"""The network in NumPy: slow and plain, the reference against which every other backend is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Network, Row


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # this form never overflows


ACTIVATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "silu": lambda x, _: x * sigmoid(x),
    "relu": lambda x, _: np.maximum(x, 0),
    "relu6": lambda x, _: np.clip(x, 0, 6),
    "leaky_relu": lambda x, slope: np.where(x > 0, x, x * x.dtype.type(slope)),
    "hardswish": lambda x, _: x * np.clip(x + 3, 0, 6) / 6,
    "mish": lambda x, _: x * np.tanh(np.logaddexp(x, x.dtype.type(0))),
    "sigmoid": lambda x, _: sigmoid(x),
}


def activate(row: Row, x: np.ndarray) -> np.ndarray:
    if row.activation is None:
        return x
    return ACTIVATIONS[row.activation_name](x, row.slope if row.activation_name == "leaky_relu" else 0.0)


class NumpyOps:
    """`Ops` over arrays `[batch, channels, height, width]`, with batch norm folded. dtype: float32, or float64 for exact comparisons."""

    def __init__(self, model: Model, dtype: type = np.float32) -> None:
        self.weights = {row.name: tuple(part.astype(dtype) for part in folded_conv(model, row)) for row in model.network.convs}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight, bias = self.weights[row.name]
        y = convolution(x, weight, row.stride, row.padding, row.groups)
        return activate(row, y + bias[:, None, None])

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(xs, axis=1)

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return windows(x, row.kernel, row.stride, row.padding, -np.inf).max((-2, -1))

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x.repeat(row.stride, axis=2).repeat(row.stride, axis=3)

    def detect(self, row: Row, heads: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(heads)


def windows(x: np.ndarray, kernel: int, stride: int, padding: int, value: float) -> np.ndarray:
    """View of the windows that slide over a map: `[batch, channels, height, width, kernel, kernel]`. value: fills the padding."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def convolution(x: np.ndarray, weight: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """Cross-correlation, which every framework calls convolution. weight: `[out, in / groups, kernel, kernel]`."""
    view = windows(x, weight.shape[-1], stride, padding, 0)
    inputs, outputs = weight.shape[1], len(weight) // groups
    parts = [
        np.tensordot(view[:, g * inputs : (g + 1) * inputs], weight[g * outputs : (g + 1) * outputs], ((1, 4, 5), (1, 2, 3))) for g in range(groups)
    ]
    return np.concatenate(parts, axis=-1).transpose(0, 3, 1, 2)


def decode(network: Network, heads: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes of all levels, `[batch, boxes, 5 + classes]`: cx, cy, w, h in pixels of the input, objectness, class scores.

    heads: per level the logits `[batch, anchors x (5 + classes), height, width]`. Boxes are ordered by level, anchor, row, column.
    xy = (2 sigmoid - 0.5 + cell) stride, wh = (2 sigmoid)^2 anchor.
    """
    levels = []
    for logits, anchors, stride in zip(heads, network.anchors, network.strides, strict=True):
        batch, channels, height, width = logits.shape
        values = channels // len(anchors)
        y = sigmoid(logits.reshape(batch, len(anchors), values, height, width))
        column, line = np.arange(width, dtype=y.dtype), np.arange(height, dtype=y.dtype)[:, None]
        size = np.asarray(anchors, y.dtype)[:, :, None, None]
        y[:, :, 0] = (2 * y[:, :, 0] - 0.5 + column) * stride
        y[:, :, 1] = (2 * y[:, :, 1] - 0.5 + line) * stride
        y[:, :, 2:4] = (2 * y[:, :, 2:4]) ** 2 * size
        flat = y.reshape(batch, len(anchors), values, height * width).swapaxes(2, 3)
        levels.append(flat.reshape(batch, len(anchors) * height * width, values))
    return np.concatenate(levels, axis=1)
