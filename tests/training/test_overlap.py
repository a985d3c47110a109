"""Trainings and compressions on pictures that are also validated on: told in one line, and not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.cli import main
from tests.compression.running import arguments as compression
from tests.training.running import arguments

pytestmark = pytest.mark.usefixtures("unrendered")
LINE = "6 of 6 validation pictures are also trained on (first: {}): accuracy flatters"


def both(shapes: Path) -> str:
    """The data set with its validation pictures among those to train on; returns the line that tells of them."""
    shapes.write_text("train: [images/train, images/val]\nval: images/val\nnames: [square, disc]\n")
    return LINE.format(shapes.parent / "images/val/000.png")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "finetune", "sparsify"])
def test_a_training_tells_once(shapes: Path, tiny_weights: Path, tmp_path: Path, command: str) -> None:
    line = both(shapes)
    options = arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", "run")[1:]
    assert main([command, *options, *(("--strength", "0.001") if command == "sparsify" else ())]) == 0
    assert (tmp_path / "run/log.txt").read_text().count(line) == 1


@pytest.mark.slow
def test_a_training_on_other_pictures_says_nothing(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", "run")) == 0
    assert "trained on" not in (tmp_path / "run/log.txt").read_text()


@pytest.mark.slow
def test_a_compression_tells_once_for_all_its_trainings(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    line = both(shapes)
    command = [*compression(shapes, tiny_weights, tmp_path), "--cut-epochs", "1", "--train-epochs", "1", "--finetune-epochs", "2"]
    assert main(command) == 0
    assert capsys.readouterr().out.count("also trained on") == 1
    assert (tmp_path / "run/log.txt").read_text().count(line) == 1
