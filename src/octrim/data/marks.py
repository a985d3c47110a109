"""Colours of classes, and text that OpenCV's font can show, for drawing onto pictures."""

from __future__ import annotations

import re

COLOURS = ((0, 159, 230), (178, 114, 0), (115, 158, 0), (0, 94, 213), (167, 121, 204), (233, 180, 86), (66, 228, 240))
"""Okabe and Ito's colours as BGR, which colour-blind readers can tell apart; classes take them in turn."""


def drawable(text: str) -> str:
    """Return text on one line and without unprintable characters: lone surrogates (from file names, JSON escapes) crash OpenCV 5."""
    return "".join(letter if letter.isprintable() else "?" for letter in re.sub(r"\s", " ", text))
