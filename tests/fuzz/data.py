"""Readers of data sets, their annotations and their index, of pictures and of video."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.errors import InputError
from tests.data.holding import JSON, ROWS, XML, checked, coco, voc_set, yolo
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
        from octrim.data.pictures import MAX_PIXELS, read_picture
        from octrim.data.probe import picture_facts

        facts = picture_facts([str(path)])
        assert (facts["size"] > 0).all() or facts["problem"].all()
        image = read_picture(path)
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert image.shape[0] * image.shape[1] <= MAX_PIXELS


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
        for count, frame in enumerate(open_source(path)):
            assert isinstance(frame.image, np.ndarray)
            if count == 20:
                break


def raise_for(found: object) -> None:
    if isinstance(found, InputError):
        raise found
