"""Data sets and detections for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octrim.data.dataset import Dataset

Box = tuple[float, float, float, float]


def dataset(
    pictures: Sequence[Sequence[tuple[Box, int, bool]]],
    names: Sequence[str] = ("cat", "dog"),
    paths: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Dataset:
    """pictures: per picture its objects, (x1 y1 x2 y2, class, crowd)."""
    flat = [entry for objects in pictures for entry in objects]
    count = len(pictures)
    return Dataset(
        tuple(names),
        tuple(paths or [f"{index}.png" for index in range(count)]),
        np.asarray(sizes or [(100, 100)] * count, np.int32).reshape(-1, 2),
        np.asarray([box for box, _, _ in flat], np.float32).reshape(-1, 4),
        np.asarray([label for _, label, _ in flat], np.int32),
        np.asarray([crowd for _, _, crowd in flat], bool),
        np.cumsum([0, *map(len, pictures)]),
        tuple(f"picture{index}" for index in range(count)),
        tuple(10 * index + 7 for index in range(len(names))),
    )


def found(*rows: tuple[Box, float, int]) -> np.ndarray:
    """Detections of a picture: (x1 y1 x2 y2, confidence, class)."""
    return np.asarray([(*box, confidence, label) for box, confidence, label in rows], np.float32).reshape(-1, 6)


def random_case(seed: int, pictures: int, classes: int, crowds: bool) -> tuple[Dataset, list[np.ndarray]]:
    """Objects, and detections around them and beside them, with equal confidences and equal overlaps among them."""
    generator = np.random.default_rng(seed)
    truth, detections = [], []
    for _ in range(pictures):
        objects = []
        rows = []
        for _ in range(generator.integers(0, 7)):
            corner, side = generator.integers(0, 70, 2), generator.integers(4, 30, 2)
            label = int(generator.integers(classes))
            box = np.concatenate([corner, corner + side])
            objects.append((tuple(box.tolist()), label, bool(crowds and generator.random() < 0.25)))
            for _ in range(generator.integers(0, 4)):
                other = label if generator.random() < 0.8 else int(generator.integers(classes))
                moved = box + generator.integers(-3, 4, 4) * (generator.random() < 0.8)
                moved[2:] = np.maximum(moved[2:], moved[:2])
                rows.append((tuple(moved.tolist()), float(generator.integers(1, 20)) / 20, other))
        for _ in range(generator.integers(0, 4)):
            corner, side = generator.uniform(0, 70, 2), generator.uniform(2, 30, 2)
            rows.append(((*corner, *(corner + side)), float(generator.random()), int(generator.integers(classes))))
        truth.append(objects)
        detections.append(found(*sorted(rows, key=lambda row: -np.float32(row[1]))))
    return dataset(truth, [f"class{index}" for index in range(classes)]), detections
