"""Reads data sets in YOLO's format from lists of their pictures, and finds the pictures' label files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octrim.data.assemble import OTHER_FORMAT, Annotations, add_rows, assemble, file_problems
from octrim.data.dataset import DataReport, Dataset
from octrim.data.index import Index
from octrim.data.labelfiles import MISSING, UNREADABLE
from octrim.data.paths import walk_files
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.errors import InputError

# Text files that tools leave among the labels.
NO_LABELS = {
    "classes",
    "train",
    "val",
    "valid",
    "test",
    "labels",
    "notes",
    "README",
    "obj",
    "label_list",
    "predefined_classes",
    "trainval",
    "README.roboflow",
}
NO_LABELS |= {"README.dataset", "LICENSE", "requirements"}
PICTURE_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "pictures"}
_LABEL_FOLDERS = ("labels", "label", "annotations", "txt", "txts")


@dataclass(frozen=True)
class Listing:
    """The pictures of a part of a data set. labels: label file of each picture; empty where they follow from the pictures' paths.

    names: class names; empty where the format has none. classes: stated number of classes, or None. repeated: pictures that were listed again.
    pose: number of values in a row of a pose, 0 where that is not stated. notes: lines on how the listing was read.
    without: pictures that are left out, because no folder of labels tells their split. doubtful: pictures whose labels may be lost.
    annotated: annotations of another format that pictures have instead of label files.
    """

    pictures: list[str]
    names: tuple[str, ...] = ()
    classes: int | None = None
    repeated: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pose: int = 0
    notes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    annotated: tuple[str, ...] = ()


def read_yolo(data: Path, listing: Listing, names: Sequence[str], index: Index) -> Dataset:
    """Read the data set of a listing. names: class names where the listing has none; without either, they are class0 .. up to the largest label.

    Raises InputError where there are no pictures, none can be read, or the number of classes contradicts the names.
    """
    paths = listing.pictures
    if not paths:
        raise InputError(f"{data}: there are no pictures in this split (looked for {', '.join(SUFFIXES)})")
    labels = list(listing.labels) or label_files(paths)
    facts, table = index.facts(paths, labels, f"yolo:{listing.pose}" if listing.pose else "yolo")
    report = DataReport()
    for path in listing.repeated:
        report.add("picture is listed more than once, counted once", path)
    strays = _strays(paths, labels)
    add_rows(report, "label file without a picture, ignored", np.arange(len(strays)), strays.__getitem__)
    add_rows(report, "picture whose split no label file tells, left out", np.arange(len(listing.without)), listing.without.__getitem__)
    add_rows(report, "picture without labels, while label files fit no picture", np.arange(len(listing.doubtful)), listing.doubtful.__getitem__)
    add_rows(report, OTHER_FORMAT, np.arange(len(listing.annotated)), listing.annotated.__getitem__)
    if paths and (table["state"] == MISSING).all():
        report.add("no picture has a label file", f"looked for {labels[0]}")
    file_problems(report, table, labels, "label file cannot be read, picture left out", missing=False)
    names = listing.names or tuple(names)
    if not names:
        largest = int(table["rows"][:, 0].max(initial=-1))
        names = tuple(f"class{number}" for number in range(listing.classes or max(largest + 1, 1)))
    used = np.unique(table["rows"][:, 0])
    if len(names) > 1 and len(used) and used[0] == 1 and used[-1] == len(names):
        report.add("classes seem to be counted from 1, where YOLO's count from 0", f"they are 1 to {len(names)}, of {len(names)} names")
    if listing.classes not in (None, len(names)):
        raise InputError(f"{data}: nc is {listing.classes}, but there are {len(names)} names")
    picture = np.repeat(np.arange(len(paths)), table["count"])
    centre, extent = table["rows"][:, 1:3], table["rows"][:, 3:5]
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1) * np.tile(facts["size"][picture][:, ::-1], 2)
    found = Annotations(
        picture,
        table["rows"][:, 0].astype(np.int64),
        boxes,
        table["mark"],
        lambda row: f"{labels[picture[row]]}:{table['line'][row]}",
    )
    return assemble(data, names, paths, _picture_ids(paths), facts, found, report, left_out=table["state"] == UNREADABLE, notes=listing.notes)


def walk_pictures(folder: Path) -> list[str]:
    """Return the sorted paths of the pictures in a folder and below it, also through symbolic links, without hidden ones."""
    return walk_files(str(folder), is_picture)


def listed(pictures: Sequence[str], names: tuple[str, ...] = (), classes: int | None = None, notes: tuple[str, ...] = (), pose: int = 0) -> Listing:
    """Return a listing of pictures, each once; the other arguments are fields of `Listing`."""
    once = list(dict.fromkeys(pictures))
    repeated: list[str] = []
    if len(once) < len(pictures):
        seen: set[str] = set()
        repeated = [path for path in pictures if path in seen or seen.add(path)]
    return Listing(once, names, classes, tuple(repeated), pose=pose, notes=notes)


def label_path(picture: str) -> str:
    """Return the usual label file of a picture: the last images/ in its path becomes labels/; without one, the file lies beside the picture."""
    head, images, tail = picture.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{head}{os.sep}labels{os.sep}{tail}" if images else picture
    return f"{_stem(moved)}.txt"


def label_files(pictures: Sequence[str]) -> list[str]:
    """Return the label file of each picture: by `label_path`, or, where that folder holds none of them, in another folder that does.

    The other folders are those of another spelling (Images and Labels), one without the split's folder, and the pictures' own. A file whose suffix
    is in capitals is taken where there is no other.
    """
    homes: dict[str, list[str]] = {}
    for path in pictures:
        home, _, name = path.rpartition(os.sep)
        homes.setdefault(home, []).append(_stem(name))
    listings: dict[str, dict[str, str]] = {}
    folders: dict[str, str] = {}
    for home, stems in homes.items():
        usual = _usual_folder(home)
        candidates = (usual, *_label_folders(home))
        folders[home] = next((one for one in candidates if any(stem in _texts(one, listings) for stem in stems)), usual)
    files = []
    for path in pictures:
        home, _, name = path.rpartition(os.sep)
        stem = _stem(name)
        written = _texts(folders[home], listings).get(stem, f"{stem}.txt")
        files.append(f"{folders[home]}{os.sep}{written}")
    return files


def _usual_folder(pictures: str) -> str:
    return label_path(f"{pictures}{os.sep}x").rpartition(os.sep)[0]


def _texts(folder: str, listings: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the names of the text files in a folder by their stems. listings: cache of the folders read so far."""
    if folder not in listings:
        try:
            names = sorted(os.listdir(folder), reverse=True)  # noqa: PTH208 (reversed: `.txt` comes last, so it is the one that stays)
        except (OSError, ValueError):
            names = []
        texts = {_stem(name): name for name in names if name.lower().endswith(".txt") and not name.endswith(".txt")}
        listings[folder] = texts | {_stem(name): name for name in names if name.endswith(".txt")}
    return listings[folder]


def _label_folders(pictures: str) -> Iterator[str]:
    """Yield the folders that may hold the labels of the pictures in the folder `pictures`, besides the usual one."""
    folder = Path(pictures)
    for home in (folder, *folder.parents):
        if home.name.casefold() not in PICTURE_FOLDERS:
            continue
        try:
            names = sorted(os.listdir(home.parent), key=lambda name: name != "labels")  # noqa: PTH208
        except (OSError, ValueError):
            continue
        for name in names:
            if name.casefold() in _LABEL_FOLDERS:
                yield str(home.parent / name / folder.relative_to(home))
                yield str(home.parent / name)
        break
    yield pictures
    yield str(folder / "labels")


def _picture_ids(paths: Sequence[str]) -> list[str]:
    """Return the id of each picture in results: its file's stem, or its path where several pictures share the stem."""
    stems = [_stem(path.rpartition(os.sep)[2]) for path in paths]
    counts = Counter(stems)
    return [stem if counts[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def _strays(pictures: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the label files in the folders of the pictures' labels that belong to no picture, of whatever split."""
    homes: dict[str, set[str]] = {}
    used = set(labels)
    for label, picture in zip(labels, pictures, strict=True):
        homes.setdefault(label.rpartition(os.sep)[0], set()).add(picture.rpartition(os.sep)[0])
    strays = []
    for folder, own in sorted(homes.items()):
        if any(folder not in (home, _usual_folder(home)) for home in own):  # the folder of labels serves several folders of pictures
            own = own | {entry.path for home in own for entry in _folders_in(os.path.dirname(home))}  # noqa: PTH120
        try:
            texts = {name[:-4] for name in os.listdir(folder) if name.endswith(".txt") and not name.startswith(".")}  # noqa: PTH208
            stems = {_stem(name) for home in own for name in os.listdir(home) if is_picture(name)}  # noqa: PTH208
        except OSError:
            continue
        strays += [path for name in sorted(texts - stems - NO_LABELS) if (path := f"{folder}{os.sep}{name}.txt") not in used]
    return strays


def _folders_in(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir()]
    except OSError:
        return []
