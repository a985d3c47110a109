"""The target `litert` against the reference: float in float64, int8 operator by operator, in LiteRT and in the interpreter for microcontrollers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from tests.networks import ACTIVATIONS, lively_model, random_networks, variant
from tests.targets.c.material import PUBLISHED, assert_activation, assert_published_logits, assert_within, calm, one_level, picture, reference

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra octrim[litert])")

from octrim.targets.litert.builder import Builder, metadata_of, sound
from octrim.targets.litert.file import litert_file
from octrim.targets.litert.session import Graph
from tests.targets.litert_executor import steps_off


def int8(model: Model, height: int, width: int) -> Model:
    return quantize(model, [drawn_scene(seed, height, width) for seed in range(2)], imgsz=(height, width))


def with_activation(model: Model, activation: str) -> Model:
    rows = tuple(replace(row, activation=activation) if row.activation == "silu" else row for row in model.network.rows)
    return replace(model, network=Network(rows, model.network.anchors))


def integers(batch: np.ndarray) -> np.ndarray:
    """Pictures as int8 networks take them: bytes less 128."""
    return (batch.astype(int) - 128).astype(np.int8)


@pytest.fixture(scope="module")
def small() -> Model:
    model = variant("yolov5n")
    return calm(prune(model, plan(model, keep="1/8", align=8)))


# Float ---------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=50)
@given(network=random_networks())
def test_random_networks(network: Network) -> None:
    model = calm(lively_model(network, seed=1))
    batch = picture(32, 64)
    assert_within(open_session(model, "litert", threads=1)(batch), reference(model, batch))


def logits(model: Model, batch: np.ndarray) -> list[np.ndarray]:
    graph = Graph(litert_file(model, *batch.shape[1:3], decode=False), model.network, "it", 1)
    graph.one(batch[0])
    return [graph.interpreter.get_tensor(one["index"]).transpose(0, 3, 1, 2) for one in graph.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name: str) -> None:
    assert_published_logits(name, logits)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str | None) -> None:
    assert_activation(activation, logits)


def test_windows_that_no_padding_of_the_operators_fits() -> None:
    """Strides of 2 and 3, even and odd windows, pools with a border: padded in front as the row says, not as SAME does."""
    rows = (
        Row("a", "conv", ("images",), 4, 3, 2, 1, bias=True, activation="relu"),
        Row("b", "conv", ("a",), 4, 4, 1, 2, bias=True),
        Row("c", "conv", ("b",), 4, 2, 1, 0, bias=True),
        Row("d", "maxpool", ("c",), kernel=4, stride=1, padding=2),
        Row("e", "conv", ("d",), 4, 2, 1, 0, bias=True),
        Row("f", "maxpool", ("e",), kernel=3, stride=2, padding=1),
    )
    model = calm(lively_model(one_level(*rows, last="f", cell=4)))
    batch = picture(32, 48)
    assert_within(open_session(model, "litert", threads=1)(batch), reference(model, batch))
    model = int8(model, 32, 48)
    for name, steps in steps_off(litert_file(model, 32, 48, "int8"), integers(batch)).items():
        assert steps.max() <= 1, name


# int8 ----------------------------------------------------------------------------------------------------------------------------------------------


def assert_every_operator_is_right(model: Model, batch: np.ndarray) -> int:
    """Within one step for 999 of 1,000 values of every map, and within two for all. Returns the number of values."""
    found = steps_off(litert_file(model, *batch.shape[1:3], "int8"), integers(batch))
    for name, steps in found.items():
        assert (steps > 1).sum() <= 1e-3 * steps.size and steps.max(initial=0) <= 2, name
    return sum(steps.size for steps in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hardswish", "leaky_relu:0.1"])
def test_every_operator_of_a_cut_network(small: Model, activation: str) -> None:
    model = int8(with_activation(small, activation), 96, 64)
    assert assert_every_operator_is_right(model, picture(96, 64)) > 50_000


@pytest.mark.slow
@settings(max_examples=50)
@given(network=random_networks())
def test_every_operator_of_random_networks(network: Network) -> None:
    model = lively_model(network, seed=1)
    try:
        model = int8(model, 32, 64)
    except InputError as error:
        assert "no convolution" in str(error)
        return
    if any(row.activation == "mish" for row in network.rows):
        with pytest.raises(InputError, match="mish has no operator in integers"):
            litert_file(model, 32, 64, "int8")
        return
    assert_every_operator_is_right(model, picture(32, 64))


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_int8_finds_what_float_finds(small: Model, activation: str) -> None:
    """Scores in integers beside those in float64, over all boxes."""
    model = int8(with_activation(small, activation), 96, 64)
    batch = picture(96, 64)
    found, expected = open_session(model, "litert", "int8", threads=1)(batch)[..., 4:], reference(model, batch)[..., 4:]
    assert np.sqrt(np.square(found - expected).sum() / np.square(expected).sum()) < 0.2


def test_the_picture_keeps_all_of_its_bits(small: Model) -> None:
    described = metadata_of(litert_file(int8(small, 64, 96), 64, 96, "int8"))["tensors"]
    assert described["images"] == {"shape": [1, 64, 96, 3], "type": "int8", "scale": pytest.approx(1 / 255), "zero_point": -128}
    assert described["head2"] == {"shape": [1, 2, 3, 24], "type": "int8", "scale": 1 / 16, "zero_point": 0}


def test_a_bias_that_no_int32_holds_beside_tiny_weights() -> None:
    """The channel's weights get a coarser scale, and the bias arrives."""
    model = lively_model(one_level(Row("a", "conv", ("images",), 4, 3, 2, 1, bias=True, activation="relu"), last="a", cell=2))
    weight, bias = model.tensors["level.weight"].copy(), model.tensors["level.bias"].copy()
    weight[3], bias[3] = 1e-12, 5.0
    model = int8(replace(model, tensors={**model.tensors, "level.weight": weight, "level.bias": bias}), 16, 24)
    graph = Graph(litert_file(model, 16, 24, "int8"), model.network, "it", 1)
    graph.one(picture(16, 24)[0])
    assert (graph.interpreter.get_tensor(graph.outputs[0]["index"])[..., 3] == 5 * 16).all()


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hardswish", "leaky_relu:0.1", "sigmoid"])
def test_dead_channels_in_integers(activation: str) -> None:
    """A map that is zero everywhere has the least scale there is, beside which the range in front of its activation is wide."""
    first = Row("a", "conv", ("images",), 4, 3, 2, 1, bias=True, activation=activation)
    model = lively_model(one_level(first, last="a", cell=2))
    nothing = {name: np.zeros_like(model.tensors[name]) for name in ("a.weight", "a.bias")}
    model = int8(replace(model, tensors={**model.tensors, **nothing}), 16, 24)
    assert assert_every_operator_is_right(model, picture(16, 24)) > 0
    found = open_session(model, "litert", "int8", threads=1)(picture(16, 24))
    expected = reference(model, picture(16, 24))
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], atol=0.02)


def test_without_scales(small: Model) -> None:
    with pytest.raises(InputError, match="octrim quantize makes them"):
        litert_file(small, 64, 64, "int8")
    skipped = quantize(small, [drawn_scene(0, 64, 64)], skip=["model.0"], imgsz=64)
    with pytest.raises(InputError, match="integers alone need a scale for every map, and model.23.cv3 has none: octrim quantize, without --skip"):
        litert_file(skipped, 64, 64, "int8")


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_the_interpreter_for_microcontrollers_computes_the_same(small: Model, activation: str) -> None:
    """Within a step of LiteRT's, whose kernels for this processor round otherwise."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="tflite-micro is not installed (extra octrim[dev])")
    model = int8(with_activation(small, activation), 96, 64)
    content = litert_file(model, 96, 64, "int8")
    batch = picture(96, 64)
    micro = runtime.Interpreter.from_bytes(content, arena_size=200_000)
    micro.set_input(integers(batch), 0)
    micro.invoke()
    graph = Graph(content, model.network, "it", 1)
    graph.one(batch[0])
    for number, one in enumerate(graph.outputs):
        steps = np.abs(graph.interpreter.get_tensor(one["index"]).astype(int) - micro.get_output(number))
        assert (steps <= 1).mean() >= 0.999 and (steps == 0).mean() > 0.9


# Files ---------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    path.write_bytes(litert_file(small, 64, 96))
    return path


def test_names_sizes_and_metadata(small: Model, file: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    content = file.read_bytes()
    assert content[4:8] == b"TFL3"
    assert content == litert_file(small, 64, 96)
    signature = Interpreter(model_content=content).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["images"], "outputs": ["output0"]}
    session = open_session(file)
    assert (session.info.names, session.info.size, session.info.network) == (small.names, (64, 96), small.network)
    batch = np.concatenate([picture(64, 96), picture(64, 96, seed=1)])
    assert_within(session(batch), reference(small, batch))
    assert session(batch[:0]).shape == (0, 378, 8)


def test_precisions_of_files(small: Model, file: Path, tmp_path: Path) -> None:
    model = int8(small, 64, 96)
    sizes = {"fp32": file.stat().st_size}
    for precision in ("fp16", "int8"):
        path = tmp_path / f"{precision}.tflite"
        path.write_bytes(litert_file(model, 64, 96, precision))
        sizes[precision] = path.stat().st_size
        batch = picture(64, 96)
        session = open_session(path, threads=1)
        assert session.info.precision == precision
        assert np.array_equal(session(batch), open_session(model, "litert", precision, threads=1)(batch))
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]
    with pytest.raises(InputError, match="was exported in fp32; LiteRT cannot run it in int8"):
        open_session(file, precision="int8")


def test_contents_of_tensors_are_aligned(file: Path) -> None:
    """To 16 bytes, as the schema demands and microcontrollers need, because they read weights where they lie in flash."""
    from ai_edge_litert import schema_py_generated as schema

    content = file.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    whole = np.frombuffer(content, np.uint8)
    for index in range(model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        if isinstance(data, np.ndarray):
            offset = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            assert offset % 16 == 0


def test_files_that_are_not_as_they_were_written(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    assert sound(content)
    path = tmp_path / "x.tflite"
    generator = np.random.default_rng(0)
    for _ in range(20):
        changed = bytearray(content)
        changed[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(InputError, match=r"it is damaged|no file that OcTrim wrote"):
            open_session(path)
    for other in (content[: len(content) // 2], b"", b"TFL3", content[:-1]):
        path.write_bytes(other)
        with pytest.raises(InputError, match=r"x.tflite: (it is damaged|no file that OcTrim wrote|the file is empty)"):
            open_session(path)
    shutil.copyfile(file, path)
    open_session(path)


@pytest.mark.parametrize("without", ["precision", "values", "tensors", "octrim"])
def test_metadata_that_octrim_does_not_write(small: Model, tmp_path: Path, without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Builder.file

    def lacking(self: Builder, inputs: Any, outputs: Any, description: str, metadata: dict[str, Any]) -> bytes:
        return write(self, inputs, outputs, description, {name: value for name, value in metadata.items() if name != without})

    monkeypatch.setattr(Builder, "file", lacking)
    (tmp_path / "x.tflite").write_bytes(litert_file(small, 64, 96))
    with pytest.raises(InputError, match=r"x\.tflite: it is damaged: .* in its metadata"):
        open_session(tmp_path / "x.tflite")
