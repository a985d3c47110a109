"""Finds Pascal VOC's annotations: with lists of a split's pictures, with lists of pairs, or in folders alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.names import class_names, names_note
from octrim.data.formats.place import Format, Found, Missed, Place, Request, children, head
from octrim.data.labelfiles import read_bytes, read_lines
from octrim.data.paths import Locator, child, exists, walk_files
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.data.texts import decoded
from octrim.data.voc import Named, read_named, stem_of
from octrim.errors import InputError

_PICTURE_FOLDERS = ("JPEGImages", "images", "image", "imgs", "img", "pictures", "PNGImages", "data")
_ANNOTATION_FOLDERS = ("Annotations", "Annotation", "xml", "xmls", "labels", "label")


class VocLists(Format):
    """The format of VOC and CVAT: Annotations/, JPEGImages/ and ImageSets/Main/."""

    def find(self, place: Place) -> Found | Missed:
        lists = _lists(place)
        if not place.child("Annotations").is_dir() or not lists:
            return Missed("no Annotations/ with ImageSets/Main/*.txt", place.child("Annotations").is_dir() or bool(lists))
        parts = {name: partial(_read_list, place.root, path) for name, path in lists.items()}
        return Found(parts, f"{next(iter(lists.values())).parent}: there is no {{split}}.txt; it has {{there}}")


def annotations_folder(root: Path) -> Path:
    """Return the folder below `root` that holds the annotations; Annotations/ where there is none."""
    return next((found for name in _ANNOTATION_FOLDERS if (found := child(root, name)).is_dir()), root / _ANNOTATION_FOLDERS[0])


def picture_folder(root: Path) -> Path:
    """Return the folder that holds the pictures: one below `root` that is named for them, or `root` itself where it holds some."""
    named = next((found for name in _PICTURE_FOLDERS if (found := child(root, name)).is_dir()), None)
    return named or (root if Place(root).pictures else root / _PICTURE_FOLDERS[0])


def _lists(place: Place) -> dict[str, Path]:
    """Return the lists of pictures in ImageSets/ by their names, without VOC's lists of one class each (aeroplane_train)."""
    sets = place.child("ImageSets")
    folder = child(sets, "Main")
    for home in (folder, sets):
        # Everything with a list's name is taken: one that is no file is reported when it is read.
        entries = Place(home).entries if home.is_dir() else []
        lists = {Path(entry.name).stem: home / entry.name for entry in entries if entry.name.lower().endswith(".txt")}
        plain = {name: path for name, path in lists.items() if "_" not in name}
        if lists:
            return plain or lists
    return {}


def _read_list(root: Path, path: Path, request: Request) -> Dataset:
    stems = _stems(root, path)
    part = with_pictures(root, stems)
    return read_named(root, part, path.stem, request.names, request.index, request.keep_difficult)


def with_pictures(root: Path, stems: Sequence[str]) -> Named:
    """Return the pictures with the given stems in a folder of VOC's shape, with their annotations."""
    annotations = annotations_folder(root)
    by_stem, folder = pictures_by_stem(root)
    pictures = [by_stem.get(stem) or f"{folder}{os.sep}{stem}.jpg" for stem in stems]
    # Sorted names are the same for every split only if every annotation has been seen.
    present = sorted(f"{annotations}{os.sep}{name}" for name in os.listdir(annotations) if name.endswith(".xml") and name[0] != ".")  # noqa: PTH208
    labels = [str(annotations / f"{stem}.xml") for stem in stems]
    known = set(present)
    strays = [path for path in present if stem_of(path) not in by_stem]
    if not any(label in known for label in labels):  # suffixes in capitals, or annotations in folders like the pictures'
        files = walk_files(str(annotations), lambda name: name.lower().endswith(".xml"))
        by_name = {os.path.splitext(os.path.relpath(path, annotations))[0]: path for path in files}  # noqa: PTH122
        labels = [by_name.get(stem, label) for stem, label in zip(stems, labels, strict=True)]
        present, strays = files, [path for name, path in by_name.items() if name not in by_stem]
    names, source = class_names([root])
    mapped, labelmap = ((), None) if names else _label_map(root)
    notes = names_note(source or labelmap)
    return Named(pictures, labels, list(stems), present, names or mapped, strays, notes=notes, more_names=bool(mapped))


def _label_map(root: Path) -> tuple[tuple[str, ...], Path | None]:
    """Return the class names in CVAT's labelmap.txt, lines `label:color:parts:actions`, and that file; no names and None where it has none.

    The label "background" is left out: no box has it.
    """
    path = child(root, "labelmap.txt")
    try:
        lines = decoded(read_bytes(str(path), 2**20)).splitlines()
    except (OSError, UnicodeDecodeError):
        return (), None
    labels = [line.partition(":")[0].strip() for line in lines if not line.lstrip().startswith("#")]
    names = tuple(dict.fromkeys(label for label in labels if label not in ("", "background") and "\0" not in label))
    return (names, path) if names else ((), None)


def _stems(root: Path, path: Path) -> list[str]:
    """Return the stems of the pictures that a list of ImageSets names, one a line; some tools add a suffix, quotes, or a number behind.

    Raises InputError where the file cannot be read, is empty or is no list.
    """
    try:
        lines = read_lines(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    written = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not written:
        raise InputError(f"{path}: the file is empty, expected the name of a picture on every line")
    if any("\0" in line for line in written):
        raise InputError(f"{path}: not a list of pictures")
    annotations = annotations_folder(root)
    by_stem: dict[str, str] | None = None
    stems = []
    for line in written:
        if exists(str(annotations / f"{line}.xml")):
            stems.append(line)
            continue
        if by_stem is None:
            by_stem = pictures_by_stem(root)[0]
        stems.append(next((one for one in _readings(line) if one in by_stem or exists(str(annotations / f"{one}.xml"))), line))
    return list(dict.fromkeys(stems))


def _readings(line: str) -> list[str]:
    """Return the stems that a line may name: all of it, its part in quotes, or its part before a space and 1, 0 or -1.

    Each is tried with and without folder and suffix.
    """
    quoted = re.fullmatch(r'"(.*)"(\s+-?[01])?', line)
    bare = quoted[1] if quoted else line
    found = [bare, re.sub(r"\s+-?[01]$", "", bare)]
    found = [one.replace("\\", "/") for one in found]
    cut = [os.path.splitext(one)[0] if one.lower().endswith((*SUFFIXES, ".xml")) else one for one in found]  # noqa: PTH122
    inside = [re.sub(r"^(.*/)?(JPEGImages|Annotations|images)/", "", one, flags=re.IGNORECASE).removeprefix("./") for one in cut]
    return list(dict.fromkeys([*found, *cut, *inside]))


def pictures_by_stem(root: Path) -> tuple[dict[str, str], Path]:
    """Return the pictures of a folder of VOC's shape by their stems (`.jpg` before `.png` where two share one), and the folder that holds them.

    Raises InputError where that folder cannot be listed.
    """
    folder = picture_folder(root)
    try:
        files = sorted(name for name in os.listdir(folder) if is_picture(name))  # noqa: PTH208
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from None
    found = {os.path.splitext(name)[0]: f"{folder}{os.sep}{name}" for name in reversed(files)}  # noqa: PTH122
    if folder != root and any(True for _ in children(folder)):
        below = {os.path.splitext(os.path.relpath(path, folder))[0]: path for path in reversed(walk_files(str(folder), is_picture))}  # noqa: PTH122
        found = below | found
    return found, folder


class VocDevkit(Format):
    """The format of VOCdevkit: VOC2007/, VOC2012/ or other folders of their shape, read together."""

    def find(self, place: Place) -> Found | Missed:
        homes = [place, *(Place(folder) for folder in place.folders if folder.name.casefold() == "vocdevkit")]
        years = [folder for home in homes for folder in home.folders if child(folder, "Annotations").is_dir() and _lists(Place(folder))]
        if not years:
            return Missed("no VOC2007/, VOC2012/ or the like")
        lists = [_lists(Place(year)) for year in years]
        names = dict.fromkeys(name for one in lists for name in one)
        parts = {
            name: partial(_read_years, place.root, [(y, own[name]) for y, own in zip(years, lists, strict=True) if name in own], years)
            for name in names
        }
        return Found(parts, f"{place.root}: no list for the split {{split}}; there are {{there}}")


def _read_years(root: Path, lists: Sequence[tuple[Path, Path]], years: Sequence[Path], request: Request) -> Dataset:
    found = [with_pictures(year, _stems(year, path)) for year, path in lists]
    names, source = class_names([root, *years])
    part = Named(
        [picture for one in found for picture in one.pictures],
        [label for one in found for label in one.labels],
        [stem for one in found for stem in one.stems],
        [path for year in years for path in walk_files(str(child(year, "Annotations")), is_xml)],
        names,
        [stray for one in found for stray in one.strays],
        notes=(f"read together: {', '.join(year.name for year, _ in lists)}", *names_note(source)),
    )
    return read_named(root, part, request.split, request.names, request.index, request.keep_difficult)


class PairLists(Format):
    """The VOC format of PaddleDetection and PaddleX: lists with a picture and its annotation on each line, and label_list.txt."""

    def find(self, place: Place) -> Found | Missed:
        lists = {path.stem: path for path in place.having(".txt") if _holds_pairs(path)}
        if not lists:
            return Missed("no list of pairs `picture.jpg annotation.xml`")
        parts = {name: partial(_read_pairs, place.root, path, tuple(lists.values())) for name, path in lists.items()}
        return Found(parts, f"{place.root}: no list for the split {{split}}; there are {{there}}")


def _holds_pairs(path: Path) -> bool:
    lines = [line for line in head(path, 1 << 12).splitlines()[:5] if line.strip()]
    return bool(lines) and all(line.strip().lower().endswith(b".xml") and len(re.split(rb"[\s,]+", line.strip())) > 1 for line in lines[:1])


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of picture and annotation in a list; a line is split behind the picture's suffix, because paths may hold spaces.

    A line without an annotation has an empty one. Raises InputError where the file cannot be read or is no list.
    """
    pattern = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, SUFFIXES))}))[\"']?[\s,]+[\"']?(.*\.xml)[\"']?", re.IGNORECASE)
    try:
        lines = read_lines(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if any("\0" in line for line in lines):
        raise InputError(f"{path}: not a list of pictures")
    pairs = []
    for line in map(str.strip, lines):
        match = pattern.fullmatch(line) if len(line) < 10_000 else None
        if match:
            pairs.append((match[1], match[2]))
        elif line:
            pairs.append((line, ""))
    return pairs


def _read_pairs(root: Path, path: Path, lists: Sequence[Path], request: Request) -> Dataset:
    pairs = list(dict.fromkeys(_pairs(path)))
    others = [one for every in lists if every != path for one in _pairs(every)]
    bases = [str(path.parent), str(root), str(root.parent)]
    pictures = Locator(bases, [str(root)], path.stem, is_picture).locate([picture for picture, _ in pairs], partial(_plain, bases))
    labels = _located_labels(bases, root, [label for _, label in pairs])
    names, source = class_names([root])
    present = [] if names else _located_labels(bases, root, [label for _, label in others if label])
    notes = (*pictures.note(str(path)), *names_note(source))
    part = Named(pictures.paths, labels, [stem_of(one) for one in pictures.paths], [*labels, *present], names, notes=notes)
    return read_named(root, part, path.stem, request.names, request.index, request.keep_difficult)


def _located_labels(bases: list[str], root: Path, written: Sequence[str]) -> list[str]:
    located = Locator(bases, [str(root)], wanted=is_xml).locate([one or "no annotation.xml" for one in written], partial(_plain, bases))
    return located.paths


def _plain(bases: Sequence[str], written: str) -> tuple[str, bool]:
    places = [os.path.normpath(os.path.join(base, written)) for base in bases]  # noqa: PTH118
    found = next((place for place in places if exists(place)), None)
    return found or places[0], found is not None


def is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")
