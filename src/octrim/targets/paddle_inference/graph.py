"""Paddle Inference: the folded network with its decoding as a saved inference model, and the session that runs one.

A folder with `model.json` (the program), `model.pdiparams` (the weights) and `octrim.json` (names, stride, size, table). The contract is that of
ONNX: input `images` float `[batch, 3, height, width]` in 0..1, output `output0`,
`[batch, boxes, 5 + classes]`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from octrim.atomic import write_bytes, write_text
from octrim.backends.paddle import F, PaddleNetwork, activate, nn, paddle
from octrim.errors import InputError
from octrim.machine import quiet_stderr
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.targets.decoding import level_constants
from octrim.targets.metadata import export_metadata

_FETCHED = b'"fetch_name_0"'  # what Paddle calls the output; no option of its own says otherwise
FILES = ("model.json", "model.pdiparams", "octrim.json")


class _Recorded(PaddleNetwork):
    """The network in Paddle's own ops only, because these can be recorded."""

    compiled = False

    def conv(self, row: Row, x: Any) -> Any:
        x = self._sub_layers[row.name](x)
        if row.activation_name == "leaky_relu":
            # maximum replaces leaky_relu: where Paddle 3.3 fuses that into a convolution of oneDNN, the process dies of a segmentation fault.
            return paddle.maximum(x, x * row.slope)
        return activate(row, x)

    def upsample(self, row: Row, x: Any) -> Any:
        # No interpolation: Paddle 3.3 cannot hand that to oneDNN ("ConvertPirAttribute2RuntimeAttribute not support").
        _, channels, height, width = x.shape
        spread = paddle.tile(x.reshape([0, channels, height, 1, width, 1]), [1, 1, 1, row.stride, 1, row.stride])
        return spread.reshape([0, channels, height * row.stride, width * row.stride])


class _Decoded(nn.Layer):
    """The folded network and its decoding, for pictures of one size; the batch stays open."""

    def __init__(self, model: Model, height: int, width: int) -> None:
        super().__init__()
        self.model = folded(model)
        self.layers = _Recorded(self.model)
        network = self.model.network
        self.constants = []
        for level, stride in enumerate(network.strides):
            scale, offset, size = level_constants(network, level, height // stride, width // stride)
            names = [f"offset{level}", f"size{level}"]
            for name, values in zip(names, (offset, size), strict=True):
                self.register_buffer(name, paddle.to_tensor(values))
            self.constants.append((float(scale), *names))
        self.eval()

    def forward(self, images: Any) -> Any:
        return _boxes(self, images)


@paddle.jit.not_to_static  # there is nothing to translate: no loop and no branch depends on a tensor
def _boxes(layer: _Decoded, images: Any) -> Any:
    levels = []
    for logits, anchors, (scale, offset, size) in zip(layer.layers(images), layer.model.network.anchors, layer.constants, strict=True):
        _, channels, height, width = logits.shape
        # A 0 in the shape keeps the batch dimension.
        s = F.sigmoid(logits).reshape([0, len(anchors), channels // len(anchors), height * width])
        xy = s[:, :, :2] * scale + getattr(layer, offset)
        wh = s[:, :, 2:4] * s[:, :, 2:4] * getattr(layer, size)
        boxes = paddle.concat([xy, wh, s[:, :, 4:]], axis=2).transpose([0, 1, 3, 2])
        levels.append(boxes.reshape([0, len(anchors) * height * width, channels // len(anchors)]))
    return paddle.concat(levels, axis=1)


def write_paddle_inference(model: Model, folder: Path, height: int, width: int, batch: int | None = 1) -> None:
    """Write FILES into `folder`, for pictures of height x width pixels. batch: pictures per batch, None for any number."""
    size = -1 if batch is None else batch
    layer = _Decoded(model, height, width)
    spec = [paddle.static.InputSpec([size, 3, height, width], "float32", "images")]
    with tempfile.TemporaryDirectory(prefix="octrim-") as temporary, quiet_stderr():  # every recording prints a needless warning
        paddle.jit.save(paddle.jit.to_static(layer, input_spec=spec, full_graph=True), f"{temporary}/model")
        program, weights = ((Path(temporary) / name).read_bytes() for name in FILES[:2])
    if not program.rstrip().endswith(b"}"):  # Paddle itself says nothing where it could not write
        raise InputError(f"{temporary}/{FILES[0]}: Paddle wrote only a part of it: is the disk full?")
    if program.count(_FETCHED) != 1:
        raise InputError(f"Paddle {paddle.__version__} does not write programs as OcTrim knows them: no single output is called {_FETCHED.decode()}")
    write_bytes(folder / FILES[0], program.replace(_FETCHED, b'"output0"'))
    write_bytes(folder / FILES[1], weights)
    description = {**export_metadata(model), "precision": "fp32", "size": [height, width], "batch": batch, "classes": model.network.classes}
    write_text(folder / FILES[2], json.dumps(description, indent=1, ensure_ascii=False))
