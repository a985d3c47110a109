"""Data sets as the tools really write them, each made here as its tool does; docs/data.md has the table of them."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.data.formats.table import FORMATS, NoDataSetError
from octrim.data.open import open_dataset, open_labelled
from octrim.errors import InputError
from tests.data.making import problems, text

NAMES = ("cat", "dog", "emu")
BOXES = [(0, 10, 5, 40, 25), (2, 50, 10, 90, 45)]  # class, x1 y1 x2 y2 in pixels of 100 x 50


def photo(path: Path, seed: int = 0) -> Path:
    """A picture of 100 x 50 that differs for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (50, 100, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def rows(boxes: Sequence[tuple[int, ...]] = BOXES) -> str:
    return "".join(f"{c} {(x1 + x2) / 200:g} {(y1 + y2) / 100:g} {(x2 - x1) / 100:g} {(y2 - y1) / 50:g}\n" for c, x1, y1, x2, y2 in boxes)


def polygons(boxes: Sequence[tuple[int, ...]] = BOXES) -> str:
    """The same boxes as outlines of four points and one in the middle of a side."""
    lines = []
    for c, x1, y1, x2, y2 in boxes:
        points = [(x1, y1), ((x1 + x2) / 2, y1), (x2, y1), (x2, y2), (x1, y2)]
        lines.append(" ".join([str(c), *(f"{x / 100:g} {y / 50:g}" for x, y in points)]))
    return "\n".join(lines) + "\n"


def xml(boxes: Sequence[tuple[int, ...]] = BOXES, names: Sequence[str] = NAMES, more: str = "", declared: str = "") -> str:
    """VOC's pixels are inside and count from 1."""
    objects = "".join(
        f"<object><name>{names[c]}</name><difficult>0</difficult>{more}"
        f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for c, x1, y1, x2, y2 in boxes
    )
    return f"{declared}<annotation><filename>x.jpg</filename>{objects}</annotation>"


def coco(files: Sequence[str], boxes: Sequence[tuple[int, ...]] = BOXES, **changes: Any) -> str:
    images = [{"id": number, "file_name": name, "width": 100, "height": 50} for number, name in enumerate(files, 1)]
    annotations = [
        {"id": 10 * image["id"] + number, "image_id": image["id"], "category_id": c + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for image in images
        for number, (c, x1, y1, x2, y2) in enumerate(boxes)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories, **changes})


def labelme(name: str, boxes: Sequence[tuple[int, ...]] = BOXES, data: bytes | None = None) -> str:
    shapes = [
        {"label": NAMES[c], "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle", "group_id": None, "flags": {}} for c, x1, y1, x2, y2 in boxes
    ]
    inside = None if data is None else base64.b64encode(data).decode()
    return json.dumps(
        {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": inside, "imageHeight": 50, "imageWidth": 100}
    )


SIX = range(6)
Maker = Callable[[Path], object]


def labelimg_yolo(root: Path) -> None:
    for number in SIX:
        photo(root / f"{number}.jpg", number)
        text(root / f"{number}.txt", rows())
    text(root / "classes.txt", "cat\r\ndog\r\nemu\r\n")


def labelimg_voc(root: Path) -> None:
    for number in SIX:
        photo(root / f"{number}.jpg", number)
        text(root / f"{number}.xml", xml())


def label_studio_yolo(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"1a2b3c4d-{number}.jpg", number)
        text(root / "labels" / f"1a2b3c4d-{number}.txt", rows())
    text(root / "classes.txt", "cat\ndog\nemu")
    text(root / "notes.json", json.dumps({"categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)], "info": {"year": 2024}}))


def label_studio_notes(root: Path) -> None:
    label_studio_yolo(root)
    (root / "classes.txt").unlink()


def label_studio_coco(root: Path) -> None:
    names = [f"1a2b3c4d-{number}.jpg" for number in SIX]
    for number, name in enumerate(names):
        photo(root / "images" / name, number)
    text(root / "result.json", coco([f"..\\..\\label-studio\\data\\media\\upload\\1\\{name}" for name in names]))


def cvat_coco(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / "default" / f"{number}.jpg", number)
    text(root / "annotations" / "instances_default.json", coco([f"{number}.jpg" for number in SIX]))


def cvat_yolo(root: Path) -> None:
    """CVAT's YOLO 1.1: paths begin with a `data/` that is not there."""
    for number in SIX:
        photo(root / "obj_train_data" / f"{number}.jpg", number)
        text(root / "obj_train_data" / f"{number}.txt", rows())
    text(root / "obj.names", "cat\ndog\nemu\n")
    text(root / "obj.data", "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(root / "train.txt", "".join(f"data/obj_train_data/{number}.jpg\n" for number in SIX))


def cvat_ultralytics(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / "train" / f"{number}.jpg", number)
        text(root / "labels" / "train" / f"{number}.txt", polygons())
    text(root / "train.txt", "".join(f"images/train/{number}.jpg\n" for number in SIX))
    text(root / "data.yaml", "names:\n  0: cat\n  1: dog\n  2: emu\npath: .\ntrain: train.txt\n")


def cvat_voc(root: Path) -> None:
    for number in SIX:
        photo(root / "JPEGImages" / f"{number}.jpg", number)
        text(root / "Annotations" / f"{number}.xml", xml(more="<occluded>0</occluded><attributes><attribute><name>a</name></attribute></attributes>"))
    text(root / "ImageSets" / "Main" / "default.txt", "".join(f"{number}\n" for number in SIX))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:1,2,3::\n")


def roboflow(root: Path, write: Callable[[Path, int], object]) -> None:
    for split, numbers in (("train", range(4)), ("valid", range(4, 6)), ("test", range(6, 7))):
        for number in numbers:
            photo(root / split / f"{number}_jpg.rf.0a1b.jpg", number)
            write(root / split, number)
    text(root / "README.roboflow.txt", "Exported by Roboflow\n")
    text(root / "README.dataset.txt", "cats\n")


def roboflow_voc(root: Path) -> None:
    outline = "<polygon><x1>11</x1><y1>6</y1><x2>20</x2><y2>9</y2></polygon>"
    roboflow(root, lambda folder, number: text(folder / f"{number}_jpg.rf.0a1b.xml", xml(more=outline)))


def roboflow_darknet(root: Path) -> None:
    roboflow(root, lambda folder, number: text(folder / f"{number}_jpg.rf.0a1b.txt", rows()))
    for split in ("train", "valid", "test"):
        text(root / split / "_darknet.labels", "cat\ndog\nemu\n")


def roboflow_coco(root: Path) -> None:
    roboflow(root, lambda folder, number: None)
    for split in ("train", "valid", "test"):
        text(root / split / "_annotations.coco.json", coco(sorted(path.name for path in (root / split).glob("*.jpg"))))


def roboflow_yolo(root: Path) -> None:
    for split, numbers in (("train", range(4)), ("valid", range(4, 6))):
        for number in numbers:
            photo(root / split / "images" / f"{number}.jpg", number)
            text(root / split / "labels" / f"{number}.txt", polygons() if number % 2 else rows())
    parts = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
    text(root / "data.yaml", parts + "nc: 3\nnames: ['cat', 'dog', 'emu']\n\nroboflow:\n  version: 1\n")


def labelme_beside(root: Path) -> None:
    for number in SIX:
        photo(root / f"{number}.jpg", number)
        text(root / f"{number}.json", labelme(f"{number}.jpg"))
    text(root / "labels.txt", "__ignore__\n_background_\ncat\ndog\nemu\n")


def labelme_apart(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "json" / f"{number}.json", labelme(f"..\\images\\{number}.jpg"))


def labelme_inside(root: Path) -> None:
    for number in SIX:
        data = photo(root / "gone.jpg", number).read_bytes()
        text(root / f"{number}.json", labelme(f"C:\\pictures\\{number}.jpg", data=data))
    (root / "gone.jpg").unlink()


def paddle_voc(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"a {number}.jpg", number)
        text(root / "annotations" / f"a {number}.xml", xml())
    for name, numbers in (("train", range(4)), ("valid", range(4, 6))):
        text(root / f"{name}.txt", "".join(f"./images/a {number}.jpg ./annotations/a {number}.xml\n" for number in numbers))
    text(root / "label_list.txt", "cat\ndog\nemu\n")


def paddlex_voc(root: Path) -> None:
    for number in SIX:
        photo(root / "JPEGImages" / f"{number}.jpg", number)
        text(root / "Annotations" / f"{number}.xml", xml())
    for name, numbers in (("train_list", range(4)), ("val_list", range(4, 6))):
        text(root / f"{name}.txt", "".join(f"JPEGImages\\{number}.jpg Annotations\\{number}.xml\n" for number in numbers))
    text(root / "labels.txt", "cat\ndog\nemu\n")


def paddle_coco(root: Path) -> None:
    for number in SIX:
        photo(root / ("train2017" if number < 4 else "val2017") / f"{number}.jpg", number)
    text(root / "annotations" / "instances_train2017.json", coco([f"{number}.jpg" for number in range(4)]))
    text(root / "annotations" / "instances_val2017.json", coco([f"{number}.jpg" for number in range(4, 6)]))


def voc_devkit(root: Path) -> None:
    for year, numbers in (("VOC2007", range(3)), ("VOC2012", range(3, 6))):
        home = root / "VOCdevkit" / year
        for number in numbers:
            photo(home / "JPEGImages" / f"{year}_{number}.jpg", number)
            text(home / "Annotations" / f"{year}_{number}.xml", xml())
        text(home / "ImageSets" / "Main" / "train.txt", "".join(f"{year}_{number}\n" for number in list(numbers)[:2]))
        text(home / "ImageSets" / "Main" / "val.txt", f"{year}_{numbers[-1]}\n")
        text(home / "ImageSets" / "Main" / "cat_train.txt", f"{year}_{numbers[0]}  1\n")


def voc_without_lists(root: Path) -> None:
    for number in SIX:
        photo(root / "JPEGImages" / f"{number}.JPG", number)
        text(root / "Annotations" / f"{number}.xml", xml())


def voc_small_letters(root: Path) -> None:
    for number in SIX:
        photo(root / "jpegimages" / f"{number}.jpg", number)
        text(root / "annotations" / f"{number}.XML", xml())
    text(root / "imagesets" / "main" / "train.txt", "".join(f"{number}.jpg\n" for number in range(4)))
    text(root / "imagesets" / "main" / "val.txt", "".join(f"{number}\n" for number in range(4, 6)))


def label_studio_voc(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "Annotations" / f"{number}.xml", xml())


def yolo_lists(root: Path) -> None:
    """Pictures and labels in one folder, and lists of other machines' paths."""
    for number in SIX:
        photo(root / "data" / f"{number}.jpg", number)
        text(root / "data" / f"{number}.txt", rows())
    for name, numbers in (("train", range(4)), ("val", range(4, 6))):
        text(root / f"{name}.txt", "".join(f"D:\\yolo\\data\\{number}.jpg \r\n" for number in numbers))
    text(root / "classes.txt", "cat\ndog\nemu\n")


def labelimg_voc_apart(root: Path) -> None:
    for number in SIX:
        photo(root / f"{number}.jpg", number)
        text(root / "xml" / f"{number}.xml", xml())


def voc_in_labels(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "labels" / f"{number}.xml", xml())


def labelme_in_labels(root: Path) -> None:
    for number in SIX:
        photo(root / "images" / f"{number}.jpg", number)
        text(root / "labels" / f"{number}.json", labelme(f"{number}.jpg"))


def zipped_on_a_mac(root: Path) -> None:
    labelimg_yolo(root / "cats")
    for path in list((root / "cats").iterdir()):
        text(root / "__MACOSX" / "cats" / f"._{path.name}", b"\0\x05\x16\7junk")
        text(root / "cats" / f"._{path.name}", b"\0\x05\x16\7junk")
    text(root / "cats" / ".DS_Store", b"\0\0\0\1Bud1")


def ultralytics_capitals(root: Path) -> None:
    for number in SIX:
        photo(root / "Images" / f"{number}.JPEG", number)
        text(root / "Labels" / f"{number}.TXT", rows())
    text(root / "Classes.txt", "cat\ndog\nemu\n")


def datumaro(root: Path) -> None:
    """An annotation file as CVAT's "Datumaro 1.0" writes it: a box, and the second object as an outline or as a mask of runs."""
    labels = [{"name": name, "parent": "", "attributes": []} for name in NAMES]
    (_, x1, y1, x2, y2), (_, a1, b1, a2, b2) = BOXES
    common = {"id": 0, "attributes": {"occluded": False}, "group": 0, "z_order": 0}
    outline = {**common, "type": "polygon", "label_id": 2, "points": [a1, b1, a2, b1, a2, b2, a1, b2]}
    runs = [50 * a1 + b1, *[b2 - b1, 50 - b2 + b1] * (a2 - a1 - 1), b2 - b1, 50 * (100 - a2) + 50 - b2]
    mask = {**common, "type": "mask", "label_id": 2, "rle": {"counts": runs, "size": [50, 100]}}
    items = []
    for number in SIX:
        photo(root / "images" / "default" / f"{number}.jpg", number)
        box = {**common, "type": "bbox", "label_id": 0, "bbox": [float(x1), y1, x2 - x1, y2 - y1]}
        picture = {"image": {"path": f"{number}.jpg", "size": [50, 100]}}
        items.append({"id": str(number), "annotations": [box, mask if number % 2 else outline, {"type": "label", "label_id": 1}], **picture})
    categories = {"label": {"labels": labels, "attributes": ["occluded"]}, "points": {"items": []}}
    text(root / "annotations" / "default.json", json.dumps({"info": {}, "categories": categories, "items": items}))


def supervisely_annotation() -> str:
    """A rectangle, and a mask that is a packed PNG cut to the object. Corners are inside."""
    (_, x1, y1, x2, y2), (_, a1, b1, a2, b2) = BOXES
    mask = cv2.imencode(".png", np.full((b2 - b1, a2 - a1, 4), 255, np.uint8))[1].tobytes()
    common = {"id": 1, "classId": 1, "description": "", "tags": [], "labelerLogin": "a"}
    box = {**common, "geometryType": "rectangle", "classTitle": "cat", "points": {"exterior": [[x1, y1], [x2 - 1, y2 - 1]], "interior": []}}
    bitmap = {"data": base64.b64encode(zlib.compress(mask)).decode(), "origin": [a1, b1]}
    objects = [box, {**common, "geometryType": "bitmap", "classTitle": "emu", "bitmap": bitmap}]
    return json.dumps({"description": "", "tags": [], "size": {"height": 50, "width": 100}, "objects": objects})


def supervisely(root: Path) -> None:
    for number in SIX:
        photo(root / "ds0" / "img" / f"{number}.jpg", number)
        text(root / "ds0" / "ann" / (f"{number}.jpg.json" if number else f"{number}.json"), supervisely_annotation())
    classes = [{"title": name, "shape": "any", "color": "#0F8A8A"} for name in NAMES]
    text(root / "meta.json", json.dumps({"classes": classes, "tags": [], "projectType": "images"}))


def labelimg_yolo_apart(root: Path) -> None:
    for number in SIX:
        photo(root / "photos" / f"{number}.jpg", number)
        text(root / "out" / f"{number}.txt", rows())
    text(root / "out" / "classes.txt", "cat\ndog\nemu\n")


def labelimg_voc_anywhere(root: Path) -> None:
    for number in SIX:
        photo(root / "photos" / f"{number}.jpg", number)
        text(root / "boxes of monday" / f"{number}.xml", xml())


ONE_PART: dict[str, tuple[Maker, str]] = {
    "labelImg, YOLO": (labelimg_yolo, "YOLO beside the pictures"),
    "labelImg, VOC": (labelimg_voc, "Pascal VOC beside the pictures"),
    "Label Studio, YOLO": (label_studio_yolo, "YOLO in images/ and labels/"),
    "Label Studio, YOLO, names in notes.json": (label_studio_notes, "YOLO in images/ and labels/"),
    "Label Studio, COCO": (label_studio_coco, "COCO"),
    "Label Studio, VOC": (label_studio_voc, "Pascal VOC without lists"),
    "CVAT, COCO": (cvat_coco, "COCO"),
    "CVAT, YOLO 1.1": (cvat_yolo, "YOLO by obj.data"),
    "CVAT, Ultralytics": (cvat_ultralytics, "YOLO by data.yaml"),
    "CVAT, VOC": (cvat_voc, "Pascal VOC"),
    "labelme": (labelme_beside, "labelme"),
    "labelme, pictures elsewhere": (labelme_apart, "labelme"),
    "labelme, pictures inside": (labelme_inside, "labelme"),
    "VOC without lists": (voc_without_lists, "Pascal VOC without lists"),
    "labelImg, VOC, annotations elsewhere": (labelimg_voc_apart, "Pascal VOC without lists"),
    "labelImg, VOC, in an unrelated folder": (labelimg_voc_anywhere, "Pascal VOC in another folder than the pictures"),
    "labelImg, YOLO, in an unrelated folder": (labelimg_yolo_apart, "YOLO in another folder than the pictures"),
    "Datumaro": (datumaro, "Datumaro"),
    "Supervisely": (supervisely, "Supervisely"),
    "VOC in labels/": (voc_in_labels, "Pascal VOC without lists"),
    "labelme in labels/": (labelme_in_labels, "labelme"),
    "an archive of macOS": (zipped_on_a_mac, "YOLO beside the pictures"),
    "folders in capitals": (ultralytics_capitals, "YOLO in images/ and labels/"),
}
TWO_PARTS: dict[str, tuple[Maker, str]] = {
    "Roboflow, VOC": (roboflow_voc, "Pascal VOC beside the pictures"),
    "Roboflow, Darknet": (roboflow_darknet, "YOLO beside the pictures"),
    "Roboflow, COCO": (roboflow_coco, "COCO"),
    "Roboflow, YOLO": (roboflow_yolo, "YOLO by data.yaml"),
    "PaddleDetection, VOC": (paddle_voc, "VOC by lists of pairs"),
    "PaddleX, VOC": (paddlex_voc, "VOC by lists of pairs"),
    "PaddleDetection, COCO": (paddle_coco, "COCO"),
    "VOCdevkit": (voc_devkit, "VOCdevkit"),
    "lists of pictures": (yolo_lists, "YOLO by lists of pictures"),
    "VOC in small letters": (voc_small_letters, "Pascal VOC"),
}


def hold_truth(found: Dataset) -> None:
    """Every picture has the two boxes, of the right classes."""
    for index in range(len(found)):
        boxes, labels, _ = found.targets(index)
        np.testing.assert_allclose(boxes, [box[1:] for box in BOXES], atol=1e-3)
        assert [found.names[label] for label in labels.tolist()] == ["cat", "emu"]


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


def test_voc_difficult_objects_are_ignored_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    for path in tmp_path.glob("*.xml"):
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    found = open_dataset(tmp_path, "train", val_share=0)
    assert found.crowd.tolist() == [True, False] * 6
    (remark,) = found.report.counts
    assert (found.report.counts[remark], found.report.problems) == (6, 0)
    assert "difficult" in remark
    kept = open_dataset(tmp_path, "train", val_share=0, keep_difficult=True)
    assert (kept.crowd.any(), kept.report.counts) == (False, {})
    np.testing.assert_array_equal(kept.boxes, found.boxes)


def test_voc_outlines_without_a_box(tmp_path: Path) -> None:
    """Roboflow's x1 y1 x2 y2, labelme's points and roLabelImg's turned boxes."""
    corners = "<polygon><x1>11</x1><y1>6</y1><x2>40</x2><y2>6</y2><x3>40</x3><y3>25</y3></polygon>"
    points = "<polygon><pt><x>11</x><y>6</y></pt><pt><x>40</x><y>6</y></pt><pt><x>40</x><y>25</y></pt></polygon>"
    turned = "<robndbox><cx>50</cx><cy>25</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>"
    photo(tmp_path / "a.jpg")
    objects = "".join(f"<object><name>{name}</name>{shape}</object>" for name, shape in (("a", corners), ("b", points), ("c", turned)))
    text(tmp_path / "a.xml", f"<annotation>{objects}</annotation>")
    found = open_dataset(tmp_path, "val")
    np.testing.assert_allclose(found.boxes, [[10, 5, 40, 25], [10, 5, 40, 25], [44, 14, 55, 35]], atol=1e-4)
    assert problems(found) == {"polygon or mask, taken as the box around it": 3}


ENCODINGS = ("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-kr", "utf-16", "utf8", "UTF-8", "iso-8859-1", "windows-1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_voc_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    names = {"big5": "紅綠", "shift_jis": "赤い", "euc-kr": "빨강", "iso-8859-1": "grün", "windows-1252": "grün"}.get(encoding, "红绿")
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(BOXES[:1], [names], declared=f'<?xml version="1.0" encoding="{encoding}"?>\n').encode(encoding))
    assert open_dataset(tmp_path, "val").names == (names,)


def test_voc_in_gbk_that_does_not_say_so(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    for declared in ("", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8"?>', '<?xml version="1.0" encoding="ANSI"?>'):
        text(tmp_path / "a.xml", xml(BOXES[:1], ["红绿灯"], declared=declared).encode("gbk"))
        assert open_dataset(tmp_path, "val").names == ("红绿灯",)


@pytest.mark.parametrize("name", ["Käfer rot", "grün", "señal", "piéton à vélo"])
def test_voc_and_names_in_latin_that_do_not_say_so(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(BOXES[:1], [name]).encode("latin-1"))
    assert open_dataset(tmp_path, "val").names == (name,)
    text(tmp_path / "classes.txt", f"dog\n{name}\n".encode("latin-1"))
    assert open_dataset(tmp_path, "val").names == ("dog", name)


@pytest.mark.parametrize(
    "declared",
    ["<!DOCTYPE annotation>", '<?xml version="1.0"?>\n<!DOCTYPE annotation >\n'],
)
def test_voc_with_a_document_type_that_declares_nothing(tmp_path: Path, declared: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(declared=declared))
    assert open_dataset(tmp_path, "val").names == ("cat", "emu")


@pytest.mark.parametrize("declared", ['<!DOCTYPE a [<!ENTITY x "y">]>', "<!DOCTYPE a>" * 2, '<!DOCTYPE a SYSTEM "b" [<!ATTLIST a b CDATA "c">]>'])
def test_voc_with_a_document_type_that_declares_is_refused(tmp_path: Path, declared: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(declared=declared))
    with pytest.raises(InputError, match="damaged or declares entities"):
        open_dataset(tmp_path, "val")


def test_names_of_cvats_labelmap(tmp_path: Path) -> None:
    """All labels of the task in its order, also those that no picture has; the background is no class."""
    cvat_voc(tmp_path)
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:::\nemu:1,2,3::\ncat:128,0,0:head,foot:\ndog:::\n")
    found = open_dataset(tmp_path, "train")
    assert found.names == ("emu", "cat", "dog")
    assert found.labels[:2].tolist() == [1, 0]
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nemu:1,2,3::\n")
    assert open_dataset(tmp_path, "val").names == ("emu", "cat")


def test_voc_of_fiftyone(tmp_path: Path) -> None:
    photo(tmp_path / "data" / "a.jpg")
    text(tmp_path / "labels" / "a.xml", xml())
    assert (open_dataset(tmp_path, "val").names, len(open_dataset(tmp_path, "val").boxes)) == (("cat", "emu"), 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_coco_in_other_encodings_is_recognised_in_a_folder(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "all.json", coco(["a.jpg"]).encode(encoding))
    assert len(open_dataset(tmp_path, "val").boxes) == 2


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
