"""TensorRT engines, built in the stand-in of both versions and run in NumPy: the layers are right, not their speed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import decode
from octrim.network.cost import tensor_shapes
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.network.scales import Scales, quantized
from octrim.network.yolov5 import yolov5_network
from octrim.quantization.calibration import quantize
from octrim.targets.session import float_batch
from octrim.targets.tensorrt import layers as tensorrt_layers
from octrim.targets.tensorrt.build import build_engine
from tests.networks import ACTIVATIONS, lively_model, random_networks
from tests.targets.int8_reference import Int8Ops, Named, half, onnx_rows, with_scales
from tests.targets.tensorrt_networks import defined, error, heads, logits, pictures, run, settled, settled_logits, side
from tests.targets.tensorrt_standin import VERSIONS, execute, installed, program


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["original", "1/2 align 1", "1/2 align 8", "1/2 align 16", "1/8 align 1", "1/8 align 8", "1/8 align 16"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s", "yolov5n6", "yolov5s6"])
def test_original_and_pruned(trt: Any, name: str, cut: str) -> None:
    model = settled(name, cut)
    sides = side(model.network)
    batch = pictures(1, sides, sides)
    expected = settled_logits(name, cut)
    for precision, tolerance in (("fp32", 1e-5), ("fp16", 1e-2)):
        engine = build_engine(model, sides, sides, precision, decode=False)
        assert error(heads(run(engine, batch)), expected) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5m", "yolov5l", "yolov5x", "yolov5m6", "yolov5l6", "yolov5x6"])
def test_large_variants_are_accepted(trt: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers, types and shapes; the weights are all the same value, because millions of others take long and say nothing."""
    network = yolov5_network(name, 80)
    tensors = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in tensor_shapes(network).items()}
    model = Model(network, tensors, tuple(f"class{index}" for index in range(80)))
    monkeypatch.setattr(tensorrt_layers, "folded_conv", lambda model, row: (model.tensors[row.weight_name], np.zeros(row.channels, np.float32)))
    program(defined(trt, model, side(network), side(network), "fp16"))  # all layers that float32 has, and casts


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(trt: Any, activation: str | None) -> None:
    rows = (
        Row("images", "image", channels=3),
        Row("stem", "conv", ("images",), 8, 3, 2, 1, norm=True, activation=activation),
        Row("level", "conv", ("stem",), 14, bias=True),
    )
    network = Network((*rows, Row("detect", "detect", ("level",))), (((8.0, 10.0), (18.0, 15.0)),))
    model, batch = lively_model(network), pictures(2, 32, 32)
    model = replace(model, tensors={**model.tensors, "stem.bn.bias": np.linspace(-8, 8, 8, dtype=np.float32)})  # to both ends of every activation
    expected = logits(model, batch)
    for precision, tolerance in (("fp32", 1e-6), ("fp16", 2e-3)):
        assert error(heads(run(build_engine(model, 32, 32, precision, 2, decode=False), batch)), expected) < tolerance


@pytest.mark.slow
@settings(max_examples=25)
@given(network=random_networks(), pad=st.sampled_from([1, 1, 4, 16]), batch=st.integers(1, 2))
def test_random_networks(network: Network, pad: int, batch: int) -> None:
    """Residuals of maps with unlike padding, groups, a map joined with itself."""
    model, images = lively_model(network, seed=1), pictures(batch, 32, 64)
    expected = logits(model, images)
    with installed(VERSIONS[0]):
        engine = build_engine(model, 32, 64, batch=batch, decode=False, pad_channels=pad)
    assert error(heads(run(engine, images)), expected) < 1e-4


@pytest.mark.slow
@settings(max_examples=25)
@given(network=random_networks(), pad=st.sampled_from([4, 16]))
def test_random_networks_in_int8(network: Network, pad: int) -> None:
    """Padding in the way of groups and residuals. int8 sees the same numbers with it and without."""
    images = pictures(1, 32, 64)
    model = with_scales(lively_model(network, seed=1), images)
    with installed(VERSIONS[1]):
        plain, padded = (heads(run(build_engine(model, 32, 64, "int8", decode=False, pad_channels=n), images)) for n in (1, pad))
    assert error(padded, [x.astype(np.float64) for x in plain]) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5n", "yolov5n6"])
def test_decoding(trt: Any, name: str) -> None:
    """Rectangles and batches; boxes by the formula, in float64."""
    model = settled(name)
    batch = pictures(2, 128, 192)
    expected = decode(model.network, logits(model, batch))
    assert 0.2 < np.median(np.abs(expected[..., 4:] - 0.5)) < 0.45
    for precision, relative, pixels, scores in (("fp32", 1e-4, 1e-3, 1e-5), ("fp16", 0.1, 0.2, 2e-2)):
        found = run(build_engine(model, 128, 192, precision, 2), batch)
        assert list(found) == ["output0"]
        assert found["output0"].dtype == np.float32
        np.testing.assert_allclose(found["output0"][..., :4], expected[..., :4], rtol=relative, atol=pixels)
        np.testing.assert_allclose(found["output0"][..., 4:], expected[..., 4:], rtol=0, atol=scores)


def test_pixels_beyond_2048(trt: Any) -> None:
    """float16 engines place boxes by the fraction of a pixel: with heads at zero, the centre of each cell."""
    rows = (Row("images", "image", channels=3), Row("level", "conv", ("images",), 6, 8, 8, 0, bias=True))
    network = Network((*rows, Row("detect", "detect", ("level",))), (((9.0, 7.0),),))
    tensors = {"level.weight": np.zeros((6, 3, 8, 8), np.float32), "level.bias": np.zeros(6, np.float32)}
    engine = build_engine(Model(network, tensors, ("one",)), 8, 4096, "fp16")
    found = run(engine, pictures(1, 8, 4096))["output0"][0]
    np.testing.assert_array_equal(found[:, 0], 8 * np.arange(512) + 4)
    np.testing.assert_array_equal(found[:, 1:], np.broadcast_to(np.float32([4, 9, 7, 0.5, 0.5]), (512, 5)))


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["original", "1/4 align 8"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s", "yolov5n6"])
def test_int8(trt: Any, name: str, cut: str) -> None:
    model = settled(name, cut)
    sides = side(model.network)
    batch = pictures(1, sides, sides)
    model = with_scales(model, batch, exclude=["model.2.cv1"])
    maps = execute(build_engine(model, sides, sides, "int8", decode=False), {"images": batch}, tap=True)
    # Row by row from the engine's own maps: one rounding to another integer would change all that follows.
    ops = Int8Ops(model)
    values: dict[str, Named] = {"images": ("images", half(float_batch(batch)))}
    for row in model.network.rows[1:-1]:
        inputs = [values[x] for x in row.inputs]
        expected = ops.concat(row, inputs)[1] if row.op == "concat" else getattr(ops, row.op)(row, *inputs)[1]
        np.testing.assert_allclose(maps[row.name], expected, rtol=2e-3, atol=2e-4, err_msg=row.name)
        values[row.name] = row.name, maps[row.name].astype(np.float32)
    found = [maps[f"head{level}"] for level in range(len(model.network.heads))]
    assert 0.01 < error(found, logits(model, batch)) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["original", "1/2 align 1", "1/2 align 16", "1/8 align 1", "1/8 align 8", "1/8 align 16"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
def test_int8_makes_the_integers_that_onnx_makes(name: str, cut: str) -> None:
    """Row by row on equal inputs. With float16 between, a hundredth at most lies a step off: what rounding a map first moves over a border.

    In float32 a thousandth of a map at most, or one value of a small one: what lies on a border to the last bits of a sum.
    """
    model, batch = settled(name, cut), pictures(1, 64, 64)
    model = quantize(model, [*pictures(4, 64, 64)], imgsz=64)
    scales = Scales(model.network, model.scales)
    for version, high in product(VERSIONS, ("fp16", "fp32")):
        with installed(version) as fake:
            maps = execute(build_engine(model, 64, 64, "int8", decode=False, high_precision=high), {"images": batch}, tap=True)
            assert not fake.errors
        values = {row.name: maps[row.name].astype(np.float32) for row in model.network.rows[1:-1]} | {"images": float_batch(batch)}
        expected = onnx_rows(model, values)
        equal, count = 0, 0
        for row in model.network.rows[1:-1]:
            scale = scales.map(row.name)
            if scale is None:
                continue
            apart = np.abs(quantized(values[row.name], scale).astype(int) - quantized(expected[row.name], scale))
            assert apart.max() <= 1, row.name
            assert high == "fp16" or (apart != 0).sum() <= max(1, apart.size / 1000), row.name
            equal, count = equal + (apart == 0).sum(), count + apart.size
        assert equal / count >= {"fp16": 0.99, "fp32": 0.9999}[high]
        if high == "fp32":
            relative = [np.abs(maps[head] / expected[head] - 1).ravel() for head in (f"head{level}" for level in range(len(model.network.heads)))]
            # Through the whole network a value on a border, a step off, changes all that follows.
            assert np.median(np.concatenate(relative)) < (1e-2 if equal == count else 5e-2)


def test_int8_reads_pictures_through_the_scale_of_images(trt: Any) -> None:
    """By hand: 255ths at a scale of 1/127, one convolution that copies a channel, no other quantized map."""
    rows = (
        Row("images", "image", channels=3),
        Row("stem", "conv", ("images",), 8, bias=True),
        Row("level", "conv", ("stem",), 6, bias=True),
    )
    network = Network((*rows, Row("detect", "detect", ("level",))), (((9.0, 7.0),),))
    tensors = {key: np.zeros(shape, np.float32) for key, shape in tensor_shapes(network).items()}
    tensors["stem.weight"][0, 1], tensors["level.weight"][2, 0] = 1, 1
    scales = {"images.scale": np.float32([1 / 127]), "stem.weight_scale": np.full(8, 1 / 127, np.float32)}
    model, batch = Model(network, tensors, ("one",), scales=scales), pictures(1, 8, 8)
    found = run(build_engine(model, 8, 8, "int8", decode=False), batch)["head0"]
    step = float(np.float16(1 / 127))
    expected = np.rint(np.float16(batch[0, :, :, 1] / 255) / step) * step  # in steps of 1/127
    np.testing.assert_allclose(found[0, 2], expected, rtol=2e-3)
    assert not found[0, [0, 1, 3, 4, 5]].any()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("multiple", [8, 32])
def test_padding_changes_nothing(trt: Any, precision: str, multiple: int) -> None:
    model = settled("yolov5n", "1/3 align 1")  # counts that are multiples of nothing
    batch = pictures(1, 64, 64)
    model = with_scales(model, batch)
    plain, padded = (heads(run(build_engine(model, 64, 64, precision, decode=False, pad_channels=n), batch)) for n in (1, multiple))
    # The sums have more terms, all zero, and may be taken in another order: in lower precision one rounding more or less.
    assert error(padded, [x.astype(np.float64) for x in plain]) < {"fp32": 1e-5, "fp16": 1e-2, "int8": 5e-2}[precision]
    network = defined(trt, model, 64, 64, precision, pad_channels=multiple)
    outputs = {layer.name.partition("/")[0]: layer.num_output_maps for layer in network if layer.type == trt.LayerType.CONVOLUTION}
    for row in model.network.convs:
        expected = row.channels if row.name in model.network.heads else -(-row.channels // multiple) * multiple
        assert outputs[row.name] == expected


def test_layers_are_named_after_rows(trt: Any) -> None:
    model = with_scales(settled("yolov5n"), pictures(1, 64, 64))
    for precision in ("fp32", "fp16", "int8"):
        network = defined(trt, model, 64, 64, precision)
        names = [layer.name for layer in network]
        rows = [row.name for row in model.network.rows]
        assert [name for name in names if "/" not in name] == rows[1:]
        assert all(name.partition("/")[0] in rows for name in names)
        assert network.get_input(0).name == "images"
        assert [network.get_output(index).name for index in range(network.num_outputs)] == ["output0"]
        assert all(layer.get_output(0).name in (layer.name, "output0") for layer in network)


def test_int8_makes_one_pair_per_map_and_leaves_detect_alone(trt: Any) -> None:
    model = with_scales(settled("yolov5n"), pictures(1, 64, 64), exclude=["model.2.cv1"])
    network, scales = defined(trt, model, 64, 64, "int8"), Scales(model.network, model.scales)
    layers = {layer.name: layer for layer in network}
    quantized_names = {name.removesuffix("/quantized") for name in layers if name.endswith("/quantized")}
    read = {x for row in model.network.rows if scales.reads(row) for x in row.inputs}
    assert quantized_names == read
    weights = {name.removesuffix("/weight") for name in layers if name.endswith("/weight")}
    assert weights == {row.name for row in model.network.convs if scales.weight(row) is not None}
    assert {layers[f"{name}/weight"].get_output(0).dtype for name in weights} == {trt.DataType.INT8}
    for row in model.network.convs:
        layer = layers[f"{row.name}/conv" if row.activation else row.name]
        assert (layer.num_inputs == 2) == (row.name not in (*model.network.heads, "model.2.cv1"))
        assert layer.get_input(0).name in ((f"{row.inputs[0]}/dequantized",) if layer.num_inputs == 2 else (row.inputs[0],))
    assert {layers[name].get_output(0).dtype for name in layers if name.endswith("/dequantized")} == {trt.DataType.HALF}


def test_dynamic_batch(trt: Any) -> None:
    model = settled("yolov5n")
    engine = build_engine(model, 64, 96, batch=(1, 2, 4))
    batch = pictures(4, 64, 96)
    expected = decode(model.network, logits(model, batch))
    for count in (1, 3, 4):
        found = run(engine, batch[:count])["output0"]
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_pixels_are_floats_divided_by_255(trt: Any) -> None:
    model, batch = settled("yolov5n"), pictures(2, 64, 96)
    for precision in ("fp32", "fp16"):
        pixels, floats = (build_engine(model, 64, 96, precision, 2, pixels=pixels) for pixels in (True, False))
        one, other = run(pixels, batch), run(floats, float_batch(batch))
        np.testing.assert_allclose(one["output0"], other["output0"], rtol=1e-5, atol=1e-4)


def test_arrays_from_a_pickle(trt: Any) -> None:
    """Their dtype is a copy that the bindings do not know."""
    model, batch = settled("yolov5n"), pictures(1, 64, 64)
    copied = pickle.loads(pickle.dumps(dict(model.tensors)))  # noqa: S301
    found = run(build_engine(replace(model, tensors=copied), 64, 64, decode=False), batch)
    assert error(heads(found), logits(model, batch)) < 1e-5


@pytest.mark.slow
def test_official_weights(trt: Any, real_weights: Path, reference: dict[str, np.ndarray]) -> None:
    """Against the official implementation's boxes."""
    model, batch, expected = load(real_weights), reference["bus_letterboxed_rgb"][None], reference["bus_decoded"]
    for precision, pixels, scores in (("fp32", 0.01, 1e-4), ("fp16", 1.5, 1e-2)):
        found = run(build_engine(model, *batch.shape[1:3], precision, pad_channels=8), batch)["output0"]
        assert np.abs(found - expected)[..., :4].max() < pixels
        assert np.abs(found - expected)[..., 4:].max() < scores
