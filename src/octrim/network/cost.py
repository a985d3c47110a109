"""Computes the costs of a network (parameters, multiply-accumulates, activation bytes) from its table alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from octrim.network.rows import Network, Row, Shape, ShapeOps, walk


@dataclass(frozen=True)
class ConvCost:
    """Costs of one convolution. channels: output channels. parameters: weights, bias, and two per channel for batch norm;
    none for a row that pads.

    macs: multiply-accumulates for one picture.
    """

    channels: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Costs of a network for one picture of height x width pixels. convs: costs of each convolution by name.

    activation_bytes: bytes of all feature maps in float32; peak_bytes: most bytes of maps that are needed at the same time.
    """

    height: int
    width: int
    convs: dict[str, ConvCost]
    activation_bytes: int
    peak_bytes: int

    @cached_property
    def parameters(self) -> int:
        return sum(conv.parameters for conv in self.convs.values())

    @cached_property
    def macs(self) -> int:
        return sum(conv.macs for conv in self.convs.values())

    @cached_property
    def channels(self) -> int:
        return sum(conv.channels for conv in self.convs.values())


def tensor_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that the network's table asks for, in the table's order."""
    channels = network.channels
    result: dict[str, tuple[int, ...]] = {}
    for row in network.convs:
        result[row.weight_name] = (row.channels, channels[row.inputs[0]] // row.groups, row.kernel, row.kernel)
        result |= dict.fromkeys(row.norm_names, (row.channels,))
        if row.bias:
            result[f"{row.name}.bias"] = (row.channels,)
    return result


def shapes(network: Network, height: int, width: int) -> dict[str, Shape]:
    """Return the channels, height and width of every row's output for a picture of height x width pixels.

    Raises InputError where maps do not fit together, as for a size that is no multiple of the network's stride.
    """
    ops = ShapeOps()
    ops.shapes[network.rows[0].name] = image = (network.rows[0].channels, height, width)
    walk(network, ops, image)
    return ops.shapes


def network_cost(network: Network, height: int = 640, width: int | None = None) -> Cost:
    """Return the costs of a network for one picture of height x width pixels, square by default. Raises InputError as `shapes` does."""
    width = height if width is None else width
    maps = shapes(network, height, width)
    sizes = tensor_shapes(network)
    convs = {row.name: _conv_cost(row, maps[row.name], sizes[row.weight_name]) for row in network.convs}
    alive, peak, total = 4 * math.prod(maps[network.rows[0].name]), 0, 0
    for row, dying in zip(network.rows[1:-1], network.dying[1:-1], strict=True):
        written = 4 * math.prod(maps[row.name])
        total += written
        alive += written
        peak = max(peak, alive)
        alive -= sum(4 * math.prod(maps[name]) for name in dying)
    return Cost(height, width, convs, total, peak)


def _conv_cost(row: Row, output: Shape, weight: tuple[int, ...]) -> ConvCost:
    weights = math.prod(weight)
    if row.pads:  # a padding convolution's weights are constants, not parameters
        return ConvCost(row.channels, 0, weights * output[1] * output[2])
    return ConvCost(row.channels, weights + row.channels * (2 * row.norm + row.bias), weights * output[1] * output[2])
