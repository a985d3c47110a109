"""Small data sets of every format, and what `open_dataset` must hold to whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from tests.data.making import picture, text

ROWS = b"0 0.5 0.5 0.2 0.2\n1 0.25 0.75 0.1 0.3\n0 0.1 0.1 0.2 0.2\n"
OBJECT = b"<object><name>%s</name><difficult>0</difficult><bndbox><xmin>%d</xmin><ymin>2</ymin><xmax>%d</xmax><ymax>40</ymax></bndbox></object>\n"
XML = b'<?xml version="1.0"?>\n<annotation>\n' + OBJECT % (b"cat", 5, 50) + OBJECT % (b"dog", 30, 90) + b"</annotation>\n"
JSON = b"""{"images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 50}, {"id": "x", "file_name": "b.png"}],
"annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [1.5, 2, 30, 20], "iscrowd": 0},
{"id": 2, "image_id": "x", "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1}, {"id": 3, "image_id": 7, "category_id": 1, "bbox": [5, 5, 9, 9]}
], "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}]}"""


def checked(data: Path, names: tuple[str, ...] = ()) -> Dataset | InputError:
    """What `open_dataset` makes of it, cold and from the cache: both must be the same, and keep the contract."""
    first, second = outcome(data, names), outcome(data, names)
    assert type(first) is type(second)
    if isinstance(first, InputError) or isinstance(second, InputError):
        assert str(first) == str(second)
        assert str(first).isprintable()
        assert 0 < len(str(first)) <= 600
        assert os.sep in str(first)
        return first
    for dataset in (first, second):
        hold_invariants(dataset)
    for name in ("names", "paths", "picture_ids", "category_ids", "report", "notes"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("sizes", "boxes", "labels", "crowd", "starts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    return first


def outcome(data: Path, names: tuple[str, ...]) -> Dataset | InputError:
    try:
        return open_dataset(data, "val", names)
    except InputError as error:
        return error


def hold_invariants(dataset: Dataset) -> None:
    count = len(dataset.boxes)
    assert len(dataset) == len(dataset.sizes) == len(dataset.picture_ids) > 0
    assert (dataset.sizes > 0).all()
    assert (int(dataset.starts[0]), int(dataset.starts[-1]), len(dataset.starts)) == (0, count, len(dataset) + 1)
    assert (np.diff(dataset.starts) >= 0).all()
    assert np.isfinite(dataset.boxes).all()
    limits = np.tile(dataset.sizes[np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))][:, ::-1], 2)
    assert ((dataset.boxes >= 0) & (dataset.boxes <= limits)).all()
    assert (dataset.boxes[:, 2:] > dataset.boxes[:, :2]).all()
    assert ((dataset.labels >= 0) & (dataset.labels < len(dataset.names))).all()
    assert len(dataset.labels) == len(dataset.crowd) == count
    assert all(type(key) in (int, str) for key in dataset.picture_ids)
    assert all(type(key) is int for key in dataset.category_ids)
    assert len(dataset.report.lines()) == len(dataset.report.counts)
    assert all(line.isprintable() for line in dataset.lines())
    assert dataset.report.remarks <= set(dataset.report.counts)


def yolo(root: Path, label: str | bytes = "0 .5 .5 .2 .2\n") -> Path:
    for stem in ("good", "x"):
        picture(root / "images" / "val" / f"{stem}.png")
        text(root / "labels" / "val" / f"{stem}.txt", "1 .5 .5 .2 .2\n" if stem == "good" else label)
    return root


def coco(root: Path, document: str | bytes) -> Path:
    picture(root / "val" / "a.png")
    return text(root / "annotations" / "val.json", document)


def voc_set(root: Path, xml: str | bytes) -> Path:
    for stem in ("good", "x"):
        picture(root / "JPEGImages" / f"{stem}.png")
        box = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
        whole = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        text(root / "Annotations" / f"{stem}.xml", whole if stem == "good" else xml)
    text(root / "ImageSets" / "Main" / "val.txt", "good\nx\n")
    return root
