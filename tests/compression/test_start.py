"""What a compression checks before anything trains, and the presets and plans that it starts from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.commands import Compress
from octrim.compression import pipeline
from octrim.compression.job import TIMES
from octrim.compression.options import Compression
from octrim.compression.pipeline import compress
from octrim.compression.planning import stepped
from octrim.compression.presets import PRESETS, Preset, resolved
from octrim.compression.start import START, remembered, resolved_config
from octrim.compression.summary import summarised
from octrim.data.picture_paths import picture_paths
from octrim.errors import InputError
from octrim.network.folding import folded
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.rows import Network
from octrim.pruning.cut import prune
from octrim.pruning.plan import composed, plan
from octrim.stages import STAGES, TRAIN
from tests.compression.running import arguments
from tests.data.tools import photo


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", "2"], "keep is 2, expected more than 0 and at most 1"),
        (["--keep", "1"], "keep is 1: nothing would be cut"),
        (["--keep", "0.99"], "nothing would be cut"),
        (["--keep", "live", "--budget", "macs=0.9"], "--keep live is for octrim prune"),
        (["--budget", "macs=1"], "nothing would be cut"),
        (["--exclude", "model", "--cut-epochs", "0"], "nothing would be cut"),
        (["--budget", "macs=0.0001"], "budget macs=0.0001 cannot be met"),
        (["--budget", "weight=0.1"], "budget is 'weight=0.1'"),
        (["--align", "0"], "align is 0"),
        (["--exclude", "model.99"], "exclude: 'model.99' matches no convolution"),
        (["--keep-map", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--weights", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--cfg", "yolov5n"], "give either --weights"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--imgsz", "64", "96"], "training pictures are square"),
        (["--hyp", "wild"], "hyp is 'wild'"),
        (["--iterations", "0"], "iterations is 0, expected 1"),
        (["--finetune-epochs", "0"], "--finetune-epochs is 0, expected 1"),
        (["--iterations-bench", "0"], "--iterations-bench is 0, expected 1"),
        (["--sparsify-epochs", "2", "--exclude", "model"], "no group of channels can be made sparse"),
        (["--device", "gpu"], "device is gpu; this Paddle has none"),
        (["--unlabelled", str(Path(__file__).parent)], "no pictures in this folder"),
        (["--unlabelled", "nowhere/*.jpg"], "nowhere/*.jpg: no pictures match"),
        (["--unlabelled", ".", "--distill", "none"], "--unlabelled needs a teacher"),
        (["--unlabelled-share", "0.5"], "--unlabelled-share needs --unlabelled"),
        (["--name", "a/b"], "name is 'a/b', expected the name of a folder"),
    ],
)
def test_what_is_refused_before_anything_trains(
    shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*arguments(shapes, weights, tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["--criterion", "taylor"], ["--cut-epochs", "0", "--criterion", "bn"]])
def test_a_criterion_that_a_network_without_batch_norm_lacks_is_told_before_anything_trains(
    shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    fused = tmp_path / "fused.safetensors"
    folded(load(weights)).save(fused)
    assert "has no batch norm, which this criterion needs" in _nothing_begins(shapes, fused, tmp_path, capsys, *more, "--sparsify-epochs", "0")


def test_unlabelled_pictures_must_fit_every_stage_that_takes_them(
    shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "more" / "one.png")
    more = ("--unlabelled", str(tmp_path / "more"), "--batch", "1", "--sparsify-epochs", "1")
    assert "a batch with labelled and unlabelled pictures has at least 2" in _nothing_begins(shapes, weights, tmp_path, capsys, *more)


def test_data_that_is_refused(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(shapes, weights, tmp_path, "--match-games", "1")) == 2
    assert "not ball and paddle" in capsys.readouterr().err
    shapes.write_text("train: images/train\nval: images/val\nnames: [square, ring]\n")
    assert main(arguments(shapes, weights, tmp_path, "--train-epochs", "0")) == 2
    assert "does not know 1 of the 2 classes" in capsys.readouterr().err
    assert main(["compress", "--cfg", "yolov5n", "--data", str(shapes), "--train-epochs", "0", "--imgsz", "64"]) == 2
    assert "fresh weights have to be trained first" in capsys.readouterr().err
    shapes.write_text("train: images/train\nval: images/nowhere\nnames: [square, disc]\n")  # without a line for val, OcTrim splits train itself
    assert main(arguments(shapes, weights, tmp_path)) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _nothing_begins(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The line with which a compression, with options of its own, is refused before it leaves anything."""
    assert main(arguments(shapes, weights, tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
    return error


@pytest.mark.slow
@pytest.mark.parametrize("step", ["write", "open"])
def test_an_export_that_would_fail_in_the_end_is_refused_before_anything_trains(
    shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from octrim.targets.onnx.target import OnnxTarget

    def broken(*_: object) -> None:
        raise ImportError("No module named 'runtime'")

    monkeypatch.setattr(OnnxTarget, step, broken)
    error = _nothing_begins(shapes, weights, tmp_path, capsys)
    assert "the small network could not be exported in the end (--format onnx): No module named 'runtime'" in error


def test_a_run_needs_its_space_on_the_disk(
    shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four networks that are trained or cut counts as a training: its checkpoint and weights twice, and 20 MB of pictures."""
    asked: list[Path] = []

    def usage(path: Path) -> shutil._ntuple_diskusage:
        asked.append(Path(path))
        return shutil._ntuple_diskusage(10**12, 10**12 - 59_999_999, 59_999_999)

    monkeypatch.setattr("octrim.runs.shutil.disk_usage", usage)
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)  # compiles C
    error = _nothing_begins(shapes, weights, tmp_path, capsys)
    needed = 3 * (20_000_000 + 4 * 13 * sum(array.size for array in load(weights).tensors.values()))
    assert f"{tmp_path}: 60 MB are free on this disk, and the run needs about {needed / 1e6:.0f} MB" in error
    assert asked == [tmp_path]


@pytest.mark.parametrize("options", [{}, {"keep": "1/4"}, {"budget": "macs=0.1"}, {"search": 4, "int8": True}])
def test_a_resumed_run_summarises_the_same_settings(options: dict[str, Any]) -> None:
    """It reads its options from config.yaml, where the values that nobody gave are filled in."""
    config = Compression(**options)
    preset = resolved(config)
    done: dict[str, Any] = {"seconds": 1.0, "row": {}, "cuts": [], "export": {}, "search": {}, "int8": {}}
    done["bench"] = {stage.timed_as: dict.fromkeys(TIMES.values(), 1.0) for stage in STAGES if stage.network}
    results = dict.fromkeys(preset.stages(False), done)
    again = resolved_config(config, preset)
    assert summarised(again, preset, results) == summarised(config, preset, results)


def test_presets_and_what_overrides_them() -> None:
    assert resolved(Compress()) == replace(PRESETS["default"], cut_epochs=40)  # of 100
    assert resolved(Compress(finetune_epochs=6)).cut_epochs == 2
    assert resolved(Compress(finetune_epochs=1)).cut_epochs == 0  # too short to cut while it trains
    for other in (Compress(cut_epochs=0), Compress(cut_steps=1), Compress(sparsify_epochs=5)):
        assert resolved(other).cut_epochs == 0
    assert resolved(Compress(preset="best", cut_epochs=7, sparsify_epochs=5)).cut_epochs == 7
    preset = resolved(Compress(preset="fast", train_epochs=0, step_epochs=3, cut_steps=4, distill="output", criterion="l1"))
    assert (preset.train_epochs, preset.distill, preset.criterion) == (0, "output", "l1")
    assert preset.finetune_epochs == PRESETS["fast"].finetune_epochs and preset.nominal_batch == PRESETS["fast"].nominal_batch
    assert Preset(10, 20, 40, cut_steps=4, step_epochs=3).whole == 10 + 20 + 3 * 3 + 40
    by_variance = (Compress(), Compress(budget="macs=1/4"), Compress(keep="1/8", budget="latency=1/4"), Compress(preset="demo"))
    assert {resolved(options).widths for options in (*by_variance, Compress(keep="1/8", widths="variance"))} == {"variance"}
    by_importance = (Compress(keep="1/8"), Compress(keep_map="map.json"), Compress(sparsify_epochs=5))
    assert {resolved(options).widths for options in (*by_importance, Compress(widths="importance"))} == {"importance"}
    with pytest.raises(InputError, match="preset is 'quick'"):
        compress(preset="quick")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pictures", "epochs"),
    [(3, 400), (60, 400), (61, 375), (160, 150), (205, 116), (240, 100), (623, 100)],  # by hand: 6,000 steps of 4 pictures, 100 to 400 epochs
)
def test_small_data_sets_are_fine_tuned_for_more_epochs(pictures: int, epochs: int) -> None:
    steps = -(-pictures // 4)
    assert resolved(Compression(), steps).finetune_epochs == epochs
    assert resolved(Compression(), steps).cut_epochs == round(0.4 * epochs)
    assert resolved(Compression(student="picodet", keep="1/2"), steps).student_epochs == epochs
    assert resolved(Compression(finetune_epochs=7), steps).finetune_epochs == 7
    assert resolved(Compression(preset="fast"), steps).finetune_epochs == 30
    assert resolved(Compression(preset="best"), steps).finetune_epochs == max(150, min(600, -(-6000 // steps)))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_a_run_takes_the_epochs_that_its_pictures_need(
    unlabelled: bool, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 pictures are 3 steps of 4, or 6 of 2 labelled ones and 2 others: 9 and 5 epochs have 27 steps. A resumed run has as many."""
    monkeypatch.setitem(PRESETS, "fast", replace(PRESETS["fast"], finetune_epochs=3, least_steps=27))
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline._WORK, TRAIN, interrupted)
    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--imgsz", "64", "--preset", "fast", "--project", str(tmp_path)]
    epochs = 5 if unlabelled else 9
    if unlabelled:
        (tmp_path / "more").mkdir()
        for number in range(4):
            photo(tmp_path / "more" / f"{number}.png")
        command += ["--unlabelled", str(tmp_path / "more"), "--unlabelled-share", "0.5"]
    assert main([*command, "--name", "run"]) == 130
    line = f"12 training pictures: {epochs} epochs of fine-tuning in place of 3, for enough steps (--finetune-epochs says it otherwise)"
    assert line in capsys.readouterr().out
    monkeypatch.setitem(PRESETS, "fast", replace(PRESETS["fast"], least_steps=300))
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 130
    assert json.loads((tmp_path / "run/start.json").read_text())["preset"]["finetune_epochs"] == epochs
    assert f"finetune_epochs: {epochs}\n" in (tmp_path / "run/config.yaml").read_text()
    assert main([*command, "--name", "short", "--finetune-epochs", "3"]) == 130
    assert "training pictures: " not in capsys.readouterr().out
    monkeypatch.setitem(PRESETS, "fast", replace(PRESETS["fast"], least_steps=27))
    longer = ["--keep", "1/2", "--cut-epochs", str(epochs + 1)]
    assert main([*command, *longer, "--name", "long"]) == 2
    assert f"cut-epochs is {epochs + 1}, more than the {epochs} epochs of fine-tuning" in capsys.readouterr().err
    assert not (tmp_path / "long").exists()
    assert main([*command, "--keep", "1/2", "--cut-epochs", str(epochs), "--name", "through"]) == 130  # more than the preset's three


def test_steps_are_spaced_geometrically() -> None:
    assert [stepped("1/8", Fraction(step, 3)) for step in (1, 2, 3)] == ["1/2", "1/4", "1/8"]
    assert float(Fraction(stepped("0.1", Fraction(1, 2)))) == pytest.approx(0.1**0.5, abs=1e-6)


def _channels(network: Network) -> dict[str, int]:
    return {row.name: row.channels for row in network.convs}


def test_pictures_for_repair_come_from_a_data_yaml_too(shapes: Path) -> None:
    paths = picture_paths(str(shapes), 5, 0)
    assert len(paths) == 5 and {Path(path).parent.name for path in paths} == {"train"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"keep": "1/8"}, {"budget": "macs=0.1", "keep": "1/8"}, {"budget": "params=1/5"}])
def test_fractions_are_of_the_original_in_every_step(options: dict[str, str]) -> None:
    """A cut in two steps ends where one cut ends: exactly for a uniform one, within the budget and above the floor for a global one."""
    model = fresh_model("yolov5n", classes=2)
    at_once = plan(model, align=8, criterion="random", image_size=(64, 64), **options)
    half = {
        name: f"macs={0.1**0.5}" if value.startswith("macs") else "params=0.4472" if "=" in value else "0.3536" for name, value in options.items()
    }
    first = plan(model, align=8, criterion="random", image_size=(64, 64), **half)
    middle = prune(model, first)
    second = plan(middle, align=8, criterion="random", image_size=(64, 64), original=model.network, **options)
    both = composed(first, second)
    assert prune(model, both).network == prune(middle, second).network == both.network
    for name, tensor in prune(model, both).tensors.items():
        np.testing.assert_array_equal(tensor, prune(middle, second).tensors[name])
    if "budget" not in options:
        assert _channels(both.network) == _channels(at_once.network)
        return
    what = "macs" if "macs" in options["budget"] else "parameters"
    limit = (0.1 if what == "macs" else 0.2) * getattr(both.before, what)
    assert 0.8 * limit < getattr(both.after, what) <= limit
    if "keep" in options:
        assert all(group.after >= max(group.before // 64 * 8, min(8, group.before)) for group in both.groups)


def test_an_original_that_the_model_was_not_cut_from() -> None:
    model = fresh_model("yolov5n", classes=2)
    small = prune(model, plan(model, "1/2", criterion="l2"))
    with pytest.raises(InputError, match="was cut from"):
        plan(model, "1/2", criterion="l2", original=small.network)


def test_runs_go_on_with_the_numbers_of_the_day_they_began(tmp_path: Path) -> None:
    """What a run's file does not say yet is as everything was before there was a choice: plain SGD with the published loss and average."""
    numbers = asdict(replace(PRESETS["default"], finetune_lr0=0.02))
    for name in ("ema", "train_optimizer", "finetune_optimizer", "box_weight"):
        del numbers[name]
    (tmp_path / START).write_text(json.dumps({"preset": numbers, "sha256": {}}))
    preset, _ = remembered(tmp_path, Compress())
    assert (preset.ema, preset.train_optimizer, preset.finetune_optimizer, preset.box_weight) == ("published", "SGD", "SGD", 1)
    assert preset.finetune_lr0 == 0.02
