"""A small data set of squares and discs, and a small network to train on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data.loader import TrainingBatch
from octrim.network.initialize import fresh_model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.training.checkpoint import State
from octrim.training.record import Record
from tests.networks import tiny_model


def draw_shapes(root: Path, counts: dict[str, int], side: int = 96, seed: int = 0) -> Path:
    """Bright squares and dark discs on grey, labelled; returns the data.yaml."""
    generator = np.random.default_rng(seed)
    for split, count in counts.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = generator.integers(90, 130, (side, side, 3), np.uint8)
            rows = []
            for _ in range(int(generator.integers(1, 4))):
                size = int(generator.integers(side // 5, side // 2))
                x, y = generator.integers(0, side - size, 2).tolist()
                label = int(generator.integers(0, 2))
                if label:
                    cv2.circle(image, (x + size // 2, y + size // 2), size // 2, (20, 20, 20), -1)
                else:
                    cv2.rectangle(image, (x, y), (x + size, y + size), (240, 240, 240), -1)
                rows.append(f"{label} {(x + size / 2) / side:.5f} {(y + size / 2) / side:.5f} {size / side:.5f} {size / side:.5f}")
            assert cv2.imwrite(str(root / "images" / split / f"{index:03}.png"), image)
            (root / "labels" / split / f"{index:03}.txt").write_text("\n".join(rows) + "\n")
    path = root / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames: [square, disc]\n")
    return path


COUNTS = {"train": 22, "val": 6}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_shapes(tmp_path / "shapes", COUNTS)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `tiny_model`, for two classes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    tiny_model().save(path)
    return path


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh yolov5n of 1/8 the channels, for two classes."""
    model = fresh_model("yolov5n", names=("square", "disc"), classes=2)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    prune(model, plan(model, "1/8", 8, "random")).save(path)
    return path


@contextmanager
def stopped_after(epoch: int, batch: int) -> Iterator[None]:
    """Trainings are stopped by Ctrl-C once a batch is done. epoch: counted from 0. batch: number of batches of that epoch that are done."""
    keep = Record.batch

    def stopping(self: Record, now: int, images: TrainingBatch, side: int, state: State) -> None:
        keep(self, now, images, side, state)
        if (now, state.batch) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        yield
