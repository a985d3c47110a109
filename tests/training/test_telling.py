"""What a training shows while it runs: the time that is left, and what the network finds so far."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from octrim.cli import main
from octrim.compression import pipeline
from octrim.compression.presets import PRESETS
from octrim.network.adapt import with_activation
from octrim.network.loading import load
from octrim.progress import remaining, work_ahead
from octrim.stages import BENCH, CONTROL, EXPORT, FINETUNE, MATCH, PRUNE, TRAIN
from octrim.training import record
from octrim.training.options import Training
from octrim.training.record import Record


def test_remaining_time_in_words() -> None:
    assert [remaining(seconds) for seconds in (64.0, 66.0, 595.0, 630.0, 3575.0)] == ["0:01:00", "0:01:10", "0:10:00", "0:10:00", "1:00:00"]


def told(paces: list[float], done: int) -> str:
    one = Record(None, Training(epochs=10), None)
    one._paces = paces
    return one._remaining(done)


def test_the_time_that_is_left() -> None:
    """By hand: 6 epochs of 20 s are left, the slow first one does not count; in a longer job three more epochs' worth follows."""
    paces = [60.0, 20.0, 19.0, 20.0, 21.0, 20.0]
    assert told(paces, 4) == "   about 0:02:00 to go"
    with work_ahead(lambda pace: 3 * pace):
        assert told(paces, 4) == "   about 0:03:00 to go"
        with work_ahead(lambda pace: 0.0):
            assert told(paces, 4) == "   about 0:02:00 to go"
    assert told(paces, 8) == ""  # less than a minute is not worth a word
    assert told([30.0], 1) == "   about 0:04:30 to go"


class _Job:
    """Four stages, of which the first is done, or none."""

    def __init__(self, folder: Path, done: bool) -> None:
        self.stages = [TRAIN, PRUNE, FINETUNE, EXPORT, BENCH]
        self.start = type("Start", (), {"preset": PRESETS["fast"]})()
        self.run = type("Run", (), {"path": folder})()
        if done:
            (folder / TRAIN.folder).mkdir()
            counts = dict.fromkeys(("parameters", "macs", "channels", "file_bytes"), 1)
            row = {"epochs": 20, **counts, "mAP50": 0.5, "mAP50-95": 0.4, "interval": [0.3, 0.5]}
            (folder / TRAIN.folder / "stage.json").write_text(json.dumps({"seconds": 200, "row": row}))

    def folder(self, stage: object) -> Path:
        return self.run.path / stage.folder  # type: ignore[attr-defined]


def test_the_time_of_the_other_stages(tmp_path: Path) -> None:
    """By hand, preset fast, 20 and 30 epochs: fine-tuning 30 x .5 + .5, training 20 + .5, and .5 for each other stage."""
    assert (PRESETS["fast"].train_epochs, PRESETS["fast"].finetune_epochs, PRESETS["fast"].epochs_of(PRUNE)) == (20, 30, 0)
    effort = 0.5 + 15.5 + 0.5 + 0.5
    job = _Job(tmp_path, done=False)
    assert pipeline._effort(job, TRAIN) == pytest.approx(effort)  # type: ignore[arg-type]
    assert pipeline._effort(job) == pytest.approx(effort + 20.5)  # type: ignore[arg-type]
    assert pipeline._left(job) is None  # type: ignore[arg-type]
    assert pipeline._left(_Job(tmp_path, done=True)) == pytest.approx(effort * 10)  # type: ignore[arg-type]
    assert CONTROL not in job.stages


def test_epochs_in_which_channels_go_are_as_long_as_those_of_the_whole_network() -> None:
    """By hand, 24 epochs with half the effort, of which 8 have all of it; two games of 1.2."""
    preset = replace(PRESETS["demo"], train_epochs=26, finetune_epochs=24, cut_epochs=8, match_games=2)
    assert [preset.effort_of(stage) for stage in (TRAIN, FINETUNE, MATCH, EXPORT)] == [26, 16, 2.4, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_something_to_look_at_before_the_end(shapes: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first epoch, with no minute to wait: the line is printed once, the picture is there, and every epoch tells the time that is left."""
    monkeypatch.setattr(record, "_LOOKED_AFTER", 0.0)
    monkeypatch.setattr(record, "_TOLD_FROM", 0.0)
    seen: list[tuple[int, int]] = []
    drawn = Record.show_predictions

    def watched(self: Record, evaluation: object) -> None:
        drawn(self, evaluation)  # type: ignore[arg-type]
        assert self.run is not None
        image = cv2.imread(str(self.run.path / record.PREDICTIONS))
        assert image is not None
        seen.append((image.shape[0], image.shape[1]))

    monkeypatch.setattr(Record, "show_predictions", watched)
    common = "--imgsz 64 --batch 11 --nominal-batch 11 --workers 0 --epochs 2 --name run"
    assert main(["train", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path), *common.split()]) == 0
    log = (tmp_path / "run/log.txt").read_text()
    assert len(seen) == 3 and min(seen[0]) >= 64  # two epochs, and the result
    assert log.count("what it finds so far") == 1 and log.index("what it finds so far") < log.index("   2/2")
    assert len(re.findall(r"about 0:00:\d0 to go", log)) == 2


@pytest.mark.parametrize(("before", "told_of"), [("silu", "relu, in place of silu"), ("relu", "relu, which the network has already")])
def test_what_an_activation_takes_the_place_of(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], before: str, told_of: str
) -> None:
    with_activation(load(tiny_weights), before).save(tmp_path / "before.safetensors")
    options = ["--imgsz", "64", "--epochs", "1", "--workers", "0", "--noval", "--project", str(tmp_path), "--activation", "relu"]
    assert main(["finetune", "--weights", str(tmp_path / "before.safetensors"), "--data", str(shapes), *options]) == 0
    assert f"activation: {told_of}\n" in capsys.readouterr().out
