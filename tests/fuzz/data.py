"""Readers of data sets, their annotations and their index, of pictures and of video."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import yaml

from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.errors import InputError
from tests.data.holding import JSON, ROWS, XML, checked, coco, voc_set, yolo
from tests.data.making import picture, text
from tests.fuzz.mutations import altered, flipped, mutated
from tests.fuzz.reader import BytesReader, Reader

DATA_YAML = b"path: .\ntrain: [images/val]\nval:\n  - images/val\n  - list.txt\ntest: null\nnc: 2\nnames: {0: cat, 1: dog}\n"


class DataYaml(BytesReader):
    name = "data.yaml"

    def __init__(self, folder: Path) -> None:
        deeper = folder / "a" / "b" / "c"  # than `../..` leads out of: there lies everything that this machine has
        deeper.mkdir(parents=True)
        super().__init__(deeper)

    def whole(self) -> Sequence[bytes]:
        yolo(self.folder, ROWS)
        (self.folder / "list.txt").write_text("images/val/x.png\n./images/val/good.png\n")
        return [DATA_YAML]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        if dice.random() < 0.2:
            (self.folder / "list.txt").write_bytes(mutated(dice, b"images/val/x.png\n./images/val/good.png\n"))
            return data
        (self.folder / "list.txt").write_text("images/val/x.png\n./images/val/good.png\n")
        return mutated(dice, data) if dice.random() < 0.7 else yaml.safe_dump(altered(dice, yaml.safe_load(data))).encode()

    def open(self, path: Path) -> None:
        raise_for(checked(path))


class _DataSet(Reader):
    make: Callable[..., Path]
    content = b""

    def read(self, dice: random.Random | None) -> None:
        raise_for(checked(type(self).make(self.folder, self.damaged(dice, self.content) if dice else self.content), ("cat", "dog")))

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data)


class YoloLabels(_DataSet):
    make, content = yolo, ROWS


class VocXml(_DataSet):
    make, content = voc_set, XML


class CocoJson(_DataSet):
    make, content = coco, JSON

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data) if dice.random() < 0.6 else json.dumps(altered(dice, json.loads(data))).encode()


OUTLINES = b"0 0.5 0.5 0.2 0.2\n1 .1 .2 .5 .2 .5 .6 .1 .6\n0 .3 .4 .4 .4 .2 .3 2 .4 .5 1 0 0 0\n1 .3 .2 .5 .4 .3 .6\n"


class YoloOutlines(_DataSet):
    """Polygons and poses among boxes."""

    make, content = yolo, OUTLINES


class VocEncodings(_DataSet):
    """Annotations that declare an encoding, and objects with outlines instead of boxes."""

    make = voc_set
    outline = "<object><name>红</name><polygon><x1>5</x1><y1>6</y1><x2>50</x2><y2>7</y2><x3>20</x3><y3>40</y3></polygon></object>"
    turned = "<object><name>绿</name><robndbox><cx>50</cx><cy>25</cy><w>20</w><h>10</h><angle>0.5</angle></robndbox></object>"
    content = f'<?xml version="1.0" encoding="gb2312"?>\n<annotation>{outline}{turned}</annotation>\n'.encode("gbk")


class CocoOutlines(CocoJson):
    """Polygons and masks in the place of boxes, ids and boxes as text."""

    content = b"""{"images": [{"id": "7", "file_name": "x\\\\a.png"}, {"id": 8.0, "file_name": "/data/b.png"}], "annotations": [
{"id": "1", "image_id": 7, "category_id": "90", "bbox": [], "segmentation": [[1, 2, 30, 2, 30, 20]], "iscrowd": "0"},
{"id": 2, "image_id": "7", "category_id": 1.0, "segmentation": {"counts": [60, 10, 40, 10], "size": [50, 100]}, "iscrowd": 1},
{"id": 3, "image_id": 8, "category_id": 1, "bbox": null, "segmentation": {"counts": "l1:W1", "size": [50, 100]}},
{"id": 4, "image_id": 7, "category_id": 1, "bbox": ["5", "5", "9", "9"]}], "categories": [{"id": "90", "name": "brush"}, {"id": 1, "name": 5}]}"""


def labelme_set(root: Path, document: bytes) -> Path:
    for stem in ("good", "x"):
        picture(root / "val" / f"{stem}.png")
    text(
        root / "val" / "good.json", '{"shapes": [{"label": "cat", "points": [[1, 2], [30, 20]], "shape_type": "rectangle"}], "imagePath": "good.png"}'
    )
    text(root / "val" / "x.json", document)
    text(root / "val" / "inside.json", document.replace(b"x.png", b"nowhere.png"))
    return root


class LabelmeJson(_DataSet):
    make = labelme_set
    content = b"""{"version": "5.0", "shapes": [{"label": "cat", "points": [[1, 2], [30, 20]], "shape_type": "rectangle"},
{"label": "dog", "points": [[50, 25], [53, 29]], "shape_type": "circle"}, {"label": "emu", "points": [[1, 1], [9, 1], [5, 9]]}],
"imagePath": "..\\\\x.png", "imageData": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}"""

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data) if dice.random() < 0.6 else json.dumps(altered(dice, json.loads(data))).encode()


def supervisely_set(root: Path, document: bytes) -> Path:
    for stem in ("good", "x"):
        picture(root / "val" / "img" / f"{stem}.png")
        points = '{"exterior": [[1, 2], [30, 20]]}'
        whole = f'{{"objects": [{{"classTitle": "cat", "geometryType": "rectangle", "points": {points}}}], "size": {{}}}}'
        text(root / "val" / "ann" / f"{stem}.png.json", whole if stem == "good" else document)
    return root


class SuperviselyJson(LabelmeJson):
    make = supervisely_set
    _mask = base64.b64encode(zlib.compress(cv2.imencode(".png", np.full((5, 7, 4), 255, np.uint8))[1].tobytes())).decode()
    content = b"""{"description": "", "size": {"height": 50, "width": 100}, "objects": [
{"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [30, 20]], "interior": []}},
{"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": [[1, 2], [30, "20"], [4.5, 40]], "interior": [[]]}},
{"classTitle": "emu", "geometryType": "bitmap", "bitmap": {"origin": [3, 4], "data": "%s"}}]}""" % _mask.encode()


class DatumaroJson(CocoJson):
    content = b"""{"info": {}, "categories": {"label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog"}]}, "points": {"items": []}},
"items": [{"id": "a", "annotations": [{"id": 0, "type": "bbox", "attributes": {"is_crowd": false}, "label_id": 0, "bbox": [1.5, 2, 30, 20]},
{"type": "polygon", "label_id": 1, "points": [1, 2, 30, 2, 30, 20]}, {"type": "label", "label_id": 1},
{"type": "mask", "label_id": 1, "rle": {"counts": "l1:W1", "size": [50, 100]}}], "image": {"path": "a.png", "size": [50, 100]}},
{"id": "b", "annotations": [], "media": {"path": ""}}]}"""


class _Listed(Reader):
    """A data set of several text files, one of which is damaged. files: their contents by name."""

    files: ClassVar[dict[str, bytes]]

    def __init__(self, folder: Path) -> None:
        deeper = folder / "a" / "b" / "c"  # than `../..` leads out of
        deeper.mkdir(parents=True)
        super().__init__(deeper)

    def read(self, dice: random.Random | None) -> None:
        damaged = dice.choice(sorted(self.files)) if dice else ""
        for name, content in self.files.items():
            text(self.folder / name, mutated(dice, content) if dice and name == damaged else content)
        for stem in "ab":
            picture(self.folder / "pictures" / f"{stem}.png")
        raise_for(checked(self.folder))


class DarknetLists(_Listed):
    files: ClassVar[dict[str, bytes]] = {
        "obj.data": b"classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": b"cat\ndog\n",
        "train.txt": b"data/pictures/a.png\n",
        "valid.txt": b"data/pictures/b.png\npictures\\a.png\n",
        "pictures/a.txt": ROWS,
        "pictures/b.txt": ROWS,
    }


class PairLists(_Listed):
    files: ClassVar[dict[str, bytes]] = {
        "label_list.txt": b"cat\ndog\n",
        "train.txt": b"pictures/a.png annotations/a.xml\n",
        "valid.txt": b"./pictures/b.png ./annotations/b.xml\npictures\\a.png\tannotations\\a.xml\n",
        "annotations/a.xml": XML,
        "annotations/b.xml": XML,
    }


class NameFiles(Reader):
    """Files of class names in every format, one damaged; those are looked for beside YOLO labels."""

    kinds: ClassVar[dict[str, bytes]] = {
        "classes.txt": b"0: cat\n1: dog\n",
        "names.txt": b'"cat"\n"dog"\n',
        "classes.yaml": b"names: {0: cat, 1: dog}\nnc: 2\n",
        "label_map.yml": b"- cat\n- dog\n",
        "classes.json": b'{"classes": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}',
        "label_map.json": b'{"cat": 0, "dog": 1}',
        "label_map.pbtxt": b"item {\n  id: 1\n  name: 'cat'\n}\nitem { id: 2 name: 'dog' display_name: \"dog\" }\n",
        "classes.csv": b'id,name\n0,cat\n1,"dog"\n',
        "notes.json": b'{"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {"year": 2024}}',
        "my.names": b"cat\ndog\n",
        "mine.yaml": b"nc: 2\nnames: [cat, dog]\n",
    }

    def read(self, dice: random.Random | None) -> None:
        name = dice.choice(sorted(self.kinds)) if dice else "classes.txt"
        for old in self.kinds:
            (self.folder / old).unlink(missing_ok=True)
        text(self.folder / name, mutated(dice, self.kinds[name]) if dice else self.kinds[name])
        raise_for(checked(yolo(self.folder, ROWS)))


class LabelMap(Reader):
    """CVAT's labelmap.txt beside VOC annotations."""

    def read(self, dice: random.Random | None) -> None:
        content = b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:4,5,6:head,tail:run\n"
        text(self.folder / "labelmap.txt", mutated(dice, content) if dice else content)
        raise_for(checked(voc_set(self.folder, XML)))


class Hints(Reader):
    """Files of formats that are not read: whatever is in them, the folder is refused in one line."""

    kinds: ClassVar[dict[str, bytes]] = {
        "annotations.xml": b"<?xml version='1.0'?><annotations><version>1.1</version><image id='0'/></annotations>",
        "project.json": b'[{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}]',
        "create.json": b'[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]',
        "via.json": b'{"a.jpg1": {"regions": [{"shape_attributes": {"name": "rect"}}]}}',
        "labels.json": b'{"labels": {"a": [{"label": 0, "bounding_box": [0, 0, 1, 1]}]}}',
        "meta.json": b'{"classes": [{"title": "cat", "shape": "any"}], "tags": []}',
        "bdd.json": b'[{"name": "0.jpg", "labels": [{"category": "car", "box2d": {"x1": 1}}]}]',
        "label_2/0.txt": b"Car 0.00 0 1.85 10.0 5.0 40.0 25.0 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n",
        "annotations/0.txt": b"10,5,30,20,1,4,0,0\n",
        "labelTxt/0.txt": b"imagesource:GoogleEarth\ngsd:0.1\n10.0 5.0 40.0 5.0 40.0 25.0 10.0 25.0 plane 0\n",
        "x/_annotations.csv": b"a.jpg,1,2,3,4,cat\n",
        "obj.data": b"classes = 2\nnames = obj.names\n",
        "data.yaml": b"nc: 2\nnames: [cat, dog]\n",
        "train.txt": b"nowhere\n",
    }

    def read(self, dice: random.Random | None) -> None:
        picture(self.folder / "pictures" / "0.png")
        for name, content in self.kinds.items():
            (self.folder / name).unlink(missing_ok=True)
            if not dice or dice.random() < 0.3:
                text(self.folder / name, mutated(dice, content) if dice else content)
        if dice:
            raise_for(checked(self.folder))
        else:
            assert isinstance(checked(self.folder), InputError)


class DataIndex(Reader):
    """The cache of a data set, which may be in any state: what is read must be the same without it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cache = folder / "cache"
        self.data = voc_set(folder / "data", XML)
        self.outside = os.environ.get("XDG_CACHE_HOME")
        self.dataset = self.opened()
        self.path = next((self.cache / "octrim").iterdir())
        self.whole = self.path.read_bytes()

    def opened(self) -> Any:
        from octrim.data.open import open_dataset

        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        try:
            return open_dataset(self.data, "val")
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if self.outside:
                os.environ["XDG_CACHE_HOME"] = self.outside

    def read(self, dice: random.Random | None) -> None:
        data = self.whole
        if dice and dice.random() < 0.3:
            data = flipped(dice, data)
        elif dice:  # entries changed, so that check sums fit
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            name = dice.choice(sorted(parts))
            parts[name] = flipped(dice, parts[name])
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for entry, content in parts.items():
                    archive.writestr(entry, content)
            data = buffer.getvalue()
        self.path.write_bytes(data)
        found = self.opened()
        assert (found.names, found.paths) == (self.dataset.names, self.dataset.paths)
        np.testing.assert_array_equal(found.boxes, self.dataset.boxes)


class SourceList(BytesReader):
    name = "list.txt"

    def whole(self) -> Sequence[bytes]:
        for name in ("a.png", "b.png"):
            (self.folder / name).write_bytes(b"never decoded")
        return [b"# pictures\na.png\n./b.png\n\nrtsp://user:secret@10.0.0.1/live?x=1\nhttp://host/a.jpg\n0\n"]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data)

    def open(self, path: Path) -> None:
        source = open_source(path)
        assert source.parts
        assert all("://" not in str(picture) for picture in source.pictures)


class Pictures(BytesReader):
    name = "a.png"

    def whole(self) -> Sequence[bytes]:
        scene = drawn_scene(1, 40, 56)
        deep = scene.astype(np.uint16) * 257
        kinds = [(".jpg", scene, []), (".jpg", scene, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".png", scene, []), (".png", deep, [])]
        kinds += [(".bmp", scene, []), (".webp", scene, []), (".tiff", scene, []), (".gif", scene, []), (".ppm", scene, []), (".jp2", scene, [])]
        kinds += [(".avif", scene, []), (".png", np.dstack([scene, scene[:, :, 0]]), []), (".jpg", scene[:, :, 0], [])]
        files = []
        for suffix, image, options in kinds:
            try:
                encoded, data = cv2.imencode(suffix, image, options)
            except cv2.error:  # an encoder that this OpenCV lacks
                continue
            if encoded:
                files.append(data.tobytes())
        exif = b"\xff\xe1\x00\x22Exif\0\0MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
        return [*files, files[0][:2] + exif + files[0][2:]]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        data = flipped(dice, data)
        return _png_sums(data) if data[:4] == b"\x89PNG" and dice.random() < 0.7 else data

    def open(self, path: Path) -> None:
        from octrim.data.pictures import MOST_PIXELS, read_picture
        from octrim.data.probe import picture_facts

        facts = picture_facts([str(path)])
        assert (facts["size"] > 0).all() or facts["problem"].all()
        image = read_picture(path)
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert image.shape[0] * image.shape[1] <= MOST_PIXELS


def _png_sums(data: bytes) -> bytes:
    """A PNG with check sums that fit its chunks again: decoders look no further otherwise."""
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if position + 12 + size > len(data):
            break
        body = data[position + 4 : position + 8 + size]
        parts += [data[position : position + 4], body, struct.pack(">I", zlib.crc32(body))]
        position += 12 + size
    return b"".join(parts) + data[position:]


class Video(BytesReader):
    name = "a.avi"

    def whole(self) -> Sequence[bytes]:
        files = []
        for name, code in (("a.avi", "MJPG"), ("a.mp4", "mp4v")):
            writer = cv2.VideoWriter(str(self.folder / name), cv2.VideoWriter.fourcc(*code), 25, (64, 48))
            for index in range(4):
                writer.write(drawn_scene(index, 48, 64))
            writer.release()
            files.append((self.folder / name).read_bytes())
        return files

    def open(self, path: Path) -> None:
        told: list[str] = []
        for count, frame in enumerate(open_source(path, report=told.append)):
            if frame.error is not None:
                raise InputError(frame.error)
            assert isinstance(frame.image, np.ndarray)
            if count == 20:
                break
        assert len(told) <= 1
        assert all(line.isprintable() for line in told)


def raise_for(found: object) -> None:
    if isinstance(found, InputError):
        raise found
