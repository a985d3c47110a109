"""Reads COCO annotation files into data sets."""

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
from octrim.data.dataset import DataReport, Dataset
from octrim.data.datumaro import as_coco, is_datumaro
from octrim.data.index import Index
from octrim.data.labelfiles import CROWD, POLYGON, file_digest, read_bytes, word_array, words_of
from octrim.data.paths import Located, Locator, exists
from octrim.data.pictures import is_picture
from octrim.data.shapes import segmentation_box
from octrim.data.texts import decoded
from octrim.data.values import flag, name, number, whole
from octrim.errors import InputError, shown


def read_coco(path: Path, split: str, index: Index, trees: Sequence[str] = ()) -> Dataset:
    """Read a COCO annotation file and find its pictures. trees: folders of the data set, searched for pictures by name as the last resort.

    Raises InputError where the file is no COCO file, holds no categories, or lists no images.
    """
    try:
        data = read_bytes(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    arrays = index.arrays("coco/")
    digest = np.frombuffer(file_digest(data), np.uint8)
    if not np.array_equal(arrays.get("digest", ()), digest):
        document = _load(path, data)
        del data  # frees memory: the file of COCO's own training set has 450 MB
        arrays = {**_parse(path, document), "digest": digest}
        index.put("coco/", arrays)
    texts: Any = words_of(arrays["texts"])
    names, category_ids, files, picture_ids, counts, examples = texts
    located = _located(path, split, files, trees)
    pictures = located.paths
    if not pictures:
        raise InputError(f"{path}: the list of images is empty{_first_problem(counts, examples)}")
    facts, _ = index.facts(pictures, [], "")
    report = DataReport(counts, examples)
    stated, actual = arrays["stated"], facts["size"]
    differ = np.flatnonzero((stated != actual).any(1) & (stated > 0).all(1) & (actual > 0).all(1))
    problem = "picture has another size than its annotation file says, boxes taken as they are"
    add_rows(report, problem, differ, lambda row: f"{pictures[row]} ({actual[row][1]}x{actual[row][0]}, not {stated[row][1]}x{stated[row][0]})")
    boxes = arrays["boxes_xywh"]
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    ids = arrays["id"]
    if len(boxes) and (boxes <= 1).all() and (boxes[:, 2:] > 0).any() and actual.max(initial=0) > 1:
        report.add("all boxes lie within 0 and 1, as shares of the picture do; COCO's are pixels, and they are taken as such", str(path))

    def place(row: int) -> str:
        return f"{path}: annotation {ids[row]}" if ids[row] >= 0 else f"{path}: annotations[{-1 - ids[row]}]"

    found = Annotations(arrays["picture"], arrays["label"], corners, arrays["mark"], place)
    return assemble(path, names, pictures, picture_ids, facts, found, report, category_ids, notes=located.note(str(path)))


def _first_problem(counts: dict[str, int], examples: dict[str, list[str]]) -> str:
    return "".join(f"; {line}" for line in DataReport(counts, examples).lines()[:1])


_AROUND: Any = ("box around the segmentation",)
"""Key under which an annotation without a box carries the one around its segmentation; no file can have it."""


def _load(path: Path, data: bytes) -> dict[str, Any]:
    def slim(entry: dict[str, Any]) -> dict[str, Any]:
        segmentation = entry.pop("segmentation", None)  # segmentations are most of the file, so they are dropped at once
        if segmentation and _no_box(entry.get("bbox")):
            entry[_AROUND] = segmentation_box(segmentation)
        return entry

    try:
        try:
            document = json.loads(data, object_hook=slim)
        except UnicodeDecodeError:
            document = json.loads(decoded(data), object_hook=slim)
        if is_datumaro(document):
            document = as_coco(document)
            document["annotations"] = [slim(entry) if isinstance(entry, dict) else entry for entry in document["annotations"]]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {shown(str(error))}") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
        raise InputError(f"{path}: not a COCO annotation file: expected the lists {', '.join(lists)}, found {shown(document)}")
    return document


def _no_box(box: Any) -> bool:
    """Tell whether an annotation's box is absent, empty or all zeros, as tools write it that know only outlines."""
    return box is None or box in ([], {}, "") or (isinstance(box, list) and all(number(side) == 0 for side in box))


class _Ids:
    """Ids that a file gives to pictures or classes. Each is found as it is written, else by its value: 7, "7" and 7.0 are the same id."""

    def __init__(self) -> None:
        self.places: dict[int | str, int] = {}
        self._meant: dict[int, int | None] = {}

    def add(self, key: Any) -> int | None:
        """Add an id and return its place, counted from 0; None where it is there already or cannot be an id."""
        key = _key(key)
        if key is None or key in self.places:
            return None
        place = self.places[key] = len(self.places)
        meant = whole(key)
        if meant is not None:
            self._meant[meant] = None if meant in self._meant else place  # "7" and "07" in one file are two ids, so that 7 is neither
        return place

    def find(self, key: Any) -> int | None:
        key = _key(key)
        if key is None or key in self.places:
            return None if key is None else self.places[key]
        meant = whole(key)
        return None if meant is None else self._meant.get(meant)


def _key(value: Any) -> int | str | None:
    """Return a value that can be an id, as an integer or text; None for everything else, such as true, which Python holds for 1."""
    return value if isinstance(value, str) or type(value) is int else whole(value)


def _parse(path: Path, document: dict[str, Any]) -> Arrays:
    """Return what a COCO document holds for OcTrim, as arrays that the index can store; `texts` is JSON as bytes."""
    report = DataReport()
    names, class_of, category_ids = _categories(path, document["categories"])
    picture_ids = _Ids()
    files: list[str] = []
    stated: list[tuple[int, int]] = []
    for place, entry in enumerate(document["images"]):
        key, file = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if _key(key) is None or not isinstance(file, str) or not file or "\0" in file:
            report.add("image entry without an id and a file name, left out", f"{path}: images[{place}]")
        elif picture_ids.add(key) is None:
            report.add("image entry that repeats an id, left out", f"{path}: images[{place}] (id {shown(key)})")
        else:
            files.append(file)
            stated.append((_side(entry.get("height")), _side(entry.get("width"))))
    rows = _Rows(path, picture_ids, class_of, report)
    for place, entry in enumerate(document["annotations"]):
        rows.add(place, entry)
    texts = word_array([names, category_ids, files, list(picture_ids.places), report.counts, report.examples])
    return {"texts": texts, "stated": np.asarray(stated, np.int32).reshape(-1, 2)} | rows.arrays()


class _Rows:
    """Collector of annotations: usable ones become rows of columns, the others go to the report."""

    def __init__(self, path: Path, pictures: _Ids, classes: _Ids, report: DataReport) -> None:
        self._path, self._pictures, self._classes, self._report = path, pictures, classes, report
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])

    def add(self, place: int, entry: Any) -> None:
        if not isinstance(entry, dict):
            self._report.add("annotation that is not an object, dropped", f"{self._path}: annotations[{place}]")
            return
        key = whole(entry.get("id"))
        key = key if key is not None and key >= 0 else -1 - place
        where = f"{self._path}: annotation {key}" if key >= 0 else f"{self._path}: annotations[{place}]"
        home, kind = entry.get("image_id"), entry.get("category_id")
        picture, label = self._pictures.find(home), self._classes.find(kind)
        mark = 0
        box = _four_numbers(entry.get("bbox"))
        around = entry.get(_AROUND)
        if around is not None and _no_box(entry.get("bbox")):
            box, mark = [around[0], around[1], around[2] - around[0], around[3] - around[1]], POLYGON
        crowd = flag(entry.get("iscrowd", 0))
        if crowd is None:
            self._report.add("iscrowd that is neither 0 nor 1, taken as 0", f"{where} ({shown(entry['iscrowd'])})")
        if picture is None:
            self._report.add("annotation of an image that is not in the file, dropped", f"{where} (image_id {shown(home)})")
        elif label is None:
            self._report.add("annotation of a category that is not in the file, dropped", f"{where} (category_id {shown(kind)})")
        elif box is None:
            self._report.add("annotation without a box of four numbers, dropped", where)
        else:
            for column, value in zip(self._columns, (picture, label, box, mark | CROWD if crowd else mark, key), strict=True):
                column.append(value)

    def arrays(self) -> Arrays:
        picture, label, boxes, mark, ids = self._columns
        return {
            "picture": np.asarray(picture, np.int32),
            "label": np.asarray(label, np.int32),
            "boxes_xywh": np.asarray(boxes, np.float64).reshape(-1, 4),
            "mark": np.asarray(mark, np.uint8),
            "id": np.asarray(ids, np.int64),
        }


def _categories(path: Path, entries: list[Any]) -> tuple[list[str], _Ids, list[int]]:
    """Return the class names in the order of their ids, a table from id to class number, and the sorted ids. Raises InputError for bad categories."""
    found = [(whole(entry.get("id")), name(entry.get("name"))) if isinstance(entry, dict) else (None, None) for entry in entries]
    if not found or not all(key is not None and text is not None for key, text in found):
        raise InputError(f"{path}: categories are {shown(entries)}, expected entries with a whole number as id, and a name")
    ordered = sorted(((key, text) for key, text in found if key is not None and text is not None), key=lambda pair: pair[0])
    places = _Ids()
    if any(places.add(key) is None for key, _ in ordered):
        raise InputError(f"{path}: two categories have the same id: {shown([key for key, _ in ordered])}")
    return [text for _, text in ordered], places, [key for key, _ in ordered]


def _side(value: Any) -> int:
    side = whole(value)
    return side if side is not None and 0 < side < 2**31 else 0


def _four_numbers(box: Any) -> list[float] | None:
    """Return a box's four numbers, which may be written as texts or as one text; None where they are not four numbers.

    NaN and infinity pass here; `assemble` reports them.
    """
    if isinstance(box, str) and len(box) < 1000:
        box = box.strip("[]() ").replace(",", " ").split()
    if not isinstance(box, list) or len(box) != 4:
        return None
    values = []
    for side in box:
        value = side if type(side) is float else number(side)
        if value is None or (type(side) is int and abs(side) > 2**53):
            return None
        values.append(value)
    return values


def _located(path: Path, split: str, files: Sequence[str], trees: Sequence[str]) -> Located:
    """Find the pictures of an annotation file, beside it or in a folder near it. A picture that is nowhere keeps its first guessed path."""
    bases = [str(base) for base in _bases(path, split)]

    def plain(name: str) -> tuple[str, bool]:
        tries = (os.path.join(base, name) for base in bases)  # noqa: PTH118
        found = next((place for place in tries if exists(place)), None)
        return found or os.path.join(bases[0], name), found is not None  # noqa: PTH118

    near = list(trees) or [str(path.parent)]
    return Locator(bases, near, split, is_picture).locate(files, plain)


def _bases(path: Path, split: str) -> list[Path]:
    """Return the folders that may hold the pictures; first those whose name is part of the file's (val2017 of instances_val2017.json)."""
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
