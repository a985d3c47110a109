"""Sessions that run a model's own graph, or a file, in OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov

from octrim.errors import InputError, said
from octrim.machine import cores_of_quota, quiet_stderr
from octrim.network.model import Model
from octrim.targets.metadata import BLANK, detector_output, file_info
from octrim.targets.openvino.core import core
from octrim.targets.openvino.graph import openvino_model, with_uint8_input
from octrim.targets.openvino.int8 import openvino_int8_model, with_plain_concats
from octrim.targets.rounding import require_float16
from octrim.targets.session import PerShape, Session, model_info


def _compile(graph: Any, precision: str, threads: int | None) -> Any:
    types = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
    if precision not in types:
        raise InputError(f"openvino runs in {', '.join(types)}; {precision} was asked for")
    # Without the hint OpenVINO chooses bf16 on processors that have it, and its results move by a percent.
    # Threads are not pinned: pinned ones wait while another program has their core; on a busy machine the slowest tenth took 1.6 times as long.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": types[precision], "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    threads = threads or cores_of_quota()
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    openvino = core()
    wanted = {"bf16": "BF16", "fp16": "FP16"}.get(precision)
    if wanted and wanted not in openvino.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError(f"this processor has no {precision} in OpenVINO; use --precision fp32")
    return openvino.compile_model(graph, "CPU", config)


def _version() -> str:
    return str(ov.__version__).partition("-")[0]


class OpenvinoSession(Session):
    """Session that builds an OpenVINO graph from the table, one per shape (a fixed batch runs faster than a dynamic one), and runs it. The graph
    itself divides by 255 and changes the layout."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        super().__init__(model_info(model, "openvino", _version(), precision))
        if precision == "fp16":
            require_float16(model)

        def build(batch: int, height: int, width: int) -> Any:
            if precision == "int8":
                return _compile(with_uint8_input(openvino_int8_model(model, height, width, batch)), "fp32", threads).create_infer_request()
            graph = openvino_model(model, height, width, batch, pixels=True)
            return _compile(graph, precision, threads).create_infer_request()

        self.requests = PerShape(build)

    def ready(self, batch: int, height: int, width: int) -> None:
        self.requests(batch, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        try:
            request = self.requests(*batch.shape[:3])
            request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        except RuntimeError as error:  # most likely lack of memory
            raise InputError(f"OpenVINO cannot run this network on {list(batch.shape)}: {said(error)}") from None
        return request.get_output_tensor(0).data.copy()


class OpenvinoFileSession(Session):
    """Session that runs OpenVINO IR, or an ONNX file, in OpenVINO."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        try:
            with quiet_stderr():
                graph = core().read_model(path)
            if path.suffix == ".xml":
                metadata = (
                    {key: value.astype(str) for key, value in graph.get_rt_info(["octrim"]).astype(dict).items()}
                    if graph.has_rt_info("octrim")
                    else {}
                )
            else:
                metadata = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
                if metadata.get("precision") == "int8":
                    graph = with_plain_concats(graph)
            shape = graph.input().get_partial_shape()  # raises an error where there is not exactly one input
            dimensions = [dimension.get_length() if dimension.is_static else None for dimension in shape]
            outputs = [(min(one.get_names(), default=""), _shape(one.get_partial_shape())) for one in graph.outputs]
        except Exception as error:  # OpenVINO raises RuntimeError for unreadable files, onnx raises DecodeError
            raise InputError(f"{path}: OpenVINO cannot read it: {said(error)}") from None
        self.path = path
        stored = metadata.get("precision")
        if precision == "int8" and stored != "int8":
            raise InputError(f"{path}: was not exported in int8; OpenVINO cannot run it in int8")
        # Layers that are int8 in the graph run in int8; the precision asked for is that of the other layers.
        rest = "fp32" if precision == "int8" else precision
        precision = "int8" if stored == "int8" and precision == "fp32" else precision
        self.output = detector_output(path, outputs)
        self.request: Any = None

        def compile_once() -> None:
            if self.request is None:
                try:
                    self.request = _compile(with_uint8_input(graph), rest, threads).create_infer_request()
                except RuntimeError as error:
                    raise InputError(f"{path}: OpenVINO cannot compile it: {said(error)}") from None

        def measured() -> list[int]:
            compile_once()
            batch, _, height, width = dimensions
            return list(self.run(np.zeros((batch or 1, height or BLANK, width or BLANK, 3), np.uint8)).shape)

        super().__init__(file_info(path, metadata, dimensions, outputs[self.output][1], "openvino", _version(), precision, measured))
        compile_once()

    def run(self, batch: np.ndarray) -> np.ndarray:
        try:
            self.request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        except RuntimeError as error:
            raise InputError(f"{self.path}: OpenVINO cannot run it on {list(batch.shape)}: {said(error)}") from None
        return self.request.get_output_tensor(self.output).data.astype(np.float32)  # astype always copies: the runtime may overwrite its own array


def _shape(partial: Any) -> list[int | None] | None:
    """A shape with None for open dimensions; None where even their number is open."""
    if partial.rank.is_dynamic:
        return None
    return [dimension.get_length() if dimension.is_static else None for dimension in partial]
