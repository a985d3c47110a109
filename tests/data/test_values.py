"""Values, texts, outlines and paths of users' files, read for what they mean."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.open import open_dataset
from octrim.data.paths import Locator, spellings, tails
from octrim.data.shapes import mask_box, polygon_box, segmentation_box
from octrim.data.texts import decoded, decoded_xml
from octrim.data.values import flag, name, number, whole
from octrim.data.vocobjects import xml_root
from octrim.data.yolorows import yolo_labels
from octrim.errors import InputError
from tests.data.making import picture, problems, text
from tests.data.test_coco import coco, entry

NOT_NUMBERS = (
    None,
    True,
    False,
    "",
    " ",
    "x",
    "1_0",
    "١",
    "nan",
    "inf",
    "1e999",
    "0x1",
    [],
    {},
    [1],
    float("nan"),
    float("inf"),
    10**400,
    "9" * 5000,
)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_what_is_no_number(value: Any) -> None:
    assert number(value) is None
    assert whole(value) is None


@pytest.mark.parametrize(
    ("value", "as_whole", "as_number"),
    [(7, 7, 7), (7.0, 7, 7), ("7", 7, 7), (" 7.0 ", 7, 7), ("-3", -3, -3), ("+3", 3, 3), (1.5, None, 1.5), ("1.5", None, 1.5), ("1e3", 1000, 1000)],
)
def test_numbers(value: Any, as_whole: int | None, as_number: float) -> None:
    assert whole(value) == as_whole
    assert type(whole(value)) in (int, type(None))
    assert number(value) == as_number


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_as_text_are_exact(value: int) -> None:
    assert whole(str(value)) == whole(value) == value


def test_flags_and_names() -> None:
    assert [flag(value) for value in (0, "0", 0.0, "false", "No", None, "", False, "0.0")] == [False] * 9
    assert [flag(value) for value in (1, "1", 1.0, "true", "YES", True)] == [True] * 6
    assert [flag(value) for value in (2, -1, "maybe", [], {}, 0.5, float("nan"))] == [None] * 7
    assert [name(value) for value in ("a", 5, 1.5)] == ["a", "5", "1.5"]
    assert [name(value) for value in ("", "  ", None, True, [], {})] == [None] * 6


def test_coco_values_of_other_types(tmp_path: Path) -> None:
    """Ids, categories, boxes and flags as text or floats; what means nothing is named."""
    images = [{"id": "7", "file_name": "a.png", "width": "100", "height": 50.0}, {"id": 3.0, "file_name": "b.png"}]
    categories = [{"id": "90", "name": "brush"}, {"id": 1.0, "name": 5}]
    annotations = [
        entry(["10", "20", 30, "10.5"], "1", image=7, category="90", iscrowd="0"),
        entry("[1, 2, 3, 4]", 2.0, image="3", category=1, iscrowd=0.0),
        entry([5, 5, 9, 9], 3, image="3.0", category="1", iscrowd="1"),
        entry([6, 6, 9, 9], 4, image=3, category=1, iscrowd="perhaps"),
    ]
    found = coco(tmp_path, annotations, images=images, categories=categories)
    assert (found.names, found.category_ids, found.picture_ids) == (("5", "brush"), (1, 90), ("7", 3))
    assert found.boxes.tolist() == [[10, 20, 40, 30.5], [1, 2, 4, 6], [5, 5, 14, 14], [6, 6, 15, 15]]
    assert found.crowd.tolist() == [False, False, True, False]
    assert problems(found) == {"iscrowd that is neither 0 nor 1, taken as 0": 1}


def test_coco_numbers_that_could_mean_two_pictures(tmp_path: Path) -> None:
    images = [{"id": "7", "file_name": "a.png"}, {"id": "07", "file_name": "b.png"}]
    found = coco(tmp_path, [entry([1, 1, 2, 2], 1, image="07"), entry([1, 1, 2, 2], 2, image=7)], images=images)
    assert found.starts.tolist() == [0, 0, 1]
    assert problems(found) == {"annotation of an image that is not in the file, dropped": 1}


SEGMENTATIONS = (
    [[10, 20, 40, 20, 40, 30.5]],
    [[10, 20, 12, 21, 11, 25], [30, 22, 40, 30.5, 33, 24]],
    [10, 20, 40, 20, 40, 30.5],
    [[10, 20], [40, 20], [40, 30.5]],
    [[["10", "20"], ["40", "20"], ["40", "30.5"]]],
)


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0], ["0", "0", "0", "0"]])
def test_coco_boxes_around_polygons(tmp_path: Path, segmentation: Any, box: Any) -> None:
    found = coco(tmp_path, [entry(box, segmentation=segmentation)])
    assert found.boxes.tolist() == [[10, 20, 40, 30.5]]
    assert problems(found) == {"polygon or mask, taken as the box around it": 1}
    assert found.report.problems == 0


def test_coco_boxes_around_masks(tmp_path: Path) -> None:
    mask = np.zeros((50, 100), np.uint8)
    mask[20:30, 10:40] = 1
    runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    counts = np.diff(np.concatenate([[0], runs, [mask.size]])).tolist()
    found = coco(tmp_path, [entry([], segmentation={"counts": counts, "size": [50, 100]}, iscrowd=1)])
    assert (found.boxes.tolist(), found.crowd.tolist()) == ([[10, 20, 40, 30]], [True])
    bad = coco(tmp_path / "bad", [entry([], segmentation={"counts": [1, 10**6], "size": [50, 100]}), entry([1, 1, 5, 5], 2)])
    assert problems(bad) == {"annotation without a box of four numbers, dropped": 1}


@pytest.mark.parametrize("density", [0.02, 0.3, 0.95])
def test_masks_against_brute_force_and_a_library(density: float) -> None:
    library = pytest.importorskip("faster_coco_eval.core.mask")
    generator = np.random.default_rng(7)
    for _ in range(100):
        height, width = generator.integers(1, 14, 2).tolist()
        mask = (generator.random((height, width)) < density).astype(np.uint8)
        rows, columns = np.nonzero(mask)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None
        encoded = library.encode(np.asfortranarray(mask))["counts"]
        compressed = encoded.decode() if isinstance(encoded, bytes) else encoded
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [1 - mask.T.ravel()[-1]]])))
        plain = np.diff(np.concatenate([[0], edges])).tolist()
        assert mask_box(compressed, [height, width]) == mask_box(plain, [height, width]) == expected


@pytest.mark.parametrize("counts", ["~~~", "P" * 1000, "\ud800", "0" * 20, [-1, 5], [1.5], ["x"], None, 0, [2**70]])
def test_masks_that_are_none(counts: Any) -> None:
    assert mask_box(counts, [3, 4]) is None
    assert mask_box([0, 12], [3, 4]) == [0, 0, 4, 3]
    assert mask_box([0, 12], counts) is None
    assert mask_box([0, 12], [3, counts]) is None


def test_outlines_that_are_none() -> None:
    assert [polygon_box(points) for points in ([], None, [1], [1, 2, 3], ["x", 1], [[1, 2], [3]], [None, 2], [[[1, 2]]])] == [None] * 8
    assert [segmentation_box(value) for value in ([], {}, "x", 5, [[1, 2, 3, 4, "x", 6]], [{}], [[], []])] == [None] * 7


@pytest.mark.parametrize(
    ("row", "box", "mark"),
    [
        ("1 .1 .2 .5 .2 .5 .6 .1 .6", [0.1, 0.2, 0.5, 0.6], 1),  # four points, as oriented boxes have
        ("1 .3 .2 .5 .4 .3 .6", [0.3, 0.2, 0.5, 0.6], 1),
        ("1 .3 .4 .4 .4 .2 .3 2 .4 .5 1 0 0 0", [0.1, 0.2, 0.5, 0.6], 2),  # three points, one of them not seen
        ("1 .3 .4 .4 .4 .2 .3 2", [0.1, 0.2, 0.5, 0.6], 2),
        ("1 0 0 0 1 1 1 1 0 .5 0", [0, 0, 1, 1], 1),  # an outline of zeros and ones is no pose
    ],
)
def test_yolo_outlines_and_poses_by_hand(tmp_path: Path, row: str, box: list[float], mark: int) -> None:
    table = yolo_labels([str(text(tmp_path / "a.txt", f"0 .5 .5 .2 .2\n{row}\n0 .5 .5 .4 .4\n"))])
    assert table["rows"][:, 0].tolist() == [0, 1, 0]
    assert (table["line"].tolist(), table["mark"].tolist(), len(table["bad_code"])) == ([1, 2, 3], [0, mark, 0], 0)
    centre, extent = table["rows"][1, 1:3], table["rows"][1, 3:]
    np.testing.assert_allclose([*(centre - extent / 2), *(centre + extent / 2)], box, atol=1e-9)


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=9), min_size=1, max_size=6))
def test_yolo_outlines_of_many_lengths(tmp_path_factory: pytest.TempPathFactory, outlines: list[list[tuple[float, float]]]) -> None:
    path = tmp_path_factory.getbasetemp() / "outlines.txt"
    path.write_text("".join("3 " + " ".join(f"{x!r} {y!r}" for x, y in points) + "\n" for points in outlines))
    rows = yolo_labels([str(path)])["rows"]
    corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], 1)
    expected = [[*np.min(points, 0), *np.max(points, 0)] for points in outlines]
    np.testing.assert_allclose(corners, expected, atol=1e-12)


def test_yolo_poses_by_kpt_shape(tmp_path: Path) -> None:
    """Two numbers a point look like an outline, and data.yaml says that they are none."""
    picture(tmp_path / "images" / "a.png")
    text(tmp_path / "labels" / "a.txt", "0 .5 .5 .2 .2 .1 .1 .9 .9\n")
    yaml = text(tmp_path / "data.yaml", "val: images\nnames: [a]\nkpt_shape: [2, 2]\n")
    np.testing.assert_allclose(open_dataset(yaml).boxes, [[40, 20, 60, 30]], atol=1e-5)
    yaml.write_text("val: images\nnames: [a]\n")
    np.testing.assert_allclose(open_dataset(yaml).boxes, [[10, 5, 90, 45]], atol=1e-5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "gbk"])
def test_texts(encoding: str) -> None:
    assert decoded("names: 猫, 狗\n".encode(encoding)) == "names: 猫, 狗\n"


def test_texts_that_are_none() -> None:
    with pytest.raises(UnicodeDecodeError):
        decoded(b"\xff\xff\xff")
    for encoding in ("rot13", "base64", "no", "unicode_escape", "idna"):
        with pytest.raises(LookupError):
            decoded_xml(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode())
    assert xml_root(codecs.BOM_UTF8 + b"<a>x</a>") is not None


@pytest.mark.parametrize("declared", ["gb2312", "utf8", "utf-7", "big5"])
def test_entities_are_refused_in_every_encoding(declared: str) -> None:
    bomb = f'<?xml version="1.0" encoding="{declared}"?><!DOCTYPE x [<!ENTITY a "ha">]><annotation>&a;</annotation>'
    assert xml_root(bomb.encode("ascii")) is None
    assert xml_root(bomb.encode("utf-16")) is None


def test_spellings_and_tails() -> None:
    assert spellings(' "C:\\data\\a b.jpg" ') == ["/data/a b.jpg"]
    assert spellings(".\\images\\a.jpg") == ["./images/a.jpg"]
    assert spellings("file:///home/x/a%20b.jpg") == ["/home/x/a b.jpg"]
    assert spellings("file:///C:/x/a.jpg") == ["/x/a.jpg"]
    assert spellings("https://host/media/a.jpg?token=1") == ["/media/a.jpg"]
    assert spellings("/data/local-files/?d=pictures/a.jpg")[0] == "pictures/a.jpg"
    assert spellings("a\0b") == []
    assert list(tails("../x/./y/a.jpg")) == ["x/y/a.jpg", "y/a.jpg", "a.jpg"]
    assert list(tails("/home/train/images/a.jpg")) == ["home/train/images/a.jpg", "train/images/a.jpg"]  # never train's for val's


def located(root: Path, *written: str, split: str = "") -> list[str]:
    def plain(line: str) -> tuple[str, bool]:
        return str(root / line), (root / line).exists()

    return [os.path.relpath(path, root) for path in Locator([str(root)], [str(root)], split).locate(written, plain).paths]


def test_paths_written_elsewhere(tmp_path: Path) -> None:
    for place in ("images/train/a.jpg", "images/train/B.JPG", "images/val/a.jpg", "images/val/c.jpg"):
        text(tmp_path / place)
    assert located(tmp_path, "D:\\ds\\images\\train\\a.jpg", "D:\\ds\\images\\train\\B.JPG") == ["images/train/a.jpg", "images/train/B.JPG"]
    assert located(tmp_path, "/home/bob/ds/images/train/b.jpg") == ["images/train/B.JPG"]  # by name, in another letter case
    assert located(tmp_path, "c.jpg") == ["images/val/c.jpg"]
    assert located(tmp_path, "x/c.jpg", split="train") == ["x/c.jpg"]  # the only one is val's
    assert located(tmp_path, "b.jpg", split="test") == ["images/train/B.JPG"]  # test has no folder of its own
    assert located(tmp_path, "test/b.jpg", split="test") == ["test/b.jpg"]  # and was said to have one
    assert located(tmp_path, "a.jpg") == ["a.jpg"]  # there are two
    assert located(tmp_path, "a.jpg", split="val") == ["images/val/a.jpg"]
    assert located(tmp_path, "images/train/a.jpg", "images/train/b.jpg ") == ["images/train/a.jpg", "images/train/B.JPG"]
    # One of a folder that is there is missing, not elsewhere.
    assert located(tmp_path, "images/train/a.jpg", "images/train/c.jpg") == ["images/train/a.jpg", "images/train/c.jpg"]


@pytest.mark.parametrize("entry", ["images\\val", "my_crops/images/val", "D:\\work\\my_crops\\images\\val", "../my_crops/images/val", " images/val "])
def test_yaml_entries_written_elsewhere(tmp_path: Path, entry: str) -> None:
    picture(tmp_path / "my_crops" / "images" / "val" / "a.png")
    text(tmp_path / "my_crops" / "labels" / "val" / "a.txt", "0 .5 .5 .2 .2")
    found = open_dataset(text(tmp_path / "my_crops" / "data.yaml", f"val: '{entry}'\nnames: [a]\n"))
    assert (found.paths, len(found.boxes)) == ((f"{tmp_path}/my_crops/images/val/a.png",), 1)


def test_yaml_of_yolov5_beside_its_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """yolov5/data/coco.yaml says ../datasets/coco, from the folder where one types."""
    picture(tmp_path / "datasets" / "coco" / "images" / "val" / "a.png")
    text(tmp_path / "datasets" / "coco" / "labels" / "val" / "a.txt", "0 .5 .5 .2 .2")
    yaml = text(tmp_path / "yolov5" / "data" / "coco.yaml", "path: ../datasets/coco\nval: images/val\nnames: [a]\n")
    monkeypatch.chdir(tmp_path / "yolov5")
    found = open_dataset(yaml)
    assert len(found.boxes) == 1
    assert any("found as" in note for note in found.notes)
    yaml.write_text("path: ../datasets/none\nval: images/val\nnames: [a]\n")
    with pytest.raises(InputError, match="val is images/val, and there is no"):
        open_dataset(yaml)
