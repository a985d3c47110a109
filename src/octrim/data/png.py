"""Examines the bytes of PNG files: how they start, and whether they are whole."""

from __future__ import annotations

START = b"\x89PNG\r\n\x1a\n"
"""The first eight bytes of every PNG."""


def chunks_fit(data: bytes) -> bool:
    """Tell whether all chunks of a PNG lie within the file. OpenCV allocates what a chunk claims first: four gigabytes for a length of two."""
    position = len(START)
    while position + 8 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False
