"""Finds COCO annotation files: one per split beside or above the pictures, as COCO, CVAT, Roboflow, Label Studio and PaddleDetection write them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from octrim.data.coco import read_coco
from octrim.data.dataset import Dataset
from octrim.data.formats.place import SPLITS, Format, Found, Missed, Place, Request, fits, head
from octrim.data.texts import mark_of


class CocoFiles(Format):
    def find(self, place: Place) -> Found | Missed:
        files = annotation_files(place)
        if not files:
            return Missed("no *.json with images, annotations and categories")
        # COCO publishes captions and keypoints of the same pictures beside them.
        files = [path for path in files if path.name.startswith("instances_")] or files
        parts = {str(path.relative_to(place.root)): partial(_read, path, place.root) for path in files}
        return Found(parts, f"{place.root}: no annotation file for the split {{split}}; there are {{there}}")


class Datumaro(Format):
    """Datumaro's annotations/default.json, or a file per subset, with the pictures in images/."""

    def find(self, place: Place) -> Found | Missed:
        files = [path for home in (place, Place(place.child("annotations"))) for path in home.having(".json") if _is_datumaro(path)]
        if not files:
            return Missed("no annotations/*.json with items")
        parts = {str(path.relative_to(place.root)): partial(_read, path, place.root) for path in files}
        return Found(parts, f"{place.root}: no annotation file for the split {{split}}; there are {{there}}")


def _is_datumaro(path: Path) -> bool:
    text = head(path, 1 << 20)
    return re.search(rb'"categories"\s*:\s*\{', text) is not None and re.search(rb'"items"\s*:\s*\[', text) is not None


def coco_part(path: Path) -> Found:
    """Return the one part of an annotation file that was named directly; it serves every split where the file's name names a split."""
    near = path.parent.parent if path.parent.name.casefold() in ("annotations", "annotation", "labels") else path.parent
    named = any(fits(path.stem, split) for split in SPLITS)
    return Found({"" if not named else path.name: partial(_read, path, near)}, f"{path}: no part {{split}}", serves_all=named)


def _read(path: Path, root: Path, request: Request) -> Dataset:
    split = request.split if any(fits(part, one) for part in path.relative_to(root).parts for one in SPLITS) else ""
    return read_coco(path, split, request.index, [str(root)])


def annotation_files(place: Place) -> list[Path]:
    """Return the COCO files of a folder: those in Annotations/, else in labels/, else in the folder itself, else in any folder below it."""
    annotations = [folder for folder in place.folders if folder.name.casefold() in ("annotations", "annotation")]
    labels = [folder for folder in place.folders if folder.name.casefold() == "labels"]
    for folders in (annotations, labels, [place.root], place.folders):
        found = [path for folder in folders for path in Place(folder).having(".json") if _is_annotation(path)]
        if found:
            return found
    return []


def _is_annotation(path: Path) -> bool:
    if path.name == "notes.json":  # part of Label Studio's YOLO export: it holds categories alone
        return False
    text = head(path, 1 << 20)
    if mark_of(text) not in (None, "utf-8-sig"):
        text = text.decode(mark_of(text) or "utf-8", "replace").encode()
    return re.search(rb'"(images|annotations|categories)"\s*:', text) is not None and not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
