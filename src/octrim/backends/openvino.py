"""The network as an OpenVINO graph, built from the table: the default runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from octrim.backends.onnx import export_metadata, level_constants
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk

Output = Any  # openvino.Output or openvino.Node; every opset function takes both


class OpenvinoOps:
    """`Ops` over OpenVINO outputs, always float32: the precision it runs in is chosen when it is compiled."""

    def __init__(self, model: Model, decode: bool = True) -> None:
        self.model, self.decode = model, decode

    def conv(self, row: Row, x: Output) -> Output:
        weight, bias = (part.astype(np.float32) for part in folded_conv(self.model, row))
        window = ([row.stride] * 2, [row.padding] * 2, [row.padding] * 2, [1, 1])
        if row.groups == 1:
            y = op.convolution(x, op.constant(weight), *window)
        else:
            grouped = weight.reshape(row.groups, -1, *weight.shape[1:])
            y = op.group_convolution(x, op.constant(grouped), *window)
        y = op.add(y, op.constant(bias[None, :, None, None]))
        if row.activation:
            y = self.activate(row, y)
        y.set_friendly_name(row.name)
        return y

    def activate(self, row: Row, x: Output) -> Output:
        name = (row.activation or "").partition(":")[0]
        if name == "leaky_relu":
            return op.prelu(x, op.constant(np.float32(row.slope)))
        if name == "relu6":
            return op.clamp(x, 0.0, 6.0)
        return {"silu": op.swish, "relu": op.relu, "hardswish": op.hswish, "mish": op.mish, "sigmoid": op.sigmoid}[name](x)

    def add(self, row: Row, a: Output, b: Output) -> Output:
        return op.add(a, b)

    def concat(self, row: Row, xs: Sequence[Output]) -> Output:
        return op.concat(list(xs), 1)

    def maxpool(self, row: Row, x: Output) -> Output:
        padding = [row.padding] * 2
        return op.max_pool(x, [row.stride] * 2, [1, 1], padding, padding, [row.kernel] * 2).output(0)

    def upsample(self, row: Row, x: Output) -> Output:
        scales = op.constant(np.asarray([row.stride] * 2, np.float32))
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return op.interpolate(x, scales, "nearest", "scales", axes=op.constant(np.asarray([2, 3], np.int64)), **modes)

    def detect(self, row: Row, heads: Sequence[Output]) -> list[Output]:
        if not self.decode:
            return list(heads)
        return [op.concat([self.level(level, x) for level, x in enumerate(heads)], 1)]

    def level(self, level: int, x: Output) -> Output:
        network = self.model.network
        channels, height, width = (x.get_output_partial_shape(0)[axis].get_length() for axis in (1, 2, 3))
        anchors = len(network.anchors[level])
        scale, offset, size = level_constants(network, level, height, width)
        s = op.reshape(op.sigmoid(x), op.constant(np.asarray([0, anchors, channels // anchors, height * width])), True)
        xy, wh, scores = op.variadic_split(s, op.constant(np.int64(2)), op.constant(np.asarray([2, 2, -1]))).outputs()
        centre = op.add(op.multiply(xy, op.constant(scale)), op.constant(offset))
        extent = op.multiply(op.multiply(wh, wh), op.constant(size))
        rows = op.transpose(op.concat([centre, extent, scores], 2), op.constant(np.asarray([0, 1, 3, 2])))
        return op.reshape(rows, op.constant(np.asarray([0, anchors * height * width, channels // anchors])), True)


def openvino_model(model: Model, height: int, width: int, batch: int | None = 1, decode: bool = True) -> ov.Model:
    """The OpenVINO model for pictures of height x width pixels, multiples of the stride; names and metadata as in the ONNX contract.

    batch: None makes it dynamic. decode: False gives the logits `head0`, `head1`, .. instead of `output0`.
    """
    network = model.network
    image = op.parameter([-1 if batch is None else batch, network.rows[0].channels, height, width], np.float32, name=network.rows[0].name)
    image.output(0).set_names({network.rows[0].name})
    outputs = walk(network, OpenvinoOps(model, decode), image)
    results = []
    for index, output in enumerate(outputs):
        result = op.result(output)
        result.output(0).set_names({"output0" if decode else f"head{index}"})
        results.append(result)
    built = ov.Model(results, [image], "yolov5")  # pyright: ignore[reportGeneralTypeIssues] (its stubs disagree with themselves)
    for key, value in export_metadata(model).items():
        built.set_rt_info(value, ["octrim", key])
    return built


def with_uint8_input(built: ov.Model) -> ov.Model:
    """The same graph fed with pictures as they are: uint8 RGB `[batch, height, width, 3]`, converted, scaled and transposed inside."""
    processing = ov.preprocess.PrePostProcessor(built)
    processing.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    processing.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    processing.input().model().set_layout(ov.Layout("NCHW"))
    return processing.build()
