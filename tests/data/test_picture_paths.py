"""Pictures to calibrate and repair on, from what users name."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.data.picture_paths import picture_paths
from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from tests.data.test_pictures import write


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as `octrim pong data` writes it: a sheet of examples lies beside data.yaml."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    for split, count in (("train", 5), ("val", 2)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(count):
            write(folder / "images" / split / f"{split}{number}.png", drawn_scene(number, 40, 40))
            (folder / "labels" / split / f"{split}{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    write(folder / "contact.jpg", drawn_scene(0, 40, 40))
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [thing]\n")
    return folder


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_a_data_set_is_its_training_part(dataset: Path) -> None:
    expected = [f"train{number}.png" for number in range(5)]
    assert names(picture_paths(str(dataset), 200, 0)) == expected  # not the sheet beside data.yaml
    assert names(picture_paths(str(dataset / "data.yaml"), 200, 0)) == expected


def test_pictures_are_drawn_by_the_seed(dataset: Path) -> None:
    folder = str(dataset / "images" / "train")
    assert names(picture_paths(folder, 200, 0)) == [f"train{number}.png" for number in range(5)]
    drawn = {tuple(names(picture_paths(folder, 3, seed))) for seed in range(20)}
    assert all(len(set(one)) == 3 and list(one) == sorted(one) for one in drawn)
    assert len(drawn) > 3
    assert picture_paths(folder, 3, 1) == picture_paths(folder, 3, 1)
    assert names(picture_paths(str(dataset / "images" / "val" / "val*.png"), 9, 0)) == ["val0.png", "val1.png"]


def test_what_is_neither_pictures_nor_a_data_set(dataset: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        picture_paths(str(dataset / "nowhere"), 3, 0)
    with pytest.raises(InputError, match="pictures is 0, expected 1 or more"):
        picture_paths(str(dataset), 0, 0)
