"""The network as TensorRT layers, defined one by one from the table (no ONNX parser), for strongly typed networks.

Every layer's type follows from its inputs: float32, or float16 between casts at the edges. int8 is explicit: a quantize and a dequantize layer
around every value that crosses memory, which TensorRT fuses into the convolutions; whatever is not quantized is then float16, or float32 where
that was asked for. Stays within the API that TensorRT 10.3 (JetPack 6) and 11 share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.errors import InputError
from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.network.scales import Scales, quantized
from octrim.targets.decoding import level_constants
from octrim.targets.rounding import rounded


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """A feature map while the network is being defined.

    tensor: ITensor `[batch, channels, height, width]`. real: where the table's channels lie among them; the others are padding, which holds
    finite values that every reader multiplies by zero.
    """

    row: str
    tensor: Any
    real: np.ndarray
    channels: int


class TensorrtOps:
    """`Ops` over `LayerOutput`s. Layers are named after the rows; helpers of a row are called `{row}/...`. A tensor is named after its layer.

    trt: the module. network: a strongly typed INetworkDefinition. explain: why TensorRT refused the last layer.
    kept: arrays whose memory TensorRT reads while it builds; they must live until then.
    """

    def __init__(
        self,
        trt: Any,
        network: Any,
        model: Model,
        height: int,
        width: int,
        precision: str = "fp32",
        decode: bool = True,
        pad_channels: int = 1,
        explain: Callable[[], str] = lambda: "no reason given",
        high_precision: str = "fp16",
    ) -> None:
        self.trt, self.network, self.model = trt, network, model
        self.decode, self.pad_channels, self.explain = decode, pad_channels, explain
        self.shapes = shapes(model.network, height, width)
        single = (high_precision if precision == "int8" else precision) == "fp32"
        self.dtype = np.float32 if single else np.float16
        self.type = trt.DataType.FLOAT if single else trt.DataType.HALF
        self.scales = Scales(model.network, model.scales if precision == "int8" else {})
        self.dequantized: dict[str, Any] = {}
        self.kept: list[np.ndarray] = []

    # Helpers of which every op is made.

    def layer(self, kind: str, name: str, *arguments: Any, second: Any = None, **settings: Any) -> Any:
        """Add a layer by `network.add_{kind}(*arguments)`, set its attributes and its name, and return its output. second: replaces input 1."""
        layer = getattr(self.network, f"add_{kind}")(*arguments)
        if layer is None:
            raise InputError(f"{name}: TensorRT refuses this layer: {self.explain()}")
        for key, value in settings.items():
            setattr(layer, key, value)
        if second is not None:
            layer.set_input(1, second)
        layer.name = name
        output = layer.get_output(0)
        output.name = name
        return output

    def weights(self, array: np.ndarray) -> Any:
        """`trt.Weights` of an array that is kept alive, contiguous, and of NumPy's own dtype: arrays out of a pickle carry copies, which the
        bindings do not know."""
        array = np.ascontiguousarray(array, array.dtype.type)
        self.kept.append(array)
        return self.trt.Weights(array)

    def constant(self, name: str, array: np.ndarray) -> Any:
        return self.layer("constant", name, array.shape, self.weights(array))

    def float32(self, name: str, tensor: Any) -> Any:
        """A tensor of the network's type, cast to float32."""
        return tensor if self.dtype is np.float32 else self.layer("cast", name, tensor, self.trt.DataType.FLOAT)

    def product(self, name: str, a: Any, b: Any) -> Any:
        return self.layer("elementwise", name, a, b, self.trt.ElementWiseOperation.PROD)

    def activation(self, name: str, tensor: Any, kind: str, **settings: Any) -> Any:
        return self.layer("activation", name, tensor, getattr(self.trt.ActivationType, kind), **settings)

    def rounded(self, name: str, array: np.ndarray) -> np.ndarray:
        """The array in the precision of the network. Raises InputError for values beyond its range: one infinity makes the engine find nothing."""
        return rounded(name, array, self.dtype)

    def padded_count(self, channels: int) -> int:
        return -(-channels // self.pad_channels) * self.pad_channels

    def moved(self, name: str, x: LayerOutput, tensor: Any, channels: int) -> Any:
        """`tensor`, laid out as `x`, with the table's channels moved to the front and padding up to `channels` behind them, by a 1x1 convolution."""
        if x.channels == channels and np.array_equal(x.real, np.arange(len(x.real))):
            return tensor
        selection = np.zeros((channels, x.channels, 1, 1), self.dtype)
        selection[np.arange(len(x.real)), x.real] = 1
        return self.layer("convolution_nd", name, tensor, channels, (1, 1), self.weights(selection), self.weights(np.zeros(channels, self.dtype)))

    # Quantization.

    def through_int8(self, name: str, tensor: Any, scale: np.ndarray) -> Any:
        """The tensor quantized to int8 and dequantized again. scale: a scalar.

        Both layers read one constant in the network's precision: with float16 the same rounded scale makes the integers and takes them back.
        """
        factor = self.constant(f"{name}/scale", scale)
        integers = self.layer("quantize", f"{name}/quantized", tensor, factor, self.trt.DataType.INT8)
        return self.layer("dequantize", f"{name}/dequantized", integers, factor, self.type)

    def int8_weight(self, name: str, integers: np.ndarray, scale: np.ndarray) -> Any:
        """A constant of int8 weights, dequantized to the network's precision. scale: one per output channel.

        The integers come from float32 weights: rounding to float16 first would change one in a hundred.
        """
        stored, factor = self.constant(name, integers), self.constant(f"{name}/scale", scale)
        return self.layer("dequantize", f"{name}/dequantized", stored, factor, self.type, axis=0)

    def map_scale(self, name: str) -> np.ndarray:
        """Scale of a feature map, in the network's precision, which must also hold the largest dequantized value."""
        scale = np.asarray(self.scales.map(name))
        self.rounded(f"{name}: 128 times its scale", 128 * scale.astype(np.float64))
        return self.rounded(f"{name}: scale", scale)

    def read(self, row: Row, x: LayerOutput) -> Any:
        """The map as `row` reads it: unchanged, or through int8 by one pair of layers per map, which the map's readers share."""
        if not self.scales.reads(row):
            return x.tensor
        if x.row not in self.dequantized:
            self.dequantized[x.row] = self.through_int8(x.row, x.tensor, self.map_scale(x.row))
        return self.dequantized[x.row]

    # The ops of the table.

    def image(self, row: Row, tensor: Any, pixels: bool) -> LayerOutput:
        """Map of the network's input `tensor`: with `pixels` uint8 `[batch, height, width, 3]`, else float32 `[batch, 3, height, width]` in 0..1."""
        trt = self.trt
        if pixels:
            # Pixels are scaled in float32: 1/255 rounded to float16 would add a larger error than rounding the product does.
            scale = self.constant(f"{row.name}/one_255th", np.full((1, 1, 1, 1), 1 / 255, np.float32))
            tensor = self.product(f"{row.name}/scaled", self.layer("cast", f"{row.name}/float32", tensor, trt.DataType.FLOAT), scale)
        if self.dtype is not np.float32:
            tensor = self.layer("cast", f"{row.name}/float16", tensor, self.type)
        if pixels:
            tensor = self.layer("shuffle", f"{row.name}/transposed", tensor, first_transpose=trt.Permutation([0, 3, 1, 2]))
        return LayerOutput(row.name, tensor, np.arange(row.channels), row.channels)

    def conv(self, row: Row, x: LayerOutput) -> LayerOutput:
        weight_scale = self.scales.weight(row)
        exact, bias = folded_conv(self.model, row)
        weight, bias = self.rounded(f"{row.name}: weight", exact), self.rounded(f"{row.name}: bias", bias)
        scale = np.ones(0)
        if weight_scale is not None:
            scale = self.rounded(f"{row.name}: weight_scale", weight_scale)
            weight = quantized(exact.astype(np.float32), scale.astype(np.float32)[:, None, None, None])
        real, inputs, channels = x.real, x.channels, self.padded_count(row.channels)
        if row.groups > 1 and len(x.real) < x.channels:  # padding would have to be spread over the groups
            tensor = self.moved(f"{row.name}/moved", x, x.tensor, len(x.real))
            if weight_scale is not None:  # int8 convolutions want their own pair right before them
                tensor = self.through_int8(f"{row.name}/moved", tensor, self.map_scale(x.row))
        else:
            tensor = self.read(row, x)
        if row.groups > 1:
            real, inputs = np.arange(weight.shape[1]), weight.shape[1]
        if row.groups > 1 or row.name in self.model.network.heads:
            channels = row.channels
        if (channels, inputs) != weight.shape[:2]:
            padded = np.zeros((channels, inputs, row.kernel, row.kernel), weight.dtype)
            padded[: row.channels, real] = weight
            weight, bias = padded, np.pad(bias, (0, channels - row.channels))
        if weight_scale is None:
            kernel, dequantized = self.weights(weight), None
        else:
            scale = np.pad(scale, (0, channels - row.channels), constant_values=1)
            kernel, dequantized = self.trt.Weights(self.type), self.int8_weight(f"{row.name}/weight", weight, scale)
        window = {"stride_nd": (row.stride,) * 2, "padding_nd": (row.padding,) * 2, "num_groups": row.groups}
        name = f"{row.name}/conv" if row.activation else row.name
        y = self.layer("convolution_nd", name, tensor, channels, (row.kernel,) * 2, kernel, self.weights(bias), second=dequantized, **window)
        return LayerOutput(row.name, self.activate(row, y), np.arange(row.channels), channels)

    def activate(self, row: Row, x: Any) -> Any:
        kind = row.activation_name
        gate = f"{row.name}/{kind}"
        if kind == "silu":
            return self.product(row.name, x, self.activation(gate, x, "SIGMOID"))
        if kind == "hardswish":
            return self.product(row.name, x, self.activation(gate, x, "HARD_SIGMOID", alpha=1 / 6, beta=0.5))
        if kind == "mish":  # TensorRT's softplus is alpha log(1 + exp(beta x))
            softplus = self.activation(f"{gate}/softplus", x, "SOFTPLUS", alpha=1.0, beta=1.0)
            return self.product(row.name, x, self.activation(gate, softplus, "TANH"))
        if kind == "relu6":
            return self.activation(row.name, x, "CLIP", alpha=0.0, beta=6.0)
        if kind == "leaky_relu":
            return self.activation(row.name, x, "LEAKY_RELU", alpha=row.slope)
        if kind in ("relu", "sigmoid"):
            return self.activation(row.name, x, kind.upper())
        return x

    def add(self, row: Row, a: LayerOutput, b: LayerOutput) -> LayerOutput:
        left, right = self.read(row, a), self.read(row, b)
        real, channels = a.real, a.channels
        if a.channels != b.channels or not np.array_equal(a.real, b.real):  # a concatenation of padded maps against a convolution
            real, channels = np.arange(len(a.real)), self.padded_count(len(a.real))
            left, right = self.moved(f"{row.name}/left", a, left, channels), self.moved(f"{row.name}/right", b, right, channels)
        y = self.layer("elementwise", row.name, left, right, self.trt.ElementWiseOperation.SUM)
        return LayerOutput(row.name, y, real, channels)

    def concat(self, row: Row, xs: Sequence[LayerOutput]) -> LayerOutput:
        y = self.layer("concatenation", row.name, [self.read(row, x) for x in xs], axis=1)
        starts = np.cumsum([0, *(x.channels for x in xs)])
        real = np.concatenate([start + x.real for start, x in zip(starts[:-1], xs, strict=True)])
        return LayerOutput(row.name, y, real, int(starts[-1]))

    def maxpool(self, row: Row, x: LayerOutput) -> LayerOutput:
        window = {"stride_nd": (row.stride,) * 2, "padding_nd": (row.padding,) * 2}
        y = self.layer("pooling_nd", row.name, self.read(row, x), self.trt.PoolingType.MAX, (row.kernel,) * 2, **window)
        return LayerOutput(row.name, y, x.real, x.channels)

    def upsample(self, row: Row, x: LayerOutput) -> LayerOutput:
        trt = self.trt
        modes = {
            "resize_mode": trt.InterpolationMode.NEAREST,
            "coordinate_transformation": trt.ResizeCoordinateTransformation.ASYMMETRIC,
            "nearest_rounding": trt.ResizeRoundMode.FLOOR,
            "scales": (1.0, 1.0, float(row.stride), float(row.stride)),
        }
        return LayerOutput(row.name, self.layer("resize", row.name, self.read(row, x), **modes), x.real, x.channels)

    def detect(self, row: Row, heads: Sequence[LayerOutput]) -> list[LayerOutput]:
        """The network's outputs, float32 in every precision: a float16 cannot tell pixels beyond 2048 apart, nor halves beyond 1024."""
        if not self.decode:  # also for float32, so that the output's name is free and the row keeps its own
            casts = [self.layer("cast", f"head{level}", x.tensor, self.trt.DataType.FLOAT) for level, x in enumerate(heads)]
            return [LayerOutput(f"head{level}", y, x.real, x.channels) for level, (x, y) in enumerate(zip(heads, casts, strict=True))]
        levels = [self.level(row, level, x.tensor) for level, x in enumerate(heads)]
        y = self.layer("concatenation", row.name, levels, axis=1)
        y.name = "output0"
        return [LayerOutput("output0", y, np.arange(0), 0)]

    def level(self, row: Row, level: int, x: Any) -> Any:
        """Decoded boxes of one level, `[batch, anchors x cells, 5 + classes]`.

        All channels go through the same arithmetic, s (s a + b) + c: element by element and without splitting, which TensorRT makes one
        kernel; a slice would need the batch as a shape tensor where it is dynamic.
        """
        name, sum_of = f"{row.name}/{level}", self.trt.ElementWiseOperation.SUM
        total, height, width = self.shapes[row.inputs[level]]
        anchors = len(self.model.network.anchors[level])
        channels, cells = total // anchors, height * width
        scale, offset, size = level_constants(self.model.network, level, height, width)
        a, b, c = (np.zeros((1, *shape), np.float32) for shape in ((anchors, channels, 1), (1, channels, 1), (1, channels, cells)))
        a[:, :, 2:4] = size
        b[:, :, :2], b[:, :, 4:] = scale, 1
        c[:, :, :2] = offset
        a, b, c = (self.constant(f"{name}/{letter}", values) for letter, values in (("a", a), ("b", b), ("c", c)))
        s = self.activation(f"{name}/sigmoid", self.float32(f"{row.inputs[level]}/float32", x), "SIGMOID")
        s = self.layer("shuffle", f"{name}/anchors", s, reshape_dims=(0, anchors, channels, cells))  # 0 keeps the batch dimension
        slope = self.layer("elementwise", f"{name}/slope", self.product(f"{name}/squared", s, a), b, sum_of)
        boxes = self.layer("elementwise", f"{name}/boxes", self.product(f"{name}/scaled", s, slope), c, sum_of)
        last = {"first_transpose": self.trt.Permutation([0, 1, 3, 2]), "reshape_dims": (0, anchors * cells, channels)}
        return self.layer("shuffle", f"{name}/rows", boxes, **last)


def define(
    trt: Any,
    network: Any,
    model: Model,
    height: int,
    width: int,
    precision: str = "fp32",
    batch: int | tuple[int, int, int] = 1,
    pixels: bool = True,
    decode: bool = True,
    pad_channels: int = 1,
    explain: Callable[[], str] = lambda: "no reason given",
    high_precision: str = "fp16",
) -> list[np.ndarray]:
    """Walk the table into an empty strongly typed INetworkDefinition; options as `build_engine` explains them.

    Returns the arrays that TensorRT reads while it builds: keep them until then.
    """
    ops = TensorrtOps(trt, network, model, height, width, precision, decode, pad_channels, explain, high_precision)
    row = model.network.rows[0]
    size = batch if isinstance(batch, int) else -1
    shape = (size, height, width, row.channels) if pixels else (size, row.channels, height, width)
    image = network.add_input(row.name, trt.DataType.UINT8 if pixels else trt.DataType.FLOAT, shape)
    if image is None:
        raise InputError(f"{row.name}: TensorRT refuses an input of {list(shape)}: {explain()}")
    for output in walk(model.network, ops, ops.image(row, image, pixels)):
        network.mark_output(output.tensor)
    return ops.kept
