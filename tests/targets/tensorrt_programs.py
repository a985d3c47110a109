"""Random programs of layers, right and wrong ones, for the stand-in and for the real builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.targets.tensorrt_standin.draft import Draft

Step = Callable[[Draft, list[Any]], Any]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, Step]]:
    """Random layers over random tensors, right and wrong ones, with a name for the report."""
    chosen: list[tuple[str, Step]] = []
    for _ in range(draw(st.integers(1, 10))):
        name = draw(st.sampled_from(sorted(_STEPS)))
        sources = draw(st.lists(st.integers(0, 10), min_size=3, max_size=3))
        dtype = draw(st.sampled_from(["FLOAT", "FLOAT", "HALF", "INT32", "INT8"]))
        pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
        numbers = draw(st.tuples(pair, pair, st.integers(0, 2), st.sampled_from([1, 2, 4])))
        chosen.append((f"{name} {sources} {dtype} {numbers}", _step(name, sources, dtype, numbers)))
    return chosen


def _step(name: str, sources: Sequence[int], dtype: str, numbers: Any) -> Step:
    return lambda draft, tensors: _STEPS[name](draft, [tensors[index % len(tensors)] for index in sources], dtype, *numbers)


_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT8": np.int8}
_SHAPES = ((1, 1, 1, 1), (1, 4, 1, 1), (), (4,), (1, 4, 6, 6))
_DIMS = ((0, -1), (0, 0, -1), (0, 2, -1, 0), (-1,), (0, 0, 0, 0), (1, -1, 1), (0, 4, 6, 6), (0, 6, -1), (-1, 4))


def _set(layer: Any, **values: Any) -> Any:
    for key, value in values.items():
        setattr(layer, key, value)
    return layer.get_output(0)


def _random_conv(d: Draft, xs: Any, dtype: str, kernel: Any, strides: Any, padding: int, groups: int) -> Any:
    weight, bias = (kept(d, np.ones(shape, _TYPES[dtype])) for shape in ((4, 4 // groups, *kernel), (4,)))
    return _set(d.net.add_convolution_nd(xs[0], 4, kernel, weight, bias), stride_nd=strides, padding_nd=(padding, 1), num_groups=groups)


def _random_int8_conv(d: Draft, xs: Any, dtype: str, kernel: Any, strides: Any, padding: int, groups: int) -> Any:
    kind = getattr(d.trt.DataType, dtype)
    scale, factors = _constant(d, (), dtype, 1), _constant(d, (4,), dtype, 1)
    x = d.net.add_dequantize(d.net.add_quantize(xs[0], scale, d.trt.int8).get_output(0), scale, kind).get_output(0)
    weight = _set(d.net.add_dequantize(_constant(d, (4, 4 // groups, *kernel), "INT8", 1), factors, kind), axis=0)
    layer = d.net.add_convolution_nd(x, 4, kernel, d.trt.Weights(kind), kept(d, np.ones(4, _TYPES[dtype])))
    layer.set_input(1, weight)
    return _set(layer, stride_nd=strides, padding_nd=(padding, 1), num_groups=groups)


def kept(d: Draft, array: np.ndarray) -> np.ndarray:
    """TensorRT reads it while it builds."""
    d.__dict__.setdefault("kept", []).append(array)
    return array


def _constant(d: Draft, shape: tuple[int, ...], dtype: str, value: int) -> Any:
    return d.net.add_constant(shape, kept(d, np.full(shape, value, _TYPES[dtype]))).get_output(0)


def _through(d: Draft, name: str, x: Any, dtype: str, target: str, size: int, axis: int) -> Any:
    layer = getattr(d.net, f"add_{name}")(x, _constant(d, (size,) if size > 1 else (), dtype, 1), getattr(d.trt.DataType, target))
    return _set(layer, axis=axis) if size > 1 else layer.get_output(0)


def _resize(d: Draft, xs: Any, dtype: str, a: Any, b: Any, n: int, m: int) -> Any:
    trt, scales = d.trt, ((1, 1, *a), (1, 1, 0.5, 1.5), (1, *a))[n]
    modes = {"resize_mode": trt.InterpolationMode.NEAREST, "coordinate_transformation": trt.ResizeCoordinateTransformation.ASYMMETRIC}
    return _set(d.net.add_resize(xs[0]), **modes, nearest_rounding=trt.ResizeRoundMode.FLOOR, scales=scales)


_STEPS: dict[str, Callable[..., Any]] = {
    "conv": _random_conv,
    "int8 conv": _random_int8_conv,
    "activation": lambda d, xs, t, a, b, n, m: _set(
        d.net.add_activation(xs[0], getattr(d.trt.ActivationType, ("SIGMOID", "CLIP", "HARD_SIGMOID")[n])), alpha=0.0, beta=float(m)
    ),
    "elementwise": lambda d, xs, t, a, b, n, m: d.elementwise(xs[0], xs[1], ("SUM", "PROD", "MAX")[n]),
    "unary": lambda d, xs, t, a, b, n, m: d.net.add_unary(xs[0], getattr(d.trt.UnaryOperation, ("EXP", "ABS", "NEG")[n])).get_output(0),
    "pooling": lambda d, xs, t, a, b, n, m: _set(d.net.add_pooling_nd(xs[0], d.trt.PoolingType.MAX, a), stride_nd=b, padding_nd=(n, 0)),
    "resize": _resize,
    "concatenation": lambda d, xs, t, a, b, n, m: _set(d.net.add_concatenation(xs[: 1 + n]), axis=m % 4),
    "transpose": lambda d, xs, t, a, b, n, m: _set(d.net.add_shuffle(xs[0]), first_transpose=((0, 2, 3, 1), (0, 1, 3, 2), (0, 2, 1))[n]),
    "reshape": lambda d, xs, t, a, b, n, m: _set(d.net.add_shuffle(xs[0]), reshape_dims=_DIMS[3 * n + a[0] - 1]),
    "slice": lambda d, xs, t, a, b, n, m: d.net.add_slice(xs[0], (0, 0, *a), (1, m, *b), (1, 1, 1, 1 + n)).get_output(0),
    "cast": lambda d, xs, t, a, b, n, m: d.net.add_cast(xs[0], getattr(d.trt.DataType, t)).get_output(0),
    "constant": lambda d, xs, t, a, b, n, m: _constant(d, _SHAPES[(n + m) % 5], t, 1),
    "identity": lambda d, xs, t, a, b, n, m: d.net.add_identity(xs[0]).get_output(0),
    "quantize": lambda d, xs, t, a, b, n, m: _through(d, "quantize", xs[0], t, "INT8", m, n),
    "dequantize": lambda d, xs, t, a, b, n, m: _through(d, "dequantize", xs[0], t, t, m, n),
}
