"""Pictures that are in two parts of a data set: trained on and measured on, they make accuracy look better than it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import numpy as np

from octrim.data.dataset import Dataset, printable
from octrim.data.index import Index

_TOLD: ContextVar[bool] = ContextVar("_TOLD", default=False)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let `trained_on` say nothing within the block, for trainings of a longer job that has said it."""
    token = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(token)


def trained_on(train_set: Dataset, other: Dataset | None, what: str = "validation") -> list[str]:
    """Return a line for people where pictures of `other` are also trained on, else none. Files are compared, not their contents.

    other: a part to measure on, or None. what: what its pictures are for, for the line.
    """
    if other is None or _TOLD.get():
        return []
    same = np.flatnonzero(same_files(other.paths, train_set.paths))
    if not len(same):
        return []
    first = other.paths[int(same[0])]
    return [printable(f"{len(same):,} of {len(other):,} {what} pictures are also trained on (first: {first}): accuracy flatters")]


def same_files(paths: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Tell which of `paths` are a file of `others`, by whatever name or link: bool `[paths]`."""
    known = set(map(_identity, others))
    return np.asarray([_identity(path) in known for path in paths], bool)


def without_validated(train_set: Dataset, val_set: Dataset, names: tuple[str, str], index: Index) -> tuple[Dataset, str | None]:
    """Return the training part without the pictures that have the same bytes as one of `val_set`, and a note, None where there are none.

    names: names of both parts. A training part that would be left without pictures stays as it is.
    """
    hashes = index.hashes([*train_set.paths, *val_set.paths])
    own, validated = hashes[: len(train_set)], hashes[len(train_set) :]
    left = np.flatnonzero(~np.isin(own, validated[validated != 0]))
    count = len(train_set) - len(left)
    if not count:
        return train_set, None
    if not len(left):
        return train_set, f"all {count:,} pictures of {names[0]}, which is taken for train, are also in {names[1]}: accuracy flatters"
    note = f"{names[0]} is taken for train, without {count:,} of its {len(train_set):,} pictures, which are also in {names[1]}"
    return train_set.subset(left.tolist()), note


def _identity(path: str) -> tuple[int, int] | str:
    """Return what tells a file from any other: its device and number, or its path where it has none."""
    try:
        status = os.stat(path)  # noqa: PTH116 (100,000 Path objects take their time)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return os.path.abspath(path)  # noqa: PTH100
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.abspath(path)  # noqa: PTH100
