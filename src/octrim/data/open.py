"""Opens a part of a data set of any format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from octrim.data.dataset import Dataset, printable
from octrim.data.formats.coco import coco_part
from octrim.data.formats.place import SPLIT_WORDS, SPLITS, Found, Part, Request, choose, head, train_with_val
from octrim.data.formats.table import FORMATS, recognise
from octrim.data.formats.yaml import yaml_parts
from octrim.data.index import Index
from octrim.data.overlap import without_validated
from octrim.data.pictures import is_picture
from octrim.data.texts import mark_of
from octrim.errors import InputError, shown

VAL_SHARE = 0.2
"""Default share of the pictures that become "val" where a data set has one part only."""


def open_dataset(
    data: str | Path,
    split: str = "val",
    names: Sequence[str] = (),
    workers: int | None = None,
    val_share: float | None = None,
    keep_difficult: bool = False,
) -> Dataset:
    """Read a split of a data set: the pictures' sizes, the boxes, and their problems (`report`).

    data: a data.yaml, a COCO annotation file, or a folder that one of `formats.table.FORMATS` recognises. names: class names for formats that have
    none. workers: number of reading processes; None takes as many as pay. The result depends neither on it nor on the cache of earlier runs.
    val_share: where the data set has one part, or none to validate, this share of the pictures becomes "val" and the rest "train", by a hash of
    their bytes: the same every time, whatever their names. None takes VAL_SHARE, but does not divide a single part that is named for a split and
    stands for all; 0 takes any single part for every split. keep_difficult: whether objects that VOC marks difficult count as any other.
    A part named trainval that is taken for train is without the pictures of the val part, where there is one.
    Raises InputError where no data set is found, the split is missing, or no picture can be read.
    """
    return _opened(data, split, names, workers, val_share, keep_difficult)[0]


def _opened(
    data: str | Path, split: str, names: Sequence[str], workers: int | None, val_share: float | None, keep_difficult: bool
) -> tuple[Dataset, Dataset | None]:
    """Open a data set as `open_dataset` does; also return all of it where it was divided, else None."""
    split = SPLIT_WORDS.get(split, split)
    path = _absolute(data)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more")
    if val_share is not None and not 0 <= val_share <= 0.9:
        raise InputError(f"val_share is {val_share}, expected 0 to 0.9")
    if not os.path.exists(path):  # noqa: PTH110
        raise InputError(f"{data}: no such file or folder")
    try:
        form, found, root = _found(path)
        part, divided = _part(path, found, split, val_share)
        index = Index(path, "" if divided else split, workers)
        dataset = part(Request(split, names, index, keep_difficult))
        whole = dataset if divided else None
        notes = [f"format: {form}{'' if root == path or path.is_file() else f', in {root}'}"]
        if divided:
            dataset, note = _divided(dataset, split, VAL_SHARE if val_share is None else val_share, index)
            notes.append(note)
        elif found.serves_all and len(found.parts) == 1 and not _is_of(next(iter(found.parts)), split):
            notes.append(f"the data set has one part, {next(iter(found.parts))}, which is taken for {split}, too (--val-share divides it)")
        elif split == "train" and (both := train_with_val(list(found.parts))):
            validating = Index(path, "val", workers)
            with contextlib.suppress(InputError):  # whoever opens val is told
                dataset, note = without_validated(dataset, found.parts[both[1]](Request("val", names, validating, keep_difficult)), both, index)
                notes += [] if note is None else [note]
            validating.save()
    except OSError as error:  # a folder may not be listed, or a split's name may be too long for a file's
        raise InputError(f"{error.filename or data}: {error.strerror or error}") from None
    notes += _repeated(dataset.names)
    index.save()
    return replace(dataset, notes=(*map(printable, notes), *dataset.notes)), whole


def has_part(data: str | Path, split: str) -> bool:
    """Tell whether a data set has a part of its own for a split. Raises InputError where no data set is found."""
    return bool(choose(list(_found(_absolute(data))[1].parts), SPLIT_WORDS.get(split, split)))


def open_labelled(
    data: str | None,
    split: str,
    names: Sequence[str],
    use: str = "measure",
    val_share: float | None = None,
    keep_difficult: bool = False,
) -> Dataset:
    """Open a data set by `open_dataset` for use with a network.

    names: the network's class names, which a data set without class names takes, unless it has more classes. use: verb for the error where there
    is nothing to "measure" or "learn". Raises InputError also without `data`, and where there is no labelled object.
    """
    if data is None:
        raise InputError("give --data: a data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file")
    dataset = open_dataset(data, split, val_share=val_share, keep_difficult=keep_difficult)
    if dataset.names == tuple(f"class{index}" for index in range(len(dataset.names))) and len(names) >= len(dataset.names):
        unnamed = len(dataset.names)
        # A data set that states its number of classes raises InputError for another number of names, which are not those of its classes.
        with contextlib.suppress(InputError):
            dataset = open_dataset(data, split, names, val_share=val_share, keep_difficult=keep_difficult)
            dataset = replace(dataset, notes=(*dataset.notes, _borrowed(names, unnamed)))
    if dataset.crowd.all():
        whole = None
        with contextlib.suppress(InputError):
            _, whole = _opened(data, split, (), None, val_share, keep_difficult)
        if whole is not None and not whole.crowd.all():
            share = "larger" if split == "val" else "smaller"
            counts = " that counts" if len(dataset.crowd) else ""
            raise InputError(
                f"{data}: OcTrim divided {len(whole)} pictures itself, and none of the {len(dataset)} for {split} has an object{counts}: "
                f"give a {share} --val-share (or a {split} part)"
            )
        raise InputError(f"{data}: {len(dataset)} pictures in {split} and no labelled objects: nothing to {use}{_why(dataset)}")
    return dataset


def _absolute(data: str | Path) -> Path:
    # resolve() would follow links out of the data set; Path's own expanduser() and exists() raise for impossible users and names.
    return Path(os.path.abspath(os.path.expanduser(data)))  # noqa: PTH100, PTH111


def _repeated(names: Sequence[str]) -> list[str]:
    """Return a note where several classes have one name: they stay different classes, which only their numbers tell apart."""
    numbers: dict[str, list[int]] = {}
    for number, one in enumerate(names):
        numbers.setdefault(one, []).append(number)
    found = [f"{shown(one)[1:-1]} ({', '.join(map(str, several[:5]))})" for one, several in numbers.items() if len(several) > 1]
    return [f"several classes have one name, and stay different classes: {'; '.join(found[:3])}"] if found else []


def _borrowed(names: Sequence[str], count: int) -> str:
    """Return a note that classes have taken the network's names by their numbers alone: where that is wrong, all results are."""
    some = ", ".join(f"{number} is {shown(name)[1:-1]}" for number, name in enumerate(names[: min(count, 4)]))
    more = ", .." if count > 4 else ""
    taken = f"the network's names are taken: {some}{more}"
    return f"classes by number alone: nothing names the classes of this data set, so {taken} (a classes.txt beside it says otherwise)"


def _why(dataset: Dataset) -> str:
    """Return the reasons why a data set has no labelled objects: objects that are ignored, problems, or no labels at all."""
    lines = dataset.report.lines()
    ignored = len(dataset.crowd)
    if ignored:
        lines.insert(0, f"all {ignored} objects are crowd regions or marked difficult")
    elif not lines:
        lines.append("no picture has a label")
    return "".join(f"; {line}" for line in lines[:3])


def _found(path: Path) -> tuple[str, Found, Path]:
    """Return the name of a data set's format, its parts, and the folder that they are in. Raises InputError where no format fits."""
    if not path.is_file():
        form, found, root = recognise(path)
        return form.name, found, root
    # YAML may begin like JSON, and damaged JSON like anything: the suffix decides first.
    suffix = path.suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and head(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")):
        return "COCO", coco_part(path), path.parent
    start = head(path, 1 << 10)
    if is_picture(path.name) or (b"\0" in start and mark_of(start) is None):
        raise InputError(f"{path}: not a data set: expected a data.yaml, a folder, or a COCO annotation file")
    if suffix == ".data":
        form, found, root = recognise(path.parent)
        return form.name, found, root
    return FORMATS[0].name, yaml_parts(path), path.parent


def _is_of(name: str, split: str) -> bool:
    return bool(choose([name], split))


def _part(path: Path, found: Found, split: str, val_share: float | None) -> tuple[Part, bool]:
    """Return the part to read for a split, and whether it is to be divided into train and val. Raises InputError where none or several fit."""
    parts = dict(found.parts)
    names = list(parts)
    matching = choose(names, split)
    if len(matching) > 1:
        raise InputError(f"{path}: {_several(found)} fit the split {split}; there are {', '.join(names)}")
    single = len(names) == 1 and (found.serves_all or not any(_is_of(names[0], one) for one in SPLITS))
    if single and split in ("train", "val") and not (found.serves_all and val_share is None) and val_share != 0:
        return parts[names[0]], True
    if single and (matching or (found.serves_all and split in SPLITS) or val_share == 0):
        return parts[names[0]], False
    validates = choose(names, "val")
    trains = choose(names, "train")
    if split in ("train", "val") and not validates and len(trains) == 1 and val_share != 0:
        return parts[trains[0]], True
    if matching:
        return parts[matching[0]], False
    if single:
        raise InputError(f"{path}: the data set has one part, which is divided into train and val; there is no {split}")
    there = ", ".join(names)
    raise InputError(found.absent.replace("{split}", split).replace("{there}", there if there else "nothing"))


def _several(found: Found) -> str:
    for what in ("annotation file", "folder"):
        if what in found.absent:
            return f"several {what}s"
    return "several parts"


def _divided(dataset: Dataset, split: str, share: float, index: Index) -> tuple[Dataset, str]:
    """Divide a data set that has one part: return the data set of the split's pictures, and a note on the division.

    Pictures are ordered by a hash of their bytes, and the first `share` of them validate; equal files are always on the same side.
    """
    count = len(dataset)
    if count < 2:
        return dataset, "the data set has one picture, which is taken for train and val"
    hashes = index.hashes(list(dataset.paths))
    order = np.sort(hashes)
    wanted = min(max(round(count * share), 1), count - 1)
    # Pictures with the same hash as the last one that validates go with it, but never all pictures.
    least, most = np.searchsorted(order, order[wanted - 1], "left"), np.searchsorted(order, order[wanted - 1], "right")
    validating = int(most if most < count else least)
    if not 0 < validating < count:
        return dataset, "all pictures of the data set are the same, and taken for train and val"
    chosen = hashes < order[validating]
    own = np.flatnonzero(chosen if split == "val" else ~chosen).tolist()
    parts = f"{count - validating:,} for train and {validating:,} for val (--val-share {share:g})"
    return dataset.subset(own), f"one part of {count:,} pictures, divided by their contents into {parts}"
