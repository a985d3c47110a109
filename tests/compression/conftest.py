"""A small network and a small data set, and trainings without pictures of curves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.figures import unrendered_figures
from tests.networks import tiny_model
from tests.training.conftest import draw_shapes


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Curves per epoch take longer than such an epoch; they have their own tests."""
    with pytest.MonkeyPatch.context() as patch, unrendered_figures():
        patch.setattr("octrim.training.record.save_curves", lambda *_: None)
        patch.setattr("octrim.training.setup.save_labels", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fresh network, for two classes."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    tiny_model().save(path)
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return draw_shapes(tmp_path / "shapes", {"train": 12, "val": 4})
