"""The teacher of a fine-tuning: the same numbers from whatever runs it, its precision as an option, and where that is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from octrim.backends.onednn.library import RefusedError, has_bfloat16
from octrim.cli import main
from octrim.errors import InputError
from tests.networks import tiny_model, variant
from tests.training.conftest import stopped_after

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork  # noqa: E402
from octrim.training import teacher as module  # noqa: E402
from octrim.training.teacher import Teacher  # noqa: E402

COMMON = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "8", "--workers", "1", "--noval"]
bfloat16_only = pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply in bfloat16")


def refused(*_: object) -> None:
    raise RefusedError("no code for it")


@pytest.mark.parametrize("where", ["made", "run", "nowhere"])
def test_what_paddle_says_where_onednn_refuses(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the network with its batch norm and Paddle's own operations."""
    model = variant("yolov5n")
    if where == "made":
        monkeypatch.setattr(module, "Inference", refused)
    teacher = Teacher(model)
    if where == "run":
        monkeypatch.setattr(module.Inference, "outputs", refused)
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 3, 64, 96), np.float32))
    layer = PaddleNetwork(model)
    layer.compiled = False
    with paddle.no_grad():
        wanted = layer.with_features(images)
    for _ in range(2):
        for found, kept in zip(teacher(images, features=True), wanted, strict=True):
            for one, other in zip(found, kept, strict=True):
                assert one.stop_gradient
                np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=3e-5 * float(other.abs().max()))
    heads, features = teacher(images)
    assert [head.shape for head in heads] == [head.shape for head in wanted[0]]
    assert features == []


def test_bf16_is_refused_where_only_paddle_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    monkeypatch.setattr(module, "Inference", refused)
    with pytest.raises(InputError, match=r"--teacher-precision bf16 cannot be had here \(no code for it\)"):
        Teacher(tiny_model(), "bf16")


def test_refusals_leave_no_folder(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    given = ["--weights", str(tiny_weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), "--teacher-precision", "bf16"]
    teacher = ["--teacher", str(tiny_weights)]
    for command, told in [
        (["finetune", *COMMON], "--teacher-precision bf16 needs --teacher"),
        (["finetune", *COMMON, *teacher, "--distill", "none"], "--teacher-precision bf16 needs --teacher"),
        (["finetune", *COMMON, *teacher], "--teacher-precision bf16 cannot be had here"),
        (["sparsify", *COMMON, "--target", "0.5", *teacher], "--teacher-precision bf16 cannot be had here"),
        (["compress", "--imgsz", "64", "--keep", "1/2"], "--teacher-precision bf16 cannot be had here"),
        (["compress", "--imgsz", "64", "--keep", "1/2", "--distill", "none"], "--teacher-precision bf16 needs a teacher"),
    ]:
        assert main([*command, *given]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@bfloat16_only
def test_a_stopped_run_goes_on_in_bf16(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """The losses against the teacher differ from those in fp32 by about what bfloat16 rounds away, and an undisturbed run has the same to the bit."""
    tiny_model(2.0, seed=1).save(tmp_path / "teacher.safetensors")
    command = ["finetune", "--weights", str(tiny_weights), "--teacher", str(tmp_path / "teacher.safetensors"), "--data", str(shapes), *COMMON]
    command += ["--project", str(tmp_path), "--epochs", "2", "--distill", "both"]
    assert main([*command, "--name", "fp32"]) == 0
    command += ["--teacher-precision", "bf16"]
    assert main([*command, "--name", "bf16"]) == 0
    with stopped_after(1, 1):
        assert main([*command, "--name", "stopped"]) == 130
    assert main(["finetune", "--resume", str(tmp_path / "stopped")]) == 0
    assert yaml.safe_load((tmp_path / "stopped" / "config.yaml").read_text())["teacher_precision"] == "bf16"
    text = {name: (tmp_path / name / "results.csv").read_text() for name in ("fp32", "bf16", "stopped")}
    assert text["stopped"] == text["bf16"] != text["fp32"]
    first = {name: next(csv.DictReader(text[name].splitlines())) for name in text}
    for part in ("train/output_loss", "train/feature_loss"):
        assert float(first["bf16"][part]) == pytest.approx(float(first["fp32"][part]), rel=0.01)
