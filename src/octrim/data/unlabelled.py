"""Pictures without labels that join a training, in which a teacher says what is on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.assemble import Annotations, add_rows, assemble
from octrim.data.dataset import DataReport, Dataset
from octrim.data.index import Index
from octrim.data.open import open_dataset
from octrim.data.paths import walk_files
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.data.sources import VIDEO_SUFFIXES, open_source
from octrim.errors import InputError

MOST_BY_DEFAULT = 0.75
"""Largest share of a batch that unlabelled pictures take by default: with very many of them, an epoch over the labelled ones would have no end."""

_IS_VALIDATED = "unlabelled picture that is also a validation picture, left out"
_IS_TRAINED = "unlabelled picture that is also a labelled one, left out"
_IS_TWICE = "unlabelled picture whose file is there twice, left out once"


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Pictures without labels, and how many places of every batch they take.

    dataset: the pictures, without boxes. batch, places: pictures in a batch of all processes together, and those of them without labels. digest:
    digest of the pictures' bytes, in their order, which does not depend on where they lie.
    """

    dataset: Dataset
    batch: int
    places: int
    digest: str

    def facts(self) -> dict[str, Any]:
        """What a run notes of its unlabelled pictures: it goes on with the same ones only."""
        return {"pictures": len(self.dataset), "places": self.places, "batch": self.batch, "digest": self.digest}

    def line(self, labelled: int) -> str:
        """A line for people on the pictures and on what an epoch is. labelled: number of pictures with labels."""
        batches = -(-labelled // (self.batch - self.places))
        taken = batches * self.places
        return (
            f"unlabelled: {len(self.dataset)} pictures (digest {self.digest[:12]}) take {self.places} of {self.batch} places in every batch; "
            f"an epoch is one pass over the {labelled} labelled pictures: {batches} batches, with {taken} pictures without labels"
        )


def open_unlabelled(
    sources: Sequence[str], train_set: Dataset, val_set: Dataset | None, batch: int, ranks: int, share: float | None, **reading: Any
) -> Unlabelled:
    """Open pictures without labels: folders, lists of paths (.txt), globs, pictures, or data sets, of which the training part's pictures are taken.

    Pictures with the same bytes as one of `val_set` or `train_set` are left out, as are repeated ones; the data set's report tells how many. batch,
    ranks, share: as `places_of` takes them. reading: keyword arguments for `open_dataset`.
    Raises InputError where a source cannot be read, holds videos, or where no picture remains.
    """
    paths = [os.path.abspath(path) for source in sources for path in _pictures_of(source, reading)]  # noqa: PTH100 (100,000 paths)
    named = ", ".join(sources)
    index = Index(Path(paths[0]).parent, "unlabelled")
    facts, _ = index.facts(paths, [], "yolo")
    validated = [] if val_set is None else list(val_set.paths)
    hashes = index.hashes([*paths, *train_set.paths, *validated])
    index.save()
    own, trained, validated_hashes = np.split(hashes, [len(paths), len(paths) + len(train_set)])
    left_out = np.zeros(len(paths), bool)
    readable = facts["problem"] == 0
    report = DataReport()
    first = np.zeros(len(paths), bool)
    first[np.unique(own, return_index=True)[1]] = True
    for problem, found in ((_IS_VALIDATED, np.isin(own, validated_hashes)), (_IS_TRAINED, np.isin(own, trained)), (_IS_TWICE, ~first)):
        rows = np.flatnonzero(found & readable & ~left_out)
        add_rows(report, problem, rows, paths.__getitem__)
        left_out[rows] = True
    if readable.any() and (left_out | ~readable).all():
        reasons = "; ".join(f"{count} x {problem}" for problem, count in report.counts.items())
        raise InputError(f"{named}: none of {len(paths)} pictures is left to join the training; {reasons}")
    nothing = Annotations(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, np.uint8), str)
    dataset = assemble(Path(named), (), paths, paths, facts, nothing, report, left_out=left_out)
    kept = own[readable & ~left_out]
    digest = blake2b(np.ascontiguousarray(kept).tobytes(), digest_size=16).hexdigest()
    return Unlabelled(dataset, batch, places_of(share, len(train_set), len(dataset), batch, ranks), digest)


def places_of(share: float | None, labelled: int, unlabelled: int, batch: int, ranks: int) -> int:
    """Number of places of every batch of all `ranks` processes together that unlabelled pictures take: at least one, and never all.

    share: share of a batch, 0..1; None takes the unlabelled pictures' share of all pictures, at most MOST_BY_DEFAULT. Raises InputError where a
    process would get no labelled picture.
    """
    if share is None:
        share = min(unlabelled / (labelled + unlabelled), MOST_BY_DEFAULT)
    if batch < 2:
        raise InputError(f"batch is {batch}: a batch with labelled and unlabelled pictures has at least 2")
    places = min(max(round(share * batch), 1), batch - 1)
    if batch - places < ranks:
        raise InputError(
            f"{places} unlabelled pictures in a batch of {batch} leave {batch - places} with labels for {ranks} processes, expected one for each: "
            "take larger batches or a smaller --unlabelled-share"
        )
    return places


def _pictures_of(source: str, reading: dict[str, Any]) -> list[str]:
    """Paths of the pictures that a source names; of a folder that has none itself, those in the folders below it."""
    if Path(source).suffix.lower() in (".yaml", ".yml", ".json") or Path(source, "data.yaml").is_file():
        return list(open_dataset(source, "train", **reading).paths)
    if Path(source).is_dir() and not any(path.name.lower().endswith((*SUFFIXES, *VIDEO_SUFFIXES)) for path in Path(source).iterdir()):
        below = walk_files(source, is_picture)
        if below:
            return below
    opened = open_source(source)
    pictures = [str(path) for path in opened.pictures]
    if len(pictures) != len(opened.parts):
        raise InputError(f"{source}: expected pictures, found a video, a camera or an address; of a video, ffmpeg -i VIDEO %06d.jpg makes pictures")
    return pictures
