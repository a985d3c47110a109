"""The stand-in for TensorRT refuses the calls and the networks that TensorRT would."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.targets.tensorrt_standin import VERSIONS, Installed, installed
from tests.targets.tensorrt_standin.draft import Draft, concat, ones

TEN, ELEVEN = VERSIONS


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


@pytest.mark.slow
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


def _two_scales(d: Draft) -> Any:
    a, b = (d.quantize(d.x, d.constant(scale)) for scale in (0.5, 0.25))
    return d.dequantize(concat(d, 1, a, b), d.constant(0.5))


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
    "concatenation without axis": (lambda d: concat(d, None, d.x, d.x), r"axis was never set; its default is rank - 3"),
    "axis beyond the rank": (lambda d: concat(d, 4, d.x, d.x), r"axis 4 of inputs of rank 4"),
    "concatenation of two sizes": (lambda d: concat(d, 1, d.x, _pool(d, 0)), r"differ outside axis 1"),
    "concatenation of two types": (lambda d: concat(d, 1, d.x, d.half()), r"inputs of types FLOAT, HALF"),
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
