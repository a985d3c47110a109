"""Pictures that are in two parts of a data set: what is left out of trainval, and what is said of the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from octrim.cli import main
from octrim.data.check import opened
from octrim.data.open import open_dataset
from octrim.data.overlap import same_files, told_once, trained_on
from tests.data.making import text
from tests.data.tools import SIX, coco, photo, rows, xml


def voc_lists(root: Path) -> None:
    for number in SIX:
        photo(root / "JPEGImages" / f"{number}.jpg", number)
        text(root / "Annotations" / f"{number}.xml", xml())
    text(root / "ImageSets/Main/trainval.txt", "".join(f"{number}\n" for number in SIX))
    text(root / "ImageSets/Main/val.txt", "4\n5\n")


def voc_devkit(root: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        for number in range(3):
            photo(root / year / "JPEGImages" / f"{number}.jpg", number + 3 * (year == "VOC2012"))
            text(root / year / "Annotations" / f"{number}.xml", xml())
        text(root / year / "ImageSets/Main/trainval.txt", "0\n1\n2\n")
        text(root / year / "ImageSets/Main/val.txt", "2\n")


def yolo_folders(root: Path) -> None:
    """Copies of files, as folders need them."""
    for split, numbers in (("trainval", SIX), ("valid", range(4, 6))):
        for number in numbers:
            photo(root / split / "images" / f"{split}{number}.jpg", number)
            text(root / split / "labels" / f"{split}{number}.txt", rows())


def yolo_lists(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "labels" / f"{number}.txt", rows())
    text(root / "trainval.txt", "".join(f"images/{number}.jpg\n" for number in SIX))
    text(root / "val.txt", "./images/4.jpg\n./images/5.jpg\n")


def coco_files(root: Path) -> None:
    for number in SIX:
        photo(root / "pictures" / f"{number}.jpg", number)
    for split, numbers in (("train_val", SIX), ("val2017", range(4, 6))):
        text(root / "annotations" / f"instances_{split}.json", coco([f"{number}.jpg" for number in numbers]))


@pytest.mark.parametrize("make", [voc_lists, voc_devkit, yolo_folders, yolo_lists, coco_files])
def test_trainval_is_without_the_pictures_of_val(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    train, val = (open_dataset(tmp_path, split) for split in ("train", "val"))
    contents = [{Path(path).read_bytes() for path in part.paths} for part in (train, val)]
    assert (len(train), len(val), len(train.boxes), len(contents[0] & contents[1])) == (4, 2, 8, 0)
    (note,) = (note for note in train.notes if "is taken for train" in note)
    assert "without 2 of its 6 pictures, which are also in " in note
    assert not any("is taken for train" in note for note in val.notes)
    assert trained_on(train, val) == []


def test_trainval_stays_whole_where_nothing_else_validates_or_another_part_trains(tmp_path: Path) -> None:
    voc_lists(tmp_path)
    text(tmp_path / "ImageSets/Main/train.txt", "0\n1\n2\n4\n")
    assert len(open_dataset(tmp_path, "train")) == 4  # what train.txt says, is done
    assert len(open_dataset(tmp_path, "trainval")) == 6
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    text(tmp_path / "ImageSets/Main/val.txt", "".join(f"{number}\n" for number in SIX))
    whole = open_dataset(tmp_path, "train")
    assert len(whole) == 6
    assert any("all 6 pictures of trainval, which is taken for train, are also in val: accuracy flatters" in note for note in whole.notes)
    text(tmp_path / "ImageSets/Main/val.txt", "")  # an empty list is an error of whoever opens it
    assert len(open_dataset(tmp_path, "train")) == 6
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    assert sorted(len(open_dataset(tmp_path, split)) for split in ("train", "val")) == [1, 5]


def nested(root: Path) -> Path:
    """Six pictures in images/, and 2 of them in images/val/, which the training part has, too."""
    for number in SIX:
        home = "val" if number > 3 else "."
        photo(root / "images" / home / f"{number}.jpg", number)
        text(root / "labels" / home / f"{number}.txt", rows())
    return text(root / "data.yaml", "train: images\nval: images/val\nnames: [cat, dog, emu]\n")


def test_pictures_that_are_trained_on_and_validated_on_are_told(tmp_path: Path) -> None:
    data = nested(tmp_path)
    train, val = (open_dataset(data, split) for split in ("train", "val"))
    line = f"2 of 2 validation pictures are also trained on (first: {tmp_path}/images/val/4.jpg): accuracy flatters"
    assert trained_on(train, val) == [line]
    assert trained_on(train, None) == []
    with told_once():
        assert trained_on(train, val) == []
    for split in (None, "train", "val"):
        assert [note for note in opened(str(data), split, ()).notes if "trained on" in note] == [line]
    data.write_text("train: images/val\nval: images\ntest: images\nnames: [cat, dog, emu]\n")
    told = [note for note in opened(str(data), None, ()).notes if "trained on" in note]
    assert [note.partition(" (")[0] for note in told] == [
        "2 of 6 validation pictures are also trained on",
        "2 of 6 test pictures are also trained on",
    ]


def test_a_set_that_is_trained_and_validated_on_is_told_and_one_that_is_divided_is_not(tmp_path: Path) -> None:
    for number in SIX:
        photo(tmp_path / "images" / "train2017" / f"{number}.jpg", number)
        text(tmp_path / "labels" / "train2017" / f"{number}.txt", rows())
    told = [note for note in opened(str(tmp_path), None, ()).notes if "trained on" in note]
    assert [note.partition(" (")[0] for note in told] == ["6 of 6 validation pictures are also trained on"]  # nothing is taken for test unasked
    assert not any("trained on" in note for note in opened(str(tmp_path), None, (), val_share=0.3).notes)


def test_links_are_the_same_files_and_copies_are_not(tmp_path: Path) -> None:
    own, other = photo(tmp_path / "a.jpg"), photo(tmp_path / "b.jpg", 1)
    (tmp_path / "symbolic.jpg").symlink_to(own)
    os.link(own, tmp_path / "hard.jpg")
    shutil.copy(own, tmp_path / "copy.jpg")
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    paths = [str(tmp_path / name) for name in ("a.jpg", "symbolic.jpg", "hard.jpg", "folder/a.jpg", "copy.jpg", "b.jpg", "gone.jpg")]
    assert same_files(paths, [str(own)]).tolist() == [True, True, True, True, False, False, False]
    assert same_files(paths, [str(other), str(tmp_path / "folder/../gone.jpg")]).tolist() == [False] * 5 + [True, True]


@pytest.mark.slow
def test_data_check_prints_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--check", str(nested(tmp_path / "[red] set")), "--project", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert printed.count("2 of 2 validation pictures are also trained on") == 1 and "[red] set/images/val/4.jpg" in printed
