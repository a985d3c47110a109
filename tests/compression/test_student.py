"""A compression whose small network has a layout of its own: what it takes from its teacher, what is refused, and a run that goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.compression import pipeline
from octrim.compression.options import Compression
from octrim.compression.presets import PRESETS, resolved
from octrim.compression.student import refuse_cuts, student_of
from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.yolov5 import yolov5_network
from octrim.stages import EXPORT
from tests.compression.running import SMALL, summary
from tests.networks import tiny_model

LAYOUT = """\
nc: 80
activation: nn.ReLU()
anchors: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, DWConv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 1, 1]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc, anchors]]
"""
OPTIONS = [*SMALL, "--finetune-epochs", "2", "--iterations-bench", "3"]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "student.yaml"
    path.write_text(LAYOUT)
    return path


def test_a_student_has_the_levels_of_its_teacher() -> None:
    whole = fresh_model("yolov5n", names=("cell", "plate"), classes=2)
    anchors = tuple(tuple((width + 0.5, height) for width, height in level) for level in whole.network.anchors)
    whole = replace(whole, network=replace(whole.network, anchors=anchors), image_size=320)
    student = student_of(Compression(student="picodet", seed=3), whole)
    assert (student.names, student.image_size, student.network.classes) == (("cell", "plate"), 320, 2)
    assert student.network.strides == (16, 32) and student.network.anchors == anchors[1:]
    assert student_of(Compression(student="picodet-p3"), whole).network.anchors == anchors
    again, other = (student_of(Compression(student="picodet", seed=seed), whole).tensors for seed in (3, 4))
    assert all(np.array_equal(student.tensors[name], again[name]) for name in again)
    assert not np.array_equal(other["model.0.conv.weight"], again["model.0.conv.weight"])


def test_students_that_do_not_fit(layout: Path) -> None:
    whole = fresh_model("yolov5n")
    with pytest.raises(InputError, match="yolov5n6: has a level of stride 64; the network that teaches it has strides 8, 16, 32"):
        student_of(Compression(student="yolov5n6"), whole)
    layout.write_text(LAYOUT.replace("[nc, anchors]", "[nc, [[1, 2], [3, 4]]]"))
    with pytest.raises(InputError, match="has 1 anchors at stride 4; the network that teaches it has 2"):
        student_of(Compression(student=str(layout)), tiny_model())
    with pytest.raises(InputError, match="nothing: no such YAML file"):
        student_of(Compression(student="nothing"), whole)


def test_its_training_begins_with_fresh_weights() -> None:
    """Three times the rate of a cut network's where steps go along an orthogonal momentum; nothing is cut."""
    preset = resolved(Compression(student="picodet"))
    assert (preset.finetune_lr0, preset.finetune_epochs, preset.cut_epochs, preset.choose) == (0.1, PRESETS["default"].finetune_epochs, 0, False)
    assert [stage.title for stage in preset.stages(False)] == ["train", "finetune", "export", "bench"]
    assert resolved(Compression(student="picodet", finetune_lr0=0.02)).finetune_lr0 == 0.02
    assert resolved(Compression(student="picodet", finetune_optimizer="SGD")).finetune_lr0 == PRESETS["default"].finetune_lr0


def test_options_that_ask_for_nothing_go_with_a_student() -> None:
    refuse_cuts(Compression(student="picodet", sparsify_epochs=0, cut_epochs=0, cut_steps=1))


def test_a_student_that_is_cut_is_trained_before() -> None:
    """Fresh weights at their rate first, then a cut within fine-tuning as of any trained network."""
    default = PRESETS["default"]
    preset = resolved(Compression(student="picodet", keep="1/2"))
    assert (preset.student_epochs, preset.student_lr0, preset.finetune_lr0) == (default.finetune_epochs, 0.1, default.finetune_lr0)
    assert (preset.cut_epochs, preset.widths, preset.own_layout) == (40, "importance", False)
    assert [stage.title for stage in preset.stages(False)] == ["train", "student", "finetune", "export", "bench"]
    assert (preset.uncut.title, preset.before_finetune, preset.whole) == ("student", 150, 250)
    preset = resolved(Compression(student="picodet", budget="macs=0.4", student_epochs=7, finetune_optimizer="SGD"))
    assert (preset.student_epochs, preset.student_lr0, preset.widths) == (7, default.finetune_lr0, "variance")


_NO_STUDENTS = "{} is about the network of --weights, and --student names another: leave one of them out"
_NOT_CUT = "{} is about cutting, and a --student is not cut unless --keep or --budget says how far"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--search", "4"], _NO_STUDENTS),
        (["--search", "4", "--keep", "1/2"], _NO_STUDENTS),
        (["--sparsify-epochs", "3", "--keep", "1/2"], _NO_STUDENTS),
        (["--sparsify-epochs", "1", "--keep", "1/2"], _NO_STUDENTS),
        (["--step-epochs", "1", "--keep", "1/2"], _NO_STUDENTS),
        (["--cut-steps", "2", "--keep", "1/2"], _NO_STUDENTS),
        (["--activation", "relu"], _NO_STUDENTS),
        (["--drop", "model.8"], _NOT_CUT),
        (["--levels", "8"], _NOT_CUT),
        (["--cut-epochs", "3"], _NOT_CUT),
        (["--widths", "variance"], _NOT_CUT),
        (["--keep-map", "map.json"], _NOT_CUT),
        (["--latency-table", "t.json"], _NOT_CUT),
        (["--student-epochs", "3"], _NOT_CUT),
        (["--student-epochs", "1"], _NOT_CUT),
        (["--cut-epochs", "1"], _NOT_CUT),
        (["--align", "1"], _NOT_CUT),
        (["--threads", "1"], _NOT_CUT),
    ],
)
def test_options_that_do_not_go_with_a_student(
    options: list[str], error: str, shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--student", "picodet", "--project", str(tmp_path / "runs"), *options]
    assert main(command) == 2
    assert capsys.readouterr().err == f"octrim compress: error: {error.format(options[0])}\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--student-epochs", "3"], "--student-epochs is about a --student that is trained and then cut"),
        (["--student", "LAYOUT", "--keep", "1"], "keep is 1: nothing would be cut"),
        (["--student", "LAYOUT", "--keep", "1/2", "--drop", "model.8"], "--drop: 'model.8' matches no row"),
        (["--student", "LAYOUT", "--keep", "1/2", "--exclude", "model.8"], "exclude: "),
    ],
)
def test_cuts_of_a_student_that_cannot_be(
    options: list[str], error: str, layout: Path, shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The patterns are those of the student's rows: the whole network has other ones."""
    options = [str(layout) if option == "LAYOUT" else option for option in options]
    assert main(["compress", "--weights", str(weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), *options]) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_with_a_student(
    layout: Path, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted before its exports, and resumed after its layout has moved: the student is what was fine-tuned, exported and timed."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--student", str(layout), *OPTIONS, "--train-epochs", "1"]
    with monkeypatch.context() as patch:
        patch.setitem(pipeline._WORK, EXPORT, interrupted)
        assert main([*command, "--project", str(tmp_path), "--name", "run"]) == 130
    run = tmp_path / "run"
    whole, student = load(run / "1-train/last.safetensors"), load(run / "4-finetune/last.safetensors")
    two = tmp_path / "two.yaml"
    two.write_text(LAYOUT.replace("anchors: 3", "anchors: [[1, 2, 3, 4], [5, 6, 7, 8]]"))
    expected = replace(yolov5_network(two, 2), anchors=whole.network.anchors)
    assert student.network == expected and student.names == whole.names
    assert not (run / "3-prune").exists()
    log = (run / "4-finetune/log.txt").read_text()
    assert "no --teacher" not in log
    assert "teacher: " + str(run / "1-train/last.safetensors") in (run / "4-finetune/config.yaml").read_text()
    layout.rename(tmp_path / "moved.yaml")
    assert main(["compress", "--resume", str(run), "--workers", "0"]) == 2
    assert "student.yaml: no such" in capsys.readouterr().err
    assert main(["compress", "--resume", str(run), "--workers", "0", "--student", str(tmp_path / "moved.yaml")]) == 0
    found = summary(run)
    assert list(found["stages"]) == ["original", "finetuned"] and found["cuts"] == [] and found["settings"]["student"] == str(tmp_path / "moved.yaml")
    assert found["stages"]["finetuned"]["epochs"] == 3
    assert load(run / "4-finetune/last.safetensors").tensors.keys() == student.tensors.keys()
    report = (run / "report.html").read_text()
    assert f"The small network, moved.yaml, has {found['stages']['finetuned']['channels']} channels, needs " in report
    assert "student moved.yaml" in report and "fine-tuned" in report and ">align " not in report


@pytest.mark.slow
def test_a_killed_student_goes_on_to_the_same_weights(
    layout: Path, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is killed after its first epoch of fine-tuning."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    monkeypatch.setitem(pipeline._WORK, EXPORT, interrupted)
    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--student", str(layout), *OPTIONS, "--train-epochs", "1"]
    assert main([*command, "--project", str(tmp_path), "--name", "whole"]) == 130
    killed = 0

    def kill(*_: Any) -> None:
        nonlocal killed
        killed += 1
        if killed == 2:  # the first training has one epoch, and the second its first one
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("octrim.training.record.save_curves", kill)
        assert main([*command, "--project", str(tmp_path), "--name", "killed"]) == 130
    assert json.loads((tmp_path / "killed/start.json").read_text())["preset"]["own_layout"] is True
    shutil.move(tmp_path / "killed", tmp_path / "elsewhere")
    assert main(["compress", "--resume", str(tmp_path / "elsewhere"), "--workers", "0"]) == 130
    first, second = (load(tmp_path / name / "4-finetune/last.safetensors") for name in ("whole", "elsewhere"))
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.mark.slow
def test_a_student_that_is_cut(layout: Path, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the student is trained, and resumed: it is cut from what that training leaves, the whole network teaches throughout."""
    killed = 0

    def kill(*_: Any) -> None:
        nonlocal killed
        killed += 1
        if killed == 2:  # the first training has one epoch, and the student's its first one
            raise KeyboardInterrupt

    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--student", str(layout), *OPTIONS, "--train-epochs", "1"]
    command += ["--keep", "1/2", "--exclude", "model.0", "--student-epochs", "2", "--cut-epochs", "1", "--control"]
    with monkeypatch.context() as patch:
        patch.setattr("octrim.training.record.save_curves", kill)
        assert main([*command, "--project", str(tmp_path), "--name", "run"]) == 130
    run = tmp_path / "run"
    assert not (run / "4-finetune").exists()
    assert main(["compress", "--resume", str(run), "--workers", "0"]) == 0
    whole, student, small = (load(run / folder / "last.safetensors") for folder in ("1-train", "student", "4-finetune"))
    assert student.network.strides == (4, 8) and student.network.anchors == whole.network.anchors
    channels = {row.name: row.channels for row in student.network.convs}
    left = {row.name: row.channels for row in small.network.convs}
    assert channels["model.2"] == 16 and left == channels | {"model.2": 8, "model.3": 8}
    for folder, start in (("student", "initial"), ("4-finetune", "last")):
        config = (run / folder / "config.yaml").read_text()
        assert f"teacher: {run / '1-train/last.safetensors'}" in config
        assert f"weights: {run / 'student' / start}.safetensors" in config
    found = summary(run)
    assert list(found["stages"]) == ["original", "student", "finetuned", "control"]
    assert [found["stages"][name]["epochs"] for name in found["stages"]] == [1, 3, 5, 5]
    assert found["stages"]["student"]["macs"] > found["stages"]["finetuned"]["macs"] == found["stages"]["control"]["macs"]
    assert found["cuts"] == [{"criterion": "taylor", "repairs": ["merge"], "channels": found["stages"]["finetuned"]["channels"]}]
    times = found["times"]["latency_ms"]
    assert times["student"] > 0 and times["control"] == times["finetuned"]
    report = (run / "report.html").read_text()
    channels_of = [found["stages"][name]["channels"] for name in ("finetuned", "student")]
    assert "The small network, student.yaml, has {} of {} channels, needs ".format(*channels_of) in report
    assert "The student had " in report and "student in C" in report and "fine-tuned in C" in report
