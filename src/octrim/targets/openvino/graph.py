"""The network as an OpenVINO graph, built from the table: the default runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.targets.decoding import level_constants
from octrim.targets.metadata import export_metadata

Output = Any  # openvino.Output or openvino.Node; every opset function takes both


class OpenvinoOps:
    """`Ops` over OpenVINO outputs, always float32: the precision it runs in is chosen when it is compiled.

    Where it decodes, Detect's convolutions are built in `detect`, one per anchor (see `level`).
    """

    def __init__(self, model: Model, decode: bool = True) -> None:
        self.model, self.decode = model, decode
        self.rows = {row.name: row for row in model.network.convs}

    def conv(self, row: Row, x: Output) -> Output:
        if self.decode and row.name in self.model.network.heads:
            return x
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
        name = row.activation_name
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
        return [op.concat([part for level, x in enumerate(heads) for part in self.level(self.rows[row.inputs[level]], level, x)], 1)]

    def level(self, row: Row, level: int, x: Output) -> list[Output]:
        """Decoded boxes of one level, per anchor `[batch, cells, 5 + classes]`.

        A convolution per anchor, and an arithmetic that treats all channels alike, s (a s + b) + c, leave the values in the order in which
        OpenVINO's convolutions write them (channels last), without reordering and splitting. That saves a fifth of the time of a network of 1/8
        channels.
        """
        anchors = len(self.model.network.anchors[level])
        channels = row.channels // anchors
        weight, bias = (part.astype(np.float32) for part in folded_conv(self.model, row))
        window = ([row.stride] * 2, [row.padding] * 2, [row.padding] * 2, [1, 1])
        parts = []
        for anchor in range(anchors):
            own = slice(anchor * channels, (anchor + 1) * channels)
            s = op.convolution(x, op.constant(weight[own]), *window)
            height, width = (s.get_output_partial_shape(0)[axis].get_length() for axis in (2, 3))
            scale, offset, size = level_constants(self.model.network, level, height, width)
            s = op.sigmoid(op.add(s, op.constant(bias[None, own, None, None])))
            a, b, c = (
                np.zeros((1, channels, 1, 1), np.float32),
                np.ones((1, channels, 1, 1), np.float32),
                np.zeros((1, channels, height, width), np.float32),
            )
            a[0, 2:4, 0] = size[0, anchor]
            b[0, :2], b[0, 2:4] = scale, 0
            c[0, :2] = offset.reshape(2, height, width)
            s = op.add(op.multiply(s, op.add(op.multiply(s, op.constant(a)), op.constant(b))), op.constant(c))
            last = op.transpose(s, op.constant(np.asarray([0, 2, 3, 1])))
            parts.append(op.reshape(last, op.constant(np.asarray([0, height * width, channels])), True))
        return parts


def openvino_model(model: Model, height: int, width: int, batch: int | None = 1, decode: bool = True, pixels: bool = False) -> ov.Model:
    """The OpenVINO model for pictures of height x width pixels, multiples of the stride; names and metadata as in the ONNX contract.

    batch: None makes it dynamic. decode: False gives the logits `head0`, `head1`, .. instead of `output0`. pixels: True makes the input uint8
    `[batch, height, width, 3]` instead of float `[batch, 3, height, width]` in 0..1.
    """
    network = model.network
    name, channels, size = network.rows[0].name, network.rows[0].channels, -1 if batch is None else batch
    if pixels:
        image = op.parameter([size, height, width, channels], np.uint8, name=name)
        # Transposed last: OpenVINO's first convolution reads channels last, so that the transposition costs nothing there.
        scaled = op.multiply(op.convert(image, np.float32), op.constant(np.float32(1 / 255)))
        picture = op.transpose(scaled, op.constant(np.asarray([0, 3, 1, 2])))
    else:
        picture = image = op.parameter([size, channels, height, width], np.float32, name=name)
    image.output(0).set_names({name})
    results = []
    for index, output in enumerate(walk(network, OpenvinoOps(model, decode), picture)):
        result = op.result(output)
        result.output(0).set_names({"output0" if decode else f"head{index}"})
        results.append(result)
    built = ov.Model(results, [image], "yolov5")  # pyright: ignore[reportGeneralTypeIssues] (its stubs disagree with themselves)
    for key, value in export_metadata(model).items():
        built.set_rt_info(value, ["octrim", key])
    return built


def with_uint8_input(built: ov.Model) -> ov.Model:
    """Change a float graph that was read from a file so that its input is pictures, uint8 `[batch, height, width, 3]`."""
    processing = ov.preprocess.PrePostProcessor(built)
    processing.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps = processing.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    if built.input().get_element_type() != ov.Type.f32:  # exported in float16
        steps.convert_element_type(built.input().get_element_type())
    processing.input().model().set_layout(ov.Layout("NCHW"))
    return processing.build()
