"""Evaluation batches: pictures of like aspect together, each batch in the smallest rectangle, read while the network runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter

import cv2
import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.pictures import PADDING, Letterbox, as_input, centred, read_picture
from octrim.errors import InputError


@dataclass(frozen=True)
class Planned:
    """A batch before it is read: which pictures, and its height and width."""

    pictures: tuple[int, ...]
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch that was read. images: uint8 RGB `[slots, height, width, 3]`; slots[i] shows picture pictures[i], fitted by boxes[i]; other slots
    are grey.

    failures: a line for each picture that could not be read, unread: their numbers. read, pre: seconds spent on decoding and on fitting.
    """

    images: np.ndarray
    slots: list[int] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    boxes: list[Letterbox] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    read: float = 0.0
    pre: float = 0.0


def rectangular_plan(sizes: np.ndarray, side: int, batch: int, stride: int) -> list[Planned]:
    """Plan batches of pictures of like aspect ratio. sizes: `[pictures, 2]`, height and width. side: longer side of every fitted picture, pixels.

    As YOLOv5 evaluates: a batch takes the shape of its extreme picture, plus half a stride, rounded up to the stride; a batch with
    both wide and tall pictures is square.
    """
    ratios = sizes[:, 0] / sizes[:, 1]
    order = np.argsort(ratios, kind="stable")
    plan = []
    for start in range(0, len(order), batch):
        pictures = order[start : start + batch]
        least, most = float(ratios[pictures[0]]), float(ratios[pictures[-1]])
        shape = (1.0, 1.0)
        if most < 1:
            shape = (most, 1.0)
        elif least > 1:
            shape = (1.0, 1 / least)
        height, width = (ceil(part * side / stride + 0.5) * stride for part in shape)
        plan.append(Planned(tuple(pictures.tolist()), height, width))
    return plan


def fixed_plan(count: int, height: int, width: int, batch: int) -> list[Planned]:
    """Plan batches of one shape, in the data set's order."""
    return [Planned(tuple(range(start, min(start + batch, count))), height, width) for start in range(0, count, batch)]


def fit(image: np.ndarray, side: int, height: int, width: int) -> tuple[np.ndarray, Letterbox]:
    """Return a picture with its longer side `side`, or less where height x width demands it, centred in height x width on grey 114."""
    rows, columns = image.shape[:2]
    ratio = min(side / max(rows, columns), height / rows, width / columns)
    inner_height, inner_width = min(ceil(rows * ratio), height, side), min(ceil(columns * ratio), width, side)
    if (inner_height, inner_width) != (rows, columns):
        image = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    image, left, top = centred(image, height, width)
    return image, Letterbox((inner_width / columns, inner_height / rows), left, top)


def read_batches(dataset: Dataset, plan: Sequence[Planned], side: int, slots: int = 1) -> Iterator[Batch]:
    """Yield the planned batches in order; the next one is read in a thread while the caller works on this one.

    slots: the fewest that a batch has; those without a picture are grey.
    """

    def read(planned: Planned) -> Batch:
        images = np.full((max(slots, len(planned.pictures)), planned.height, planned.width, 3), PADDING, np.uint8)
        batch = Batch(images)
        read = pre = 0.0
        for slot, picture in enumerate(planned.pictures):
            start = perf_counter()
            try:
                image = read_picture(dataset.paths[picture])
            except InputError as error:
                batch.failures.append(str(error))
                batch.unread.append(picture)
                continue
            decoded = perf_counter()
            if image.shape[:2] != tuple(dataset.sizes[picture].tolist()):  # its boxes would be in the wrong places
                indexed = "x".join(map(str, dataset.sizes[picture].tolist()))
                batch.failures.append(f"{dataset.paths[picture]}: is {image.shape[0]}x{image.shape[1]} pixels, was {indexed} when it was indexed")
                batch.unread.append(picture)
                continue
            fitted, box = fit(image, side, planned.height, planned.width)
            as_input(fitted, out=images[slot])
            read, pre = read + decoded - start, pre + perf_counter() - decoded
            batch.slots.append(slot)
            batch.pictures.append(picture)
            batch.boxes.append(box)
        return Batch(images, batch.slots, batch.pictures, batch.boxes, batch.failures, batch.unread, read, pre)

    with ThreadPoolExecutor(1, "octrim-read") as thread:
        following = [thread.submit(read, plan[0])] if plan else []
        for index in range(len(plan)):
            batch = following.pop().result()
            if index + 1 < len(plan):
                following.append(thread.submit(read, plan[index + 1]))
            yield batch
