"""Finds YOLO's label files that lie in no usual place, and refuses pictures without labels where labels are there that fit none of them.

A picture without a label file is a background, and nothing is wrong with it. A folder of pictures without label files, beside label files without
pictures, is a data set that was put together wrongly: trained on, it teaches a network to find nothing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.names import NAME_FILES
from octrim.data.formats.place import SPLITS, Place, Request, fits, head, names_split
from octrim.data.paths import Folders
from octrim.data.pictures import SUFFIXES
from octrim.data.yolo import NO_LABELS, PICTURE_FOLDERS, Listing, label_files, read_yolo
from octrim.errors import InputError

DEPTH = 4  # levels of folders that are searched
_MOST_UP = 2  # levels above the folder around the pictures
_NUMBER = rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_ROWS = re.compile(rb"[\s\xef\xbb\xbf]*" + _NUMBER + rb"([ \t]+" + _NUMBER + rb"){4,}[ \t]*(\r|\n|$)")


def read_listed(data: Path, listing: Listing, request: Request) -> Dataset:
    """Read the pictures of a listing with their labels, wherever those lie.

    Raises InputError as `read_yolo` does, and where no picture has a label, although there are labels that fit none.
    """
    if listing.pictures and not listing.labels:
        listing = _with_labels(data, listing)
    return read_yolo(data, listing, request.names, request.index)


def is_label(path: Path) -> bool:
    """Tell whether a text file can be a label file of YOLO's: it has rows of numbers, and is no list that tools put beside them."""
    return path.stem not in NO_LABELS and path.name not in NAME_FILES and _ROWS.match(head(path, 1 << 10)) is not None


def keys_of(stem: str) -> tuple[str, ...]:
    """Return the stems of pictures, in small letters, that a label file of this stem may belong to: `a`, and for `a.jpg.txt` also `a`."""
    short, suffix = os.path.splitext(stem)  # noqa: PTH122
    return (stem.casefold(), short.casefold()) if suffix.lower() in SUFFIXES else (stem.casefold(),)


def _with_labels(data: Path, listing: Listing) -> Listing:
    """Return the listing with the label file of each picture, the usual one or one that was found elsewhere by its name, and notes on those."""
    pictures, labels = listing.pictures, label_files(listing.pictures)
    folders = Folders()
    absent = [index for index, label in enumerate(labels) if not folders.has(label)]
    lost = _in_folders_without(pictures, absent)
    if not lost:
        return _with_other_annotations(data, replace(listing, labels=tuple(labels)), absent, folders)
    search = _Search(_tree(data, [pictures[index] for index in lost]), set(labels))
    found = search.labels_of([pictures[index] for index in lost])
    notes = listing.notes
    for index in lost:
        labels[index] = found.get(pictures[index], labels[index])
    if found:
        picture, label = next(iter(found.items()))
        notes = (*notes, f"labels of {len(found):,} pictures lie elsewhere, found by their names ({picture} has {label})")
    listing = replace(listing, labels=tuple(labels), notes=notes)
    left = [index for index in absent if pictures[index] not in found]
    doubtful = tuple(pictures[index] for index in lost if pictures[index] not in found)
    example = search.unused(doubtful, set(found.values())) if doubtful else None
    if example is None:
        return _with_other_annotations(data, listing, left, folders)
    if len(left) == len(pictures):
        what = f"none of the {len(pictures):,} pictures has a label file (looked for {labels[0]})"
        raise InputError(f"{data}: {what}, but there are label files that fit no picture, such as {example}")
    return _with_other_annotations(data, replace(listing, doubtful=doubtful, notes=(*notes, _warning(doubtful, example))), left, folders)


def _warning(pictures: Sequence[str], label: str) -> str:
    return f"{len(pictures):,} pictures have no label file, while there are label files that fit no picture, such as {label}"


def _in_folders_without(pictures: Sequence[str], absent: Sequence[int]) -> list[int]:
    """Return those of the `absent` pictures in whose folders more than half of the pictures have no label file."""
    all_in = Counter(picture.rpartition(os.sep)[0] for picture in pictures)
    absent_in = Counter(pictures[index].rpartition(os.sep)[0] for index in absent)
    return [index for index in absent if 2 * absent_in[home := pictures[index].rpartition(os.sep)[0]] > all_in[home]]


def _with_other_annotations(data: Path, listing: Listing, absent: Sequence[int], folders: Folders) -> Listing:
    """Return the listing with the pictures noted that have an annotation in another format instead of a label file.

    Raises InputError where all pictures do, or none has a label file while annotations of another format are near.
    """
    other: dict[str, str] = {}
    for index in absent:
        picture, label = listing.pictures[index], listing.labels[index]
        names = [f"{_stem(path)}{suffix}" for path in (label, picture) for suffix in (".xml", ".json")]
        instead = next((path for path in names if folders.has(path)), None)
        if instead is not None:
            other[picture] = instead
    if not other and len(absent) < len(listing.pictures):
        return listing
    if len(absent) == len(listing.pictures):
        example = next(iter(other.values()), None) or _annotation_near(_tree(data, listing.pictures))
        if example is None:
            return listing
        what = f"none of the {len(absent):,} pictures has a label file (looked for {listing.labels[0]})"
        raise InputError(f"{data}: {what}; {example} is an annotation of another format: give its folder, or convert it to YOLO's format")
    return replace(listing, annotated=tuple(other.values()))


def _annotation_near(tree: Path) -> str | None:
    """Return an annotation of VOC, labelme or COCO in the folder or near below it; None where there is none."""
    for place in Place(tree).below(2):
        for path in place.having(".xml", ".json")[:20]:
            if re.search(rb'<annotations?[\s>]|"(shapes|annotations)"\s*:', head(path, 1 << 16)):
                return str(path)
    return None


def _tree(data: Path, pictures: Sequence[str]) -> Path:
    """Return the folder to search for the labels of pictures: the one around their folders, or further up where that is one named for pictures or
    for a split, but nothing above the data set, if they lie in it.
    """
    root = data.parent if data.suffix.lower() in (".yaml", ".yml", ".data", ".txt") else data
    common = Path(os.path.commonpath([picture.rpartition(os.sep)[0] or os.sep for picture in pictures]))
    if common == root:
        return root
    tree = common.parent
    for _ in range(_MOST_UP):
        if tree != root and (tree.name.casefold() in PICTURE_FOLDERS or names_split(tree.name) or names_split(common.name)):
            tree, common = tree.parent, tree
    return tree if len(tree.parts) > 1 else common


class _Search:
    """The label files in a folder and below it that belong to no picture by where they lie. free: their paths. own: label files of pictures."""

    def __init__(self, tree: Path, own: set[str]) -> None:
        self.tree = tree
        places = list(Place(tree).below(DEPTH))
        pictures = [str(path) for place in places for path in place.pictures.values()]
        taken = own | set(label_files(pictures))
        self._stems = {Path(picture).stem.casefold() for picture in pictures}
        texts = [str(path) for place in places for path in place.having(".txt")]
        self.free = [path for path in texts if path not in taken and Path(path).stem not in NO_LABELS and Path(path).name not in NAME_FILES]

    def labels_of(self, pictures: Sequence[str]) -> dict[str, str]:
        """Return the label file of each picture that has exactly one by its name, which no other picture has."""
        by_key: dict[str, list[str]] = {}
        for path in self.free:
            for key in keys_of(Path(path).stem):
                by_key.setdefault(key, []).append(path)
        found: dict[str, str] = {}
        for picture in pictures:
            best = self._best(picture, by_key.get(Path(picture).stem.casefold(), []))
            if best is not None:
                found[picture] = best
        users = Counter(found.values())
        return {picture: path for picture, path in found.items() if users[path] == 1 and _fine(path)}

    def unused(self, pictures: Sequence[str], used: set[str]) -> str | None:
        """Return a label file that no picture has, or that has the name of several of `pictures`, so that its picture is unknown; else None."""
        stems = {Path(picture).stem.casefold() for picture in pictures}
        for path in self.free:
            keys = set(keys_of(Path(path).stem))
            if path not in used and (keys & stems or not keys & self._stems) and is_label(Path(path)):
                return path
        return None

    def _best(self, picture: str, paths: Sequence[str]) -> str | None:
        """Return the path that agrees best with the picture's: never of another split, and with the most folder names in common; None for a tie."""
        own, words = self._parts(picture), self._splits(picture)
        fitting = [path for path in paths if not words or not (others := self._splits(path)) or words & others]
        exact = [path for path in fitting if Path(path).stem == Path(picture).stem]
        ranked = sorted(exact or fitting, key=lambda path: -len(own & self._parts(path)))
        if len(ranked) > 1 and len(own & self._parts(ranked[0])) == len(own & self._parts(ranked[1])):
            return None
        return ranked[0] if ranked else None

    def _parts(self, path: str) -> set[str]:
        return set(Path(path).relative_to(self.tree).parts[:-1]) if path.startswith(f"{self.tree}{os.sep}") else set()

    def _splits(self, path: str) -> set[str]:
        return {split for split in SPLITS for part in self._parts(path) if fits(part, split)}


def _fine(path: str) -> bool:
    """Tell whether a file holds rows of numbers or nothing at all."""
    text = head(Path(path), 1 << 10)
    return not text.strip() or _ROWS.match(text) is not None


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122
