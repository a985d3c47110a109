"""Figures that are made and not rendered: most of the time of a training that takes a second, and pictures have their own tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unrendered import sitecustomize


@contextmanager
def unrendered_figures() -> Iterator[None]:
    """Matplotlib writes every figure of this process, and of those that it starts, as one white pixel."""
    folder = str(Path(sitecustomize.__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")])))
        patch.setattr("matplotlib.figure.Figure.savefig", sitecustomize.write_pixel)
        yield
