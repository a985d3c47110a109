"""Readers of deployed files: engine headers, ONNX, OpenVINO IR, folders of Paddle Inference."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutations import altered, flipped, mutated
from tests.fuzz.reader import Reader, decoded, tiny_model


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
        from octrim.targets.tensorrt.engine_file import header_path, read_engine

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
        from octrim.targets.opening import open_session

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
        from octrim.targets.onnx.graph import onnx_model

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
                    item.key = decoded(mutated(dice, item.key.encode()))
                else:
                    item.value = decoded(mutated(dice, item.value.encode()))
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

        from octrim.targets.openvino.graph import openvino_model

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
        from octrim.targets.paddle_inference.graph import FILES, write_paddle_inference

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


class LitertFile(_Deployable):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from octrim.targets.litert.file import litert_file

        self.whole = litert_file(tiny_model(folder), 64, 64)

    def read(self, dice: random.Random | None) -> None:
        path = self.folder / "a.tflite"
        path.write_bytes(flipped(dice, self.whole) if dice else self.whole)
        self.run(path, None)


class NcnnFolder(_Deployable):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from octrim.targets.ncnn.folder import write_folder

        write_folder(tiny_model(folder), folder, 64, 64, "fp32")
        self.files = {name: (folder / name).read_bytes() for name in ("model.param", "model.bin", "ncnn.json")}

    def read(self, dice: random.Random | None) -> None:
        for name, data in self.files.items():
            (self.folder / name).write_bytes(data)
        if dice and dice.random() < 0.3:
            name = dice.choice(("model.param", "model.bin"))
            (self.folder / name).write_bytes(flipped(dice, self.files[name]))
        elif dice:
            described = altered(dice, json.loads(self.files["ncnn.json"]))
            (self.folder / "ncnn.json").write_bytes(json.dumps(described).encode() if dice.random() < 0.7 else mutated(dice, self.files["ncnn.json"]))
        self.run(self.folder / "model.param", None)
