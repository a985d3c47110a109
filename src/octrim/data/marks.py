"""What is drawn onto pictures: the colours of classes, and text that OpenCV's font can show."""

from __future__ import annotations

COLOURS = ((0, 159, 230), (178, 114, 0), (115, 158, 0), (0, 94, 213), (167, 121, 204), (233, 180, 86), (66, 228, 240))
"""Okabe and Ito's colours, which colour-blind readers can tell apart, as BGR; classes take them in turn."""


def drawable(text: str) -> str:
    """Text on one line, and without lone surrogates (file names that are no text, JSON escapes), which end OpenCV 5 with a segmentation fault."""
    return "".join(" " if letter.isspace() else letter if letter.isprintable() else "?" for letter in text)
