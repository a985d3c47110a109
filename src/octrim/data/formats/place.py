"""A folder that may hold a data set, and what a format found in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.index import Index
from octrim.data.labelfiles import read_bytes
from octrim.data.paths import child, hidden
from octrim.data.pictures import is_picture
from octrim.data.texts import decoded
from octrim.errors import InputError, shown

SPLITS = ("train", "val", "test")
_OTHER_WORDS = {"val": ("dev", "eval", "evaluation"), "train": ("learn",), "test": ()}
NAME_FILES = ("labels.txt", "label_list.txt", "classes.txt", "obj.names", "names.txt", "predefined_classes.txt", "_darknet.labels", "class_names.txt")


@dataclass(frozen=True)
class Request:
    """How a part of a data set is to be read. names: of the classes, where the format has none."""

    split: str
    names: Sequence[str]
    index: Index
    keep_difficult: bool = False


Part = Callable[[Request], Dataset]
"""Reads one part of a data set."""


@dataclass(frozen=True)
class Found:
    """What a format found. parts: by name; a single one may have any. absent: what to say of a split that is not there, with `{split}` and `{there}`.

    serves_all: whether a single part stands for every split unless a share is asked for.
    """

    parts: Mapping[str, Part]
    absent: str
    serves_all: bool = False


@dataclass(frozen=True)
class Missed:
    """Why a format is not there. near: whether some of what it looks for is."""

    reason: str
    near: bool = False


@dataclass(frozen=True)
class Format:
    """One way in which tools write data sets. name: for people; looks_for: what must be there."""

    name: str
    looks_for: str

    def find(self, place: Place) -> Found | Missed:
        raise NotImplementedError


class Place:
    """A folder, read once: what is in it, without what is hidden."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def entries(self) -> list[os.DirEntry[str]]:
        """Files and folders in it, sorted by name; none where it is no folder. Raises OSError for one that must not be listed."""
        if not self.root.is_dir():
            return []
        with os.scandir(self.root) as entries:
            return sorted((entry for entry in entries if not hidden(entry.name)), key=lambda entry: entry.name)

    @cached_property
    def folders(self) -> list[Path]:
        """Folders in it, sorted."""
        return [self.root / entry.name for entry in self.entries if entry.is_dir()]

    @cached_property
    def files(self) -> list[str]:
        """Names of the files in it, sorted."""
        return [entry.name for entry in self.entries if entry.is_file()]

    def having(self, *suffixes: str) -> list[Path]:
        """Files in it with one of the suffixes, in any letter case."""
        return [self.root / name for name in self.files if name.lower().endswith(suffixes)]

    def child(self, name: str) -> Path:
        """A file or folder in it, in whatever letter case it is written."""
        return child(self.root, name)

    @cached_property
    def splits(self) -> dict[str, Place]:
        """Folders in it that are named for a split."""
        return {folder.name: Place(folder) for folder in self.folders if any(fits(folder.name, split) for split in SPLITS)}

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """Pictures in it by their stems; of two, `.jpg` before `.png`."""
        found = {os.path.splitext(name)[0]: self.root / name for name in reversed(self.files) if is_picture(name)}  # noqa: PTH122
        return dict(reversed(found.items()))


def fits(name: str, split: str) -> bool:
    """Whether a file or folder of this name is that split's: train2017, instances_val, valid, dev."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word]
    return any(word.startswith(split) or word in _OTHER_WORDS.get(split, ()) for word in words)


def choose(names: Sequence[str], split: str) -> list[str]:
    """The names that may be the split's: of several kinds of likeness the closest that any has."""
    if not split:
        return []
    kinds: tuple[Callable[[str], bool], ...] = (
        lambda name: name == split,
        lambda name: name.casefold() == split.casefold(),
        lambda name: split in re.split(r"[^a-z0-9]+", name.casefold()),
        lambda name: name.casefold().startswith(split) and not name.casefold().startswith("trainval"),
        lambda name: name.casefold().startswith(split),
        lambda name: fits(name, split),
    )
    for kind in kinds:
        found = [name for name in names if kind(name)]
        if found:
            return found
    return []


def children(folder: Path) -> Iterator[Path]:
    """Folders in a folder, sorted; none where it is no folder."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))
    except NotADirectoryError:
        return
    except FileNotFoundError:
        return
    for name in names:
        yield folder / name


def head(path: Path, count: int) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        return read_bytes(str(path), count)
    except OSError:
        return b""


def names_in(folders: Sequence[Path], leave_out: Sequence[str] = ()) -> tuple[tuple[str, ...], Path | None]:
    """Class names as tools write them beside their labels, a line each, and the file; none where there is no such file.

    Raises InputError for a file that is no list of names.
    """
    for folder in folders:
        for name in NAME_FILES:
            path = child(folder, name)
            if path.is_file():
                found = listed_names(path, leave_out)
                if found:
                    return found, path
    return (), None


def listed_names(path: Path, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The names in a file, a line each, in any encoding that `texts.decoded` knows. Raises InputError where they are none, or one comes twice."""
    try:
        text = decoded(read_bytes(str(path), 2**20))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of class names: {shown(str(error))}") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip() and line.strip() not in leave_out)
    if any("\0" in name for name in names):
        raise InputError(f"{path}: not a list of class names")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: a class name occurs twice")
    return names


def names_note(path: Path | None) -> tuple[str, ...]:
    """A line that says where names come from."""
    return () if path is None else (f"class names are those of {path}",)
