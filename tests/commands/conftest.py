"""A working folder with a small network and three pictures, for commands as users type them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from octrim.data.scenes import drawn_scene
from octrim.network.initialize import fresh_model
from tests.data.test_pictures import write


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh yolov5n for three classes that finds boxes."""
    model = fresh_model("yolov5n", classes=3)
    tensors = dict(model.tensors)
    for level in range(3):  # enough confidence for boxes to appear
        bias = tensors[f"model.24.m.{level}.bias"].copy()
        bias.reshape(3, 8)[:, 4:] += 4.5
        tensors[f"model.24.m.{level}.bias"] = bias
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    type(model)(model.network, tensors, ("a", "b/c", "ü"), 64).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small model and three pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(small, tmp_path)
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        write(tmp_path / "pictures" / f"{index}.png", drawn_scene(index, 60, 90))
    return tmp_path
