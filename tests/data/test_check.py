"""`octrim data --check` on data sets small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.cli import main
from octrim.data.check import summary
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.data.sheet import CAPTION, HEIGHT, WIDTH, contact_sheet
from octrim.evaluate.detections import COLOURS


def make(root: Path, count: int = 3) -> Path:
    """Pictures of 200 x 100; the first has four boxes, the second one, the others none."""
    (root / "images" / "train").mkdir(parents=True)
    (root / "labels" / "train").mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(root / "images" / "train" / f"{number}.png"), np.full((100, 200, 3), 60, np.uint8))
    # 31 x 31 and 32 x 32 pixels, 95 x 97 and 96 x 96 pixels, lying apart in neither case.
    rows = [(0, 31, 31), (0, 32, 32), (2, 95, 97), (0, 97, 96)]
    text = "".join(f"{label} .5 .5 {width / 200} {height / 100}\n" for label, width, height in rows)
    (root / "labels" / "train" / "0.txt").write_text(text)
    (root / "labels" / "train" / "1.txt").write_text("2 .5 .5 .01 .01\n")
    return root


def test_counts_by_hand(tmp_path: Path) -> None:
    facts = summary(open_dataset(make(tmp_path), "train", ["a", "b", "c"]))
    assert (facts["pictures"], facts["backgrounds"], facts["boxes"], facts["crowd_regions"]) == (3, 1, 5, 0)
    assert [list(entry.values()) for entry in facts["classes"]] == [[0, "a", 3, 1, 0.6], [1, "b", 0, 0, 0.0], [2, "c", 2, 2, 0.4]]
    assert facts["coco_sizes"] == {"small": 2, "medium": 2, "large": 1}  # 32 x 32 is medium: COCO's bounds belong to the upper range
    # 2 x 1, 31 x 31, 32 x 32 and 95 x 97, 97 x 96 pixels of 20,000
    assert facts["picture_shares"] == {"below 0.1 %": 1, "0.1 to 1 %": 0, "1 to 10 %": 2, "10 % and more": 2}
    assert facts["percentiles"]["box_width"]["p50"] == 32
    assert (facts["picture_sizes"], facts["problems"]) == ({"200x100": 3}, {})


def test_crowd_regions_are_counted_apart() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [0, 0, 50, 50]], np.float32)
    sizes, starts = np.asarray([[100, 100]], np.int32), np.asarray([0, 2])
    dataset = Dataset(("a",), ("x",), sizes, boxes, np.zeros(2, np.int32), np.asarray([False, True]), starts, ("x",), (0,))
    facts = summary(dataset)
    assert (facts["boxes"], facts["crowd_regions"], facts["classes"][0]["boxes"], facts["coco_sizes"]["small"]) == (1, 1, 1, 1)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "[red] data")
    (root / "labels" / "train" / "gone [bold].txt").write_text("")
    arguments = ["data", "--check", str(root), "--names", "a", "[b]", "$c$", "--project", str(tmp_path / "runs")]
    assert main(arguments) == 0
    folder = tmp_path / "runs" / "exp"
    names = {"check.json", "classes.png", "boxes.png", "contact.jpg", "config.yaml", "log.txt"}
    assert {path.name for path in folder.iterdir()} == names
    facts = json.loads((folder / "check.json").read_text("utf-8"))
    assert facts["problems"] == {"label file without a picture, ignored": {"count": 1, "examples": [f"{root}/labels/train/gone [bold].txt"]}}
    printed = capsys.readouterr().out
    for told in ("3 pictures, 1 of them without boxes; 5 boxes", "[b]", "60.0 %", "problems: 1", "gone [bold].txt", str(folder)):
        assert told in printed.replace("\n", "") or told in printed
    for name in ("classes.png", "boxes.png"):
        image = cv2.imread(str(folder / name))
        assert image is not None and image.std() > 10


@pytest.mark.slow
def test_a_data_set_without_boxes(tmp_path: Path) -> None:
    root = make(tmp_path)
    for path in (root / "labels" / "train").iterdir():
        path.write_text("")
    assert main(["data", "--check", str(root), "--project", str(tmp_path / "runs")]) == 0
    facts = json.loads((tmp_path / "runs" / "exp" / "check.json").read_text())
    assert (facts["boxes"], facts["backgrounds"], facts["coco_sizes"]) == (0, 3, {"small": 0, "medium": 0, "large": 0})


def parts(root: Path, val: str, test: str = "") -> Path:
    """A data set with a training part of three pictures, and one of two to validate, the labels of whose first picture are `val`."""
    make(root)
    for number in range(2):
        (root / "images" / "val").mkdir(exist_ok=True)
        (root / "labels" / "val").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "images" / "val" / f"{number}.png"), np.full((100, 200, 3), 90 + number, np.uint8))
    (root / "labels" / "val" / "0.txt").write_text(val)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\n{test}names: [a, b, c]\n")
    return root / "data.yaml"


@pytest.mark.slow
def test_every_part_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The part that validates has a box of an unknown class, and the folder of the test part does not exist."""
    path = parts(tmp_path / "data", "0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n", "test: nowhere\n")
    assert main(["data", "--check", str(path), "--project", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "3 pictures, 1 of them without boxes; 5 boxes" in printed
    assert "val: 2 pictures, 1 of them without boxes; 1 boxes; problems: 1" in printed
    assert "no problems found" in printed and "test: " in printed and "nowhere" in printed
    others = json.loads((tmp_path / "runs" / "exp" / "check.json").read_text())["other_parts"]
    assert others["val"]["boxes"] == 1 and "nowhere" in others["test"]["error"]
    assert main(["data", "--check", str(path), "--split", "train", "--project", str(tmp_path / "runs")]) == 0
    assert "val: " not in capsys.readouterr().out


@pytest.mark.slow
def test_a_part_to_validate_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = parts(tmp_path / "data", "")
    for picture in (tmp_path / "data" / "images" / "val").iterdir():
        picture.write_bytes(b"")
    assert main(["data", "--check", str(path), "--project", str(tmp_path / "runs")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("octrim data: error: the part that validates cannot be read: ") and captured.err.count("\n") == 1
    assert "3 pictures, 1 of them without boxes; 5 boxes" in captured.out


def test_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, told in ((["data"], "--check is missing"), (["data", "--check", str(tmp_path)], "no data set found")):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # no run folder for a run that did not happen


def test_contact_sheet(tmp_path: Path) -> None:
    """Boxes lie where they belong, in the colours of their classes; what cannot be decoded is said."""
    root = make(tmp_path, 4)
    (root / "labels" / "train" / "0.txt").write_text("0 .5 .5 .4 .4\n")
    dataset = open_dataset(root, "train", ["a", "b", "c"])
    data = contact_sheet(dataset, seed=0)
    assert data == contact_sheet(dataset, seed=0)
    sheet = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (HEIGHT + CAPTION, 2 * WIDTH, 3)  # two pictures have boxes
    # The picture of 200 x 100 fills the tile's width, but for two pixels on each side; its box begins at x = 60.
    scale = (WIDTH - 4) / 200
    x = round(2 + 60 * scale)
    y = round(2 + (HEIGHT - 4 - 100 * scale) / 2 + 50 * scale)
    edge = sheet[y, x - 1 : x + 2].astype(int)
    assert np.abs(edge - np.asarray(COLOURS[0])).sum(1).min() < 60
    Path(dataset.paths[0]).write_bytes(b"broken")
    contact_sheet(dataset, seed=0)
    assert dataset.report.counts == {"picture whose header is whole cannot be decoded": 1}


def test_contact_sheet_of_many(tmp_path: Path) -> None:
    root = make(tmp_path, 30)
    for number in range(30):
        (root / "labels" / "train" / f"{number}.txt").write_text("0 .5 .5 .5 .5\n")
    sheet = cv2.imdecode(np.frombuffer(contact_sheet(open_dataset(root), seed=0), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (4 * (HEIGHT + CAPTION), 4 * WIDTH, 3)
