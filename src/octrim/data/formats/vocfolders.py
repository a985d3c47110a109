"""Finds Pascal VOC's annotations without lists: in folders of their own, beside the pictures, or wherever they lie."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.apart import DEPTH
from octrim.data.formats.names import class_names, names_note
from octrim.data.formats.place import Format, Found, Missed, Place, Request, by_split, head
from octrim.data.formats.voc import annotations_folder, is_xml, picture_folder, pictures_by_stem, with_pictures
from octrim.data.paths import walk_files
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.data.voc import Named, read_named, stem_of
from octrim.errors import InputError

_DEEPEST = 3  # levels of folders in which annotations are looked for

Pairs = Sequence[tuple[Path, Path]]
"""Folders of pictures, each with the folder that holds its annotations, which may be the same."""


class VocFolders(Format):
    """VOC without lists: Annotations/ with a folder of pictures beside it, with a folder per split or camera above or below them, or without.

    VOC-like sets, labelImg's "Change Save Dir" and Label Studio's VOC export have this form.
    """

    def find(self, place: Place) -> Found | Missed:
        annotations, pictures = annotations_folder(place.root), picture_folder(place.root)
        if annotations.is_dir() and pictures.is_dir():
            return self._beside_each_other(place.root, annotations, pictures)
        homes = [one.root for one in place.below(2) if one is not place and _in_folders(one.root)]
        if not homes:
            return Missed("no Annotations/ beside JPEGImages/ or images/", annotations.is_dir())
        parts = by_split(place.root, homes) or {"": tuple(homes)}
        return _found(place.root, {split: [(picture_folder(home), annotations_folder(home)) for home in own] for split, own in parts.items()})

    def _beside_each_other(self, root: Path, annotations: Path, pictures: Path) -> Found | Missed:
        """Return the parts of a folder that has both folders: those of the pictures' folders, else of the annotations', else one part."""
        holding = [one.root for one in Place(annotations).below(2) if any(_is_voc(path) for path in one.having(".xml")[:5])]
        if not holding:
            return Missed("Annotations/ holds no VOC annotations (*.xml)", near=True)
        labels = by_split(annotations, holding, cut=True)
        inside = by_split(pictures, [one.root for one in Place(pictures).below(2) if one.pictures], cut=True)
        if inside:
            return _found(root, {split: [(own, _same_split(annotations, labels, split)) for own in several] for split, several in inside.items()})
        if labels:
            parts = {split: [(pictures, own) for own in several] for split, several in labels.items()}
            return _found(root, parts, annotated=True)
        return Found({"": partial(_read_folders, root)}, f"{root}: no part {{split}}")


def _same_split(annotations: Path, labels: Mapping[str, Sequence[Path]], split: str) -> Path:
    """Return the folder of annotations of the pictures of a split: the one of its name, or all annotations where there is none."""
    own = labels.get(split, ())
    return own[0] if len(own) == 1 else annotations


def _found(root: Path, parts: Mapping[str, Pairs], annotated: bool = False) -> Found:
    readers = {split: partial(_read_pairs, root, parts, split, annotated) for split in parts}
    return Found(readers, f"{root}: no folder for the split {{split}}; there are {{there}}")


def _in_folders(root: Path) -> bool:
    """Tell whether a folder has annotations and pictures in a folder each, such as train/Annotations/ and train/JPEGImages/."""
    annotations, pictures = annotations_folder(root), picture_folder(root)
    return annotations.is_dir() and pictures.is_dir() and any(_is_voc(path) for path in Place(annotations).having(".xml")[:5])


def _read_folders(root: Path, request: Request) -> Dataset:
    stems = sorted(pictures_by_stem(root)[0])
    if not stems:
        raise InputError(f"{root}: there are no pictures beside Annotations/ (looked for {', '.join(SUFFIXES)})")
    return read_named(root, with_pictures(root, stems), request.split, request.names, request.index, request.keep_difficult)


class VocBeside(Format):
    """VOC annotations beside the pictures, in one folder or one per split, as labelImg and Roboflow's Pascal VOC export write them."""

    def find(self, place: Place) -> Found | Missed:
        own = [folder.root for folder in place.below(_DEEPEST) if _labelled(folder)]
        if not own:
            return Missed("no annotation *.xml of a picture's name beside it", bool(place.pictures))
        parts = by_split(place.root, own, cut=True) or {"": (own[0] if own[0] == place.root or len(own) == 1 else place.root,)}
        return _found(place.root, {split: [(folder, folder) for folder in several] for split, several in parts.items()})


def _labelled(place: Place) -> bool:
    """Tell whether one of the pictures in this very folder has a VOC annotation of its name beside it."""
    files = {path.stem: path for path in place.having(".xml")}
    both = [files[stem] for stem in place.pictures if stem in files]
    return any(_is_voc(path) for path in both[:5])


class VocApart(Format):
    """VOC annotations in another folder than the pictures, whatever the folders are called."""

    def find(self, place: Place) -> Found | Missed:
        places = list(place.below(DEPTH))
        files = {path.stem: path for one in places for path in one.having(".xml")}
        matched = [(one.root, files[stem]) for one in places for stem in one.pictures if stem in files]
        if not any(_is_voc(path) for _, path in matched[:20]):
            return Missed("no annotation *.xml that has a picture's name")
        homes = list(dict.fromkeys(home for home, _ in matched))
        parts = by_split(place.root, homes, cut=True) or {"": tuple(homes)}
        return _found(place.root, {split: [(home, place.root) for home in own] for split, own in parts.items()})


def _read_pairs(root: Path, parts: Mapping[str, Pairs], split: str, annotated: bool, request: Request) -> Dataset:
    """Read the pictures of a part's folders and below, with annotations at the same places in the folders paired with them, or found there by name.

    annotated: whether pictures without an annotation are left out, because they are another part's. Raises InputError where there are no pictures.
    """
    pairs = list(dict.fromkeys(parts[split]))
    everything = [pair for several in parts.values() for pair in several]
    own_files = list(dict.fromkeys(path for _, home in pairs for path in walk_files(str(home), is_xml)))
    present = list(dict.fromkeys([*own_files, *(path for _, home in everything for path in walk_files(str(home), is_xml))]))
    found: list[tuple[str, str]] = []
    strays: list[str] = []
    notes: tuple[str, ...] = ()
    there, stems = set(own_files), {stem_of(path) for path in present}
    for folder, home in pairs:
        own, left = _matched(walk_files(str(folder), is_picture), folder, walk_files(str(home), is_xml), home)
        found += [pair for pair in own if pair[1] in there] if annotated else own
        strays += left
        without = [picture for picture, _ in own if stem_of(picture) not in stems] if annotated else []
        if without:
            notes = (f"{len(without):,} pictures have no annotation that tells their split, and are left out, such as {without[0]}",)
    if not found:
        raise InputError(f"{pairs[0][0]}: there are no pictures (looked for {', '.join(SUFFIXES)})")
    pictured = {stem_of(path) for folder, _ in everything for path in walk_files(str(folder), is_picture)} if strays else set()
    names, source = class_names([root, *(folder for pair in pairs for folder in pair)])
    pictures = [picture for picture, _ in found]
    part = Named(
        pictures,
        [label for _, label in found],
        [stem_of(path) for path in pictures],
        present,
        names,
        [path for path in dict.fromkeys(strays) if stem_of(path) not in pictured],
        notes=(*notes, *names_note(source)),
    )
    return read_named(root, part, request.split, request.names, request.index, request.keep_difficult)


def _matched(pictures: Sequence[str], folder: Path, files: Sequence[str], annotations: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return pictures with their annotations, and the annotations that no picture of any folder may have.

    An annotation lies at the picture's place; where fewer than half of them do, it may be the only file of its name, for the only such picture.
    """
    by_place = {os.path.splitext(os.path.relpath(path, annotations))[0]: path for path in files}  # noqa: PTH122
    places = [os.path.splitext(os.path.relpath(path, folder))[0] for path in pictures]  # noqa: PTH122
    known = set(places)
    by_name: dict[str, str] = {}
    if 2 * sum(place in by_place for place in places) < len(places):
        counts = Counter(map(stem_of, files))
        pictured = Counter(map(stem_of, pictures))
        by_name = {stem: path for path in files if counts[stem := stem_of(path)] == 1 and pictured[stem] == 1}
    labels = [by_place.get(place) or by_name.get(stem_of(place)) or f"{annotations}{os.sep}{place}.xml" for place in places]
    strays = [path for place, path in by_place.items() if place not in known and stem_of(path) not in by_name]
    return list(zip(pictures, labels, strict=True)), strays


def _is_voc(path: Path) -> bool:
    """Tell whether a file is the VOC annotation of one picture; CVAT's own format has `<annotations>` instead of `<annotation>`."""
    text = head(path, 1 << 12).replace(b"\0", b"")
    return re.search(rb"<annotation[\s>]", text) is not None
