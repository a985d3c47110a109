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
from typing import Any

import numpy as np
import pytest

from octrim.cli import main, parse
from octrim.commands import Train
from octrim.data.loader import TrainingBatch
from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.options import arguments_of
from octrim.runs import new_run
from octrim.training.checkpoint import CHECKPOINT, State, load_state
from octrim.training.freezing import frozen
from octrim.training.learner import Learner
from octrim.training.record import COLUMNS, Record, results_csv

pytestmark = pytest.mark.usefixtures("unrendered")  # but `whole` is made before

COMMON = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "12", "--workers", "1"]


def arguments(shapes: Path, weights: Path, project: Path, *more: str) -> list[str]:
    return ["train", "--weights", str(weights), "--data", str(shapes), "--project", str(project), *COMMON, *more]


def results(folder: Path) -> str:
    return (folder / "results.csv").read_text()


def same_weights(a: Path, b: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    one, two = load_state(a / CHECKPOINT), load_state(b / CHECKPOINT)
    assert one.arrays.keys() == two.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name], err_msg=name)


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


def start(command: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "octrim", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.01)


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


def without_warmup(tmp_path: Path) -> list[str]:
    """Options of a recipe without warm-up, in which an optimizer step would take fewer batches."""
    recipe = tmp_path / "cold.yaml"
    recipe.write_text("warmup_epochs: 0\n")
    return ["--hyp", str(recipe), "--noval", "--epochs", "2"]


@pytest.mark.slow
def test_batches_that_never_fill_an_accumulation_still_train(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """12 batches of 4 pictures, where an optimizer step takes 16 batches: the gradient that waits at the end is applied."""
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", "--nominal-batch", "64", *without_warmup(tmp_path))) == 0
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert (state.steps, state.updates, state.waiting) == (1, 1, 0) and not state.arrays["gradient"].any()
    before, after = load(tiny_weights), load(tmp_path / "run" / "best.safetensors")
    for name, tensor in before.tensors.items():
        if name.endswith("conv.weight"):
            assert (after.tensors[name] != tensor).any(), name
    assert "an optimizer step takes 16 batches and an epoch has 6" in capfd.readouterr().out


@pytest.mark.slow
def test_the_last_step_is_that_of_the_pictures_it_really_has(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """All 12 batches are one step, whether a step takes 12 batches or would take 13: nothing is scaled to pictures that are not there."""
    states = []
    for nominal in ("48", "52"):
        options = without_warmup(tmp_path)
        Path(options[1]).write_text("warmup_epochs: 0\nweight_decay: 0\n")
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", nominal, "--nominal-batch", nominal, *options)) == 0
        states.append(load_state(tmp_path / nominal / CHECKPOINT))
    assert states[0].steps == states[1].steps == 1
    for name, array in states[0].arrays.items():
        np.testing.assert_array_equal(array, states[1].arrays[name], err_msg=name)


@pytest.mark.slow
def test_a_run_stopped_before_its_incomplete_last_step_resumes_to_the_same_bits(
    shapes: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 batches are a step: the third, incomplete step has the last 2 of 12, of which the run is stopped after the first."""
    options = ["--nominal-batch", "20", *without_warmup(tmp_path)]
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "whole", *options)) == 0
    assert load_state(tmp_path / "whole" / CHECKPOINT).steps == 3
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (epoch, state.batch) == (1, 5):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", *options)) == 130
    stopped = load_state(tmp_path / "run" / CHECKPOINT)
    assert (stopped.epoch, stopped.batch, stopped.waiting, stopped.steps) == (1, 5, 1, 2)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    same_weights(tmp_path / "run", tmp_path / "whole")


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
def test_curves_are_drawn_at_the_end_and_hide_no_other_error(tmp_path: Path) -> None:
    config = Train(project=str(tmp_path))
    run = new_run(config)
    state = State(fresh_model("yolov5n").network, ("a",) * 80, 64, (), "", {}, epoch=2, batch=1)
    state.rows = [{"epoch": epoch, "train/box_loss": 1.0} for epoch in range(2)]
    with Record(run, config, None) as record:
        record.write_results(state)
        (run.path / "results.png").unlink()
        record.write_results(state)  # sooner than it is drawn again
        assert not (run.path / "results.png").exists()
    assert (run.path / "results.png").is_file()
    for kind in (KeyboardInterrupt, InputError):
        with pytest.raises(kind), Record(run, config, None) as record:
            record.write_results(state)
            record.write_results(state)
            (run.path / "results.csv").unlink()
            raise kind("this")


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
def test_divergence_keeps_a_finite_checkpoint(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyper = tmp_path / "wild.yaml"
    hyper.write_text("lr0: 10\nweight_decay: 1\nwarmup_epochs: 0\n")  # weights grow tenfold with every step
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "60", "--name", "run", "--hyp", str(hyper), "--noval")) == 2
    error = capsys.readouterr().err
    assert "not finite any more" in error and error.count("\n") == 1
    assert all(np.isfinite(array).all() for array in load_state(tmp_path / "run" / CHECKPOINT).arrays.values())


@pytest.mark.slow
def test_a_gradient_that_is_no_number_is_not_kept(
    shapes: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for a step in the next epoch: a checkpoint with it could never go on."""
    add, calls = Learner.add, []

    def poisoned(self: Learner, total: Any) -> None:
        calls.append(1)
        add(self, total * float("nan") if len(calls) == 6 else total)

    monkeypatch.setattr(Learner, "add", poisoned)
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", "--nominal-batch", "64", *without_warmup(tmp_path))) == 2
    error = capsys.readouterr().err
    assert "not finite any more (epoch 1, batch 6)" in error and error.count("\n") == 1
    assert all(np.isfinite(array).all() for array in load_state(tmp_path / "run" / CHECKPOINT).arrays.values())


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


def test_frozen_layers() -> None:
    names = ("model.0.conv.weight", "model.0.bn.weight", "model.1.cv1.conv.weight", "model.10.conv.weight", "model.24.m.0.weight")
    assert frozen(names, ("2",)) == list(names[:3])
    assert frozen(names, ("1",), [names[2]]) == [names[0], names[1], names[2]]
    assert frozen(names, ("0",)) == []
    assert frozen(names, ("model.1",)) == [names[2]]
    assert frozen(names, ("model.1*",)) == [names[2], names[3]]
    assert frozen(names, ("1", "model.24.m.*")) == [names[0], names[1], names[4]]


def test_what_counts_as_a_number_of_layers() -> None:
    """A superscript two is a digit to `str.isdigit` and no number to `int`: both names and patterns may hold such characters."""
    names = ("model.0.conv.weight", "model.1.conv.weight", "model.\u00b2.conv.weight", "stem.conv.weight")
    assert frozen(names, ("1",)) == [names[0]]
    assert frozen(names, ("model.\u00b2",)) == [names[2]]
    for item in ("\u00b2", "9" * 5000, "-1"):
        with pytest.raises(InputError, match="fits no layer"):
            frozen(names, (item,))


def test_columns_stand_in_one_order_whatever_a_checkpoint_has_done_to_the_rows() -> None:
    """A checkpoint keeps the keys of its rows sorted, so a resumed run has them in another order than an undisturbed one."""
    row = {"epoch": 0, "train/output_loss": 0.5, "train/feature_loss": 0.25}
    assert results_csv([row]) == results_csv([dict(sorted(row.items()))])
    assert results_csv([row]).splitlines()[0].endswith(",train/feature_loss,train/output_loss")
