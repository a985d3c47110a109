"""The int8 stage of a compression: what it leaves, when it trains with the roundings, and that it goes on in the middle of that training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from octrim.cli import main
from octrim.compression.options import Compression
from octrim.compression.presets import resolved
from octrim.data.open import open_dataset
from octrim.evaluate.val import evaluate
from octrim.network.loading import load
from octrim.targets.c.compiler import has_compiler
from octrim.targets.opening import open_session
from tests.compression.running import arguments, summary, untimed
from tests.training.conftest import draw_shapes, stopped_after

QUICK = ["--train-epochs", "0", "--finetune-epochs", "1", "--cut-epochs", "1", "--criterion", "l2", "--int8"]


def test_stages_and_epochs() -> None:
    titles = ["train", "finetune", "int8", "export", "bench"]
    preset = resolved(Compression(int8=True, finetune_epochs=60))
    assert [stage.title for stage in preset.stages(False)] == titles
    assert (preset.qat, preset.qat_epochs) == ("auto", 6)
    assert resolved(Compression(int8=True, qat="never")).qat_epochs == 0
    assert resolved(Compression(int8=True, qat_epochs=3)).qat_epochs == 3
    assert resolved(Compression()).qat_epochs == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """An undisturbed run that trains with the roundings of int8, and its data."""
    root = tmp_path_factory.mktemp("trained")
    data = draw_shapes(root / "shapes", {"train": 12, "val": 4})
    assert main(arguments(data, weights, root, *QUICK, "--qat", "always", "--qat-epochs", "2")) == 0
    return root / "run", data


@pytest.mark.slow
def test_what_the_stage_leaves(trained: tuple[Path, Path]) -> None:
    folder, data = trained
    found = summary(folder)
    assert list(found["stages"]) == ["original", "finetuned", "int8"]
    row, tried = found["stages"]["int8"], found["int8"]
    assert tried["float32"] == found["stages"]["finetuned"]["mAP50-95"]
    assert row["mAP50-95"] == pytest.approx(max(tried["calibrated"], tried["trained"]), abs=1e-6)
    better = tried["trained"] > tried["calibrated"]
    assert row["epochs"] == (3 if better else 1)
    model = load(folder / "int8" / "model.safetensors")
    source = load(folder / "int8" / ("train/last.safetensors" if better else "calibrate/model.safetensors"))
    assert model.scales and all(np.array_equal(tensor, model.tensors[name]) for name, tensor in source.tensors.items())
    result = evaluate(open_session(model, precision="int8"), open_dataset(data, "val"), 64, 4)
    assert (row["mAP50"], row["mAP50-95"]) == pytest.approx((result.map50, result.map), abs=1e-6)
    calibrated, after = (load(folder / "int8" / name) for name in ("calibrate/model.safetensors", "train/last.safetensors"))
    assert calibrated.scales.keys() == after.scales.keys()
    assert all(np.array_equal(scale, after.scales[name]) for name, scale in calibrated.scales.items())
    assert [step["action"] for step in after.lineage][-3:] == ["quantize", "start", "finetune"]


@pytest.mark.slow
def test_int8_is_exported_and_timed_beside_the_others(trained: tuple[Path, Path]) -> None:
    folder, _ = trained
    found = summary(folder)
    assert {"onnx", "openvino", "openvino-int8"} <= found["export"].keys()
    assert ("c-int8" in found["export"]) == has_compiler()
    assert open_session(folder / "5-export" / "openvino-int8").info.precision == "int8"
    bench = json.loads((folder / "6-bench" / "bench.json").read_text())
    assert [row["precision"] for row in bench["networks"]] == ["fp32", "fp32", "int8"]
    assert found["times"]["latency_ms"] == {
        name: row["network_p50_ms"] for name, row in zip(("original", "finetuned", "int8"), bench["networks"], strict=True)
    }
    if has_compiler():
        rows = bench["c"]["networks"]
        assert [(row["runtime"].partition(" ")[0], row["precision"]) for row in rows[2:]] == [("c", "fp32"), ("c", "int8")]
        assert found["times"]["c"]["latency_ms"]["int8"] == rows[3]["network_p50_ms"]
    report = (folder / "report.html").read_text()
    assert "In int8 the small network has" in report and "training with int8&#39;s roundings" in report
    assert "int8" in (folder / "summary.txt").read_text()


@pytest.mark.slow
def test_a_stopped_training_with_roundings_goes_on_to_the_same_bits(trained: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = trained
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    for stage in ("int8/train", "int8", "5-export", "6-bench"):
        (run / stage / "stage.json").unlink()
    shutil.rmtree(run / "int8" / "train")
    with stopped_after(1, 1):
        assert main(["compress", "--resume", str(run)]) == 130
    assert not (run / "int8" / "stage.json").exists()
    assert main(["compress", "--resume", str(run)]) == 0
    assert untimed(run) == untimed(folder)
    for name in ("int8/train/last.safetensors", "int8/model.safetensors"):
        assert (run / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_auto_trains_only_where_calibration_loses_too_much(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("octrim.compression.quantizing.MOST_LOST", 2.0)
    assert main(arguments(shapes, weights, tmp_path, *QUICK)) == 0
    run = tmp_path / "run"
    assert "no training with the roundings is needed" in capfd.readouterr().out
    assert not (run / "int8" / "train").exists() and "trained" not in summary(run)["int8"]
    for stage in ("int8", "5-export", "6-bench"):
        (run / stage / "stage.json").unlink()
    monkeypatch.setattr("octrim.compression.quantizing.MOST_LOST", -2.0)
    assert main(["compress", "--resume", str(run)]) == 0
    assert "it trains with the roundings of int8 (epochs: 1)" in capfd.readouterr().out
    assert "trained" in summary(run)["int8"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qat", "always"], "--qat is about the int8 network: give --int8, too"),
        (["--qat-epochs", "3"], "--qat-epochs is about the int8 network: give --int8, too"),
        (["--int8", "--qat", "never", "--qat-epochs", "3"], "--qat never does not train"),
    ],
)
def test_what_is_refused(shapes: Path, weights: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(shapes, weights, tmp_path / "runs", *options)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_network_that_cannot_be_int8_is_refused_before_anything_trains(
    shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no integers here")

    monkeypatch.setattr("octrim.targets.openvino.int8.openvino_int8_model", broken)
    assert main(arguments(shapes, weights, tmp_path / "runs", *QUICK)) == 2
    assert "could not be exported in the end (--format openvino --precision int8): no integers here" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
