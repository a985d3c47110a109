"""Augmentations against painted rectangles: wherever the paint goes, the box must go."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.augment import (
    Augmentation,
    TrainingScene,
    drawn_matrix,
    flipped,
    flips,
    hsv,
    mixed,
    mixup,
    mosaic,
    mosaic_at,
    random_perspective,
    scaled_hsv,
    survivors,
    warped,
)
from octrim.errors import InputError

IDENTITY = Augmentation(**dict.fromkeys((field.name for field in dataclasses.fields(Augmentation)), 0))


def painted(height: int, width: int, *boxes: tuple[int, int, int, int], value: int = 255) -> TrainingScene:
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = value
    return TrainingScene(image, np.asarray(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes), dtype=np.int32))


def extent(image: np.ndarray, threshold: int = 185) -> list[int]:
    """The bright pixels' box. The threshold is half way between white and the grey around a picture."""
    rows, columns = np.nonzero(image[:, :, 0] > threshold)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def moved(generator: np.random.Generator, augmentation: Augmentation, scene: TrainingScene, side: int) -> TrainingScene:
    return random_perspective(generator, scene, augmentation, side)


def test_defaults_are_the_published_ones() -> None:
    assert dataclasses.astuple(Augmentation()) == (0.015, 0.7, 0.4, 0, 0.1, 0.5, 0, 0, 0, 0.5, 1, 0)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [("hsv_h", 1.1, 1), ("degrees", 181, 180), ("scale", 0.96, 0.95), ("shear", -1, 60), ("perspective", 0.01, 0.001), ("mixup", float("nan"), 1)],
)
def test_ranges(name: str, value: float, limit: float) -> None:
    with pytest.raises(InputError, match=rf"^augmentation {name} is {value}, expected a number from 0 to {limit}$"):
        Augmentation(**{name: value})
    Augmentation(**{name: limit})


@pytest.mark.parametrize("value", ["much", None, True])
def test_wrong_types(value: object) -> None:
    with pytest.raises(InputError, match="augmentation flipud is "):
        Augmentation(flipud=value)  # type: ignore[arg-type]


def test_mosaic_by_hand() -> None:
    """Canvas 40 x 40, centre (14, 22). Pictures of 20 x 20 and one of 10 rows; each with a box from (2, 3) to (8, 9)."""
    scenes = [painted(height, 20, (2, 3, 8, 9), value=200 + place) for place, height in enumerate((20, 10, 20, 20))]
    found = mosaic_at(scenes, 20, 14, 22)
    # Upper left: its corner at (-6, 2), so six columns are lost and the box keeps x from 0 to 2. Upper right: corner at (14, 12).
    # Lower left: (-6, 22). Lower right: (14, 22), whose last two rows and no columns are lost.
    assert found.boxes_xyxy.tolist() == [[0, 5, 2, 11], [16, 15, 22, 21], [0, 25, 2, 31], [16, 25, 22, 31]]
    assert found.labels.tolist() == [0, 0, 0, 0]
    assert found.boxes_xyxy.dtype == np.float32
    assert found.labels.dtype == np.int32
    expected = np.full((40, 40), 114)
    expected[2:22, 0:14] = expected[12:22, 14:34] = expected[22:40, 0:14] = expected[22:40, 14:34] = 0
    for place, (x1, y1, x2, y2) in enumerate(found.boxes_xyxy.astype(int).tolist()):
        expected[y1:y2, x1:x2] = 200 + place
    np.testing.assert_array_equal(found.image, np.repeat(expected[:, :, None], 3, 2))


def test_mosaic_drops_what_is_outside() -> None:
    scenes = [painted(20, 20, (0, 0, 6, 6), (0, 0, 7, 7)), *(painted(20, 20) for _ in range(3))]
    found = mosaic_at(scenes, 20, 14, 14)  # the first picture's corner at (-6, -6)
    assert found.boxes_xyxy.tolist() == [[0, 0, 1, 1]]
    assert found.labels.tolist() == [1]


def test_mosaic_centres() -> None:
    """The middle half of the canvas, evenly."""
    generator = np.random.default_rng(0)
    scenes = [painted(8, 8, value=0) for _ in range(4)]
    scenes[3].image[0, 0] = 255  # stands at the centre
    centres = np.asarray([np.argwhere(mosaic(generator, scenes, 8).image[:, :, 0] == 255)[0] for _ in range(4000)])
    values, counts = np.unique(centres, return_counts=True)
    assert values.tolist() == list(range(4, 12))
    assert (np.abs(counts - 1000) < 150).all()  # 5 standard deviations


def test_nothing_drawn_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    scene = TrainingScene(noise, np.asarray([[1.25, 2.5, 60.125, 63.75], [0, 0, 64, 64]], np.float32), np.asarray([7, 3], np.int32))
    found = moved(generator, IDENTITY, scene, 64)
    for before, after in zip(scene, found, strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    assert flips(generator, found, IDENTITY) is found
    np.testing.assert_array_equal(hsv(generator, noise, IDENTITY), noise[:, :, ::-1])
    middle = moved(generator, IDENTITY, scene, 32)  # of a mosaic, the middle
    np.testing.assert_array_equal(middle.image, noise[16:48, 16:48])
    assert middle.boxes_xyxy.tolist() == [[0, 0, 32, 32], [0, 0, 32, 32]]


@pytest.mark.parametrize("perspective", [0, 1e-12])
def test_general_warps_agree_with_the_fast_one(perspective: float) -> None:
    """A scale and a shift as warpAffine and warpPerspective do them, and as resize does."""
    scene = TrainingScene(
        cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8), (9, 9), 4), *painted(96, 96, (30, 20, 70, 60))[1:]
    )
    matrix = np.asarray([[4 / 3, 0, -16], [0, 4 / 3, -8], [0, 0, 1]])  # the window from (12, 6), 48 pixels wide
    fast = warped(scene, matrix, 4 / 3, 64)
    skewed = matrix + np.asarray([[0, 1e-12, 0], [0, 0, 0], [perspective, 0, 0]])
    slow = warped(scene, skewed, 4 / 3, 64)
    assert np.abs(fast.image.astype(int) - slow.image)[2:-2, 2:-2].max() <= 4  # OpenCV's warps know 32 steps between pixels
    np.testing.assert_allclose(fast.boxes_xyxy, [[24, 56 / 3, 64, 64]], atol=1e-5)
    np.testing.assert_allclose(slow.boxes_xyxy, fast.boxes_xyxy, atol=1e-4)


@pytest.mark.parametrize(
    ("strengths", "tolerance"),
    [
        ({"scale": 0.5}, 1),
        ({"scale": 0.95}, 1),
        ({"translate": 0.2}, 1),
        ({"translate": 0.1, "scale": 0.5}, 1),
        ({"degrees": 30}, 1.5),
        ({"degrees": 180, "scale": 0.3}, 1.5),
        ({"shear": 15}, 1.5),
        ({"perspective": 0.001}, 1.5),
        ({"degrees": 20, "translate": 0.1, "scale": 0.4, "shear": 10, "perspective": 0.001}, 2),
    ],
)
def test_boxes_follow_the_paint(strengths: dict[str, float], tolerance: float) -> None:
    compared = 0
    for seed in range(40):
        scene = painted(320, 320, (110, 140, 190, 200))
        found = moved(np.random.default_rng(seed), dataclasses.replace(IDENTITY, **strengths), scene, 160)
        assert found.image.shape == (160, 160, 3)
        if len(found.boxes_xyxy):
            np.testing.assert_allclose(found.boxes_xyxy[0], extent(found.image), atol=tolerance)
            compared += 1
    assert compared > 25


def test_scale_and_shift_by_hand() -> None:
    """The middle (50, 50) goes to (.5 + t) * side; a scale of 2 doubles distances from it."""
    matrix = np.asarray([[2, 0, 40 - 2 * 50], [0, 2, 30 - 2 * 50], [0, 0, 1]])
    found = warped(painted(100, 100, (50, 50, 60, 70)), matrix, 2, 80)
    assert found.boxes_xyxy.tolist() == [[40, 30, 60, 70]]
    assert extent(found.image) == [40, 30, 60, 70]


def test_matrices_by_hand() -> None:
    """With draws of their greatest: a quarter turn, then the shear, then the shift."""

    class Ones:
        def uniform(self, low: float, high: float, count: int) -> np.ndarray:
            return np.full(count, high)

    def matrix(**strengths: float) -> np.ndarray:
        return drawn_matrix(Ones(), dataclasses.replace(IDENTITY, **strengths), 100, 200, 50)[0]  # type: ignore[arg-type]

    point = np.asarray([110, 50, 1])  # ten to the right of the middle
    np.testing.assert_allclose(matrix() @ point, [35, 25, 1])
    np.testing.assert_allclose(matrix(translate=0.2) @ point, [45, 35, 1])
    np.testing.assert_allclose(matrix(scale=0.5) @ point, [40, 25, 1])
    np.testing.assert_allclose(matrix(degrees=90) @ point, [25, 15, 1], atol=1e-9)  # anticlockwise, as cv2.getRotationMatrix2D
    np.testing.assert_allclose(matrix(shear=45) @ point, [35, 35, 1])
    np.testing.assert_allclose(matrix(degrees=90, shear=45) @ point, [15, 15, 1], atol=1e-9)
    np.testing.assert_allclose(matrix(perspective=0.001) @ point, [10 + 25 * 1.01, 25 * 1.01, 1.01])
    turned = np.asarray([25 * 1.01, 25 * 1.01 - 10, 1.01])  # the perspective comes first
    np.testing.assert_allclose(matrix(degrees=90, perspective=0.001) @ point, turned)
    assert drawn_matrix(Ones(), dataclasses.replace(IDENTITY, scale=0.5), 10, 10, 10)[1] == 1.5  # type: ignore[arg-type]


def test_the_horizon_stays_outside() -> None:
    augmentation = dataclasses.replace(IDENTITY, perspective=0.001)
    for seed in range(50):
        matrix, _ = drawn_matrix(np.random.default_rng(seed), augmentation, 2560, 2560, 1280)
        corners = np.asarray([[0, 0, 1], [2560, 0, 1], [0, 2560, 1], [2560, 2560, 1]])
        assert ((corners @ matrix.T)[:, 2] > 0.19).all()


def test_survivors_at_the_thresholds() -> None:
    def stays(after: tuple[float, float], before: tuple[float, float], scale: float = 1) -> bool:
        return bool(survivors(np.asarray([[5, 5, 5 + before[0], 5 + before[1]]]), np.asarray([[1, 1, 1 + after[0], 1 + after[1]]]), scale)[0])

    assert not stays((2, 10), (2, 10))
    assert not stays((10, 2), (10, 2))
    assert stays((2.01, 10), (2.01, 10))
    assert not stays((10, 10), (10, 100))  # exactly a tenth is left
    assert stays((10, 10.1), (10, 100))
    assert not stays((10, 10.1), (10, 100), 1.1)  # enlarged: what was seen before would be larger now
    assert stays((10, 3), (10, 100), 0.5)
    assert not stays((300, 3), (300, 3))  # exactly a hundred times as long
    assert stays((299, 3), (299, 3))
    assert not stays((0, 0), (0, 0))


def test_mixed_by_hand() -> None:
    first, second = painted(10, 10, (0, 0, 5, 5)), painted(10, 10, (5, 5, 10, 10), (0, 0, 2, 9))
    found = mixed(first, second, 0.4)
    assert found.image[0, 4].tolist() == [102] * 3
    assert found.image[9, 9].tolist() == [153] * 3
    assert found.image[0, 0].tolist() == [255] * 3
    assert found.boxes_xyxy.tolist() == [[0, 0, 5, 5], [5, 5, 10, 10], [0, 0, 2, 9]]
    assert found.labels.tolist() == [0, 0, 1]


def test_mixup_shares() -> None:
    """Beta(32, 32): mean 1/2, variance 1 / (4 * 65)."""
    generator = np.random.default_rng(0)
    white, black = painted(1, 1, (0, 0, 1, 1)), painted(1, 1)
    shares = np.asarray([mixup(generator, white, black).image[0, 0, 0] for _ in range(4000)]) / 255
    assert abs(shares.mean() - 0.5) < 0.005
    assert abs(shares.std() - 65**-0.5 / 2) < 0.004


def test_hue_wraps_and_the_others_do_not() -> None:
    colours = np.asarray([[[170, 200, 200], [10, 200, 200], [90, 60, 250]]], np.uint8)
    bgr = cv2.cvtColor(colours, cv2.COLOR_HSV2BGR)

    def changed(*gains: float) -> list[list[int]]:
        return cv2.cvtColor(scaled_hsv(bgr, gains), cv2.COLOR_RGB2HSV)[0].astype(int).tolist()

    np.testing.assert_allclose(changed(1.1, 1, 1), [[7, 200, 200], [11, 200, 200], [99, 60, 250]], atol=2)  # 187 is 7
    np.testing.assert_allclose(changed(1, 0.5, 1), [[170, 100, 200], [10, 100, 200], [90, 30, 250]], atol=2)
    np.testing.assert_allclose(changed(1, 1.5, 1), [[170, 255, 200], [10, 255, 200], [90, 90, 250]], atol=2)
    np.testing.assert_allclose(changed(1, 1, 1.2), [[170, 200, 240], [10, 200, 240], [90, 60, 255]], atol=2)


def test_hsv_gains_are_within_their_strengths() -> None:
    grey = np.full((1, 1, 3), 100, np.uint8)
    values = [int(hsv(np.random.default_rng(seed), grey, Augmentation(hsv_v=0.4))[0, 0, 0]) for seed in range(500)]
    assert 60 <= min(values) < 63
    assert 137 < max(values) <= 140


def test_flips_are_exact() -> None:
    scene = painted(40, 60, (3, 5, 20, 11))
    assert flipped(scene, False, True).boxes_xyxy.tolist() == [[40, 5, 57, 11]]
    assert flipped(scene, True, False).boxes_xyxy.tolist() == [[3, 29, 20, 35]]
    assert flipped(scene, True, True).boxes_xyxy.tolist() == [[40, 29, 57, 35]]
    for vertical, horizontal in ((False, True), (True, False), (True, True)):
        found = flipped(scene, vertical, horizontal)
        assert found.boxes_xyxy[0].tolist() == extent(found.image)
        for before, after in zip(scene, flipped(found, vertical, horizontal), strict=True):
            np.testing.assert_array_equal(before, after)
    assert scene.boxes_xyxy.tolist() == [[3, 5, 20, 11]]


def test_flips_happen_as_often_as_asked() -> None:
    scene = painted(10, 10, (0, 0, 4, 4))
    augmentation = dataclasses.replace(IDENTITY, flipud=0.25, fliplr=0.5)
    found = np.asarray([flips(np.random.default_rng(seed), scene, augmentation).boxes_xyxy[0, :2] == 6 for seed in range(2000)])
    np.testing.assert_allclose(found.mean(0), [0.5, 0.25], atol=0.05)


@given(
    st.integers(0, 2**32 - 1),
    st.builds(
        Augmentation,
        degrees=st.floats(0, 180),
        translate=st.floats(0, 1),
        scale=st.floats(0, 0.95),
        shear=st.floats(0, 60),
        perspective=st.floats(0, 0.001),
        flipud=st.floats(0, 1),
        fliplr=st.floats(0, 1),
    ),
    st.booleans(),
)
def test_boxes_stay_inside_and_keep_their_labels(seed: int, augmentation: Augmentation, upright: bool) -> None:
    """Every box is painted in a grey of its own, by which it is known afterwards."""
    side = 48
    if upright:
        augmentation = dataclasses.replace(augmentation, degrees=0, shear=0, perspective=0)
    generator = np.random.default_rng(seed)
    scenes = []
    for number in range(4):
        height, width = (side, int(generator.integers(16, side + 1))) if number % 2 else (int(generator.integers(16, side + 1)), side)
        image = np.zeros((height, width, 3), np.uint8)
        image[2:14, 3:13] = 150 + 30 * number
        scenes.append(TrainingScene(image, np.asarray([[3, 2, 13, 14]], np.float32), np.asarray([number], np.int32)))
    found = flips(generator, random_perspective(generator, mosaic(generator, scenes, side), augmentation, side), augmentation)
    boxes = found.boxes_xyxy
    assert found.image.shape == (side, side, 3)
    assert found.image.dtype == np.uint8
    assert boxes.dtype == np.float32
    assert len(boxes) == len(found.labels)
    assert (boxes >= 0).all()
    assert (boxes <= side).all()
    assert (boxes[:, 2:] - boxes[:, :2] > 2).all()
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), found.labels.tolist(), strict=True):
        inside = found.image[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2)), 0]
        if min(x2 - x1, y2 - y1) > 8:
            assert (np.abs(inside.astype(int) - (150 + 30 * label)) < 15).any()
