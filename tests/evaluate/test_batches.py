"""Shapes by hand, the way back to the picture, and what is in a batch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.evaluate.batches import Planned, fit, fixed_plan, read_batches, rectangular_plan
from tests.evaluate.material import dataset


def test_shapes_by_hand() -> None:
    # Sorted by height / width: .5, .75, .9 | .75 + tall, | 1.25, 2 (height, width)
    sizes = np.asarray([(480, 640), (1000, 500), (320, 640), (576, 640), (625, 500), (640, 640)], np.int32)
    wide, mixed = rectangular_plan(sizes, 640, 3, 32)
    assert wide.pictures == (2, 0, 3)
    # widest of .5 .75 .9: .9 * 640 / 32 = 18, + .5 -> 19 strides; 640 / 32 = 20, + .5 -> 21
    assert (wide.height, wide.width) == (19 * 32, 21 * 32)
    assert mixed.pictures == (5, 4, 1)
    assert (mixed.height, mixed.width) == (672, 672)  # the square picture is not tall
    tall = rectangular_plan(sizes[[4, 1]], 640, 8, 32)
    # least of 1.25 2: 1 / 1.25 = .8: .8 * 640 / 32 = 16, + .5 -> 17
    assert tall == [Planned((0, 1), 672, 17 * 32)]
    assert rectangular_plan(sizes[[0]], 640, 8, 64) == [Planned((0,), 512, 704)]  # 480 / 64 = 7.5, + .5 = 8 exactly
    assert rectangular_plan(sizes[:0], 640, 8, 32) == []
    assert fixed_plan(3, 64, 96, 2) == [Planned((0, 1), 64, 96), Planned((2,), 64, 96)]


def test_fit_by_hand() -> None:
    """200 x 400 to a longer side of 100: 50 x 100, centred in 96 x 128 with 23 above and below, 14 on either side."""
    fitted, box = fit(np.full((200, 400, 3), 255, np.uint8), 100, 96, 128)
    assert fitted.shape == (96, 128, 3)
    assert (box.scale, box.top, box.left) == ((0.25, 0.25), 23, 14)
    assert (fitted[23:73, 14:114] == 255).all()
    assert (np.delete(fitted[:, 50, 0], np.s_[23:73]) == 114).all()
    # An odd pixel goes below and to the right; sides are rounded up: 33 * 100 / 99 = 33.3 -> 34.
    fitted, box = fit(np.full((99, 33, 3), 255, np.uint8), 100, 101, 64)
    assert (box.top, box.left) == (0, 15)
    assert (fitted[:100, 15:49] == 255).all()
    assert (fitted[100] == 114).all()


def test_shrinking_averages() -> None:
    """INTER_AREA: a board of black and white pixels becomes grey, which INTER_LINEAR's samples would make it only by luck."""
    board = np.indices((300, 300)).sum(0) % 2 * 255
    fitted, _ = fit(np.dstack([board] * 3).astype(np.uint8), 100, 100, 100)
    assert abs(fitted.astype(int) - 127).max() <= 16


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([64, 320, 640]), st.integers(0, 2**32 - 1))
def test_boxes_come_back(rows: int, columns: int, side: int, seed: int) -> None:
    (planned,) = rectangular_plan(np.asarray([(rows, columns)]), side, 1, 32)
    fitted, box = fit(np.zeros((rows, columns, 3), np.uint8), side, planned.height, planned.width)
    assert fitted.shape == (planned.height, planned.width, 3)
    assert max(round(scale * length) for scale, length in zip(box.scale, (columns, rows), strict=True)) == side
    boxes = np.random.default_rng(seed).random((5, 4)) * (columns, rows, columns, rows)
    placed = boxes * (*box.scale, *box.scale) + (box.left, box.top, box.left, box.top)
    np.testing.assert_allclose(box.to_picture(placed, rows, columns), boxes, atol=1e-3)
    outside = np.asarray([[-50, -50, 5000, 5000]], float)
    assert box.to_picture(outside, rows, columns).tolist() == [[0, 0, columns, rows]]


def test_what_is_in_a_batch(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{index}.png") for index in range(4)]
    for index, colour in enumerate([(255, 0, 0), (0, 255, 0)]):
        cv2.imwrite(paths[index], np.full((64, 64, 3), colour, np.uint8))
    cv2.imwrite(paths[2], np.zeros((32, 64, 3), np.uint8))  # turned since it was indexed
    Path(paths[3]).write_bytes(b"no picture")
    data = dataset([[]] * 4, paths=paths, sizes=[(64, 64)] * 4)
    first, second = read_batches(data, [Planned((3, 1), 64, 64), Planned((0, 2), 64, 96)], 64, slots=3)
    assert first.images.shape == (3, 64, 64, 3)
    assert (first.slots, first.pictures) == ([1], [1])
    assert (first.images[1] == (0, 255, 0)).all()
    assert (first.images[[0, 2]] == 114).all()
    assert len(first.failures) == 1 and paths[3] in first.failures[0]
    assert (second.slots, second.pictures, second.boxes[0].left) == ([0], [0], 16)
    assert (second.images[0, :, 16:80] == (0, 0, 255)).all()  # RGB
    assert second.failures == [f"{paths[2]}: is 32x64 pixels, was 64x64 when it was indexed"]
    assert list(read_batches(data, [], 64)) == []


def test_the_reader_stops_with_its_caller(tmp_path: Path) -> None:
    data = dataset([[]] * 2, paths=[str(tmp_path / "a.png")] * 2)
    batches = read_batches(data, fixed_plan(2, 32, 32, 1), 32)
    with pytest.raises(KeyboardInterrupt):
        for _ in batches:
            raise KeyboardInterrupt
    batches.close()  # type: ignore[attr-defined]
