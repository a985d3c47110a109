"""Pictures and labels that users put into folders of their own choice, the files of class names beside them, and labels that fit nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from tests.data.making import problems, text
from tests.data.tools import NAMES, hold_truth, labelme, photo, polygons, rows, xml
from tests.data.tools import coco as coco_document

YAML = "train: %s\nval: %s\nnames: [cat, dog, emu]\n"
CAMERAS = ("cam1", "cam2")


def split_of(number: int) -> str:
    return "train" if number < 4 else "val"


def two_cameras(pictures: Callable[[str, str], str], labels: Callable[[str, str], str], suffix: str = ".txt") -> Callable[[Path], object]:
    """Two cameras with pictures of the same names. pictures, labels: folders of them by camera and split."""

    def make(root: Path) -> None:
        for number in range(6):
            for place, camera in enumerate(CAMERAS):
                photo(root / pictures(camera, split_of(number)) / f"{number}.jpg", number + 10 * place)
                text(root / labels(camera, split_of(number)) / f"{number}{suffix}", rows() if suffix == ".txt" else xml())

    return make


NESTED = {
    "train/cam1/images": two_cameras(lambda c, s: f"{s}/{c}/images", lambda c, s: f"{s}/{c}/labels"),
    "cam1/train/images": two_cameras(lambda c, s: f"{c}/{s}/images", lambda c, s: f"{c}/{s}/labels"),
    "cam1/images/train": two_cameras(lambda c, s: f"{c}/images/{s}", lambda c, s: f"{c}/labels/{s}"),
    "images/train/cam1": two_cameras(lambda c, s: f"images/{s}/{c}", lambda c, s: f"labels/{s}/{c}"),
    "images/cam1/train": two_cameras(lambda c, s: f"images/{c}/{s}", lambda c, s: f"labels/{c}/{s}"),
    "train/cam1, beside": two_cameras(lambda c, s: f"{s}/{c}", lambda c, s: f"{s}/{c}"),
    "cam1/train, beside": two_cameras(lambda c, s: f"{c}/{s}", lambda c, s: f"{c}/{s}"),
    "VOC, train/cam1/Annotations": two_cameras(lambda c, s: f"{s}/{c}/JPEGImages", lambda c, s: f"{s}/{c}/Annotations", ".xml"),
    "VOC, cam1/train, beside": two_cameras(lambda c, s: f"{c}/{s}", lambda c, s: f"{c}/{s}", ".xml"),
}


@pytest.mark.parametrize("order", NESTED)
def test_folders_of_cameras_and_splits_in_any_order(tmp_path: Path, order: str) -> None:
    NESTED[order](tmp_path)
    text(tmp_path / "classes.txt", "cat\ndog\nemu\n")
    train, val = (open_dataset(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 4)
    assert train.report.problems == 0, train.report
    hold_truth(train)
    hold_truth(val)


def apart(pictures: Callable[[str], str], labels: Callable[[str], str], suffix: str = ".txt") -> Callable[[Path], object]:
    """pictures, labels: their folders by the split."""

    def make(root: Path) -> None:
        for number in range(6):
            photo(root / pictures(split_of(number)) / f"{number}.jpg", number)
            text(root / labels(split_of(number)) / f"{number}{suffix}", xml() if suffix == ".xml" else rows())

    return make


UNEQUAL = {
    "pictures together, labels by split": apart(lambda s: "images", lambda s: f"labels/{s}"),
    "labels together, pictures by split": apart(lambda s: f"images/{s}", lambda s: "labels"),
    "another name of the split": apart(lambda s: f"images/{s}2017", lambda s: f"labels/{s}"),
    "labels/train for train/": apart(lambda s: s, lambda s: f"labels/{s}"),
    "one folder of labels for train/ and val/": apart(lambda s: s, lambda s: "boxes"),
    "labels called a.jpg.txt": apart(lambda s: f"images/{s}", lambda s: f"labels/{s}", ".jpg.txt"),
    "VOC, pictures together": apart(lambda s: "JPEGImages", lambda s: f"Annotations/{s}", ".xml"),
    "VOC, annotations together": apart(lambda s: f"JPEGImages/{s}", lambda s: "Annotations", ".xml"),
}


@pytest.mark.parametrize("order", UNEQUAL)
def test_pictures_and_labels_in_folders_that_do_not_correspond(tmp_path: Path, order: str) -> None:
    """Each picture has its own label, those of a split stay in it, and nothing is taken for background."""
    UNEQUAL[order](tmp_path)
    text(tmp_path / "classes.txt", "cat\ndog\nemu\n")
    train, val = (open_dataset(tmp_path, split) for split in ("train", "val"))
    assert [Path(path).stem for path in (*train.paths, *val.paths)] == list("012345")
    assert len(val) == 2
    assert train.report.problems == 0, train.report
    hold_truth(train)
    hold_truth(val)


def test_lists_of_names_without_suffix_divide_a_data_set(tmp_path: Path) -> None:
    """Users' own splits count, also where the labels are YOLO's and the lists VOC's."""
    for folder in (tmp_path / "one", tmp_path / "two" / "ImageSets" / "Main"):
        root = tmp_path / folder.relative_to(tmp_path).parts[0]
        for number in range(6):
            photo(root / "images" / f"{number}.jpg", number)
            text(root / "labels" / f"{number}.txt", rows())
        text(folder / "train.txt", "0\n1\n2\n3\n")
        text(folder / "val.txt", "4\n5\n")
        text(root / "classes.txt", "cat\ndog\nemu\n")
        found = open_dataset(root, "val")
        assert [Path(path).stem for path in found.paths] == ["4", "5"]
        hold_truth(found)


def test_a_data_yaml_whose_labels_lie_elsewhere(tmp_path: Path) -> None:
    for number in range(6):
        photo(tmp_path / "photos" / f"IMG_{number}.JPG", number)
        text(tmp_path / "labels" / "all" / f"img_{number}.txt", polygons())
    found = open_dataset(text(tmp_path / "data.yaml", YAML % ("photos", "photos")), "train")
    hold_truth(found)
    assert any("labels of 6 pictures lie elsewhere, found by their names" in note for note in found.notes)


def test_a_label_of_another_split_is_no_pictures_label(tmp_path: Path) -> None:
    """images/val/0.jpg is a background; labels/train/0.txt is that of images/train/0.jpg."""
    for number in range(4):
        photo(tmp_path / "images" / "train" / f"{number}.jpg", number)
        text(tmp_path / "labels" / "train" / f"{number}.txt", rows())
        photo(tmp_path / "images" / "val" / f"{number}.jpg", number + 10)
    text(tmp_path / "labels" / "val" / "0.txt", rows())
    found = open_dataset(text(tmp_path / "data.yaml", YAML % ("images/train", "images/val")), "val")
    assert np.diff(found.starts).tolist() == [2, 0, 0, 0]
    assert found.report.problems == 0, found.report
    (tmp_path / "labels" / "val" / "0.txt").unlink()
    found = open_dataset(tmp_path / "data.yaml", "val")
    assert (len(found), len(found.boxes)) == (4, 0)
    assert problems(found) == {"no picture has a label file": 1}


def orphans(root: Path) -> None:
    """Labels called as an augmentation tool renames pictures."""
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "labels" / f"{number}_aug.txt", rows())


def ambiguous(root: Path) -> None:
    """Two cameras with pictures of one name, and labels of one of them."""
    for number in range(6):
        for camera in CAMERAS:
            photo(root / "images" / camera / f"{number}.jpg", number + 10 * (camera == "cam2"))
        text(root / "boxes" / f"{number}.txt", rows())


def with_xml(root: Path) -> None:
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "labels" / f"{number}.xml", xml())


def with_labelme(root: Path) -> None:
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "images" / f"{number}.json", labelme(f"{number}.jpg"))


def with_coco(root: Path) -> None:
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
    text(root / "annotations" / "instances_train.json", coco_document([f"{number}.jpg" for number in range(6)]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (orphans, r"none of the 6 pictures has a label file .*, but there are label files that fit no picture, such as .*0_aug\.txt"),
        (ambiguous, r"none of the 12 pictures has a label file .* such as .*boxes.0\.txt"),
        (with_xml, r"0\.xml is an annotation of another format"),
        (with_labelme, r"0\.json is an annotation of another format"),
        (with_coco, r"instances_train\.json is an annotation of another format"),
    ],
)
def test_pictures_whose_labels_fit_none_are_refused(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match=told):
        open_dataset(text(tmp_path / "data.yaml", YAML % ("images", "images")), "train")


def opened_yaml(root: Path) -> Dataset:
    return open_dataset(text(root / "data.yaml", YAML % ("images", "images")), "train")


def test_some_pictures_whose_labels_fit_none_are_told(tmp_path: Path) -> None:
    orphans(tmp_path)
    text(tmp_path / "labels" / "0.txt", rows())
    found = opened_yaml(tmp_path)
    assert problems(found)["picture without labels, while label files fit no picture"] == 5
    assert any("5 pictures have no label file, while there are label files that fit no picture" in note for note in found.notes)


def test_some_pictures_with_annotations_of_another_format_are_told(tmp_path: Path) -> None:
    """A tool that was switched between formats half way."""
    for number in range(6):
        photo(tmp_path / "images" / f"{number}.jpg", number)
        text(tmp_path / "labels" / f"{number}{'.txt' if number < 4 else '.xml'}", rows() if number < 4 else xml())
    found = opened_yaml(tmp_path)
    assert problems(found) == {"picture without a label file, but with an annotation of another format, taken as background": 2}


def test_annotations_of_another_format_among_voc_are_told(tmp_path: Path) -> None:
    for number in range(6):
        photo(tmp_path / f"{number}.jpg", number)
        text(tmp_path / f"{number}{'.xml' if number < 4 else '.txt'}", xml() if number < 4 else rows())
    found = open_dataset(tmp_path, "train", val_share=0)
    assert problems(found)["picture without a label file, but with an annotation of another format, taken as background"] == 2


@pytest.mark.parametrize("written", ['"..\\images\\train"', '"images\\train"', '["images\\train"]', '".\\images\\train\\"'])
def test_windows_paths_in_double_quotes(tmp_path: Path, written: str) -> None:
    r"""YAML takes `\t` for a tab and `\i` for an error."""
    photo(tmp_path / "images" / "train" / "0.jpg")
    text(tmp_path / "labels" / "train" / "0.txt", rows())
    found = open_dataset(text(tmp_path / "data.yaml", f'train: {written}\nnames: ["c\\u00e4t", dog, emu]\n'), "train", val_share=0)
    assert (len(found), len(found.boxes), found.names[0]) == (1, 2, "cät")


def test_a_split_that_is_named_and_not_there_says_how_to_divide(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "images" / "0.jpg")
    with pytest.raises(InputError, match="and there is no .*valid.images; without that line the training part is divided"):
        open_dataset(text(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: [cat]\n"), "val")


@pytest.mark.parametrize("results", ["runs/data/exp", "runs/detect/exp2", "mine/first"])
def test_results_within_the_data_set_are_no_pictures_of_it(tmp_path: Path, results: str) -> None:
    """Whoever works in the folder of the data set has runs/ in it, with charts and pictures that have boxes drawn on them."""
    for number in range(6):
        photo(tmp_path / f"{number}.jpg", number)
        text(tmp_path / f"{number}.txt", rows())
    photo(tmp_path / results / "contact.jpg", 9)
    if "detect" not in results:  # YOLOv5 leaves no configuration there
        text(tmp_path / results / "config.yaml", "command: data\nproject: null\n")
    found = open_dataset(tmp_path, "train", val_share=0)
    assert (len(found), len(found.boxes)) == (6, 12)
    text(tmp_path / "train.txt", "".join(f"{number}.jpg\n" for number in range(6)))
    assert len(open_dataset(text(tmp_path / "data.yaml", YAML % (".", "train.txt")), "train")) == 6


def test_other_words_for_a_split(tmp_path: Path) -> None:
    UNEQUAL["labels together, pictures by split"](tmp_path)
    yaml = text(tmp_path / "data.yaml", YAML % ("images/train", "images/val"))
    for data in (yaml, tmp_path):
        assert len(open_dataset(data, "valid")) == len(open_dataset(data, "validation")) == 2
        assert len(open_dataset(data, "training")) == 4


def test_files_that_are_no_data_set(tmp_path: Path) -> None:
    for path in (photo(tmp_path / "0.jpg"), text(tmp_path / "yolov5n.pt", b"PK\3\4\0\0\x08\0" + bytes(100))):
        with pytest.raises(InputError, match="not a data set: expected a data.yaml, a folder, or a COCO annotation file"):
            open_dataset(path, "train")


def test_backgrounds_are_no_problem(tmp_path: Path) -> None:
    for number in range(6):
        photo(tmp_path / "images" / f"{number}.jpg", number)
    text(tmp_path / "labels" / "0.txt", rows())
    found = opened_yaml(tmp_path)
    assert (len(found), len(found.boxes), found.report.problems, found.notes[1:]) == (6, 2, 0, ())


def test_pictures_that_no_split_has_are_told(tmp_path: Path) -> None:
    UNEQUAL["pictures together, labels by split"](tmp_path)
    photo(tmp_path / "images" / "9.jpg", 9)
    assert problems(open_dataset(tmp_path, "train")) == {"picture whose split no label file tells, left out": 1}
    UNEQUAL["VOC, pictures together"](tmp_path / "voc")
    photo(tmp_path / "voc" / "JPEGImages" / "9.jpg", 9)
    found = open_dataset(tmp_path / "voc", "train")
    assert any("1 pictures have no annotation that tells their split" in note for note in found.notes)


def test_classes_that_count_from_1_are_told(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "0.jpg")
    text(tmp_path / "labels" / "0.txt", "1 .5 .5 .2 .2\n3 .5 .5 .1 .1\n")
    assert "classes seem to be counted from 1, where YOLO's count from 0" in problems(opened_yaml(tmp_path))


NAMED = {
    "classes.yaml": "names: [cat, dog, emu]\n",
    "classes.yml": "- cat\n- dog\n- emu\n",
    "names.yaml": "0: cat\n1: dog\n2: emu\n",
    "dataset.yaml": "nc: 3\nnames:\n  0: cat\n  2: emu\n  1: dog\n",
    "classes.json": '["cat", "dog", "emu"]',
    "class_names.json": '{"0": "cat", "1": "dog", "2": "emu"}',
    "label_map.json": '{"emu": 2, "cat": 0, "dog": 1}',
    "categories.json": '[{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "emu"}]',
    "notes.json": '{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "emu"}], "info": {}}',
    "labels.json": '{"classes": ["cat", "dog", "emu"]}',
    "label_map.pbtxt": "item {\n  name: 'dog'\n  id: 2\n}\nitem {\n  id: 1\n  name: \"cat\"\n}\nitem { id: 3 name: 'x' display_name: 'emu' }\n",
    "coco.names": "cat\ndog\nemu\n",
    "class_list.txt": "cat\r\ndog\r\nemu",
    "classes.txt": "0: cat\n1: dog\n2: emu\n",
    "labels.txt": "0 cat\n1 dog\n2 emu\n",
    "names.txt": "cat, dog, emu",
    "class_names.txt": '"cat"\n"dog"\n"emu"\n',
    "label_list.txt": "# of our farm\ncat\ndog\nemu\n",
    "classes.csv": "id,name\n0,cat\n1,dog\n2,emu\n",
    "names.csv": "name\ncat\ndog\nemu\n",
}


@pytest.mark.parametrize("file", NAMED)
def test_class_names_are_read_from_where_users_put_them(tmp_path: Path, file: str) -> None:
    for home in ("a", "b"):
        photo(tmp_path / home / "images" / "0.jpg")
        text(tmp_path / home / "labels" / "0.txt", rows())
        text(tmp_path / home / file, NAMED[file])
    found = open_dataset(tmp_path / "a", "val")
    assert found.names == NAMES
    assert any(note.endswith(file) and note.startswith("class names are those of ") for note in found.notes)
    if not file.endswith((".yaml", ".yml")):  # a data.yaml without names takes them, too
        assert open_dataset(text(tmp_path / "b" / "data.yaml", "train: images\nval: images\n"), "val").names == NAMES


@pytest.mark.parametrize("content", ["0 degrees\n1 degrees\n", "cat\n3 dogs\n"])
def test_names_that_begin_with_numbers_stay_what_they_are(tmp_path: Path, content: str) -> None:
    photo(tmp_path / "images" / "0.jpg")
    text(tmp_path / "labels" / "0.txt", "1 .5 .5 .2 .2\n")
    text(tmp_path / "classes.txt", content)
    assert open_dataset(tmp_path, "val").names == tuple(content.splitlines())


def test_documents_that_hold_no_names_are_passed_over_or_named(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "0.jpg")
    text(tmp_path / "labels" / "0.txt", "1 .5 .5 .2 .2\n")
    text(tmp_path / "labels.json", '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}')
    assert open_dataset(tmp_path, "val").names == ("class0", "class1")
    text(tmp_path / "classes.json", '{"cat": "black", "dog": "white"}')
    with pytest.raises(InputError, match=r"classes\.json: not a list of class names"):
        open_dataset(tmp_path, "val")


@pytest.mark.parametrize("how", ["classes.txt", "data.yaml"])
def test_two_classes_of_one_name_stay_two_and_are_told(tmp_path: Path, how: str) -> None:
    photo(tmp_path / "images" / "0.jpg")
    text(tmp_path / "labels" / "0.txt", "0 .5 .5 .2 .2\n2 .5 .5 .1 .1\n")
    if how == "classes.txt":
        text(tmp_path / "classes.txt", "cat\ndog\ncat\n")
    else:
        text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat, dog, cat]\n")
    found = open_dataset(tmp_path, "val")
    assert found.names == ("cat", "dog", "cat")
    assert sorted(found.labels.tolist()) == [0, 2]
    assert "several classes have one name, and stay different classes: cat (0, 2)" in found.notes


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("training/label_2/0.txt", "Car 0.00 0 1.85 10.0 5.0 40.0 25.0 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n", "an annotation of KITTI"),
        ("annotations/0.txt", "10,5,30,20,1,4,0,0\n", "an annotation of VisDrone"),
        ("labelTxt/0.txt", "10.0 5.0 40.0 5.0 40.0 25.0 10.0 25.0 small-vehicle 0\n", "an annotation of DOTA"),
        ("labels/det_train.json", '[{"name": "0.jpg", "labels": [{"category": "car", "box2d": {"x1": 1}}]}]', "an annotation of BDD100K"),
        ("list.txt", "pictures/0.jpg 10,5,40,25,0 50,10,90,45,2\n", "a list of pictures with their boxes"),
        ("train-annotations-bbox.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n", "a table of"),
        ("split/wider_face_train_bbx_gt.txt", "0--Parade/0.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n", "an annotation of WIDER FACE"),
        ("MOT17-02/gt/gt.txt", "1,1,10,5,30,20,1,1,0.8\n", "an annotation of MOT Challenge"),
        ("train.jsonl", '{"image": "0.jpg", "annotations": []}\n', "one JSON document per line"),
        ("annotation_train.odgt", '{"ID": "0", "gtboxes": []}', "an annotation of CrowdHuman"),
    ],
)
def test_public_data_sets_in_formats_of_their_own_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    photo(tmp_path / "pictures" / "0.jpg")
    text(tmp_path / name, content)
    with pytest.raises(InputError, match=told):
        open_dataset(tmp_path, "train")
