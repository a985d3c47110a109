"""Runs that go on elsewhere: from another folder, with data, weights and teacher that have been moved; and runs of OcTrim 0.1."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file

from octrim.cli import main
from octrim.commands import Finetune, Train
from octrim.data.digests import digest_with_places
from octrim.data.open import open_dataset
from octrim.resuming import absolute
from octrim.training.checkpoint import CHECKPOINT, load_state, stored_averaging
from octrim.training.optimizer import MovingAverage
from octrim.training.schedule import PUBLISHED, averaging
from tests.training.conftest import draw_shapes

COMMON = ["--imgsz", "64", "--batch", "8", "--nominal-batch", "64", "--workers", "0", "--noval"]


def as_0_1(run: Path, dataset: Path, **typed: str) -> None:
    """Make a run's folder what OcTrim 0.1 would have left: no command in config.yaml, paths as typed, another digest, no count of pictures."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["command"], config["ema"]
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **typed}, sort_keys=False))
    path = run / CHECKPOINT
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = json.loads(file.metadata()["octrim-training"])
    del header["waiting_pictures"], header["extra"]["weights"], header["extra"]["average"]
    header["data"] = digest_with_places(open_dataset(dataset, "train"), open_dataset(dataset, "val"))
    save_file(arrays, path, {"octrim-training": json.dumps(header)})


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """A folder in which a fine-tuning of one epoch of two was done, with paths as they are typed there; not to be changed."""
    home = tmp_path_factory.mktemp("home")
    draw_shapes(home / "ds", {"train": 22, "val": 6})
    shutil.copy(tiny_weights, home / "w.safetensors")
    shutil.copy(tiny_weights, home / "t.safetensors")
    (home / "my.yaml").write_text("lr0: 0.02\n")
    command = ["finetune", "--weights", "w.safetensors", "--teacher", "t.safetensors", "--data", "ds/data.yaml", "--hyp", "my.yaml", *COMMON]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("octrim.training.record.save_curves", lambda *_: None)
        assert main([*command, "--epochs", "1", "--name", "run"]) == 0
    config = home / "runs" / "finetune" / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    return home


@pytest.fixture
def home(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, into which the run's paths point."""
    monkeypatch.setattr("octrim.training.record.save_curves", lambda *_: None)
    copy = tmp_path / "home"
    shutil.copytree(begun, copy)
    config = copy / "runs" / "finetune" / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(begun), str(copy)))
    return copy


@pytest.mark.slow
def test_paths_are_kept_absolute(begun: Path) -> None:
    config = yaml.safe_load((begun / "runs" / "finetune" / "run" / "config.yaml").read_text())
    expected = {"weights": "w.safetensors", "teacher": "t.safetensors", "data": "ds/data.yaml", "hyp": "my.yaml"}
    assert {name: config[name] for name in expected} == {name: str(begun / value) for name, value in expected.items()}


def test_what_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("low", "yolov5n", "w.pt", "l.yaml", "h.yaml"):
        (tmp_path / name).write_text("")
    here = str(tmp_path)
    assert absolute(Train(weights="w.pt", hyp="h.yaml", cfg="l.yaml", project="new")) == Train(
        weights=f"{here}/w.pt", hyp=f"{here}/h.yaml", cfg=f"{here}/l.yaml", project=f"{here}/new"
    )
    # Names, and what does not exist, whose reader says so in the words of the user.
    for config in (Train(hyp="low", cfg="yolov5s"), Train(weights="none.pt", data="nowhere"), Finetune(teacher="none.pt")):
        assert absolute(config) == config


@pytest.mark.slow
def test_a_run_goes_on_from_any_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (home / "my.yaml").unlink()  # the run has its numbers
    (home / "w.safetensors").unlink()
    run = home / "runs" / "finetune" / "run"
    assert main(["finetune", "--resume", str(run)]) == 0
    assert len(load_state(run / CHECKPOINT).rows) == 2
    assert "not what it was" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_killed_at_once_is_not_taken_for_the_one_before(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between config.yaml and its first checkpoint, in the folder of another training, whose network must not go on under the new options."""
    monkeypatch.chdir(home)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("octrim.training.setup.save_labels", killed)
        command = ["finetune", "--cfg", "yolov5n", "--data", "ds/data.yaml", *COMMON, "--epochs", "3", "--seed", "7", "--name", "run", "--exist-ok"]
        assert main(command) == 130
    run = home / "runs" / "finetune" / "run"
    assert "cfg: yolov5n" in (run / "config.yaml").read_text()
    capsys.readouterr()
    assert main(["finetune", "--resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert "state.safetensors: no such" in error and error.count("\n") == 1


@pytest.mark.slow
def test_moved_data_and_teacher_are_named_anew(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = home / "runs" / "finetune" / "run"
    (home / "ds").rename(tmp_path / "moved")
    (home / "t.safetensors").rename(tmp_path / "teacher.safetensors")
    assert main(["finetune", "--resume", str(run)]) == 2
    error = capfd.readouterr().err
    assert f"{home}/ds/data.yaml: no such file" in error and "give --data" in error and error.count("\n") == 1
    data = ["--data", str(tmp_path / "moved" / "data.yaml")]
    assert main(["finetune", "--resume", str(run), *data]) == 2
    assert "give --teacher" in capfd.readouterr().err
    other = tmp_path / "other.safetensors"
    _changed(home / "w.safetensors").save(other)
    assert main(["finetune", "--resume", str(run), *data, "--teacher", str(other)]) == 2
    assert "not the teacher that this run began with" in capfd.readouterr().err
    teacher = ["--teacher", str(tmp_path / "teacher.safetensors")]
    assert main(["finetune", "--resume", str(run), *data, *teacher, "--weights", str(other)]) == 2
    assert "not the weights that this run began with" in capfd.readouterr().err
    assert main(["finetune", "--resume", str(run), *data, *teacher, "--weights", str(home / "w.safetensors")]) == 0
    assert "not what it was" not in capfd.readouterr().out
    assert main(["finetune", "--resume", str(run)]) == 0  # they need not be named again
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"] == data[1] and config["teacher"] == teacher[1] and config["epochs"] == 2


@pytest.mark.slow
def test_a_run_keeps_the_average_that_it_began_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rule or the options say by then; the updates it was chosen for are those of one epoch of three batches of 8 pictures."""
    run = home / "runs" / "finetune" / "run"
    began = stored_averaging(load_state(run / CHECKPOINT))
    assert began == averaging(round(3 / 8) or 1)
    seen = []
    keep = MovingAverage.update

    def noting(self: MovingAverage, values: Any) -> None:
        seen.append(self.averaging)
        keep(self, values)

    monkeypatch.setattr(MovingAverage, "update", noting)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("ema: auto", "ema: published"))
    assert main(["finetune", "--resume", str(run)]) == 0
    assert set(seen) == {began} and stored_averaging(load_state(run / CHECKPOINT)) == began


def _changed(path: Path) -> Any:
    from octrim.network.loading import load

    model = load(path)
    return replace(model, tensors={name: tensor + 1 for name, tensor in model.tensors.items()})


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, True])
def test_runs_of_0_1_go_on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], moved: bool) -> None:
    """From another folder than the one that their relative paths start from."""
    run = home / "runs" / "finetune" / "run"
    as_0_1(run, home / "ds" / "data.yaml", weights="w.safetensors", teacher="t.safetensors", data="ds/data.yaml", hyp="my.yaml")
    monkeypatch.chdir(tmp_path)
    more: list[str] = []
    if moved:
        (home / "ds").rename(tmp_path / "moved")
        more = ["--data", "moved/data.yaml"]
        assert main(["finetune", "--resume", str(run)]) == 2
        assert "give --data" in capfd.readouterr().err
    assert main(["finetune", "--resume", str(run), *more]) == 0
    told = capfd.readouterr().out
    assert "not what it was" not in told and "best epoch, 2 of 2" in told  # its result is the best epoch, as it was then
    assert json.loads((run / "metrics.json").read_text())["weights"] == "best.safetensors"
    state = load_state(run / CHECKPOINT)
    assert len(state.rows) == 2 and stored_averaging(state) == PUBLISHED
