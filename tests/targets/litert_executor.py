"""Every operator of an int8 `.tflite` file by itself in float64, on the integers that LiteRT gave it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from octrim.backends.numpy import convolution, sigmoid, windows

NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
FUSED = {0: lambda x: x, 1: lambda x: np.maximum(x, 0), 3: lambda x: np.clip(x, 0, 6)}


def steps_off(content: bytes, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Difference in steps of every operator's output from what it means, by the output's name. picture: int8 `[1, height, width, 3]`."""
    interpreter: Any = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    differences: dict[str, np.ndarray] = {}
    for operator in graph.operators:
        name = NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]
        inputs = [_meaning(graph.tensors[index], interpreter.get_tensor(index)) for index in operator.inputs]
        outputs = OPERATORS[name](operator.builtinOptions, *inputs)
        for index, expected in zip(operator.outputs, outputs if isinstance(outputs, list) else [outputs], strict=True):
            tensor = graph.tensors[index]
            scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
            found = interpreter.get_tensor(index).astype(int)
            assert found.shape == expected.shape == tuple(tensor.shape), tensor.name
            differences[tensor.name.decode()] = np.abs(found - np.clip(np.rint(expected / scale + zero), -128, 127).astype(int))
    return differences


def _meaning(tensor: Any, values: np.ndarray) -> np.ndarray:
    """The numbers that a tensor's integers mean, float64; a tensor of indices as it is."""
    scale = tensor.quantization.scale
    if scale is None:
        return values
    along = [1] * values.ndim
    along[tensor.quantization.quantizedDimension] = -1
    return (values.astype(np.float64) - np.reshape(tensor.quantization.zeroPoint, along)) * np.reshape(scale.astype(np.float64), along)


def _padding(options: Any, x: np.ndarray, kernel: int, value: float) -> np.ndarray:
    """The map padded as SAME says, after TensorFlow's documentation; VALID pads nothing."""
    if options.padding == schema.Padding.VALID:
        return x
    sides = [max((-(-side // options.strideH) - 1) * options.strideH + kernel - side, 0) for side in x.shape[1:3]]
    return np.pad(x, ((0, 0), *((side // 2, side - side // 2) for side in sides), (0, 0)), constant_values=value)


def _conv(options: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x = _padding(options, x, weight.shape[1], 0).transpose(0, 3, 1, 2)
    y = convolution(x, weight.transpose(0, 3, 1, 2), options.strideH, 0, 1).transpose(0, 2, 3, 1)
    return FUSED[options.fusedActivationFunction](y + bias)


def _depthwise(options: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x = _padding(options, x, weight.shape[1], 0).transpose(0, 3, 1, 2)
    y = convolution(x, weight.transpose(3, 0, 1, 2), options.strideH, 0, x.shape[1]).transpose(0, 2, 3, 1)
    return FUSED[options.fusedActivationFunction](y + bias)


def _pool(options: Any, x: np.ndarray) -> np.ndarray:
    x = _padding(options, x, options.filterHeight, -np.inf).transpose(0, 3, 1, 2)
    return windows(x, options.filterHeight, options.strideH, 0, -np.inf).max((-2, -1)).transpose(0, 2, 3, 1)


def _upsampled(_: Any, x: np.ndarray, size: np.ndarray) -> np.ndarray:
    return x.repeat(size[0] // x.shape[1], axis=1).repeat(size[1] // x.shape[2], axis=2)


OPERATORS: dict[str, Callable[..., Any]] = {
    "ADD": lambda _, a, b: a + b,
    "CONCATENATION": lambda options, *xs: np.concatenate(xs, axis=options.axis),
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "HARD_SWISH": lambda _, x: x * np.clip(x + 3, 0, 6) / 6,
    "LEAKY_RELU": lambda options, x: np.where(x > 0, x, options.alpha * x),
    "LOGISTIC": lambda _, x: sigmoid(x),
    "MAX_POOL_2D": _pool,
    "MUL": lambda _, a, b: a * b,
    "PAD": lambda _, x, sides: np.pad(x, sides),
    "PADV2": lambda _, x, sides, value: np.pad(x, sides, constant_values=value[0]),
    "QUANTIZE": lambda _, x: x,
    "RESIZE_NEAREST_NEIGHBOR": _upsampled,
    "SPLIT": lambda options, axis, x: np.split(x, options.numSplits, axis=int(axis)),
}
