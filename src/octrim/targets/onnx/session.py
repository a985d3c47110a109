"""Sessions that run a model's own graph, or an ONNX file, in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from octrim.backends.numpy import decode
from octrim.errors import InputError, said
from octrim.machine import cores_of_quota
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.metadata import BLANK, detector_output, file_info, values_per_box
from octrim.targets.onnx.graph import LOGITS, onnx_model
from octrim.targets.session import PerShape, Session, float_batch, model_info


def _open(graph: bytes | str, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # silent, because its errors come as exceptions, too
    options.intra_op_num_threads = threads or cores_of_quota() or 0
    # The fallback to other providers is switched off: there is none, and it would print a message.
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _version() -> str:
    return str(onnxruntime.__version__)


class OnnxruntimeSession(Session):
    """Session that builds an ONNX graph from the table, one per shape, and runs it in ONNX Runtime."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        super().__init__(model_info(model, "onnxruntime", _version(), precision))

        def build(batch: int, height: int, width: int) -> Any:
            return _open(onnx_model(model, height, width, batch, precision).SerializeToString(), threads)

        self.sessions = PerShape(build)

    def ready(self, batch: int, height: int, width: int) -> None:
        self.sessions(batch, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        session = self.sessions(*batch.shape[:3])
        try:
            return session.run(None, {"images": float_batch(batch)})[0]
        except Exception as error:  # ONNX Runtime raises its own classes; the cause is most likely lack of memory
            raise InputError(f"ONNX Runtime cannot run this network on {list(batch.shape)}: {said(error)}") from None


class OnnxruntimeFileSession(Session):
    """Session that runs an ONNX file of the YOLOv5 contract, exported by OcTrim or YOLOv5, in ONNX Runtime.

    Logits of an export with raw heads are decoded in NumPy.
    """

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        try:
            self.session = _open(str(path), threads)
            taken, given = self.session.get_inputs(), self.session.get_outputs()
            metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # onnxruntime raises its own classes for files it cannot read
            suppresses = "NMS_TRT" in str(error)
            why = "it suppresses boxes within the graph, by a layer of TensorRT (end2end); export it without" if suppresses else said(error)
            raise InputError(f"{path}: ONNX Runtime cannot read it: {why}") from None
        kind = {"tensor(float)": "fp32", "tensor(float16)": "fp16"}.get(taken[0].type) if len(taken) == 1 else None
        if kind is None or not given:
            raise InputError(f"{path}: takes {[one.type for one in taken]}, expected one float picture")
        dimensions = [side if isinstance(side, int) else None for side in taken[0].shape]
        outputs = [(one.name, [side if isinstance(side, int) else None for side in one.shape] or None) for one in given]
        actual = metadata.get("precision", kind)
        if precision not in ("fp32", actual):  # fp32 is the default, so it is accepted for every file
            raise InputError(f"{path}: was exported in {actual}; ONNX Runtime cannot run it in {precision}")
        self.path = path
        self.input = taken[0].name
        self.dtype = np.float16 if kind == "fp16" else np.float32
        self.heads: Network | None = None
        if metadata.get("outputs") == LOGITS:
            self.outputs = [name for name, _ in outputs]
            info = file_info(path, metadata, dimensions, (None, None, values_per_box(metadata)), "onnxruntime", _version(), actual)
            self.heads = info.network
            if info.network is None or [len(shape or ()) for _, shape in outputs] != [4] * len(info.network.strides):
                raise InputError(f"{path}: its metadata says that it gives logits, and its outputs are not those of a network's levels")
            super().__init__(info)
            return
        number = detector_output(path, outputs)
        self.outputs = [outputs[number][0]]

        def measured() -> list[int]:
            batch, _, height, width = dimensions
            return list(self.run(np.zeros((batch or 1, height or BLANK, width or BLANK, 3), np.uint8)).shape)

        super().__init__(file_info(path, metadata, dimensions, outputs[number][1], "onnxruntime", _version(), actual, measured))

    def run(self, batch: np.ndarray) -> np.ndarray:
        images = float_batch(batch).astype(self.dtype, copy=False)
        try:
            found = [one.astype(np.float32, copy=False) for one in self.session.run(self.outputs, {self.input: images})]
        except Exception as error:  # ONNX Runtime raises its own classes
            raise InputError(f"{self.path}: ONNX Runtime cannot run it on {list(batch.shape)}: {said(error)}") from None
        return found[0] if self.heads is None else decode(self.heads, found)
