"""COCO annotation files, with everything that can be broken in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from tests.data.making import picture, problems, real, text


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
        (entry([1, 1, 2, "two"], 5), "annotation without a box of four numbers, dropped"),
        (entry([1, 1, 2, True], 5), "annotation without a box of four numbers, dropped"),
        (entry([1, 1, 2, 10**400], 5), "annotation without a box of four numbers, dropped"),
        (entry(None, 5, segmentation=[]), "annotation without a box of four numbers, dropped"),
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


def test_coco_boxes_that_are_shares_are_said_aloud(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.1, 0.1, 0.3, 0.4]}
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    found = open_dataset(text(tmp_path / "a.json", json.dumps(document)))
    assert any("as shares of the picture do; COCO's are pixels" in problem for problem in problems(found))


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
        (b'{"\x81\xff": 1}', "not readable as JSON"),
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


def test_coco_json() -> None:
    train, val = (open_dataset(real("coco_json"), split) for split in ("train", "val"))
    assert (len(train), len(val), train.names, train.category_ids) == (30, 10, ("person", "car", "airplane"), (1, 2, 3))
    assert (int(train.crowd.sum()), int(val.crowd.sum()), problems(train)) == (3, 1, {})
    raw = json.loads((real("coco_json") / "labels" / "val.json").read_text())
    assert len(val.boxes) == len(raw["annotations"])
    of_first = [annotation["bbox"] for annotation in raw["annotations"] if annotation["image_id"] == val.picture_ids[0]]
    boxes, _, _ = val.targets(0)
    np.testing.assert_allclose(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), of_first, atol=1e-4)
