"""`evaluate` and `octrim val` from end to end: a session that knows the answers, files, classes, real weights."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import octrim.data.open
from octrim.cli import main
from octrim.commands import Val
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.data.pictures import read_picture
from octrim.errors import InputError
from octrim.evaluate.classes import map_classes
from octrim.evaluate.val import evaluate
from octrim.targets import opening
from octrim.targets.opening import open_session
from octrim.targets.session import SessionInfo
from tests.evaluate.material import dataset


class Seer:
    """A session that finds rectangles by their colour: red is class 0, green 1, blue 2, in pixels of the batch."""

    def __init__(
        self,
        names: tuple[str, ...] = ("red", "green", "blue"),
        size: tuple[int, int] | None = None,
        batch: int | None = None,
        batches: tuple[int, int] | None = None,
    ) -> None:
        self.info = SessionInfo("seer", "1", "fp32", names, 32, 128, size, batch, batches=batches)
        self.shapes: list[tuple[int, ...]] = []

    def prepare(self, batch: int, height: int, width: int) -> None:
        pass

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.shapes.append(batch.shape)
        result = np.zeros((len(batch), 3, 8), np.float32)
        for index, image in enumerate(batch.astype(int)):
            for channel in range(3):
                rows, columns = np.nonzero(image[..., channel] - image.max(2, where=np.arange(3) != channel, initial=0) > 120)
                if len(rows):
                    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    result[index, channel, :5] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.9
                    result[index, channel, 5 + channel] = 0.8
        return result


def scene(folder: Path) -> Dataset:
    """Five pictures of several aspects, each with a rectangle per class; the last one without the blue one, and unlabelled blue elsewhere."""
    sizes = [(240, 320), (320, 240), (256, 256), (100, 400), (512, 384)]
    truth = []
    paths = []
    for index, (height, width) in enumerate(sizes):
        image = np.full((height, width, 3), 40, np.uint8)
        objects = []
        for label in range(3 if index < 4 else 2):
            x1, y1 = width // 8 + label * width // 4, height // 4
            x2, y2 = x1 + width // 5, y1 + height // 2
            image[y1:y2, x1:x2] = np.eye(3)[2 - label] * 255  # BGR
            objects.append(((x1, y1, x2, y2), label, False))
        path = folder / f"{index}.png"
        cv2.imwrite(str(path), image)
        paths.append(str(path))
        truth.append(objects)
    return dataset(truth, ("red", "green", "blue"), paths, sizes)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        # aspects .25 .75 | 1 1.33 | 1.33 at stride 32 and side 128: (.75, 1), square, (1, .75)
        ({}, [(2, 128, 160, 3), (2, 160, 160, 3), (1, 160, 128, 3)]),
        ({"size": (96, 128)}, [(2, 96, 128, 3), (2, 96, 128, 3), (1, 96, 128, 3)]),
        ({"batch": 4}, [(4, 160, 160, 3), (4, 160, 128, 3)]),
        ({"batches": (3, 8)}, [(3, 160, 160, 3), (3, 160, 128, 3)]),
        ({"batches": (1, 1)}, [(1, 64, 160, 3), (1, 128, 160, 3), (1, 160, 160, 3), (1, 160, 128, 3), (1, 160, 128, 3)]),
    ],
)
def test_evaluate(tmp_path: Path, options: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    session = Seer(**options)
    done: list[int] = []
    result = evaluate(session, scene(tmp_path), batch=2, bootstrap=20, progress=done.append)
    assert session.shapes == shapes
    assert sum(done) == 5
    assert result.map50 == 1
    assert result.map > 0.8  # boxes come back from a third of the size
    assert (result.precision, result.recall) == (1, 1)
    assert result.objects.tolist() == [5, 5, 4]
    assert result.pictures.tolist() == [5, 5, 4]
    assert [len(found) for found in result.detections] == [3, 3, 3, 3, 2]
    assert result.interval["mAP50"] == (1, 1)
    assert set(result.speed_ms) == {"read", "pre", "network", "post"}


def test_height_and_width(tmp_path: Path) -> None:
    session = Seer()
    result = evaluate(session, scene(tmp_path), (64, 100), bootstrap=0)
    assert session.shapes == [(5, 64, 128, 3)]
    assert result.interval == {}


def test_unreadable_pictures_and_their_objects_are_left_out(tmp_path: Path) -> None:
    data = scene(tmp_path)
    Path(data.paths[2]).write_bytes(Path(data.paths[2]).read_bytes()[:200])
    result = evaluate(Seer(), data, bootstrap=0)
    assert len(result.failures) == 1 and data.paths[2] in result.failures[0]
    assert (result.images, result.unread) == (5, (2,))
    assert result.objects.tolist() == np.bincount(np.delete(data.labels, np.arange(*data.starts[2:4])), minlength=3).tolist()
    np.testing.assert_allclose([result.recall, result.map], 1)
    assert len(result.detections) == 5
    for path in data.paths:
        Path(path).unlink()
    with pytest.raises(InputError, match=r"none of the 5 pictures can be read: .*0\.png|none of the 5"):
        evaluate(Seer(), data, bootstrap=0)


def test_classes_of_another_order_and_number(tmp_path: Path) -> None:
    """Predictions are renumbered, and those of unknown classes leave room for the others."""
    data = scene(tmp_path)
    keep = np.flatnonzero(data.labels != 1)
    starts = np.searchsorted(keep, data.starts)
    fewer = replace(
        data, names=("blue", "Red"), boxes=data.boxes[keep], labels=np.where(data.labels[keep] == 0, 1, 0), crowd=data.crowd[keep], starts=starts
    )
    result = evaluate(Seer(), fewer, bootstrap=0, max_det=2)
    assert result.map50 == 1
    assert {int(label) for found in result.detections for label in found[:, 5]} == {0, 1}
    with pytest.raises(InputError, match=r"the network has 3 classes \(red, green, blue\) and the data set 2 \(blue, cat\).*does not know cat"):
        evaluate(Seer(), replace(fewer, names=("blue", "cat")))


def test_class_mapping() -> None:
    def mapped(network: tuple[str, ...], data: tuple[str, ...]) -> tuple[list[int], str | None]:
        mapping, note = map_classes(network, data)
        return mapping.tolist(), note

    assert mapped(("a", "b"), ("a", "b")) == ([0, 1], None)
    assert mapped(("a", "a"), ("a", "a")) == ([0, 1], None)
    assert mapped(("a", "b"), ("b", "a")) == ([1, 0], None)
    assert mapped(("a", "b", "c"), ("c", "a")) == ([1, -1, 0], "classes by name; predictions of 1 other class of the network are dropped")
    assert mapped(("A", "b"), ("a",))[0] == [0, -1]
    assert mapped(("A", "a"), ("a",))[0] == [-1, 0]
    numbers, note = mapped(("a", "b"), ("a", "dog"))
    assert numbers == [0, 1]
    assert note == "classes by number, because names differ (network, data set): b is dog"
    with pytest.raises(InputError, match=r"3 classes \(a, b, c\).*2 \(a, d\).*does not know d$"):
        map_classes(("a", "b", "c"), ("a", "d"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "conf is 1.5"),
        ({"iou": -1}, "iou is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"max_det": 0}, "max_det is 0"),
        ({"bootstrap": -1}, "bootstrap is -1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Seer(), dataset([]), **options)


def test_empty_and_fixed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        evaluate(Seer(), dataset([], ("red", "green", "blue")))
    with pytest.raises(InputError, match="built for 96x128 pixels"):
        evaluate(Seer(size=(96, 128)), scene(tmp_path), 64)


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """`octrim val` over the scene, with the session that knows."""
    data = scene(tmp_path)
    data.report.add("box outside the picture, clipped", "3.txt:1")
    monkeypatch.setattr(octrim.data.open, "open_dataset", lambda *_, **__: data)
    monkeypatch.setattr(opening, "open_session", lambda *_: Seer())
    monkeypatch.chdir(tmp_path)
    return data


@pytest.mark.slow
def test_command(answers: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["val", "--weights", "w", "--data", "d", "--batch", "2", "--bootstrap", "50"]) == 0
    run = tmp_path / "runs" / "val" / "exp"
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "log.txt", "metrics.json", "curves.json", "predictions.json", "pr.png", "f1.png", "confusion.png",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "d, val: 5 pictures, 14 objects, 3 classes" in printed
    assert "1 x box outside the picture, clipped: 3.txt:1" in printed
    assert "95 % interval" in printed
    assert all(name in printed for name in ("all", "red", "green", "blue"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["mAP50"] == metrics["precision"] == metrics["recall"] == 1
    assert metrics["images"] == 5
    assert set(metrics["speed_ms"]) == {"pre", "network", "post"}
    assert set(metrics["interval"]) == {"mAP50-95", "mAP50"}
    assert list(metrics["per_class"]) == ["red", "green", "blue"]
    assert metrics["per_class"]["blue"] | {"mAP50-95": 0} == {
        "pictures": 4, "objects": 4, "precision": 1, "recall": 1, "mAP50": 1, "mAP50-95": 0,
    }  # fmt: skip
    curves = json.loads((run / "curves.json").read_text())
    assert [row["name"] for row in curves["classes"]] == ["red", "green", "blue"] and len(curves["recall"]) == 101
    assert [np.mean(row["precision"]) for row in curves["classes"]] == [row["AP50"] for row in curves["classes"]] == [1, 1, 1]
    predictions = json.loads((run / "predictions.json").read_text())
    assert len(predictions) == 14
    boxes = {(entry["image_id"], entry["category_id"]): entry["bbox"] for entry in predictions}
    assert set(boxes) == {(f"picture{index}", 7 + 10 * label) for index in range(5) for label in range(3)} - {("picture4", 27)}
    np.testing.assert_allclose(boxes["picture0", 7], (40, 60, 64, 120), atol=3)
    assert predictions[0]["score"] == 0.72
    for name in ("pr.png", "f1.png", "confusion.png"):
        assert read_picture(run / name).shape[0] > 400


@pytest.mark.slow
def test_command_twice_gives_the_same_bytes(answers: Dataset, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["val", "--weights", "w", "--data", "d", "--bootstrap", "50"]) == 0
    first, second = tmp_path / "runs" / "val" / "exp", tmp_path / "runs" / "val" / "exp2"
    for name in ("predictions.json", "pr.png", "f1.png", "confusion.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    one, two = (json.loads((run / "metrics.json").read_text()) | {"speed_ms": None} for run in (first, second))
    assert one == two


def test_command_without_anything_to_find(answers: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    answers.crowd[:] = True
    assert main(["val", "--weights", "w", "--data", "d"]) == 2
    assert "d: 5 pictures in val and no labelled objects: nothing to measure" in capsys.readouterr().err
    assert main(["val", "--weights", "w"]) == 2
    assert "give --data" in capsys.readouterr().err


def test_names_are_no_markup(answers: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("[bold]red[/bold]", "$x_{$", "_日本")
    monkeypatch.setattr(octrim.data.open, "open_dataset", lambda *_, **__: replace(answers, names=names))
    monkeypatch.setattr(opening, "open_session", lambda *_: Seer(names))
    assert main(["val", "--weights", "w", "--data", "d", "--bootstrap", "0"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


@pytest.mark.slow
def test_official_weights_on_coco128(real_weights: Path) -> None:
    """The official evaluation gives mAP50-95 .3656, mAP50 .5592, R .4934."""
    folder = real_weights.parents[1] / "coco128"
    if not folder.is_dir():
        pytest.skip("no coco128 beside the weights")
    session = open_session(real_weights)
    result = evaluate(session, open_dataset(folder, "train", session.info.names), 640)
    assert abs(result.map - 0.3656) < 0.005
    assert abs(result.map50 - 0.5592) < 0.01
    assert abs(result.recall - 0.4934) < 0.02
    low, high = result.interval["mAP50-95"]
    assert low < result.map < high


@pytest.mark.slow
def test_official_weights_on_coco_json(real_weights: Path, tmp_path: Path) -> None:
    """Three of the 80 classes, by name; predictions under COCO's ids."""
    folder = real_weights.parents[1] / "coco_json"
    if not folder.is_dir():
        pytest.skip("no coco_json beside the weights")
    assert main(["val", "--weights", str(real_weights), "--data", str(folder), "--project", str(tmp_path), "--bootstrap", "0"]) == 0
    metrics = json.loads((tmp_path / "exp" / "metrics.json").read_text())
    assert set(metrics["per_class"]) == {"person", "car", "airplane"}
    assert all(entry["mAP50"] > 0.35 for entry in metrics["per_class"].values())
    predictions = json.loads((tmp_path / "exp" / "predictions.json").read_text())
    data = open_dataset(folder)
    assert {entry["category_id"] for entry in predictions} == set(data.category_ids)
    assert {entry["image_id"] for entry in predictions} <= set(data.picture_ids)


def test_defaults_of_the_command_are_those_of_the_function() -> None:
    config = Val()
    defaults = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    for name in ("imgsz", "batch", "conf", "iou", "max_det", "bootstrap", "seed", "score_voting"):
        assert getattr(config, name) == defaults[name]
