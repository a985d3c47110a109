"""Training with the roundings of int8: the network against ONNX in int8, its gradients by hand, and a whole training that is stopped and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from octrim.cli import main
from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.adapt import with_activation
from octrim.network.folding import folded
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.scales import Scales
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize, runner
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.session import float_batch
from octrim.training.checkpoint import CHECKPOINT, load_state, save_state
from tests.networks import lively_model, variant
from tests.training.conftest import draw_shapes, stopped_after

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.backends.quantized import QuantizedNetwork, rounded

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="module")
def int8() -> Model:
    """yolov5n cut to 1/8 with ReLU, folded, calibrated on drawn pictures of 64 pixels."""
    whole = variant("yolov5n")
    small = with_activation(lively_model(prune(whole, plan(whole, "1/8", 8)).network), "relu")
    return folded(quantize(small, [drawn_scene(seed, 64, 64) for seed in range(4)], imgsz=64))


def test_each_row_is_what_onnx_computes_in_int8_of_the_same_maps(int8: Model) -> None:
    """Whole networks cannot be compared: a last bit that falls on another side of a rounding spreads."""
    batch = float_batch(drawn_scene(7, 64, 64)[None])
    graph = onnx_model(int8, 64, 64, precision="int8", decode=False)
    rows = [row for row in int8.network.rows if row.op in ("conv", "add") and row.name not in int8.network.heads]
    names = [row.name for row in int8.network.rows if row.op not in ("image", "detect") and row.name not in int8.network.heads]
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    maps = {"images": batch, **dict(zip(names, runner(graph.SerializeToString())(batch, names), strict=True))}
    network = QuantizedNetwork(int8)
    network.train()
    plain, scales = PaddleNetwork(int8), Scales(int8.network, int8.scales)
    changed = 0
    for row in rows:
        inputs = [paddle.to_tensor(maps[name]) for name in row.inputs]
        found, exact = (getattr(one, row.op)(row, *inputs).numpy() for one in (network, plain))
        expected = maps[row.name]
        limit = 1e-5 * max(np.abs(expected).max(), 1)
        if row.op == "conv":
            limit += 0.5 * scales.map(row.inputs[0]) * scales.weight(row).max()  # ONNX Runtime rounds biases to units of these products
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=row.name)
        changed += not np.allclose(exact, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert changed > len(rows) / 2  # the roundings can be told from none


def test_roundings_and_their_gradients_by_hand() -> None:
    """With a scale of .5: 0.7 is 1.4 steps and becomes 1, 63.6 is 127.2 steps and -70 is -140, which are clipped and pass no gradient on."""
    x = paddle.to_tensor(np.float32([0.7, -0.3, 63.6, -70.0, 63.4]), stop_gradient=False)
    y = rounded(x, paddle.to_tensor(np.float32(0.5)))
    assert y.numpy().tolist() == [0.5, -0.5, 63.5, -64.0, 63.5]
    (y * paddle.to_tensor(np.float32([1, 2, 3, 4, 5]))).sum().backward()
    assert x.grad.numpy().tolist() == [1.0, 2.0, 0.0, 0.0, 5.0]


@pytest.fixture(scope="module")
def shapes_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("qat") / "shapes", {"train": 8, "val": 4}, side=64)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network for two classes, in float32 and with scales."""
    folder = tmp_path_factory.mktemp("weights")
    whole = fresh_model("yolov5n", names=("square", "disc"), classes=2)
    small = replace(prune(whole, plan(whole, "1/8", 8, "random")), image_size=64)
    small.save(folder / "float.safetensors")
    quantize(small, [drawn_scene(0, 64, 64)], imgsz=64).save(folder / "int8.safetensors")
    return folder / "float.safetensors", folder / "int8.safetensors"


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_bits_with_the_same_scales(
    shapes_data: Path, files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher, weights = files

    def arguments(name: str) -> list[str]:
        options = ["--epochs", "2", "--batch", "4", "--nominal-batch", "4", "--lr0", "0.001", "--workers", "0", "--qat"]
        return [
            "finetune",
            "--weights",
            str(weights),
            "--teacher",
            str(teacher),
            "--data",
            str(shapes_data),
            *options,
            "--project",
            str(tmp_path),
            "--name",
            name,
        ]

    assert main(arguments("whole")) == 0
    assert "batch norm folded, no warm-up" in capfd.readouterr().out
    with stopped_after(1, 1):
        assert main(arguments("run")) == 130
    assert main(["finetune", "--resume", str(tmp_path / "run")]) == 0
    for name in ("results.csv", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    before, after = load(weights), load(tmp_path / "whole" / "last.safetensors")
    assert before.scales.keys() == after.scales.keys()
    assert all(np.array_equal(scale, after.scales[name]) for name, scale in before.scales.items())
    assert not any(row.norm for row in after.network.convs)
    first = folded(before).tensors
    assert any(not np.array_equal(first[name], tensor) for name, tensor in after.tensors.items())
    assert [step["action"] for step in after.lineage][-3:] == ["quantize", "start", "finetune"]
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert state.scales.keys() == after.scales.keys()
    for damaged in ([1.0], {"model.0.weight_scale": "1"}, {"model.0.weight_scale": ["1"]}, {"model.0.weight_scale": [1.0]}, {"nothing.scale": [1.0]}):
        save_state(replace(state, extra={**state.extra, "quantization": damaged}), tmp_path / "damaged.safetensors")
        with pytest.raises(InputError, match=r"damaged\.safetensors: "):
            load_state(tmp_path / "damaged.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "has no scales: octrim quantize makes them"),
        (["--keep", "1/2"], "--keep would make wrong"),
        (["--activation", "relu"], "--activation would make wrong"),
    ],
)
def test_what_is_refused(
    shapes_data: Path, files: tuple[Path, Path], tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = files[1] if options else files[0]
    assert main(["finetune", "--weights", str(weights), "--data", str(shapes_data), "--project", str(tmp_path / "runs"), "--qat", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
