"""YOLO data sets: by a data.yaml and by folders, with everything that can be broken in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from tests.data.making import picture, problems, real, text


def yolo(root: Path, label: str | bytes, names: Sequence[str] = ("a", "b")) -> Dataset:
    """A data set of one picture, 100 x 50, with this label file."""
    picture(root / "images" / "val" / "x.png")
    text(root / "labels" / "val" / "x.txt", label)
    return open_dataset(root, "val", names)


def test_yolo_boxes_by_hand(tmp_path: Path) -> None:
    found = yolo(tmp_path, "1 0.5 0.5 0.2 0.4\n\n0 .1 .2 .2 .4")
    np.testing.assert_allclose(found.boxes, [[40, 15, 60, 35], [0, 0, 20, 20]], atol=1e-5)
    assert found.boxes.dtype == np.float32
    assert (found.labels.tolist(), found.crowd.tolist(), found.starts.tolist()) == ([1, 0], [False, False], [0, 2])
    assert (found.names, found.sizes.tolist(), found.picture_ids, found.category_ids) == (("a", "b"), [[50, 100]], ("x",), (0, 1))
    assert found.report.lines() == []
    assert found.labels.dtype == found.sizes.dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "problem", "line"),
    [
        (b"0 .5 .5 .2", "label row without exactly five values, dropped", 2),
        (b"0 .5 .5 .2 .2 .9", "label row without exactly five values, dropped", 2),
        (b"0 .1 .1 .2 .1 .2 .2 .1", "label row without exactly five values, dropped", 2),  # a polygon that lost a number
        (b"0 .5 x .2 .2", "label row with a value that is not a finite number, dropped", 2),
        (b"0 .5 nan .2 .2", "label row with a value that is not a finite number, dropped", 2),
        (b"0 .5 inf .2 .2", "label row with a value that is not a finite number, dropped", 2),
        (b"1_0 .5 .5 .2 .2", "label row with a value that is not a finite number, dropped", 2),
        (b"-1 .5 .5 .2 .2", "label row whose class is not a whole number from 0 up, dropped", 2),
        (b"0.5 .5 .5 .2 .2", "label row whose class is not a whole number from 0 up, dropped", 2),
        (b"1e30 .5 .5 .2 .2", "label row whose class is not a whole number from 0 up, dropped", 2),
        (b"2 .5 .5 .2 .2", "class that is not among the names, dropped", 2),
        (b"0 1.5 .5 .2 .2", "label row with a value outside 0..1, dropped", 2),
        (b"0 .5 .5 -.2 .2", "label row with a value outside 0..1, dropped", 2),
        (b"0 .5 .5 0 .2", "box without area, dropped", 2),
        (b"0 .5 .5 .2 .\xff2", "label row that is not UTF-8 text, dropped", 2),
        (b"1 .5 .5 .2 .2", "box that repeats another of the same picture, dropped", 2),
    ],
)
def test_yolo_malformed_rows(tmp_path: Path, rows: bytes, problem: str, line: int) -> None:
    found = yolo(tmp_path, b"1 .5 .5 .2 .2\r\n" + rows + b"\r\n0 .5 .5 .4 .4\r\n")
    np.testing.assert_allclose(found.boxes, [[40, 20, 60, 30], [30, 15, 70, 35]], atol=1e-5)
    assert problems(found) == {problem: 1}
    assert found.report.examples[problem] == [f"{tmp_path}/labels/val/x.txt:{line}"]


def test_yolo_edges_of_the_picture(tmp_path: Path) -> None:
    """A little outside is rounding; more than a pixel is reported, clipped all the same."""
    found = yolo(tmp_path, "0 0.1 0.5 0.2000008 0.5\n0 1.0009 0.5 0.2 0.5\n")
    np.testing.assert_allclose(found.boxes, [[0, 12.5, 20, 37.5], [90, 12.5, 100, 37.5]], atol=1e-4)
    assert problems(found) == {"box reaches outside the picture, clipped": 1}
    assert found.boxes.min() >= 0


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf0 .5 .5 .2 .2", b"0 .5 .5 .2 .2\r", b"0.0\t.5 .5  .2 .2 \n \n", b"0 .5 .5 .2 .2\n\n\n"])
def test_yolo_text_of_other_systems(tmp_path: Path, content: bytes) -> None:
    found = yolo(tmp_path, content)
    assert (len(found.boxes), problems(found)) == (1, {})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_yolo_label_file_in_utf_16(tmp_path: Path, encoding: str) -> None:
    """As PowerShell's `>` writes it."""
    found = yolo(tmp_path, "0 .5 .5 .2 .2\r\n1 .5 .5 .4 .4\r\n".encode(encoding))
    np.testing.assert_allclose(found.boxes, [[40, 20, 60, 30], [30, 15, 70, 35]], atol=1e-5)
    assert problems(found) == {}


def test_yolo_backgrounds_strays_and_broken_pictures(tmp_path: Path) -> None:
    images, labels = tmp_path / "images" / "train", tmp_path / "labels" / "train"
    picture(images / "a.jpg")
    picture(images / "sub" / "später 图.png", 20, 30)
    for name in ("a", "sub/später 图", "empty", "cut", "nothing", "classes"):
        text(labels / f"{name}.txt", "0 .5 .5 .5 .5\n")
    picture(images / "background.bmp")
    text(images / "empty.jpg")
    text(images / "cut.jpg", picture(tmp_path / "whole.jpg", 300, 300).read_bytes()[:-400])
    found = open_dataset(tmp_path, "train")
    assert [Path(path).name for path in found.paths] == ["a.jpg", "background.bmp", "später 图.png"]
    assert (found.sizes.tolist(), found.starts.tolist(), found.names) == ([[50, 100], [50, 100], [20, 30]], [0, 1, 1, 2], ("class0",))
    assert found.targets(2)[0].tolist() == [[7.5, 5, 22.5, 15]]
    assert found.report.examples == {
        "label file without a picture, ignored": [f"{labels}/nothing.txt"],
        "picture file is empty, left out": [f"{images}/empty.jpg"],
        "picture is damaged, truncated or of an unknown format, left out": [f"{images}/cut.jpg"],
    }


def test_yolo_yaml_with_every_kind_of_entry(tmp_path: Path) -> None:
    for name in ("images/one/a.png", "images/two/b.png", "images/three/c.png", "images/three/d.png"):
        picture(tmp_path / "base" / name)
    text(tmp_path / "base" / "labels" / "three" / "c.txt", "1 .5 .5 .2 .2")
    text(
        tmp_path / "base" / "lists" / "three.txt",
        f"images/three/c.png\n\n./images/three/d.png\n{tmp_path}/base/images/three/c.png\nimages/gone.png\n",
    )
    text(tmp_path / "base" / "near.txt", "./images/two/b.png\n")
    yaml = text(
        tmp_path / "data.yaml", "path: base\ntrain: images/one\nval: [images/two, lists/three.txt]\ntest: near.txt\nnc: 2\nnames: {0: no, 1: 1e3}\n"
    )
    found = open_dataset(yaml, "val")
    assert found.picture_ids == ("b", "c", "d")
    assert (found.names, found.labels.tolist(), found.starts.tolist()) == (("no", "1e3"), [1], [0, 0, 1, 1])
    assert problems(found) == {"picture is listed more than once, counted once": 1, "picture is missing, left out": 1}
    assert open_dataset(str(yaml), "train").picture_ids == ("a",)
    assert open_dataset(yaml, "test").picture_ids == ("b",)
    assert open_dataset(tmp_path, "train").picture_ids == ("a",)  # the folder that holds the yaml


def test_yolo_yaml_of_roboflow(tmp_path: Path) -> None:
    picture(tmp_path / "valid" / "images" / "a.jpg")
    text(tmp_path / "valid" / "labels" / "a.txt", "0 .5 .5 .2 .2")
    text(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['x']\n")
    assert open_dataset(tmp_path).targets(0)[0].tolist() == [[40, 20, 60, 30]]
    (tmp_path / "data.yaml").unlink()
    assert len(open_dataset(tmp_path).boxes) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("test: images\nnames: [a]", "there is no split val; it has test"),
        ("names: [a]", "there is no split val; expected train, val or test"),
        ("val: images\nnc: 3\nnames: [a]", "nc is 3, but there are 1 names"),
        ("val: images\nnc: x", "nc is 'x', expected the number of classes"),
        ("val: images\nnames: {0: a, 2: b}", "expected 0 to 1"),
        ("val: images\nnames: 5", "names is '5', expected a list of names; the number of classes is nc"),
        ("val: images\nnames: {a: b}", "the numbers of the names are ['a'], expected 0 to 0"),
        ("val: images\nnames: [[a]]", "names is "),
        ("val: none", "val is none, and there is no"),
        ("val: {a: b}", "is not a path"),
        ("val: [[images]]", "is not a path"),
        ("path: gone\nval: nowhere", "val is nowhere, and there is no"),
        ("val: images", "no pictures"),
        ("[1, 2", "not readable as YAML"),
        ("- a", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: &a [*a]\nval: *a\n", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
    ],
)
def test_yolo_yaml_errors(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="d.yaml: ") as error:
        open_dataset(text(tmp_path / "d.yaml", content))
    assert told in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_yolo_folders_by_split(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    picture(tmp_path / "images" / "train2017" / "a.png")
    assert open_dataset(tmp_path, "val").picture_ids == ("a",)  # the only one
    picture(tmp_path / "images" / "val2017" / "b.png")
    assert open_dataset(tmp_path, "val").picture_ids == ("b",)
    with pytest.raises(InputError, match="no folder for the split test; there are train2017, val2017"):
        open_dataset(tmp_path, "test")
    picture(tmp_path / "images" / "val2014" / "b.png")
    with pytest.raises(InputError, match="several folders fit the split val"):
        open_dataset(tmp_path, "val")


def test_yolo_number_of_classes_without_names(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    text(tmp_path / "labels" / "a.txt", "1 .5 .5 .2 .2\n3 .5 .5 .2 .2")
    found = open_dataset(text(tmp_path / "d.yaml", "val: images\nnc: 2\n"))
    assert (found.names, found.labels.tolist(), problems(found)) == (("class0", "class1"), [1], {"class that is not among the names, dropped": 1})
    with pytest.raises(InputError, match="nc is 2, but there are 1 names"):
        open_dataset(tmp_path / "d.yaml", names=["a"])


def test_pictures_through_links(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "images" / "a.png")
    (tmp_path / "base" / "images" / "val").mkdir(parents=True)
    (tmp_path / "base" / "labels").mkdir()
    (tmp_path / "base" / "images" / "val" / "link").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "elsewhere" / "images" / "loop").symlink_to(tmp_path / "base" / "images" / "val")
    text(tmp_path / "base" / "labels" / "val" / "link" / "a.txt", "0 .5 .5 .2 .2")
    found = open_dataset(tmp_path / "base")
    assert (found.paths, len(found.boxes)) == ((f"{tmp_path}/base/images/val/link/a.png",), 1)


def test_no_picture_is_readable(tmp_path: Path) -> None:
    text(tmp_path / "images" / "a.jpg", "no picture")
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="no readable picture among 1"):
        open_dataset(tmp_path)


def test_unrecognisable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set found; looked for a data.yaml, Annotations/ and ImageSets/Main/"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="expected a mapping"):
        open_dataset(text(tmp_path / "notes.txt", "hello"))


def test_coco128() -> None:
    found = open_dataset(real("coco128"), "val")
    assert (len(found), len(found.boxes), len(found.names)) == (128, 929, 80)
    assert problems(found) == {"label file without a picture, ignored": 2}
