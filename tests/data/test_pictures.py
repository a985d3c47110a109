"""Pictures of every kind that users have, letterboxing by hand, and sources."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.jpeg import ended
from octrim.data.pictures import Readable, decode_picture, letterbox, network_inputs, read_picture
from octrim.data.probe import picture_facts
from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.errors import InputError


def write(path: Path, image: np.ndarray, *options: int) -> Path:
    encoded, data = cv2.imencode(path.suffix, image, list(options))
    assert encoded
    path.write_bytes(data.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    image = cv2.GaussianBlur(drawn_scene(1, 60, 80), (9, 9), 3)
    found = read_picture(write(tmp_path / f"später 图片{suffix}", image))
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).mean() < (4 if suffix in (".jpg", ".webp") else 1e-9)


def test_grey_alpha_sixteen_bit_and_single_pixel(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    np.testing.assert_array_equal(read_picture(write(tmp_path / "grey.png", grey)), np.repeat(grey[:, :, None], 3, 2))
    colour = drawn_scene(2, 6, 8)
    alpha = np.dstack([colour, np.full((6, 8), 7, np.uint8)])
    np.testing.assert_array_equal(read_picture(write(tmp_path / "alpha.png", alpha)), colour)
    deep = colour.astype(np.uint16) * 257
    np.testing.assert_allclose(read_picture(write(tmp_path / "deep.png", deep)).astype(int), colour, atol=1)
    np.testing.assert_array_equal(read_picture(write(tmp_path / "one.png", np.asarray([[[1, 2, 3]]], np.uint8)))[0, 0], [1, 2, 3])


def test_grey_float_and_decompression_bombs(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"Pf\n8 4\n-1.0\n" + b"\0" * 128)
    with contextlib.suppress(InputError):  # whichever OpenCV makes of it
        assert read_picture(tmp_path / "a.png").shape == (4, 8, 3)
    side = struct.pack(">II", 32767, 32767)
    header = b"IHDR" + side + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(4097) * 32767, 9)
    chunks = [header, b"IDAT" + rows, b"IEND"]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    assert len(bomb) < 200_000
    with pytest.raises(InputError, match="bomb"):
        decode_picture(bomb, "bomb")


def test_exif_orientation(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, the picture must be turned by 90 degrees clockwise."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[:20, :40] = 255  # top left is white; after turning it is top right
    data = write(tmp_path / "a.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 100).read_bytes()
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    (tmp_path / "b.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    found = read_picture(tmp_path / "b.jpg")
    assert found.shape == (80, 40, 3)
    assert found[10, 30].min() > 200
    assert found[10, 10].max() < 50


def test_cmyk(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow, which writes CMYK, is not installed")
    image.new("CMYK", (20, 10), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)  # magenta and yellow make red
    found = read_picture(tmp_path / "a.jpg")
    assert found.shape == (10, 20, 3)
    blue, green, red = found[5, 5].astype(int)
    assert red > 180
    assert max(blue, green) < 90


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif"])
def test_truncated(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / f"a{suffix}", drawn_scene(3, 200, 300)).read_bytes()
    for share in (0.3, 0.7, 0.95):
        (tmp_path / f"b{suffix}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=rf"b\{suffix}: "):
            read_picture(tmp_path / f"b{suffix}")
    assert capfd.readouterr().err == ""


def test_truncated_with_a_thumbnail(tmp_path: Path) -> None:
    """A camera's JPEG holds a whole small JPEG in its EXIF segment, end marker and all."""
    inner = write(tmp_path / "small.jpg", drawn_scene(1, 24, 32)).read_bytes()
    data = write(tmp_path / "a.jpg", drawn_scene(3, 200, 300)).read_bytes()
    whole = data[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + data[2:]
    assert decode_picture(whole, "whole").shape == (200, 300, 3)
    with pytest.raises(InputError, match="truncated JPEG"):
        decode_picture(whole[: len(whole) // 2], "half")


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        read_picture(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        read_picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="No such file"):
        read_picture(tmp_path / "b.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_picture(tmp_path)


def test_letterbox_by_hand() -> None:
    image = np.full((720, 1280, 3), 9, np.uint8)
    square, box = letterbox(image, 640, 640)
    assert square.shape == (640, 640, 3)
    assert (box.left, box.top, box.scale) == (0, 140, (0.5, 0.5))
    assert (square[139] == 114).all() and (square[140] == 9).all() and (square[499] == 9).all() and (square[500] == 114).all()
    rectangle, box = letterbox(image, 640, 640, stride=32)
    assert rectangle.shape == (384, 640, 3)
    assert (box.left, box.top) == (0, 12)
    # an odd pixel of padding goes below: 100 x 51 in 64 x 64: 64 x 33, 31 rows to share
    padded, box = letterbox(np.zeros((51, 100, 3), np.uint8), 64, 64)
    assert box.top == 15
    assert (padded[14] == 114).all() and (padded[15] == 0).all() and (padded[47] == 0).all() and (padded[48] == 114).all()


def test_letterbox_of_the_official_pictures(real_pictures: Path, reference: dict[str, np.ndarray]) -> None:
    for name, size, stride in (("bus", 320, None), ("zidane", 640, 32)):
        fitted, _ = letterbox(read_picture(real_pictures / f"{name}.jpg"), size, size, stride)
        np.testing.assert_array_equal(fitted[:, :, ::-1], reference[f"{name}_letterboxed_rgb"])


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([320, 640]), st.sampled_from([None, 32, 64]))
def test_letterbox_and_back(height: int, width: int, size: int, stride: int | None) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    fitted, box = letterbox(image, size, size, stride)
    assert max(fitted.shape[:2]) == size
    assert stride is None or all(side % stride == 0 for side in fitted.shape[:2])
    corners = np.asarray([[0, 0, width, height]], np.float64)
    there = corners * (*box.scale, *box.scale) + (box.left, box.top, box.left, box.top)
    assert there[0, 2] <= fitted.shape[1] + 1e-6 and there[0, 3] <= fitted.shape[0] + 1e-6
    np.testing.assert_allclose(box.to_picture(there, height, width), corners, atol=1e-3)


def test_sources(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "c.png"):
        write(tmp_path / name.lower(), drawn_scene(0, 20, 30)).rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [Path(frame.source).name for frame in open_source(tmp_path)] == ["a.PNG", "b.jpg", "c.png"]
    assert [Path(frame.source).name for frame in open_source(str(tmp_path / "*.png"))] == ["c.png"]
    assert open_source(tmp_path / "b.jpg").total == 1
    (tmp_path / "b.jpg").write_bytes(b"")
    frames = list(open_source(tmp_path))
    assert [frame.image is None for frame in frames] == [False, True, False]
    assert "the file is empty" in (frames[1].error or "")
    for nothing, told in ((tmp_path / "none", "no such file"), (str(tmp_path / "*.gif"), "no pictures match")):
        with pytest.raises(InputError, match=told):
            open_source(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures in this folder"):
        open_source(tmp_path / "empty")


def make_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()
    return path


def test_videos(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "a.avi", 12))
    frames = list(source)
    assert (source.total, source.fps, len(frames)) == (12, 25, 12)
    assert [frame.index for frame in frames] == list(range(12))
    assert abs(int(frames[5].image.mean()) - 40) < 4  # type: ignore[union-attr]


def test_a_video_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    data = make_video(tmp_path / "a.avi", 30).read_bytes()
    (tmp_path / "b.avi").write_bytes(data[: len(data) * 2 // 3])
    count = sum(1 for _ in open_source(tmp_path / "b.avi"))
    assert 5 < count < 30
    for name, content in (("c.mp4", b""), ("d.mp4", b"no video")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="empty|not a readable video"):
            open_source(tmp_path / name)


def test_scenes_are_the_same_every_time() -> None:
    np.testing.assert_array_equal(drawn_scene(4, 90, 160), drawn_scene(4, 90, 160))
    assert (drawn_scene(4, 90, 160) != drawn_scene(5, 90, 160)).mean() > 0.5


def jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", drawn_scene(3, 60, 80), list(options))[1].tobytes()


def test_jpeg_fill_bytes(tmp_path: Path) -> None:
    """Any number of 0xFF may stand before a marker."""
    data = jpeg()
    expected = decode_picture(data, "whole")
    tables = data.index(b"\xff\xdb")
    scan = data.index(b"\xff\xda")
    for place in (2, tables, scan, len(data) - 2):
        filled = data[:place] + b"\xff" * 3 + data[place:]
        np.testing.assert_array_equal(decode_picture(filled, "filled"), expected)
        with pytest.raises(InputError, match="truncated JPEG"):
            decode_picture(filled[: len(filled) // 2], "half")
    np.testing.assert_array_equal(decode_picture(data + b"trailing \xff\xd8 rubbish", "more"), expected)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
def test_jpeg_without_its_end_marker(tmp_path: Path, options: tuple[int, ...]) -> None:
    """What lacks the marker and nothing else is used and reported; one byte of the picture less is a truncated picture."""
    data = jpeg(*options)
    np.testing.assert_array_equal(decode_picture(data[:-2], "unended"), decode_picture(data, "whole"))
    np.testing.assert_array_equal(decode_picture(data[:-1], "half a marker"), decode_picture(data, "whole"))
    for cut in (6, 20, 100, len(data) // 2):
        with pytest.raises(InputError, match="truncated JPEG"):
            decode_picture(data[:-cut], "cut")
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    (tmp_path / "b.jpg").write_bytes(data)
    facts = picture_facts([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert (facts["problem"].tolist(), facts["remark"].tolist(), facts["size"].tolist()) == ([0, 0], [1, 0], [[60, 80]] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
def test_no_beginning_of_a_jpeg_passes_for_the_whole(options: tuple[int, ...]) -> None:
    """Also not one that ends between two passes, which a decoder shows without complaint: coarse, or without its colours."""
    data = jpeg(*options)
    kept = [end for end in range(400, len(data)) if ended(data[:end]) is not None]
    assert kept == [len(data) - 2, len(data) - 1]


@pytest.mark.parametrize(
    ("data", "told", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "a Git LFS pointer", 4),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "a HEIC picture", 5),
        (b"\n<!DOCTYPE html><html></html>", "a web page", 3),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "an SVG drawing", 3),
    ],
)
def test_files_that_are_only_called_like_pictures_are_named(tmp_path: Path, data: bytes, told: str, problem: int) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(InputError, match=told):
        read_picture(tmp_path / "a.jpg")
    assert picture_facts([str(tmp_path / "a.jpg")])["problem"].tolist() == [problem]


def test_jpeg_of_twelve_bits() -> None:
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(InputError, match="JPEG of 12 bits a sample, which is not supported"):
        decode_picture(bytes(data), "deep")


def test_several_pictures_in_one_jpeg(tmp_path: Path) -> None:
    """A phone's MPO: the first one counts."""
    image = pytest.importorskip("PIL.Image")
    first, second = (image.fromarray(drawn_scene(seed, 40, 60)[:, :, ::-1]) for seed in (1, 2))
    first.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[second], quality=95)
    found = read_picture(tmp_path / "a.mpo")
    assert np.abs(found.astype(int) - drawn_scene(1, 40, 60)).mean() < 12
    assert picture_facts([str(tmp_path / "a.mpo")])["size"].tolist() == [[40, 60]]


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", drawn_scene(0, 20, 30))
    for name in ("._a.jpg", ".hidden.png"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\7")
    assert [Path(frame.source).name for frame in open_source(tmp_path)] == ["a.jpg"]
    assert [Path(frame.source).name for frame in open_source(str(tmp_path / "*.jpg"))] == ["a.jpg"]


def test_what_can_be_read_of_many(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.jpg", drawn_scene(0, 20, 30))
    (tmp_path / "b.jpg").write_bytes(b"")
    readable = Readable([str(tmp_path / "b.jpg"), str(whole), str(tmp_path / "c.jpg")])
    readable.require()
    assert len(list(readable)) == 1
    assert (readable.read, len(readable.failures)) == ([str(whole)], 2)
    assert [fitted.shape for fitted in network_inputs(readable, 32, 32)] == [(32, 32, 3)]
    with pytest.raises(InputError, match=r"none of the 1 pictures can be read: .*b\.jpg: the file is empty"):
        Readable([str(tmp_path / "b.jpg")]).require()
