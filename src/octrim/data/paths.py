"""Finds files by paths in users' files that were written for another place: on Windows, on another machine, for another working folder.

A path is first looked for as it is written. Only where nothing else of the folder that it names is there, it is read more freely: with slashes for
backslashes, without a drive, a scheme or leading folders, in the folders around the data set, and last by its name alone where that is unique.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from octrim.data.labelfiles import read_bytes
from octrim.data.texts import respelled

_SKIPPED = {"__macosx", "@eadir", "$recycle.bin"}  # folders that systems make: macOS's zips, Synology, Windows
_MOST_FILES = 2_000_000
_MOST_PARTS = 20  # most leading folders of a path that are tried without
_SPLITS = ("train", "val", "test")


def hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is no user's data: hidden, or made by an operating system beside the data."""
    return name.startswith(".") or name.casefold() in _SKIPPED


def is_results(folder: str) -> bool:
    """Tell whether a folder is a run of OcTrim's, or the folder runs/ in which OcTrim and YOLOv5 put theirs: its pictures are charts and results."""
    if folder.rpartition(os.sep)[2] == "runs" and any(path.is_dir() for path in Path(folder).glob("*/exp*")):
        return True
    try:
        return read_bytes(f"{folder}{os.sep}config.yaml", 9) == b"command: "
    except OSError:
        return False


def walk_files(folder: str, wanted: Callable[[str], bool]) -> list[str]:
    """Return the sorted paths of all files in a folder and below it whose names are wanted, also through symbolic links, without hidden ones."""
    found = []
    seen: set[tuple[int, int]] = set()
    for home, below, files in os.walk(folder, followlinks=True):
        try:
            status = os.stat(home)  # noqa: PTH116
        except OSError:  # the folder has gone meanwhile
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was seen already
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not hidden(name) and not is_results(f"{home}{os.sep}{name}")]
        found += [f"{home}{os.sep}{name}" for name in files if wanted(name) and not hidden(name)]
        if len(found) > _MOST_FILES:
            break
    return sorted(found)


def spellings(written: str) -> list[str]:
    """Return the paths that a written path may mean, the likeliest first, with `/` between their parts."""
    text = written.strip().strip("\"'").strip()
    again = respelled(text)
    found = []
    for one in (text, *([] if again is None else [again])):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|file:", one):
            found += _of_address(one)
            continue
        plain = re.sub(r"^[A-Za-z]:(?=/)", "", one.replace("\\", "/"))
        if "?d=" in plain:  # Label Studio names local files so
            found += parse_qs(plain.partition("?")[2]).get("d", [])
        found.append(plain)
        if "%" in plain:  # the path may be escaped as in an address
            found.append(unquote(plain))
    return [one for one in dict.fromkeys(found) if one and "\0" not in one]


def _of_address(text: str) -> list[str]:
    """Return the paths in an address (URL): its parameter `d`, where there is one, and its path, unescaped and without a Windows drive."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return []
    path = re.sub(r"^/?[A-Za-z]:(?=/)", "", unquote(parts.path).replace("\\", "/"))
    return [*parse_qs(parts.query).get("d", []), path]


def tails(spelled: str) -> Iterator[str]:
    """Yield a path without its leading folders, one more at a time, but never without a folder that tells its split."""
    parts = [part for part in spelled.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts = parts[1:]
    for start in range(min(len(parts), _MOST_PARTS)):
        dropped, kept = parts[:start], parts[start:]
        if not any(map(_split_word, dropped)) or any(map(_split_word, kept)):
            yield "/".join(kept)


def _split_word(part: str) -> str | None:
    return next((word for word in _SPLITS if part.casefold().startswith(word)), None)


def exists(path: str) -> bool:
    """Tell whether there is a file or folder at this path; False for names that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 (which raises nothing, whatever the name)


def child(folder: Path, name: str) -> Path:
    """Return the path of a file or folder of this name in `folder`: as written, else in the only other letter case, else as written though absent."""
    exact = folder / name
    if exists(str(exact)):
        return exact
    try:
        same = [entry for entry in os.listdir(folder) if entry.casefold() == name.casefold()]  # noqa: PTH208
    except OSError:
        return exact
    return folder / same[0] if len(same) == 1 else exact


class Folders:
    """The names of the files in folders, each folder read once."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder))  # noqa: PTH208
            except (OSError, ValueError):
                self._names[folder] = set()
        return name in self._names[folder]


def find_place(written: str, bases: Sequence[str], found: Callable[[str], bool] = exists) -> str | None:
    """Return the file or folder that a path means: as written below one of the bases, or by a freer reading; None where it is nowhere.

    found: tells whether a path is there.
    """
    for base in bases:
        if found(place := os.path.join(base, written)):  # noqa: PTH118
            return place
    for spelled in spellings(written):
        for tail in ((spelled,) if spelled.startswith("/") else ()), (spelled,), tails(spelled):
            for one in tail:
                for base in bases:
                    if found(place := os.path.normpath(os.path.join(base, one))):  # noqa: PTH118
                        return place
    for spelled in spellings(written):
        for tail in tails(spelled):
            for base in bases:
                if found(place := _in_any_case(base, tail)):
                    return place
    return None


def _in_any_case(base: str, tail: str) -> str:
    """Return a path below a folder, each part in the letter case that it has there."""
    path = Path(base)
    for part in tail.split("/"):
        if part == "..":
            path = path.parent
        else:
            path = child(path, part)
    return str(path)


@dataclass
class Located:
    """The places of listed files. paths: one for each file; a file that is nowhere keeps its first guessed path.

    freely: number of files that were found elsewhere than written. example: one of those, as written and as found.
    """

    paths: list[str]
    freely: int = 0
    example: tuple[str, str] | None = None

    def note(self, what: str) -> tuple[str, ...]:
        """Return a note where files were found elsewhere than written, else nothing. what: name of the list that has the paths."""
        if self.example is None:
            return ()
        written, found = self.example
        return (f"{what}: {self.freely} of {len(self.paths)} paths are not where they are written; found by name ({written.strip()} is {found})",)


@dataclass
class Locator:
    """Finder of files that lists name. bases: folders that paths may be relative to, the preferred first. trees: folders to search by name.

    split: split that the list belongs to. wanted: tells by a file's name whether it can be meant.
    """

    bases: list[str]
    trees: Sequence[str]
    split: str = ""
    wanted: Callable[[str], bool] = lambda name: True
    _names: dict[str, list[str]] | None = field(default=None, repr=False)
    _splits: set[str] | None = field(default=None, repr=False)
    _listings: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False)

    def locate(self, written: Sequence[str], plain: Callable[[str], tuple[str, bool]]) -> Located:
        """Find the files of a list's lines. plain: returns the plain path of a line, and whether the file is there."""
        paths: list[str] = []
        missing: list[int] = []
        there: set[str] = set()
        for index, line in enumerate(written):
            path, known = plain(line)
            paths.append(path)
            if known:
                there.add(_folder(line))
            else:
                missing.append(index)
        located = Located(paths)
        tail = 0
        for index in missing:
            if _folder(written[index]) in there:  # other files of its folder are there: this one is there, too, or gone
                place = self._in_other_case(paths[index])
            else:
                place, tail = self._freely(written[index], tail)
            if place is not None:
                paths[index] = place
                located.freely += 1
                located.example = located.example or (written[index], place)
        return located

    def _in_other_case(self, path: str) -> str | None:
        """Return the only file in the path's folder whose name differs from the path's in letter case or surrounding spaces alone; else None."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._listings:
            try:
                names = os.listdir(folder)  # noqa: PTH208
            except (OSError, ValueError):
                names = []
            self._listings[folder] = {}
            for one in names:
                self._listings[folder].setdefault(one.casefold(), []).append(one)
        same = self._listings[folder].get(name.strip().casefold(), [])
        return f"{folder}{os.sep}{same[0]}" if len(same) == 1 and not hidden(same[0]) else None

    def _freely(self, written: str, likely: int) -> tuple[str | None, int]:
        """Return where a path is by a free reading, or None, and how many leading folders had to be dropped, which the next path is tried with first.

        likely: that number of the path before.
        """
        for spelled in spellings(written):
            if spelled.startswith("/") and exists(spelled):
                return spelled, likely
            options = list(tails(spelled))
            order = sorted(range(len(options)), key=lambda place: (place != likely, place))
            for place in order:
                for base in self.bases:
                    path = os.path.join(base, options[place])  # noqa: PTH118
                    if exists(path):
                        return os.path.normpath(path), place
            found = self._by_name(spelled)
            if found is not None:
                return found, likely
        return None, likely

    def _by_name(self, spelled: str) -> str | None:
        """Return the only file of the path's name, in any letter case, that is not in a folder of another split; else None.

        Where the list's own split has no folder at all, and the path names none, all pictures lie together, and every folder may be meant.
        """
        if self._names is None:
            self._names = {}
            for tree in self.trees:
                for path in walk_files(tree, self.wanted):
                    self._names.setdefault(path.rpartition(os.sep)[2].casefold(), []).append(path)
        candidates = self._names.get(spelled.rpartition("/")[2].casefold(), [])
        written = {word for word in map(_split_word, spelled.split("/")[:-1]) if word}
        listed = {word for word in (_split_word(self.split),) if word}
        wanted = written | listed if written or listed & self._split_folders() else set()
        own = [path for path in dict.fromkeys(candidates) if not wanted or not (words := self._words_of(path)) or words & wanted]
        if len(own) > 1:  # of several files, the one whose folders agree best with the path's is taken
            agreed = sorted(own, key=lambda path: -_common_tail(path, spelled))
            own = agreed[:1] if _common_tail(agreed[0], spelled) > _common_tail(agreed[1], spelled) else []
        return own[0] if own else None

    def _split_folders(self) -> set[str]:
        """Return the splits that folders of the searched files are named for."""
        if self._splits is None:
            self._splits = {word for paths in (self._names or {}).values() for path in paths for word in self._words_of(path)}
        return self._splits

    def _words_of(self, path: str) -> set[str]:
        """Return the splits that a file's folders are named for, below the folder that was searched."""
        tree = max((tree for tree in self.trees if path.startswith(tree + os.sep)), key=len, default="")
        return {word for word in map(_split_word, Path(path[len(tree) :]).parts[:-1]) if word}


def _folder(line: str) -> str:
    return max(line.rpartition("/")[0], line.rpartition("\\")[0], key=len)


def _common_tail(path: str, spelled: str) -> int:
    """Return how many parts two paths have in common, counted from their ends."""
    count = 0
    for one, other in zip(reversed(Path(path).parts), reversed(spelled.split("/")), strict=False):
        if one.casefold() != other.casefold():
            break
        count += 1
    return count
