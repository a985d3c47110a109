"""Data sets as the tools write them (`tests/data/tools.py`): that they are recognised, divided, and what is said of those that are not read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from octrim.data.formats.table import FORMATS, NoDataSetError
from octrim.data.open import open_dataset, open_labelled
from octrim.errors import InputError
from tests.data.making import problems, text
from tests.data.tools import (
    BOXES,
    NAMES,
    ONE_PART,
    SIX,
    TWO_PARTS,
    Maker,
    coco,
    cvat_yolo,
    hold_truth,
    labelimg_voc,
    labelimg_yolo,
    photo,
    roboflow_yolo,
    rows,
    xml,
)


@pytest.mark.slow
@pytest.mark.parametrize("tool", ONE_PART)
def test_a_data_set_of_one_part(tmp_path: Path, tool: str) -> None:
    """Recognised, divided the same way every time, with the tool's names."""
    make, name = ONE_PART[tool]
    make(tmp_path)
    train, val = (open_dataset(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (5, 1)
    assert len({*train.paths, *val.paths}) == 6
    hold_truth(train)
    hold_truth(val)
    assert train.notes[0].startswith(f"format: {name}")
    assert any("divided by their contents into 5 for train and 1 for val" in note for note in val.notes)
    assert train.report.problems == 0, train.report
    assert len(open_dataset(tmp_path, "val", val_share=0.5)) == 3
    assert len(open_dataset(tmp_path, "train", val_share=0)) == 6
    with pytest.raises(InputError, match="test"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize("tool", TWO_PARTS)
def test_a_data_set_of_several_parts(tmp_path: Path, tool: str) -> None:
    make, name = TWO_PARTS[tool]
    make(tmp_path)
    train, val = (open_dataset(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 2)
    hold_truth(train)
    hold_truth(val)
    assert train.names == val.names
    assert train.notes[0].startswith(f"format: {name}")
    assert train.report.problems == 0, train.report
    assert len(open_dataset(tmp_path, "train", val_share=0.5)) == 4  # it has its own


def test_pictures_of_another_data_set_beside_this_one_are_not_taken(tmp_path: Path) -> None:
    """Labels exported alone, pictures put beside them by hand, and a namesake of everything next door."""
    for name in ("one", "two"):
        cvat_yolo(tmp_path / name)
    for number in SIX:
        (tmp_path / "one" / "images").mkdir(exist_ok=True)
        (tmp_path / "one" / "obj_train_data" / f"{number}.jpg").rename(tmp_path / "one" / "images" / f"{number}.jpg")
    found = open_dataset(tmp_path / "one", "train")
    assert all(path.startswith(f"{tmp_path}/one/images/") for path in found.paths)
    hold_truth(found)
    yaml = text(tmp_path / "one" / "data.yaml", "val: list.txt\nnames: [cat, dog, emu]\n")
    text(tmp_path / "one" / "list.txt", "x/obj_train_data/7.jpg\nx/obj_train_data/0.jpg\n")
    photo(tmp_path / "two" / "obj_train_data" / "7.jpg", 7)
    assert [Path(path).name for path in open_dataset(yaml, "val").paths] == ["0.jpg"]


def test_folders_in_another_letter_case_than_the_yaml_has_them(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    for split in ("train", "valid"):
        (tmp_path / split / "images").rename(tmp_path / split / "Images")
        (tmp_path / split / "labels").rename(tmp_path / split / "Labels")
    for split, count in (("train", 4), ("val", 2)):
        found = open_dataset(tmp_path, split)
        assert len(found) == count
        hold_truth(found)


def test_every_format_has_a_tool_that_writes_it(tmp_path: Path) -> None:
    answered = {name for _, name in (*ONE_PART.values(), *TWO_PARTS.values())}
    assert all(any(form.name.startswith(name) for name in answered) for form in FORMATS)


def test_the_division_follows_the_contents(tmp_path: Path) -> None:
    """Names, places and formats make no difference; equal pictures are on the same side."""
    labelimg_yolo(tmp_path / "one")
    for number in SIX:
        shutil.move(photo(tmp_path / "two" / f"{number}.jpg", number), tmp_path / "two" / f"renamed {9 - number}.jpg")
        text(tmp_path / "two" / f"renamed {9 - number}.xml", xml())
    val = [{Path(path).read_bytes() for path in open_dataset(tmp_path / folder, "val").paths} for folder in ("one", "two")]
    assert val[0] == val[1]
    for number in range(20):
        photo(tmp_path / "same" / f"{number}.jpg", number % 2)
        text(tmp_path / "same" / f"{number}.txt", rows())
    train, val = (open_dataset(tmp_path / "same", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (10, 10)
    assert not {Path(path).read_bytes() for path in train.paths} & {Path(path).read_bytes() for path in val.paths}
    with pytest.raises(InputError, match="val_share is 1"):
        open_dataset(tmp_path / "one", "val", val_share=1)


def test_a_part_named_train_is_divided_where_nothing_validates(tmp_path: Path) -> None:
    for number in SIX:
        photo(tmp_path / "train" / f"{number}.jpg", number)
    text(tmp_path / "annotations" / "instances_train.json", coco([f"{number}.jpg" for number in SIX]))
    text(tmp_path / "annotations" / "instances_test.json", coco(["0.jpg"]))
    assert [len(open_dataset(tmp_path, split)) for split in ("train", "val", "test")] == [5, 1, 1]


def test_a_single_folder_with_the_name_of_a_split_stands_for_all_unless_a_share_is_asked_for(tmp_path: Path) -> None:
    for number in SIX:
        photo(tmp_path / "images" / "train2017" / f"{number}.jpg", number)
        text(tmp_path / "labels" / "train2017" / f"{number}.txt", rows())
    assert [len(open_dataset(tmp_path, split)) for split in ("train", "val", "test")] == [6, 6, 6]
    assert any("which is taken for val, too (--val-share divides it)" in note for note in open_dataset(tmp_path, "val").notes)
    assert [len(open_dataset(tmp_path, split, val_share=0.3)) for split in ("train", "val")] == [4, 2]
    assert len(open_dataset(tmp_path, "train2017")) == 6
    with pytest.raises(InputError, match="there is no vall"):
        open_dataset(tmp_path, "vall")


@pytest.mark.parametrize("homes", [("outer/inner",), ("outer/camera1", "outer/camera2"), ("camera1", "camera2")])
def test_splits_below_a_folder_around_them_stay_apart(tmp_path: Path, homes: tuple[str, ...]) -> None:
    """An archive unpacked into a folder of its own; a folder for each camera, with the splits in it."""
    for place, home in enumerate(homes):
        for split, count in (("train", 4), ("val", 2)):
            for number in range(count):
                photo(tmp_path / home / "images" / split / f"{number}.jpg", 100 * place + 10 * count + number)
                text(tmp_path / home / "labels" / split / f"{number}.txt", rows())
    text(tmp_path / homes[0] / "classes.txt", "cat\ndog\nemu\n")
    for split, count in (("train", 4), ("val", 2)):
        found = open_dataset(tmp_path, split)
        assert (len(found), len(found.boxes), found.names) == (len(homes) * count, 2 * len(homes) * count, NAMES)
        assert all(f"/{split}/" in path for path in found.paths)


@pytest.mark.parametrize(("pictures", "annotations"), [("JPEGImages", "Annotations"), ("images", "annotations"), ("data", "labels")])
def test_voc_in_folders_of_a_split(tmp_path: Path, pictures: str, annotations: str) -> None:
    for split, boxes in (("train", BOXES), ("val", BOXES[1:])):
        photo(tmp_path / split / pictures / "a.jpg")
        text(tmp_path / split / annotations / "a.xml", xml(boxes))
    assert [(len(open_dataset(tmp_path, split).boxes), open_dataset(tmp_path, split).names) for split in ("train", "val")] == [
        (2, ("cat", "emu")),
        (1, ("cat", "emu")),
    ]


def test_names_by_number_are_said_aloud(tmp_path: Path) -> None:
    labelimg_yolo(tmp_path)
    assert not any("number alone" in note for note in open_labelled(str(tmp_path), "train", ["person", "bicycle", "car", "bus"]).notes)
    (tmp_path / "classes.txt").unlink()
    found = open_labelled(str(tmp_path), "train", ["person", "bicycle", "car", "bus"])
    assert found.names == ("person", "bicycle", "car", "bus")
    assert any("classes by number alone" in note and "0 is person, 1 is bicycle, 2 is car" in note for note in found.notes)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda root: text(root / "all.json", coco(["a.jpg"]).replace('"iscrowd": 0', '"iscrowd": "1"')), "all 2 objects are crowd regions"),
        (lambda root: [labelimg_voc(root), [path.write_text(path.read_text().replace("t>0<", "t>1<")) for path in root.glob("*.xml")]], "difficult"),
        (lambda root: [text(root / "a.txt", "0 .5 .5 .2\n"), text(root / "classes.txt", "a\n")], "without exactly five values, dropped"),
        (lambda root: [text(root / "a.txt", ""), text(root / "classes.txt", "a\n")], "no picture has a label"),
    ],
)
def test_nothing_to_learn_says_why(tmp_path: Path, make: Maker, why: str) -> None:
    photo(tmp_path / "a.jpg")
    make(tmp_path)
    with pytest.raises(InputError, match=f"nothing to learn; .*{why}"):
        open_labelled(str(tmp_path), "train", ("x",), "learn")


def test_a_divided_part_without_objects_says_how_to_divide(tmp_path: Path) -> None:
    """The 2 of 10 pictures that validate are backgrounds: the labels are there, only not in that part."""
    for number in range(10):
        photo(tmp_path / "images" / f"{number}.jpg", number)
        text(tmp_path / "labels" / f"{number}.txt", rows())
    text(tmp_path / "classes.txt", "cat\ndog\nemu\n")
    for path in open_dataset(tmp_path, "val").paths:
        (tmp_path / "labels" / f"{Path(path).stem}.txt").write_text("")
    told = r"OcTrim divided 10 pictures itself, and none of the 2 for val has an object: give a larger --val-share \(or a val part\)$"
    with pytest.raises(InputError, match=told):
        open_labelled(str(tmp_path), "val", ())
    assert len(open_labelled(str(tmp_path), "val", (), val_share=0.6)) == 6
    for path in open_dataset(tmp_path, "train").paths:
        (tmp_path / "labels" / f"{Path(path).stem}.txt").write_text("")
    with pytest.raises(InputError, match="2 pictures in val and no labelled objects: nothing to measure; no picture has a label"):
        open_labelled(str(tmp_path), "val", ())


def test_what_is_missing_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(NoDataSetError, match="YOLO in images/ and labels/: images/ without labels/") as error:
        open_dataset(tmp_path)
    assert [name for name, _ in error.value.missed] == [form.name for form in FORMATS]
    assert len(str(error.value)) <= 600


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("annotations.xml", "<annotations><version>1.1</version><image id='0'/></annotations>", "CVAT's own XML: export it"),
        ("project-1.json", '[{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}]', "Label Studio's own JSON: export it"),
        ("min.json", '[{"image": "a.jpg", "label": [{"x": 1, "rectanglelabels": ["cat"]}]}]', "Label Studio's own JSON: export it"),
        ("a.json", '[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]', "CreateML's JSON: export it"),
        ("via.json", '{"a.jpg1": {"regions": [{"shape_attributes": {"name": "rect"}}]}}', "VIA's own JSON: export it"),
        ("via.csv", "#filename,region_shape_attributes\n", "VIA's table: export it"),
        ("labels.json", '{"labels": {"a": [{"label": 0, "bounding_box": [0, 0, 1, 1]}]}}', "JSON of FiftyOne's own: export it"),
        ("train/_annotations.csv", "a.jpg,1,2,3,4,cat\n", "a table of boxes"),
        ("train/_annotations.txt", "a.jpg 1,2,3,4,0\n", "a table of boxes"),
        ("train/_classes.csv", "filename, cat\na.jpg, 1\n", "has no boxes"),
        ("cats.zip", "PK", "an archive: unpack it"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    text(tmp_path / name, content)
    with pytest.raises(InputError, match=told):
        open_dataset(tmp_path)


def test_labelme_shapes_by_hand(tmp_path: Path) -> None:
    shapes = [
        {"label": "ring", "points": [[50, 25], [53, 29]], "shape_type": "circle"},  # radius 5
        {"label": "rag", "points": [[10, 10], ["20", 5], [15, 30]], "shape_type": "polygon"},
        {"label": "old", "points": [[1, 1], [5, 1], [5, 9]]},  # before shape_type: a polygon
        {"label": "dot", "points": [[5, 5]], "shape_type": "point"},
        {"label": "way", "points": [[5, 5], [9, 9]], "shape_type": "linestrip"},
        {"label": "flat", "points": [[5, 5], [9, 5]], "shape_type": "rectangle"},
        {"points": [[5, 5], [9, 5]]},
        {"label": "odd", "points": [[5, "x"], [9, 5]], "shape_type": "rectangle"},
    ]
    photo(tmp_path / "a.png")
    text(tmp_path / "a.json", json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    found = open_dataset(tmp_path, "val")
    assert found.names == ("old", "rag", "ring")
    assert {found.names[label]: box for label, box in zip(found.labels.tolist(), found.boxes.tolist(), strict=True)} == {
        "ring": [45, 20, 55, 30],
        "rag": [10, 5, 20, 30],
        "old": [1, 1, 5, 9],
    }
    assert problems(found) == {
        "shape that has no area (a point or a line), dropped": 2,
        "box without area (xmin >= xmax or ymin >= ymax), dropped": 1,
        "object without a name or a box, dropped": 1,
        "label row with a value that is not a finite number, dropped": 1,
        "polygon or mask, taken as the box around it": 3,
    }
    assert found.report.problems == 5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_coco_in_other_encodings_is_recognised_in_a_folder(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "all.json", coco(["a.jpg"]).encode(encoding))
    assert len(open_dataset(tmp_path, "val").boxes) == 2
