"""One interface over every runtime: `session(batch) -> predictions`.

    session = open_session("yolov5n.pt")                     # OpenVINO, float32
    session = open_session("model.onnx", runtime="onnxruntime")
    predictions = session(batch)

batch: uint8 RGB `[batch, height, width, 3]`, sides multiples of `session.stride`. predictions: float32 `[batch, boxes, 5 + classes]`:
cx, cy, w, h in pixels of the batch, objectness, class scores.
"""

from __future__ import annotations

import ast
import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.cost import shapes
from octrim.network.model import Model, load
from octrim.network.rows import Network, walk
from octrim.quiet import quiet_stderr

RUNTIMES = ("openvino", "onnxruntime", "paddle", "numpy")

# Compiled graphs kept per session: rectangular pictures of a folder come in a dozen shapes.
_SHAPES_KEPT = 16


@dataclass(frozen=True)
class SessionInfo:
    """What a session knows of itself.

    size: (height, width) where the graph fixes it, else None. batch: likewise. image_size: the side the network was made for.
    network: the table, where the file carries it.
    """

    runtime: str
    version: str
    precision: str
    names: tuple[str, ...]
    stride: int
    image_size: int = 640
    size: tuple[int, int] | None = None
    batch: int | None = None
    network: Network | None = None


class Session(Protocol):
    info: SessionInfo

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Compile whatever batches of this shape need; otherwise the first call does."""
        ...

    def __call__(self, batch: np.ndarray) -> np.ndarray: ...


def usable_cores() -> int:
    """Cores that this process may use, which `taskset` or a container's quota can make fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(min(cores, math.ceil(int(quota) / int(period))), 1)
    except (OSError, ValueError):  # no quota ("max"), or no such file
        return cores


def open_session(weights: str | Path | Model, runtime: str | None = None, precision: str = "fp32", threads: int | None = None) -> Session:
    """A session over a model, a model file, a checkpoint, an `.onnx` file, or OpenVINO IR (`.xml`, or the folder that holds it).

    runtime: one of RUNTIMES; by default OpenVINO, and ONNX Runtime for an `.onnx` file that OpenVINO is not asked to run.
    precision: "fp32" is float32 whatever the runtime would choose; OpenVINO also offers "bf16" and "fp16", ONNX Runtime "fp16". An ONNX file
    runs in ONNX Runtime as it was exported.
    threads: of the runtime, all usable cores by default. Raises InputError for what cannot be read or does not go together.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise InputError(f"unknown runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads is {threads}, expected 1 to 1024")
    if isinstance(weights, Model):
        return _model_session(weights, runtime or "openvino", precision, threads)
    path = Path(weights)
    if path.is_dir() and (files := sorted(path.glob("*.xml"))):
        path = files[0]
    if path.suffix not in (".onnx", ".xml"):
        return _model_session(load(path), runtime or "openvino", precision, threads)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".xml":
        if runtime not in (None, "openvino"):
            raise InputError(f"{path}: OpenVINO IR runs in openvino, not in {runtime}")
        return OpenvinoFileSession(path, precision, threads)
    if runtime == "openvino":
        return OpenvinoFileSession(path, precision, threads)
    if runtime not in (None, "onnxruntime"):
        raise InputError(f"{path}: an ONNX file runs in onnxruntime or openvino, not in {runtime}")
    return OnnxruntimeFileSession(path, precision, threads)


def _model_session(model: Model, runtime: str, precision: str, threads: int | None) -> Session:
    offered = {"openvino": ("fp32", "bf16", "fp16"), "onnxruntime": ("fp32", "fp16")}.get(runtime, ("fp32",))
    if precision not in offered:
        raise InputError(f"{runtime} runs in {', '.join(offered)}; {precision} was asked for")
    if threads is not None and runtime == "numpy":
        raise InputError("numpy's threads are set by the environment (OMP_NUM_THREADS), not by --threads")
    kinds: dict[str, Callable[..., Session]] = {
        "openvino": OpenvinoSession,
        "onnxruntime": OnnxruntimeSession,
        "paddle": PaddleSession,
        "numpy": NumpySession,
    }
    return kinds[runtime](model, precision, threads)


def model_info(model: Model, runtime: str, version: str, precision: str) -> SessionInfo:
    """Of a session that runs a model file's network."""
    return SessionInfo(runtime, version, precision, model.names, model.network.stride, model.image_size, network=model.network)


def check_batch(batch: np.ndarray, info: SessionInfo) -> None:
    """Raise InputError for a batch that the session cannot take."""
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8:
        raise InputError(f"a batch is uint8 [batch, height, width, 3]; found {batch.dtype} {list(batch.shape)}")
    size = (batch.shape[1], batch.shape[2])
    if info.size is not None and size != info.size:
        raise InputError(f"this {info.runtime} graph takes pictures of {info.size[0]}x{info.size[1]}; found {size[0]}x{size[1]}")
    if info.batch is not None and len(batch) != info.batch:
        raise InputError(f"this {info.runtime} graph takes batches of {info.batch}; found {len(batch)}")
    if any(side < info.stride or side % info.stride for side in size):
        raise InputError(f"picture sides must be multiples of the stride {info.stride}; found {size[0]}x{size[1]}")
    if info.network is not None:
        shapes(info.network, *size)  # tells which row a picture is too small for


def float_batch(batch: np.ndarray) -> np.ndarray:
    """uint8 `[batch, height, width, 3]` to float32 `[batch, 3, height, width]` in 0..1."""
    return np.multiply(batch.transpose(0, 3, 1, 2), np.float32(1 / 255), dtype=np.float32, order="C")


C = TypeVar("C")


class _NothingToPrepare:
    """For sessions whose graph is ready when it is opened."""

    def prepare(self, batch: int, height: int, width: int) -> None:
        pass


class _PerShape(Generic[C]):
    """Keeps what `build(batch, height, width)` gives for the shapes used last."""

    def __init__(self, build: Callable[[int, int, int], C]) -> None:
        self.build = build
        self.kept: OrderedDict[tuple[int, int, int], C] = OrderedDict()

    def __call__(self, batch: int, height: int, width: int) -> C:
        key = (batch, height, width)
        if key not in self.kept:
            self.kept[key] = self.build(*key)
            if len(self.kept) > _SHAPES_KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


def _openvino_compile(graph: Any, precision: str, threads: int | None) -> Any:
    import openvino as ov

    types = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
    if precision not in types:
        raise InputError(f"openvino runs in {', '.join(types)}; {precision} was asked for")
    # Without the hint OpenVINO chooses bf16 on processors that have it, and its results move by a percent.
    # Pinned threads wait for their core where another program has it: on a busy machine the slowest tenth took 1.6 times as long.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": types[precision], "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    core = ov.Core()
    wanted = {"bf16": "BF16", "fp16": "FP16"}.get(precision)
    if wanted and wanted not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InputError(f"this processor has no {precision} in OpenVINO; use --precision fp32")
    return core.compile_model(graph, "CPU", config)


def _openvino_version() -> str:
    import openvino as ov

    return str(ov.__version__).partition("-")[0]


class OpenvinoSession:
    """Builds the graph from the table, one per shape (a fixed batch runs faster than a dynamic one), with /255 and layout inside it."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        self.info = model_info(model, "openvino", _openvino_version(), precision)

        def build(batch: int, height: int, width: int) -> Any:
            from octrim.backends.openvino import openvino_model

            graph = openvino_model(model, height, width, batch, pixels=True)
            return _openvino_compile(graph, precision, threads).create_infer_request()

        self.requests = _PerShape(build)

    def prepare(self, batch: int, height: int, width: int) -> None:
        self.requests(batch, height, width)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        try:
            request = self.requests(*batch.shape[:3])
            request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        except RuntimeError as error:  # out of memory, most likely
            raise InputError(f"OpenVINO cannot run this network on {list(batch.shape)}: {shown(str(error))}") from None
        return request.get_output_tensor(0).data.copy()


class OpenvinoFileSession(_NothingToPrepare):
    """Runs OpenVINO IR, or an ONNX file, in OpenVINO."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        import openvino as ov

        from octrim.backends.openvino import with_uint8_input

        try:
            with quiet_stderr():
                graph = ov.Core().read_model(path)
            if path.suffix == ".xml":
                metadata = (
                    {key: value.astype(str) for key, value in graph.get_rt_info(["octrim"]).astype(dict).items()}
                    if graph.has_rt_info("octrim")
                    else {}
                )
            else:
                import onnx

                metadata = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
            shape = graph.input().get_partial_shape()  # raises where there is not exactly one
            dimensions = [dimension.get_length() if dimension.is_static else None for dimension in shape]
            output = [dimension.get_length() if dimension.is_static else None for dimension in graph.output(0).get_partial_shape()]
        except Exception as error:  # OpenVINO raises RuntimeError, onnx DecodeError, for files they cannot read
            raise InputError(f"{path}: OpenVINO cannot read it: {shown(str(error))}") from None
        self.path = path
        self.info = _file_info(path, metadata, dimensions, output, "openvino", _openvino_version(), precision)
        try:
            self.request = _openvino_compile(with_uint8_input(graph), precision, threads).create_infer_request()
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO cannot compile it: {shown(str(error))}") from None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        try:
            self.request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        except RuntimeError as error:
            raise InputError(f"{self.path}: OpenVINO cannot run it on {list(batch.shape)}: {shown(str(error))}") from None
        return self.request.get_output_tensor(0).data.copy()


def _onnxruntime_session(graph: bytes | str, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print, we say
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxruntimeSession:
    """Runs the ONNX graph of the same walk in ONNX Runtime, one per shape."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        self.info = model_info(model, "onnxruntime", _onnxruntime_version(), precision)

        def build(batch: int, height: int, width: int) -> Any:
            from octrim.backends.onnx import onnx_model

            return _onnxruntime_session(onnx_model(model, height, width, batch, precision).SerializeToString(), threads)

        self.sessions = _PerShape(build)

    def prepare(self, batch: int, height: int, width: int) -> None:
        self.sessions(batch, height, width)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        return self.sessions(*batch.shape[:3]).run(None, {"images": float_batch(batch)})[0]


class OnnxruntimeFileSession(_NothingToPrepare):
    """Runs an ONNX file of the YOLOv5 contract: OcTrim's own, or one that YOLOv5 exported."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        try:
            self.session = _onnxruntime_session(str(path), threads)
            taken, given = self.session.get_inputs(), self.session.get_outputs()
            metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # onnxruntime raises its own classes for files it cannot read
            raise InputError(f"{path}: ONNX Runtime cannot read it: {shown(str(error))}") from None
        kind = {"tensor(float)": "fp32", "tensor(float16)": "fp16"}.get(taken[0].type) if len(taken) == 1 else None
        if kind is None or not given:
            raise InputError(f"{path}: takes {[one.type for one in taken]}, expected one float picture")
        dimensions, output = ([side if isinstance(side, int) else None for side in one.shape] for one in (taken[0], given[0]))
        actual = metadata.get("precision", kind)
        if precision not in ("fp32", actual):  # fp32 is the default and says nothing
            raise InputError(f"{path}: was exported in {actual}; ONNX Runtime cannot run it in {precision}")
        self.path = path
        self.info = _file_info(path, metadata, dimensions, output, "onnxruntime", _onnxruntime_version(), actual)
        self.input = taken[0].name
        self.dtype = np.float16 if kind == "fp16" else np.float32

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        images = float_batch(batch).astype(self.dtype, copy=False)
        try:
            return self.session.run(None, {self.input: images})[0].astype(np.float32, copy=False)
        except Exception as error:  # its own classes again
            raise InputError(f"{self.path}: ONNX Runtime cannot run it on {list(batch.shape)}: {shown(str(error))}") from None


def _file_info(
    path: Path, metadata: dict[str, str], dimensions: Sequence[int | None], output: Sequence[int | None], runtime: str, version: str, precision: str
) -> SessionInfo:
    """A deployable's own description. Raises InputError when it is not a detector of the YOLOv5 contract."""
    boxes, last = output[1:] if len(output) == 3 else (None, None)
    # Newer YOLOs give [batch, 4 + classes, boxes]: more columns than rows.
    if len(dimensions) != 4 or dimensions[1] != 3 or last is None or last < 6 or (boxes is not None and last > boxes):
        raise InputError(f"{path}: expected input [batch, 3, height, width] and output [batch, boxes, 5 + classes]")
    try:
        names = ast.literal_eval(metadata["names"])
        names = tuple(str(names[index]) for index in range(len(names)))
        stride = int(float(metadata["stride"]))
    except (KeyError, ValueError, SyntaxError, TypeError, IndexError, OverflowError, RecursionError, MemoryError):
        names, stride = tuple(f"class{index}" for index in range(last - 5)), 32
    if len(names) != last - 5:
        raise InputError(f"{path}: {len(names)} names for {last - 5} classes")
    if not all(name.isprintable() for name in names):
        raise InputError(f"{path}: class names have unprintable characters")
    if not 1 <= stride <= 1024 or any(side is not None and not 1 <= side <= 16384 for side in dimensions[2:]):
        raise InputError(f"{path}: a stride of {shown(stride)} or a size of {shown(list(dimensions))} makes no sense")
    batch, _, height, width = dimensions
    size = (height, width) if height and width else None
    network = None
    if "octrim" in metadata:
        try:
            described = json.loads(metadata["octrim"])
            network = Network.from_json(described["table"], described["anchors"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: its octrim metadata is damaged: {shown(str(error))}") from None
    return SessionInfo(runtime, version, precision, names, stride, max(size) if size else 640, size, batch, network)


class PaddleSession(_NothingToPrepare):
    """Runs the trainable network in evaluation mode, batch norm unfolded."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        if threads:  # read once, when Paddle is first imported
            os.environ["OMP_NUM_THREADS"] = str(threads)
        from octrim.backends import paddle as backend

        self.info = model_info(model, "paddle", str(backend.paddle.__version__), precision)
        self.backend, self.model = backend, model
        self.network = backend.PaddleNetwork(model)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        with self.backend.paddle.no_grad():
            heads = self.network(self.backend.paddle.to_tensor(float_batch(batch)))
            return self.backend.decode(self.model.network, heads).numpy()


class NumpySession(_NothingToPrepare):
    """Runs the NumPy reference."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        from octrim.backends import numpy as backend

        self.info = model_info(model, "numpy", np.__version__, precision)
        self.backend, self.model = backend, model
        self.ops = backend.NumpyOps(model)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        check_batch(batch, self.info)
        return self.backend.decode(self.model.network, walk(self.model.network, self.ops, float_batch(batch)))
