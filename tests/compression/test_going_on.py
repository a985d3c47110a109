"""Compressions that go on: after Ctrl-C and full disks, elsewhere, with what they began with and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from octrim.cli import main
from octrim.data.digests import digest_with_places
from octrim.data.open import open_dataset
from octrim.network.initialize import fresh_tensors
from octrim.network.loading import load
from octrim.network.model import Model
from tests.compression.running import arguments, summary
from tests.networks import tiny_model
from tests.training.conftest import draw_shapes


@pytest.mark.slow
def test_ctrl_c_tells_how_to_go_on(shapes: Path, weights: Path, tmp_path: Path) -> None:
    command = arguments(shapes, weights, tmp_path, "--train-epochs", "50", "--sparsify-epochs", "0")
    process = subprocess.Popen([sys.executable, "-m", "octrim", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "run" / "1-train" / "log.txt"
    deadline = time.monotonic() + 120
    while not (log.is_file() and "1/50" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 and f"octrim compress --resume {tmp_path / 'run'}" in output and "Traceback" not in output
    assert (tmp_path / "run" / "1-train" / "checkpoint" / "state.safetensors").is_file()


@pytest.fixture
def trained(shapes: Path, weights: Path, tmp_path: Path) -> Path:
    """A run without first training, whose later stages are a moment's."""
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--iterations", "1", "--distill", "none", "--sparsify-epochs", "0", "--criterion", "l2")
    assert main(arguments(shapes, weights, tmp_path, *more)) == 0
    return tmp_path / "run"


@pytest.mark.slow
def test_unlabelled_pictures_join_the_fine_tuning(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = draw_shapes(tmp_path / "others", {"train": 5}, seed=9).parent / "images" / "train"
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--sparsify-epochs", "0", "--unlabelled", str(others), "--unlabelled-share", "0.5")
    assert main(arguments(shapes, weights, tmp_path, *more)) == 0
    found = summary(tmp_path / "run")
    assert {**found["unlabelled"], "digest": ""} == {"pictures": 5, "places": 2, "batch": 4, "digest": ""}
    tuned = load(tmp_path / "run" / "4-finetune" / "best.safetensors").lineage[-1]
    assert tuned["unlabelled"] == f"5 pictures in 2 of 4 places of a batch, digest {found['unlabelled']['digest']}"
    assert "5 unlabelled pictures" in (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "run" / "6-bench" / "stage.json").unlink()
    shutil.move(others, tmp_path / "moved")
    resume = ["compress", "--resume", str(tmp_path / "run")]
    assert main(resume) == 2
    assert "give --unlabelled where it lies now" in capsys.readouterr().err
    (tmp_path / "moved" / "000.png").rename(tmp_path / "kept.png")
    assert main([*resume, "--unlabelled", str(tmp_path / "moved")]) == 2
    assert f"{tmp_path / 'moved'} (unlabelled) has changed since" in capsys.readouterr().err
    (tmp_path / "kept.png").rename(tmp_path / "moved" / "000.png")
    assert main([*resume, "--unlabelled", str(tmp_path / "moved")]) == 0


@pytest.mark.slow
def test_given_weights_are_only_evaluated_and_changes_are_refused(
    trained: Path, shapes: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = summary(trained)
    assert list(found["stages"]) == ["original", "cut", "finetuned"] and found["stages"]["original"]["epochs"] == 0
    assert not (trained / "1-train" / "checkpoint").exists() and not (trained / "2-sparsify").exists()
    given, model = load(weights), load(trained / "1-train" / "best.safetensors")
    assert model.image_size == 64 and model.lineage[-1] == {"action": "start", "weights": "small.safetensors"}
    for name, tensor in given.tensors.items():
        np.testing.assert_array_equal(model.tensors[name], tensor)
    settings = json.loads((trained / "3-prune" / "plan.json").read_text())["settings"]
    assert settings["criterion"] == "l2"
    assert [step["action"] for step in load(trained / "3-prune" / "model.safetensors").lineage][-2:] == ["prune", "compensate"]
    assert found["cuts"] == [{"criterion": "l2", "repairs": ["compensate"], "channels": found["stages"]["cut"]["channels"]}]

    (trained / "6-bench" / "stage.json").unlink()
    label = shapes.parent / "labels" / "train" / "001.txt"
    before = label.read_text()
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    assert main(["compress", "--resume", str(trained)]) == 2
    error = capsys.readouterr().err
    assert "data.yaml (data) has changed" in error and error.count("\n") == 1
    label.write_text(before)
    other = Model(given.network, fresh_tensors(given.network, 5), given.names, given.image_size)
    content = weights.read_bytes()
    try:
        other.save(weights)
        assert main(["compress", "--resume", str(trained)]) == 2
        assert "small.safetensors (weights) has changed" in capsys.readouterr().err
    finally:
        weights.write_bytes(content)
    assert main(["compress", "--resume", str(trained), "--keep", "1/2"]) == 2
    assert "leave out --keep" in capsys.readouterr().err
    assert main(["compress", "--resume", str(trained)]) == 0


@pytest.mark.slow
def test_a_run_goes_on_elsewhere(
    trained: Path, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With data and weights that have been moved, or with none of the latter when the first stage has left its own."""
    config = trained / "config.yaml"
    own = tmp_path / "own.safetensors"
    own.write_bytes(weights.read_bytes())
    config.write_text(config.read_text().replace(str(weights), str(own)))
    (trained / "6-bench" / "stage.json").unlink()
    shapes.parent.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "--resume", str(trained)]) == 2
    error = capsys.readouterr().err
    assert f"{shapes}: no such file" in error and "give --data where it lies now" in error and error.count("\n") == 1
    own.rename("moved.safetensors")
    assert main(["compress", "--resume", "run", "--data", "moved", "--weights", "moved.safetensors"]) == 0
    stored = yaml.safe_load(config.read_text())
    assert stored["data"] == str(tmp_path / "moved") and stored["weights"] == str(tmp_path / "moved.safetensors")
    # Without the weights, and by the next stage's own memory of where the data lie.
    (tmp_path / "moved.safetensors").unlink()
    for stage in ("4-finetune", "6-bench"):
        (trained / stage / "stage.json").unlink()
    assert main(["compress", "--resume", str(trained)]) == 0
    assert "changed" not in capsys.readouterr().err
    # Runs of 0.1 kept paths as they were typed, and digests that depend on where the data lie.
    start = json.loads((trained / "start.json").read_text())
    parts = open_dataset("moved", "train"), open_dataset("moved", "val")
    start["sha256"]["data"] = digest_with_places(*parts)
    (trained / "start.json").write_text(json.dumps(start))
    config.write_text(yaml.safe_dump({**stored, "data": "moved", "project": "."} | {"command": "compress"}))
    (trained / "6-bench" / "stage.json").unlink()
    (tmp_path / "moved").rename(tmp_path / "again")
    assert main(["compress", "--resume", str(trained), "--data", "again"]) == 0
    (tmp_path / "again" / "labels" / "train" / "001.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (trained / "6-bench" / "stage.json").unlink()
    assert main(["compress", "--resume", str(trained), "--data", "again"]) == 2
    assert "(data) has changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_is_copied(shapes: Path, weights: Path, tmp_path: Path) -> None:
    """Every training of a run has the numbers that it began with, whatever becomes of the file."""
    hyper = tmp_path / "mine.yaml"
    hyper.write_text("lr0: 0.02\n")
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--distill", "none", "--sparsify-epochs", "0", "--hyp", str(hyper), "--box-weight", "2")
    assert main(arguments(shapes, weights, tmp_path, *more)) == 0
    hyper.unlink()
    for stage in ("4-finetune", "6-bench"):
        (tmp_path / "run" / stage / "stage.json").unlink()
    (tmp_path / "run" / "4-finetune" / "checkpoint" / "state.safetensors").unlink()
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 0
    options = yaml.safe_load((tmp_path / "run" / "4-finetune" / "config.yaml").read_text())
    assert options["box_weight"] == 2
    assert options["hyp"] == str(tmp_path / "run" / "hyp.yaml") and (tmp_path / "run" / "hyp.yaml").read_text() == "lr0: 0.02\n"


@pytest.mark.slow
def test_exist_ok_begins_anew(trained: Path, shapes: Path, weights: Path, tmp_path: Path) -> None:
    (trained / "mine.txt").write_text("kept")
    (trained / "3-prune" / "cut7").mkdir()
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--distill", "none", "--criterion", "bn", "--exist-ok")
    assert main(arguments(shapes, weights, tmp_path, *more, "--sparsify-epochs", "0")) == 0
    assert json.loads((trained / "3-prune" / "plan.json").read_text())["settings"]["criterion"] == "bn"
    assert not (trained / "3-prune" / "cut7").exists() and (trained / "mine.txt").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of file size are posix")
def test_a_disk_that_fills_is_told_in_a_line_and_the_run_goes_on_later(shapes: Path, tmp_path: Path) -> None:
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--distill", "none", "--sparsify-epochs", "0")
    tiny_model(4.0).save(tmp_path / "wide.safetensors")  # larger than pictures are
    command = arguments(shapes, tmp_path / "wide.safetensors", tmp_path, *more)
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)"
    code = f"import resource, signal, sys; {limit}; from octrim.cli import main; sys.exit(main({command!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "last.safetensors" in done.stderr.splitlines()[-1]
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 0
