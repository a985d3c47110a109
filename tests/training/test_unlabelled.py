"""Fine-tuning with pictures that have no labels: only the teacher says something of them; runs resume, and two processes do the work of one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.cli import main
from octrim.data.loader import Loader
from octrim.data.open import open_dataset
from octrim.data.unlabelled import open_unlabelled
from octrim.network.loading import load
from octrim.report.files import read_run
from octrim.report.sections import page
from octrim.targets.session import float_batch
from octrim.training.checkpoint import CHECKPOINT, load_state
from octrim.training.distillation import Distillation
from octrim.training.hyper import Hyperparameters
from octrim.training.loss import DetectionLoss
from octrim.training.optimizer import Optimizer, Weights
from octrim.training.schedule import Schedule
from tests.networks import tiny_model
from tests.training.conftest import draw_shapes, stopped_after

pytestmark = pytest.mark.usefixtures("unrendered")

BATCH, SIDE = 4, 64


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    tiny_model(2.0, seed=1).save(tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def others(tmp_path: Path) -> Path:
    draw_shapes(tmp_path / "others", {"train": 7}, seed=5)
    return tmp_path / "others" / "images" / "train"


def command(shapes: Path, weights: Path, teacher: Path, others: Path, *more: str) -> list[str]:
    recipe = teacher.parent / "recipe.yaml"
    recipe.write_text("warmup_epochs: 0\n")
    names = ["--weights", str(weights), "--teacher", str(teacher), "--data", str(shapes), "--unlabelled", str(others), "--hyp", str(recipe)]
    sizes = ["--imgsz", str(SIDE), "--batch", str(BATCH), "--nominal-batch", "44", "--unlabelled-share", "0.5"]
    return ["finetune", *names, *sizes, "--project", str(teacher.parent), "--workers", "0", *more]


def by_hand(shapes: Path, weights: Path, teacher: Path, others: Path, ranks: int) -> np.ndarray:
    """Parameters after an epoch whose 11 batches are one step: labelled pictures have both losses, unlabelled ones that of the teacher alone."""
    model, hyper = load(weights), Hyperparameters(warmup_epochs=0.0)
    train_set = open_dataset(shapes, "train")
    unlabelled = open_unlabelled([str(others)], train_set, None, BATCH, ranks, 0.5)
    network = PaddleNetwork(model)
    network.train()
    flat, loss = Weights(network), DetectionLoss(model.network, hyper, SIDE)
    distillation = Distillation(load(teacher), model, hyper, SIDE, 2.0, 0.0)
    start, gradient = flat.values(), 0.0
    for rank in range(ranks):
        flat.assign(start)
        loader = Loader(train_set, SIDE, BATCH, hyper.augmentation, 0, 0, "none", rank, ranks, unlabelled)
        for batch in loader.epoch(0):
            images = paddle.to_tensor(float_batch(batch.images))
            heads = network(images)
            labelled = (batch.indices < len(train_set)).sum()
            assert 0 < labelled < len(batch.indices)
            loss([head[:labelled] for head in heads], batch.targets).total.backward()
            gradient = gradient + flat.parameters.gradient()
            distillation(images, network(images), [])[0].backward()
            gradient = gradient + flat.parameters.gradient()
    flat.assign(start)
    Optimizer.create(flat, "SGD", 0.0005).step(gradient, Schedule(hyper, 1, 11, 11).at(0, 10))
    return flat.parameters.values().numpy()


def parameters(run: Path) -> np.ndarray:
    state = load_state(run / CHECKPOINT)
    assert state.steps == 1
    return state.arrays["values"][: len(state.arrays["gradient"])]


@pytest.mark.slow
def test_labels_count_on_labelled_pictures_and_the_teacher_on_all(
    shapes: Path, tiny_weights: Path, teacher: Path, others: Path, tmp_path: Path
) -> None:
    assert main(command(shapes, tiny_weights, teacher, others, "--epochs", "1", "--noval", "--name", "run")) == 0
    found = parameters(tmp_path / "run")
    np.testing.assert_allclose(found, by_hand(shapes, tiny_weights, teacher, others, 1), rtol=1e-5, atol=1e-5)
    told = (tmp_path / "run" / "log.txt").read_text()
    assert (
        "unlabelled: 7 pictures (digest " in told and "take 2 of 4 places in every batch; an epoch is one pass over the 22 labelled pictures" in told
    )
    assert "11 batches, with 22 pictures without labels" in told
    model = load(tmp_path / "run" / "best.safetensors")
    assert model.lineage[-1]["unlabelled"].startswith("7 pictures in 2 of 4 places of a batch, digest ")
    assert "7 unlabelled pictures" in page(read_run(tmp_path / "run"))["about"]


@pytest.mark.slow
def test_two_processes_equal_two_halves(shapes: Path, tiny_weights: Path, teacher: Path, others: Path, tmp_path: Path) -> None:
    arguments = command(shapes, tiny_weights, teacher, others, "--epochs", "1", "--noval", "--name", "run", "--devices", "2")
    assert subprocess.run([sys.executable, "-m", "octrim", *arguments], check=False).returncode == 0
    np.testing.assert_allclose(parameters(tmp_path / "run"), by_hand(shapes, tiny_weights, teacher, others, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_pictures_to_the_same_bits(
    shapes: Path,
    tiny_weights: Path,
    teacher: Path,
    others: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--epochs", "2", "--noval", "--nominal-batch", "8")
    assert main(command(shapes, tiny_weights, teacher, others, *more, "--name", "whole", "--workers", "2")) == 0
    with stopped_after(1, 5):
        assert main(command(shapes, tiny_weights, teacher, others, *more, "--name", "run")) == 130
    shutil.move(others, tmp_path / "moved")
    resume = ["finetune", "--resume", str(tmp_path / "run")]
    capsys.readouterr()
    assert main(resume) == 2
    assert "no such file or folder" in capsys.readouterr().err
    image = tmp_path / "moved" / "000.png"
    image.rename(tmp_path / "kept.png")
    assert main([*resume, "--unlabelled", str(tmp_path / "moved")]) == 2
    assert capsys.readouterr().err.endswith(f"not the unlabelled pictures that {tmp_path / 'run'} began with\n")
    (tmp_path / "kept.png").rename(image)
    assert main([*resume, "--unlabelled", str(tmp_path / "moved")]) == 0
    for name in ("best.safetensors", "results.csv"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("run", "whole"))
        assert first == second, name
    assert main(resume) == 0  # the new place need not be named again


def test_refusals_leave_no_folder(
    shapes: Path, tiny_weights: Path, teacher: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = command(shapes, tiny_weights, teacher, others, "--project", str(tmp_path / "runs"))
    place = whole.index("--teacher")
    alone = whole[:place] + whole[place + 2 :]
    for arguments, told in [
        (alone, "--unlabelled needs --teacher: without labels, only a teacher says what is on a picture"),
        ([*whole, "--distill", "none"], "--unlabelled needs --teacher"),
        ([*whole, "--unlabelled-share", "0"], "--unlabelled-share is 0.0, expected more than 0 and at most 0.99"),
        ([*whole, "--unlabelled", str(shapes.parent / "images" / "train")], "none of 22 pictures is left to join the training; 22 x "),
        ([*whole, "--batch", "1"], "batch is 1: a batch with labelled and unlabelled pictures has at least 2"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
