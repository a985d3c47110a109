"""Pictures that programs have in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octrim.data.from_python import bgr_picture
from octrim.data.pictures import read_picture
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.network.yolov5 import yolov5_network
from tests.networks import lively_model

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
BGR = RGB[:, :, ::-1]
GREY = RGB[:, :, 0]


def test_arrays() -> None:
    np.testing.assert_array_equal(bgr_picture(BGR), BGR)
    np.testing.assert_array_equal(bgr_picture(np.dstack([BGR, GREY])), BGR)
    for grey in (GREY, GREY[:, :, None]):
        np.testing.assert_array_equal(bgr_picture(grey), np.dstack([GREY] * 3))


def test_pictures_of_pillow(tmp_path: Path) -> None:
    np.testing.assert_array_equal(bgr_picture(Image.fromarray(RGB)), BGR)
    np.testing.assert_array_equal(bgr_picture(Image.fromarray(GREY)), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(bgr_picture(Image.fromarray(np.dstack([RGB, GREY]))), BGR)
    palette = Image.fromarray(GREY // 64 * 64).convert("P")
    np.testing.assert_array_equal(bgr_picture(palette), np.dstack([GREY // 64 * 64] * 3))
    # Orientation 6: the camera was turned. A file gives the same by its path, and opened by Pillow.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(bgr_picture(opened), read_picture(tmp_path / "a.png"))
        assert bgr_picture(opened).shape == (5, 7, 3)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "b.png") as opened, pytest.raises(InputError, match="a picture of Pillow's that cannot be decoded"):
        bgr_picture(opened)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (BGR / 255, r"found float64 \[7, 5, 3\]: \(image \* 255\).astype\('uint8'\) where it is 0 to 1"),
        (BGR.astype(np.float32), "found float32"),
        (GREY.astype(np.uint16), r"found uint16 \[7, 5\]"),
        (BGR.transpose(2, 0, 1), r"uint8 \[height, width, 3\] \(BGR\) or grey \[height, width\]; found uint8 \[3, 7, 5\]"),
        (BGR[None], r"found uint8 \[1, 7, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"found uint8 \[0, 5, 3\]"),
        (np.dstack([GREY] * 2), r"found uint8 \[7, 5, 2\]"),
        (Image.fromarray(GREY.astype(np.uint16)), "more than 8 bits"),
        (3.5, "found float"),
        (None, "found NoneType"),
    ],
)
def test_what_is_refused(picture: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        bgr_picture(picture)


def test_detector() -> None:
    model = lively_model(yolov5_network("yolov5n", 2))
    detector = Detector(model, imgsz=64, conf=0.001, runtime="numpy")
    expected = detector.predict(np.ascontiguousarray(BGR))[0]
    assert len(expected)
    for source in (Image.fromarray(RGB), [Image.fromarray(RGB)], np.dstack([BGR, GREY])):
        [found] = detector.predict(source)
        np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    assert len(detector.predict([GREY, Image.fromarray(GREY), GREY[:, :, None]])) == 3
    for nothing in (None, 7.5):
        with pytest.raises(InputError, match="found (NoneType|float)"):
            detector.predict(nothing)  # type: ignore[arg-type]
    for empty in ("", " "):
        with pytest.raises(InputError, match="source is empty, expected a picture"):
            detector.predict(empty)
    with pytest.raises(InputError, match="float32"):
        detector.predict(BGR.astype(np.float32))


@pytest.mark.parametrize(
    ("classes", "numbers"),
    [((1, 0), [1, 0]), (("class1",), [1]), (("CLASS0", "1"), [0, 1]), ((np.int64(1),), [1]), (None, None), ((), []), (0, [0]), ("class1", [1])],
)
def test_classes_by_name(classes: tuple[int | str, ...] | None, numbers: list[int] | None) -> None:
    model = lively_model(yolov5_network("yolov5n", 2))
    assert Detector(model, imgsz=64, classes=classes, runtime="numpy").options["classes"] == numbers


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("person", "class 'person' was asked for; this network has none of that name; it has class0, class1"),
        (2, "class 2 was asked for; this network has classes 0 to 1"),
        ("2", "class 2 was asked for; this network has classes 0 to 1"),
        (-1, "class -1"),
    ],
)
def test_classes_that_are_not_there(label: int | str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Detector(lively_model(yolov5_network("yolov5n", 2)), imgsz=64, classes=[label], runtime="numpy")
