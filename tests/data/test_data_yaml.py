"""The data.yaml of a data set as people write it: names and lists in every form, encodings, paths, and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.data.open import open_dataset, open_labelled
from octrim.errors import InputError
from tests.data.making import text
from tests.data.tools import NAMES, coco, photo, rows


def test_paths_escaped_as_in_an_address(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a b.jpg")
    text(tmp_path / "result.json", coco(["images/a%20b.jpg"]))
    assert len(open_dataset(tmp_path, "val").boxes) == 2


def test_a_number_of_classes_without_names_is_not_the_networks(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", rows())
    yaml = text(tmp_path / "data.yaml", "val: images\nnc: 3\n")
    found = open_labelled(str(yaml), "val", ["person", "bicycle", "car", "bus"])
    assert found.names == ("class0", "class1", "class2")
    assert not any("number alone" in note for note in found.notes)
    assert open_labelled(str(yaml), "val", ["person", "bicycle", "car"]).names == ("person", "bicycle", "car")


def test_windows_paths_in_double_quotes(tmp_path: Path) -> None:
    r"""YAML takes the \n of "D:\new" for a line's end, and refuses \d."""
    photo(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", rows())
    yaml = text(tmp_path / "data.yaml", 'path: "D:\\\\new"\nval: "D:\\new\\data\\images"\nnames: ["a\\tb", dog, emu]\n')
    found = open_dataset(yaml, "val")
    assert (found.names, len(found.boxes)) == (("a\tb", "dog", "emu"), 2)


def test_damaged_yaml_is_told_by_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.yaml: not readable as YAML: line 2: found character .* that cannot start any token$"):
        open_dataset(text(tmp_path / "data.yaml", "val: images\nnames:\t[a]\n"), "val")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16", "utf-16-le"])
def test_yaml_names_and_lists_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "图片" / "images" / "a.jpg")
    text(tmp_path / "图片" / "labels" / "a.txt", rows().encode("utf-16" if encoding.startswith("utf-16") else "utf-8"))
    yaml = text(tmp_path / "data.yaml", "# 类别\npath: .\nval: list.txt\nnc: '3.0'\nnames: [红, 绿, 蓝]\n".encode(encoding))
    text(tmp_path / "list.txt", "图片/images/a.jpg\n".encode(encoding))
    found = open_dataset(yaml, "val")
    assert (found.names, len(found.boxes)) == (("红", "绿", "蓝"), 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[cat, dog, emu]", NAMES),
        ("{0: cat, 1: dog, 2: emu}", NAMES),
        ("{'2': emu, '0': cat, '1': dog}", NAMES),
        ("cat, dog, emu", NAMES),
        ("\"['cat', 'dog', 'emu']\"", NAMES),
        ("classes.txt", NAMES),
        ("[1, yes, null]", ("1", "yes", "null")),
    ],
)
def test_yaml_names_of_every_form(tmp_path: Path, names: str, expected: tuple[str, ...]) -> None:
    photo(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", rows())
    text(tmp_path / "classes.txt", "cat\ndog\nemu\n")
    assert open_dataset(text(tmp_path / "data.yaml", f"val: images\nnc: '3'\nnames: {names}\n")).names == expected


def test_keys_in_capitals(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    text(tmp_path / "labels" / "a.txt", rows())
    yaml = text(tmp_path / "data.yaml", 'Path: .\nVal: "images"\nNC: 3\nNAMES: {0: Cat, 1: Dog, 2: Emu}\n')
    text(tmp_path / "config.yaml", "TRAIN:\n  EPOCHS: 3\n")  # of another tool
    for place in (yaml, tmp_path):
        found = open_dataset(place, "val")
        assert (found.names, len(found.boxes)) == (("Cat", "Dog", "Emu"), 2)
    both = text(tmp_path / "data.yaml", "VAL: nowhere\nval: images\nnames: [Cat, Dog, Emu]\n")
    assert open_dataset(both, "val").names == ("Cat", "Dog", "Emu")
