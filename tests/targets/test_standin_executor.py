"""What was recorded with the stand-in for TensorRT is what runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octrim.backends.numpy import convolution, sigmoid
from octrim.network.scales import quantized
from tests.targets.tensorrt_standin import Installed, execute
from tests.targets.tensorrt_standin.draft import Draft, concat, ones


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
    joined = concat(d, 1, up.get_output(0), silu)
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
    assert draft.build(draft.dequantize(concat(draft, 1, pool.get_output(0), integers), scale))
    q = quantized(x, np.float32(0.03)).astype(np.float32)
    padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-128)
    pooled = np.stack([padded[:, :, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]).max(0)
    np.testing.assert_array_equal(execute(draft.net, {"images": x})["out0"], np.concatenate([pooled, q], 1) * np.float32(0.03))
