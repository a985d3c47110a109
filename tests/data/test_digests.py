"""Digests of data sets: what they depend on, and what not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.digests import data_digest, digest_with_places, same_data
from octrim.data.open import open_dataset
from tests.training.conftest import draw_shapes


def test_digests_of_data(tmp_path: Path) -> None:
    def parts(root: Path) -> tuple[Any, Any]:
        return open_dataset(root, "train"), open_dataset(root, "val")

    draw_shapes(tmp_path / "here", {"train": 3, "val": 2})
    before, places = data_digest(*parts(tmp_path / "here")), digest_with_places(*parts(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there" / "deep")
    there = parts(tmp_path / "there" / "deep")
    assert data_digest(*there) == before and same_data(before, there)
    assert not same_data(places, there) and same_data(places, there, str(tmp_path / "here"), str(tmp_path / "there" / "deep"))
    assert same_data(places, there, str(tmp_path / "here" / "data.yaml"), str(tmp_path / "there" / "deep" / "data.yaml"))
    assert data_digest(*there[::-1]) != before and data_digest(there[0], None) != before
    boxes = replace(there[0], boxes=there[0].boxes + np.float32(1))
    for changed in ((boxes, there[1]), (replace(there[0], names=("square", "ring")), there[1])):
        assert not same_data(before, changed) and not same_data(places, changed, str(tmp_path / "here"), str(tmp_path / "there" / "deep"))
    (tmp_path / "there" / "deep" / "images" / "train" / "000.png").rename(tmp_path / "there" / "deep" / "images" / "train" / "009.png")
    assert data_digest(*parts(tmp_path / "there" / "deep")) != before
