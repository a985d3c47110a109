"""Every reader of files that users bring, with a whole file of its kind, damage for it, and what must hold of what it accepts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
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
from octrim.network.cost import network_cost
from octrim.network.model import Model, load
from octrim.network.rows import Network
from octrim.network.yolov5 import yolov5_network
from tests.checkpoints import save_checkpoint, write_archive
from tests.data.holding import JSON, ROWS, XML, checked, coco, voc_set, yolo
from tests.fuzz.mutations import altered, flipped, mutated, rewired
from tests.networks import lively_model

TINY = """nc: 2
depth_multiple: 1.0  # repeats
width_multiple: 1.0
anchors:
  - [10, 13, 16, 30]
  - [30, 61, 62, 45]
activation: nn.LeakyReLU(0.1)
backbone:
  - [-1, 1, Conv, [8, 6, 2, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, C3, [8]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, C3, [8, False]]
  - [[7, 4], 1, Detect, [nc, anchors]]
"""

DATA_YAML = b"path: .\ntrain: [images/val]\nval:\n  - images/val\n  - list.txt\ntest: null\nnc: 2\nnames: {0: cat, 1: dog}\n"
HYP = (
    b"lr0: 0.01\nlrf: 0.1\nmomentum: 0.9\nwarmup_epochs: 3.0\nhsv_h: 0.015\nhsv_s: 0.7\n"
    b"degrees: 5\nscale: 0.5\nfliplr: 0.5\nmosaic: 1.0\nmixup: 1e-1\n"
)


def tiny_model(folder: Path) -> Model:
    (folder / "tiny.yaml").write_text(TINY)
    return lively_model(yolov5_network(folder / "tiny.yaml"))


class Reader:
    """One reader. `folder` is its own and stays over all inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, dice: random.Random | None) -> None:
        """Damage a whole file and read it; without dice, the whole one. Raises InputError where it is refused, AssertionError where what was
        accepted breaks its contract."""
        raise NotImplementedError


class _Bytes(Reader):
    """Of one file: whole ones to choose from, one damage, one function that reads it."""

    name = ""

    def whole(self) -> Sequence[bytes]:
        raise NotImplementedError

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = self.whole()
        self.path = folder / self.name

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return flipped(dice, data)

    def open(self, path: Path) -> None:
        raise NotImplementedError

    def read(self, dice: random.Random | None) -> None:
        data = dice.choice(self.files) if dice else self.files[0]
        self.path.write_bytes(self.damaged(dice, data) if dice else data)
        self.open(self.path)


class Checkpoint(_Bytes):
    name = "a.pt"

    def whole(self) -> Sequence[bytes]:
        model = tiny_model(self.folder)
        files = []
        for stripped, protocol in ((True, 2), (False, 2), (True, 4)):
            save_checkpoint(self.folder / self.name, model, str(self.folder / "tiny.yaml"), stripped=stripped, protocol=protocol)
            files.append((self.folder / self.name).read_bytes())
        return files

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        kind = dice.randrange(5)
        if kind == 0:  # the archive, whose check sums then seldom fit
            return flipped(dice, data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        pickled = parts.pop("data.pkl")
        records = {key.partition("/")[2]: value for key, value in parts.items() if key.startswith("data/")}
        if kind == 1:
            key = dice.choice(sorted(records))
            records[key] = flipped(dice, records[key])
        else:
            pickled = rewired(dice, pickled) if kind < 4 else flipped(dice, pickled)
        write_archive(self.path, pickled, records)
        return self.path.read_bytes()

    def open(self, path: Path) -> None:
        holds(load(path))


class ModelFile(_Bytes):
    name = "a.safetensors"
    key = "octrim"

    def whole(self) -> Sequence[bytes]:
        model = tiny_model(self.folder)
        model.save(self.folder / self.name)
        files = [(self.folder / self.name).read_bytes()]
        scales = {"model.0.scale": np.float32(0.5), "model.1.weight_scale": np.full(8, 0.25, np.float32)}
        try:
            Model(model.network, model.tensors, model.names, scales={key: np.asarray(value, np.float32) for key, value in scales.items()}).save(
                self.folder / self.name
            )
        except InputError:
            return files
        return [*files, (self.folder / self.name).read_bytes()]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        kind = dice.randrange(4)
        if kind == 0:
            return flipped(dice, data)
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        if kind == 1:  # the container's own header: shapes, types, places
            header = altered(dice, header)
        else:
            inner = json.loads(header["__metadata__"][self.key])
            header["__metadata__"][self.key] = json.dumps(altered(dice, inner)) if kind == 2 else _text(mutated(dice, json.dumps(inner).encode()))
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        text = mutated(dice, text) if dice.random() < 0.05 else text
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    def open(self, path: Path) -> None:
        holds(load(path))


class TrainingState(ModelFile):
    name = "state.safetensors"
    key = "octrim-training"

    def whole(self) -> Sequence[bytes]:
        from octrim.training.checkpoint import State, kind_of, save_state, tensor_shapes

        network = tiny_model(self.folder).network
        sizes = {name: int(np.prod(shape)) for name, shape in tensor_shapes(network).items()}
        total, parameters = sum(sizes.values()), sum(size for name, size in sizes.items() if kind_of(name) < 3)
        counts = {"values": total, "average": total, "gradient": parameters, "moment0": parameters, "moment1": parameters}
        arrays = {name: np.zeros(count, np.float32) for name, count in counts.items()}
        rows = [{"epoch": 0, "loss": 1.5}]
        state = State(network, ("a", "b"), 64, ({"action": "made up"},), "digest", arrays, 1, 2, 1, 8, 8, rows=rows, best=(0.5, 0), extra={"x": [1]})
        save_state(state, self.folder / self.name)
        return [(self.folder / self.name).read_bytes()]

    def open(self, path: Path) -> None:
        from octrim.training.checkpoint import load_state

        state = load_state(path)
        holds(state.averaged({"action": "test"}))


def holds(model: Model) -> None:
    """What was accepted is a network that can be counted, planned and saved."""
    from octrim.pruning.plan import plan

    try:
        network_cost(model.network, model.network.stride, model.network.stride)
        plan(model, "1/2", criterion="random")
    except InputError:
        pass  # a picture of one cell may be too small, and all convolutions may be heads
    assert model.names
    assert all(tensor.dtype == np.float32 for tensor in model.tensors.values())
    Network.from_json(json.loads(json.dumps(model.network.to_json())), json.loads(json.dumps(model.network.anchors)))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class LayoutYaml(_Bytes):
    name = "a.yaml"

    def whole(self) -> Sequence[bytes]:
        return [TINY.encode()]

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return mutated(dice, data) if dice.random() < 0.6 else yaml.safe_dump(altered(dice, yaml.safe_load(data))).encode()

    def open(self, path: Path) -> None:
        network = yolov5_network(path)
        network_cost(network, network.stride * 4, network.stride * 4)


class DataYaml(_Bytes):
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


class Hyper(LayoutYaml):
    name = "hyp.yaml"

    def whole(self) -> Sequence[bytes]:
        return [HYP]

    def open(self, path: Path) -> None:
        from octrim.training.hyper import read_hyperparameters

        found = read_hyperparameters(str(path))
        assert np.isfinite([found.lr0, found.box, found.mosaic]).all()


class KeepMap(LayoutYaml):
    name = "map.yaml"

    def whole(self) -> Sequence[bytes]:
        self.model = tiny_model(self.folder)
        return [b'{"model.0": 1, "model.2.*": "1/2", "model.7.cv?": 0.25}', b"model.0: 1\nmodel.[12].*: 1/8\n'model.4.*': 3/4\n"]

    def open(self, path: Path) -> None:
        from octrim.pruning.command import read_keep_map
        from octrim.pruning.plan import plan

        made = plan(self.model, "1/2", criterion="random", keep_map=read_keep_map(str(path)))
        json.dumps(made.to_json())


class RunFolder(Reader):
    """What a run reads of its own folder to go on: config.yaml, start.json, stage.json, sensitivity.json."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from dataclasses import asdict

        from octrim.commands import Compress, Train
        from octrim.compression.presets import PRESETS
        from octrim.runs import Run
        from octrim.training.sensitivity_curves import FRACTIONS

        Run(folder, Train(weights="a.pt", data="b", imgsz=(64, 96), freeze=("1",), epochs=2, lr0=0.1))
        train = (folder / "config.yaml").read_bytes()
        Run(folder, Compress(weights="a.pt", data="b", keep="1/4"))
        compress = (folder / "config.yaml").read_bytes()
        start = {"preset": asdict(next(iter(PRESETS.values()))), "sha256": {"weights": "a" * 64, "data": "b" * 64}}
        curve = {"name": "model.0", "convs": ["model.0"], "channels": 8, "kept": [4] * len(FRACTIONS), "values": [0.5] * len(FRACTIONS)}
        curves = {"baseline": 0.5, "metric": "map", "pictures": 3, "fractions": list(FRACTIONS), "digest": "a", "groups": [curve]}
        self.kinds: list[tuple[str, bytes, Callable[[Path], object]]] = [
            ("config.yaml", train, self.trained),
            ("config.yaml", compress, self.compressed),
            ("start.json", json.dumps(start).encode(), self.started),
            ("stage.json", b'{"seconds": 1.5, "network": "a.safetensors", "row": {"mAP50": 0.5}}', self.stage),
            ("sensitivity.json", json.dumps(curves).encode(), self.curves),
        ]

    def read(self, dice: random.Random | None) -> None:
        for kind in [dice.choice(self.kinds)] if dice else self.kinds:
            name, data, reader = kind
            if dice and dice.random() < 0.5:
                document = altered(dice, yaml.safe_load(data))
                data = (yaml.safe_dump(document) if name.endswith("yaml") else json.dumps(document)).encode("utf-8", "replace")
            elif dice:
                data = mutated(dice, data)
            (self.folder / name).write_bytes(data)
            reader(self.folder / name)

    def trained(self, path: Path) -> None:
        from octrim.commands import Train
        from octrim.runs import stored_config

        stored_config(Train(resume=str(path.parent)), path.parent)

    def compressed(self, path: Path) -> None:
        from octrim.commands import Compress
        from octrim.runs import stored_config

        stored_config(Compress(resume=str(path.parent)), path.parent)

    def started(self, path: Path) -> None:
        from octrim.commands import Compress
        from octrim.compression.start import remembered

        remembered(path.parent, Compress())

    def stage(self, path: Path) -> None:
        from octrim.compression.stages import stored

        stored(path.parent)

    def curves(self, path: Path) -> None:
        from octrim.training.sensitivity_curves import load_curves

        load_curves(path)


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


class Pictures(_Bytes):
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


class Video(_Bytes):
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


class EngineHeader(Reader):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = tiny_model(folder)
        self.engine = b"an engine" * 50
        self.header: dict[str, Any] = {
            "format": 1,
            "tensorrt": "10.3.0",
            "gpu": {"name": "a GPU", "capability": "8.7", "memory": 8},
            "names": list(model.names),
            "anchors": [[list(pair) for pair in level] for level in model.network.anchors],
            "strides": list(model.network.strides),
            "stride": model.network.stride,
            "image_size": 64,
            "size": [64, 64],
            "table": model.network.to_json(),
            "precision": "fp16",
            "batch": [1, 1, 4],
            "input": "uint8",
            "decode": True,
            "sha256": {"engine": hashlib.sha256(self.engine).hexdigest(), "weights": "b" * 64},
            "lineage": [],
        }

    def read(self, dice: random.Random | None) -> None:
        from octrim.backends.engine_file import header_path, read_engine

        path = self.folder / "a.engine"
        path.write_bytes(flipped(dice, self.engine) if dice and dice.random() < 0.05 else self.engine)
        text = json.dumps(self.header).encode()
        if dice:
            text = mutated(dice, text) if dice.random() < 0.3 else json.dumps(altered(dice, self.header)).encode()
        header_path(path).write_bytes(text)
        header, _ = read_engine(path)
        assert len(header.names) == header.network.classes


class _Deployable(Reader):
    """A file that a runtime opens, and a batch of one through it where it opens."""

    def run(self, path: Path, runtime: str | None) -> None:
        from octrim.backends.session import open_session

        session = open_session(path, runtime, threads=1)
        height, width = session.info.size or (session.info.stride * 2,) * 2
        if max(height, width) > 512 or (session.info.batch or 1) > 4:
            return
        out = session(np.zeros((session.info.batch or 1, height, width, 3), np.uint8))
        assert out.ndim == 3


class OnnxFile(_Deployable):
    runtimes: tuple[str, ...] = ("onnxruntime",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from octrim.backends.onnx import onnx_model

        self.graph = onnx_model(tiny_model(folder), 64, 64, 1)
        self.whole = self.graph.SerializeToString()
        self.described = next(item.value for item in self.graph.metadata_props if item.key == "octrim")

    def read(self, dice: random.Random | None) -> None:
        import onnx

        data = self.whole
        if dice and dice.random() < 0.4:
            data = flipped(dice, data)
        elif dice:
            graph = onnx.ModelProto()
            graph.CopyFrom(self.graph)
            for _ in range(dice.choice((1, 1, 2))):
                item = dice.choice(graph.metadata_props)
                if item.key == "octrim" and dice.random() < 0.7:
                    item.value = json.dumps(altered(dice, json.loads(self.described)))
                elif dice.random() < 0.1:
                    item.key = _text(mutated(dice, item.key.encode()))
                else:
                    item.value = _text(mutated(dice, item.value.encode()))
            data = graph.SerializeToString()
        path = self.folder / "a.onnx"
        path.write_bytes(data)
        self.run(path, dice.choice(self.runtimes) if dice else self.runtimes[0])


class OnnxInOpenvino(OnnxFile):
    runtimes = ("openvino",)


class OpenvinoFile(_Deployable):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import openvino as ov

        from octrim.backends.openvino import openvino_model

        ov.save_model(openvino_model(tiny_model(folder), 64, 64, 1), folder / "a.xml")
        self.xml, self.bin = (folder / "a.xml").read_bytes(), (folder / "a.bin").read_bytes()

    def read(self, dice: random.Random | None) -> None:
        xml, weights = self.xml, self.bin
        if dice and dice.random() < 0.15:
            weights = flipped(dice, weights)
        elif dice and dice.random() < 0.5:  # OcTrim's own part, at the end
            start = xml.rindex(b"<rt_info>")
            xml = xml[:start] + mutated(dice, xml[start:])
        elif dice:
            xml = mutated(dice, xml)
        (self.folder / "a.xml").write_bytes(xml)
        (self.folder / "a.bin").write_bytes(weights)
        self.run(self.folder / "a.xml", None)


class PaddleFolder(_Deployable):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from octrim.backends.paddle_inference import FILES, write_paddle_inference

        write_paddle_inference(tiny_model(folder), folder, 64, 64)
        self.files = {name: (folder / name).read_bytes() for name in FILES}

    def read(self, dice: random.Random | None) -> None:
        for name, data in self.files.items():
            (self.folder / name).write_bytes(data)
        if dice:  # the program and its weights are Paddle's to read
            data = self.files["octrim.json"]
            data = json.dumps(altered(dice, json.loads(data))).encode() if dice.random() < 0.5 else mutated(dice, data)
            (self.folder / "octrim.json").write_bytes(data)
        self.run(self.folder, None)


def raise_for(found: object) -> None:
    if isinstance(found, InputError):
        raise found


READERS: dict[str, tuple[type[Reader], int]] = {
    "checkpoint": (Checkpoint, 12_000),
    "model file": (ModelFile, 12_000),
    "training state": (TrainingState, 3_000),
    "layout": (LayoutYaml, 8_000),
    "data.yaml": (DataYaml, 7_000),
    "hyper-parameters": (Hyper, 3_000),
    "keep-map": (KeepMap, 3_000),
    "run folder": (RunFolder, 4_000),
    "YOLO labels": (YoloLabels, 8_000),
    "VOC annotations": (VocXml, 8_000),
    "COCO annotations": (CocoJson, 8_000),
    "index of a data set": (DataIndex, 2_000),
    "pictures": (Pictures, 12_000),
    "video": (Video, 1_000),
    "engine header": (EngineHeader, 5_000),
    "ONNX in ONNX Runtime": (OnnxFile, 3_000),
    "ONNX in OpenVINO": (OnnxInOpenvino, 2_000),
    "OpenVINO IR": (OpenvinoFile, 2_000),
    "Paddle Inference": (PaddleFolder, 500),
}
"""Every reader, and how many inputs it gets offline."""


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
