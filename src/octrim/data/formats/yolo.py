"""Finds YOLO's labels without a data.yaml: in folders of their own, beside the pictures, or listed as Darknet's tools do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.coco import annotation_files
from octrim.data.formats.place import (
    NAME_FILES,
    SPLITS,
    Format,
    Found,
    Missed,
    Place,
    Request,
    children,
    choose,
    fits,
    head,
    listed_names,
    names_in,
    names_note,
)
from octrim.data.formats.yaml import pictures_in_list
from octrim.data.labelfiles import read_bytes
from octrim.data.paths import child, find_place
from octrim.data.pictures import SUFFIXES
from octrim.data.texts import decoded
from octrim.data.values import name, whole
from octrim.data.yolo import Listing, label_files, listed, read_yolo, walk_pictures


class YoloLists(Format):
    """YOLO with train.txt and val.txt that list pictures, without a data.yaml that names them."""

    def find(self, place: Place) -> Found | Missed:
        lists = {path.stem: path for path in place.having(".txt") if _lists_pictures(path)}
        if not (choose(list(lists), "train") and choose(list(lists), "val")):
            return Missed("no train.txt and val.txt that list pictures", bool(lists))
        around = [place.root, place.child("labels"), place.child("images")]
        parts = {name: partial(_read_split_list, place.root, path, around) for name, path in lists.items()}
        return Found(parts, f"{place.root}: no list for the split {{split}}; there are {{there}}")


def _lists_pictures(path: Path) -> bool:
    lines = [line.strip().strip(b"\"'").lower() for line in head(path, 1 << 12).splitlines()[:3] if line.strip()]
    return bool(lines) and lines[0].endswith(tuple(suffix.encode() for suffix in SUFFIXES))


def _read_split_list(root: Path, path: Path, around: Sequence[Path], request: Request) -> Dataset:
    pictures, notes = pictures_in_list(path, [root], path.stem, [root])
    names, source = class_names(around)
    return read_yolo(root, _named(listed(pictures, names, None, tuple(notes)), source), request.names, request.index)


class YoloFolders(Format):
    """YOLO in images/ and labels/, with a folder per split above or below them, or without, as in Label Studio's YOLO export."""

    def find(self, place: Place) -> Found | Missed:
        folders = _picture_folders(place)
        labels = [path for path in (place.child("labels"), *(Place(folder).child("labels") for folder in place.folders)) if path.is_dir()]
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
        parts = {split: partial(_read_folder, place.root, several, around) for split, several in folders.items()}
        named = any(map(_of_split, folders))
        if len(folders) > 1 and not named:  # folders of takes, cameras or days make up one part
            parts = {"images": partial(_read_folder, place.root, tuple(every), around)}
        return Found(parts, f"{place.root}: no folder for the split {{split}}; there are {{there}}", serves_all=named)


def _picture_folders(place: Place) -> dict[str, tuple[Path, ...]]:
    """Return the picture folders by the name that may tell the split: images/train2017, train/images, camera1/images/train, or images alone."""
    images = place.child("images")
    below = {folder.name: (folder,) for folder in children(images)}
    if below and not any(map(_of_split, below)) and Place(images).pictures:
        return {"images": (images,)}  # the folders in images/ hold more pictures of the same part
    if images.is_dir():
        return below or {"images": (images,)}
    found: dict[str, tuple[Path, ...]] = {}
    for folder in place.folders:
        inner = child(folder, "images")
        if not inner.is_dir():
            continue
        splits = [] if _of_split(folder.name) else [split for split in children(inner) if _of_split(split.name)]
        for part, pictures in [(split.name, split) for split in splits] or [(folder.name, inner)]:
            found[part] = (*found.get(part, ()), pictures)
    return found


def _of_split(name: str) -> bool:
    return any(fits(name, split) for split in SPLITS)


def _holds(folder: Path, *suffixes: str) -> bool:
    """Tell whether the folder, or one below it, holds a file with one of the suffixes."""
    return any(name.lower().endswith(suffixes) and not name.startswith(".") for _, _, files in os.walk(folder) for name in files)


class YoloBeside(Format):
    """YOLO with text files beside the pictures: labelImg's YOLO format, Darknet's data sets, Roboflow's "YOLO Darknet" with a folder per split."""

    def find(self, place: Place) -> Found | Missed:
        parts = {split: folder.root for split, folder in place.splits.items() if _labelled(folder)}
        if not parts:
            own = [folder for folder in (place, *map(Place, place.folders)) if _labelled(folder)]
            if not own:
                near = bool(place.pictures)
                return Missed("pictures, but no text file of a picture's name" if near else "no pictures", near)
            parts = {"": own[0].root} if own[0] is place or len(own) == 1 else {"": place.root}
        around = [place.root, *parts.values()]
        readers = {split: partial(_read_folder, place.root, (folder,), around) for split, folder in parts.items()}
        return Found(readers, f"{place.root}: no folder for the split {{split}}; there are {{there}}")


def _labelled(place: Place) -> bool:
    """Tell whether one of the pictures in this very folder has a text file of its name beside it that is empty or begins with a number."""
    texts = {Path(name).stem: name for name in place.files if name.lower().endswith(".txt") and name not in NAME_FILES}
    both = [texts[stem] for stem in place.pictures if stem in texts]
    return any(re.match(rb"[\s\d.\xef\xbb\xbf\xff\xfe\x00-]*($|[\d.])", head(place.root / one, 32)) for one in both[:20])


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
    listing = listed(pictures, () if names is None else listed_names(Path(names)), None, tuple(notes))
    labels = label_files(listing.pictures)
    listing = replace(listing, labels=tuple(_beside_lists(root, listing.pictures, labels)))
    return read_yolo(root, _named(listing, None if names is None else Path(names)), request.names, request.index)


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
    return read_yolo(root, _named(listed(pictures, names), source), request.names, request.index)


def _named(listing: Listing, source: Path | None) -> Listing:
    return replace(listing, notes=(*listing.notes, *names_note(source)))


def class_names(folders: Sequence[Path]) -> tuple[tuple[str, ...], Path | None]:
    """Return the class names that a tool put into one of the folders, and their file; no names and None where there are none.

    The file is a list of names, the only *.names, or Label Studio's notes.json. Raises InputError for a file that is no list of names.
    """
    folders = list(dict.fromkeys(folders))
    names, source = names_in(folders)
    if names:
        return names, source
    for folder in folders:
        files = sorted(folder.glob("*.names")) if folder.is_dir() else []
        if len(files) == 1:
            return listed_names(files[0]), files[0]
        if (folder / "notes.json").is_file():
            noted = _noted(folder / "notes.json")
            if noted:
                return noted, folder / "notes.json"
    return (), None


def _noted(path: Path) -> tuple[str, ...]:
    """Return the names of the categories in Label Studio's notes.json; none unless their ids count from 0."""
    try:
        document = json.loads(decoded(read_bytes(str(path), 2**20)))
        entries = document["categories"]
        found = {whole(entry["id"]): name(entry["name"]) for entry in entries}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ()
    names = [found.get(number) for number in range(len(found))]
    return tuple(one for one in names if one) if all(names) else ()
