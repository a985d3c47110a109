"""`octrim export` to every format, and what may not pass as one. Engines are built in the stand-in."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.data.scenes import drawn_scene
from octrim.deploy.compare import compare, judge, limits_of
from octrim.deploy.export import export
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from tests.data.test_pictures import write
from tests.networks import ACTIVATIONS, lively_model
from tests.targets.tensorrt_standin import VERSIONS, Installed, installed


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def made() -> Model:
    """A small network with lively weights, and logits of a few units, as trained networks have."""
    whole = lively_model(yolov5_network("yolov5n", 3))
    model = lively_model(prune(whole, plan(whole, keep="1/8", align=8)).network)
    tensors = {name: tensor / 8 if name.removesuffix(".weight") in model.network.heads else tensor for name, tensor in model.tensors.items()}
    for head in model.network.heads:
        weight = tensors[f"{head}.weight"].reshape(3, 8, -1, 1, 1).copy()
        weight[:, 2:4] *= 0.1  # boxes of about the anchors' size, none without area
        tensors[f"{head}.weight"] = weight.reshape(24, -1, 1, 1)
        tensors[f"{head}.bias"] = tensors[f"{head}.bias"] - np.tile(np.float32([0, 0, 0, 0, 5, 0, 0, 0]), 3)  # few boxes are sure
    return replace(model, tensors=tensors, image_size=64)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, and the same with scales."""
    path, model = tmp_path_factory.mktemp("models"), made()
    model.save(path / "small.safetensors")
    quantize(model, [drawn_scene(seed, 90, 120) for seed in range(4)]).save(path / "int8.safetensors")
    return path


@pytest.fixture
def folder(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with these models and three pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        write(tmp_path / "pictures" / f"{index}.png", drawn_scene(index, 60, 90))
    return tmp_path


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> Iterator[Installed]:
    with installed(request.param) as fake:
        yield fake


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "options", "batch"),
    [
        ("fp32", ["--pad-channels", "16"], 1),
        ("fp16", ["--batch", "2"], 2),
        ("int8", ["--batch", "3", "--dynamic"], [1, 3, 3]),
        ("int8", ["--high-precision", "fp32"], 1),
        ("fp32", ["--batch", "2", "3", "4"], [2, 3, 4]),
    ],
)
def test_engines(folder: Path, fake: Installed, capsys: pytest.CaptureFixture[str], precision: str, options: list[str], batch: Any) -> None:
    weights = "int8.safetensors" if precision == "int8" else "small.safetensors"
    common = ["--format", "tensorrt", "--precision", precision, "--verify", "--source", "pictures", "--timing-cache", "times"]
    assert main(["export", "--weights", weights, *common, *options]) == 0
    told = capsys.readouterr().out
    assert "compared with ONNX Runtime" in told
    assert "objectness" in told
    assert "next: octrim predict --weights runs/export/exp/model.engine" in told
    assert (folder / "times").is_file()
    run = folder / "runs/export/exp"
    report = json.loads((run / "export.json").read_text())
    assert (report["batch"], report["precision"], report["format"]) == (batch, precision, "tensorrt")
    assert set(report["sha256"]) == {"model.engine", "model.engine.json"}
    assert report["score_error"] < {"fp32": 1e-4, "fp16": 0.02, "int8": 1}[precision]
    assert report["energy"] < {"fp32": 1e-6, "fp16": 5e-3, "int8": 0.12}[precision]
    assert report["matched"] / report["boxes"] >= {"fp32": 1, "fp16": 0.95, "int8": 0.9}[precision]
    header = json.loads((run / "model.engine.json").read_text())
    assert header["gpu"] == {"name": "Stand-in", "capability": "8.7", "cuda": "12.9", "driver": "13.0"}
    assert header["lineage"][0] == {"action": "made up"}
    assert header["high_precision"] == ("fp32" if "fp32" in (precision, *options) else "fp16")
    assert not fake.device.live
    assert not fake.errors
    if options == ["--batch", "2", "3", "4"]:
        assert "batches of 2 to 4" in failed(capsys, "predict", "--weights", "runs/export/exp/model.engine", "--source", "pictures")


@pytest.mark.slow
def test_a_wrong_engine_is_not_called_done(
    folder: Path, fake: Installed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from octrim.targets.tensorrt.layers import TensorrtOps

    monkeypatch.setattr(TensorrtOps, "maxpool", lambda self, row, x: replace(x, row=row.name))
    for weights, precision in (("small.safetensors", "fp32"), ("small.safetensors", "fp16"), ("int8.safetensors", "int8")):
        told = failed(capsys, "export", "--weights", weights, "--format", "tensorrt", "--precision", precision, "--imgsz", "128")
        assert "differs from ONNX Runtime" in told, precision
        assert "nothing was written" in told
    assert not (folder / "runs").exists()
    assert not fake.device.live


def test_engines_need_what_is_missing_here(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["export", "--weights", "small.safetensors", "--format", "tensorrt"]
    told = failed(capsys, *arguments)
    assert "TensorRT cannot be imported" in told
    assert "pip install 'octrim[tensorrt]'" in told
    assert "on the machine that runs it" in told
    with installed(VERSIONS[1]) as fake:
        fake.device.driver_missing = True
        assert "no NVIDIA driver here" in failed(capsys, *arguments)
    for options, why in (
        (["--dynamic"], "give --batch N with --dynamic"),
        (["--batch", "1", "2"], "--batch takes a number, or three"),
        (["--batch", "1", "2", "4", "--dynamic"], "three for an engine without --dynamic"),
        (["--batch", "0"], "expected 1 to 4096"),
        (["--precision", "int8"], "octrim quantize"),
    ):
        assert why in failed(capsys, *arguments, *options)
    assert "(fewest, typical, most) are only for tensorrt" in failed(capsys, "export", "--weights", "small.safetensors", "--batch", "1", "2", "4")
    assert not (folder / "runs").exists()


def test_options_of_engines_are_refused_by_other_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for format in ("onnx", "c"):
        for option, value in (("--timing-cache", "times"), ("--pad-channels", "8"), ("--high-precision", "fp32"), ("--workspace", "2")):
            told = failed(capsys, "export", "--weights", "small.safetensors", "--format", format, option, value)
            assert f"error: {option} is for tensorrt alone; {format} has no use for it" in told
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_options_that_tensorrt_refuses(folder: Path, fake: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    for options, why in (
        (["--builder-level", "9"], "--builder-level is 9, expected 0 to 5"),
        (["--pad-channels", "0"], "--pad-channels is 0"),
        (["--workspace", "0"], "workspace is 0"),
        (["--workspace", "nan"], "workspace is nan"),
        (["--timing-cache", "none/here"], "none/here"),
    ):
        assert why in failed(capsys, "export", "--weights", "small.safetensors", "--format", "tensorrt", *options)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8(folder: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    capsys.readouterr()  # its warning about threads, where this is the first import
    arguments = ["--format", format, "--precision", "int8", "--source", "pictures", "--verify"]
    assert "octrim quantize makes them" in failed(capsys, "export", "--weights", "small.safetensors", *arguments)
    assert main(["export", "--weights", "int8.safetensors", *arguments]) == 0
    path = folder / "runs/export/exp" / ("model.onnx" if format == "onnx" else "openvino")
    told = capsys.readouterr().out
    assert re.search(r"pictures in \w+ [\d.]+: scores differ by [-e\d.]+ of their magnitude, as roundings to eight bits explain\n", told), told
    assert f"what int8 costs in accuracy: octrim val --weights {path.relative_to(folder)} --data D\nnext: octrim predict" in told
    assert "largest difference 0" not in told
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    reference = open_session("int8.safetensors", "onnxruntime", "int8")(images)
    session = open_session(path)
    assert session.info.precision == "int8"
    sessions = [session, open_session("int8.safetensors", "openvino", "int8")]
    if format == "onnx":
        sessions.append(open_session(path, "openvino"))
    for one in sessions:
        difference = one(images)[..., 4:] - reference[..., 4:]
        assert np.linalg.norm(difference) < 0.12 * np.linalg.norm(reference[..., 4:])
    exact = open_session("small.safetensors", "onnxruntime")(images)
    assert np.abs(exact - reference)[..., 4:].max() > 1e-3  # it really is int8


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--dynamic"], ["--imgsz", "64", "96"]])
def test_paddle_inference(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    assert main(["export", "--weights", "small.safetensors", "--format", "paddle", *options]) == 0
    assert "compared with Paddle" in capsys.readouterr().out
    path = folder / "runs/export/exp/paddle"
    assert sorted(file.name for file in path.iterdir()) == ["model.json", "model.pdiparams", "octrim.json"]
    report = json.loads((path.parent / "export.json").read_text())
    assert report["score_error"] < 1e-4
    assert report["runtime"].startswith("paddle-inference")
    session = open_session(path)
    assert (session.predictor.get_input_names(), session.predictor.get_output_names()) == (["images"], ["output0"])
    size = (64, 96) if "--imgsz" in options else (64, 64)
    assert (session.info.size, session.info.batch, session.info.names) == (size, None if "--dynamic" in options else 1, made().names)
    for count in (1, 3, 1) if "--dynamic" in options else (1, 1):
        images = np.random.default_rng(count).integers(0, 256, (count, *size, 3), np.uint8)
        np.testing.assert_allclose(session(images), open_session("small.safetensors", "onnxruntime")(images), rtol=1e-4, atol=1e-3)
    assert main(["bench", "--weights", str(path), "--iterations", "2", "--warmup", "0"]) == 0
    for refused, why in ((["--precision", "fp16"], "runs it in fp32"), (["--runtime", "openvino"], "runs in paddle, not in openvino")):
        assert why in failed(capsys, "predict", "--weights", str(path), "--source", "pictures", *refused)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of loaded libraries in /proc")
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("runtime", ["paddle", None])
def test_sessions_leave_the_number_of_threads_as_it_was(folder: Path, runtime: str | None) -> None:
    """Asked of the OpenMP library that Paddle came with. Paddle Inference leaves the whole process at one thread."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    export(made(), "paddle", "paddle", imgsz=64)
    session = open_session("paddle" if runtime is None else "small.safetensors", runtime, threads=1)
    library = next((line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libiomp5" in line), None)
    if library is None:
        pytest.skip("Paddle does not use Intel's OpenMP library here")
    threads = ctypes.CDLL(library).omp_get_max_threads
    assert threads() == 2
    session(np.zeros((1, 64, 64, 3), np.uint8))
    assert threads() == 2


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_paddle_inference_of_every_activation(tmp_path: Path, activation: str | None) -> None:
    """oneDNN fuses each into its convolution, and this process must live: with Paddle's own leaky_relu it does not."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    first = Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation=activation)
    rows = (Row("images", "image", channels=3), first, replace(first, name="b", inputs=("a",)), Row("head", "conv", ("b",), 14, bias=True))
    model = lively_model(Network((*rows, Row("detect", "detect", ("head",))), (((8.0, 8.0), (16.0, 16.0)),)))
    assert export(model, tmp_path / "paddle", "paddle", imgsz=64).score_error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["octrim.json", "model.pdiparams", "model.json"])
def test_damaged_paddle_inference_folders(folder: Path, damage: str) -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    export(made(), "paddle", "paddle", imgsz=64)
    (folder / "paddle" / damage).write_text("{")
    with pytest.raises(InputError, match="paddle"):
        open_session("paddle")
    (folder / "paddle" / damage).unlink()
    with pytest.raises(InputError, match="is missing|expected a file"):
        open_session("paddle")


@pytest.mark.slow
def test_map_of_both_and_a_fall_that_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from octrim.deploy import export as module

    data = labelled(folder, made())
    with installed(VERSIONS[1]):
        arguments = ["export", "--weights", "small.safetensors", "--format", "tensorrt", "--data", data, "--dynamic", "--batch", "4"]
        assert main(arguments) == 0
        report = json.loads(Path("runs/export/exp/export.json").read_text())
        assert report["map"][0] > 0.2
        assert report["map"][1] == pytest.approx(report["map"][0], abs=1e-6)
        assert f"mAP50-95 {report['map'][1]:.4f}" in capsys.readouterr().out
        several = ["--batch", "3", "3", "4", "--name", "several"]  # four pictures: the last one is alone
        assert main(["export", "--weights", "small.safetensors", "--format", "tensorrt", *several]) == 0
        assert main(["val", "--weights", "runs/export/several/model.engine", "--data", data, "--batch", "1"]) == 0
        metrics = json.loads(Path("runs/val/exp/metrics.json").read_text())
        assert metrics["mAP50-95"] == pytest.approx(report["map"][0], abs=1e-3)
        capsys.readouterr()
        values = iter([0.5, 0.49])
        monkeypatch.setattr(module, "evaluate", lambda *_, **__: type("E", (), {"map": next(values)}))
        assert "mAP50-95 is 0.4900 where ONNX Runtime" in failed(capsys, *arguments)
    assert not Path("runs/export/exp2").exists()


def labelled(folder: Path, model: Model) -> str:
    """A data set whose objects are what the model finds, so that its mAP is high."""
    from octrim.detector import Detector

    detector = Detector(model, 64, conf=0.3, runtime="onnxruntime")
    for index in range(4):
        image = drawn_scene(index, 64, 64)
        for kind in ("images", "labels"):
            (folder / "data" / kind / "val").mkdir(parents=True, exist_ok=True)
        write(folder / "data/images/val" / f"{index}.png", image)
        (folder / "data/labels/val" / f"{index}.txt").write_text(detector.detect(image).to_yolo())
    names = ", ".join(model.names)
    (folder / "data/data.yaml").write_text(f"path: .\ntrain: images/val\nval: images/val\nnames: [{names}]\n")
    return "data/data.yaml"


def test_boxes_that_only_one_side_finds() -> None:
    """By hand: two boxes, of which the other side lost one, and one so near the threshold that it does not count."""

    class Fixed:
        def __init__(self, rows: list[list[float]]) -> None:
            self.rows = np.asarray([rows], np.float32)
            self.info: Any = None

        def prepare(self, batch: int, height: int, width: int) -> None: ...

        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return self.rows

    one = [[10, 10, 8, 8, 1, 0.9, 0], [40, 40, 8, 8, 1, 0, 0.8], [20, 50, 8, 8, 1, 0.28, 0]]
    other = [[10, 10, 8, 8, 1, 0.9, 0], [40, 40, 8, 8, 1, 0.8, 0], [20, 50, 8, 8, 1, 0.22, 0]]
    limits = limits_of("fp16", "fp32")
    found = compare(Fixed(one), Fixed(other), np.zeros((1, 64, 64, 3), np.uint8), 1, limits)
    assert (found.boxes, found.matched, found.iou) == (4, 2, 1.0)
    assert found.score_error == pytest.approx(0.8)
    assert found.parts["class scores"] == (pytest.approx(0.8), pytest.approx((0.8 + 0.8 + 0.06) / 6))
    assert found.parts["centre, px"] == (0, 0)
    with pytest.raises(InputError, match="differs from X by 0.8 in scores"):
        judge(found, limits, "X")
    with pytest.raises(InputError, match="agree on 2 of 4 boxes"):
        judge(found, replace(limits, score=None), "X", boxes=True)
    judge(found, replace(limits, score=None), "X")
