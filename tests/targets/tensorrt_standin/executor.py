"""Runs a recorded program in NumPy: float32 arithmetic, results rounded to the type that each tensor has.

A convolution of dequantized int8 values is computed on what the Dequantize layers give, as the network says; an engine that fuses them accumulates
integers, which differs from this in the last bits only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from octrim.network.scales import quantized
from tests.targets.tensorrt_standin.program import Node, Program
from tests.targets.tensorrt_standin.shapes import Spec, infer_all, reshaped
from tests.targets.tensorrt_standin.values import DTYPES


def run(program: Program, feeds: Mapping[str, np.ndarray], every: bool = False) -> dict[str, np.ndarray]:
    """Outputs by name; with `every` also the output of every layer by the layer's name, where no output of the network has it.

    feeds: inputs by name, of exactly the type and shape that the program takes.
    """
    if set(feeds) != {port.name for port in program.inputs}:
        raise ValueError(f"fed {sorted(feeds)}, the network reads {sorted(port.name for port in program.inputs)}")
    values: dict[str, np.ndarray] = {}
    specs: dict[str, Spec] = {}
    for port in program.inputs:
        given = feeds[port.name]
        wanted = np.dtype(DTYPES[port.dtype])
        if given.dtype != wanted or given.ndim != len(port.shape) or any(a not in (-1, b) for a, b in zip(port.shape, given.shape, strict=True)):
            raise ValueError(f"input {port.name} is {given.dtype} {list(given.shape)}, expected {wanted} {list(port.shape)}")
        values[port.id], specs[port.id] = given, Spec(given.shape, port.dtype)
    specs = infer_all(program.nodes, specs)
    last = {key: index for index, node in enumerate(program.nodes) for key in node.inputs}
    kept = {port.id for port in program.outputs}
    layers: dict[str, np.ndarray] = {}
    for index, node in enumerate(program.nodes):
        spec = specs[node.output]
        with np.errstate(all="ignore"):  # infinities and what follows from them are results, as on the device
            result = _OPS[node.kind](node, [values[key] for key in node.inputs]).astype(DTYPES[spec.dtype], copy=False)
        if result.shape != spec.shape:
            raise AssertionError(f"{node.name} computed {result.shape}, inferred {spec.shape}")
        values[node.output] = result
        if every:
            layers[node.name] = result
        for key in set(node.inputs):
            if last[key] == index and key not in kept:
                del values[key]
    return layers | {port.name: values[port.id] for port in program.outputs}


def _f32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32, copy=False)


def _convolution(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    attributes = node.attributes
    groups, maps = attributes["num_groups"], attributes["num_output_maps"]
    (kh, kw), (sh, sw), (dh, dw) = (attributes[key] for key in ("kernel_size_nd", "stride_nd", "dilation_nd"))
    weight = _f32(inputs[1] if len(inputs) > 1 else node.weights["kernel"]).reshape(groups, maps // groups, -1)
    x = _padded(_f32(inputs[0]), attributes, 0)
    view = np.lib.stride_tricks.sliding_window_view(x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), (2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    batch, _, height, width = view.shape[:4]
    columns = view.transpose(0, 1, 4, 5, 2, 3).reshape(batch, groups, -1, height * width)
    y = (weight @ columns).reshape(batch, maps, height, width)
    bias = node.weights["bias"]
    return y + _f32(bias)[:, None, None] if bias.size else y


def _padded(x: np.ndarray, attributes: Mapping, value: float) -> np.ndarray:
    (top, left), (bottom, right) = attributes["pre_padding"], attributes["post_padding"]
    if not any((top, left, bottom, right)):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


_ACTIVATIONS: dict[str, Callable[[np.ndarray, np.float32, np.float32], np.ndarray]] = {
    "SIGMOID": lambda x, a, b: _sigmoid(x),
    "RELU": lambda x, a, b: np.maximum(x, 0),
    "TANH": lambda x, a, b: np.tanh(x),
    "LEAKY_RELU": lambda x, a, b: np.where(x >= 0, x, a * x),
    "CLIP": np.clip,
    "HARD_SIGMOID": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "SOFTPLUS": lambda x, a, b: a * np.logaddexp(b * x, np.float32(0)),
}

_ELEMENTWISE = {
    "SUM": np.add,
    "PROD": np.multiply,
    "SUB": np.subtract,
    "DIV": np.divide,
    "MIN": np.minimum,
    "MAX": np.maximum,
    "POW": np.power,
}

_UNARY = {"EXP": np.exp, "LOG": np.log, "SQRT": np.sqrt, "RECIP": np.reciprocal, "ABS": np.abs, "NEG": np.negative}


def _activation(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    alpha, beta = (np.float32(node.attributes.get(key, 0)) for key in ("alpha", "beta"))
    return _ACTIVATIONS[node.attributes["type"]](_f32(inputs[0]), alpha, beta)


def _elementwise(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    op = _ELEMENTWISE[node.attributes["op"]]
    return op(*inputs) if inputs[0].dtype == np.int32 else op(_f32(inputs[0]), _f32(inputs[1]))


def _unary(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return _UNARY[node.attributes["op"]](_f32(inputs[0]))


def _pooling(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    attributes, x = node.attributes, inputs[0]
    least = -128 if x.dtype == np.int8 else -np.inf
    (sh, sw), (kh, kw) = attributes["stride_nd"], attributes["window_size_nd"]
    view = np.lib.stride_tricks.sliding_window_view(_padded(x, attributes, least), (kh, kw), (2, 3))
    return view[:, :, ::sh, ::sw].max((-2, -1))


def _resize(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    y = inputs[0]
    for axis, scale in enumerate(node.attributes["scales"]):
        length = y.shape[axis]
        if scale != 1:
            target = int(length * scale)
            y = y.take(np.arange(target) * length // target, axis)
    return y


def _shuffle(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    attributes, y = node.attributes, inputs[0]
    y = y.transpose(attributes["first_transpose"][: y.ndim])
    if "reshape_dims" in attributes:
        y = y.reshape(reshaped(y.shape, attributes["reshape_dims"], attributes["zero_is_placeholder"]))
    return y.transpose(attributes["second_transpose"][: y.ndim])


def _slice(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    attributes, x = node.attributes, inputs[0]
    where = [slice(None)] * x.ndim
    axes = attributes.get("axes", range(x.ndim))
    for axis, start, count, step in zip(axes, attributes["start"], attributes["shape"], attributes["stride"], strict=True):
        where[axis] = slice(start, start + (count - 1) * step + 1, step)
    return x[tuple(where)]


def _constant(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return node.weights["weights"].reshape(node.attributes["shape"])


def _broadcast(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 scale against x: one, or one per index of axis 0."""
    scale = _f32(scale)
    return scale.reshape(()) if scale.size == 1 else scale.reshape(-1, *(1,) * (x.ndim - 1))


def _quantize(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return quantized(_f32(inputs[0]), _broadcast(*inputs))


def _dequantize(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return _f32(inputs[0]) * _broadcast(*inputs)


_OPS: dict[str, Callable[[Node, Sequence[np.ndarray]], np.ndarray]] = {
    "CONVOLUTION": _convolution,
    "ACTIVATION": _activation,
    "ELEMENTWISE": _elementwise,
    "UNARY": _unary,
    "POOLING": _pooling,
    "RESIZE": _resize,
    "CONCATENATION": lambda node, inputs: np.concatenate(inputs, node.attributes["axis"]),
    "SHUFFLE": _shuffle,
    "SLICE": _slice,
    "CONSTANT": _constant,
    "CAST": lambda node, inputs: inputs[0],
    "IDENTITY": lambda node, inputs: inputs[0],
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
