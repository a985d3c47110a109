"""`octrim prune` as users type it: what it leaves, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import yaml

from octrim.cli import main
from octrim.network.loading import load
from tests.commands.running import failed


@pytest.mark.slow
def test_prune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "map.json").write_text('{"model.0": 1}')
    assert main(["prune", "--weights", "small.safetensors", "--keep", "1/2", "--align", "8", "--keep-map", "map.json", "--exclude", "model.1"]) == 0
    run = folder / "runs/prune/exp"
    assert {path.name for path in run.iterdir()} == {"model.safetensors", "plan.json", "plan.txt", "channels.png", "config.yaml", "log.txt"}
    convs = {row.name: row.channels for row in load(run / "model.safetensors").network.convs}
    assert (convs["model.0"], convs["model.1"], convs["model.3"]) == (16, 32, 32)
    assert json.loads((run / "plan.json").read_text())["convs"]["model.3"]["after"] == 32
    assert cv2.imread(str(run / "channels.png")).shape[1] > 800
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["keep"], config["align"], config["exclude"]) == ("1/2", 8, ["model.1"])
    assert "model.safetensors" in capsys.readouterr().out
    assert "model.safetensors" in (run / "log.txt").read_text()
    # names are numbered; a dry run leaves the plan only
    assert main(["prune", "--weights", "small.safetensors", "--dry-run"]) == 0
    assert {path.name for path in (folder / "runs/prune/exp2").iterdir()} == {"plan.json", "plan.txt", "channels.png", "config.yaml", "log.txt"}
    assert main(["prune", "--cfg", "yolov5n", "--project", "here", "--name", "there"]) == 0
    assert (folder / "here/there/model.safetensors").is_file()


@pytest.mark.slow
def test_results_do_not_depend_on_the_run(folder: Path) -> None:
    for _ in range(2):
        assert main(["prune", "--weights", "small.safetensors", "--criterion", "random", "--seed", "3"]) == 0
    for name in ("model.safetensors", "plan.json", "plan.txt", "channels.png"):
        assert (folder / "runs/prune/exp" / name).read_bytes() == (folder / "runs/prune/exp2" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--keep", "0"], "keep is 0, expected more than 0 and at most 1"),
        (["--keep", "2"], "keep is 2"),
        (["--align", "0"], "align is 0"),
        (["--exclude", "nothing"], "'nothing' matches no convolution"),
        (["--keep-map", "none.json"], "none.json: no such file"),
        (["--keep-map", "pictures/0.png"], "pictures/0.png: not a UTF-8 text file"),
        (["--keep-map", "odd.yaml"], "odd.yaml: expected patterns and fractions"),
        (["--imgsz", "0"], "imgsz is 0"),
        (["--imgsz", "1", "2", "3"], "imgsz is 1 2 3"),
        (["--weights", "none.pt"], "none.pt: no such file"),
        (["--weights", "pictures"], "pictures: is a folder"),
        (["--project", "small.safetensors"], "cannot make the run folder"),
        (["--name", ""], "name is ''"),
        (["--seed", "-1"], "seed is -1"),
        (["--budget", "macs=0.001"], "budget macs=0.001 cannot be met: the least possible is macs=0."),
        (["--reconstruct", "nowhere"], "nowhere"),
    ],
)
def test_prune_refuses(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    (folder / "odd.yaml").write_text('"model.0\\n": 1', "utf-8")
    weights = [] if "--weights" in arguments else ["--weights", "small.safetensors"]
    assert told in failed(capsys, "prune", *weights, *arguments)
    assert not (folder / "runs").exists()
