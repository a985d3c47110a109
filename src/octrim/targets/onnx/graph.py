"""The network as an ONNX graph, built node by node from the table (no paddle2onnx).

Contract, as OpenCV, DeepStream and ONNX Runtime examples for YOLOv5 expect: input `images` float `[batch, 3, height, width]`, RGB 0..1;
output `output0` float `[batch, boxes, 5 + classes]` (cx, cy, w, h in pixels, objectness, class scores); metadata `names`, `stride`, `task`.

int8 is explicit: pairs of QuantizeLinear and DequantizeLinear on the maps that rows read in int8 (`Scales.reads`), weights as int8 constants behind
a DequantizeLinear, everything else float32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from octrim.errors import InputError
from octrim.network.cost import shapes
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.network.scales import Scales, quantized, require_scales
from octrim.targets.decoding import level_constants
from octrim.targets.metadata import export_metadata
from octrim.targets.rounding import rounded

# Old enough for OpenCV, TensorRT 8 and every ONNX Runtime in use; nothing in YOLOv5 needs a newer one.
OPSET, IR_VERSION = 13, 8

PRECISIONS = ("fp32", "fp16", "int8")

LOGITS = "logits"
"""Metadata entry `outputs` of a file that does not decode; others have no such entry."""


class OnnxOps:
    """`Ops` over value names; collects nodes and initializers. Feature maps are float32 or float16, decoding is always float32.

    In int8, too, a row's value is named after the row and not quantized; rows that read it in int8 share one pair of nodes behind it (`read`).
    """

    def __init__(
        self, model: Model, height: int, width: int, precision: str = "fp32", decode: bool = True, only: Collection[str] | None = None
    ) -> None:
        self.model, self.decode = model, decode
        self.scales = Scales(model.network, model.scales if precision == "int8" else {})
        self.only = only
        self.pairs: dict[str, str] = {}
        self.dtype = np.float16 if precision == "fp16" else np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes = shapes(model.network, height, width)

    def constant(self, name: str, values: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def reads(self, row: Row) -> bool:
        """Whether the row reads its inputs in int8."""
        return self.scales.reads(row) and (self.only is None or row.name in self.only)

    def read(self, row: Row, x: str) -> str:
        """The value that the row reads of the map x: in int8 the one behind a pair of QuantizeLinear and DequantizeLinear, one pair per map."""
        if not self.reads(row):
            return x
        if x not in self.pairs:
            scale = self.constant(f"{x}/scale", np.asarray(self.scales.map(x), np.float32))
            zero = self.constant(f"{x}/zero_point", np.asarray(0, np.int8))
            stored = self.node("QuantizeLinear", [x, scale, zero], f"{x}/quantized")
            self.pairs[x] = self.node("DequantizeLinear", [stored, scale, zero], f"{x}/dequantized")
        return self.pairs[x]

    def weight(self, row: Row, weight: np.ndarray) -> str:
        """The convolution's weight: a constant, or in int8 a constant with a scale per output channel behind a DequantizeLinear."""
        scale = self.scales.weight(row)
        if scale is None or not self.reads(row):
            return self.constant(f"{row.name}.weight", weight)
        stored = self.constant(f"{row.name}.weight", quantized(weight, scale[:, None, None, None]))
        parts = [self.constant(f"{row.name}/weight_scale", scale), self.constant(f"{row.name}/weight_zero_point", np.zeros(len(scale), np.int8))]
        return self.node("DequantizeLinear", [stored, *parts], f"{row.name}/weight", axis=0)

    def parameters(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a convolution in the type of the maps. Raises InputError for values beyond the range of float16."""
        weight, bias = folded_conv(self.model, row)
        if self.dtype is np.float32:
            return weight.astype(np.float32), bias.astype(np.float32)
        return rounded(f"{row.name}: weight", weight, np.float16), rounded(f"{row.name}: bias", bias, np.float16)

    def conv(self, row: Row, x: str) -> str:
        weight, bias = self.parameters(row)
        inputs = [self.read(row, x), self.weight(row, weight), self.constant(f"{row.name}.bias", bias)]
        window: dict[str, Any] = {"kernel_shape": [row.kernel] * 2, "strides": [row.stride] * 2, "pads": [row.padding] * 4, "group": row.groups}
        if row.activation is None:
            return self.node("Conv", inputs, row.name, **window)
        y = self.node("Conv", inputs, f"{row.name}/conv", **window)
        return self.activate(row, y)

    def activate(self, row: Row, x: str) -> str:
        name = row.activation_name
        gate = f"{row.name}/{name}"
        if name == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x], gate)], row.name)
        if name == "hardswish":
            return self.node("Mul", [x, self.node("HardSigmoid", [x], gate, alpha=1 / 6, beta=0.5)], row.name)
        if name == "mish":
            return self.node("Mul", [x, self.node("Tanh", [self.node("Softplus", [x], f"{gate}/softplus")], gate)], row.name)
        if name == "relu6":
            limits = [self.constant(f"{gate}/{limit}", np.asarray(limit, self.dtype)) for limit in (0, 6)]
            return self.node("Clip", [x, *limits], row.name)
        if name == "leaky_relu":
            return self.node("LeakyRelu", [x], row.name, alpha=row.slope)
        return self.node({"relu": "Relu", "sigmoid": "Sigmoid"}[name], [x], row.name)

    def add(self, row: Row, a: str, b: str) -> str:
        return self.node("Add", [self.read(row, a), self.read(row, b)], row.name)

    def concat(self, row: Row, xs: Sequence[str]) -> str:
        return self.node("Concat", [self.read(row, x) for x in xs], row.name, axis=1)

    def maxpool(self, row: Row, x: str) -> str:
        window = {"kernel_shape": [row.kernel] * 2, "strides": [row.stride] * 2, "pads": [row.padding] * 4}
        return self.node("MaxPool", [self.read(row, x)], row.name, **window)

    def upsample(self, row: Row, x: str) -> str:
        scales = self.constant(f"{row.name}/scales", np.asarray([1, 1, row.stride, row.stride], np.float32))
        modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [self.read(row, x), "", scales], row.name, **modes)

    def detect(self, row: Row, heads: Sequence[str]) -> list[str]:
        if self.dtype == np.float16:  # a float16 cannot tell pixels beyond 2048 apart, nor halves beyond 1024
            heads = [self.node("Cast", [x], f"{x}/float32", to=TensorProto.FLOAT) for x in heads]
        if not self.decode:
            return [self.node("Identity", [x], f"head{level}") for level, x in enumerate(heads)]
        levels = [self.level(row, level, x) for level, x in enumerate(heads)]
        return [self.node("Concat", levels, "output0", axis=1)]

    def level(self, row: Row, level: int, x: str) -> str:
        network = self.model.network
        name = f"{row.name}/{level}"
        channels, height, width = self.shapes[row.inputs[level]]
        anchors = len(network.anchors[level])
        scale, offset, size = level_constants(network, level, height, width)
        # A 0 in Reshape's shape keeps the batch dimension.
        shape = self.constant(f"{name}/shape", np.asarray([0, anchors, channels // anchors, height * width], np.int64))
        s = self.node("Reshape", [self.node("Sigmoid", [x], f"{name}/sigmoid"), shape], f"{name}/anchors")
        parts = [f"{name}/xy", f"{name}/wh", f"{name}/scores"]
        lengths = self.constant(f"{name}/lengths", np.asarray([2, 2, channels // anchors - 4], np.int64))
        self.nodes.append(helper.make_node("Split", [s, lengths], parts, name=f"{name}/split", axis=2))
        scaled = self.node("Mul", [parts[0], self.constant(f"{name}/scale", np.asarray(scale))], f"{name}/xy_scaled")
        centre = self.node("Add", [scaled, self.constant(f"{name}/offset", offset)], f"{name}/centre")
        squared = self.node("Mul", [parts[1], parts[1]], f"{name}/wh_squared")
        extent = self.node("Mul", [squared, self.constant(f"{name}/size", size)], f"{name}/extent")
        boxes = self.node("Concat", [centre, extent, parts[2]], f"{name}/boxes", axis=2)
        rows = self.node("Transpose", [boxes], f"{name}/rows", perm=[0, 1, 3, 2])
        flat = self.constant(f"{name}/flat", np.asarray([0, anchors * height * width, channels // anchors], np.int64))
        return self.node("Reshape", [rows, flat], f"{name}/flat_rows")


def onnx_model(
    model: Model,
    height: int,
    width: int,
    batch: int | None = 1,
    precision: str = "fp32",
    decode: bool = True,
    only: Collection[str] | None = None,
) -> onnx.ModelProto:
    """The ONNX model for pictures of height x width pixels, multiples of the stride.

    batch: None makes it dynamic. precision: "fp32", or "fp16" for float16 weights and feature maps between float32 input and output, or "int8"
    for a model with scales (`octrim quantize`), also between float32 input and output.
    decode: False gives the logits `head0`, `head1`, .. `[batch, anchors x (5 + classes), h, w]` instead of `output0`.
    only: names of the rows that read int8, by default all that have scales. Raises InputError for int8 without scales.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} for ONNX; expected one of {', '.join(PRECISIONS)}")
    if precision == "int8":
        require_scales(model.scales)
    network = model.network
    size = "batch" if batch is None else batch
    ops = OnnxOps(model, height, width, precision, decode, only)
    image = network.rows[0].name
    if precision == "fp16":
        image = ops.node("Cast", [image], f"{image}/float16", to=TensorProto.FLOAT16)
    outputs = walk(network, ops, image)
    if decode:
        boxes = sum(len(network.anchors[0]) * ops.shapes[name][1] * ops.shapes[name][2] for name in network.rows[-1].inputs)
        sizes: list[list[int]] = [[boxes, 5 + network.classes]]
    else:
        sizes = [list(ops.shapes[name]) for name in network.rows[-1].inputs]
    graph = helper.make_graph(
        ops.nodes,
        "yolov5",
        [helper.make_tensor_value_info(network.rows[0].name, TensorProto.FLOAT, [size, network.rows[0].channels, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, *shape]) for name, shape in zip(outputs, sizes, strict=True)],
        ops.initializers,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="octrim")
    helper.set_model_props(result, export_metadata(model) | {"precision": precision} | ({} if decode else {"outputs": LOGITS}))
    onnx.checker.check_model(result, full_check=True)
    return result
