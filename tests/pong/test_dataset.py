"""`octrim pong data`: exact labels, the same files whoever makes them, and whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from octrim.commands.pong import PongData
from octrim.data import crew
from octrim.data.open import open_dataset
from octrim.data.yolorows import yolo_labels
from octrim.errors import InputError
from octrim.pong.dataset import PER_GAME, SPLITS, make_dataset, pictures
from octrim.pong.renderer import BALL, CLASSES

IMAGES = 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("pong") / "new" / "set", IMAGES, imgsz=128, seed=3, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_readers_find_nothing_wrong(made: Path) -> None:
    counts = {}
    for split in SPLITS:
        found = open_dataset(str(made / "data.yaml"), split)
        assert not found.report.lines()
        assert tuple(found.names) == CLASSES
        counts[split] = len(found)
        assert len(found.labels) > 2 * len(found)
    assert counts == {"train": 80, "val": 10, "test": 10}
    assert (made.stat().st_mode & 0o777) == (made.parent.stat().st_mode & 0o777)


@pytest.mark.slow
def test_labels_and_pictures_are_what_was_drawn(made: Path) -> None:
    classic_ones = 0
    for number in range(8):
        for place, (picture, classic) in enumerate(pictures(3, 128, 0, number, PER_GAME)):
            name = f"{PER_GAME * number + place:06d}"
            stored = cv2.imread(str(made / "images" / "train" / f"{name}.{'png' if classic else 'jpg'}"))
            assert stored is not None
            image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
            height, width = image.shape[:2]
            assert picture.image.shape == image.shape
            difference = np.abs(picture.image.astype(int) - image)
            assert not difference.any() if classic else difference.mean() < 6
            rows = yolo_labels([str(made / "labels" / "train" / f"{name}.txt")])["rows"]
            assert rows[:, 0].tolist() == picture.classes.tolist()
            corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1) * (width, height, width, height)
            np.testing.assert_allclose(corners, picture.boxes, atol=1e-3)
            classic_ones += classic
    assert classic_ones == 8


@pytest.mark.slow
def test_pictures_differ(made: Path) -> None:
    files = [data for name, data in contents(made).items() if name.startswith("images")]
    assert len(set(files)) == IMAGES
    balls = [
        (picture.boxes[0, :2] / max(picture.image.shape)).round(2).tolist()
        for number in range(12)
        for picture, _ in pictures(3, 128, 0, number, PER_GAME)
        if BALL in picture.classes
    ]
    assert len(np.unique(balls, axis=0)) > 0.8 * len(balls)


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same(made: Path, tmp_path: Path) -> None:
    told: list[int] = []
    make_dataset(tmp_path / "three", IMAGES, imgsz=128, seed=3, workers=3, progress=told.append)
    assert sum(told) == IMAGES
    assert contents(tmp_path / "three") == contents(made)
    assert [path.name for path in tmp_path.iterdir()] == ["three"]


@pytest.mark.slow
def test_workers_that_die_leave_the_work_to_us(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(_: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(crew, "start_child", dead)
    make_dataset(tmp_path / "set", IMAGES, imgsz=128, seed=3, workers=2)
    assert contents(tmp_path / "set") == contents(made)


@pytest.mark.slow
def test_an_empty_folder_is_taken_and_another_seed_is_another_set(made: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    make_dataset(tmp_path / "set", 10, imgsz=128, seed=4, workers=1)
    new, old = contents(tmp_path / "set"), contents(made)
    assert new.keys() >= {"data.yaml", "contact.jpg"}
    assert not {data for name, data in new.items() if name.startswith("images")} & set(old.values())
    assert sum(name.startswith("images") for name in new) == 10


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    for name, message in (("full", "not empty"), ("file", "is a file"), ("file/set", "cannot be made"), ("loose", "is a file")):
        with pytest.raises(InputError, match=message) as caught:
            make_dataset(tmp_path / name, 10, imgsz=64, workers=1)
        assert name in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "loose", "mine.txt"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 9}, "images is 9, expected 10 to"),
        ({"images": 10.5}, "images is 10.5"),
        ({"images": True}, "images is True"),
        ({"imgsz": 32}, "imgsz is 32, expected 64 to 4096"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0, expected 1 to"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_dataset(tmp_path / "set", **values)
    assert not list(tmp_path.iterdir())


def test_an_error_in_between_leaves_nothing(tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        make_dataset(tmp_path / "set", 20, imgsz=64, workers=1, progress=full)
    assert not list(tmp_path.iterdir())


def marked(mark: str) -> list[int]:
    """Processes with the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_data_set_and_no_process(number: signal.Signals, tmp_path: Path) -> None:
    mark = f"OCTRIM_MARK={os.getpid()}-{number}"
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where the tests run in the background of a shell
        f"from octrim.pong.dataset import make_dataset; make_dataset({str(tmp_path / 'set')!r}, 100000, imgsz=64, workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL, env={**os.environ, "OCTRIM_MARK": mark.partition("=")[2]})
    try:
        until(lambda: len(marked(mark)) == 3 and any(tmp_path.rglob("*.txt")))
        process.send_signal(number)
        assert process.wait(30) != 0
        until(lambda: not marked(mark))
    finally:
        for left in marked(mark):
            os.kill(left, signal.SIGKILL)
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.rglob("data.yaml"))
    if number == signal.SIGINT:
        assert not list(tmp_path.iterdir())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PongData(images=10, out=str(tmp_path / "set"), imgsz=64, workers=1).run()
    printed = capsys.readouterr().out
    assert "10 pictures" in printed
    assert str(tmp_path / "set" / "data.yaml") in printed
