"""A network being written, for the tests of the stand-in."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.targets.tensorrt_standin import Installed


class Draft:
    """A network being written, with what every test needs around it. x: its input, float32 `[1, 4, 6, 6]`."""

    def __init__(self, fake: Installed, shape: tuple[int, ...] = (1, 4, 6, 6), dtype: str = "FLOAT", logger: Any = None) -> None:
        self.fake, self.trt = fake, fake.trt
        self.logger = self.trt.Logger(self.trt.Logger.WARNING) if logger is None else logger
        self.builder = self.trt.Builder(self.logger)
        self.net = self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.config = self.builder.create_builder_config()
        self.x = self.net.add_input("images", getattr(self.trt.DataType, dtype), shape)

    def constant(self, values: Any, dtype: Any = np.float32) -> Any:
        array = np.ascontiguousarray(values, dtype)
        return self.net.add_constant(np.shape(values), array).get_output(0)

    def conv(self, x: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
        return self.net.add_convolution_nd(x, len(weight), weight.shape[2:], weight, bias)

    def elementwise(self, a: Any, b: Any, op: str = "SUM") -> Any:
        return self.net.add_elementwise(a, b, getattr(self.trt.ElementWiseOperation, op)).get_output(0)

    def activation(self, x: Any, kind: str) -> Any:
        return self.net.add_activation(x, getattr(self.trt.ActivationType, kind))

    def quantize(self, x: Any, scale: Any, axis: int | None = None) -> Any:
        layer = self.net.add_quantize(x, scale, self.trt.DataType.INT8)
        if axis is not None:
            layer.axis = axis
        return layer.get_output(0)

    def dequantize(self, x: Any, scale: Any, axis: int | None = None) -> Any:
        layer = self.net.add_dequantize(x, scale, self.trt.DataType.FLOAT)
        if axis is not None:
            layer.axis = axis
        return layer.get_output(0)

    def half(self) -> Any:
        return self.net.add_cast(self.x, self.trt.DataType.HALF).get_output(0)

    def build(self, *outputs: Any) -> Any:
        for index, tensor in enumerate(outputs):
            tensor.name = f"out{index}"
            self.net.mark_output(tensor)
        return self.builder.build_serialized_network(self.net, self.config)


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def concat(d: Draft, axis: int | None, *inputs: Any) -> Any:
    layer = d.net.add_concatenation(list(inputs))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)
