"""Int8 in ONNX: where the pairs stand, and every layer against NumPy's own int8."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings

from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.scales import Scales
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import fitted, quantize
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.opening import open_session
from octrim.targets.session import float_batch
from tests.networks import lively_model, random_networks, variant
from tests.quantization.executor import Int8Ops

HEIGHT, WIDTH = 64, 96


def int8(model: Model, method: str = "histogram", height: int = HEIGHT, width: int = WIDTH) -> Model:
    return quantize(model, [drawn_scene(seed, height, width) for seed in range(2)], method, imgsz=(height, width))


@lru_cache(maxsize=1)
def yolov5n() -> Model:
    return int8(variant("yolov5n"))


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return fitted(drawn_scene(7, height, width), height, width)


def run(graph: onnx.ModelProto, image: np.ndarray, names: list[str] | None = None, optimised: bool = False) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(names, {"images": image})]


def compare_layers(model: Model, image: np.ndarray) -> int:
    """Run ONNX without optimisations; each row in NumPy on the maps that ONNX gave it. Returns how many int8 values were compared."""
    network = model.network
    graph = onnx_model(model, *image.shape[2:], precision="int8", decode=False)
    rows = [row.name for row in network.rows[:-1] if row.op != "image" and row.name not in network.heads]
    stored = {node.output[0] for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    heads = [output.name for output in graph.graph.output]
    names = [*rows, *sorted(stored)]
    for name in names:
        kind = onnx.TensorProto.INT8 if name in stored else onnx.TensorProto.FLOAT
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    found = dict(zip(names, run(graph, image, names), strict=True))
    maps = {name: found[name] for name in rows} | {"images": image}
    ops = Int8Ops(model, maps)
    expected_heads = walk(network, ops, image)
    scales = Scales(network, model.scales)
    total = different = 0
    for name, value in {"images": image, **ops.outputs}.items():
        if name in rows:
            largest = max(float(np.abs(value).max()), 1e-3)
            np.testing.assert_allclose(maps[name], value, rtol=1e-4, atol=2e-5 * largest, err_msg=name)
        if f"{name}/quantized" not in stored:
            continue
        scale = scales.map(name)
        assert scale is not None
        expected = np.clip(np.round(value / scale), -128, 127).astype(int)
        steps = np.abs(found[f"{name}/quantized"].astype(int) - expected)
        assert steps.max() <= 1, name
        different += int((steps > 0).sum())
        total += steps.size
    assert different <= max(1e-3 * total, 1)
    for one, other in zip(expected_heads, run(graph, image, heads), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * float(np.abs(one).max()))
    return total


@pytest.mark.slow
@pytest.mark.parametrize("method", ["max", "histogram"])
def test_every_layer_of_yolov5n(method: str) -> None:
    assert compare_layers(yolov5n() if method == "histogram" else int8(variant("yolov5n"), method), picture()) > 200_000


def test_every_layer_with_odd_channel_counts() -> None:
    model = variant("yolov5n")
    small = prune(model, plan(model, keep="1/3", align=1))
    assert any(row.channels % 2 for row in small.network.convs)
    assert compare_layers(int8(small), picture()) > 50_000


@pytest.mark.slow
@settings(max_examples=25)
@given(network=random_networks())
def test_every_layer_of_random_networks(network: Network) -> None:
    """Residuals, concatenations of a map with itself, pools, upsamplings, groups, every activation."""
    model = lively_model(network, seed=1)
    try:
        model = int8(model, height=32, width=64)
    except InputError as error:
        assert "no convolution" in str(error)
        return
    compare_layers(model, picture(32, 64))


@pytest.mark.slow
@pytest.mark.parametrize("cfg", ["yolov5n", "yolov5n6"])
def test_where_the_pairs_stand(cfg: str) -> None:
    model = yolov5n() if cfg == "yolov5n" else int8(variant(cfg))
    network = model.network
    graph = onnx_model(model, HEIGHT, WIDTH if cfg == "yolov5n" else 128, precision="int8", decode=False).graph
    made = {output: node for node in graph.node for output in node.output}
    constants = {one.name: one for one in graph.initializer}
    rows = {row.name: row for row in network.rows}
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len({node.input[0] for node in pairs}) == len(pairs)  # one pair per map
    assert all(node.input[0] in rows for node in pairs)  # behind activations, on rows' values alone
    for node in pairs:
        zero = onnx.numpy_helper.to_array(constants[node.input[2]])
        assert zero.dtype == np.int8 and zero.shape == () and zero == 0
        readers = [other for other in graph.node if node.output[0] in other.input]
        assert [other.op_type for other in readers] == ["DequantizeLinear"] and list(readers[0].input[1:]) == list(node.input[1:])
    for row in network.rows[1:-1]:
        node = made[row.name] if row.op != "conv" or row.activation is None else made[f"{row.name}/conv"]
        inputs = [name for name in node.input if name and name not in constants]
        maps = inputs[:1] if row.op == "conv" else inputs
        if row.name in network.heads:
            assert maps == list(row.inputs) and node.input[1] in constants  # float weights on the map as it is
            continue
        assert [made[name].op_type for name in maps] == ["DequantizeLinear"] * len(row.inputs)
        assert [made[made[name].input[0]].input[0] for name in maps] == list(row.inputs)
        if row.op == "conv":
            weight = made[node.input[1]]
            assert weight.op_type == "DequantizeLinear" and weight.attribute[0].i == 0
            stored, scale, zero = (onnx.numpy_helper.to_array(constants[name]) for name in weight.input)
            assert stored.dtype == zero.dtype == np.int8 and stored.min() >= -127 and scale.shape == zero.shape == (row.channels,)
            assert (np.abs(stored.astype(int)).max((1, 2, 3)) == 127).all()
            assert onnx.numpy_helper.to_array(constants[node.input[2]]).dtype == np.float32
        if row.op == "concat":
            assert len({onnx.numpy_helper.to_array(constants[made[name].input[1]]).item() for name in maps}) == 1


def test_skipped_rows_stay_in_float() -> None:
    model = quantize(variant("yolov5n"), [drawn_scene(0, 64, 96)], skip=["model.0", "model.2.m.0.add"], imgsz=(64, 96))
    graph = onnx_model(model, 64, 96, precision="int8").graph
    made = {output: node for node in graph.node for output in node.output}
    assert made["model.0/conv"].input[0] == "images"
    assert list(made["model.2.m.0.add"].input) == ["model.2.cv1", "model.2.m.0.cv2"]
    compare_layers(model, picture())


def test_only_one_row() -> None:
    graph = onnx_model(yolov5n(), 64, 64, precision="int8", only=["model.5"]).graph
    assert [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"] == ["model.4.cv3"]
    assert [node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"] == ["model.4.cv3/dequantized", "model.5/weight"]


def test_without_scales() -> None:
    with pytest.raises(InputError, match="octrim quantize"):
        onnx_model(variant("yolov5n"), 64, 64, precision="int8")


def test_other_precisions_ignore_scales() -> None:
    plain = variant("yolov5n")
    model = replace(yolov5n(), lineage=plain.lineage)
    for precision in ("fp32", "fp16"):
        assert onnx_model(model, 64, 64, precision=precision) == onnx_model(plain, 64, 64, precision=precision)


def test_sessions_run_it(tmp_path: Path) -> None:
    """ONNX Runtime with its optimisations, any batch; metadata and size of the file."""
    model = yolov5n()
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model(model, HEIGHT, WIDTH, batch=None, precision="int8").SerializeToString())
    fp32 = len(onnx_model(model, HEIGHT, WIDTH, precision="fp32").SerializeToString())
    assert path.stat().st_size < 0.4 * fp32
    session = open_session(path, "onnxruntime")
    assert session.info.precision == "int8" and session.info.network == model.network
    batch = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    both = session(batch)
    np.testing.assert_allclose(both[1:], session(batch[1:]), atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="was exported in int8"):
        open_session(path, "onnxruntime", "fp16")


def noise(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """dB."""
    difference = sum(float(np.square(a - b).sum()) for a, b in zip(expected, found, strict=True))
    return 10 * np.log10(sum(float(np.square(a).sum()) for a in expected) / difference)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_openvino_computes_the_same(cut: bool) -> None:
    """As close to NumPy's int8 as values between two steps allow, through sixty layers that amplify them."""
    import openvino as ov

    from octrim.targets.openvino.int8 import openvino_int8_model

    model = variant("yolov5n")
    model = int8(prune(model, plan(model, keep="1/3", align=1)) if cut else model)
    expected = walk(model.network, Int8Ops(model), picture())
    compiled = ov.Core().compile_model(openvino_int8_model(model, HEIGHT, WIDTH, decode=False), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled(picture())
    found = [np.asarray(result[index]) for index in range(len(compiled.outputs))]
    assert noise(expected, found) > 15
    assert "FakeQuantize" not in {node.get_type_name() for node in compiled.get_runtime_model().get_ops()}


@pytest.mark.parametrize("activation", ["silu", "relu", None])
def test_openvino_computes_concatenations(activation: str | None) -> None:
    """Convolutions of what was concatenated came out wrong by a third of their range without the detour."""
    import openvino as ov

    from octrim.targets.openvino.int8 import openvino_int8_model

    shape = {"channels": 8, "bias": True, "activation": activation}
    rows = [Row("images", "image", channels=3), Row("a", "conv", ("images",), **shape), Row("b", "conv", ("images",), kernel=3, padding=1, **shape)]
    rows += [Row("both", "concat", ("a", "b")), Row("c", "conv", ("both",), **shape), Row("head", "conv", ("c",), 14, bias=True)]
    network = Network((*rows, Row("detect", "detect", ("head",))), (((4.0, 5.0), (9.0, 7.5)),))
    model = int8(lively_model(network), height=32, width=32)
    image = picture(32, 32)
    (expected,) = walk(network, Int8Ops(model), image)
    graph = openvino_int8_model(model, 32, 32, decode=False)
    found = np.asarray(ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0])
    difference = np.abs(found - expected) / np.abs(expected).max()
    assert np.mean(difference < 1e-4) > 0.98 and difference.max() < 0.03


@pytest.mark.slow
def test_openvino_reads_what_it_wrote(tmp_path: Path) -> None:
    import openvino as ov

    from octrim.targets.openvino.int8 import openvino_int8_model

    model = yolov5n()
    ov.save_model(openvino_int8_model(model, HEIGHT, WIDTH, batch=None), tmp_path / "model.xml", compress_to_fp16=False)
    session = open_session(tmp_path)
    assert session.info.names == model.names and session.info.network == model.network
    batch = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    compiled = ov.Core().compile_model(openvino_int8_model(model, HEIGHT, WIDTH, batch=2), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = np.asarray(compiled(float_batch(batch))[0])
    np.testing.assert_allclose(session(batch), expected, rtol=1e-3, atol=1e-3)


def test_real_network_keeps_its_logits(real_weights: Path, real_pictures: Path) -> None:
    """yolov5n calibrated on one picture and run on another."""
    model = quantize(load(real_weights), [real_pictures / "zidane.jpg"], "max", imgsz=320)
    image = fitted(real_pictures / "bus.jpg", 320, 320)
    expected = run(onnx_model(model, 320, 320, decode=False), image)
    assert noise(expected, run(onnx_model(model, 320, 320, precision="int8", decode=False), image, optimised=True)) > 24
