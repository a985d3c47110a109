"""Labelled pictures on which a network is measured, in the network's own class numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.open import open_labelled
from octrim.errors import InputError
from octrim.evaluate.batches import Batch, Planned, read_batches
from octrim.evaluate.classes import map_classes


def open_in_classes(data: str | None, split: str, names: Sequence[str], **reading: Any) -> tuple[Dataset, list[str]]:
    """A part of a data set in the network's classes, `names`, and lines about it for people. reading: options of `open_labelled`.

    Raises InputError where the data set cannot be read, has no labelled object, or has a class that the network does not have.
    """
    dataset, note = in_network_classes(open_labelled(data, split, names, **reading), names)
    return dataset, [*([] if note is None else [note]), *dataset.lines()]


def in_network_classes(dataset: Dataset, names: Sequence[str]) -> tuple[Dataset, str | None]:
    """The data set with the network's class names and numbers, and a line for people or None. Raises InputError where the classes do not fit."""
    mapping, note = map_classes(names, dataset.names)
    numbers = np.zeros(len(dataset.names), np.int32)
    numbers[mapping[mapping >= 0]] = np.flatnonzero(mapping >= 0)
    labels = numbers[dataset.labels]
    return dataclasses.replace(dataset, names=tuple(names), labels=labels, category_ids=tuple(range(len(names)))), note


def drawn(dataset: Dataset, pictures: int, seed: int) -> Dataset:
    """The data set with at most `pictures` of its pictures, drawn by `seed`, in their order."""
    if pictures < 1:
        raise InputError(f"pictures is {pictures}, expected 1 or more")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    if pictures >= len(dataset):
        return dataset
    return dataset.subset(sorted(np.random.default_rng(seed).permutation(len(dataset))[:pictures].tolist()))


def readable_batches(dataset: Dataset, plan: Sequence[Planned], side: int) -> Iterator[Batch]:
    """Batches as `read_batches` gives them, without pictures that could not be read: the loss would take their grey for background."""
    for batch in read_batches(dataset, plan, side):
        yield dataclasses.replace(batch, images=batch.images[batch.slots], slots=list(range(len(batch.slots))))
