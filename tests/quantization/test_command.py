"""`octrim quantize` as users type it: what it leaves, and what it says of bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from octrim.cli import main
from octrim.data.scenes import drawn_scene
from octrim.network.loading import load
from tests.networks import tiny_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small model, a data set of three pictures, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    replace(tiny_model(2.0, names=("a", "b")), image_size=64).save("small.safetensors")
    for part in ("images", "labels"):
        (tmp_path / "set" / part / "train").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(f"set/images/train/{index}.png", drawn_scene(index, 60, 90))
        Path(f"set/labels/train/{index}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    Path("data.yaml").write_text("path: set\ntrain: images/train\nval: images/train\nnames: [a, b]\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command leaves on standard error."""
    assert main(["quantize", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


@pytest.mark.slow
def test_files_of_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--weights", "small.safetensors", "--data", "data.yaml", "--pictures", "2", "--skip", "model.0", "model.2.*", "--sensitivity"]
    assert main(["quantize", *arguments]) == 0
    run = folder / "runs" / "quantize" / "exp"
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.yaml", "log.txt", "model.safetensors", "quantize.json", "scales.png", "sensitivity.json")
    ]
    printed = capsys.readouterr().out
    assert "next: octrim export --weights runs/quantize/exp/model.safetensors --precision int8 --format openvino" in printed
    assert "calibrated on 2 pictures of 64x64" in printed
    model = load(run / "model.safetensors")
    step = {"imgsz": [64, 64], "skip": ["model.0", "model.2.*"]}
    assert model.lineage[-1] == {**step, "action": "quantize", "method": "percentile", "percentile": 99.999, "pictures": 2}
    content = json.loads((run / "quantize.json").read_text())
    assert {f"{group}.scale" for group in content["maps"]} == {name for name in model.scales if not name.endswith("weight_scale")}
    for group, entry in content["maps"].items():
        assert entry["scale"] == model.scales[f"{group}.scale"][0]
        assert 0 <= entry["clipped"] < 0.05 and 0 < entry["clip"] <= entry["largest"]
    assert "model.0" in content["float"] and "model.2.cv1" in content["float"] and "model.8.m.0" in content["float"]
    assert content["logits"]["pictures"] == 2 and content["logits"]["sqnr"] > 10
    layers = json.loads((run / "sensitivity.json").read_text())["layers"]
    assert {layer["row"] for layer in layers} == set(content["quantized"])
    assert cv2.imread(str(run / "scales.png")) is not None
    assert yaml.safe_load((run / "config.yaml").read_text())["skip"] == ["model.0", "model.2.*"]


@pytest.mark.slow
def test_again_on_its_own_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scales are replaced, and it says so; the same command gives the same file."""
    arguments = ["quantize", "--weights", "small.safetensors", "--source", "set/images/train", "--method", "max"]
    assert main(arguments) == 0 and main(arguments) == 0
    first, second = (folder / "runs" / "quantize" / name / "model.safetensors" for name in ("exp", "exp2"))
    assert first.read_bytes() == second.read_bytes()
    assert "has scales already" not in capsys.readouterr().out
    assert main(["quantize", "--weights", str(first), "--source", "set/images/train", "--method", "percentile", "--percentile", "99"]) == 0
    assert f"{first}: has scales already; they are replaced" in capsys.readouterr().out
    third = load(folder / "runs" / "quantize" / "exp3" / "model.safetensors")
    assert third.lineage[-1]["percentile"] == 99 and third.scales["images.scale"][0] <= load(first).scales["images.scale"][0]


@pytest.mark.slow
def test_pictures_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mixed").mkdir()
    (folder / "mixed" / "a.jpg").write_bytes(b"no picture")
    arguments = ["--weights", "small.safetensors", "--source", "mixed"]
    assert "none of the 1 pictures can be read" in failed(capsys, *arguments)
    assert not (folder / "runs").exists()
    cv2.imwrite("mixed/b.png", np.full((20, 30, 3), 90, np.uint8))
    assert main(["quantize", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "left out: mixed/a.jpg" in printed and "calibrated on 1 pictures" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give either --data"),
        (["--data", "data.yaml", "--source", "set"], "give either --data"),
        (["--source", "empty"], "no"),
        (["--data", "empty"], "empty"),
        (["--source", "nowhere"], "nowhere: no such file or folder"),
        (["--data", "data.yaml", "--skip", "model.77"], "'model.77' matches no convolution and no addition"),
        (["--data", "data.yaml", "--skip", "*"], "leaves no convolution"),
        (["--data", "data.yaml", "--method", "entropy"], "entropy"),
        (["--data", "data.yaml", "--method", "percentile", "--percentile", "0"], "expected 50 to 100"),
        (["--data", "data.yaml", "--pictures", "0"], "pictures is 0"),
        (["--data", "data.yaml", "--seed", "-1"], "seed is -1"),
        (["--data", "data.yaml", "--imgsz", "0"], "imgsz is 0"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert told in failed(capsys, "--weights", "small.safetensors", *arguments)
    assert not (folder / "runs").exists()


def test_weights_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.safetensors: no such file" in failed(capsys, "--weights", "gone.safetensors", "--data", "data.yaml")
