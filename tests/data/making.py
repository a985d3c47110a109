"""Data sets made by hand, and where the real ones are."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data.dataset import Dataset

REAL = Path(os.environ.get("OCTRIM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"no {name}: real data is looked for in the folder that OCTRIM_REAL_DATA names")
    return REAL / name


def picture(path: Path, height: int = 50, width: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, data = cv2.imencode(path.suffix, np.full((height, width, 3), 90, np.uint8))
    assert encoded
    path.write_bytes(data.tobytes())
    return path


def text(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(dataset: Dataset) -> dict[str, int]:
    return dataset.report.counts
