"""What options do to a whole training, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from octrim.cli import main, parse
from octrim.network.loading import load
from octrim.options import arguments_of
from octrim.training.checkpoint import CHECKPOINT, load_state
from tests.training.running import COMMON, arguments, results

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.mark.slow
def test_single_class_and_other_options(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    more = [
        "--epochs",
        "2",
        "--name",
        "run",
        "--single-cls",
        "--multi-scale",
        "--cos-lr",
        "--optimizer",
        "AdamW",
        "--freeze",
        "3",
        "--close-mosaic",
        "1",
    ]
    assert main(arguments(shapes, tiny_weights, tmp_path, *more, "--noval", "--hyp", "med")) == 0
    model, before = load(tmp_path / "run" / "best.safetensors"), load(tiny_weights)
    assert model.lineage[-1]["epoch"] == 2  # without evaluation in between the last epoch is the best
    assert model.names == ("object",) and model.network.classes == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert " s best" not in log and ", 1 class\n" in log and "of them known to the network" in log
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open()))
    assert [float(row["train/cls_loss"]) for row in rows] == [0, 0]
    assert rows[0]["metrics/mAP_0.5"] == "" and rows[1]["metrics/mAP_0.5"] != ""
    for name, tensor in before.tensors.items():
        if "running" not in name and name.split(".")[1] in ("0", "1", "2"):
            np.testing.assert_array_equal(model.tensors[name], tensor, err_msg=name)
        elif name == "model.3.conv.weight":
            assert (model.tensors[name] != tensor).any()


@pytest.mark.slow
def test_multi_scale_sizes_vary(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    seen = []
    for seed in ("0", "1"):
        assert (
            main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", f"run{seed}", "--multi-scale", "--seed", seed, "--batch", "11"))
            == 0
        )
        seen.append(results(tmp_path / f"run{seed}"))
    assert seen[0] != seen[1]


@pytest.mark.slow
def test_patience_stops(shapes: Path, small_weights: Path, tmp_path: Path) -> None:
    assert main(arguments(shapes, small_weights, tmp_path, "--epochs", "12", "--name", "run", "--patience", "1")) == 0
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert len(state.rows) == min(state.best[1] + 1 + 1, 12) < 12
    # Patience lets the validation part choose, so the result is the best epoch.
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["weights"] == "best.safetensors"
    assert f"best epoch, {state.best[1] + 1} of {len(state.rows)}" in (tmp_path / "run" / "log.txt").read_text()
    before = results(tmp_path / "run"), (tmp_path / "run" / "last.safetensors").read_bytes()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0  # stops again at once
    assert before == (results(tmp_path / "run"), (tmp_path / "run" / "last.safetensors").read_bytes())


@pytest.mark.slow
def test_a_validation_part_without_objects(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (shapes.parent / "labels" / "val").iterdir():
        path.write_text("")
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1")) == 2
    assert "6 pictures in val and no labelled objects" in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()


@pytest.mark.slow
def test_from_python(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    import octrim

    options = {"weights": str(tiny_weights), "data": str(shapes), "imgsz": 64, "batch": 4, "workers": 0, "project": str(tmp_path)}
    done = octrim.train(**options, epochs=1)
    assert done.folder == tmp_path / "exp" and done.evaluation is not None and done.evaluation.images == 6
    assert done.model.lineage[-1]["action"] == "train"
    with pytest.raises(octrim.InputError, match="devices"):
        octrim.train(**options, devices=2)
    with pytest.raises(TypeError, match="epoch_s"):
        octrim.train(**options, epoch_s=3)


def test_a_configuration_as_a_command_line() -> None:
    command = ["train", "--data", "my data", "--imgsz", "64", "96", "--freeze", "3", "model.1*", "--single-cls", "--workers", "0", "--devices", "2"]
    config = parse(command)
    assert parse(arguments_of(config)) == config and config.freeze == ("3", "model.1*")
    assert arguments_of(parse(["train"])) == ["train"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "epochs is 0, expected 1"),
        (["--batch", "0"], "batch is 0, expected 1"),
        (["--hyp", "none"], "hyp is 'none', expected low, med, high"),
        (["--imgsz", "64", "96"], "training pictures are square"),
        (["--freeze", "model.77"], "freeze: 'model.77' fits no layer"),
        (["--freeze", "99"], "leaves nothing to train"),
        (["--devices", "3"], "batch is 4, expected a multiple of the 3 devices"),
        (["--device", "gpu"], "device is gpu; this Paddle has none"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_what_is_refused(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main([*arguments(shapes, tiny_weights, tmp_path, "--epochs", "1"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


LEVELS = """\
nc: 2
anchors: {anchors}
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
{convs}
head:
  - [-1, 1, C3, [8, False]]
  - [{levels}, 1, Detect, [nc, anchors]]
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5])
def test_anchors_given_as_a_number_are_fitted(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int) -> None:
    """Two and five levels of strides 4 and up, two anchors each."""
    layout = tmp_path / "levels.yaml"
    convs = "\n".join(["  - [-1, 1, Conv, [8, 3, 2]]"] * count)
    layout.write_text(LEVELS.format(anchors=2, convs=convs, levels=[*range(1, count), count + 1]))
    options = ["train", "--cfg", str(layout), "--data", str(shapes), "--project", str(tmp_path), "--epochs", "1", *COMMON]
    assert main([*options, "--name", "run"]) == 0
    said = capsys.readouterr().out
    assert "known to the network" not in said and " s best" in said
    model = load(tmp_path / "run/best.safetensors")
    assert model.network.strides == (4, 8, 16, 32, 64)[:count]
    anchors = [side for level in model.network.anchors for pair in level for side in pair]
    assert len(anchors) == 4 * count and "anchors fitted to the labels" in said
    assert all(10 < side < 40 for side in anchors)  # the shapes have 19 to 48 of 96 pixels, here of 64
    assert main([*options, "--noautoanchor"]) == 2
    assert "gives only the number of anchors" in capsys.readouterr().err
    assert main(["info", "--cfg", str(layout)]) == 0
    assert "2 per level, fitted to the data before training" in capsys.readouterr().out
    for command in (["prune"], ["export"], ["quantize", "--source", str(shapes)]):
        assert main([*command, "--cfg", str(layout)]) == 2
        assert "anchors is 2, a number: training fits them to data (octrim train --data DATA --cfg" in capsys.readouterr().err
