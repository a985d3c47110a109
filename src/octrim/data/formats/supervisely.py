"""Finds projects of Supervisely: datasets with img/ and ann/, a JSON file per picture, and meta.json, which names the classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.names import names_in, names_note
from octrim.data.formats.place import Format, Found, Missed, Place, Request, by_split, head
from octrim.data.paths import walk_files
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.data.voc import Named, read_named, stem_of
from octrim.errors import InputError

_DEEPEST = 4  # levels of folders: a project's datasets may hold others
_LOOKED_AT = 5  # annotations examined per dataset: all of them are alike


class Supervisely(Format):
    def find(self, place: Place) -> Found | Missed:
        datasets = [one.root for one in place.below(_DEEPEST) if _is_dataset(one)]
        if not datasets:
            return Missed("no img/ with ann/*.json", place.child("meta.json").is_file())
        parts = by_split(place.root, datasets) or {"": tuple(datasets)}
        readers = {split: partial(_read, place.root, parts, split) for split in parts}
        return Found(readers, f"{place.root}: no dataset for the split {{split}}; there are {{there}}")


def _is_dataset(place: Place) -> bool:
    annotations = Place(place.root / "ann")
    if not {"ann", "img"} <= {folder.name for folder in place.folders}:
        return False
    return any(re.search(rb'"objects"\s*:\s*\[', head(path, 1 << 16)) for path in annotations.having(".json")[:_LOOKED_AT])


def _read(root: Path, parts: Mapping[str, Sequence[Path]], split: str, request: Request) -> Dataset:
    pictures: list[str] = []
    labels: list[str] = []
    strays: list[str] = []
    for folder in parts[split]:
        own = walk_files(str(folder / "img"), is_picture)
        files = set(_annotations(folder))
        found = [_annotation_of(picture, folder, files) for picture in own]
        pictures += own
        labels += found
        strays += sorted(files - set(found))
    if not pictures:
        raise InputError(f"{root}: there are no pictures in img/ (looked for {', '.join(SUFFIXES)})")
    present = [path for several in parts.values() for folder in several for path in _annotations(folder)]
    source = next((path for home in (root, root.parent) if (path := home / "meta.json").is_file()), None)
    names = names_in(source) if source is not None else ()
    part = Named(
        pictures,
        labels,
        [stem_of(path) for path in pictures],
        present,
        names,
        strays,
        "supervisely",
        0,
        "annotation file is damaged, picture left out",
        names_note(source if names else None),
    )
    return read_named(root, part, request.split, request.names, request.index)


def _annotations(folder: Path) -> list[str]:
    return walk_files(str(folder / "ann"), lambda name: name.lower().endswith(".json"))


def _annotation_of(picture: str, folder: Path, files: set[str]) -> str:
    """Return the annotation of a picture: a.jpg has a.jpg.json, and in older projects a.json."""
    inside = os.path.relpath(picture, folder / "img")
    usual = f"{folder / 'ann'}{os.sep}{inside}.json"
    older = f"{folder / 'ann'}{os.sep}{os.path.splitext(inside)[0]}.json"  # noqa: PTH122
    return older if usual not in files and older in files else usual
