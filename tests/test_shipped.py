"""The network that comes with OcTrim: it is found by its name, sees what it was trained to see, and plays."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import octrim
from octrim.cli import main
from octrim.data.open import open_labelled
from octrim.errors import InputError
from octrim.evaluate.val import evaluate
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.pong.dataset import make_dataset
from octrim.pong.renderer import CLASSES
from octrim.resuming import absolute
from octrim.shipped import film_of, is_shipped, network_file
from octrim.targets.opening import open_session
from octrim.training.options import Finetuning

MAP50, MAP = 0.9, 0.6
"""Least accuracy on pictures of a seed that it was not trained on."""


def test_it_is_small_and_says_where_it_comes_from() -> None:
    model = load("pong")
    assert (model.names, model.image_size) == (CLASSES, 256)
    cost = network_cost(model.network, 256, 256)
    assert cost.parameters < 50_000 and network_file("pong").stat().st_size < 250_000
    told = json.dumps(model.lineage)
    assert "prune" in told or "cut" in told
    assert not any(place in told for place in ("/work", "/tmp", "/home", "/root")), "a path of the machine that trained it"
    assert not any("weights" in str(step) and "yolov5" in str(step.get("weights", "")) for step in model.lineage), "trained from random weights"


@pytest.mark.slow
def test_its_accuracy(tmp_path: Path) -> None:
    """On 40 pictures that nobody trained on: seed 1000."""
    make_dataset(tmp_path / "data", 400, 256, 1000, 2)
    found = evaluate(open_session("pong"), open_labelled(str(tmp_path / "data/data.yaml"), "val", CLASSES), 256, 16, bootstrap=0)
    assert found.map50 > MAP50 and found.map > MAP


@pytest.mark.slow
def test_it_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against computer:easy, with a delay that repeats to the last bit."""
    monkeypatch.chdir(tmp_path)
    options = "--left vision --right computer:easy --games 1 --points 3 --latency-ms 5 --workers 1"
    assert main(["pong", "match", *options.split()]) == 0
    (path,) = tmp_path.rglob("match.json")
    report = json.loads(path.read_text())
    assert report["wins"]["left"] == 1
    assert report["vision"]["left"]["ball_recall"] > 0.8


@pytest.mark.slow
def test_predict_works_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source it looks at the game that comes with it; it finds the ball in nearly every frame."""
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--weights", "pong", "--vid-stride", "10", "--save-json", "--nosave"]) == 0
    (path,) = tmp_path.rglob("predictions.json")
    balls = {one["frame"] for one in json.loads(path.read_text()) if one["name"] == "ball"}
    assert len(balls) >= 25  # of 30


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pong").mkdir()
    assert is_shipped("pong") and len(octrim.load("pong").names) == 2
    assert absolute(Finetuning(weights="pong", teacher="pong")).weights == "pong"
    (tmp_path / "pong").rmdir()
    (tmp_path / "pong").write_bytes(b"another")
    assert not is_shipped("pong") and film_of("pong") is None
    with pytest.raises(InputError, match="pong: expected a model file"):
        octrim.load("pong")
    for name in ("Pong", "./pong", "ping"):
        assert not is_shipped(name)


def test_the_film() -> None:
    """Three hundred frames of 320 x 240, which the network has never seen."""
    path = film_of("pong")
    assert path is not None
    assert path.stat().st_size < 200_000
    video = cv2.VideoCapture(str(path))
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT), video.get(cv2.CAP_PROP_FPS)) == (320, 240, 30)
    frames = [video.read()[1] for _ in range(300)]
    assert all(np.abs(a.astype(int) - b).max() > 50 for a, b in zip(frames[::60], frames[30::60], strict=True))


def test_bench_and_detector_take_it() -> None:
    detector = octrim.Detector("pong", runtime="numpy")
    assert detector.info.names == CLASSES and (detector.height, detector.width) == (256, 256)
