"""Reads data sets whose label files name their objects' classes, Pascal VOC's and labelme's, from lists of their pictures and label files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octrim.data.assemble import OTHER_FORMAT, Annotations, add_rows, assemble, file_problems
from octrim.data.dataset import DataReport, Dataset
from octrim.data.index import Index
from octrim.data.labelfiles import DIFFICULT, MISSING, UNREADABLE, taken, words_of
from octrim.data.paths import Folders
from octrim.errors import InputError, shown


@dataclass(frozen=True)
class Named:
    """Pictures and label files of a part of a data set. stems: the format's ids of the pictures. present: label files of all parts, for class names.

    names: class names where a file lists them. strays: label files without a picture. task: the task of `crew.TASKS` that reads the files.
    first: number of the first pixel, 1 in VOC's boxes, whose last pixel is inside. damaged: text of the report for a file that cannot be read.
    notes: lines on how the part was read. more_names: whether class names that annotations have, but `names` lacks, are added behind those.
    """

    pictures: list[str]
    labels: list[str]
    stems: list[str]
    present: Sequence[str] = ()
    names: tuple[str, ...] = ()
    strays: Sequence[str] = ()
    task: str = "voc"
    first: int = 1
    damaged: str = "annotation file is damaged or declares entities, picture left out"
    notes: tuple[str, ...] = ()
    more_names: bool = False


def read_named(root: Path, part: Named, split: str, names: Sequence[str], index: Index, keep_difficult: bool = False) -> Dataset:
    """Read a part of a data set. Without class names in `part` or `names`, the names in the annotations of all parts are taken, sorted.

    keep_difficult: whether objects marked difficult count as any other. Raises InputError where no picture has a label file.
    """
    own = part.labels
    names = part.names or tuple(names)
    # Sorted names are the same for every part only if every annotation has been seen.
    files = own if names and not part.more_names else list(dict.fromkeys([*own, *part.present]))
    facts, table = index.facts(part.pictures, files, part.task)
    words = words_of(table["words"])
    notes = list(part.notes)
    if part.more_names or not names:
        used = np.unique(table["rows"][:, 0].astype(np.int64)).tolist()
        names = (*names, *sorted({words[number] for number in used} - set(names))) or ("object",)
        notes += _alike(names)
    table = taken(table, np.arange(len(own)))
    report = DataReport()
    add_rows(report, "annotation file without a picture, ignored", np.arange(len(part.strays)), part.strays.__getitem__)
    if (table["state"] == MISSING).all():
        raise InputError(f"{root}: none of the {len(own)} pictures of {split} has an annotation file; looked for {own[0] if own else 'none'}")
    others = _in_other_formats(own, table["state"] == MISSING)
    add_rows(report, OTHER_FORMAT, np.arange(len(others)), others.__getitem__)
    file_problems(report, table, own, part.damaged, missing=True, unit=": object ")
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.asarray([number_of.get(word, -1) for word in words], np.int64)
    picture = np.repeat(np.arange(len(own)), table["count"])
    label = table["rows"][:, 0].astype(np.int64)
    found = Annotations(
        picture,
        numbers[label] if len(label) else label,
        table["rows"][:, 1:] - (part.first, part.first, 0, 0),  # inclusive pixels that count from `first` become edges
        table["mark"] & ~np.uint8(DIFFICULT) if keep_difficult else table["mark"],
        lambda row: f"{own[picture[row]]}: object {table['line'][row]} ({words[label[row]]})",
    )
    left_out = table["state"] == UNREADABLE
    return assemble(root, names, part.pictures, part.stems, facts, found, report, left_out=left_out, notes=notes)


def _in_other_formats(labels: Sequence[str], missing: np.ndarray) -> list[str]:
    """Return the annotations in another format that stand in the places of missing ones. missing: bool `[labels]`."""
    folders = Folders()
    found = []
    for label, absent in zip(labels, missing.tolist(), strict=True):
        if not absent:
            continue
        stem, suffix = os.path.splitext(label)  # noqa: PTH122
        others = (f"{stem}{other}" for other in (".txt", ".xml", ".json") if other != suffix.lower())
        found += [path for path in others if folders.has(path)][:1]
    return found


def _alike(names: Sequence[str]) -> list[str]:
    """Return a note where class names differ in letter case only: most likely they are one class, written in two ways."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    found = [group for group in groups.values() if len(group) > 1]
    if not found:
        return []
    some = "; ".join(" and ".join(shown(name)[1:-1] for name in group) for group in found[:3])
    return [f"classes that differ in letter case only are taken for different classes: {some}"]


def stem_of(path: str) -> str:
    """Return a file's name without folder and suffix."""
    return os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
