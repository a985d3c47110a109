"""The C files of int8 in NumPy: the same integers row by row, each beside what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.backends.numpy import activate, convolution, windows
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.network.scales import Scales
from octrim.targets.integers import Integers, Quantization


class IntegerOps:
    """`Ops` over pairs of integers `[1, channels, height, width]` and what they mean. Each row is within a step of what it means in float64."""

    def __init__(self, model: Model) -> None:
        self.model, self.integers, self.scales = model, Integers(model), Scales(model.network, model.scales)
        self.worst: dict[str, float] = {}

    def meant(self, x: tuple[np.ndarray, Quantization]) -> np.ndarray:
        return (x[0] - x[1].zero_point) * x[1].step

    def keep(self, row: Row, found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, Quantization]:
        meaning = self.integers.map(row)
        ideal = np.clip(np.rint(expected / meaning.step), -128, 127)
        self.worst[row.name] = float(np.mean(np.abs(found - ideal) > 1))
        return found, meaning

    def conv(self, row: Row, x: tuple[np.ndarray, Quantization]) -> tuple[np.ndarray, Quantization]:
        weight, bias = folded_conv(self.model, row)
        parts = self.integers.parameters(row, x[1].step, weight, bias)
        sums = convolution((x[0] - x[1].zero_point).astype(np.int64), parts.weight.astype(np.int64), row.stride, row.padding, row.groups)
        sums += parts.bias.astype(np.int64)[:, None, None]
        meaning = self.integers.map(row)
        plain = row.activation in (None, "relu", "relu6")
        between = meaning if plain else self.integers.before_activation(row)
        finer = np.ones(row.channels)
        if row.name in self.model.network.heads:  # centre and size of a box in steps half as large
            finer.reshape(-1, 5 + self.model.network.classes)[:, :4] = 2
        mantissa, exponent = np.frexp(finer * parts.units / between.step)
        multiplier, shift = np.rint(mantissa * 2.0**31).astype(np.int64)[:, None, None], (31 - exponent).astype(np.int64)[:, None, None]
        found = np.clip(((sums * multiplier + (1 << (shift - 1))) >> shift) + between.zero_point, -128, 127)
        exact = sums * (finer * parts.units)[:, None, None]
        if plain:
            low, high = {None: (-128.0, 127.0), "relu": (0.0, 127.0), "relu6": (0.0, min(127.0, np.rint(6 / meaning.step)))}[row.activation]
            found = np.clip(found, low, high)
            return self.keep(row, found, activate(row, exact))
        looked_up = np.clip(np.rint(activate(row, (found - between.zero_point) * between.step) / meaning.step), -128, 127)
        reached = np.clip(exact, (-128 - between.zero_point) * between.step, (127 - between.zero_point) * between.step)
        # Between the two stands a rounding, whose half step the activation may stretch by its slope, which is at most 1.1.
        return self.keep(row, looked_up, activate(row, reached) if between.step <= 0.8 * meaning.step else looked_up * meaning.step)

    def add(self, row: Row, a: tuple[np.ndarray, Quantization], b: tuple[np.ndarray, Quantization]) -> tuple[np.ndarray, Quantization]:
        a, b = self.signed(a), self.signed(b)
        meaning = self.integers.map(row)
        ratios = np.asarray([a[1].step, b[1].step]) / meaning.step
        shift = int(np.clip(21 - np.ceil(np.log2(ratios.max())), 1, 30))
        m = np.rint(ratios * 2.0**shift).astype(np.int64)
        found = np.clip((a[0].astype(np.int64) * m[0] + b[0].astype(np.int64) * m[1] + (1 << (shift - 1))) >> shift, -128, 127)
        return self.keep(row, found, self.meant(a) + self.meant(b))

    def signed(self, x: tuple[np.ndarray, Quantization]) -> tuple[np.ndarray, Quantization]:
        """The picture in the integers that rows besides convolutions read."""
        if x[1].zero_point == 0:
            return x
        scale = self.scales.map("images")
        assert scale is not None
        return np.clip(np.rint(self.meant(x) / np.float64(scale)), -128, 127), Quantization.of(scale)

    def concat(self, row: Row, xs: Sequence[tuple[np.ndarray, Quantization]]) -> tuple[np.ndarray, Quantization]:
        return np.concatenate([self.signed(x)[0] for x in xs], axis=1), self.integers.map(row)

    def maxpool(self, row: Row, x: tuple[np.ndarray, Quantization]) -> tuple[np.ndarray, Quantization]:
        return windows(self.signed(x)[0], row.kernel, row.stride, row.padding, -128).max((-2, -1)), self.integers.map(row)

    def upsample(self, row: Row, x: tuple[np.ndarray, Quantization]) -> tuple[np.ndarray, Quantization]:
        return self.signed(x)[0].repeat(row.stride, axis=2).repeat(row.stride, axis=3), self.integers.map(row)

    def detect(self, row: Row, heads: Sequence[tuple[np.ndarray, Quantization]]) -> list[tuple[np.ndarray, Quantization]]:
        return list(heads)


def logits_in_numpy(model: Model, batch: np.ndarray) -> tuple[list[np.ndarray], dict[str, float]]:
    """Logits `[h, w, channels]` of the levels, and the share of values that are more than a step off, by row."""
    ops = IntegerOps(model)
    image: Any = (batch.transpose(0, 3, 1, 2).astype(np.int64) - 128, ops.integers.map(model.network.rows[0]))
    return [head[0][0].transpose(1, 2, 0) for head in walk(model.network, ops, image)], ops.worst
