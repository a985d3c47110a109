"""`octrim compress` without data: the pictures are Pong's, and both networks play it in the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.commands import Compress
from octrim.compression import builtin
from octrim.compression.builtin import make_pictures, with_data
from octrim.compression.pipeline import compress
from octrim.compression.presets import PRESETS, resolved
from octrim.errors import InputError
from octrim.network.initialize import fresh_tensors
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.plain_yaml import parse
from octrim.pong.match import wilson
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from tests.networks import variant


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A narrow network for the classes of something else."""
    whole = variant("yolov5n")
    network = prune(whole, plan(whole, "1/4", align=8, criterion="random")).network
    path = tmp_path / "narrow.safetensors"
    Model(network, fresh_tensors(network), tuple(f"thing{number}" for number in range(network.classes)), 64).save(path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_both_networks_play(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(builtin, "PICTURES", 20)
    few = ["--train-epochs", "1", "--sparsify-epochs", "0", "--finetune-epochs", "1", "--iterations-bench", "3", "--match-games", "2"]
    place = ["--project", str(tmp_path / "runs"), "--name", "pong"]
    assert main(["compress", "--weights", str(weights), "--imgsz", "64", "--workers", "0", *few, *place]) == 0
    folder = tmp_path / "runs" / "pong"
    told = capsys.readouterr().out
    assert f"play against it: octrim pong play --right vision:{folder}/4-finetune/last.safetensors" in told
    assert "report: " in told and (folder / "report.html").is_file()
    assert load(folder / "4-finetune" / "last.safetensors").names == ("ball", "paddle")

    rates = [parse((folder / stage / "config.yaml").read_text("utf-8"), "config.yaml")[0]["lr0"] for stage in ("1-train", "4-finetune")]
    assert rates == [PRESETS["demo"].train_lr0, PRESETS["demo"].finetune_lr0] and rates[0] != 0.01  # the preset's, and not the recipe's

    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    games = summary["times"]["match"]
    bench = json.loads((folder / "6-bench" / "stage.json").read_text("utf-8"))["bench"]
    for label in ("original", "finetuned"):
        played = json.loads((folder / "7-match" / label / "match.json").read_text("utf-8"))
        assert games[label]["latency_ms"] == played["config"]["latency_ms"] == bench[label]["total_p50_ms"]
        assert games[label]["games"] == 2 and games[label]["wins"] == played["wins"]["left"]
        assert np.allclose(games[label]["interval"], wilson(games[label]["wins"], 2))
        weights = folder / ("1-train" if label == "original" else "4-finetune") / "last.safetensors"
        assert played["players"] == {"left": f"vision:{weights}", "right": "computer:medium"}
    assert "games won" in (folder / "summary.txt").read_text("utf-8")


def test_pictures_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "PICTURES", 10)
    first = with_data(Compress(project=str(tmp_path), imgsz=(64,)))
    make_pictures(first)
    assert first.cfg == "yolov5n" and resolved(first) == replace(PRESETS["demo"], cut_epochs=8)
    path = tmp_path / "pong-10-64-0" / "data.yaml"
    assert first.data == str(path)
    made = path.stat().st_mtime_ns
    again = with_data(Compress(project=str(tmp_path), imgsz=(64,), preset="fast"))
    make_pictures(again)
    assert path.stat().st_mtime_ns == made
    assert again.data == first.data and resolved(again) == replace(PRESETS["fast"], cut_epochs=12)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"keep": "2"}, {"weights": "none.pt"}, {"imgsz": (64, 96)}, {"preset": "best", "finetune_epochs": 0}, {"train_epochs": 0}),
        *({"exclude": ("nothing*",)}, {"align": 0}, {"budget": "nonsense"}, {"budget": "params=9"}, {"keep_map": "none.yaml"}),
    ],
)
def test_nothing_is_made_for_options_that_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        compress(project=str(tmp_path), **wrong)
    assert not list(tmp_path.iterdir())
