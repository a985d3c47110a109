"""The stand-in for TensorRT refuses what TensorRT would, and computes what was recorded."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from octrim.backends.numpy import convolution, sigmoid
from octrim.network.quantization import quantized
from tests.backends.tensorrt_standin import VERSIONS, Installed, execute, installed

TEN, ELEVEN = VERSIONS


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


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> Iterator[Installed]:
    with installed(request.param) as made:
        yield made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


# Calls that are refused where they stand: what is called, the error, and what it tells.

CALLS: dict[str, tuple[Callable[[Draft], Any], type[Exception], str]] = {
    "unknown method": (
        lambda d: d.net.add_fully_connected(d.x),
        AttributeError,
        r"INetworkDefinition.add_fully_connected does not exist; there are add_a",
    ),
    "unknown keyword": (lambda d: d.net.add_activation(d.x, kind=d.trt.ActivationType.RELU), TypeError, r"no parameter 'kind'"),
    "too many arguments": (lambda d: d.net.add_resize(d.x, 2), TypeError, r"2 arguments given, at most 1 taken"),
    "missing argument": (lambda d: d.net.add_cast(d.x), TypeError, r"'to_type' is missing"),
    "unknown enum member": (lambda d: d.trt.ActivationType.SILU, AttributeError, r"ActivationType has no member SILU; it has CLIP, ELU"),
    "unknown class": (lambda d: d.trt.IInt8EntropyCalibrator2, AttributeError, r"IInt8EntropyCalibrator2 does not exist"),
    "unknown property": (
        lambda d: setattr(d.net.add_resize(d.x), "scale", (1, 1, 2, 2)),
        AttributeError,
        r"IResizeLayer.scale does not exist.* scales",
    ),
    "read-only property": (lambda d: setattr(d.net, "num_layers", 3), AttributeError, r"INetworkDefinition.num_layers is read-only"),
    "written method": (lambda d: setattr(d.config, "set_flag", 3), AttributeError, r"IBuilderConfig.set_flag is a method"),
    "enum of another kind": (
        lambda d: d.net.add_unary(d.x, d.trt.ElementWiseOperation.SUM),
        TypeError,
        r"op is <ElementWiseOperation.SUM: 0>, expected trt.Unary",
    ),
    "number for an enum": (lambda d: d.net.add_cast(d.x, 1), TypeError, r"to_type is 1, expected trt.DataType"),
    "shifted enum": (lambda d: 1 << d.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED, TypeError, r"unsupported operand"),
    "workspace as float": (
        lambda d: d.config.set_memory_pool_limit(d.trt.MemoryPoolType.WORKSPACE, 1e9),
        TypeError,
        r"set_memory_pool_limit\(.*pool_size is 1000000000.0, expected typing.SupportsInt",
    ),
    "optimization level": (lambda d: setattr(d.config, "builder_optimization_level", 6), ValueError, r"is 6, expected 0 to 5"),
    "no constructor": (lambda d: d.trt.INetworkDefinition(), TypeError, r"INetworkDefinition: no constructor"),
    "kernel None": (lambda d: d.net.add_convolution_nd(d.x, 4, (1, 1), None), TypeError, r"kernel is None, expected trt.Weights"),
    "kernel tensor": (lambda d: d.net.add_convolution_nd(d.x, 4, (1, 1), d.x), TypeError, r"kernel is ITensor, expected trt.Weights"),
    "float64 weights": (lambda d: d.conv(d.x, ones(4, 4, 1, 1, dtype=np.float64)), TypeError, r"weights of dtype <f8 \(float64\)"),
    "big-endian weights": (lambda d: d.conv(d.x, ones(4, 4, 1, 1).astype(">f4")), TypeError, r"weights of dtype >f4.*native-endian"),
    "strided weights": (lambda d: d.conv(d.x, ones(1, 1, 4, 4).T), TypeError, r"not C-contiguous"),
    "pickled weights": (lambda d: d.conv(d.x, pickle.loads(pickle.dumps(ones(4, 4, 1, 1)))), TypeError, r"came out of a pickle"),  # noqa: S301
    "derived from pickled": (lambda d: d.constant(pickle.loads(pickle.dumps(ones(2))) * 2, None), TypeError, r"came out of a pickle"),  # noqa: S301
    "float shape": (lambda d: d.net.add_constant((2.0,), ones(2)), TypeError, r"shape is 2.0, expected|shape is tuple"),
    "array as shape": (lambda d: d.net.add_constant(np.array([2]), ones(2)), TypeError, r"shape is int64 array \[1\], expected trt.Dims"),
    "two-argument quantize": (lambda d: d.net.add_quantize(d.x, d.constant(0.5)), TypeError, r"add_quantize.*output_type"),
    "two-argument dequantize": (lambda d: d.net.add_dequantize(d.x, d.constant(0.5)), TypeError, r"add_dequantize.*output_type"),
    "repeated input": (lambda d: d.net.add_input("images", d.trt.float32, (1,)), ValueError, r"the name 'images' is empty or taken"),
    "empty dimension": (lambda d: d.net.add_input("y", d.trt.float32, (1, 0)), ValueError, r"a dimension is positive, or -1"),
    "tensor of another network": (lambda d: d.net.add_identity(Draft(d.fake).x), ValueError, r"a tensor of another network"),
    "output twice": (lambda d: [d.net.mark_output(y) for y in [d.net.add_identity(d.x).get_output(0)] * 2], ValueError, r"marked already"),
    "permutation": (lambda d: d.trt.Permutation([0, 2, 3]), ValueError, r"\(0, 2, 3\) is no permutation"),
    "Dims and Dims": (lambda d: d.x.shape == d.trt.Dims((1, 4, 6, 6)), TypeError, r"== compares with a tuple or list"),
    "profile that falls": (
        lambda d: d.builder.create_optimization_profile().set_shape("images", (2, 4), (1, 4), (3, 4)),
        ValueError,
        r"images from \(2, 4\) by \(1, 4\) to \(3, 4\) is inconsistent",
    ),
    "profile without shapes": (lambda d: d.config.add_optimization_profile(d.builder.create_optimization_profile()), RuntimeError, r"sets no shape"),
    "second input of a pooling": (
        lambda d: d.net.add_pooling_nd(d.x, d.trt.PoolingType.MAX, (2, 2)).set_input(1, d.x),
        ValueError,
        r"does not model input 1 of 1",
    ),
    "length of a host memory": (lambda d: len(d.build(d.net.add_identity(d.x).get_output(0))), TypeError, r"IHostMemory has no len"),
    "slice of a host memory": (lambda d: d.build(d.net.add_identity(d.x).get_output(0))[:4], TypeError, r"IHostMemory cannot be indexed"),
    "method of bytes": (lambda d: d.build(d.net.add_identity(d.x).get_output(0)).hex(), AttributeError, r"IHostMemory.hex does not exist"),
    "not modelled": (lambda d: d.net.add_softmax(d.x), NotImplementedError, r"add_softmax exists, but the stand-in does not model it"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_refused_where_it_stands(fake: Installed, case: str) -> None:
    call, error, message = CALLS[case]
    draft = Draft(fake)
    with pytest.raises(error, match=message):
        call(draft)


GONE: dict[str, Callable[[Draft], Any]] = {
    "BuilderFlag has no member FP16": lambda d: d.trt.BuilderFlag.FP16,
    "BuilderFlag has no member INT8": lambda d: d.trt.BuilderFlag.INT8,
    "NetworkDefinitionCreationFlag has no member EXPLICIT_BATCH": lambda d: d.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    "IIdentityLayer.precision does not exist": lambda d: d.net.add_identity(d.x).precision,
    "IIdentityLayer.set_output_type does not exist": lambda d: d.net.add_identity(d.x).set_output_type(0, d.trt.float16),
    "ITensor.dtype is read-only": lambda d: setattr(d.x, "dtype", d.trt.float16),
    "ITensor.dynamic_range does not exist": lambda d: d.x.dynamic_range,
    "Builder.platform_has_fast_fp16 does not exist": lambda d: d.builder.platform_has_fast_fp16,
    "IBuilderConfig.int8_calibrator does not exist": lambda d: d.config.int8_calibrator,
}


@pytest.mark.parametrize("message", GONE)
def test_what_eleven_no_longer_has(message: str) -> None:
    with installed(ELEVEN) as fake, pytest.raises(AttributeError, match=message):
        GONE[message](Draft(fake))


def test_ten_wants_the_flag_and_refuses_precisions_of_weakly_typed_networks() -> None:
    with installed(TEN) as fake:
        draft = Draft(fake)
        for flags in (0, 1 << int(fake.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)):
            with pytest.raises(ValueError, match=r"make a weakly typed network, expected 1 << int\(STRONGLY_TYPED\)"):
                draft.builder.create_network(flags)
        with pytest.raises(ValueError, match="a strongly typed network infers types"):
            draft.x.dtype = fake.trt.float16
        with pytest.raises(ValueError, match="not in a strongly typed network"):
            draft.net.add_identity(draft.x).precision = fake.trt.float16
        draft.config.set_flag(fake.trt.BuilderFlag.FP16)
        assert draft.build(draft.net.add_identity(draft.x).get_output(0)) is None
        assert fake.errors == ["builder flags FP16 are not for a strongly typed network"]
    with installed(ELEVEN) as fake:
        Draft(fake).builder.create_network()  # there are no others


# Networks that no build accepts: the last tensor of each, and the reason.


def _conv_without_kernel(d: Draft) -> Any:
    return d.net.add_convolution_nd(d.x, 4, (1, 1), d.trt.Weights(d.trt.float32)).get_output(0)


def _groups(d: Draft) -> Any:
    layer = d.conv(d.x, ones(4, 1, 1, 1))
    layer.num_groups = 3
    return layer.get_output(0)


def _dequantized_weight(d: Draft, weight: Any, quantized_input: bool = True, kernel: Any = None) -> Any:
    scale = d.constant(0.5)
    x = d.dequantize(d.quantize(d.x, scale), scale) if quantized_input else d.x
    layer = d.net.add_convolution_nd(x, 4, (1, 1), d.trt.Weights(d.trt.float32) if kernel is None else kernel)
    layer.set_input(1, weight)
    return layer.get_output(0)


def _int8_weight(d: Draft, channels: int = 4) -> Any:
    return d.dequantize(d.constant(ones(channels, 4, 1, 1), np.int8), d.constant(ones(channels)), axis=0)


def _concat(d: Draft, axis: int | None, *inputs: Any) -> Any:
    layer = d.net.add_concatenation(list(inputs))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)


def _two_scales(d: Draft) -> Any:
    a, b = (d.quantize(d.x, d.constant(scale)) for scale in (0.5, 0.25))
    return d.dequantize(_concat(d, 1, a, b), d.constant(0.5))


def _pool(d: Draft, padding: int, window: int = 3) -> Any:
    layer = d.net.add_pooling_nd(d.x, d.trt.PoolingType.MAX, (window, window))
    layer.padding_nd = (padding, padding)
    return layer.get_output(0)


def _resize(d: Draft, scales: tuple[float, ...], **settings: Any) -> Any:
    layer = d.net.add_resize(d.x)
    for key, value in settings.items():
        setattr(layer, key, value)
    if scales:
        layer.scales = scales
    return layer.get_output(0)


def _reshape(d: Draft, *dims: int) -> Any:
    layer = d.net.add_shuffle(d.x)
    layer.reshape_dims = dims
    return layer.get_output(0)


def _transpose(d: Draft) -> Any:
    layer = d.net.add_shuffle(d.x)
    layer.first_transpose = d.trt.Permutation([0, 2, 1])
    return layer.get_output(0)


def _same_names(d: Draft, layers: bool) -> Any:
    first = d.net.add_identity(d.x)
    second = d.net.add_identity(first.get_output(0))
    for layer in (first, second):
        if layers:
            layer.name = "same"
        else:
            layer.get_output(0).name = "same"
    return d.net.add_identity(second.get_output(0)).get_output(0)


def _freed_kernel(d: Draft) -> Any:
    layer = d.conv(d.x, ones(4, 4, 1, 1))
    layer.kernel = ones(4, 4, 1, 1)  # nothing keeps it
    return layer.get_output(0)


def _dead_layer(d: Draft) -> Any:
    d.elementwise(d.x, d.constant(1.0))
    return d.net.add_identity(d.x).get_output(0)


def _loop(d: Draft) -> Any:
    first = d.net.add_identity(d.x)
    second = d.net.add_identity(first.get_output(0))
    first.set_input(0, second.get_output(0))
    return second.get_output(0)


def _slice(d: Draft, start: tuple[int, ...], size: tuple[int, ...]) -> Any:
    return d.net.add_slice(d.x, start, size, (1,) * len(size)).get_output(0)


NETWORKS: dict[str, tuple[Callable[[Draft], Any], str]] = {
    "no kernel": (_conv_without_kernel, r"empty kernel weights, and no set_input\(1"),
    "kernel of another size": (lambda d: d.conv(d.x, ones(4, 3, 1, 1)).get_output(0), r"kernel of 12 values, expected \[4, 4, 1, 1\]"),
    "half kernel, float input": (
        lambda d: d.conv(d.x, ones(4, 4, 1, 1, dtype=np.float16)).get_output(0),
        r"kernel of type HALF for an input of type FLOAT",
    ),
    "float kernel, half input": (lambda d: d.conv(d.half(), ones(4, 4, 1, 1)).get_output(0), r"kernel of type FLOAT for an input of type HALF"),
    "half bias": (lambda d: d.conv(d.x, ones(4, 4, 1, 1), ones(4, dtype=np.float16)).get_output(0), r"bias of type HALF for an input of type FLOAT"),
    "bias of another size": (lambda d: d.conv(d.x, ones(4, 4, 1, 1), ones(3)).get_output(0), r"bias of 3 values for 4 output channels"),
    "groups that do not divide": (_groups, r"3 groups do not divide 4 input and 4 output channels"),
    "window larger than the map": (lambda d: d.conv(d.x, ones(4, 4, 7, 7)).get_output(0), r"a window of \[7, 7\] does not fit"),
    "window larger by two": (lambda d: d.conv(d.x, ones(4, 4, 8, 8)).get_output(0), r"a window of \[8, 8\] does not fit"),
    "quantized scalar": (lambda d: d.quantize(d.constant(1.0), d.constant(0.5)), r"a scalar cannot be quantized"),
    "dequantized scalar": (lambda d: d.dequantize(d.constant(1, np.int8), d.constant(0.5)), r"a scalar cannot be dequantized"),
    "operands of two types": (lambda d: d.elementwise(d.x, d.constant(ones(1, 1, 1, 1), np.float16)), r"operands of types FLOAT and HALF"),
    "operands of two ranks": (lambda d: d.elementwise(d.x, d.constant(ones(6))), r"operands of ranks 4 and 1"),
    "operands that do not broadcast": (lambda d: d.elementwise(d.x, d.constant(ones(1, 2, 1, 1))), r"do not broadcast"),
    "operand of int8": (lambda d: d.elementwise(*[d.quantize(d.x, d.constant(0.5))] * 2), r"input of type INT8, expected FLOAT or HALF"),
    "concatenation without axis": (lambda d: _concat(d, None, d.x, d.x), r"axis was never set; its default is rank - 3"),
    "axis beyond the rank": (lambda d: _concat(d, 4, d.x, d.x), r"axis 4 of inputs of rank 4"),
    "concatenation of two sizes": (lambda d: _concat(d, 1, d.x, _pool(d, 0)), r"differ outside axis 1"),
    "concatenation of two types": (lambda d: _concat(d, 1, d.x, d.half()), r"inputs of types FLOAT, HALF"),
    "concatenation of two scales": (_two_scales, r"int8 inputs of different scales 0.5 and 0.25|different scales \[0.5\] and \[0.25\]"),
    "leaky ReLU without slope": (lambda d: d.activation(d.x, "LEAKY_RELU").get_output(0), r"LEAKY_RELU without alpha"),
    "clip without limits": (lambda d: d.activation(d.x, "CLIP").get_output(0), r"CLIP without alpha"),
    "padding of a whole window": (lambda d: _pool(d, 3), r"padding \[3, 3\] of a window of \[3, 3\]"),
    "resize without scales": (lambda d: _resize(d, ()), r"no scales were set"),
    "resize with two scales": (lambda d: _resize(d, (2.0, 2.0)), r"2 scales for an input \[1, 4, 6, 6\]"),
    "linear resize": (lambda d: _resize(d, (1, 1, 2, 2), resize_mode=d.trt.InterpolationMode.LINEAR), r"resize_mode is LINEAR"),
    "rounding of a resize": (lambda d: _resize(d, (1, 1, 2, 2), nearest_rounding=d.trt.ResizeRoundMode.CEIL), r"nearest_rounding is CEIL"),
    "reshape to another volume": (lambda d: _reshape(d, 0, 4, 35), r"\[1, 4, 6, 6\] cannot become \[0, 4, 35\]"),
    "transpose of fewer dimensions": (_transpose, r"permutation \[0, 2, 1, 0\] of rank 4"),
    "two free dimensions": (lambda d: _reshape(d, -1, 4, -1), r"more than one -1"),
    "slice out of bounds": (lambda d: _slice(d, (0, 2, 0, 0), (1, 3, 6, 6)), r"element 4 along axis 1"),
    "slice of another rank": (lambda d: _slice(d, (0, 2), (1, 2)), r"for axes \[0, 1, 2, 3\]"),
    "constant of another size": (lambda d: d.net.add_constant((2, 2), ones(3)).get_output(0), r"3 values for the shape \[2, 2\]"),
    "zero scale": (lambda d: d.dequantize(d.quantize(d.x, d.constant(0.0)), d.constant(0.0)), r"scales must be positive, the least is 0"),
    "half scale of a float": (
        lambda d: d.dequantize(d.quantize(d.x, d.constant(0.5, np.float16)), d.constant(0.5)),
        r"scale of type HALF for an input of",
    ),
    "half scale, float out": (
        lambda d: d.dequantize(d.quantize(d.x, d.constant(0.5)), d.constant(0.5, np.float16)),
        r"scale of type HALF for an output of",
    ),
    "subnormal scale": (lambda d: d.quantize(d.half(), d.constant(2.0**-15, np.float16)), r"a HALF scale of 3.05176e-05 is subnormal"),
    "computed scale": (
        lambda d: d.quantize(d.x, d.net.add_identity(d.constant(0.5)).get_output(0)),
        r"the scale comes from IDENTITY, expected a constant",
    ),
    "scales of an activation": (lambda d: d.quantize(d.x, d.constant(ones(4)), axis=1), r"a scale per channel is for weights"),
    "scales without axis": (lambda d: d.quantize(d.constant(ones(4, 4, 1, 1)), d.constant(ones(4))), r"per channel, but axis was never set"),
    "scales of another axis": (
        lambda d: d.quantize(d.constant(ones(4, 3, 1, 1)), d.constant(ones(3)), axis=1),
        r"a scale per output channel, axis 0",
    ),
    "scales of another size": (
        lambda d: d.quantize(d.constant(ones(4, 3, 1, 1)), d.constant(ones(3)), axis=0),
        r"scale \[3\] for axis 0 of \[4, 3, 1, 1\]",
    ),
    "scale of rank 4": (lambda d: d.quantize(d.x, d.constant(ones(1, 1, 1, 1))), r"scale \[1, 1, 1, 1\], expected \[\] or \[1\] per tensor"),
    "dequantized with another scale": (
        lambda d: d.dequantize(d.quantize(d.x, d.constant(0.5)), d.constant(0.25)),
        r"another scale than it was quantized with",
    ),
    "dequantized float": (lambda d: d.dequantize(d.x, d.constant(0.5)), r"input of type FLOAT, expected INT8"),
    "int8 weights, float input": (
        lambda d: _dequantized_weight(d, _int8_weight(d), False),
        r"int8 weights, but the input comes from a network input",
    ),
    "float kernel tensor": (
        lambda d: _dequantized_weight(d, d.constant(ones(4, 4, 1, 1))),
        r"the kernel tensor comes from CONSTANT, expected DEQUANTIZE",
    ),
    "kernel twice": (lambda d: _dequantized_weight(d, _int8_weight(d), kernel=ones(4, 4, 1, 1)), r"kernel weights of 16 values beside set_input"),
    "kernel tensor of another shape": (
        lambda d: _dequantized_weight(d, _int8_weight(d, 3)),
        r"kernel tensor \[3, 4, 1, 1\], expected \[4, 4, 1, 1\]",
    ),
    "int8 output": (lambda d: d.quantize(d.x, d.constant(0.5)), r"output 'out0' is INT8; dequantize it"),
    "repeated layer name": (lambda d: _same_names(d, True), r"Repeated layer name: same"),
    "repeated tensor name": (lambda d: _same_names(d, False), r"Repeated tensor name: same"),
    "freed kernel": (_freed_kernel, r"the array of kernel was freed before the build"),
    "mistake in a dead layer": (_dead_layer, r"operands of ranks 4 and 0"),
    "unread input": (lambda d: d.net.add_identity(d.constant(1.0)).get_output(0), r"input 'images' is read by no layer"),
    "a layer that feeds itself": (_loop, r"depends on itself"),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_a_wrong_network_is_not_built_and_the_reason_is_logged(fake: Installed, case: str) -> None:
    write, message = NETWORKS[case]
    draft = Draft(fake)
    assert draft.build(write(draft)) is None
    assert len(fake.errors) == 1
    with pytest.raises(AssertionError, match=message):  # pytest's own matching
        raise AssertionError(fake.errors[0])
    assert draft.logger._messages == [f"[ERROR] {fake.errors[0]}"]


def test_a_network_without_output_is_not_built(fake: Installed) -> None:
    assert Draft(fake).build() is None
    assert fake.errors == ["the network has no output"]


def test_uint8_is_an_input_that_can_only_be_cast(fake: Installed) -> None:
    draft = Draft(fake, dtype="UINT8")
    with pytest.raises(ValueError, match="input of type UINT8, expected FLOAT or HALF"):
        _ = draft.elementwise(draft.x, draft.x).shape
    with pytest.raises(ValueError, match="UINT8 converts to and from FLOAT and HALF only"):
        _ = draft.net.add_cast(draft.x, fake.trt.int32).get_output(0).shape
    assert draft.net.add_cast(draft.x, fake.trt.float16).get_output(0).dtype == fake.trt.float16


def test_a_shape_follows_its_layer_and_is_never_stale(fake: Installed) -> None:
    draft = Draft(fake)
    layer = draft.conv(draft.x, ones(8, 4, 3, 3))
    y = draft.activation(layer.get_output(0), "RELU").get_output(0)
    assert y.shape == (1, 8, 4, 4)
    layer.padding_nd = (1, 1)
    assert y.shape == (1, 8, 6, 6)
    layer.stride_nd = (2, 2)
    assert y.shape == [1, 8, 3, 3]
    assert draft.net.add_pooling_nd(y, fake.trt.PoolingType.MAX, (2, 2)).get_output(0).shape == (1, 8, 2, 2)  # stride 1, not that of the window
    with pytest.raises(ValueError, match="axis was never set"):
        _ = draft.net.add_concatenation([y, y]).get_output(0).shape


# What was recorded is what runs.


def _chain(d: Draft, weight: np.ndarray, bias: np.ndarray) -> Any:
    """Convolution with SiLU, beside its enlarged maximum, transposed to one vector per cell."""
    trt = d.trt
    layer = d.conv(d.x, weight, bias)
    layer.stride_nd, layer.padding_nd, layer.name = (2, 2), (1, 1), "conv"
    y = layer.get_output(0)
    silu = d.elementwise(y, d.activation(y, "SIGMOID").get_output(0), "PROD")
    pool = d.net.add_pooling_nd(silu, trt.PoolingType.MAX, (3, 3))
    pool.stride_nd, pool.padding_nd, pool.name = (2, 2), (1, 1), "pool"
    up = d.net.add_resize(pool.get_output(0))
    up.resize_mode, up.coordinate_transformation = trt.InterpolationMode.NEAREST, trt.ResizeCoordinateTransformation.ASYMMETRIC
    up.nearest_rounding, up.scales = trt.ResizeRoundMode.FLOOR, [1, 1, 2, 2]
    joined = _concat(d, 1, up.get_output(0), silu)
    rows = d.net.add_shuffle(joined)
    rows.first_transpose, rows.reshape_dims, rows.second_transpose = trt.Permutation([0, 2, 3, 1]), (0, -1, len(weight), 2), (0, 1, 3, 2)
    return rows.get_output(0)


def _chain_in_numpy(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y = convolution(x, weight, 2, 1, 1) + bias[:, None, None]
    y = y * sigmoid(y)
    padded = np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    side = y.shape[2] // 2
    pooled = np.stack([padded[:, :, i : i + 2 * side : 2, j : j + 2 * side : 2] for i in range(3) for j in range(3)]).max(0)
    joined = np.concatenate([pooled.repeat(2, 2).repeat(2, 3), y], axis=1)
    return joined.transpose(0, 2, 3, 1).reshape(len(x), -1, len(weight), 2).swapaxes(2, 3)


def test_a_chain_of_layers_computes_what_numpy_does_for_any_batch_of_its_profile(fake: Installed, rng: np.random.Generator) -> None:
    weight, bias = rng.normal(size=(6, 4, 3, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    draft = Draft(fake, (-1, 4, 8, 8))
    out = _chain(draft, weight, bias)
    assert out.shape == (-1, 16, 2, 6)
    assert draft.build(out) is None
    assert fake.errors.pop() == "input images has dynamic dimensions [-1, 4, 8, 8], but no optimization profile was added"
    profile = draft.builder.create_optimization_profile()
    profile.set_shape("images", (1, 4, 8, 8), (2, 4, 8, 8), max=(3, 4, 8, 8))
    assert draft.config.add_optimization_profile(profile) == 0
    draft.config.clear_flag(fake.trt.BuilderFlag.TF32)
    draft.config.set_memory_pool_limit(fake.trt.MemoryPoolType.WORKSPACE, 1 << 30)
    serialized = draft.builder.build_serialized_network(draft.net, draft.config)
    assert not fake.errors
    engine = fake.trt.Runtime(draft.logger).deserialize_cuda_engine(serialized)
    for batch in (1, 3):
        x = rng.normal(size=(batch, 4, 8, 8)).astype(np.float32)
        expected = _chain_in_numpy(x, weight, bias)
        for recorded in (draft.net, bytes(serialized), engine):
            np.testing.assert_allclose(execute(recorded, {"images": x})["out0"], expected, rtol=0, atol=1e-5)
        tapped = execute(engine, {"images": x}, tap=True)
        np.testing.assert_allclose(tapped["conv"], convolution(x, weight, 2, 1, 1) + bias[:, None, None], rtol=0, atol=1e-5)
        assert tapped["pool"].shape == (batch, 6, 2, 2)
        assert len(tapped) == len(draft.net) + 1


def test_a_profile_must_fit_the_input(fake: Installed) -> None:
    for shapes in (((1, 3, 6, 6), (2, 3, 6, 6), (3, 3, 6, 6)), ((1, 4, 6), (2, 4, 6), (3, 4, 6))):
        draft = Draft(fake, (-1, 4, 6, 6))
        profile = draft.builder.create_optimization_profile()
        profile.set_shape("images", *shapes)
        draft.config.add_optimization_profile(profile)
        assert draft.build(draft.net.add_identity(draft.x).get_output(0)) is None
        assert "does not match input images [-1, 4, 6, 6]" in fake.errors.pop()


@pytest.mark.parametrize(("groups", "dilation", "padding"), [(1, 1, 0), (2, 1, 1), (4, 1, 1), (1, 2, 2)])
def test_convolutions_with_groups_and_dilation(fake: Installed, rng: np.random.Generator, groups: int, dilation: int, padding: int) -> None:
    x, weight = rng.normal(size=(1, 4, 6, 6)).astype(np.float32), rng.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    draft = Draft(fake)
    layer = draft.conv(draft.x, weight)
    layer.num_groups, layer.dilation_nd, layer.padding_nd = groups, (dilation,) * 2, (padding,) * 2
    spread = np.zeros((8, 4 // groups, 2 * dilation + 1, 2 * dilation + 1), np.float32)
    spread[:, :, ::dilation, ::dilation] = weight
    assert draft.build(layer.get_output(0))
    np.testing.assert_allclose(execute(draft.net, {"images": x})["out0"], convolution(x, spread, 1, padding, groups), rtol=0, atol=1e-5)


def test_activations_and_arithmetic(fake: Installed) -> None:
    x = np.linspace(-8, 8, 144, dtype=np.float32).reshape(1, 4, 6, 6)
    expected = {
        "LEAKY_RELU": np.where(x > 0, x, 0.1 * x),
        "CLIP": np.clip(x, 0.1, 6),
        "HARD_SIGMOID": np.clip(0.1 * x + 6, 0, 1),
        "TANH": np.tanh(x),
        "SIGMOID": 1 / (1 + np.exp(-x)),
        "RELU": np.maximum(x, 0),
        "SOFTPLUS": 0.1 * np.log1p(np.exp(6 * x)),
    }
    draft = Draft(fake)
    outputs = []
    for kind in expected:
        layer = draft.activation(draft.x, kind)
        layer.alpha, layer.beta = 0.1, 6
        outputs.append(layer.get_output(0))
    two = draft.constant(np.full((1, 1, 1, 1), 2))
    arithmetic = {"SUM": x + 2, "PROD": x * 2, "SUB": x - 2, "DIV": x / 2, "MIN": np.minimum(x, 2), "MAX": np.maximum(x, 2), "POW": x**2}
    outputs += [draft.elementwise(draft.x, two, op) for op in arithmetic]
    outputs.append(draft.net.add_unary(draft.x, fake.trt.UnaryOperation.EXP).get_output(0))
    assert draft.build(*outputs)
    results = execute(draft.net, {"images": x})
    for index, value in enumerate([*expected.values(), *arithmetic.values(), np.exp(x)]):
        np.testing.assert_allclose(results[f"out{index}"], value, rtol=1e-5, atol=1e-6)


def test_slices_with_and_without_axes(fake: Installed, rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    draft = Draft(fake)
    whole = draft.net.add_slice(draft.x, (0, 1, 0, 2), (1, 3, 3, 2), (1, 1, 2, 3)).get_output(0)
    part = draft.net.add_slice(draft.x, (1,), (2,), (2,))
    part.axes = (1,)
    assert draft.build(whole, part.get_output(0))
    results = execute(draft.net, {"images": x})
    np.testing.assert_array_equal(results["out0"], x[:, 1:, ::2, [2, 5]])
    np.testing.assert_array_equal(results["out1"], x[:, [1, 3]])
    dynamic = Draft(fake, (-1, 4, 6, 6))
    with pytest.raises(ValueError, match="a constant slice of the unknown dimension 0"):
        _ = dynamic.net.add_slice(dynamic.x, (0, 0, 0, 0), (1, 2, 6, 6), (1, 1, 1, 1)).get_output(0).shape


def test_half_is_rounded_after_every_layer_and_accumulated_in_float32(fake: Installed) -> None:
    draft = Draft(fake, (1, 2048, 1, 1))
    layer = draft.conv(draft.half(), ones(1, 2048, 1, 1, dtype=np.float16), np.array([1.0], np.float16))
    plus = draft.elementwise(layer.get_output(0), draft.constant(np.full((1, 1, 1, 1), 4096), np.float16))
    assert plus.dtype == fake.trt.DataType.HALF
    assert draft.build(layer.get_output(0), plus)
    result = execute(draft.net, {"images": np.full((1, 2048, 1, 1), 1.0002, np.float32)})  # which is 1 in float16
    # A sum kept in float16 would stick at 2048: the next number after it is 2050. And 2048 + 1 rounds to 2048, half to even.
    assert result["out0"].dtype == np.float16
    assert result["out0"].item() == 2048
    assert result["out1"].item() == 6144


def test_an_int8_convolution_against_integers_worked_out_by_hand(fake: Installed) -> None:
    """x / 0.5 = [1.5, 2.5, 300, -300] is [2, 2, 127, -128]; weights [1, -1.5] and [20, 0.25] are [100, -128] / 0.01 clipped and [80, 1] / 0.25."""
    for int8_constant in (False, True):
        draft = Draft(fake, (1, 2, 1, 2))
        scale = draft.constant([0.5])
        x = draft.dequantize(draft.quantize(draft.x, scale), scale)
        weights, scales = np.array([[1, -1.5], [20, 0.25]], np.float32).reshape(2, 2, 1, 1), np.array([0.01, 0.25], np.float32)
        factors = draft.constant(scales)
        if int8_constant:
            integers = draft.constant(np.reshape([100, -128, 80, 1], (2, 2, 1, 1)), np.int8)
        else:
            integers = draft.quantize(draft.constant(weights), factors, axis=0)
        bias = np.array([0.125, 0], np.float32)
        layer = draft.net.add_convolution_nd(x, 2, (1, 1), fake.trt.Weights(fake.trt.float32), bias)
        assert layer.num_inputs == 1
        layer.set_input(1, draft.dequantize(integers, factors, axis=0))
        assert layer.num_inputs == 2
        layer.name = "conv"
        assert draft.build(layer.get_output(0)), fake.errors
        result = execute(draft.net, {"images": np.array([0.75, 1.25, 150, -150], np.float32).reshape(1, 2, 1, 2)})["out0"]
        first = [(2 * 100 + 127 * -128) * 0.005 + 0.125, (2 * 100 + -128 * -128) * 0.005 + 0.125]
        second = [(2 * 80 + 127) * 0.125, (2 * 80 - 128) * 0.125]
        np.testing.assert_allclose(result, np.reshape([first, second], (1, 2, 1, 2)), rtol=1e-6)


def test_int8_passes_through_pooling_concatenation_and_shuffles(fake: Installed, rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    draft = Draft(fake)
    scale = draft.constant(0.03)
    integers = draft.quantize(draft.x, scale)
    pool = draft.net.add_pooling_nd(integers, fake.trt.PoolingType.MAX, (3, 3))
    pool.padding_nd = (1, 1)
    assert draft.build(draft.dequantize(_concat(draft, 1, pool.get_output(0), integers), scale))
    q = quantized(x, np.float32(0.03)).astype(np.float32)
    padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-128)
    pooled = np.stack([padded[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]).max(0)
    np.testing.assert_array_equal(execute(draft.net, {"images": x})["out0"], np.concatenate([pooled, q], 1) * np.float32(0.03))


# Bytes, caches, loggers.


def test_an_engine_is_read_by_its_own_version_only_and_whole(fake: Installed) -> None:
    draft = Draft(fake)
    serialized = draft.build(draft.net.add_identity(draft.x).get_output(0))
    assert serialized.nbytes == len(bytes(serialized))
    runtime = fake.trt.Runtime(draft.logger)
    engine = runtime.deserialize_cuda_engine(serialized_engine=serialized)
    assert bytes(engine.serialize()) == bytes(serialized)
    assert [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)] == ["images", "out0"]
    assert engine.get_tensor_mode("images") == fake.trt.TensorIOMode.INPUT
    assert engine.get_tensor_mode("out0") == fake.trt.TensorIOMode.OUTPUT
    assert engine.get_tensor_shape("out0") == (1, 4, 6, 6)
    assert engine.get_tensor_dtype("out0") == fake.trt.float32
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("images", 0)] == [(1, 4, 6, 6)] * 3
    with pytest.raises(ValueError, match=r"no tensor 'image'; there are images, out0"):
        engine.get_tensor_shape("image")
    data = bytes(serialized)
    for broken in (data[:-1], data[:20], b"", data[:60] + b"!" + data[61:]):
        assert runtime.deserialize_cuda_engine(broken) is None
        assert "no engine, or not a whole one" in fake.errors.pop()
    with installed(ELEVEN if fake.trt.__version__ == TEN else TEN) as other:
        assert other.trt.Runtime(other.trt.Logger()).deserialize_cuda_engine(data) is None
        assert other.errors == [f"the engine was built by TensorRT {fake.trt.__version__}, this is {other.trt.__version__}"]


def test_a_timing_cache_is_for_its_version_and_must_outlive_the_build(fake: Installed) -> None:
    draft = Draft(fake)
    cache = draft.config.create_timing_cache(b"")
    assert draft.config.set_timing_cache(cache, ignore_mismatch=False)
    assert draft.build(draft.net.add_identity(draft.x).get_output(0))
    content = bytes(draft.config.get_timing_cache().serialize())
    assert b"IDENTITY" in content
    assert draft.config.create_timing_cache(b"damaged") is None
    foreign = draft.config.create_timing_cache(content.replace(fake.trt.__version__.encode(), b"9.0.0"))
    assert not draft.config.set_timing_cache(foreign, ignore_mismatch=False)
    del cache
    assert draft.builder.build_serialized_network(draft.net, draft.config) is None
    assert fake.errors == ["the timing cache was freed before the build; keep a reference to it"]


def test_loggers_and_monitors_of_ones_own(fake: Installed) -> None:
    seen = []

    class Logger(fake.trt.ILogger):
        def __init__(self) -> None:
            fake.trt.ILogger.__init__(self)
            self.mine = seen

        def log(self, severity: Any, msg: str) -> None:
            self.mine.append((severity.name, msg))

    class Monitor(fake.trt.IProgressMonitor):
        def __init__(self) -> None:
            fake.trt.IProgressMonitor.__init__(self)
            self.open: list[str] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phase_name != "Tactic Selection"

        def phase_finish(self, phase_name: str) -> None:
            assert self.open.pop() == phase_name

    class Forgetful(fake.trt.ILogger):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"__init__ of ILogger was not called by Forgetful"):
        fake.trt.Builder(Forgetful())
    draft = Draft(fake)
    builder = fake.trt.Builder(Logger())
    draft.config.progress_monitor = Monitor()
    draft.net.mark_output(draft.net.add_identity(draft.x).get_output(0))
    assert builder.build_serialized_network(draft.net, draft.config) is None
    assert seen == [("ERROR", "the build was stopped by the progress monitor")]


def test_weights_by_pointer(fake: Installed) -> None:
    array = ones(3) * 2
    weights = fake.trt.Weights(fake.trt.float32, array.ctypes.data, 3)
    assert (len(weights), weights.nbytes, weights.dtype) == (3, 12, fake.trt.float32)
    np.testing.assert_array_equal(weights.numpy(), [2, 2, 2])
    assert fake.trt.Weights(fake.trt.float16).size == 0
    with pytest.raises(TypeError, match="count"):
        fake.trt.Weights(fake.trt.float32, array.ctypes.data)


# The CUDA runtime.


class Gpu:
    """A session as one writes it by hand: y = x + 1 for batches of 1 to 2."""

    def __init__(self, fake: Installed) -> None:
        draft = Draft(fake, (-1, 3))
        profile = draft.builder.create_optimization_profile()
        profile.set_shape("images", (1, 3), (1, 3), (2, 3))
        draft.config.add_optimization_profile(profile)
        data = draft.build(draft.elementwise(draft.x, draft.constant(ones(1, 3))))
        self.fake, self.cuda = fake, fake.cudart
        self.engine = fake.trt.Runtime(draft.logger).deserialize_cuda_engine(data)
        self.context = self.engine.create_execution_context()
        self.stream = self("StreamCreateWithFlags", self.cuda.cudaStreamNonBlocking)
        self.host, self.device = [], []
        for name in ("images", "out0"):
            self.host.append(self("HostAlloc", 24, self.cuda.cudaHostAllocDefault))
            self.device.append(self("Malloc", 24))
            assert self.context.set_tensor_address(name, int(self.device[-1]))

    def __call__(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self.cuda, f"cuda{name}")(*arguments)
        assert error == self.cuda.cudaError_t.cudaSuccess, error
        return results[0] if results else None

    def array(self, index: int, count: int) -> np.ndarray:
        return np.ctypeslib.as_array((ctypes.c_float * (3 * count)).from_address(self.host[index])).reshape(count, 3)

    def enqueue(self, count: int) -> bool:
        kinds = self.cuda.cudaMemcpyKind
        self("MemcpyAsync", self.device[0], self.host[0], 12 * count, kinds.cudaMemcpyHostToDevice, self.stream)
        done = self.context.execute_async_v3(int(self.stream))
        if done:
            self("MemcpyAsync", self.host[1], self.device[1], 12 * count, kinds.cudaMemcpyDeviceToHost, self.stream)
        return done

    def close(self) -> None:
        for host, device in zip(self.host, self.device, strict=True):
            self("FreeHost", host)
            self("Free", device)
        self("StreamDestroy", self.stream)


def test_a_session_computes_only_once_the_stream_is_waited_for(fake: Installed) -> None:
    gpu = Gpu(fake)
    assert gpu.context.get_tensor_shape("out0") == (-1, 3)
    assert gpu.context.infer_shapes() == ["images"]
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert "no shape was set for images" in fake.errors.pop()
    assert not gpu.context.set_input_shape("images", (3, 3))
    assert "is outside of its profile, [1, 3] to [2, 3]" in fake.errors.pop()
    for count in (1, 2):
        assert gpu.context.set_input_shape("images", (count, 3))
        assert gpu.context.get_tensor_shape("out0") == (count, 3)
        gpu.array(0, count)[...] = np.arange(3 * count).reshape(count, 3)
        assert gpu.enqueue(count)
        assert not (gpu.array(1, count) == gpu.array(0, count) + 1).all()
        gpu("StreamSynchronize", gpu.stream)
        np.testing.assert_array_equal(gpu.array(1, count), gpu.array(0, count) + 1)
    assert fake.device.live == {"device": 2, "host": 2, "streams": 1}
    gpu.close()
    assert not fake.device.live
    assert not fake.errors


def test_a_captured_graph_runs_on_every_launch_and_on_no_other_occasion(fake: Installed) -> None:
    gpu = Gpu(fake)
    mode = fake.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert gpu.context.set_input_shape("images", (1, 3))
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert not gpu.enqueue(1)
    assert "captured before a plain execution" in fake.errors.pop()
    error, graph = fake.cudart.cudaStreamEndCapture(gpu.stream)
    assert (error.name, graph) == ("cudaErrorStreamCaptureInvalidated", None)
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)
    gpu.array(1, 1)[...] = 0
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert gpu.enqueue(1)
    assert fake.cudart.cudaStreamSynchronize(gpu.stream)[0].name == "cudaErrorStreamCaptureUnsupported"  # and that breaks the capture
    assert fake.cudart.cudaStreamEndCapture(gpu.stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert gpu.enqueue(1)
    graph = gpu("StreamEndCapture", gpu.stream)
    executable = gpu("GraphInstantiate", graph, 0)
    gpu("GraphDestroy", graph)
    gpu("StreamSynchronize", gpu.stream)
    assert not gpu.array(1, 1).any()
    for value in (3, 4):
        gpu.array(0, 1)[...] = value
        gpu("GraphLaunch", executable, gpu.stream)
        gpu("StreamSynchronize", gpu.stream)
        np.testing.assert_array_equal(gpu.array(1, 1), value + ones(1, 3))
    assert fake.device.live == {"device": 2, "host": 2, "streams": 1, "executables": 1}
    gpu("GraphExecDestroy", executable)


def test_a_capture_can_be_made_to_fail(fake: Installed) -> None:
    gpu = Gpu(fake)
    assert gpu.context.set_input_shape("images", (1, 3))
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)
    fake.device.fail_capture = True
    gpu("StreamBeginCapture", gpu.stream, fake.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert fake.cudart.cudaStreamEndCapture(gpu.stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)


def test_wrong_calls_of_the_cuda_runtime(fake: Installed) -> None:
    gpu, cuda = Gpu(fake), fake.cudart
    kinds = cuda.cudaMemcpyKind
    with pytest.raises(TypeError, match="kind is 1, expected cudaMemcpyKind"):
        cuda.cudaMemcpyAsync(gpu.device[0], gpu.host[0], 12, 1, gpu.stream)
    with pytest.raises(TypeError, match="size is 12.0, expected int"):
        cuda.cudaMalloc(12.0)
    with pytest.raises(TypeError, match=r"cudaMalloc\(size: 'int'\): too many|too many positional"):
        cuda.cudaMalloc(12, 0)
    with pytest.raises(AttributeError):
        _ = cuda.cudaMemcopy
    pageable = ones(3)
    wrong = [
        (gpu.device[0], pageable.ctypes.data, 12, kinds.cudaMemcpyHostToDevice),
        (gpu.device[0], gpu.host[0], 25, kinds.cudaMemcpyHostToDevice),
        (gpu.host[0], gpu.device[0], 12, kinds.cudaMemcpyHostToDevice),
    ]
    for arguments in wrong:
        assert cuda.cudaMemcpyAsync(*arguments, gpu.stream) == (cuda.cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaFree(gpu.host[0]) == (cuda.cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaMalloc(1 << 60) == (cuda.cudaError_t.cudaErrorMemoryAllocation, None)
    gpu.context.set_input_shape("images", (1, 3))
    gpu.context.set_tensor_address("out0", int(gpu.host[1]))
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert "the address of out0 is not that of [1, 3] float32 in device memory" in fake.errors.pop()
    with pytest.raises(TypeError, match="memory is 0.5"):
        gpu.context.set_tensor_address("out0", 0.5)


def test_machines_without_a_driver_or_a_gpu(fake: Installed) -> None:
    cuda = fake.cudart
    assert cuda.cudaGetDeviceCount() == (cuda.cudaError_t.cudaSuccess, 1)
    fake.device.driver_missing = True
    error, count = cuda.cudaGetDeviceCount()
    assert (error, count) == (cuda.cudaError_t.cudaErrorInsufficientDriver, None)
    assert cuda.cudaGetErrorName(error) == (cuda.cudaError_t.cudaSuccess, b"cudaErrorInsufficientDriver")
    assert cuda.cudaRuntimeGetVersion()[0] == cuda.cudaError_t.cudaSuccess
    fake.device.driver_missing, fake.device.count = False, 0
    assert cuda.cudaGetDeviceCount()[0] == cuda.cudaError_t.cudaErrorNoDevice


def test_the_modules_are_there_for_as_long_as_the_context_lasts() -> None:
    seen = []
    for version in VERSIONS:
        with installed(version) as fake:
            import tensorrt  # pyright: ignore[reportMissingImports]
            from cuda.bindings import runtime  # pyright: ignore[reportMissingImports]

            assert (tensorrt, runtime) == (fake.trt, fake.cudart)
            assert tensorrt.__version__ == version
            seen.append(int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        with pytest.raises(ImportError):
            import tensorrt  # pyright: ignore[reportMissingImports]
    assert seen == [1, 0]


def test_the_versions_are_ascending() -> None:
    assert all(int(a.partition(".")[0]) < int(b.partition(".")[0]) for a, b in pairwise(VERSIONS))
