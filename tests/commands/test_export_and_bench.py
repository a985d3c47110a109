"""`octrim export` and `octrim bench` as users type them: what they leave, and what they say of bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.cli import main
from octrim.deploy.export import export
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.targets.opening import open_session
from tests.commands.running import failed
from tests.networks import lively_model


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("options", [[], ["--dynamic"], ["--batch", "2", "--precision", "fp16"], ["--imgsz", "64", "96"]])
def test_export_and_what_runs_on_it(folder: Path, format: str, options: list[str]) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert main(["export", "--weights", "small.safetensors", "--format", format, *options]) == 0
    run = folder / "runs/export/exp"
    report = json.loads((run / "export.json").read_text())
    path = run / ("model.onnx" if format == "onnx" else "openvino")
    assert report["path"] == str(path.relative_to(folder))
    assert report["bytes"] == sum(file.stat().st_size for file in ([path] if format == "onnx" else path.iterdir()))
    assert report["score_error"] < (0.05 if "fp16" in options else 1e-4)
    assert report["batch"] == (None if "--dynamic" in options else 2 if "--batch" in options else 1)
    if "--batch" in options:
        assert main(["bench", "--weights", str(path), "--iterations", "2", "--batch", "2"]) == 0
        return
    arguments = ["--source", "pictures", "--save-json", "--nosave"]
    assert main(["predict", "--weights", str(path), *arguments]) == 0
    size = ["--imgsz", "64", "96"] if "--imgsz" in options else []
    assert main(["predict", "--weights", "small.safetensors", *arguments, *size]) == 0
    found, expected = (json.loads((folder / f"runs/predict/{name}/predictions.json").read_text()) for name in ("exp", "exp2"))
    assert abs(len(found) - len(expected)) <= max(3, len(expected) // 2)  # square against rectangular letterbox
    assert {entry["name"] for entry in found} <= {"a", "b/c", "ü"}


@pytest.mark.slow
def test_the_onnx_contract(folder: Path) -> None:
    """As OpenCV, ONNX Runtime and DeepStream examples for YOLOv5 expect it."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    import onnx

    assert main(["export", "--weights", "small.safetensors"]) == 0
    graph = onnx.load("runs/export/exp/model.onnx")
    (image,), (output,) = graph.graph.input, graph.graph.output
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    assert (image.name, output.name, shape) == ("images", "output0", [1, 3, 64, 64])
    assert [dimension.dim_value for dimension in output.type.tensor_type.shape.dim] == [1, 3 * (64 + 16 + 4), 8]
    metadata = {item.key: item.value for item in graph.metadata_props}
    assert (metadata["names"], metadata["stride"], metadata["task"]) == ("{0: 'a', 1: 'b/c', 2: 'ü'}", "32", "detect")
    blob = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    network = cv2.dnn.readNetFromONNX("runs/export/exp/model.onnx")
    network.setInput(blob)
    import onnxruntime

    expected = onnxruntime.InferenceSession("runs/export/exp/model.onnx").run(["output0"], {"images": blob})[0]
    np.testing.assert_allclose(network.forward(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_a_wrong_export_is_not_called_done(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    from octrim.targets.onnx.graph import OnnxOps

    # fresh weights let so little through that a missing layer would not show
    lively_model(yolov5_network("yolov5n", 3)).save("lively.safetensors")
    right = OnnxOps.maxpool
    monkeypatch.setattr(OnnxOps, "maxpool", lambda self, row, x: x if row.name.endswith("m.0") else right(self, row, x))
    assert "differs from Paddle" in failed(capsys, "export", "--weights", "lively.safetensors", "--imgsz", "128")
    assert not (folder / "runs").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["lively.safetensors", "pictures", "small.safetensors"]


def test_export_leaves_other_files_alone(folder: Path) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    model = load("small.safetensors")
    (folder / "mine").mkdir()
    (folder / "mine/precious.txt").write_text("x")
    export(model, "mine", "openvino", imgsz=64)
    assert sorted(path.name for path in (folder / "mine").iterdir()) == ["model.bin", "model.xml", "precious.txt"]
    export(model, "det-v1.2", "openvino", imgsz=64)
    assert open_session("det-v1.2").info.runtime == "openvino"
    for path, format, told in (
        ("none/a.onnx", "onnx", "folder does not exist"),
        ("small.safetensors", "openvino", "folder name"),
        ("model.onnx", "openvino", "expected a folder name, and .onnx is the ending of a file"),
        ("model.PARAM", "ncnn", "expected a folder name, and .PARAM is the ending of a file"),
        ("mine", "onnx", "ends in .onnx"),
    ):
        with pytest.raises(InputError, match=told):
            export(model, path, format, imgsz=64)
    with pytest.raises(InputError, match="no pictures"):
        export(model, "a.onnx", imgsz=64, pictures=[])


@pytest.mark.slow
def test_bench_compares_equal_sizes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--cfg", "yolov5n6", "--weights", "small.safetensors", "--imgsz", "96", "--iterations", "1", "--warmup", "0"]) == 0
    written = json.loads((folder / "runs/bench/exp/bench.json").read_text())
    assert written["header"]["height"] == 128
    assert written["networks"][1]["macs"] == network_cost(load("small.safetensors").network, 128).macs
    assert "runs at 128x128 where small.safetensors runs at 96x96" in failed(
        capsys, "bench", "--weights", "small.safetensors", save(fresh_model("yolov5n6", 3), "six.safetensors"), "--imgsz", "96"
    )


def save(model: Model, path: str) -> str:
    model.save(path)
    return path


@pytest.mark.slow
def test_precision_of_an_onnx_file_is_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert main(["export", "--weights", "small.safetensors", "--precision", "fp16"]) == 0
    path = "runs/export/exp/model.onnx"
    assert open_session(path).info.precision == "fp16"
    assert "was exported in fp16; ONNX Runtime cannot run it in bf16" in failed(
        capsys, "predict", "--weights", path, "--source", "pictures", "--precision", "bf16"
    )


@pytest.mark.slow
def test_bench(folder: Path) -> None:
    assert main(["prune", "--weights", "small.safetensors"]) == 0
    small = "runs/prune/exp/model.safetensors"
    assert main(["bench", "--weights", "small.safetensors", small, "--imgsz", "64", "--iterations", "3", "--warmup", "1", "--threads", "1"]) == 0
    written = json.loads(Path("runs/bench/exp/bench.json").read_text())
    first, second = written["networks"]
    assert (written["header"]["precision"], written["header"]["threads"], written["header"]["height"]) == ("fp32", 1, 64)
    assert first["network_speedup"] == first["mac_reduction"] == first["speedup_per_mac_reduction"] == 1
    assert second["file_bytes"] == Path(small).stat().st_size
    assert second["mac_reduction"] == pytest.approx(first["macs"] / second["macs"], abs=1e-4)
    # Milliseconds are written with four decimals, of which the ratio is off by the sum of both relative errors.
    rounding = 5e-5 / first["network_p50_ms"] + 5e-5 / second["network_p50_ms"]
    ratio = first["network_p50_ms"] / second["network_p50_ms"]
    assert second["network_speedup"] == pytest.approx(ratio, abs=ratio * rounding + 1e-4)
    assert second["speedup_per_mac_reduction"] == pytest.approx(second["network_speedup"] / second["mac_reduction"], abs=1e-3)
    for row in (first, second):
        assert row["network_p50_ms"] <= row["network_p90_ms"] <= row["network_p99_ms"]
        assert row["pictures_per_second"] == pytest.approx(1000 / row["total_p50_ms"], rel=1e-2)
    with Path("runs/bench/exp/bench.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["small.safetensors", small]
