"""The whole pipeline on a small network: its numbers, what its stages leave, and that it resumes after kills."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from octrim.cli import main
from octrim.compression.presets import PRESETS
from octrim.data.open import open_dataset
from octrim.evaluate.val import evaluate
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_tensors
from octrim.network.loading import load
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.session import runtime_library
from octrim.targets.opening import open_session
from tests.compression.running import EPOCHS, STAGES, arguments, summary, untimed
from tests.training.conftest import draw_shapes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path]:
    """An undisturbed run of all stages, and its data."""
    root = tmp_path_factory.mktemp("whole")
    data = draw_shapes(root / "shapes", {"train": 12, "val": 4})
    assert main(arguments(data, weights, root, *EPOCHS, "--control")) == 0
    return root / "run", data


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
    (run / "6-bench" / "profile.json").unlink()
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
    runtime_library.cache_clear()
    try:
        assert main(["compress", "--resume", str(run)]) == 0
    finally:
        runtime_library.cache_clear()
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


@pytest.mark.slow
def test_a_step_between_cuts_that_lacks_its_results_is_told(whole: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    (folder / "3-prune/stage.json").unlink()
    (folder / "3-prune/finetune1/stage.json").write_text('{"seconds": 1}')
    assert main(["compress", "--resume", str(folder)]) == 2
    assert f"{folder}/3-prune/finetune1/stage.json: lacks row; delete it, and the stage is done again" in capfd.readouterr().err


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
