"""TensorRT engines, built in the stand-in of both versions and run in NumPy: the layers are right, not their speed."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps, activate, convolution, decode, sigmoid
from octrim.errors import InputError
from octrim.network.cost import tensor_shapes
from octrim.network.folding import folded_conv
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.scales import LEAST_SCALE, Scales, quantized
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.session import float_batch
from octrim.targets.tensorrt import layers as tensorrt_layers
from octrim.targets.tensorrt.build import build_engine, engine_header, import_tensorrt, logger, version_of, weights_sha256
from octrim.targets.tensorrt.layers import define
from tests.networks import ACTIVATIONS, lively_model, random_networks, variant
from tests.targets.tensorrt_standin import VERSIONS, execute, installed, program


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module `tensorrt` of either version; nothing that it refused may have gone unnoticed."""
    with installed(request.param) as fake:
        yield fake.trt
        assert not fake.errors


def defined(trt: Any, model: Model, height: int, width: int, precision: str, pad_channels: int = 1) -> Any:
    builder = trt.Builder(logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    define(trt, network, model, height, width, precision, pad_channels=pad_channels)
    return network


def run(engine: bytes, batch: np.ndarray) -> dict[str, np.ndarray]:
    return execute(engine, {"images": batch})


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def side(network: Network) -> int:
    return max(64, network.stride * 2)


class SettlingOps(NumpyOps):
    """Multiplies the variances of every batch norm by the power of what comes through, and sets Detect's logits to a few units: as in trained
    networks no signal dies, however much was cut, no sigmoid is saturated, and every error shows.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.tensors = model, dict(model.tensors)

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight = self.tensors[row.weight_name]
        y = convolution(x, weight, row.stride, row.padding, row.groups)
        if row.norm:
            self.tensors[f"{row.name}.bn.running_var"] = self.model.tensors[f"{row.name}.bn.running_var"] * (y * y).mean()
        else:
            self.tensors[row.weight_name] = weight * np.float32(2 / np.sqrt((y * y).mean()))
        self.weights = {row.name: tuple(part.astype(np.float32) for part in folded_conv(replace(self.model, tensors=self.tensors), row))}
        return super().conv(row, x)


@lru_cache(maxsize=32)  # all that one version of the stand-in builds, for the other
def settled(name: str, cut: str = "original") -> Model:
    """cut: "original", or the fraction to keep and the multiple, `1/8 align 16`."""
    model = variant(name)
    if cut != "original":
        keep, _, align = cut.split()
        model = prune(model, plan(model, keep, int(align)))
    ops = SettlingOps(model)
    walk(model.network, ops, float_batch(pictures(4, side(model.network), side(model.network))))
    return replace(model, tensors=ops.tensors)


@lru_cache(maxsize=32)
def settled_logits(name: str, cut: str) -> list[np.ndarray]:
    """Logits of `settled` for one square picture."""
    model = settled(name, cut)
    return logits(model, pictures(1, side(model.network), side(model.network)))


def logits(model: Model, batch: np.ndarray) -> list[np.ndarray]:
    """Logits per level, float64."""
    return walk(model.network, NumpyOps(model, np.float64), float_batch(batch).astype(np.float64))


def error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest difference over all levels, of the largest value; both logits of a few units."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
    largest = max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True))
    return float(largest / max(np.abs(other).max() for other in expected))


def heads(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [outputs[f"head{level}"] for level in range(len(outputs))]


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


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


Named = tuple[str, np.ndarray]


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


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["original", "1/2 align 1", "1/2 align 16", "1/8 align 1", "1/8 align 8", "1/8 align 16"])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
def test_int8_makes_the_integers_that_onnx_makes(name: str, cut: str) -> None:
    """Row by row on equal inputs. With float16 between, a hundredth at most lies a step off: what rounding a map first moves over a border."""
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
            assert high == "fp16" or (apart == 0).mean() >= 0.999, row.name
            equal, count = equal + (apart == 0).sum(), count + apart.size
        assert equal / count >= {"fp16": 0.99, "fp32": 0.9999}[high]
        if high == "fp32":
            relative = [np.abs(maps[head] / expected[head] - 1).ravel() for head in (f"head{level}" for level in range(len(model.network.heads)))]
            assert np.median(np.concatenate(relative)) < 1e-2


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
def test_timing_cache(trt: Any, tmp_path: Path) -> None:
    model, path = settled("yolov5n"), tmp_path / "kernels.cache"
    build_engine(model, 64, 64, timing_cache=path)
    first = path.read_bytes()
    assert first
    build_engine(model, 64, 64, timing_cache=path)
    assert path.read_bytes() == first
    for other in (b"damaged", first.replace(trt.__version__.encode(), b"10.0.1")):
        path.write_bytes(other)
        build_engine(model, 64, 64, timing_cache=path)
        assert path.read_bytes() == first
    with pytest.raises(InputError, match="its folder does not exist"):
        build_engine(model, 64, 64, timing_cache=tmp_path / "no" / "kernels.cache")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "bf16"}, "precision 'bf16' for TensorRT; expected one of fp32, fp16, int8"),
        ({"precision": "int8"}, "int8 needs scales: octrim quantize --weights .. first"),
        ({"height": 100}, "multiples of the stride 32; found 100x64"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": (2, 1, 4)}, "batch is (2, 1, 4)"),
        ({"pad_channels": 0}, "pad_channels is 0"),
        ({"level": 6}, "optimization level is 6"),
        ({"workspace": 0}, "workspace is 0"),
        ({"high_precision": "int8"}, "high_precision is 'int8', expected fp16 or fp32"),
    ],
)
def test_wrong_options(trt: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        build_engine(settled("yolov5n"), **({"height": 64, "width": 64} | options))


def test_weights_that_do_not_fit_float16(trt: Any) -> None:
    model = settled("yolov5n")
    for name, told in (("model.4.cv2.conv.weight", "model.4.cv2: weight: "), ("model.4.cv2.bn.bias", "model.4.cv2: bias: ")):
        tensor = model.tensors[name].copy()
        tensor.flat[3] = 1e6
        broken = replace(model, tensors={**model.tensors, name: tensor})
        build_engine(broken, 64, 64)
        with pytest.raises(InputError, match=f"^{re.escape(told)}.* does not fit float16"):
            build_engine(broken, 64, 64, "fp16")


def test_a_failed_build_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settled("yolov5n")
    with installed(VERSIONS[1]) as fake:
        with monkeypatch.context() as patch:
            patch.setattr(tensorrt_layers, "folded_conv", lambda model, row: (folded_conv(model, row)[0], np.zeros(5)))
            with pytest.raises(InputError, match=r"^TensorRT 11.4.0.106 cannot build the engine: model.0/conv .*bias of 5 values"):
                build_engine(model, 64, 64)
        assert len(fake.errors) == 1
        build_engine(model, 64, 64)
        monkeypatch.setitem(fake.trt.__dict__, "Builder", no_builder(fake.trt))
        with pytest.raises(InputError, match=r"^TensorRT 11.4.0.106 cannot start: CUDA initialization failure with error: 35"):
            build_engine(model, 64, 64)


def no_builder(trt: Any) -> Any:
    """As the bindings do without a driver."""

    def construct(log: Any) -> None:
        log.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure\nwith error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    return construct


def test_settings(trt: Any) -> None:
    settings = program(build_engine(settled("yolov5n"), 64, 64, workspace=1 << 20, level=1)).settings
    assert settings["flags"] == []  # TF32 is on by default
    assert (settings["memory"], settings["builder_optimization_level"]) == ({"WORKSPACE": 1 << 20}, 1)


def test_progress_and_its_end(trt: Any) -> None:
    said: list[tuple[str, int, int]] = []
    engine = build_engine(settled("yolov5n"), 64, 64, progress=lambda phase, done, total: said.append((phase, done, total)))
    assert engine == build_engine(settled("yolov5n"), 64, 64)
    assert said[0][1] == 0
    assert said[-1][1] == said[-1][2] > 0

    def interrupted(phase: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(settled("yolov5n"), 64, 64, progress=interrupted)
    assert trt._space.errors == ["the build was stopped by the progress monitor"]
    trt._space.errors.clear()


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.19"])
def test_old_tensorrt(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"TensorRT {version} is too old; expected 10.3 or newer"):
        build_engine(settled("yolov5n"), 64, 64)


@pytest.mark.parametrize(
    ("name", "version", "recorded"),
    [("tensorrt", "10.3.0.26", "10.3.0.26"), ("tensorrt", "11.0", "11.0"), ("tensorrt_rtx_bindings", "1.7.1", "rtx 1.7.1")],
)
def test_tensorrt_that_is_new_enough(monkeypatch: pytest.MonkeyPatch, name: str, version: str, recorded: str) -> None:
    module = ModuleType(name)
    module.__dict__["__version__"] = version
    for key, value in ({"tensorrt": None} | {name: module}).items():
        monkeypatch.setitem(sys.modules, key, value)
    assert import_tensorrt() is module
    assert version_of(module) == recorded


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="TensorRT cannot be imported.*octrim"):
        build_engine(settled("yolov5n"), 64, 64)


def test_header(trt: Any) -> None:
    model = with_scales(settled("yolov5n"), pictures(1, 64, 64))
    header = json.loads(json.dumps(engine_header(model, 64, 96, "int8", (1, 2, 4), True, True, b"engine").to_json()))
    assert Network.from_json(header["table"], header["anchors"]) == model.network
    assert header["sha256"]["engine"] == hashlib.sha256(b"engine").hexdigest()
    assert (header["size"], header["batch"], header["input"], header["gpu"]) == ([64, 96], [1, 2, 4], "uint8", None)
    assert (header["tensorrt"], header["high_precision"]) == (trt.__version__, "fp16")
    assert (header["names"], header["strides"], header["lineage"]) == (list(model.names), [8, 16, 32], list(model.lineage))
    assert weights_sha256(replace(model, scales={})) != header["sha256"]["weights"] == weights_sha256(model)


@pytest.mark.slow
def test_official_weights(trt: Any, real_weights: Path, reference: dict[str, np.ndarray]) -> None:
    """Against the official implementation's boxes."""
    model, batch, expected = load(real_weights), reference["bus_letterboxed_rgb"][None], reference["bus_decoded"]
    for precision, pixels, scores in (("fp32", 0.01, 1e-4), ("fp16", 1.5, 1e-2)):
        found = run(build_engine(model, *batch.shape[1:3], precision, pad_channels=8), batch)["output0"]
        assert np.abs(found - expected)[..., :4].max() < pixels
        assert np.abs(found - expected)[..., 4:].max() < scores
