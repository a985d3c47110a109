"""The network as ncnn reads it, written from the table: a `.param` file, which is text, and a `.bin` file, which is weights in the order of the text.

Contract: input blob `images`, RGB 0..1, c 3, h height, w width; output blob `output0`, h boxes, w 5 + classes (cx, cy, w, h in pixels, objectness,
class scores). The blobs that Detect reads carry the names of their rows and hold the logits, c anchors x (5 + classes).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.targets.decoding import level_constants
from octrim.targets.rounding import rounded

MAGIC = "7767517"

OUTPUT = "output0"

# Flags in front of a convolution's weights: float32 as it is, or float16.
_FLOAT32, _FLOAT16 = struct.pack("<I", 0), struct.pack("<I", 0x01306B47)

_MOST_BYTES = 200  # of a name; ncnn reads 255 and what is derived from it must fit, too

# Decoding stays in float32, whatever the program asks for: a float16 cannot tell pixels beyond 2048 apart, nor halves beyond 1024. The bits forbid
# arithmetic in float16, maps in float16, and maps in bfloat16.
_IN_FLOAT32 = "31=7"


@dataclass(frozen=True)
class Layer:
    """One line of the `.param` file. options: numbered settings as ncnn spells them. weights: what the layer reads of the `.bin` file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: str
    weights: bytes = b""

    def line(self) -> str:
        parts = (f"{self.kind:<20}", f"{self.name:<24}", str(len(self.inputs)), str(len(self.outputs)), *self.inputs, *self.outputs, self.options)
        return " ".join(part for part in parts if part)


class NcnnOps:
    """`Ops` over names of blobs; collects layers. A row's blob is named after the row, what leads to it has a slash in its name.

    A blob has one reader in ncnn: `layers_with_copies` gives each reader one of its own.
    """

    def __init__(self, model: Model, height: int, width: int, half: bool) -> None:
        self.model, self.half = model, half
        self.shapes = shapes(model.network, height, width)
        self.layers: list[Layer] = [Layer("Input", "images", (), ("images",), f"0={width} 1={height} 2={model.network.rows[0].channels}")]
        self.names = {row.name: _name(index, row.name) for index, row in enumerate(model.network.rows)}

    def layer(self, kind: str, output: str, inputs: Sequence[str], options: str, weights: bytes = b"") -> str:
        self.layers.append(Layer(kind, output, tuple(inputs), (output,), options, weights))
        return output

    def conv(self, row: Row, x: str) -> str:
        name = self.names[row.name]
        weight, bias = folded_conv(self.model, row)
        kind, group = ("Convolution", "") if row.groups == 1 else ("ConvolutionDepthWise", f" 7={row.groups}")
        options = f"0={row.channels} 1={row.kernel} 3={row.stride} 4={row.padding} 5=1 6={weight.size}{group}"
        stored = self.stored(row, weight) + bias.astype("<f4").tobytes()
        if row.activation is None:
            return self.layer(kind, name, [x], options, stored)
        return self.activate(row, name, self.layer(kind, f"{name}/conv", [x], options, stored))

    def stored(self, row: Row, weight: np.ndarray) -> bytes:
        """A convolution's weights behind their flag; float16 are filled up to whole words. Raises InputError for weights beyond float16's range."""
        if not self.half:
            return _FLOAT32 + weight.astype("<f4").tobytes()
        values = rounded(f"{row.name}: weight", weight, np.float16).astype("<f2").tobytes()
        return _FLOAT16 + values + bytes(-len(values) % 4)

    def activate(self, row: Row, name: str, x: str) -> str:
        kind, options = {
            "silu": ("Swish", ""),
            "relu": ("ReLU", ""),
            "relu6": ("Clip", "0=0 1=6"),
            "leaky_relu": ("ReLU", ""),
            "hardswish": ("HardSwish", f"0={_number(1 / 6)} 1=0.5"),
            "mish": ("Mish", ""),
            "sigmoid": ("Sigmoid", ""),
        }[row.activation_name]
        if row.activation_name == "leaky_relu":
            options = f"0={_number(row.slope)}"
        return self.layer(kind, name, [x], options)

    def add(self, row: Row, a: str, b: str) -> str:
        return self.layer("BinaryOp", self.names[row.name], [a, b], "0=0")

    def concat(self, row: Row, xs: Sequence[str]) -> str:
        return self.layer("Concat", self.names[row.name], xs, "0=0")

    def maxpool(self, row: Row, x: str) -> str:
        return self.layer("Pooling", self.names[row.name], [x], f"0=0 1={row.kernel} 2={row.stride} 3={row.padding} 5=1")

    def upsample(self, row: Row, x: str) -> str:
        return self.layer("Interp", self.names[row.name], [x], f"0=1 1={row.stride}.0 2={row.stride}.0")

    def detect(self, row: Row, heads: Sequence[str]) -> list[str]:
        levels = [self.level(row, level, x) for level, x in enumerate(heads)]
        return [self.layer("Concat", OUTPUT, levels, f"0=0 {_IN_FLOAT32}")]

    def level(self, row: Row, level: int, x: str) -> str:
        """Boxes of one level, h anchors x cells, w 5 + classes: sigmoid, then arithmetic on lines of cells, then a transposition."""
        network = self.model.network
        channels, height, width = self.shapes[row.inputs[level]]
        anchors, cells = len(network.anchors[level]), height * width
        values = channels // anchors
        scale, offset, size = level_constants(network, level, height, width)
        name = f"/level{level}"

        def step(kind: str, part: str, inputs: Sequence[str], options: str) -> str:
            return self.layer(kind, f"{name}/{part}", inputs, f"{options} {_IN_FLOAT32}")

        s = step("Reshape", "anchors", [step("Sigmoid", "sigmoid", [x], "")], f"0={cells} 1={values} 2={anchors}")
        parts = tuple(f"{name}/{part}" for part in ("xy", "wh", "scores"))
        self.layers.append(Layer("Slice", f"{name}/split", (s,), parts, f"-23300=3,2,2,{values - 4} 1=1 {_IN_FLOAT32}"))
        scaled = step("BinaryOp", "xy_scaled", [parts[0]], f"0=2 1=1 2={_number(float(scale))}")
        centre = step("BinaryOp", "centre", [scaled, self.constant(f"{name}/offset", offset[0, 0], f"0={cells} 1=2 2=1")], "0=0")
        squared = step("BinaryOp", "wh_squared", [parts[1], parts[1]], "0=2")
        extent = step("BinaryOp", "extent", [squared, self.constant(f"{name}/size", size, f"0=1 1=2 2={anchors}")], "0=2")
        boxes = step("Concat", "boxes", [centre, extent, parts[2]], "0=1")
        rows = step("Permute", "rows", [boxes], "0=1")
        return step("Reshape", "flat", [rows], f"0={values} 1={anchors * cells}")

    def constant(self, name: str, values: np.ndarray, options: str) -> str:
        return self.layer("MemoryData", name, [], f"{options} {_IN_FLOAT32}", values.astype("<f4").tobytes())


def ncnn_files(model: Model, height: int, width: int, half: bool = False) -> tuple[str, bytes]:
    """Contents of the `.param` and the `.bin` file for pictures of height x width pixels, multiples of the stride.

    half: whether the weights of convolutions are float16; biases and the constants of decoding are always float32.
    """
    ops = NcnnOps(model, height, width, half)
    walk(model.network, ops, "images")
    layers = list(layers_with_copies(ops.layers))
    blobs = sum(len(layer.outputs) for layer in layers)
    text = "".join(f"{line}\n" for line in (MAGIC, f"{len(layers)} {blobs}", *(layer.line() for layer in layers)))
    return text, b"".join(layer.weights for layer in layers)


def output_shape(network: Network, height: int, width: int) -> tuple[int, int]:
    """Boxes and values per box of the output for pictures of height x width pixels."""
    found = shapes(network, height, width)
    cells = (len(anchors) * found[name][1] * found[name][2] for name, anchors in zip(network.rows[-1].inputs, network.anchors, strict=True))
    return sum(cells), 5 + network.classes


def layers_with_copies(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers, with a Split behind each blob that is read more than once, and the readers reading its copies. The original keeps its name."""
    readers = Counter(name for layer in layers for name in layer.inputs)
    given = Counter[str]()
    for layer in layers:
        inputs = []
        for name in layer.inputs:
            inputs.append(_copy(name, given[name]) if readers[name] > 1 else name)
            given[name] += 1
        yield Layer(layer.kind, layer.name, tuple(inputs), layer.outputs, layer.options, layer.weights)
        for name in layer.outputs:
            if readers[name] > 1:
                yield Layer("Split", f"{name}/split", (name,), tuple(_copy(name, index) for index in range(readers[name])), "")


def blob_name(model: Model, row: str) -> str:
    """Name of the blob of a row."""
    index = next(index for index, one in enumerate(model.network.rows) if one.name == row)
    return _name(index, row)


def _copy(name: str, index: int) -> str:
    return f"{name}/{index}"


def _name(index: int, row: str) -> str:
    """The row's name, or a short one with a slash, which no row has, where it is longer than ncnn reads."""
    return row if len(row.encode()) <= _MOST_BYTES else f"/row{index}"


def _number(value: float) -> str:
    """A float32 as text that is read back as the same one; with a dot or an exponent, by which ncnn knows a float."""
    text = f"{float(value):.9g}"
    return text if "." in text or "e" in text else f"{text}.0"
