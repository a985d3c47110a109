"""Sessions that run a model's own graph, or a `.tflite` file, in LiteRT."""

from __future__ import annotations

from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from octrim.backends.numpy import decode
from octrim.errors import InputError, said, shown
from octrim.machine import quiet_stderr, usable_cores
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.litert.builder import metadata_of, sound
from octrim.targets.litert.file import litert_file
from octrim.targets.metadata import file_info
from octrim.targets.session import PerShape, Session, model_info


def version() -> str:
    return package_version("ai-edge-litert")


class LitertSession(Session):
    """Session that writes a model's `.tflite` file in memory, once per size, and runs it. Batches are a loop over pictures."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        super().__init__(model_info(model, "litert", version(), precision))
        self.graphs = PerShape(
            lambda _batch, height, width: Graph(litert_file(model, height, width, precision), model.network, "this network", threads)
        )

    def ready(self, batch: int, height: int, width: int) -> None:
        self.graphs(1, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.graphs(1, *batch.shape[1:3])(batch)


class LitertFileSession(Session):
    """Session that runs a `.tflite` file of OcTrim's. Its sha256 is compared first, because LiteRT trusts what it reads."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        content = path.read_bytes()
        whole = sound(content)
        if whole is None:
            raise InputError(f"{path}: no file that OcTrim wrote; of other .tflite files it does not know what their numbers mean")
        if not whole:
            raise InputError(f"{path}: it is damaged: its sha256 is not the one that it was written with")
        metadata, actual, height, width, values = _described(path, content)
        if precision not in ("fp32", actual):  # fp32 is the default, so it is accepted for every file
            raise InputError(f"{path}: was exported in {actual}; LiteRT cannot run it in {precision}")
        info = file_info(path, metadata, (None, 3, height, width), (None, None, values), "litert", version(), actual)
        super().__init__(info)
        if info.network is None:
            raise InputError(f"{path}: it is damaged: no table of the network in its metadata")
        self.graph = Graph(content, info.network, str(path), threads)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.graph(batch)


def _described(path: Path, content: bytes) -> tuple[dict[str, Any], str, int, int, int]:
    """The metadata of a file whose sha256 is right, and of it precision, height, width and values per box. Raises InputError for what OcTrim does not
    write."""
    try:
        metadata = metadata_of(content)
        _, height, width, _ = (int(side) for side in metadata["tensors"]["images"]["shape"])
        return metadata, str(metadata["precision"]), height, width, int(metadata["values"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: it is damaged: {shown(str(error))} in its metadata") from None


class Graph:
    """A loaded graph: `graph(batch) -> predictions`, with the decoding in NumPy where the graph gives logits.

    Raises InputError where LiteRT cannot load it, and where it cannot run it, most likely for lack of memory.
    """

    def __init__(self, content: bytes, network: Network, name: str, threads: int | None) -> None:
        self.network, self.name = network, name
        try:
            with quiet_stderr():
                self.interpreter: Any = Interpreter(model_content=content, num_threads=threads or usable_cores())
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{name}: LiteRT cannot load it: {said(error)}") from None
        (self.input,) = self.interpreter.get_input_details()
        self.outputs = self.interpreter.get_output_details()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """uint8 RGB `[n, height, width, 3]` to float32 `[n, boxes, 5 + classes]`."""
        found = [self.one(picture) for picture in batch]
        return np.concatenate(found) if found else self.one(np.zeros(self.input["shape"][1:], np.uint8))[:0]

    def one(self, picture: np.ndarray) -> np.ndarray:
        """Predictions `[1, boxes, 5 + classes]` for a picture."""
        if self.input["dtype"] == np.int8:
            values = (picture ^ np.uint8(128)).view(np.int8)  # less 128
        else:
            values = np.multiply(picture, np.float32(1 / 255), dtype=np.float32)
        self.interpreter.set_tensor(self.input["index"], values[None])
        try:
            self.interpreter.invoke()
        except RuntimeError as error:
            raise InputError(f"{self.name}: LiteRT cannot run it: {said(error)}") from None
        given = [_float(self.interpreter.get_tensor(one["index"]), one) for one in self.outputs]
        if len(given) == 1 and given[0].ndim == 3:
            return given[0]
        return decode(self.network, [head.transpose(0, 3, 1, 2) for head in given])


def _float(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """The values of a tensor; of integers what they mean."""
    if values.dtype == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
