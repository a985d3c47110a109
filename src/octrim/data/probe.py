"""Finds the sizes of pictures from their headers, whether the files are whole, and hashes of their bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from octrim.data import jpeg, png
from octrim.data.labelfiles import open_regular, read_bytes
from octrim.errors import InputError

PICTURE_PROBLEMS = (  # a fact's `problem` is a place in this list, counted from 1
    "picture is missing, left out",
    "picture file is empty, left out",
    "picture is damaged, truncated or of an unknown format, left out",
    "picture is a Git LFS pointer, left out: run git lfs pull where it was cloned",
    "picture is HEIC, as phones take it, left out: save it as JPEG",
)
PICTURE_REMARKS = ("JPEG without its end marker, used: nothing else of it is missing",)  # a fact's `remark` counts like `problem`


def picture_facts(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the facts on pictures: `stamp` int64 `[n, 2]` (bytes, mtime in ns), `size` int32 `[n, 2]` (height and width, upright),
    `problem` uint8 `[n]` (place in PICTURE_PROBLEMS from 1; 0 for none) and `remark` uint8 `[n]` (likewise in PICTURE_REMARKS).
    """
    stamps = np.zeros((len(paths), 2), np.int64)
    sizes = np.zeros((len(paths), 2), np.int32)
    problems = np.zeros(len(paths), np.uint8)
    remarks = np.zeros(len(paths), np.uint8)
    for index, path in enumerate(paths):
        try:
            with open(path, "rb", opener=open_regular) as file:
                status = os.fstat(file.fileno())
                stamps[index] = status.st_size, status.st_mtime_ns
                size = _header_size(file) if status.st_size else None
        except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have
            problems[index] = 1
            continue
        except OSError:
            problems[index] = 3
            continue
        if not status.st_size:
            problems[index] = 2
            continue
        if size is None and status.st_size < 2**31:  # OpenCV takes no larger file
            size, remarks[index] = _decoded_size(path)
        if size is None:
            problems[index] = _what_is_wrong(path)
        else:
            sizes[index] = size
    return {"stamp": stamps, "size": sizes, "problem": problems, "remark": remarks}


def picture_hashes(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for pictures `stamp` as in `picture_facts`, `hash` uint64 `[n]` of their bytes, and `problem` uint8 `[n]`, 1 for unreadable ones."""
    stamps = np.zeros((len(paths), 2), np.int64)
    hashes = np.zeros(len(paths), np.uint64)
    problems = np.ones(len(paths), np.uint8)
    for index, path in enumerate(paths):
        digest = blake2b(digest_size=8)
        try:
            with open(path, "rb", opener=open_regular) as file:
                status = os.fstat(file.fileno())
                while block := file.read(1 << 20):
                    digest.update(block)
        except (OSError, ValueError):
            continue
        stamps[index] = status.st_size, status.st_mtime_ns
        hashes[index] = int.from_bytes(digest.digest(), "little")
        problems[index] = 0
    return {"stamp": stamps, "hash": hashes, "problem": problems}


def _header_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return the height and width of a JPEG or PNG that is plain and ends as it should; None where only decoding can tell."""
    try:
        # The plugins are called directly: Image.open tries formats in turn, and warns of large pictures, which are not decoded here.
        start = file.read(8)
        file.seek(0)
        if start[:2] == b"\xff\xd8":
            image = JpegImagePlugin.JpegImageFile(file)
            exif = image.info.get("exif")
            tail, end = b"\xff\xd9", 2
        elif start == png.START:
            image = PngImagePlugin.PngImageFile(file)
            if getattr(image, "is_animated", False) or "exif" in image.info:
                return None
            exif, tail, end = None, b"\x00\x00\x00\x00IEND", 12
        else:
            return None
        width, height = image.size
        file.seek(-max(end, 64) if tail[0] == 0 else -end, os.SEEK_END)
        last = file.read()
        # A PNG may carry its EXIF after the pixels, where Pillow has not looked.
        whole = last == tail if end == 2 else last[-12:-4] == tail and b"eXIf" not in last
        if not whole or not 0 < width * height < 2**30 or max(width, height) >= 2**20:  # OpenCV's limits
            return None
        return (width, height) if exif and _turned(exif) else (height, width)
    except Exception:  # Pillow raises all kinds for damaged headers; decoding has the last word
        return None


def _turned(exif: bytes) -> bool:
    """Tell whether the EXIF orientation swaps the sides. Image.getexif would heed XMP as well, which OpenCV does not. Raises ValueError."""
    tags = Image.Exif()
    tags.load(exif)
    orientation = tags.get(0x0112, 1)
    if type(orientation) is not int:
        raise ValueError("damaged EXIF")
    return orientation in (5, 6, 7, 8)


def _what_is_wrong(path: str) -> int:
    """Return the place in PICTURE_PROBLEMS, from 1, of a file that is no readable picture."""
    from octrim.data.pictures import instead_of_picture  # imported here, because most data sets need no decoder

    try:
        instead = instead_of_picture(read_bytes(path, 1024)) or ""
    except OSError:
        return 3
    if "Git LFS" in instead:
        return 4
    return 5 if "HEIC" in instead else 3


def _decoded_size(path: str) -> tuple[tuple[int, int] | None, int]:
    """Decode a picture; return its height and width, or None where that fails, and its remark, 1 for a JPEG without end marker, else 0."""
    from octrim.data.pictures import decode_picture  # imported here, because most data sets need no decoder

    try:
        data = read_bytes(path)
        image = decode_picture(data, path)
    except (InputError, OSError):
        return None, 0
    unended = data.startswith(jpeg.START) and data.find(jpeg.END, jpeg.header(data)[0]) < 0
    return (image.shape[0], image.shape[1]), int(unended)
