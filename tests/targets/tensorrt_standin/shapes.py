"""Type and shape of every layer's output, and the rules of a strongly typed network. -1 is a dimension known only when the engine runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from tests.targets.tensorrt_standin.program import Node, Shape

LEAST_HALF = 2.0**-14

FLOATS = ("FLOAT", "HALF")


class RefusedError(ValueError):
    """A layer that TensorRT would not build."""


@dataclass(frozen=True)
class Spec:
    """Of one tensor. producer: kind of its layer, "" for an input. value: of a constant layer. constant: follows from constants alone.

    scale: of an int8 tensor, where it is known.
    """

    shape: Shape
    dtype: str
    producer: str = ""
    value: np.ndarray | None = None
    constant: bool = False
    scale: np.ndarray | None = None


def infer(node: Node, inputs: Sequence[Spec]) -> Spec:
    """Raises RefusedError, which names the layer."""
    rule = _RULES.get(node.kind)
    if rule is None:
        raise RefusedError(f"{node.name} [{node.kind}]: the stand-in does not model this layer")
    try:
        made = rule(node, inputs)
    except RefusedError as error:
        raise RefusedError(f"{node.name} [{node.kind}]: {error}") from None
    if any(side < 1 and side != -1 for side in made.shape):
        raise RefusedError(f"{node.name} [{node.kind}]: output {list(made.shape)} is empty")
    return replace(made, producer=node.kind, constant=node.kind == "CONSTANT" or (bool(inputs) and all(x.constant for x in inputs)))


def infer_all(nodes: Sequence[Node], known: Mapping[str, Spec]) -> dict[str, Spec]:
    """Of all tensors by id. known: the inputs. nodes: in an order in which they can run."""
    specs = dict(known)
    for node in nodes:
        specs[node.output] = infer(node, [specs[key] for key in node.inputs])
    return specs


def need(condition: bool, message: str) -> None:
    if not condition:
        raise RefusedError(message)


def _typed(x: Spec, *types: str) -> None:
    need(x.dtype in types, f"input of type {x.dtype}, expected {' or '.join(types)}")


def window(shape: Shape, attributes: Mapping[str, Any], kernel: Sequence[int], dilation: Sequence[int] = (1, 1)) -> Shape:
    """Height and width that a sliding window leaves."""
    need(len(shape) == 4, f"input {list(shape)}, expected [batch, channels, height, width]")
    need(attributes["padding_mode"] == "EXPLICIT_ROUND_DOWN", f"the stand-in does not model {attributes['padding_mode']}")
    sides = []
    for axis in (0, 1):
        parts = [attributes[key] for key in ("stride_nd", "pre_padding", "post_padding")]
        need(all(len(part) == 2 for part in [*parts, kernel, dilation]), "window, stride, padding and dilation need two entries each")
        stride, before, after = (part[axis] for part in parts)
        need(stride > 0 and min(before, after) >= 0, f"stride {stride}, padding {before} and {after}")
        side = shape[2 + axis]
        sides.append(-1 if side == -1 else (side + before + after - dilation[axis] * (kernel[axis] - 1) - 1) // stride + 1)
        need(side == -1 or sides[-1] > 0, f"a window of {list(kernel)} does not fit into {list(shape)}")
    return tuple(sides)


def _convolution(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, attributes = inputs[0], node.attributes
    _typed(x, *FLOATS)
    kernel, groups, maps = attributes["kernel_size_nd"], attributes["num_groups"], attributes["num_output_maps"]
    sides = window(x.shape, attributes, kernel, attributes["dilation_nd"])
    need(x.shape[1] > 0, "the number of channels must be known")
    need(x.shape[1] % groups == 0 and maps % groups == 0, f"{groups} groups do not divide {x.shape[1]} input and {maps} output channels")
    expected = (maps, x.shape[1] // groups, *kernel)
    stored = node.weights["kernel"]
    if len(inputs) == 1:
        need(stored.size > 0, "empty kernel weights, and no set_input(1, ..)")
        need(stored.size == math.prod(expected), f"kernel of {stored.size} values, expected {list(expected)}, {math.prod(expected)} values")
        need(attributes["kernel_type"] == x.dtype, f"kernel of type {attributes['kernel_type']} for an input of type {x.dtype}")
    else:
        weight = inputs[1]
        need(stored.size == 0, f"kernel weights of {stored.size} values beside set_input(1, ..); pass empty weights")
        need(weight.shape == expected, f"kernel tensor {list(weight.shape)}, expected {list(expected)}")
        need(weight.dtype == x.dtype, f"kernel tensor of type {weight.dtype} for an input of type {x.dtype}")
        need(weight.constant, "the kernel tensor does not come from a constant")
        need(weight.producer == "DEQUANTIZE", f"the kernel tensor comes from {weight.producer}, expected DEQUANTIZE")
        need(x.producer == "DEQUANTIZE", f"int8 weights, but the input comes from {x.producer or 'a network input'}, expected DEQUANTIZE")
    bias = node.weights["bias"]
    if bias.size:
        need(bias.size == maps, f"bias of {bias.size} values for {maps} output channels")
        need(attributes["bias_type"] == x.dtype, f"bias of type {attributes['bias_type']} for an input of type {x.dtype}")
    return Spec((x.shape[0], maps, *sides), x.dtype)


_PARAMETERS = {"CLIP": ("alpha", "beta"), "LEAKY_RELU": ("alpha",), "HARD_SIGMOID": ("alpha", "beta"), "SOFTPLUS": ("alpha", "beta")}


def _activation(node: Node, inputs: Sequence[Spec]) -> Spec:
    _typed(inputs[0], *FLOATS)
    kind = node.attributes["type"]
    need(kind in (*_PARAMETERS, "SIGMOID", "RELU", "TANH"), f"the stand-in does not model {kind}")
    for name in _PARAMETERS.get(kind, ()):
        need(name in node.attributes, f"{kind} without {name}: the default is not documented, set it")
        need(math.isfinite(node.attributes[name]), f"{name} is {node.attributes[name]}")
    return Spec(inputs[0].shape, inputs[0].dtype)


def _elementwise(node: Node, inputs: Sequence[Spec]) -> Spec:
    a, b = inputs
    _typed(a, *FLOATS, "INT32")
    need(a.dtype == b.dtype, f"operands of types {a.dtype} and {b.dtype}")
    need(len(a.shape) == len(b.shape), f"operands of ranks {len(a.shape)} and {len(b.shape)}: {list(a.shape)} and {list(b.shape)}")
    need(node.attributes["op"] in ("SUM", "PROD", "SUB", "DIV", "MIN", "MAX", "POW"), f"the stand-in does not model {node.attributes['op']}")
    need(a.dtype != "INT32" or node.attributes["op"] not in ("DIV", "POW"), f"the stand-in does not model {node.attributes['op']} of integers")
    need(all(p == q or 1 in (p, q) for p, q in zip(a.shape, b.shape, strict=True)), f"operands {list(a.shape)} and {list(b.shape)} do not broadcast")
    return Spec(tuple(q if p == 1 else p for p, q in zip(a.shape, b.shape, strict=True)), a.dtype)


def _unary(node: Node, inputs: Sequence[Spec]) -> Spec:
    _typed(inputs[0], *FLOATS)
    need(node.attributes["op"] in ("EXP", "LOG", "SQRT", "RECIP", "ABS", "NEG"), f"the stand-in does not model {node.attributes['op']}")
    return Spec(inputs[0].shape, inputs[0].dtype)


def _pooling(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, attributes = inputs[0], node.attributes
    _typed(x, *FLOATS, "INT8")
    need(attributes["type"] == "MAX", f"the stand-in does not model {attributes['type']} pooling")
    kernel = attributes["window_size_nd"]
    sides = window(x.shape, attributes, kernel)
    for key in ("pre_padding", "post_padding"):
        need(all(pad < size for pad, size in zip(attributes[key], kernel, strict=True)), f"padding {attributes[key]} of a window of {kernel}")
    return Spec((*x.shape[:2], *sides), x.dtype, scale=x.scale)


def _resize(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, attributes = inputs[0], node.attributes
    _typed(x, *FLOATS)
    for key, value in {"resize_mode": "NEAREST", "coordinate_transformation": "ASYMMETRIC", "nearest_rounding": "FLOOR"}.items():
        need(attributes[key] == value, f"{key} is {attributes[key]}; the stand-in models {value} only")
    need("scales" in attributes, "no scales were set")
    scales = attributes["scales"]
    need(len(scales) == len(x.shape), f"{len(scales)} scales for an input {list(x.shape)}")
    need(all(scale == 1 for scale in scales[:-3]), f"scales {scales}: only the last three dimensions can be resized")
    need(all(scale == 1 for scale, side in zip(scales, x.shape, strict=True) if side == -1), f"scales {scales} of {list(x.shape)}")
    return Spec(tuple(side if side == -1 else math.floor(side * scale) for side, scale in zip(x.shape, scales, strict=True)), x.dtype)


def _concatenation(node: Node, inputs: Sequence[Spec]) -> Spec:
    _typed(inputs[0], *FLOATS, "INT8", "INT32")
    need("axis" in node.attributes, "axis was never set; its default is rank - 3")
    axis, first = node.attributes["axis"], inputs[0]
    need(0 <= axis < len(first.shape), f"axis {axis} of inputs of rank {len(first.shape)}")
    shapes = [list(x.shape) for x in inputs]
    for x in inputs:
        need(x.dtype == first.dtype, f"inputs of types {', '.join(x.dtype for x in inputs)}")
        equal = all(p == q for index, (p, q) in enumerate(zip_longest(x.shape, first.shape)) if index != axis)
        need(equal, f"inputs {shapes} differ outside axis {axis}")
        need(x.shape[axis] > 0, f"inputs {shapes} with an unknown length along axis {axis}")
        same = first.scale is None or x.scale is None or np.array_equal(first.scale, x.scale)
        need(same, f"int8 inputs of different scales {first.scale} and {x.scale}")
    length = sum(x.shape[axis] for x in inputs)
    return Spec((*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype, scale=first.scale)


def permuted(shape: Shape, order: Sequence[int]) -> Shape:
    need(sorted(order[: len(shape)]) == list(range(len(shape))), f"permutation {list(order[: len(shape)])} of rank {len(shape)}")
    return tuple(shape[index] for index in order[: len(shape)])


def reshaped(shape: Shape, dims: Sequence[int], zero: bool) -> Shape:
    """reshape_dims with 0 (where zero) and -1 replaced by what follows from the input."""
    need(list(dims).count(-1) <= 1, f"reshape_dims {list(dims)} with more than one -1")
    need(min([*dims, 0]) >= -1, f"reshape_dims {list(dims)}")
    out = []
    for index, side in enumerate(dims):
        need(side != 0 or not zero or index < len(shape), f"reshape_dims {list(dims)} copies dimension {index} of {list(shape)}")
        out.append(shape[index] if side == 0 and zero else side)
    free = next((index for index, side in enumerate(dims) if side == -1), None)
    # Unknown dimensions that are copied cancel out; only then does a -1, or the equality of volumes, follow from the known ones.
    unknown, copied = shape.count(-1), sum(1 for index, side in enumerate(out) if side == -1 and index != free)
    volume, known = math.prod(side for side in shape if side != -1), math.prod(side for side in out if side != -1)
    if free is not None and unknown == copied:
        need(known > 0 and volume % known == 0, f"{list(shape)} cannot become {list(dims)}")
        out[free] = volume // known
    elif free is None:
        need(unknown == copied and volume == known, f"{list(shape)} cannot become {list(dims)}")
    else:
        need(unknown == copied + 1, f"{list(shape)} cannot become {list(dims)}")
    return tuple(out)


def _shuffle(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, attributes = inputs[0], node.attributes
    _typed(x, *FLOATS, "INT8", "INT32")
    shape = permuted(x.shape, attributes["first_transpose"])
    if "reshape_dims" in attributes:
        shape = reshaped(shape, attributes["reshape_dims"], attributes["zero_is_placeholder"])
    return Spec(permuted(shape, attributes["second_transpose"]), x.dtype, scale=x.scale)


def _slice(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, attributes = inputs[0], node.attributes
    _typed(x, *FLOATS, "INT8", "INT32")
    need(attributes["mode"] == "STRICT_BOUNDS", f"the stand-in does not model {attributes['mode']}")
    axes = attributes.get("axes", list(range(len(x.shape))))
    start, size, stride = (attributes[key] for key in ("start", "shape", "stride"))
    need(len(start) == len(size) == len(stride) == len(axes), f"start {start}, shape {size}, stride {stride} for axes {axes} of {list(x.shape)}")
    need(len(set(axes)) == len(axes) and all(0 <= axis < len(x.shape) for axis in axes), f"axes {axes} of {list(x.shape)}")
    out = list(x.shape)
    for axis, first, count, step in zip(axes, start, size, stride, strict=True):
        need(x.shape[axis] != -1, f"a constant slice of the unknown dimension {axis} of {list(x.shape)}; leave it out with axes")
        need(count > 0 and step > 0 and first >= 0, f"start {first}, length {count}, stride {step} along axis {axis}")
        last = first + (count - 1) * step
        need(last < x.shape[axis], f"element {last} along axis {axis} of {list(x.shape)}")
        out[axis] = count
    return Spec(tuple(out), x.dtype, scale=x.scale)


def _constant(node: Node, inputs: Sequence[Spec]) -> Spec:
    shape, value = tuple(node.attributes["shape"]), node.weights["weights"]
    need(value.size == math.prod(shape), f"{value.size} values for the shape {list(shape)}")
    return Spec(shape, node.attributes["type"], value=value)


def _cast(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, target = inputs[0], node.attributes["to_type"]
    if "UINT8" in (x.dtype, target):
        other = target if x.dtype == "UINT8" else x.dtype
        need(other in FLOATS, f"{x.dtype} to {target}: UINT8 converts to and from {' and '.join(FLOATS)} only")
        need(x.dtype != "UINT8" or not x.producer, "UINT8 is for inputs and outputs of the network only")
    return Spec(x.shape, target)


def _identity(node: Node, inputs: Sequence[Spec]) -> Spec:
    need(inputs[0].dtype != "UINT8", "UINT8 can only be cast")
    return replace(inputs[0], value=None)


def scale_axis(node: Node, x: Spec, scale: Spec) -> int | None:
    """Axis of per-channel quantization, None for one scale per tensor."""
    need(scale.producer == "CONSTANT", f"the scale comes from {scale.producer or 'a network input'}, expected a constant")
    need(scale.value is not None, "the scale has no value")
    value = np.asarray(scale.value, np.float64)
    need(bool(np.isfinite(value).all() and (value > 0).all()), f"scales must be positive, the least is {value.min():g}")
    need(scale.dtype != "HALF" or value.min() >= LEAST_HALF, f"a HALF scale of {value.min():g} is subnormal, expected at least {LEAST_HALF:g}")
    if value.size == 1 and len(scale.shape) <= 1:
        return None
    need(len(scale.shape) == 1, f"scale {list(scale.shape)}, expected [] or [1] per tensor, [channels] per channel")
    need("axis" in node.attributes, f"scale {list(scale.shape)} per channel, but axis was never set")
    axis = node.attributes["axis"]
    need(0 <= axis < len(x.shape) and x.shape[axis] == scale.shape[0], f"scale {list(scale.shape)} for axis {axis} of {list(x.shape)}")
    need(x.constant, "a scale per channel is for weights; activations have one per tensor")
    return axis


def _quantize(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, scale = inputs
    _typed(x, *FLOATS)
    need(node.attributes["to_type"] == "INT8", f"the stand-in quantizes to INT8 only, not {node.attributes['to_type']}")
    need(len(x.shape) > 0, "a scalar cannot be quantized")
    need(scale.dtype == x.dtype, f"scale of type {scale.dtype} for an input of type {x.dtype}")
    need(scale_axis(node, x, scale) in (None, 0), "weights of a convolution have a scale per output channel, axis 0")
    return Spec(x.shape, "INT8", scale=scale.value)


def _dequantize(node: Node, inputs: Sequence[Spec]) -> Spec:
    x, scale = inputs
    _typed(x, "INT8")
    need(len(x.shape) > 0, "a scalar cannot be dequantized")
    target = node.attributes["to_type"]
    need(target in FLOATS, f"dequantized to {target}, expected {' or '.join(FLOATS)}")
    need(scale.dtype == target, f"scale of type {scale.dtype} for an output of type {target}")
    need(scale_axis(node, x, scale) in (None, 0), "weights of a convolution have a scale per output channel, axis 0")
    if x.scale is not None and not np.array_equal(x.scale, scale.value if scale.value is not None else ()):
        raise RefusedError(f"dequantized with another scale than it was quantized with: {scale.value} and {x.scale}")
    return Spec(x.shape, target)


_RULES: dict[str, Callable[[Node, Sequence[Spec]], Spec]] = {
    "CONVOLUTION": _convolution,
    "ACTIVATION": _activation,
    "ELEMENTWISE": _elementwise,
    "UNARY": _unary,
    "POOLING": _pooling,
    "RESIZE": _resize,
    "CONCATENATION": _concatenation,
    "SHUFFLE": _shuffle,
    "SLICE": _slice,
    "CONSTANT": _constant,
    "CAST": _cast,
    "IDENTITY": _identity,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
