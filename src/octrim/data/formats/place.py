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
from octrim.data.paths import child, hidden, is_results
from octrim.data.pictures import is_picture

SPLITS = ("train", "val", "test")
_MOST_FOLDERS = 2000  # folders below a data set that are searched for what makes up a format
SPLIT_WORDS = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
"""Other words for the splits, by which users and files name them."""
_OTHER_WORDS = {"val": ("dev", "eval", "evaluation"), "train": ("learn",), "test": ()}


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
        """Folders in the folder, sorted, without those of OcTrim's own results."""
        return [self.root / entry.name for entry in self.entries if entry.is_dir() and not is_results(entry.path)]

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
        return {folder.name: Place(folder) for folder in self.folders if names_split(folder.name)}

    @cached_property
    def inner(self) -> list[Place]:
        """The folders in the folder as places, so that what was read of them is kept."""
        return list(map(Place, self.folders))

    def below(self, depth: int) -> Iterator[Place]:
        """Yield the folder itself and those below it, `depth` levels deep and at most _MOST_FOLDERS of them, the upper ones first."""
        level: list[Place] = [self]
        count = 0
        for step in range(depth + 1):
            deeper: list[Place] = []
            for place in level:
                yield place
                count += 1
                if count >= _MOST_FOLDERS:
                    return
                if step < depth:
                    deeper += place.inner
            level = deeper

    @cached_property
    def pictures(self) -> dict[str, Path]:
        """Pictures in the folder by their stems; where two share a stem, the first in the order of names (`.jpg` before `.png`)."""
        found = {os.path.splitext(name)[0]: self.root / name for name in reversed(self.files) if is_picture(name)}  # noqa: PTH122
        return dict(reversed(found.items()))


def fits(name: str, split: str) -> bool:
    """Tell whether a file or folder of this name belongs to a split, as train2017, instances_val, valid and dev do."""
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word]
    return any(word.startswith(split) or word in _OTHER_WORDS.get(split, ()) for word in words)


def names_split(name: str) -> bool:
    """Tell whether a file or folder is named for a split."""
    return any(fits(name, split) for split in SPLITS)


def by_split(root: Path, folders: Sequence[Path], cut: bool = False) -> dict[str, tuple[Path, ...]]:
    """Group folders by the part of their path below `root` that names a split, such as train in train/cam1/images and in cam1/train.

    cut: whether paths end behind that part in the result, each once. A folder whose path names no split is left out.
    """
    found: dict[str, dict[Path, None]] = {}
    for folder in folders:
        parts = folder.relative_to(root).parts
        place = next((index for index, part in enumerate(parts) if names_split(part)), None)
        if place is not None:
            found.setdefault(parts[place], {})[root.joinpath(*parts[: place + 1]) if cut else folder] = None
    return {split: tuple(several) for split, several in found.items()}


def choose(names: Sequence[str], split: str) -> list[str]:
    """Return the names that may be the split's: those that match it most closely, from the equal name to a word that begins like it.

    A name that is train's and val's, such as trainval, comes after all others.
    """
    if not split:
        return []
    kinds: tuple[Callable[[str], bool], ...] = (
        lambda name: name == split,
        lambda name: name.casefold() == split.casefold(),
        lambda name: split in re.split(r"[^a-z0-9]+", name.casefold()),
        lambda name: name.casefold().startswith(split),
        lambda name: fits(name, split),
    )
    for some in ([name for name in names if not _names_both(name)], names):
        for kind in kinds:
            found = [name for name in some if kind(name)]
            if found:
                return found
    return []


def _names_both(name: str) -> bool:
    """Tell whether a name is train's and val's in one word or two, as trainval and train_val."""
    return re.search(r"(?<![a-z])train[-_ ]?val", name.casefold()) is not None


def train_with_val(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the part that is taken for train and the one for val, where the former is named for both, as trainval is; else None."""
    trains, validates = choose(names, "train"), choose(names, "val")
    if len(trains) != 1 or len(validates) != 1 or trains == validates:
        return None
    return (trains[0], validates[0]) if _names_both(trains[0]) else None


def children(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, sorted; none where it is no folder."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))
    except (NotADirectoryError, FileNotFoundError):
        return
    for name in names:
        yield folder / name


def head(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of a file; no bytes where it cannot be read."""
    try:
        return read_bytes(str(path), count)
    except OSError:
        return b""
