"""Samples: the recipe's order, coordinates in them, and pictures that are gone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.augment import Augmentation, TrainingScene
from octrim.data.dataset import Dataset
from octrim.data.samples import REPLACEMENTS, Samples, packed, unpacked
from octrim.data.store import Store
from octrim.errors import InputError

PLAIN = Augmentation(**dict.fromkeys((field.name for field in dataclasses.fields(Augmentation)), 0))


def trainable(
    root: Path, sizes: list[tuple[int, int]], boxes: list[tuple[int, int, int, int]] | None = None, crowd: list[bool] | None = None
) -> Dataset:
    """Dark pictures of these heights and widths with `boxes` painted into each, a quarter of it in its middle by default. Their label is the
    picture's number."""
    root.mkdir(parents=True, exist_ok=True)
    paths, found = [], []
    for number, (height, width) in enumerate(sizes):
        image = np.full((height, width, 3), 20, np.uint8)
        inside = boxes or [(width // 4, height // 4, 3 * width // 4, 3 * height // 4)]
        for place, (x1, y1, x2, y2) in enumerate(inside):
            if not (crowd and crowd[place]):
                image[y1:y2, x1:x2] = (100, 150, 200)
        path = root / f"{number:03}.png"
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        paths.append(str(path))
        found += inside
    each = len(found) // len(sizes)
    return Dataset(
        names=tuple(map(str, range(len(sizes)))),
        paths=tuple(paths),
        sizes=np.asarray(sizes, np.int32),
        boxes=np.asarray(found, np.float32),
        labels=np.repeat(np.arange(len(sizes), dtype=np.int32), each),
        crowd=np.asarray((crowd or [False] * each) * len(sizes)),
        starts=np.arange(len(sizes) + 1) * each,
        picture_ids=tuple(paths),
        category_ids=tuple(range(len(sizes))),
    )


def samples(dataset: Dataset, side: int, augmentation: Augmentation = PLAIN, seed: int = 0, cache: str = "ram") -> Samples:
    return Samples(dataset, side, augmentation, seed, Store(dataset, side, cache))


def same(first: TrainingScene, second: TrainingScene) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_letterboxed_by_hand(tmp_path: Path) -> None:
    """80 x 40 into 40: half the size, ten rows of grey above and below; the crowd goes."""
    dataset = trainable(tmp_path, [(40, 80)], boxes=[(20, 10, 60, 30), (0, 0, 80, 40), (70, 36, 80, 40)], crowd=[False, True, False])
    image, boxes, labels = samples(dataset, 40).sample(0, 0)
    assert image.shape == (40, 40, 3)
    assert image.flags.c_contiguous
    assert boxes.tolist() == [[10, 15, 30, 25]]  # the third is 5 x 2 pixels, not more than two
    assert labels.tolist() == [0]
    assert (boxes.dtype, labels.dtype, image.dtype) == (np.float32, np.int32, np.uint8)
    assert (image[:10] == 114).all()
    assert (image[30:] == 114).all()
    assert (image[16:24, 11:29] == [200, 150, 100]).all()  # written as blue 100, green 150, red 200
    assert (image[11:14] == 20).all()


def test_enlarged(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(10, 20)], boxes=[(5, 2, 15, 8)])
    image, boxes, _ = samples(dataset, 80).sample(0, 0)
    assert boxes.tolist() == [[20, 28, 60, 52]]
    assert (image[:20] == 114).all()


def test_the_seed_the_epoch_and_the_picture_decide(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(48, 64)] * 6)
    augmentation = Augmentation(mixup=0.5, degrees=10)
    one, again, other = samples(dataset, 64, augmentation), samples(dataset, 64, augmentation), samples(dataset, 64, augmentation, seed=1)
    backwards = {(epoch, index): again.sample(epoch, index) for epoch in (1, 0) for index in (5, 3, 1)}
    for (epoch, index), scene in backwards.items():
        assert same(one.sample(epoch, index), scene)
        assert not same(one.sample(epoch + 1, index), scene)
        assert not same(one.sample(epoch, index - 1), scene)
        assert not same(other.sample(epoch, index), scene)


def test_mosaic_happens_as_often_as_asked_and_where_allowed(tmp_path: Path) -> None:
    """Letterboxed, a square picture shows no grey."""
    dataset = trainable(tmp_path, [(32, 32)] * 4)
    plain = samples(dataset, 32, dataclasses.replace(PLAIN, mosaic=0.5))
    # Four pictures show the dark edges between them.
    whole = plain.sample(0, 0, mosaic=False)
    assert sum(not same(plain.sample(epoch, 0), whole) for epoch in range(400)) == pytest.approx(200, abs=50)
    assert all(same(plain.sample(epoch, 0, mosaic=False), whole) for epoch in range(20))


def test_every_mosaic_holds_its_own_picture(tmp_path: Path) -> None:
    """Labels tell the pictures: the sample's own one is among four of a hundred, in any place."""
    dataset = trainable(tmp_path, [(32, 32)] * 100)
    everything = dataclasses.replace(PLAIN, mosaic=1, mixup=1)
    counts = np.zeros(100)
    for epoch in range(60):
        _, boxes, labels = samples(dataset, 32, dataclasses.replace(everything, mixup=0)).sample(epoch, 7)
        assert len(boxes) <= 4
        np.add.at(counts, labels, 1)
    assert counts[7] > 25  # of 60; the crop takes some
    assert np.delete(counts, 7).max() < 10
    assert max(len(samples(dataset, 32, everything).sample(epoch, 7).labels) for epoch in range(20)) > 4


@given(st.integers(0, 2**32), st.integers(0, 1000), st.booleans())
def test_boxes_are_inside(tmp_path_factory: pytest.TempPathFactory, seed: int, epoch: int, mosaic: bool) -> None:
    global _dataset  # noqa: PLW0603
    if _dataset is None:
        _dataset = trainable(tmp_path_factory.mktemp("set"), [(30, 64), (64, 20), (100, 100), (7, 9)])
    image, boxes, labels = samples(_dataset, 64, Augmentation(mixup=0.5, scale=0.9), seed).sample(epoch, epoch % 4, mosaic)
    assert image.shape == (64, 64, 3)
    assert len(boxes) == len(labels)
    assert (boxes >= 0).all()
    assert (boxes <= 64).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


_dataset: Dataset | None = None


def test_a_picture_that_is_gone_is_replaced(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(32, 32)] * 8)
    Path(dataset.paths[2]).unlink()
    whole = Path(dataset.paths[5]).read_bytes()
    Path(dataset.paths[5]).write_bytes(whole[: len(whole) // 2])
    made = samples(dataset, 32)
    assert made.sample(0, 2).labels.tolist() not in ([2], [5])
    assert made.failures == [f"{dataset.paths[2]}: No such file or directory"]
    again = samples(dataset, 32)
    assert same(again.sample(0, 2), made.sample(0, 2))
    made.sample(0, 5)
    made.sample(1, 5)
    assert len(made.failures) == 2
    assert made.failures[1].startswith(f"{dataset.paths[5]}: ")


def test_a_picture_that_has_changed_its_size_is_replaced(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(32, 32)] * 3)
    cv2.imwrite(dataset.paths[0], np.zeros((20, 40, 3), np.uint8))
    made = samples(dataset, 32)
    assert made.sample(0, 0).labels.tolist() in ([1], [2])
    assert made.failures == [f"{dataset.paths[0]}: is 20x40 pixels, was 32x32 when it was indexed"]


def test_when_nothing_can_be_read(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(32, 32)] * 3)
    for path in dataset.paths:
        Path(path).unlink()
    with pytest.raises(InputError, match=rf"No such file or directory \(and {REPLACEMENTS} pictures drawn"):
        samples(dataset, 32).sample(0, 0)


def test_batches_are_normalised(tmp_path: Path) -> None:
    dataset = trainable(tmp_path, [(40, 80), (40, 40), (80, 40)], boxes=[(20, 10, 40, 30)])
    images = np.zeros((2, 40, 40, 3), np.uint8)
    made = samples(dataset, 40)
    targets, failures = made.batch([0, 0], [2, 0], True, images)
    assert targets.dtype == np.float32
    # 40 x 80 is halved with ten columns of grey at the left: x from 20 to 30, y from 5 to 15.
    np.testing.assert_allclose(targets, [[0, 2, 25 / 40, 10 / 40, 10 / 40, 10 / 40], [1, 0, 15 / 40, 20 / 40, 10 / 40, 10 / 40]], rtol=1e-6)
    assert failures == []
    np.testing.assert_array_equal(images[1], made.sample(0, 0).image)
    assert made.batch([0, 0], [2, 0], True, images, lambda: False)[0].shape == (0, 6)


def test_packing(tmp_path: Path) -> None:
    dataset = trainable(tmp_path / "sp ä", [(40, 80), (40, 40)], boxes=[(20, 10, 40, 30), (0, 0, 1, 1)], crowd=[True, False])
    dataset = dataclasses.replace(dataset, paths=(dataset.paths[0], "/no\udcff.jpg"))  # a name that is no text
    found = unpacked(packed(dataset))
    assert found.paths == dataset.paths
    for name in ("sizes", "boxes", "labels", "crowd", "starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(dataset, name))
