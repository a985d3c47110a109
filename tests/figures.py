"""Figures that are made and not rendered: most of the time of a training that takes a second, and pictures have their own tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest


@contextmanager
def unrendered_figures() -> Iterator[None]:
    """Matplotlib writes every figure of this process as one white pixel."""
    pixel = cv2.imencode(".png", np.full((1, 1, 3), 255, np.uint8))[1].tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: Path(file).write_bytes(pixel))
        yield
