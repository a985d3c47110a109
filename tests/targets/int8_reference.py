"""Integers as they should be, in NumPy and in ONNX Runtime, to hold engines against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from octrim.backends.numpy import NumpyOps, activate, convolution, sigmoid
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Row, walk
from octrim.network.scales import LEAST_SCALE, Scales, quantized
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.session import float_batch

Named = tuple[str, np.ndarray]


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


class Int8Ops:
    """What an int8 engine computes, by the rules and not by its layers: int8 where rows read it, else rounded to float16 after every step.

    seen: the largest value of every map.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.scales = model, Scales(model.network, model.scales)
        self.seen: dict[str, float] = {}

    def keep(self, row: Row, value: np.ndarray) -> Named:
        self.seen[row.name] = float(np.abs(value).max())
        return row.name, value

    def read(self, row: Row, x: Named) -> np.ndarray:
        return through_int8(x[1], self.scales.map(x[0])) if self.scales.reads(row) else x[1]

    def conv(self, row: Row, x: Named) -> Named:
        weight, bias = folded_conv(self.model, row)
        bias, scale = half(bias), self.scales.weight(row)
        weight = half(weight) if scale is None else through_int8(weight.astype(np.float32), scale[:, None, None, None])
        y = half(convolution(self.read(row, x), weight, row.stride, row.padding, row.groups) + bias[:, None, None])
        return self.keep(row, half(y * half(sigmoid(y))) if row.activation == "silu" else half(activate(row, y)))

    def add(self, row: Row, a: Named, b: Named) -> Named:
        return self.keep(row, half(self.read(row, a) + self.read(row, b)))

    def concat(self, row: Row, xs: Sequence[Named]) -> Named:
        return self.keep(row, np.concatenate([self.read(row, x) for x in xs], 1))

    def maxpool(self, row: Row, x: Named) -> Named:
        return self.keep(row, NumpyOps.maxpool(None, row, self.read(row, x)))  # type: ignore[arg-type]

    def upsample(self, row: Row, x: Named) -> Named:
        return self.keep(row, NumpyOps.upsample(None, row, self.read(row, x)))  # type: ignore[arg-type]

    def detect(self, row: Row, heads: Sequence[Named]) -> list[Named]:
        return list(heads)


def through_int8(x: np.ndarray, scale: Any) -> np.ndarray:
    scale = half(np.asarray(scale))
    return half(quantized(x, scale) * scale)


def int8_heads(model: Model, batch: np.ndarray) -> tuple[list[np.ndarray], dict[str, float]]:
    ops = Int8Ops(model)
    image = half(float_batch(batch))
    return [x for _, x in walk(model.network, ops, ops.keep(model.network.rows[0], image))], ops.seen


def with_scales(model: Model, batch: np.ndarray, exclude: Sequence[str] = ()) -> Model:
    """Every map and weight that can be quantized is, by its largest value."""
    network = model.network
    seen = int8_heads(model, batch)[1]
    groups = Scales(network, {}).groups
    largest: dict[str, float] = {}
    for name, value in seen.items():
        largest[groups[name]] = max(largest.get(groups[name], 0), value)
    scales = {f"{name}.scale": np.float32([max(value / 127, LEAST_SCALE)]) for name, value in largest.items() if name not in network.heads}
    for row in network.convs:
        if row.name not in network.heads and row.name not in exclude:
            scale = np.abs(folded_conv(model, row)[0]).max((1, 2, 3)) / 127
            scales[f"{row.name}.weight_scale"] = np.maximum(scale, LEAST_SCALE).astype(np.float32)
    return replace(model, scales=scales)


def onnx_rows(model: Model, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime without optimisations makes of every row, each on the maps that are given for its inputs, and the heads of the whole."""
    rows = [row.name for row in model.network.rows[1:-1]]
    graph = onnx_model(model, *maps["images"].shape[2:], precision="int8", decode=False)
    heads = run_onnx(graph, {"images": maps["images"]})
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name in rows:
                node.input[index] = f"given/{name}"
    read = sorted({name for node in graph.graph.node for name in node.input if name.startswith("given/")})
    graph.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in read)
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in rows)
    return heads | run_onnx(graph, {"images": maps["images"]} | {name: maps[name.removeprefix("given/")] for name in read})


def run_onnx(graph: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {name: np.asarray(value) for name, value in zip(names, session.run(names, feeds), strict=True)}
