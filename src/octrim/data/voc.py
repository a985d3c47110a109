"""Pascal VOC data sets: ImageSets/Main/*.txt, Annotations/*.xml, JPEGImages/."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octrim.data.assemble import Annotations, add_rows, assemble, file_problems
from octrim.data.dataset import Dataset, Report
from octrim.data.index import Index
from octrim.data.labelfiles import MISSING, UNREADABLE, read_bytes, read_lines, taken, words_of
from octrim.data.pictures import SUFFIXES
from octrim.errors import InputError

NAME_FILES = ("labels.txt", "label_list.txt", "classes.txt")


def is_voc(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "ImageSets" / "Main").is_dir()


def read_voc(root: Path, split: str, names: Sequence[str], index: Index) -> Dataset:
    """Raises InputError where the split is missing. Without a file of names and `names`, the classes are sorted by name, over all splits."""
    stems = _stems(root, split)
    pictures, stray_pictures = _pictures(root, stems)
    annotations = root / "Annotations"
    own = [str(annotations / f"{stem}.xml") for stem in stems]
    names = _listed_names(root) or tuple(names)
    # Sorted names are the same for every split only if every annotation has been seen.
    present = sorted(f"{annotations}{os.sep}{name}" for name in os.listdir(annotations) if name.endswith(".xml"))  # noqa: PTH208
    files = own if names else list(dict.fromkeys([*own, *present]))
    facts, table = index.facts(pictures, files, "voc")
    words = words_of(table["words"])
    if not names:
        used = np.unique(table["rows"][:, 0].astype(np.int64)).tolist()
        names = tuple(sorted(words[number] for number in used)) or ("object",)
    table = taken(table, np.arange(len(own)))
    report = Report()
    without = [path for path in present if os.path.splitext(os.path.basename(path))[0] not in stray_pictures]  # noqa: PTH119, PTH122
    add_rows(report, "annotation file without a picture, ignored", np.arange(len(without)), without.__getitem__)
    if (table["state"] == MISSING).all():
        raise InputError(f"{root}: none of the {len(own)} pictures of {split} has an annotation file; looked for {own[0]}")
    file_problems(report, table, own, "annotation file is damaged or declares entities, picture left out", missing=True, unit=": object ")
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.asarray([number_of.get(word, -1) for word in words], np.int64)
    picture = np.repeat(np.arange(len(own)), table["count"])
    label = table["rows"][:, 0].astype(np.int64)
    found = Annotations(
        picture,
        numbers[label] if len(label) else label,
        table["rows"][:, 1:] - (1, 1, 0, 0),  # from inclusive pixels that count from 1 to edges
        np.zeros(len(picture), bool),
        lambda row: f"{own[picture[row]]}: object {table['line'][row]} ({words[label[row]]})",
    )
    return assemble(root, names, pictures, stems, facts, found, report, left_out=table["state"] == UNREADABLE)


def _stems(root: Path, split: str) -> list[str]:
    folder = root / "ImageSets" / "Main"
    path = folder / f"{split}.txt"
    try:
        lines = read_lines(str(path))
    except FileNotFoundError:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "nothing"
        raise InputError(f"{folder}: there is no {split}.txt; it has {there}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    stems = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not stems:
        raise InputError(f"{path}: the file is empty, expected the name of a picture on every line")
    if any("\0" in stem for stem in stems):
        raise InputError(f"{path}: not a list of pictures")
    return stems


def _pictures(root: Path, stems: Sequence[str]) -> tuple[list[str], set[str]]:
    """The pictures of these stems, whatever their suffix, and the stems of all pictures there."""
    folder = root / "JPEGImages"
    try:
        files = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))  # noqa: PTH208
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from None
    by_stem = {os.path.splitext(name)[0]: name for name in reversed(files)}  # noqa: PTH122 (reversed: .jpg before .png)
    return [f"{folder}{os.sep}{by_stem.get(stem, stem + '.jpg')}" for stem in stems], set(by_stem)


def _listed_names(root: Path) -> tuple[str, ...]:
    for name in NAME_FILES:
        path = root / name
        if path.is_file():
            try:
                names = tuple(line.strip() for line in read_bytes(str(path)).decode("utf-8-sig").splitlines() if line.strip())
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{path}: not a list of class names: {error}") from None
            if len(set(names)) < len(names):
                raise InputError(f"{path}: a class name occurs twice")
            return names
    return ()
