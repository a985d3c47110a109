"""Whole trainings of a small network: what they leave, that they resume, and what they refuse."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octrim.cli import main
from octrim.network.loading import load
from octrim.training.checkpoint import CHECKPOINT, load_state
from octrim.training.record import COLUMNS
from tests.training.running import arguments, results, same_weights, start, wait_for

pytestmark = pytest.mark.usefixtures("unrendered")  # but `whole` is made before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> tuple[Path, Path]:
    """An undisturbed run of three epochs, and its data."""
    from tests.training.conftest import draw_shapes

    root = tmp_path_factory.mktemp("whole")
    data = draw_shapes(root / "shapes", {"train": 22, "val": 6})
    assert main(arguments(data, tiny_weights, root, "--epochs", "3", "--name", "run")) == 0
    return root / "run", data


@pytest.mark.slow
def test_what_a_run_leaves(whole: tuple[Path, Path]) -> None:
    folder, _ = whole
    names = {path.name for path in folder.iterdir()}
    assert {"best.safetensors", "last.safetensors", "checkpoint", "results.csv", "results.png", "labels.png", "config.yaml", "log.txt"} <= names
    assert {"train_batch0.jpg", "train_batch2.jpg", "val_predictions.jpg", "metrics.json", "predictions.json", "times.csv"} <= names
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert tuple(rows[0]) == COLUMNS and [row["epoch"] for row in rows] == ["0", "1", "2"]
    # Warm-up of 100 iterations: the last of epoch 0 is number 5 of the 6.
    assert float(rows[0]["x/lr0"]) == pytest.approx(0.1 + (0.01 - 0.1) * 5 / 100, rel=1e-5)
    assert float(rows[0]["x/lr1"]) == pytest.approx(0.01 * 5 / 100, rel=1e-5)
    assert float(rows[2]["train/box_loss"]) > 0 and float(rows[2]["val/obj_loss"]) > 0
    found = json.loads((folder / "metrics.json").read_text())
    assert found["weights"] == "last.safetensors" and found["mAP50-95"] == pytest.approx(float(rows[2]["metrics/mAP_0.5:0.95"]), abs=1e-5)
    assert "last epoch, 3 of 3" in (folder / "log.txt").read_text()
    model = load(folder / "last.safetensors")
    assert model.names == ("square", "disc") and model.image_size == 64
    assert [step["action"] for step in model.lineage][-2:] == ["start", "train"] and model.lineage[-1]["epoch"] == 3


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits_with_other_workers(whole: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    folder, data = whole
    assert main(arguments(data, tiny_weights, tmp_path, "--epochs", "3", "--name", "run", "--workers", "0", "--cache", "none")) == 0
    assert results(tmp_path / "run") == results(folder)
    same_weights(tmp_path / "run", folder)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_same_bits_twice(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """Not those of one thread, whose sums are taken in another order."""
    for name in ("one", "other"):
        assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--batch", "11", "--noval", "--name", name)) == 0
    assert results(tmp_path / "one") == results(tmp_path / "other")
    same_weights(tmp_path / "one", tmp_path / "other")


@pytest.mark.slow
def test_another_seed_is_another_run(whole: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    folder, data = whole
    assert main(arguments(data, tiny_weights, tmp_path, "--epochs", "1", "--name", "run", "--seed", "5")) == 0
    assert results(tmp_path / "run").splitlines()[1] != results(folder).splitlines()[1]


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_results_and_weights(whole: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> None:
    folder, data = whole
    process = start(arguments(data, tiny_weights, tmp_path, "--epochs", "3", "--name", "run"))
    wait_for(tmp_path / "run" / "log.txt", "1/3")
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(load_state(tmp_path / "run" / CHECKPOINT).rows) < 3
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(folder)
    same_weights(tmp_path / "run", folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumes_within_its_epoch(whole: tuple[Path, Path], tiny_weights: Path, tmp_path: Path, number: int) -> None:
    folder, data = whole
    process = start(arguments(data, tiny_weights, tmp_path, "--epochs", "3", "--name", "run"))
    if number == signal.SIGINT:
        wait_for(tmp_path / "run" / "log.txt", "box_loss")
        while not (tmp_path / "run" / "train_batch1.jpg").exists():
            time.sleep(0.005)
    else:  # when there is a best epoch already, which must survive
        wait_for(tmp_path / "run" / "log.txt", "1/3")
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 130 and "Traceback" not in output and "--resume" in output
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert (state.epoch, state.batch) > (0, 0)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(folder)
    same_weights(tmp_path / "run", folder)


@pytest.mark.slow
def test_resuming_after_the_checkpoint_but_before_the_files_that_follow_from_it(whole: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    folder, _ = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for name in ("results.csv", "last.safetensors", "results.png"):
        (copy / name).unlink()
    if load_state(copy / CHECKPOINT).best[1] == 2:
        (copy / "best.safetensors").unlink()
    assert main(["train", "--resume", str(copy)]) == 0
    assert results(copy) == results(folder)
    same_weights(copy, folder)


@pytest.mark.slow
def test_no_process_outlives_a_killed_run(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    process = start(arguments(shapes, tiny_weights, tmp_path, "--epochs", "50", "--name", "run", "--workers", "2"))
    wait_for(tmp_path / "run" / "log.txt", "1/50")
    children = [
        int(pid)
        for pid in subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    ]
    assert len(children) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < deadline, "loader processes are still there"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_what_a_resumed_run_refuses_and_ignores(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyper = tmp_path / "mine.yaml"
    hyper.write_text("lr0: 0.02\n")
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", "run", "--hyp", str(hyper))) == 0
    folder = tmp_path / "run"
    config = (folder / "config.yaml").read_text().replace("epochs: 1\n", "epochs: 2\n")
    for wrong, message in (
        (config.replace("epochs: 2", "epochs: ten"), "epochs is 'ten'"),
        (config.replace("SGD", "AdamW"), "another optimizer than AdamW"),
    ):
        (folder / "config.yaml").write_text(wrong)
        capsys.readouterr()
        assert main(["train", "--resume", str(folder)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (folder / "config.yaml").write_text(config)
    hyper.write_text("lr0: 0.9\n")  # the run keeps the numbers that it began with
    (folder / "checkpoint" / ".state-x1y2.safetensors").write_bytes(b"half")  # what a kill in the middle of a write leaves
    assert main(["train", "--resume", str(folder)]) == 0
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert float(rows[1]["x/lr1"]) == pytest.approx(0.02 * (0.5 * 0.99 + 0.01) * 11 / 100, rel=1e-5)
    assert [path.name for path in (folder / "checkpoint").iterdir()] == ["state.safetensors"]
    state = folder / CHECKPOINT
    for damaged, message in ((state.read_bytes()[:-100], "damaged checkpoint"), (b"", "damaged checkpoint")):
        state.write_bytes(damaged)
        capsys.readouterr()
        assert main(["train", "--resume", str(folder)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_picture_deleted_during_training_is_told_and_left_out(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from octrim.data.open import open_dataset

    open_dataset(shapes, "train")  # the index is there; then a picture goes
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", "before")) == 0
    gone = shapes.parent / "images" / "train" / "003.png"
    process = start(arguments(shapes, tiny_weights, tmp_path, "--epochs", "40", "--name", "run", "--cache", "none"))
    wait_for(tmp_path / "run" / "log.txt", "1/40")
    gone.unlink()
    wait_for(tmp_path / "run" / "log.txt", "003.png")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert "left out" in output and "Traceback" not in output and process.returncode == 130


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of file size are posix")
def test_a_disk_that_fills_leaves_the_last_checkpoint(shapes: Path, small_weights: Path, tmp_path: Path) -> None:
    assert main(arguments(shapes, small_weights, tmp_path, "--epochs", "1", "--name", "run")) == 0
    checkpoint = tmp_path / "run" / CHECKPOINT
    good = checkpoint.read_bytes()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 3\n"))
    limit = f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, ({len(good) // 2},) * 2)"
    resume = f"from octrim.cli import main; sys.exit(main(['train', '--resume', {str(tmp_path / 'run')!r}]))"
    code = f"import resource, signal, sys; {limit}; {resume}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "state.safetensors" in done.stderr
    assert checkpoint.read_bytes() == good
    assert not [path for path in checkpoint.parent.iterdir() if path != checkpoint]


@pytest.mark.slow
def test_resume_refuses_other_options(whole: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(whole[0]), "--epochs", "7"]) == 2
    assert "leave out --epochs" in capsys.readouterr().err
    assert main(["train", "--resume", "nowhere"]) == 2
    assert "nowhere: not the folder of a run (no config.yaml)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_label_changed_between_runs_is_told(
    whole: tuple[Path, Path], tiny_weights: Path, shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "1", "--name", "run")) == 0
    (shapes.parent / "labels" / "train" / "001.txt").write_text("0 0.5 nonsense 0.1 0.1\n")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    capfd.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    output = capfd.readouterr().out
    assert "001.txt" in output and "not what it was when this run began" in output
