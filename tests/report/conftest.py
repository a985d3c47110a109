"""A small compression whose report the tests look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from octrim.cli import main
from tests.figures import unrendered_figures
from tests.networks import tiny_model
from tests.report.reading import NAMES
from tests.training.conftest import draw_shapes

EPOCHS = ["--train-epochs", "0", "--sparsify-epochs", "1", "--finetune-epochs", "2", "--distill", "none", "--iterations-bench", "3", "--control"]
COMMON = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--keep", "1/4", "--align", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A run with sparsity training and a control, on classes with names that a page could choke on; and its data."""
    root = tmp_path_factory.mktemp("report")
    data = draw_shapes(root / "shapes & more", {"train": 8, "val": 10})
    data.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": list(NAMES)}))
    tiny_model(names=NAMES).save(root / "small.safetensors")
    command = ["compress", "--weights", str(root / "small.safetensors"), "--data", str(data), "--project", str(root), "--name", "run"]
    with pytest.MonkeyPatch.context() as patch, unrendered_figures():
        patch.setattr("octrim.training.record.save_curves", lambda *_: None)
        patch.setattr("octrim.training.setup.save_labels", lambda *_: None)
        assert main([*command, *COMMON, *EPOCHS]) == 0
        yield root / "run", data


@pytest.fixture
def copy(whole: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))
