"""Examines the bytes of JPEG files: their header, and whether their end is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import numpy as np

START, END = b"\xff\xd8", b"\xff\xd9"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # those three are tables, not frames
_FILLINGS = (b"", b"\xaa" * 64, b"\x55" * 64, bytes(range(1, 65)), bytes(range(200, 136, -1)))  # some codes are invalid in all but one
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


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of every segment of a JPEG that has a length: frames, tables, and the headers of scans."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1] if position + 1 < len(data) else 0
        if marker in (0, 0xFF) or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : end], end
        position = max(end, position + 2)


def _reaches_the_end(data: bytes) -> bool:
    """Tell whether a JPEG begins the last pass of all coefficients of all components, and the last restart interval of that pass.

    A picture that breaks off between two passes, as progressive ones have them, is coarse or without colour, and no decoder misses anything;
    behind a break between two intervals decoders fill in grey.
    """
    frame, scan, interval, start = b"", b"", 0, 0
    lowest: dict[int, list[int]] = {}  # lowest bit that is there of each of the 64 coefficients, by component
    for marker, content, end in _segments(data):
        if marker in _FRAMES and len(content) >= 6:
            frame = content
            lowest = {component: [8] * 64 for component in content[6::3]}
        elif marker == 0xDD:
            interval = int.from_bytes(content[:2], "big")
        elif marker == 0xDA and len(content) >= 4:
            scan, start = content, end
            first, last, low = content[-3], min(content[-2], 63), content[-1] & 15
            for component in content[1 : len(content) - 3 : 2]:
                if component in lowest:
                    lowest[component][first : last + 1] = [low] * max(last + 1 - first, 0)
    if any(bit for bits in lowest.values() for bit in bits):
        return False
    restarts = len(re.findall(rb"\xff[\xd0-\xd7]", data[start:]))
    return not interval or restarts >= -(-_units(frame, scan) // interval) - 1


def _units(frame: bytes, scan: bytes) -> int:
    """Return the number of units (MCU) of a scan: squares of blocks of all its components, or single blocks where it has one component."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = {component: divmod(factors, 16) for component, factors in zip(frame[6::3], frame[7::3], strict=False)}
    across, down = max((pair[0] for pair in sampling.values()), default=1), max((pair[1] for pair in sampling.values()), default=1)
    if scan[0] == 1 and scan[1] in sampling and across and down:
        own = sampling[scan[1]]
        width, height = -(-width * own[0] // across), -(-height * own[1] // down)
        across = down = 1
    return -(-width // (8 * max(across, 1))) * -(-height // (8 * max(down, 1)))


def ended(data: bytes) -> bytes | None:
    """Return a JPEG's bytes with an end marker, added where the file lost nothing but that; None where some of the picture is missing.

    The marker is looked for from the start of the first scan on: scan data cannot contain it, but an EXIF thumbnail before has its own.
    """
    start = header(data)[0]
    if data.find(END, start) >= 0:
        return data
    if start >= len(data) or not _reaches_the_end(data):
        return None
    # A decoder that has all of the picture's data reads no further: the picture is the same whatever follows.
    body = data.rstrip(b"\xff")  # the first half of the lost marker may be there
    pictures = []
    for filling in _FILLINGS:
        try:
            pictures.append(cv2.imdecode(np.frombuffer(body + filling + END, np.uint8), cv2.IMREAD_COLOR))
        except cv2.error:
            return None
    first = pictures[0]
    if first is None or not all(picture is not None and np.array_equal(first, picture) for picture in pictures[1:]):
        return None
    return body + END
