"""Data sets as the tools really write them, each made here as its tool does; docs/data.md has the table of them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from octrim.data.dataset import Dataset
from tests.data.making import text

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


ENCODINGS = ("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-kr", "utf-16", "utf8", "UTF-8", "iso-8859-1", "windows-1252")
