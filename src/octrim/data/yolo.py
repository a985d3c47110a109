"""YOLO data sets: a data.yaml, or folders images/ and labels/."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from octrim.data.assemble import Annotations, add_rows, assemble, file_problems
from octrim.data.dataset import Dataset, Report
from octrim.data.index import Index
from octrim.data.labelfiles import MISSING, UNREADABLE, read_bytes, read_lines
from octrim.data.pictures import SUFFIXES
from octrim.errors import InputError, shown

SPLITS = ("train", "val", "test")
_MOST_YAML = 2**19  # bytes: the 21,000 names of ImageNet fit; PyYAML needs five seconds for most texts of this length, and up to twenty
_NO_LABELS = {"classes", "train", "val", "test", "labels", "notes", "README"}  # text files that tools leave among the labels


@dataclass(frozen=True)
class Listing:
    """The pictures of a split. names: empty where the format has none; classes: how many there must be, where that is said."""

    pictures: list[str]
    names: tuple[str, ...] = ()
    classes: int | None = None
    repeated: tuple[str, ...] = ()


def read_yolo(data: Path, listing: Listing, names: Sequence[str], index: Index) -> Dataset:
    """names: stand in where the listing has none; without either, the classes are class0 .. up to the largest label."""
    paths = listing.pictures
    if not paths:
        raise InputError(f"{data}: there are no pictures in this split (looked for {', '.join(SUFFIXES)})")
    labels = [label_path(path) for path in paths]
    facts, table = index.facts(paths, labels, "yolo")
    report = Report()
    for path in listing.repeated:
        report.add("picture is listed more than once, counted once", path)
    strays = _strays(paths)
    add_rows(report, "label file without a picture, ignored", np.arange(len(strays)), strays.__getitem__)
    if paths and (table["state"] == MISSING).all():
        report.add("no picture has a label file", f"looked for {labels[0]}")
    file_problems(report, table, labels, "label file cannot be read, picture left out", missing=False)
    names = listing.names or tuple(names)
    if not names:
        largest = int(table["rows"][:, 0].max(initial=-1))
        names = tuple(f"class{number}" for number in range(listing.classes or max(largest + 1, 1)))
    if listing.classes not in (None, len(names)):
        raise InputError(f"{data}: nc is {listing.classes}, but there are {len(names)} names")
    picture = np.repeat(np.arange(len(paths)), table["count"])
    centre, extent = table["rows"][:, 1:3], table["rows"][:, 3:5]
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1) * np.tile(facts["size"][picture][:, ::-1], 2)
    found = Annotations(
        picture,
        table["rows"][:, 0].astype(np.int64),
        boxes,
        np.zeros(len(picture), bool),
        lambda row: f"{labels[picture[row]]}:{table['line'][row]}",
    )
    stems = [path.rpartition(os.sep)[2].removesuffix(".txt") for path in labels]
    return assemble(data, names, paths, stems, facts, found, report, left_out=table["state"] == UNREADABLE)


def label_path(picture: str) -> str:
    """The last images/ becomes labels/; where there is none, the label lies beside the picture."""
    head, images, tail = picture.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{head}{os.sep}labels{os.sep}{tail}" if images else picture
    return os.path.splitext(moved)[0] + ".txt"  # noqa: PTH122


def load_yaml(path: Path) -> dict[str, Any]:
    """A data.yaml with every scalar as text: class names such as `no` and `1e3` stay what they are. Raises InputError."""
    try:
        data = read_bytes(str(path), _MOST_YAML + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(data) > _MOST_YAML:
        raise InputError(f"{path}: more than {_MOST_YAML} bytes; no data.yaml needs that")
    try:
        document = yaml.load(data.decode("utf-8"), yaml.BaseLoader)  # makes nothing but text, lists and mappings
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # OverflowError: "\\UFFFFFFFF"
        raise InputError(f"{path}: not readable as YAML: {shown(str(error))}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping with train, val and names, found {shown(document)}")
    return document


def list_yaml(path: Path, split: str) -> Listing:
    """The split's pictures as a data.yaml names them. Raises InputError for what is missing or contradicts itself."""
    document = load_yaml(path)
    there = [name for name in SPLITS if not _is_nothing(document.get(name))]
    if split not in there:
        raise InputError(f"{path}: there is no split {split}; {'it has ' + ', '.join(there) if there else 'expected train, val or test'}")
    names = _names(path, document.get("names"))
    classes = None
    if not _is_nothing(document.get("nc")):
        text = document["nc"]
        if not isinstance(text, str) or not text.strip().isdecimal() or len(text) > 99 or not 1 <= int(text) <= 65536:
            raise InputError(f"{path}: nc is {shown(text)}, expected the number of classes")
        classes = int(text)
        if names and len(names) != classes:
            raise InputError(f"{path}: nc is {classes}, but there are {len(names)} names")
    home = document.get("path", "")
    if not isinstance(home, str):
        raise InputError(f"{path}: path is {shown(home)}, expected a folder")
    folder = path.parent
    root = folder if _is_nothing(home) else Path(os.path.abspath(folder / os.path.expanduser(home)))  # noqa: PTH100, PTH111 (keeps symbolic links)
    if not os.path.isdir(root):  # noqa: PTH112 (which raises nothing, whatever the name)
        raise InputError(f"{path}: path is {home}, and there is no folder {root}")
    entries = document[split] if isinstance(document[split], list) else [document[split]]
    pictures: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise InputError(f"{path}: {split}: {shown(entry)} is not a path")
        pictures += _pictures_of(_found_entry(path, split, entry, root), root)
    return _listing(pictures, names, classes)


def list_folder(folders: Sequence[Path]) -> Listing:
    return _listing([picture for folder in folders for picture in walk_pictures(folder)], (), None)


def walk_pictures(folder: Path) -> list[str]:
    """Pictures in a folder and below it, also through symbolic links, sorted, as absolute paths."""
    found = []
    seen: set[tuple[int, int]] = set()
    for home, below, files in os.walk(folder, followlinks=True):
        try:
            status = os.stat(home)  # noqa: PTH116
        except OSError:  # gone meanwhile
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [f"{home}{os.sep}{name}" for name in files if name.lower().endswith(SUFFIXES)]
    return sorted(found)


def _listing(pictures: list[str], names: tuple[str, ...], classes: int | None) -> Listing:
    once = list(dict.fromkeys(pictures))
    repeated: list[str] = []
    if len(once) < len(pictures):
        seen: set[str] = set()
        repeated = [path for path in pictures if path in seen or seen.add(path)]
    return Listing(once, names, classes, tuple(repeated))


def _is_nothing(value: Any) -> bool:
    return value in (None, "", "null", "~", []) or (isinstance(value, str) and not value.strip())


def _names(path: Path, value: Any) -> tuple[str, ...]:
    if _is_nothing(value):
        return ()
    if isinstance(value, dict):
        if sorted(value) != sorted(map(str, range(len(value)))):
            raise InputError(f"{path}: the numbers of the names are {shown(list(value))}, expected 0 to {len(value) - 1}")
        value = [value[str(number)] for number in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: names is {shown(value)}, expected a list of names, or a mapping of numbers to names")
    return tuple(value)


def _found_entry(path: Path, split: str, entry: str, root: Path) -> Path:
    # Exports of Roboflow name ../train/images, which holds from a folder that they do not have: one `..` less is what they mean.
    tries = [root / entry, path.parent / entry, *([root / entry[3:]] if entry.startswith("../") else [])]
    for place in tries:
        if os.path.exists(place):  # noqa: PTH110 (which raises nothing, whatever the name)
            return Path(os.path.abspath(place))  # noqa: PTH100
    raise InputError(f"{path}: {split} is {entry}, and there is no {tries[0]}")


def _pictures_of(place: Path, root: Path) -> list[str]:
    """Pictures of a folder, or those that a list file names, relative to its own folder or to the data set's root."""
    if place.is_dir():
        return walk_pictures(place)
    if place.suffix.lower() in SUFFIXES:
        return [str(place)]
    try:
        lines = read_lines(str(place))
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}") from None
    bases = [str(place.parent), str(root)]
    pictures = []
    for line in filter(None, map(str.strip, lines)):
        if "\0" in line:
            raise InputError(f"{place}: not a list of pictures")
        path = os.path.join(bases[0], line)  # noqa: PTH118
        if not os.path.exists(path) and os.path.exists(other := os.path.join(bases[1], line)):  # noqa: PTH110, PTH118
            bases.reverse()  # the next one is likely there too
            path = other
        pictures.append(os.path.normpath(path) if "./" in path else path)
    return pictures


def _strays(pictures: Sequence[str]) -> list[str]:
    """Label files in the folders of these pictures' labels that belong to no picture there, whatever the split."""
    strays = []
    for folder in sorted({os.path.dirname(path) for path in pictures}):  # noqa: PTH120
        labels = os.path.dirname(label_path(f"{folder}{os.sep}x"))  # noqa: PTH120
        try:
            texts = {name[:-4] for name in os.listdir(labels) if name.endswith(".txt")}  # noqa: PTH208
            stems = {name[: name.rindex(".")] for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)}  # noqa: PTH208
        except OSError:
            continue
        strays += [f"{labels}{os.sep}{name}.txt" for name in sorted(texts - stems - _NO_LABELS)]
    return strays
