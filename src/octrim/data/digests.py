"""Digests of data sets, by which a run that goes on tells whether its data are those that it began with, wherever they lie now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from octrim.data.dataset import Dataset

_DIGEST = "2:"  # prefix of digests that do not depend on where the data lie; digests of OcTrim 0.1 have no prefix


def data_digest(*datasets: Dataset | None) -> str:
    """Digest of data sets: picture sizes, boxes, labels, class names, and the pictures' paths relative to the folder that holds them all."""
    there = [dataset for dataset in datasets if dataset is not None]
    try:
        root = os.path.commonpath([os.path.dirname(path) for dataset in there for path in dataset.paths])  # noqa: PTH120 (100,000 paths)
    except ValueError:  # several drives, or no pictures
        root = ""
    return _DIGEST + _digest(there, lambda path: path[len(root) :].lstrip(os.sep).replace(os.sep, "/"))


def same_data(digest: str, datasets: Sequence[Dataset | None], began: str | None = None, now: str | None = None) -> bool:
    """Whether the digest is that of these data sets. began, now: where the data lay then and lie now, because digests of OcTrim 0.1 depend on it."""
    there = [dataset for dataset in datasets if dataset is not None]
    if digest.startswith(_DIGEST):
        return digest == data_digest(*there)
    if digest == digest_with_places(*there):
        return True
    before, after = (_root(data) for data in (began, now))
    return digest == _digest(there, lambda path: before + path[len(after) :] if path.startswith(after + os.sep) else path)


def digest_with_places(*datasets: Dataset) -> str:
    """The digest as OcTrim 0.1 made it, which changes when the data are moved."""
    return _digest(datasets, lambda path: path)


def _root(data: str | None) -> str:
    """The folder that a data set lies in: `data` itself or, where `data` names a file, that file's folder."""
    path = os.path.abspath(os.path.expanduser(data or ""))  # noqa: PTH100, PTH111
    return os.path.dirname(path) if Path(path).suffix else path  # noqa: PTH120 (the file may be gone)


def _digest(datasets: Sequence[Dataset], named: Callable[[str], str]) -> str:
    """Digest of data sets. named: function from a picture's path to the text that enters the digest for it."""
    digest = hashlib.sha256()
    for dataset in datasets:
        digest.update("\0".join((*dataset.names, "", *map(named, dataset.paths))).encode("utf-8", "surrogateescape"))
        for array in (dataset.sizes, dataset.boxes, dataset.labels, dataset.crowd, dataset.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
