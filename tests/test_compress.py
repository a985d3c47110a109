"""The whole pipeline on a small network: its numbers, that it resumes after kills, and what it refuses before anything trains."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from octrim.cli import main
from octrim.commands import Compress
from octrim.compression.pipeline import compress
from octrim.compression.presets import PRESETS, Preset, resolved
from octrim.compression.start import stepped
from octrim.data.loader import TrainingBatch
from octrim.data.open import open_dataset
from octrim.data.picture_paths import picture_paths
from octrim.errors import InputError
from octrim.evaluate.val import evaluate
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model, fresh_tensors
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.cut import prune
from octrim.pruning.plan import composed, plan
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.session import _library
from octrim.targets.opening import open_session
from octrim.training.checkpoint import State, digest_with_places
from octrim.training.record import Record
from tests.figures import unrendered_figures
from tests.networks import tiny_model
from tests.training.conftest import draw_shapes

EPOCHS = ["--train-epochs", "2", "--sparsify-epochs", "1", "--iterations", "2", "--step-epochs", "1", "--finetune-epochs", "2"]
COMMON = [
    "--imgsz",
    "64",
    "--batch",
    "4",
    "--nominal-batch",
    "8",
    "--finetune-batch",
    "4",
    "--workers",
    "0",
    "--keep",
    "1/4",
    "--align",
    "2",
    "--iterations-bench",
    "5",
]
STAGES = ("1-train", "2-sparsify", "3-prune", "4-finetune", "5-export", "6-bench", "control")


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Curves per epoch take longer than such an epoch; they have their own tests."""
    with pytest.MonkeyPatch.context() as patch, unrendered_figures():
        patch.setattr("octrim.training.record.save_curves", lambda *_: None)
        patch.setattr("octrim.training.setup.save_labels", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fresh network, for two classes."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    tiny_model().save(path)
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_shapes(tmp_path / "shapes", {"train": 12, "val": 4})


def arguments(data: Path, weights: Path, project: Path, *more: str) -> list[str]:
    return ["compress", "--weights", str(weights), "--data", str(data), "--project", str(project), "--name", "run", *COMMON, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """An undisturbed run of all stages, and its data."""
    root = tmp_path_factory.mktemp("whole")
    data = draw_shapes(root / "shapes", {"train": 12, "val": 4})
    assert main(arguments(data, weights, root, *EPOCHS, "--control")) == 0
    return root / "run", data


GRADUAL = ["--train-epochs", "1", "--finetune-epochs", "3", "--cut-epochs", "2", "--budget", "channels=0.7", "--exclude", "model.0"]
GRADUAL += ["--activation", "relu"]


@pytest.fixture(scope="module")
def gradual(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """An undisturbed run whose channels go within fine-tuning, and its data."""
    root = tmp_path_factory.mktemp("gradual")
    data = draw_shapes(root / "shapes", {"train": 12, "val": 4})
    assert main(without_keep(arguments(data, weights, root, *GRADUAL))) == 0
    return root / "run", data


def without_keep(command: list[str]) -> list[str]:
    at = command.index("--keep")
    return command[:at] + command[at + 2 :]


@pytest.mark.slow
def test_channels_that_go_within_fine_tuning(gradual: tuple[Path, Path]) -> None:
    folder, _ = gradual
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1-train", "4-finetune", "5-export", "6-bench"]
    found, small = summary(folder), load(folder / "4-finetune" / "last.safetensors")
    whole = load(folder / "1-train" / "last.safetensors")
    before, after = (network_cost(model.network, 64) for model in (whole, small))
    assert list(found["stages"]) == ["original", "finetuned"]
    assert (found["stages"]["finetuned"]["macs"], found["stages"]["finetuned"]["epochs"]) == (after.macs, 4)
    assert after.channels <= 0.7 * before.channels
    counts = {row.name: (len(kept), row.channels) for row, kept in zip(whole.network.convs, _kept(folder).values(), strict=True)}
    assert counts["model.0"][0] == counts["model.0"][1]
    for row in small.network.convs:
        assert row.channels == counts[row.name][0]
        assert row.channels == counts[row.name][1] or row.channels % 2 == 0
    assert found["cuts"] == [{"criterion": "taylor", "repairs": ["merge"], "channels": after.channels}]
    assert found["epochs"] == {"train": 1, "sparsify": 0, "between_cuts": 0, "cutting": 2, "finetune": 3, "all": 4}
    assert [step["action"] for step in small.lineage][-4:] == ["activation", "prune", "merge", "finetune"]
    assert ({row.activation for row in whole.network.convs}, found["settings"]["activation"]) == ({"silu", None}, "relu")
    assert {row.activation for row in small.network.convs} == {"relu", None}
    assert "activation of the fine-tuned network: relu" in (folder / "summary.txt").read_text()
    with (folder / "4-finetune" / "results.csv").open() as file:
        left = [float(row["cut/macs"]) for row in csv.DictReader(file)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == pytest.approx(after.macs / before.macs, rel=1e-5)
    report = (folder / "report.html").read_text()
    assert "Channels and MACs that are left" in report
    assert "Channels ranked by taylor; repairs: merge" in report
    assert "activation relu" in report


def _kept(folder: Path) -> dict[str, list[int]]:
    """Channels that are left of every convolution, by the plan that the fine-tuning has written."""
    content = json.loads((folder / "4-finetune" / "plan.json").read_text())
    return {name: conv["kept"] for name, conv in content["convs"].items()}


@pytest.mark.slow
def test_a_compression_stopped_while_channels_go_ends_the_same(
    gradual: tuple[Path, Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = gradual
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (self.action, epoch, state.batch) == ("finetune", 1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main(without_keep(arguments(data, weights, tmp_path, *GRADUAL))) == 130
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 0
    assert untimed(tmp_path / "run") == untimed(folder)
    assert (tmp_path / "run/4-finetune/last.safetensors").read_bytes() == (folder / "4-finetune/last.safetensors").read_bytes()
    assert (tmp_path / "run/4-finetune/plan.json").read_bytes() == (folder / "4-finetune/plan.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cut-epochs", "3", "--finetune-epochs", "2"], "cut-epochs is 3, more than the 2 epochs of fine-tuning"),
        (["--cut-epochs", "1", "--cut-steps", "2"], "cut either within fine-tuning or in steps before it"),
    ],
)
def test_what_is_refused_of_cutting_while_training(
    shapes: Path, weights: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(shapes, weights, tmp_path / "runs", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def untimed(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in summary(folder).items() if key != "times"}


@pytest.mark.slow
def test_numbers_of_the_summary(whole: tuple[Path, Path]) -> None:
    folder, data = whole
    found = summary(folder)
    files = ("1-train/last", "2-sparsify/last", "3-prune/model", "4-finetune/last", "control/last")
    assert list(found["stages"]) == ["original", "sparse", "cut", "finetuned", "control"]
    # Epochs so far: 2; 1 more; 1 between two cuts; 2 more. The control has them all at once.
    assert [row["epochs"] for row in found["stages"].values()] == [2, 3, 4, 6, 6]
    assert found["epochs"] == {"train": 2, "sparsify": 1, "between_cuts": 1, "cutting": 0, "finetune": 2, "all": 6}
    dataset = open_dataset(data, "val")
    for row, name in zip(found["stages"].values(), files, strict=True):
        path = folder / f"{name}.safetensors"
        model = load(path)
        cost = network_cost(model.network, 64)
        assert (row["parameters"], row["macs"], row["channels"]) == (cost.parameters, cost.macs, cost.channels)
        assert row["file_bytes"] == path.stat().st_size
        result = evaluate(open_session(model), dataset, 64, 4)
        assert (row["mAP50"], row["mAP50-95"]) == pytest.approx((result.map50, result.map), abs=1e-6)
        assert row["interval"] == pytest.approx(list(result.interval["mAP50-95"]), abs=1e-6)
        assert row["interval"][0] <= row["mAP50-95"] <= row["interval"][1]
    for errors in found["export"].values():
        assert errors["score_error"] < 1e-3 and errors["box_error"] < 0.05
    times = found["times"]
    assert list(times["seconds"]) == ["train", "sparsify", "prune", "finetune", "export", "bench", "control"]
    assert min(times["seconds"].values()) > 0
    bench = json.loads((folder / "6-bench" / "bench.json").read_text())["networks"]
    assert times["latency_ms"] == dict.fromkeys(("original", "sparse"), bench[0]["network_p50_ms"]) | dict.fromkeys(
        ("cut", "finetuned", "control"), bench[1]["network_p50_ms"]
    )
    assert times["speedup"]["original"] == 1 and times["speedup"]["control"] == bench[1]["network_speedup"]
    if has_compiler():
        rows = json.loads((folder / "6-bench" / "bench.json").read_text())["c"]["networks"]
        assert [row["runtime"].partition(" ")[0] for row in rows] == ["openvino", "c", "c"] and rows[0]["network_speedup"] == 1
        for key, name in (("latency_ms", "network_p50_ms"), ("speedup", "network_speedup")):
            assert list(times["c"][key].values()) == [rows[place][name] for place in (1, 1, 2, 2, 2)]
    else:
        assert "c" not in times and "not timed in C" in (folder / "6-bench" / "log.txt").read_text()
    text = (folder / "summary.txt").read_text()
    assert ("C, ms" in text) == has_compiler()
    assert f"{found['stages']['finetuned']['parameters']:,}" in text and "fine-tuned" in text


@pytest.mark.slow
def test_what_the_stages_leave(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    assert all((folder / stage / "stage.json").is_file() for stage in STAGES)
    for stage in ("1-train", "2-sparsify", "3-prune", "4-finetune", "control"):
        assert (folder / stage / "metrics.json").is_file()
    assert {"model.onnx", "openvino", "export.json"} <= {path.name for path in (folder / "5-export").iterdir()}
    assert (folder / "5-export" / "c" / "detector.c").is_file() == has_compiler()
    assert {"cut1", "finetune1", "cut2", "model.safetensors", "plan.json", "plan.txt", "channels.png"} <= {
        path.name for path in (folder / "3-prune").iterdir()
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["finetune_epochs"] == 2 and config["distill"] == PRESETS["default"].distill  # the preset's numbers are in it
    small, control = load(folder / "4-finetune" / "last.safetensors"), load(folder / "control" / "initial.safetensors")
    assert control.network == small.network
    for name, tensor in fresh_tensors(small.network, 0).items():
        np.testing.assert_array_equal(control.tensors[name], tensor)
    for stage in ("1-train", "2-sparsify", "4-finetune", "control"):
        options = yaml.safe_load((folder / stage / "config.yaml").read_text())
        tuned = stage in ("4-finetune", "control")
        assert (options["batch"], options["nominal_batch"]) == ((4, 4) if tuned else (4, 8)) and options["lr0"] == (0.03 if tuned else None)
        assert (options["imgsz"], options["patience"]) == ([64], 0)
        assert stage in ("1-train", "control") or options["teacher"] == str(folder / "1-train" / "last.safetensors")


@pytest.mark.slow
def test_sparsity_zeroes_what_is_cut_last(whole: tuple[Path, Path]) -> None:
    """8 channels, of which 2 stay: three quarters of the scales are exactly zero, and the first cut takes none that is not."""
    folder, _ = whole
    sparse = load(folder / "2-sparsify" / "last.safetensors")
    first = json.loads((folder / "3-prune" / "cut1" / "plan.json").read_text())
    assert first["settings"]["criterion"] == "bn" and first["removed"] == 0
    gamma = sparse.tensors["model.1.bn.weight"]
    assert len(gamma) == 8 and (gamma == 0).sum() == 6


@pytest.mark.slow
def test_the_plan_is_of_the_original_against_the_final_network(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    steps = [json.loads((folder / "3-prune" / name / "plan.json").read_text()) for name in ("cut1", "cut2")]
    final = json.loads((folder / "3-prune" / "plan.json").read_text())
    rows = {row.name: row.channels for row in load(folder / "3-prune" / "model.safetensors").network.convs}
    for name, conv in final["convs"].items():
        kept = np.asarray(steps[0]["convs"][name]["kept"])[steps[1]["convs"][name]["kept"]]
        assert conv["kept"] == kept.tolist() and conv["after"] == rows[name]
    assert final["macs"] == {"before": steps[0]["macs"]["before"], "after": steps[1]["macs"]["after"]}
    assert [steps[index]["convs"]["model.1"]["after"] for index in (0, 1)] == [4, 2]  # of 8: a half, a quarter


@pytest.mark.slow
def test_a_resume_of_a_finished_run_shows_the_table(whole: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder, _ = whole
    before = untimed(folder)
    capfd.readouterr()
    assert main(["compress", "--resume", str(folder)]) == 0
    output = capfd.readouterr().out
    assert "Compression" in output and "next: octrim predict" in output and "memory" not in output  # which heads the lines of a training
    assert untimed(folder) == before


@pytest.mark.slow
def test_a_run_that_was_not_timed_in_c_has_a_summary_without(whole: tuple[Path, Path], tmp_path: Path) -> None:
    """As runs of version 0.1, and runs on machines without a C compiler."""
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    content = json.loads((run / "6-bench" / "stage.json").read_text())
    (run / "6-bench" / "stage.json").write_text(json.dumps({name: value for name, value in content.items() if name != "bench_c"}))
    bench = json.loads((run / "6-bench" / "bench.json").read_text())
    (run / "6-bench" / "bench.json").write_text(json.dumps({name: value for name, value in bench.items() if name != "c"}))
    assert main(["compress", "--resume", str(run)]) == 0
    assert "c" not in summary(run)["times"] and "C, ms" not in (run / "summary.txt").read_text()
    assert "in C" not in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_c_out(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    for stage in ("5-export", "6-bench"):
        (run / stage / "stage.json").unlink()
    monkeypatch.setenv("CC", "false")
    _library.cache_clear()
    try:
        assert main(["compress", "--resume", str(run)]) == 0
    finally:
        _library.cache_clear()
    output = capfd.readouterr().out
    assert "not exported to C: false: cannot compile the network's C code" in output and "not timed in C: false" in output
    assert not (run / "5-export" / "c").exists() and "c" not in summary(run)["times"] and "c" not in summary(run)["export"]


@pytest.mark.slow
def test_a_stage_that_lacks_its_mark_does_not_train_again(whole: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder, _ = whole
    before = untimed(folder), (folder / "4-finetune" / "last.safetensors").read_bytes()
    for stage in ("4-finetune", "3-prune", "3-prune/finetune1"):
        (folder / stage / "stage.json").unlink()
    (folder / "summary.json").unlink()
    capfd.readouterr()
    assert main(["compress", "--resume", str(folder)]) == 0
    output = capfd.readouterr().out
    assert "resumed: 5 of 7 stages are done" in output and "box_loss" not in output and "[3/7] prune" in output
    assert (untimed(folder), (folder / "4-finetune" / "last.safetensors").read_bytes()) == before


def killed(command: list[str], log: Path, text: str) -> None:
    """Run until the log says something new, then kill -9."""
    seen = len(log.read_text()) if log.is_file() else 0
    process = subprocess.Popen([sys.executable, "-m", "octrim", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.is_file() and text in log.read_text()[seen:]):
        assert process.poll() is None and time.monotonic() < deadline, f"{log} never said {text!r}"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_summary(whole: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    folder, data = whole
    run = tmp_path / "run"
    killed(arguments(data, weights, tmp_path, *EPOCHS, "--control"), run / "1-train" / "log.txt", "1/2")
    assert not (run / "1-train" / "stage.json").exists()
    killed(["compress", "--resume", str(run)], run / "4-finetune" / "log.txt", "1/2")
    assert (run / "3-prune" / "stage.json").exists() and not (run / "4-finetune" / "stage.json").exists()
    assert main(["compress", "--resume", str(run)]) == 0
    assert untimed(run) == untimed(folder)
    for name in ("1-train/last", "2-sparsify/last", "3-prune/model", "4-finetune/last", "control/last"):
        one, two = load(folder / f"{name}.safetensors"), load(run / f"{name}.safetensors")
        for key, tensor in one.tensors.items():
            np.testing.assert_array_equal(tensor, two.tensors[key], err_msg=f"{name} {key}")


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
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--distill", "none", "--sparsify-epochs", "0", "--hyp", str(hyper))
    assert main(arguments(shapes, weights, tmp_path, *more)) == 0
    hyper.unlink()
    for stage in ("4-finetune", "6-bench"):
        (tmp_path / "run" / stage / "stage.json").unlink()
    (tmp_path / "run" / "4-finetune" / "checkpoint" / "state.safetensors").unlink()
    assert main(["compress", "--resume", str(tmp_path / "run")]) == 0
    options = yaml.safe_load((tmp_path / "run" / "4-finetune" / "config.yaml").read_text())
    assert options["hyp"] == str(tmp_path / "run" / "hyp.yaml") and (tmp_path / "run" / "hyp.yaml").read_text() == "lr0: 0.02\n"


@pytest.mark.slow
def test_exist_ok_begins_anew(trained: Path, shapes: Path, weights: Path, tmp_path: Path) -> None:
    (trained / "mine.txt").write_text("kept")
    (trained / "3-prune" / "cut7").mkdir()
    more = ("--train-epochs", "0", "--finetune-epochs", "1", "--distill", "none", "--criterion", "bn", "--exist-ok")
    assert main(arguments(shapes, weights, tmp_path, *more, "--sparsify-epochs", "0")) == 0
    assert json.loads((trained / "3-prune" / "plan.json").read_text())["settings"]["criterion"] == "bn"
    assert not (trained / "3-prune" / "cut7").exists() and (trained / "mine.txt").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", "2"], "keep is 2, expected more than 0 and at most 1"),
        (["--keep", "1"], "keep is 1: nothing would be cut"),
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
        (["--unlabelled", "."], "no pictures in this folder"),
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


def _nothing_begins(shapes: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a compression is refused before it leaves anything."""
    assert main(arguments(shapes, weights, tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
    return error


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
    error = _nothing_begins(shapes, weights, tmp_path, capsys)
    needed = 3 * (20_000_000 + 4 * 13 * sum(array.size for array in load(weights).tensors.values()))
    assert f"{tmp_path}: 60 MB are free on this disk, and the run needs about {needed / 1e6:.0f} MB" in error
    assert asked == [tmp_path]


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
    with pytest.raises(InputError, match="preset is 'quick'"):
        compress(preset="quick")  # type: ignore[arg-type]


def test_steps_are_spaced_geometrically() -> None:
    assert [stepped("1/8", Fraction(step, 3)) for step in (1, 2, 3)] == ["1/2", "1/4", "1/8"]
    assert float(Fraction(stepped("0.1", Fraction(1, 2)))) == pytest.approx(0.1**0.5, abs=1e-6)


def _channels(network: Network) -> dict[str, int]:
    return {row.name: row.channels for row in network.convs}


def test_pictures_for_repair_come_from_a_data_yaml_too(shapes: Path) -> None:
    paths = picture_paths(str(shapes), 5, 0)
    assert len(paths) == 5 and {Path(path).parent.name for path in paths} == {"train"}


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
