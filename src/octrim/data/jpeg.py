"""Examines the bytes of JPEG files: their header, and whether their end is missing."""

from __future__ import annotations

import cv2
import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # those three are tables, not frames
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers that no length follows


def header(data: bytes) -> tuple[int, int]:
    """Return the offset behind a JPEG's first scan marker, or where the header breaks off, and the bits per sample (8 unless its frame differs).

    Any number of fill bytes 0xFF may stand before a marker.
    """
    position, bits = 2, 8
    while data[position : position + 1] == b"\xff":
        while data[position : position + 1] == b"\xff":
            position += 1
        marker = data[position] if position < len(data) else 0xD9
        position += 1
        if marker in _ALONE:
            continue
        if marker in (0xDA, 0xD9) or position + 2 > len(data):
            break
        if marker in _FRAMES and position + 2 < len(data):
            bits = data[position + 2]
        position += int.from_bytes(data[position : position + 2], "big")
    return position, bits


def ended(data: bytes) -> bytes | None:
    """Return a JPEG's bytes with an end marker, added where the file lost nothing but that; None where some of the picture is missing.

    The marker is looked for from the start of the first scan on: scan data cannot contain it, but an EXIF thumbnail before has its own.
    """
    start = header(data)[0]
    if data.find(END, start) >= 0:
        return data
    if start >= len(data):
        return None
    # A decoder that has all of the picture's data reads no further: the picture is the same whatever follows.
    body = data.rstrip(b"\xff")  # the first half of the lost marker may be there
    pictures = []
    for filling in (b"", b"\xaa" * 64, b"\x55" * 64):
        try:
            pictures.append(cv2.imdecode(np.frombuffer(body + filling + END, np.uint8), cv2.IMREAD_COLOR))
        except cv2.error:
            return None
    first = pictures[0]
    if first is None or not all(picture is not None and np.array_equal(first, picture) for picture in pictures[1:]):
        return None
    return body + END
