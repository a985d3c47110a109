"""A folder that may hold a data set, the parts that a format finds in it, and helpers for names of splits and classes."""

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
    """A request to read a part of a data set. names: class names for formats that have none. keep_difficult: as `open_dataset` takes it."""

    split: str
    names: Sequence[str]
    index: Index
    keep_difficult: bool = False


Part = Callable[[Request], Dataset]
"""A function that reads one part of a data set."""


@dataclass(frozen=True)
class Found:
    """The parts of a data set that a format found. parts: readers of the parts by name; a single part may have any name.

    absent: error text for a split that is not there, with `{split}` and `{there}`. serves_all: whether a single part stands for every split unless
    the user asks for a share for validation.
    """

    parts: Mapping[str, Part]
    absent: str
    serves_all: bool = False


@dataclass(frozen=True)
class Missed:
    """The reason why a format is not in a folder. near: whether some of what the format looks for is there."""

    reason: str
    near: bool = False


@dataclass(frozen=True)
class Format:
    """One way in which tools write data sets. name: the format's name in messages; looks_for: what must be in a folder, for messages."""

    name: str
    looks_for: str

    def find(self, place: Place) -> Found | Missed:
        raise NotImplementedError


class Place:
    """A folder whose entries are read once; hidden ones are left out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def entries(self) -> list[os.DirEntry[str]]:
        """Files and folders in the folder, sorted by name; empty where it is no folder. Raises OSError where it must not be listed."""
        if not self.root.is_dir():
            return []
        with os.scandir(self.root) as entries:
            return sorted((entry for entry in entries if not hidden(entry.name)), key=lambda entry: entry.name)

    @cached_property
    def folders(self) -> list[Path]:
        """Folders in the folder, sorted."""
        return [self.root / entry.name for entry in self.entries if entry.is_dir()]

    @cached_property
    def files(self) -> list[str]:
        """Names of the files in the folder, sorted."""
        return [entry.name for entry in self.entries if entry.is_file()]

    def having(self, *suffixes: str) -> list[Path]:
        """Return the files in the folder that have one of the suffixes, in any letter case."""
        return [self.root / name for name in self.files if name.lower().endswith(suffixes)]

    def child(self, name: str) -> Path:
        """Return the path of a file or folder in the folder, in whatever letter case its name is written."""
        return child(self.root, name)

    @cached_property
    def splits(self) -> dict[str, Place]:
        """Folders in the folder that are named for a split, by name."""
        return {folder.name: Place(folder) for folder in self.folders if any(fits(folder.name, split) for split in SPLITS)}

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """Pictures in the folder by their stems; where two share a stem, the first in the order of names (`.jpg` before `.png`)."""
        found = {os.path.splitext(name)[0]: self.root / name for name in reversed(self.files) if is_picture(name)}  # noqa: PTH122
        return dict(reversed(found.items()))


def fits(name: str, split: str) -> bool:
    """Tell whether a file or folder of this name belongs to a split, as train2017, instances_val, valid and dev do."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word]
    return any(word.startswith(split) or word in _OTHER_WORDS.get(split, ()) for word in words)


def choose(names: Sequence[str], split: str) -> list[str]:
    """Return the names that may be the split's: those that match it most closely, from the equal name to a word that begins like it."""
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
    """Yield the folders in a folder, sorted; none where it is no folder."""
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
    """Return the first `count` bytes of a file; no bytes where it cannot be read."""
    try:
        return read_bytes(str(path), count)
    except OSError:
        return b""


def names_in(folders: Sequence[Path], leave_out: Sequence[str] = ()) -> tuple[tuple[str, ...], Path | None]:
    """Return the class names in the first of NAME_FILES that the folders hold, and that file; no names and None where there is no such file.

    leave_out: lines that name no class. Raises InputError for a file that is no list of names.
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
    """Return the names in a file, a line each, in any encoding that `texts.decoded` knows.

    leave_out: lines that name no class. Raises InputError where the file is no list of names, or one comes twice.
    """
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
    """Return a line that says which file the class names come from; nothing without a file."""
    return () if path is None else (f"class names are those of {path}",)
