"""Counts of what a data set holds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.open import has_part, open_dataset
from octrim.data.overlap import trained_on
from octrim.errors import InputError

# COCO's bounds between small, medium and large boxes are the areas of 32 x 32 and 96 x 96 pixels.
COCO_AREAS = (32**2, 96**2)
SHARES = (0.001, 0.01, 0.1)  # bounds on a box's share of its picture's area


def opened(data: str, split: str | None, names: Sequence[str], val_share: float | None = None, keep_difficult: bool = False) -> Dataset:
    """Open the part of a data set to look at by `open_dataset`: `split`, by default the training part.

    Where no split is named and OcTrim would divide a single part into train and val, all of it is returned, with a note on how it is divided.
    Notes also tell of pictures that are both trained on and measured on, whatever the split.
    """
    reading: dict[str, Any] = {"val_share": val_share, "keep_difficult": keep_difficult}
    part = open_dataset(data, split or "train", names, **reading)
    shared = _shared(data, {split or "train": part}, names, reading)
    if split is not None:
        return replace(part, notes=(*part.notes, *shared))
    whole = open_dataset(data, "train", names, **{**reading, "val_share": 0})
    return replace(part if len(part) == len(whole) else whole, notes=(*part.notes, *shared))


def other_parts(
    data: str, shown: Dataset, names: Sequence[str], val_share: float | None = None, keep_difficult: bool = False
) -> dict[str, Dataset | str]:
    """What the parts for validation and test hold, by their names, besides what is shown already: the data set, or why it cannot be read.

    shown: the training part, or all of a data set of one part, which has no others. names, val_share, keep_difficult: as `opened` takes them.
    """
    found: dict[str, Dataset | str] = {}
    known = set(shown.paths)
    for split in ("val", "test"):
        try:
            if split == "test" and not has_part(data, split):
                continue
            part = open_dataset(data, split, names, val_share=val_share, keep_difficult=keep_difficult)
            if not known.issuperset(part.paths):
                found[split] = part
        except InputError as error:
            found[split] = str(error)
    return found


def _shared(data: str, parts: dict[str, Dataset], names: Sequence[str], reading: dict[str, Any]) -> list[str]:
    """Return lines on validation and test pictures that are also trained on; a part that cannot be read has none. parts: those already open."""
    for split in ("train", "val", "test"):
        with contextlib.suppress(InputError):
            if split not in parts and (split != "test" or has_part(data, split)):
                parts[split] = open_dataset(data, split, names, **reading)
    if "train" not in parts:
        return []
    return [line for split, what in (("val", "validation"), ("test", "test")) for line in trained_on(parts["train"], parts.get(split), what)]


def summary(dataset: Dataset) -> dict[str, Any]:
    """Return the counts of a data set as plain values for JSON. Sizes are in pixels of the pictures; crowd regions count only in `crowd_regions`."""
    one = ~dataset.crowd
    boxes, labels = dataset.boxes[one].astype(np.float64), dataset.labels[one]
    picture = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))[one]
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares = widths * heights / dataset.sizes.astype(np.float64).prod(1)[picture]
    counts = np.bincount(labels, minlength=len(dataset.names))
    pairs = np.unique(picture.astype(np.int64) * len(dataset.names) + labels)
    holding = np.bincount(pairs % len(dataset.names), minlength=len(dataset.names))
    share = counts / max(len(labels), 1)
    classes = [
        {"class": number, "name": name, "boxes": int(counts[number]), "pictures": int(holding[number]), "share": round(float(share[number]), 4)}
        for number, name in enumerate(dataset.names)
    ]
    return {
        "pictures": len(dataset),
        "backgrounds": int((np.diff(dataset.starts) == 0).sum()),
        "boxes": len(labels),
        "crowd_regions": int(dataset.crowd.sum()),
        "classes": classes,
        "coco_sizes": dict(zip(("small", "medium", "large"), _binned(widths * heights, COCO_AREAS), strict=True)),
        "picture_shares": dict(zip(("below 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 % and more"), _binned(shares, SHARES), strict=True)),
        "percentiles": {
            name: dict(zip(("p5", "p50", "p95"), np.percentile(values, (5, 50, 95)).round(2).tolist(), strict=True))
            for name, values in (("box_width", widths), ("box_height", heights))
            if len(values)
        },
        "picture_sizes": _common_sizes(dataset.sizes),
        "problems": {problem: {"count": count, "examples": dataset.report.examples[problem]} for problem, count in dataset.report.counts.items()},
    }


def _binned(values: np.ndarray, bounds: tuple[float, ...]) -> list[int]:
    """Return how many values lie below the first bound, from it up to the second, and so on."""
    return np.bincount(np.searchsorted(bounds, values, "right"), minlength=len(bounds) + 1).tolist()


def _common_sizes(sizes: np.ndarray) -> dict[str, int]:
    """Return the five most frequent picture sizes, as text "width x height", with their counts. sizes: `[n, 2]`, height and width."""
    found, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    return {f"{width}x{height}": int(count) for (height, width), count in zip(found[order].tolist(), counts[order], strict=True)}
