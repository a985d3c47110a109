"""Every format of data sets, with what is broken in them, by hand-made files and real ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError

REAL = Path(os.environ.get("OCTRIM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"no {name}: real data is looked for in the folder that OCTRIM_REAL_DATA names")
    return REAL / name


def picture(path: Path, height: int = 50, width: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, data = cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))
    assert encoded
    path.write_bytes(data.tobytes())
    return path


def text(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def yolo(root: Path, label: str | bytes, names: Sequence[str] = ("a", "b")) -> Dataset:
    """A data set of one picture, 100 x 50, with this label file."""
    picture(root / "images" / "val" / "x.png")
    text(root / "labels" / "val" / "x.txt", label)
    return open_dataset(root, "val", names)


def problems(dataset: Dataset) -> dict[str, int]:
    return dataset.report.counts


# YOLO


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
        (b"0 .1 .1 .2 .1 .2 .2 .1 .2", "label row without exactly five values, dropped", 2),  # a polygon
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


def test_yolo_label_file_in_utf_16(tmp_path: Path) -> None:
    found = yolo(tmp_path, "0 .5 .5 .2 .2\n".encode("utf-16"))
    assert len(found.boxes) == 0
    assert "label row that is not UTF-8 text, dropped" in problems(found)


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
        picture(tmp_path / "root" / name)
    text(tmp_path / "root" / "labels" / "three" / "c.txt", "1 .5 .5 .2 .2")
    text(
        tmp_path / "root" / "lists" / "three.txt",
        f"images/three/c.png\n\n./images/three/d.png\n{tmp_path}/root/images/three/c.png\nimages/gone.png\n",
    )
    text(tmp_path / "root" / "near.txt", "./images/two/b.png\n")
    yaml = text(
        tmp_path / "data.yaml", "path: root\ntrain: images/one\nval: [images/two, lists/three.txt]\ntest: near.txt\nnc: 2\nnames: {0: no, 1: 1e3}\n"
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


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("train: images\nnames: [a]", "there is no split val; it has train"),
        ("names: [a]", "there is no split val; expected train, val or test"),
        ("val: images\nnc: 3\nnames: [a]", "nc is 3, but there are 1 names"),
        ("val: images\nnc: x", "nc is 'x', expected the number of classes"),
        ("val: images\nnames: {0: a, 2: b}", "expected 0 to 1"),
        ("val: images\nnames: a", "names is 'a'"),
        ("val: images\nnames: [[a]]", "names is "),
        ("val: none", "val is none, and there is no"),
        ("val: {a: b}", "is not a path"),
        ("val: [[images]]", "is not a path"),
        ("path: gone\nval: images", "there is no folder"),
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


def test_no_picture_is_readable(tmp_path: Path) -> None:
    text(tmp_path / "images" / "a.jpg", "no picture")
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="no readable picture among 1"):
        open_dataset(tmp_path)


def test_unrecognisable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for a data.yaml, images/ and labels/"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="expected a mapping"):
        open_dataset(text(tmp_path / "notes.txt", "hello"))


# COCO


def coco(root: Path, annotations: list[Any], **changes: Any) -> Dataset:
    """Two pictures of 100 x 50 and these annotations; categories have gaps and are out of order."""
    picture(root / "val2017" / "a.png")
    picture(root / "val2017" / "b.png")
    images = [{"id": 7, "file_name": "a.png", "width": 100, "height": 50}, {"id": 3, "file_name": "b.png"}]
    categories = [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}]
    document = {"images": images, "annotations": annotations, "categories": categories, **changes}
    text(root / "annotations" / "instances_val2017.json", json.dumps(document))
    return open_dataset(root)


def entry(box: Any, number: int = 1, image: Any = 7, category: Any = 90, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": [[1, 2]], **more}


def test_coco_by_hand(tmp_path: Path) -> None:
    found = coco(tmp_path, [entry([1, 2, 3, 4], image=3), entry([10, 20, 30, 10.5], 2), entry([0, 0, 100, 50], 3, category=1, iscrowd=1)])
    assert (found.names, found.category_ids, found.picture_ids) == (("person", "brush"), (1, 90), (7, 3))
    assert found.boxes.tolist() == [[10, 20, 40, 30.5], [0, 0, 100, 50], [1, 2, 4, 6]]
    assert (found.labels.tolist(), found.crowd.tolist(), found.starts.tolist()) == ([1, 0, 1], [False, True, False], [0, 2, 3])
    assert (problems(found), [Path(path).name for path in found.paths]) == ({}, ["a.png", "b.png"])
    again = open_dataset(tmp_path / "annotations" / "instances_val2017.json", "train")  # a file is one split, whatever is asked for
    np.testing.assert_array_equal(again.boxes, found.boxes)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (entry([1, 1, 2, 2], 5, image=99), "annotation of an image that is not in the file, dropped"),
        (entry([1, 1, 2, 2], 5, image=[7]), "annotation of an image that is not in the file, dropped"),
        (entry([1, 1, 2, 2], 5, category=2), "annotation of a category that is not in the file, dropped"),
        (entry([float("nan"), 1, 2, 2], 5), "box with a value that is not a finite number, dropped"),
        (entry([1, 1, 0, 2], 5), "box without area, dropped"),
        (entry([1, 1, -3, 2], 5), "box without area, dropped"),
        (entry([200, 1, 5, 5], 5), "box outside the picture, dropped"),
        (entry([1, 1, 2], 5), "annotation without a box of four numbers, dropped"),
        (entry([1, 1, 2, "2"], 5), "annotation without a box of four numbers, dropped"),
        (entry([1, 1, 2, 10**400], 5), "annotation without a box of four numbers, dropped"),
        (entry(None, 5), "annotation without a box of four numbers, dropped"),
        (entry([10, 20, 30, 10], 5), "box that repeats another of the same picture, dropped"),
    ],
)
def test_coco_bad_annotations(tmp_path: Path, bad: dict[str, Any], problem: str) -> None:
    found = coco(tmp_path, [entry([10, 20, 30, 10]), bad])
    assert found.boxes.tolist() == [[10, 20, 40, 30]]
    assert problems(found) == {problem: 1}
    assert f"{tmp_path}/annotations/instances_val2017.json: annotation 5" in found.report.examples[problem][0]


def test_coco_clipping_and_stated_sizes(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a.png", "width": 50, "height": 100}, {"id": 7, "file_name": "b.png"}, {"file_name": "c.png"}]
    found = coco(tmp_path, [entry([90, 40, 30, 20])], images=[*images, {"id": "x", "file_name": "gone.png"}])
    assert found.boxes.tolist() == [[90, 40, 100, 50]]
    assert problems(found) == {
        "image entry that repeats an id, left out": 1,
        "image entry without an id and a file name, left out": 1,
        "picture has another size than its annotation file says, boxes taken as they are": 1,
        "picture is missing, left out": 1,
        "box reaches outside the picture, clipped": 1,
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100000, "not readable as JSON"),
        ("[1]", "not a COCO annotation file"),
        ('{"images": [], "annotations": {}, "categories": []}', "not a COCO annotation file"),
        ('{"images": [], "annotations": [], "categories": []}', "categories are"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "the same id"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "the list of images is empty"),
        (b'{"\xff": 1}', "not readable as JSON"),
    ],
)
def test_coco_errors(tmp_path: Path, content: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        open_dataset(text(tmp_path / "a.json", content))
    assert str(tmp_path / "a.json") in str(error.value)


def test_coco_layouts(tmp_path: Path) -> None:
    document = json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "x"}]})
    for place, image in (
        ("labels/val.json", "images/a.png"),
        ("annotations/instances_val2017.json", "images/val2017/a.png"),
        ("annotations/val.json", "val/a.png"),
        ("valid/_annotations.coco.json", "valid/a.png"),
        ("all.json", "a.png"),
        ("all.json", "pictures/a.png"),
    ):
        root = tmp_path / place.replace("/", "-") / image.replace("/", "-")
        text(root / place, document)
        picture(root / image)
        text(root / place.replace("val", "train"), document)
        assert open_dataset(root).paths == (str(root / image),)
        if "val" in place:
            with pytest.raises(InputError, match="no annotation file for the split test; there are"):
                open_dataset(root, "test")


# Pascal VOC


def voc(root: Path, objects: str, split: str = "val", stem: str = "a", suffix: str = ".jpg") -> Path:
    picture(root / "JPEGImages" / f"{stem}{suffix}")
    text(root / "Annotations" / f"{stem}.xml", f"<annotation><filename>x.jpg</filename>{objects}</annotation>")
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    text(listed, (listed.read_text() if listed.exists() else "") + f"{stem}\n")
    return root


def item(name: str, *box: object) -> str:
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>1</difficult><bndbox>{sides}</bndbox></object>"


def test_voc_by_hand(tmp_path: Path) -> None:
    voc(tmp_path, item("cat", 1, 1, 100, 50) + item("ant", 11, 21, 20, 30), suffix=".png")
    voc(tmp_path, item("bee", 1, 1, 2, 2), "train", "b")
    found = open_dataset(tmp_path)
    assert found.names == open_dataset(tmp_path, "train").names == ("ant", "bee", "cat")
    assert found.boxes.tolist() == [[0, 0, 100, 50], [10, 20, 20, 30]]
    assert (found.labels.tolist(), found.picture_ids, problems(found)) == ([2, 0], ("a",), {})
    assert open_dataset(tmp_path, names=["cat", "ant"]).labels.tolist() == [0, 1]
    text(tmp_path / "label_list.txt", "ant\ncat\n")
    assert open_dataset(tmp_path).labels.tolist() == [1, 0]
    assert problems(open_dataset(tmp_path, "train")) == {"class that is not among the names, dropped": 1}
    with pytest.raises(InputError, match=r"there is no test.txt; it has train, val"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (item("a", 20, 1, 10, 5), "box without area (xmin >= xmax or ymin >= ymax), dropped"),
        (item("a", 1, 5, 10, 5), "box without area (xmin >= xmax or ymin >= ymax), dropped"),
        (item("a", 1, "x", 10, 5), "label row with a value that is not a finite number, dropped"),
        (item("a", 1, "nan", 10, 5), "label row with a value that is not a finite number, dropped"),
        (item("", 1, 1, 10, 5), "object without a name or a box, dropped"),
        ("<object><name>a</name></object>", "object without a name or a box, dropped"),
        (item("a", 150, 1, 160, 5), "box outside the picture, dropped"),
        (item("b", 1, 1, 10, 5), "box that repeats another of the same picture, dropped"),
    ],
)
def test_voc_bad_objects(tmp_path: Path, bad: str, problem: str) -> None:
    found = open_dataset(voc(tmp_path, item("b", 1, 1, 10, 5) + bad))
    assert found.boxes.tolist() == [[0, 0, 10, 5]]
    assert problems(found) == {problem: 1}
    assert found.report.examples[problem][0].startswith(f"{tmp_path}/Annotations/a.xml: object 2")


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize("content", [BOMB, BOMB.encode("utf-16"), "<annotation>", "", b"\xff\x00", '<?xml version="1.0" encoding="no"?><a/>'])
def test_voc_damaged_and_hostile_xml(tmp_path: Path, content: str | bytes) -> None:
    voc(tmp_path, item("b", 1, 1, 10, 5), stem="b")
    voc(tmp_path, "")
    text(tmp_path / "Annotations" / "a.xml", content)
    found = open_dataset(tmp_path)
    assert (found.picture_ids, found.names) == (("b",), ("b",))
    assert problems(found) == {"annotation file is damaged or declares entities, picture left out": 1}


def test_voc_what_is_missing(tmp_path: Path) -> None:
    for stem in "abc":
        voc(tmp_path, item("x", 1, 1, 10, 5), stem=stem)
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "Annotations" / "b.xml").unlink()
    found = open_dataset(tmp_path)
    assert (found.picture_ids, found.starts.tolist()) == (("b", "c"), [0, 0, 1])
    assert problems(found) == {
        "annotation file without a picture, ignored": 1,
        "annotation file is missing, picture taken as background": 1,
        "picture is missing, left out": 1,
    }


# real data


def test_coco128() -> None:
    found = open_dataset(real("coco128"), "val")
    assert (len(found), len(found.boxes), len(found.names)) == (128, 929, 80)
    assert problems(found) == {"label file without a picture, ignored": 2}


def test_coco_json() -> None:
    train, val = (open_dataset(real("coco_json"), split) for split in ("train", "val"))
    assert (len(train), len(val), train.names, train.category_ids) == (30, 10, ("person", "car", "airplane"), (1, 2, 3))
    assert (int(train.crowd.sum()), int(val.crowd.sum()), problems(train)) == (3, 1, {})
    raw = json.loads((real("coco_json") / "labels" / "val.json").read_text())
    assert len(val.boxes) == len(raw["annotations"])
    of_first = [annotation["bbox"] for annotation in raw["annotations"] if annotation["image_id"] == val.picture_ids[0]]
    boxes, _, _ = val.targets(0)
    np.testing.assert_allclose(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), of_first, atol=1e-4)


def test_bccd_as_it_is_read_only(tmp_path: Path) -> None:
    train, val = (open_dataset(real("bccd"), split) for split in ("train", "val"))
    assert (len(train), len(val), train.names, val.names) == (205, 87, ("Platelets", "RBC", "WBC"), ("Platelets", "RBC", "WBC"))
    assert [sum(problems(dataset).values()) for dataset in (train, val)] == [1, 1]
    assert (train.boxes[:, 2:] > train.boxes[:, :2]).all() and (train.boxes <= np.asarray([640, 480] * 2)).all()
    shutil.copytree(real("bccd") / "Annotations", tmp_path / "Annotations")
    shutil.copytree(real("bccd") / "ImageSets", tmp_path / "ImageSets")
    (tmp_path / "JPEGImages").symlink_to(real("bccd") / "JPEGImages")
    linked = open_dataset(tmp_path, "val")
    np.testing.assert_array_equal(linked.boxes, val.boxes)
