"""Finds labelme's annotations: a JSON file per picture, beside it or in another folder; X-AnyLabeling and AnyLabeling write the same."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from octrim.data.dataset import Dataset
from octrim.data.formats.names import class_names, names_note
from octrim.data.formats.place import Format, Found, Missed, Place, Request, head
from octrim.data.labelfiles import MOST_WITH_PICTURE, read_bytes
from octrim.data.labelmeshapes import annotation, picture_name
from octrim.data.paths import find_place, walk_files
from octrim.data.pictures import is_picture
from octrim.data.voc import Named, read_named, stem_of
from octrim.errors import InputError

_NO_CLASSES = ("__ignore__", "_background_", "__background__")  # lines of labelme's labels.txt that name no class
_LOOKED_AT = 5  # files examined per folder: all of them are alike


class Labelme(Format):
    def find(self, place: Place) -> Found | Missed:
        parts = {split: folder.root for split, folder in place.splits.items() if _annotated(folder) or any(map(_annotated, _inner(folder)))}
        if not parts and (_annotated(place) or any(map(_annotated, _inner(place)))):
            parts = {"": place.root}
        if not parts:
            return Missed("no *.json with shapes")
        readers = {split: partial(_read, place.root, folder, tuple(parts.values())) for split, folder in parts.items()}
        return Found(readers, f"{place.root}: no folder for the split {{split}}; there are {{there}}")


def _inner(place: Place) -> list[Place]:
    return list(map(Place, place.folders[:50]))


def _annotated(place: Place) -> bool:
    files = place.having(".json")[:_LOOKED_AT]
    return any(re.search(rb'"(shapes"\s*:\s*\[|imagePath"\s*:)', head(path, 1 << 16)) for path in files)


def _read(root: Path, folder: Path, folders: Sequence[Path], request: Request) -> Dataset:
    jsons = _annotations(folder)
    everything = [path for one in folders for path in (jsons if one == folder else _annotations(one))]
    pictures = walk_files(str(folder), is_picture)
    beside = {os.path.splitext(path)[0]: path for path in reversed(pictures)}  # noqa: PTH122
    by_stem: dict[str, list[str]] = {}
    for picture in pictures:
        by_stem.setdefault(stem_of(picture), []).append(picture)
    label_of: dict[str, str] = {}
    for path in jsons:
        picture = beside.get(os.path.splitext(path)[0]) or _picture_of(path, root, by_stem)  # noqa: PTH122
        if picture is not None:
            label_of.setdefault(picture, path)
    paths = sorted({*pictures, *label_of})
    if not paths:
        raise InputError(f"{folder}: there are no pictures, and none inside the annotations")
    labels = [label_of.get(path, f"{os.path.splitext(path)[0]}.json") for path in paths]  # noqa: PTH122
    names, source = class_names([root, folder], _NO_CLASSES)
    used = set(label_of.values())
    part = Named(
        paths,
        labels,
        [stem_of(path) for path in paths],
        everything,
        names,
        [path for path in jsons if path not in used],
        "labelme",
        0,
        "annotation file is damaged, picture left out",
        names_note(source),
    )
    return read_named(root, part, request.split, request.names, request.index)


def _annotations(folder: Path) -> list[str]:
    return walk_files(str(folder), lambda name: name.lower().endswith(".json"))


def _picture_of(path: str, root: Path, by_stem: dict[str, list[str]]) -> str | None:
    """Find the picture of an annotation that has no picture of its name beside it; None where there is none.

    Tried in turn: the annotation's `imagePath`, the only picture of the same stem, and the picture inside the annotation, whose path is returned.
    """
    try:
        document = annotation(read_bytes(path, MOST_WITH_PICTURE))
    except OSError:
        return None
    if document is None:
        return None
    written = picture_name(document)
    found = None if written is None else find_place(written, [str(Path(path).parent), str(root)], os.path.isfile)
    if found is not None:
        return os.path.abspath(found)  # noqa: PTH100
    named = by_stem.get(stem_of(path), [])
    if len(named) == 1:
        return named[0]
    return path if document.get("imageData") else None
