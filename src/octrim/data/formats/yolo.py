"""Finds YOLO's labels without a data.yaml: in folders of their own, beside the pictures, or listed as Darknet's tools do."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.apart import DEPTH, is_label, keys_of, read_listed
from octrim.data.formats.coco import annotation_files
from octrim.data.formats.names import NAME_FILES, class_names, names_in, names_note
from octrim.data.formats.place import SPLITS, Format, Found, Missed, Part, Place, Request, by_split, children, choose, fits, head, names_split
from octrim.data.formats.yaml import pictures_in_list
from octrim.data.labelfiles import read_bytes, read_lines
from octrim.data.paths import child, find_place
from octrim.data.pictures import SUFFIXES
from octrim.data.texts import decoded, decoded_paths
from octrim.data.yolo import NO_LABELS, Listing, label_files, listed, walk_pictures
from octrim.errors import InputError

_DEEPEST = 3  # levels of folders in which images/ and labels/, or pictures with text files beside them, are looked for


class YoloLists(Format):
    """YOLO with train.txt and val.txt that list pictures, without a data.yaml that names them."""

    def find(self, place: Place) -> Found | Missed:
        lists = {path.stem: path for path in place.having(".txt") if _lists_pictures(path)}
        if not lists:
            sets = place.child("ImageSets")
            named = [path for home in (place.root, sets, child(sets, "Main")) for path in Place(home).having(".txt") if names_split(path.stem)]
            lists = {path.stem: path for path in named} if all(_lists_stems(path, place) for path in named) else {}
        if not (choose(list(lists), "train") and choose(list(lists), "val")):
            return Missed("no train.txt and val.txt that list pictures", bool(lists))
        around = [place.root, place.child("labels"), place.child("images")]
        parts = {name: partial(_read_split_list, place.root, path, around) for name, path in lists.items()}
        return Found(parts, f"{place.root}: no list for the split {{split}}; there are {{there}}")


def _lists_pictures(path: Path) -> bool:
    lines = [line.strip().strip(b"\"'").lower() for line in head(path, 1 << 12).splitlines()[:3] if line.strip()]
    return bool(lines) and lines[0].endswith(tuple(suffix.encode() for suffix in SUFFIXES))


def _lists_stems(path: Path, place: Place) -> bool:
    """Tell whether a file lists pictures by their names without suffix."""
    lines = decoded_paths(head(path, 1 << 12)).splitlines()[:20]
    stems = {stem for one in place.below(_DEEPEST) for stem in one.pictures}
    return bool(lines) and any(line.strip() in stems for line in lines)


def _read_split_list(root: Path, path: Path, around: Sequence[Path], request: Request) -> Dataset:
    if _lists_pictures(path):
        pictures, notes = pictures_in_list(path, [root], path.stem, [root])
    else:
        pictures, notes = _with_stems(root, path), ()
    names, source = class_names(around)
    return read_listed(root, _named(listed(pictures, names, None, tuple(notes)), source), request)


def _with_stems(root: Path, path: Path) -> list[str]:
    """Return the pictures whose names without suffix a file lists. Raises InputError where it cannot be read."""
    try:
        lines = [line.strip() for line in read_lines(str(path)) if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    pictures = {Path(picture).stem: picture for picture in reversed(walk_pictures(root))}
    return [pictures.get(line, str(root / f"{line}.jpg")) for line in lines if "\0" not in line]


class YoloFolders(Format):
    """YOLO in images/ and labels/, with a folder per split above or below them, or without, as in Label Studio's YOLO export."""

    def find(self, place: Place) -> Found | Missed:
        folders = _picture_folders(place)
        labels = [one.root for one in place.below(_DEEPEST) if one.root.name.casefold() == "labels"]
        if not folders or not labels:
            there, missing = ("images/", "labels/") if folders else ("labels/", "images/")
            return Missed(f"{there} without {missing}" if folders or labels else "neither images/ nor labels/", bool(folders or labels))
        if not any(_holds(folder, ".txt") for folder in labels):
            if annotation_files(place):
                return Missed("labels/ holds no text files, but annotations of COCO", near=True)
            if any(_holds(folder, ".xml", ".json") for folder in labels):
                return Missed("labels/ holds no text files", near=True)
        every = [folder for several in folders.values() for folder in several]
        around = [place.root, *labels, *(folder.parent for folder in [*labels, *every]), *every]
        absent = f"{place.root}: no folder for the split {{split}}; there are {{there}}"
        named = any(map(names_split, folders))
        if not named:
            divided = by_split(place.root, [one.root for folder in labels for one in Place(folder).below(1) if one.having(".txt")])
            if divided:  # the labels' folders tell the splits of pictures that lie together
                return Found(_labelled_parts(place.root, every, divided, around), absent)
            return Found({"images": partial(_read_folder, place.root, tuple(every), around)}, absent)
        return Found({split: partial(_read_folder, place.root, several, around) for split, several in folders.items()}, absent, serves_all=True)


def _picture_folders(place: Place) -> dict[str, tuple[Path, ...]]:
    """Return the picture folders by the split that their paths name: images/train2017, train/cam1/images, cam1/images/train.

    Where no path names a split, all are one part, "images"; none where there is no folder images.
    """
    own = place.child("images")
    homes = [own] if own.is_dir() else [one.root for one in place.below(_DEEPEST) if one.root.name.casefold() == "images"]
    homes = [home for home in homes if not any(other in home.parents for other in homes)]
    folders: list[Path] = []
    for home in homes:
        outside = by_split(place.root, [home])
        inside = [] if outside else [one.root for one in Place(home).below(2) if one.root != home and names_split(one.root.name)]
        folders += [folder for folder in inside if not any(other in folder.parents for other in inside)] or [home]
    return by_split(place.root, folders) or ({"images": tuple(folders)} if folders else {})


def _labelled_parts(root: Path, folders: Sequence[Path], labels: dict[str, tuple[Path, ...]], around: Sequence[Path]) -> dict[str, Part]:
    """Return readers of parts whose pictures lie together in `folders`, and whose splits only the folders of the labels tell."""
    return {split: partial(_read_labelled, root, tuple(folders), labels, split, around) for split in labels}


def _read_labelled(
    root: Path, folders: Sequence[Path], labels: dict[str, tuple[Path, ...]], split: str, around: Sequence[Path], request: Request
) -> Dataset:
    """Read the pictures that have a label file in the folders of a split. Those without one in any split's folder are left out, and counted."""
    split_of: dict[str, tuple[str, str]] = {}
    for part, places in labels.items():
        for path in (path for place in places for one in Place(place).below(1) for path in one.having(".txt") if path.stem not in NO_LABELS):
            for key in keys_of(path.stem):
                split_of.setdefault(key, (part, str(path)))
    pictures = [picture for folder in folders for picture in walk_pictures(folder)]
    own = [(picture, split_of.get(Path(picture).stem.casefold())) for picture in pictures]
    chosen = {picture: found[1] for picture, found in own if found is not None and found[0] == split}
    names, source = class_names([*around, *(place for places in labels.values() for place in places)])
    note = f"the parts are those of the labels' folders: {', '.join(labels)}"
    listing = replace(listed(list(chosen), names, None, (note,)), labels=tuple(chosen.values()))
    listing = replace(listing, without=tuple(picture for picture, found in own if found is None))
    return read_listed(root, _named(listing, source), request)


def _holds(folder: Path, *suffixes: str) -> bool:
    """Tell whether the folder, or one below it, holds a file with one of the suffixes."""
    return any(name.lower().endswith(suffixes) and not name.startswith(".") for _, _, files in os.walk(folder) for name in files)


class YoloBeside(Format):
    """YOLO with text files beside the pictures: labelImg's YOLO format, Darknet's data sets, Roboflow's "YOLO Darknet" with a folder per split."""

    def find(self, place: Place) -> Found | Missed:
        own = [folder.root for folder in place.below(_DEEPEST) if _labelled(folder)]
        if not own:
            near = bool(place.pictures)
            return Missed("pictures, but no text file of a picture's name" if near else "no pictures", near)
        parts = by_split(place.root, own, cut=True) or {"": (own[0] if own[0] == place.root or len(own) == 1 else place.root,)}
        around = [place.root, *(folder for several in parts.values() for folder in several), *own]
        readers = {split: partial(_read_folder, place.root, several, around) for split, several in parts.items()}
        return Found(readers, f"{place.root}: no folder for the split {{split}}; there are {{there}}")


def _labelled(place: Place) -> bool:
    """Tell whether one of the pictures in this very folder has a text file of its name beside it that is empty or begins with a number."""
    texts = {Path(name).stem: name for name in place.files if name.lower().endswith(".txt") and name not in NAME_FILES}
    both = [texts[stem] for stem in place.pictures if stem in texts]
    return any(re.match(rb"[\s\d.\xef\xbb\xbf\xff\xfe\x00-]*($|[\d.])", head(place.root / one, 32)) for one in both[:20])


class YoloApart(Format):
    """YOLO with the pictures in one folder and the text files in another, whatever the folders are called: labelImg's "Change Save Dir"."""

    def find(self, place: Place) -> Found | Missed:
        places = list(place.below(DEPTH))
        pictures = [(path, one.root) for one in places for path in one.pictures.values()]
        texts = {key: path for one in places for path in one.having(".txt") if path.stem not in NO_LABELS for key in keys_of(path.stem)}
        matched = [(texts[key], home) for path, home in pictures if (key := path.stem.casefold()) in texts]
        if not any(is_label(text) for text, _ in matched[:20]):
            return Missed("no text file with rows of numbers that has a picture's name", near=bool(pictures and texts))
        absent = f"{place.root}: no folder for the split {{split}}; there are {{there}}"
        homes, labels = list(dict.fromkeys(home for _, home in matched)), list(dict.fromkeys(text.parent for text, _ in matched))
        around = [place.root, *labels, *(folder.parent for folder in labels), *homes]
        parts = by_split(place.root, homes, cut=True)
        if not parts and (divided := by_split(place.root, labels)):
            return Found(_labelled_parts(place.root, homes, divided, around), absent)
        parts = parts or {"": tuple(homes)}
        return Found({split: partial(_read_folder, place.root, several, around) for split, several in parts.items()}, absent)


class Darknet(Format):
    """Darknet's obj.data, obj.names and lists of pictures: CVAT's YOLO 1.1, and what was trained with Darknet."""

    def find(self, place: Place) -> Found | Missed:
        files = place.having(".data")
        folders = {match[1]: folder for folder in place.folders if (match := re.fullmatch(r"obj_(\w+)_data", folder.name))}
        if not files and not folders:
            return Missed("no file *.data")
        settings = _settings(files[0]) if files else {}
        bases = [str(place.root), *map(str, list(place.root.parents)[:1])]
        names = find_place(settings.get("names", "obj.names"), bases)
        parts = {}
        for split, keys in (("train", ("train",)), ("val", ("valid", "val")), ("test", ("test",))):
            written = next((settings[key] for key in keys if key in settings), None)
            lists = [found for found in (find_place(written or "", bases) if written else None, str(place.root / f"{keys[0]}.txt")) if found]
            there = next((Path(one) for one in lists if Path(one).is_file()), None)
            folder = next((folder for name, folder in folders.items() if fits(name, split)), None)
            if there is not None:
                parts[split] = partial(_read_list, place.root, there, names)
            elif folder is not None:
                parts[split] = partial(_read_folder, place.root, (folder,), [place.root])
        others = {name: folder for name, folder in folders.items() if not any(fits(name, split) for split in SPLITS)}
        parts |= {name: partial(_read_folder, place.root, (folder,), [place.root]) for name, folder in others.items()}
        if not parts:
            return Missed(f"{files[0].name} names no list of pictures that is here", near=True)
        return Found(parts, f"{place.root}: no list for the split {{split}}; there are {{there}}")


def _settings(path: Path) -> dict[str, str]:
    """Return the settings of a file of lines `key = value`, keys in lower case; none where it cannot be read."""
    try:
        lines = decoded(read_bytes(str(path), 2**16)).splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.partition("=") for line in lines if "=" in line and "\0" not in line]
    return {key.strip().casefold(): value.strip() for key, _, value in pairs if value.strip()}


def _read_list(root: Path, place: Path, names: str | None, request: Request) -> Dataset:
    pictures, notes = pictures_in_list(place, [root, place.parent, root.parent], request.split, [root])
    listing = listed(pictures, () if names is None else names_in(Path(names)), None, tuple(notes))
    labels = label_files(listing.pictures)
    listing = replace(listing, labels=tuple(_beside_lists(root, listing.pictures, labels)))
    return read_listed(root, _named(listing, None if names is None else Path(names)), request)


def _beside_lists(root: Path, pictures: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the label files of pictures; where none of `labels` exists, those of the same stem in the folders obj_* of `root`.

    CVAT exports labels alone, and users put the pictures elsewhere by hand.
    """
    if any(Path(label).is_file() for label in labels):
        return list(labels)
    texts = {path.stem: str(path) for folder in children(root) if folder.name.startswith("obj_") for path in folder.rglob("*.txt")}
    return [texts.get(Path(picture).stem, label) for picture, label in zip(pictures, labels, strict=True)]


def _read_folder(root: Path, folders: Sequence[Path], around: Sequence[Path], request: Request) -> Dataset:
    pictures = [picture for folder in folders for picture in walk_pictures(folder)]
    names, source = class_names(around)
    return read_listed(root, _named(listed(pictures, names), source), request)


def _named(listing: Listing, source: Path | None) -> Listing:
    return replace(listing, notes=(*listing.notes, *names_note(source)))
