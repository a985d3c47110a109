"""COCO annotation files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.assemble import Annotations, add_rows, assemble
from octrim.data.crew import Arrays
from octrim.data.dataset import Dataset, Report
from octrim.data.index import Index
from octrim.data.labelfiles import file_digest, read_bytes, word_array, words_of
from octrim.errors import InputError, shown


def read_coco(path: Path, split: str, index: Index) -> Dataset:
    """An annotation file and its pictures. Raises InputError where it is no COCO file or holds no categories."""
    try:
        data = read_bytes(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    arrays = index.arrays("coco/")
    digest = np.frombuffer(file_digest(data), np.uint8)
    if not np.array_equal(arrays.get("digest", ()), digest):
        document = _load(path, data)
        del data  # of COCO's own training set, 450 MB
        arrays = {**_parse(path, document), "digest": digest}
        index.put("coco/", arrays)
    texts: Any = words_of(arrays["texts"])
    names, category_ids, files, picture_ids, counts, examples = texts
    pictures = _found_pictures(path, split, files)
    if not pictures:
        raise InputError(f"{path}: the list of images is empty")
    facts, _ = index.facts(pictures, [], "")
    report = Report(counts, examples)
    stated, actual = arrays["stated"], facts["size"]
    differ = np.flatnonzero((stated != actual).any(1) & (stated > 0).all(1) & (actual > 0).all(1))
    problem = "picture has another size than its annotation file says, boxes taken as they are"
    add_rows(report, problem, differ, lambda row: f"{pictures[row]} ({actual[row][1]}x{actual[row][0]}, not {stated[row][1]}x{stated[row][0]})")
    boxes = arrays["boxes_xywh"]
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    ids = arrays["id"]

    def place(row: int) -> str:
        return f"{path}: annotation {ids[row]}" if ids[row] >= 0 else f"{path}: annotations[{-1 - ids[row]}]"

    found = Annotations(arrays["picture"], arrays["label"], corners, arrays["crowd"], place)
    return assemble(path, names, pictures, picture_ids, facts, found, report, category_ids)


def _load(path: Path, data: bytes) -> dict[str, Any]:
    def slim(entry: dict[str, Any]) -> dict[str, Any]:
        entry.pop("segmentation", None)  # most of the file, and never used: let go at once
        return entry

    try:
        document = json.loads(data, object_hook=slim)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {shown(str(error))}") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
        raise InputError(f"{path}: not a COCO annotation file: expected the lists {', '.join(lists)}, found {shown(document)}")
    return document


def _parse(path: Path, document: dict[str, Any]) -> Arrays:
    """All that is used of it, as arrays; `texts` is JSON."""
    report = Report()
    categories = document["categories"]
    if not categories or not all(map(_is_category, categories)):
        raise InputError(f"{path}: categories are {shown(categories)}, expected entries with a whole number as id, and a name")
    categories = sorted(categories, key=lambda entry: entry["id"])
    class_of = {entry["id"]: number for number, entry in enumerate(categories)}
    if len(class_of) < len(categories):
        raise InputError(f"{path}: two categories have the same id: {shown([entry['id'] for entry in categories])}")
    picture_of: dict[Any, int] = {}
    files: list[str] = []
    stated: list[tuple[int, int]] = []
    for number, entry in enumerate(document["images"]):
        key, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if type(key) not in (int, str) or not isinstance(name, str) or not name or "\0" in name:
            report.add("image entry without an id and a file name, left out", f"{path}: images[{number}]")
        elif key in picture_of:
            report.add("image entry that repeats an id, left out", f"{path}: images[{number}] (id {shown(key)})")
        else:
            picture_of[key] = len(files)
            files.append(name)
            stated.append((_side(entry.get("height")), _side(entry.get("width"))))
    picture, label, boxes, crowd, ids = [], [], [], [], []
    for number, entry in enumerate(document["annotations"]):
        if not isinstance(entry, dict):
            report.add("annotation that is not an object, dropped", f"{path}: annotations[{number}]")
            continue
        key = entry.get("id")
        key = key if type(key) is int and 0 <= key < 2**63 else -1 - number
        place = f"{path}: annotation {key}" if key >= 0 else f"{path}: annotations[{number}]"
        home, kind = entry.get("image_id"), entry.get("category_id")
        if type(home) not in (int, str) or home not in picture_of:
            report.add("annotation of an image that is not in the file, dropped", f"{place} (image_id {shown(home)})")
        elif type(kind) is not int or kind not in class_of:
            report.add("annotation of a category that is not in the file, dropped", f"{place} (category_id {shown(kind)})")
        elif (box := _four_numbers(entry.get("bbox"))) is None:
            report.add("annotation without a box of four numbers, dropped", place)
        else:
            picture.append(picture_of[home])
            label.append(class_of[kind])
            boxes.append(box)
            crowd.append(entry.get("iscrowd", 0) not in (0, False, None))
            ids.append(key)
    names = [entry["name"] for entry in categories]
    texts = word_array([names, list(class_of), files, list(picture_of), report.counts, report.examples])
    return {
        "texts": texts,
        "stated": np.asarray(stated, np.int32).reshape(-1, 2),
        "picture": np.asarray(picture, np.int32),
        "label": np.asarray(label, np.int32),
        "boxes_xywh": np.asarray(boxes, np.float64).reshape(-1, 4),
        "crowd": np.asarray(crowd, bool),
        "id": np.asarray(ids, np.int64),
    }


def _is_category(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("name"), str)


def _side(value: Any) -> int:
    return value if type(value) is int and 0 < value < 2**31 else 0


def _four_numbers(box: Any) -> list[float] | None:
    if type(box) is not list or len(box) != 4:
        return None
    for value in box:
        if type(value) is not float and (type(value) is not int or abs(value) > 2**53):
            return None
    return box


def _found_pictures(path: Path, split: str, files: Sequence[str]) -> list[str]:
    """Where the pictures are, beside the annotation file or in a folder near it. What is nowhere keeps its first guess."""
    bases = [str(base) for base in _bases(path, split)]
    pictures = []
    for name in files:
        tries = (os.path.join(base, name) for base in bases)  # noqa: PTH118
        pictures.append(next((place for place in tries if os.path.exists(place)), os.path.join(bases[0], name)))  # noqa: PTH110, PTH118
    return pictures


def _bases(path: Path, split: str) -> list[Path]:
    """Folders that may hold the pictures; those whose name is in the file's (val2017, instances_val2017.json) come first."""
    near = [path.parent, path.parent.parent]
    folders: list[Path] = []
    for home in [*near, *(folder / "images" for folder in near)]:
        try:
            folders += sorted(child for child in home.iterdir() if child.is_dir())
        except OSError:
            continue
    words = {word for word in re.split(r"[^a-z0-9]+", path.stem.lower()) if word}
    named = [folder for folder in folders if folder.name.lower() in words]
    usual = [folder for folder in folders if folder.name.startswith(split) or folder.name.lower() in ("images", "jpegimages", "pictures", "data")]
    # A named folder may hold the pictures itself or in its images/.
    ordered = [place for folder in [*named, path.parent, *usual, path.parent.parent] for place in (folder, folder / "images")]
    return [folder for folder in dict.fromkeys(ordered) if folder.is_dir()]
