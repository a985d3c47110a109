"""Hyper-parameters from recipes and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.errors import InputError
from octrim.training.hyper import RECIPES, Hyperparameters, read_hyperparameters


def test_recipes_have_the_published_values() -> None:
    low, med, high = (RECIPES[name] for name in ("low", "med", "high"))
    assert (low.lr0, low.lrf, low.momentum, low.weight_decay) == (0.01, 0.01, 0.937, 0.0005)
    assert (low.box, low.cls, low.obj, low.anchor_t) == (0.05, 0.5, 1.0, 4.0)
    assert (low.hsv_h, low.hsv_s, low.hsv_v, low.translate, low.scale, low.fliplr, low.mosaic, low.mixup) == (0.015, 0.7, 0.4, 0.1, 0.5, 0.5, 1, 0)
    assert (med.lrf, med.cls, med.obj, med.scale, med.mixup, med.copy_paste) == (0.1, 0.3, 0.7, 0.9, 0.1, 0)
    assert high.copy_paste == 0.1 and "copy_paste" in high.notes[0] and not med.notes
    assert high.augmentation.mixup == 0.1


def test_a_published_file_reads(tmp_path: Path) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text("# comment\nlr0: 0.02  # initial\nweight_decay: 5e-4\nanchors: 3\nmosaic: 0.5\niou_t: 0.20\n")
    assert read_hyperparameters(str(path)) == Hyperparameters(lr0=0.02, weight_decay=0.0005, mosaic=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: 0.01\nlearning_rate: 3\n", r"hyp.yaml:2: unknown hyper-parameter 'learning_rate'"),
        ("lr0: fast\n", r"hyp.yaml:1: lr0 is 'fast', expected a number"),
        ("lr0: .nan\n", r"hyp.yaml:1: lr0 is nan, expected a number"),
        ("momentum: 1.5\n", r"hyp.yaml: momentum is 1.5, expected 0 to 0.9999"),
        ("lr0: 0\n", r"hyp.yaml: lr0 is 0, expected more than 0"),
        ("mosaic: 2\n", r"hyp.yaml: augmentation mosaic is 2.0, expected"),
        ("- 1\n", r"hyp.yaml: expected lines of `name: number`"),
        ("", r"hyp.yaml: expected lines of `name: number`"),
    ],
)
def test_bad_files_are_told_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_hyperparameters(str(path))


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="hyp is 'middle', expected low, med, high or a YAML file"):
        read_hyperparameters("middle")
