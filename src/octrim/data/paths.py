"""Paths in users' files that were written for another place: by Windows, by another machine, for another working folder.

A path is looked for as it is written first. Only where nothing of the folder that it names is there, it is read more freely: with slashes for
backslashes, without a drive, a scheme or leading folders, in the folders around the data set, and last by its name alone where that is unique.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from octrim.data.texts import respelled

_SKIPPED = {"__macosx", "@eadir", "$recycle.bin"}  # folders that systems make: macOS's zips, Synology, Windows
_MOST_FILES = 2_000_000
_MOST_PARTS = 20  # folders of a path that are tried without their leaders
_SPLIT_WORDS = ("train", "val", "test")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: hidden, or made by a system beside what is."""
    return name.startswith(".") or name.casefold() in _SKIPPED


def walk_files(folder: str, wanted: Callable[[str], bool]) -> list[str]:
    """Files in a folder and below it whose names are wanted, also through symbolic links, sorted, without what is hidden."""
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
        below[:] = [name for name in below if not hidden(name)]
        found += [f"{home}{os.sep}{name}" for name in files if wanted(name) and not hidden(name)]
        if len(found) > _MOST_FILES:
            break
    return sorted(found)


def spellings(written: str) -> list[str]:
    """What a path may mean besides itself, the likeliest first, with `/` between its parts."""
    text = written.strip().strip("\"'").strip()
    again = respelled(text)
    found = []
    for one in (text, *([] if again is None else [again])):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|file:", one):
            found += _of_address(one)
            continue
        plain = re.sub(r"^[A-Za-z]:(?=/)", "", one.replace("\\", "/"))
        if "?d=" in plain:  # Label Studio's local files
            found += parse_qs(plain.partition("?")[2]).get("d", [])
        found.append(plain)
        if "%" in plain:  # escaped as in an address
            found.append(unquote(plain))
    return [one for one in dict.fromkeys(found) if one and "\0" not in one]


def _of_address(text: str) -> list[str]:
    """The path of an address, which may be escaped, and be that of a Windows drive."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return []
    path = re.sub(r"^/?[A-Za-z]:(?=/)", "", unquote(parts.path).replace("\\", "/"))
    return [*parse_qs(parts.query).get("d", []), path]


def tails(spelled: str) -> Iterator[str]:
    """A path without its leading folders, one more at a time; not without the one that tells train from val."""
    parts = [part for part in spelled.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts = parts[1:]
    for start in range(min(len(parts), _MOST_PARTS)):
        dropped, kept = parts[:start], parts[start:]
        if not any(map(_split_word, dropped)) or any(map(_split_word, kept)):
            yield "/".join(kept)


def _split_word(part: str) -> str | None:
    return next((word for word in _SPLIT_WORDS if part.casefold().startswith(word)), None)


def exists(path: str) -> bool:
    """Whether there is such a file or folder; False for names that none can have."""
    return os.path.exists(path)  # noqa: PTH110 (which raises nothing, whatever the name)


def child(folder: Path, name: str) -> Path:
    """A file or folder of this name, in another letter case where it is not there in its own; the name itself where it is in none."""
    exact = folder / name
    if exists(str(exact)):
        return exact
    try:
        same = [entry for entry in os.listdir(folder) if entry.casefold() == name.casefold()]  # noqa: PTH208
    except OSError:
        return exact
    return folder / same[0] if len(same) == 1 else exact


def find_place(written: str, bases: Sequence[str], found: Callable[[str], bool] = exists) -> str | None:
    """The one file or folder that a path means: as written below one of the bases, or freely; None where it is nowhere."""
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
    """A path below a folder whose parts may be written in another letter case there."""
    path = Path(base)
    for part in tail.split("/"):
        if part == "..":
            path = path.parent
        else:
            path = child(path, part)
    return str(path)


@dataclass
class Located:
    """Where listed files are. paths: one for each; what is nowhere keeps its first guess. freely: how many were found by a free reading.

    example: what one of those is written as, and where it was found.
    """

    paths: list[str]
    freely: int = 0
    example: tuple[str, str] | None = None

    def note(self, what: str) -> tuple[str, ...]:
        """A line for people where something was found elsewhere than written. what: of which list."""
        if self.example is None:
            return ()
        written, found = self.example
        return (f"{what}: {self.freely} of {len(self.paths)} paths are not where they are written; found by name ({written.strip()} is {found})",)


@dataclass
class Locator:
    """Finds what lists name. bases: folders that paths are relative to, by preference. trees: folders to search by name. split: of the list."""

    bases: list[str]
    trees: Sequence[str]
    split: str = ""
    wanted: Callable[[str], bool] = lambda name: True
    _names: dict[str, list[str]] | None = field(default=None, repr=False)
    _splits: set[str] | None = field(default=None, repr=False)
    _listings: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False)

    def locate(self, written: Sequence[str], plain: Callable[[str], tuple[str, bool]]) -> Located:
        """plain: the path as written, and whether it is there."""
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
            if _folder(written[index]) in there:  # others of its folder are there: this one is there, too, or gone
                place = self._in_other_case(paths[index])
            else:
                place, tail = self._freely(written[index], tail)
            if place is not None:
                paths[index] = place
                located.freely += 1
                located.example = located.example or (written[index], place)
        return located

    def _in_other_case(self, path: str) -> str | None:
        """The only file at this place whose name differs in letter case, or in spaces around it."""
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
        """Where a path is by a free reading, and without how many leading folders, which the next one is likely to need, too."""
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
        """The only file of this name, in any letter case, that is not in a folder of another part of the data set.

        Where the list's own part has no folder at all, and the path names none, all pictures lie together in whatever folder that is.
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
        if len(own) > 1:  # the one whose folders agree best, if there is one
            agreed = sorted(own, key=lambda path: -_common_tail(path, spelled))
            own = agreed[:1] if _common_tail(agreed[0], spelled) > _common_tail(agreed[1], spelled) else []
        return own[0] if own else None

    def _split_folders(self) -> set[str]:
        """The splits that folders are named for."""
        if self._splits is None:
            self._splits = {word for paths in (self._names or {}).values() for path in paths for word in self._words_of(path)}
        return self._splits

    def _words_of(self, path: str) -> set[str]:
        """The splits that the folders of a file are named for, below the folder that was searched."""
        tree = max((tree for tree in self.trees if path.startswith(tree + os.sep)), key=len, default="")
        return {word for word in map(_split_word, Path(path[len(tree) :]).parts[:-1]) if word}


def _folder(line: str) -> str:
    return max(line.rpartition("/")[0], line.rpartition("\\")[0], key=len)


def _common_tail(path: str, spelled: str) -> int:
    """How many parts from the end on the two have in common."""
    count = 0
    for one, other in zip(reversed(Path(path).parts), reversed(spelled.split("/")), strict=False):
        if one.casefold() != other.casefold():
            break
        count += 1
    return count
