"""Trainings as the tests start them, and what is compared of their folders."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from octrim.training.checkpoint import CHECKPOINT, load_state

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


def start(command: list[str], **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "octrim", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.01)


def without_warmup(tmp_path: Path) -> list[str]:
    """Options of a recipe without warm-up, in which an optimizer step would take fewer batches."""
    recipe = tmp_path / "cold.yaml"
    recipe.write_text("warmup_epochs: 0\n")
    return ["--hyp", str(recipe), "--noval", "--epochs", "2"]
