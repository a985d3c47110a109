"""Networks for tests: published variants with lively weights, and random tables."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from octrim.network.cost import tensor_shapes
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.network.yolov5 import yolov5_network


def lively_tensors(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under which signals neither die nor explode on their way through the network, with batch norm away from 1 and 0."""
    generator = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for name, shape in tensor_shapes(network).items():
        if name.endswith(("bn.weight", "running_var")):
            values = generator.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = generator.normal(0, 0.3, shape)
        else:
            values = generator.standard_normal(shape, np.float32) * np.float32(1.5 / np.sqrt(np.prod(shape[1:])))
        tensors[name] = values.astype(np.float32)
    return tensors


def lively_model(network: Network, seed: int = 0) -> Model:
    return Model(network, lively_tensors(network, seed), tuple(f"class{index}" for index in range(network.classes)), 640, ({"action": "made up"},))


@lru_cache(maxsize=1)  # one at a time: x6 alone takes half a gigabyte
def variant(name: str) -> Model:
    return lively_model(yolov5_network(name, classes=3))


def three_levels(classes: int) -> Network:
    """A table of eight convolutions on three detection levels of strides 8, 16 and 32: whatever needs no real network costs a tenth with it."""
    silu = {"norm": True, "activation": "silu"}
    widths = {"model.0": 16, "model.1": 16, "model.2": 24, "model.3": 24, "model.4": 32}
    sources = ["images", *widths]
    backbone = [Row(name, "conv", (source,), width, 3, 2, 1, **silu) for (name, width), source in zip(widths.items(), sources, strict=False)]
    levels = ("model.2", "model.3", "model.4")
    heads = [Row(f"model.5.m.{index}", "conv", (name,), 3 * (5 + classes), bias=True) for index, name in enumerate(levels)]
    anchors = tuple(((1.25 * stride, 1.5 * stride), (2.0 * stride, 4.0 * stride), (4.0 * stride, 3.0 * stride)) for stride in (8, 16, 32))
    return Network((Row("images", "image", channels=3), *backbone, *heads, Row("detect", "detect", tuple(row.name for row in heads))), anchors)


TINY = """nc: 2
depth_multiple: 1.0  # repeats
width_multiple: 1.0
anchors:
  - [10, 13, 16, 30]
  - [30, 61, 62, 45]
activation: nn.LeakyReLU(0.1)
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, C3, [8]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, C3, [8, False]]
  - [[7, 4], 1, Detect, [nc, anchors]]
"""
"""A layout with all that YOLOv5's have, but a third of the convolutions, two levels of strides 4 and 8, and channels of 4 to 16."""


def tiny_model(width: float = 1.0, seed: int = 0, names: tuple[str, ...] = ("square", "disc")) -> Model:
    """Fresh weights of TINY with SiLU: for what trainings do with any network. width: factor of its channels."""
    layout = TINY.replace("activation: nn.LeakyReLU(0.1)\n", "").replace("width_multiple: 1.0", f"width_multiple: {width}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.yaml"
        path.write_text(layout)
        return fresh_model(path, len(names), names, seed)


ACTIVATIONS = [None, "silu", "relu", "relu6", "leaky_relu:0.1", "hardswish", "mish", "sigmoid"]


@st.composite
def random_networks(draw: st.DrawFn, grouped: bool = True) -> Network:
    """A table of 4 to 14 random rows on one or two detection levels: residuals, concats (of a map with itself too), pools, up, groups."""
    rows = [Row("images", "image", channels=3)]
    maps: dict[str, tuple[int, int]] = {"images": (3, 1)}  # channels, stride

    def add(row: Row, channels: int, stride: int) -> None:
        rows.append(row)
        maps[row.name] = (channels, stride)

    add(Row("stem", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"), 8, 2)
    for index in range(draw(st.integers(4, 14))):
        name = f"row{index}"
        source = draw(st.sampled_from([key for key in maps if key != "images"]))
        channels, stride = maps[source]
        op = draw(st.sampled_from(["conv", "conv", "conv", "add", "concat", "maxpool", "upsample", "residual"]))
        same = [key for key, value in maps.items() if value[1] == stride and key != "images"]
        equal = [key for key in same if maps[key][0] == channels]
        if op == "conv":
            width = draw(st.sampled_from([4, 6, 8, 12, 16, 24]))
            kernel = draw(st.sampled_from([1, 3, 5]))
            step = draw(st.sampled_from([1, 1, 2])) if stride < 8 else 1
            groups = draw(st.sampled_from([1, 1, 1, 2, channels])) if grouped else 1
            width = channels if groups == channels else width
            groups = groups if channels % groups == 0 and width % groups == 0 else 1
            norm = draw(st.booleans())
            row = Row(name, "conv", (source,), width, kernel, step, kernel // 2, groups, not norm, norm, draw(st.sampled_from(ACTIVATIONS)))
            add(row, width, stride * step)
        elif op == "add" and equal:
            add(Row(name, "add", (source, draw(st.sampled_from(equal)))), channels, stride)
        elif op == "residual":
            add(Row(f"{name}c", "conv", (source,), channels, 3, 1, 1, norm=True, activation="silu"), channels, stride)
            add(Row(name, "add", (source, f"{name}c")), channels, stride)
        elif op == "concat":
            inputs = (source, *draw(st.lists(st.sampled_from(same), min_size=1, max_size=2)))
            total = sum(maps[key][0] for key in inputs)
            if total <= 64:
                add(Row(name, "concat", inputs), total, stride)
        elif op == "maxpool":
            kernel = draw(st.sampled_from([2, 3, 5]))
            step = 2 if kernel == 2 else 1
            if stride * step <= 8:
                add(Row(name, "maxpool", (source,), kernel=kernel, stride=step, padding=kernel // 2 if step == 1 else 0), channels, stride * step)
        elif op == "upsample" and stride > 2:
            add(Row(name, "upsample", (source,), stride=2), channels, stride // 2)
    # Whatever nothing reads yet goes into a detection level, joined by stride.
    read = {name for row in rows for name in row.inputs}
    levels: dict[int, list[str]] = {}
    for name, (_, stride) in maps.items():
        if name not in read:
            levels.setdefault(stride, []).append(name)
    heads = []
    for stride, names in sorted(levels.items()):
        source = names[0]
        if len(names) > 1:
            source = f"join{stride}"
            rows.append(Row(source, "concat", tuple(names)))
        heads.append(f"level{stride}")
        rows.append(Row(heads[-1], "conv", (source,), 2 * 7, bias=True))
    anchors = tuple(((4.0 * stride, 5.0 * stride), (9.0 * stride, 7.5 * stride)) for stride in sorted(levels))
    return Network((*rows, Row("detect", "detect", tuple(heads))), anchors)
