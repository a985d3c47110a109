"""The network in PaddlePaddle: what trains, and what every deployable is compared with."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octrim.backends.session import usable_cores
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Network, Row, walk


def _import_paddle() -> Any:
    """Import Paddle with the processor environment that makes it fast, and without its start-up chatter.

    Its bundled MKL takes the slowest path on AMD unless MKL_DEBUG_CPU_TYPE=5, and it defaults to one thread: together a factor of
    two in training steps. What the user set stays.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text("utf-8", "replace")[:4000]:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import paddle
    except ImportError as error:
        raise InputError(f"PaddlePaddle cannot be imported ({error}); install it with: pip install 'octrim[cpu]'") from None
    return paddle


paddle = _import_paddle()
nn, F = paddle.nn, paddle.nn.functional


class ConvNorm(nn.Layer):
    """Convolution, then batch norm where the row has it. Holds the parameters of one row; `PaddleNetwork.conv` applies them."""

    def __init__(self, row: Row, inputs: int) -> None:
        super().__init__()
        bias = None if row.bias else False
        self.conv = nn.Conv2D(inputs, row.channels, row.kernel, row.stride, row.padding, groups=row.groups, bias_attr=bias)
        # PyTorch's momentum 0.03 weighs the new value, Paddle's 0.97 the old one.
        self.bn = nn.BatchNorm2D(row.channels, momentum=0.97, epsilon=BATCH_NORM_EPS) if row.norm else None

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)


ACTIVATIONS: Mapping[str, Any] = {
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "sigmoid": F.sigmoid,
}


def activate(row: Row, x: Any) -> Any:
    if row.activation is None:
        return x
    name = row.activation.partition(":")[0]
    return F.leaky_relu(x, row.slope) if name == "leaky_relu" else ACTIVATIONS[name](x)


class PaddleNetwork(nn.Layer):
    """The network as a Paddle layer; itself the `Ops` that walks its table.

        network = PaddleNetwork(model)
        heads = network(images)

    images: float `[batch, 3, height, width]`, 0..1, sides multiples of the stride. Returns per level the logits
    `[batch, anchors x (5 + classes), height, width]`. Starts in evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network: Network = model.network
        for row in model.network.convs:
            self.add_sublayer(row.name, ConvNorm(row, model.tensors[row.weight_name].shape[1] * row.groups))
        for name, parameter in self.named_tensors().items():
            parameter.set_value(model.tensors[name])
        self.eval()

    def named_tensors(self) -> dict[str, Any]:
        """Parameters and batch-norm statistics by their names in the model file; the values are the live Paddle tensors."""
        tensors: dict[str, Any] = {}
        for row in self.network.convs:
            layer = self._sub_layers[row.name]
            tensors[row.weight_name] = layer.conv.weight
            if row.bias:
                tensors[f"{row.name}.bias"] = layer.conv.bias
            if row.norm:
                bn = layer.bn
                tensors |= {f"{row.name}.bn.weight": bn.weight, f"{row.name}.bn.bias": bn.bias}
                tensors |= {f"{row.name}.bn.running_mean": bn._mean, f"{row.name}.bn.running_var": bn._variance}
        return tensors

    def forward(self, images: Any) -> list[Any]:
        return walk(self.network, self, images)

    def conv(self, row: Row, x: Any) -> Any:
        return activate(row, self._sub_layers[row.name](x))

    def add(self, row: Row, a: Any, b: Any) -> Any:
        return a + b

    def concat(self, row: Row, xs: Sequence[Any]) -> Any:
        return paddle.concat(list(xs), axis=1)

    def maxpool(self, row: Row, x: Any) -> Any:
        return F.max_pool2d(x, row.kernel, row.stride, row.padding)

    def upsample(self, row: Row, x: Any) -> Any:
        return F.interpolate(x, scale_factor=row.stride, mode="nearest")

    def detect(self, row: Row, heads: Sequence[Any]) -> list[Any]:
        return list(heads)


def decode(network: Network, heads: Sequence[Any]) -> Any:
    """Boxes of all levels, as `octrim.backends.numpy.decode` defines them, as a Paddle tensor."""
    levels = []
    for logits, anchors, stride in zip(heads, network.anchors, network.strides, strict=True):
        batch, _, height, width = logits.shape
        cells = height * width
        y = F.sigmoid(logits).reshape([batch, len(anchors), -1, cells]).transpose([0, 1, 3, 2])
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(cells, 2).astype(np.float32)
        xy = y[..., :2] * (2.0 * stride) + paddle.to_tensor((grid - 0.5) * stride)
        wh = (y[..., 2:4] * 2.0) ** 2 * paddle.to_tensor(np.asarray(anchors, np.float32)[:, None])
        levels.append(paddle.concat([xy, wh, y[..., 4:]], axis=-1).reshape([batch, len(anchors) * cells, -1]))
    return paddle.concat(levels, axis=1)
