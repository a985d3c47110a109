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
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.cost import shapes
from octrim.network.model import Model, load
from octrim.network.rows import Network, walk

RUNTIMES = ("openvino", "onnxruntime", "paddle", "numpy")

# Compiled graphs kept per session: rectangular pictures of a folder come in a dozen shapes.
_SHAPES_KEPT = 16


@dataclass(frozen=True)
class SessionInfo:
    """What a session knows of itself.

    size: (height, width) where the graph fixes it, else None. batch: likewise. batches: fewest and most pictures per batch, where there is a
    limit. image_size: the side the network was made for. network: the table, where the file carries it.
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
    batches: tuple[int, int] | None = None


class Session:
    """A network in a runtime: `session(batch) -> predictions`.

    A session may be used by several threads at once: their calls are answered one after the other, each with the predictions of its own batch. One
    call already uses all the processor threads that the session was given, so side by side they would not be faster.

    A runtime is a subclass with `run` and, where batches of a new shape must be compiled, `ready`. Both are called by one thread at a time.
    """

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self._lock = threading.Lock()

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Compile whatever batches of this shape need; otherwise the first call does."""
        with self._lock:
            self.ready(batch, height, width)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Predictions for a batch. Raises InputError for a batch that the session cannot take, and where the runtime fails."""
        check_batch(batch, self.info)
        with self._lock:
            return self.run(batch)

    def close(self) -> None:
        """Give back what the runtime holds beyond this process's memory; the session cannot run any more."""

    def ready(self, batch: int, height: int, width: int) -> None:
        """Compile for batches of this shape. Runtimes whose graph is ready when it is opened have nothing to do."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Predictions for a batch that `check_batch` has passed, in an array that nothing else writes to."""
        raise NotImplementedError


def open_session(weights: str | Path | Model, runtime: str | None = None, precision: str = "fp32", threads: int | None = None) -> Session:
    """A session over a model, a model file, a checkpoint, or a deployable: an `.onnx` file, OpenVINO IR (`.xml`, or the folder that holds it), a
    TensorRT `.engine` with its header file, or a folder for Paddle Inference.

    runtime: one of RUNTIMES; by default OpenVINO, and ONNX Runtime for an `.onnx` file that OpenVINO is not asked to run. Other deployables run
    in their own runtime only. precision: "fp32" is float32 whatever the runtime would choose; OpenVINO also offers "bf16" and "fp16", ONNX
    Runtime "fp16", both "int8" for models with scales. An ONNX file in ONNX Runtime, and an engine, run as they were exported.
    threads: of a processor's runtime, all usable cores by default. Raises InputError for what cannot be read or does not go together.
    """
    if runtime == "tensorrt" and not str(weights).endswith(".engine"):
        raise InputError("TensorRT runs engine files: octrim export --format tensorrt writes one")
    if runtime not in (None, "tensorrt", *RUNTIMES):
        raise InputError(f"unknown runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")
    if threads is not None and not 1 <= threads <= 1024:
        raise InputError(f"threads is {threads}, expected 1 to 1024")
    if isinstance(weights, Model):
        return _model_session(weights, runtime or "openvino", precision, threads)
    path = Path(weights)
    if path.is_dir() and (files := sorted(path.glob("*.xml"))):
        path = files[0]
    elif path.is_dir() and (path / "model.json").is_file():
        _only("a folder for Paddle Inference runs", path, runtime, "paddle")
        from octrim.targets.paddle_inference.graph import PaddleInferenceSession

        return PaddleInferenceSession(path, precision, threads)
    if path.suffix == ".engine":
        _only("an engine runs", path, runtime, "tensorrt")
        from octrim.targets.tensorrt.session import TensorrtFileSession

        return TensorrtFileSession(path, precision)
    if path.suffix not in (".onnx", ".xml"):
        return _model_session(load(path), runtime or "openvino", precision, threads)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".xml" or runtime == "openvino":
        _only("OpenVINO IR runs", path, runtime, "openvino")
        from octrim.targets.openvino.session import OpenvinoFileSession

        return OpenvinoFileSession(path, precision, threads)
    if runtime not in (None, "onnxruntime"):
        raise InputError(f"{path}: an ONNX file runs in onnxruntime or openvino, not in {runtime}")
    from octrim.targets.onnx.session import OnnxruntimeFileSession

    return OnnxruntimeFileSession(path, precision, threads)


def _only(what: str, path: Path, runtime: str | None, own: str) -> None:
    if runtime not in (None, own):
        raise InputError(f"{path}: {what} in {own}, not in {runtime}")


def _model_session(model: Model, runtime: str, precision: str, threads: int | None) -> Session:
    offered = {"openvino": ("fp32", "bf16", "fp16", "int8"), "onnxruntime": ("fp32", "fp16", "int8")}.get(runtime, ("fp32",))
    if precision not in offered:
        raise InputError(f"{runtime} runs in {', '.join(offered)}; {precision} was asked for")
    if precision == "int8" and not model.scales:
        raise InputError("int8 needs a model with scales, and this one has none: octrim quantize makes them")
    if threads is not None and runtime == "numpy":
        raise InputError("numpy's threads are set by the environment (OMP_NUM_THREADS), not by --threads")
    if runtime == "openvino":
        from octrim.targets.openvino.session import OpenvinoSession as Kind
    elif runtime == "onnxruntime":
        from octrim.targets.onnx.session import OnnxruntimeSession as Kind
    else:
        Kind = PaddleSession if runtime == "paddle" else NumpySession
    return Kind(model, precision, threads)


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
    if info.batches is not None and not info.batches[0] <= len(batch) <= info.batches[1]:
        raise InputError(f"this {info.runtime} graph takes batches of {info.batches[0]} to {info.batches[1]}; found {len(batch)}")
    if any(side < info.stride or side % info.stride for side in size):
        raise InputError(f"picture sides must be multiples of the stride {info.stride}; found {size[0]}x{size[1]}")
    if info.network is not None and size not in info.network.sizes_checked:
        shapes(info.network, *size)  # tells which row a picture is too small for
        info.network.sizes_checked.add(size)


def float_batch(batch: np.ndarray) -> np.ndarray:
    """uint8 `[batch, height, width, 3]` to float32 `[batch, 3, height, width]` in 0..1."""
    return np.multiply(batch.transpose(0, 3, 1, 2), np.float32(1 / 255), dtype=np.float32, order="C")


C = TypeVar("C")


class PerShape(Generic[C]):
    """Keeps what `build(batch, height, width)` gives for the shapes used last. For one thread at a time, as `Session` calls it."""

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


def file_info(
    path: Path, metadata: dict[str, str], dimensions: Sequence[int | None], output: Sequence[int | None], runtime: str, version: str, precision: str
) -> SessionInfo:
    """Description of a deployable, from its metadata and its input and output shapes (None: open).

    Raises InputError when it is not a detector of the YOLOv5 contract.
    """
    network = _table(path, metadata)
    names, stride = _names_and_stride(metadata)
    boxes, last = output[1:] if len(output) == 3 else (None, None)
    classes = network.classes if network is not None else None if names is None else len(names)
    if len(dimensions) != 4 or dimensions[1] != 3 or last is None or last < 6 or _newer(boxes, last, classes):
        raise InputError(f"{path}: expected input [batch, 3, height, width] and output [batch, boxes, 5 + classes]")
    if names is None:
        names, stride = tuple(f"class{index}" for index in range(last - 5)), 32
    if len(names) != last - 5 or (network is not None and network.classes != last - 5):
        raise InputError(f"{path}: {len(names)} names for {last - 5} classes")
    if not all(name.isprintable() for name in names):
        raise InputError(f"{path}: class names have unprintable characters")
    if not 1 <= stride <= 1024 or any(side is not None and not 1 <= side <= 16384 for side in dimensions[2:]):
        raise InputError(f"{path}: a stride of {shown(stride)} or a size of {shown(list(dimensions))} makes no sense")
    batch, _, height, width = dimensions
    size = (height, width) if height and width else None
    return SessionInfo(runtime, version, precision, names, stride, max(size) if size else 640, size, batch, network)


def _newer(boxes: int | None, last: int, classes: int | None) -> bool:
    """Whether an output `[batch, boxes, last]` is that of a newer YOLO, `[batch, 4 + classes, boxes]`.

    Where the file does not say how many classes it has: whether it has more columns than rows, as theirs have.
    """
    if boxes is None or last - 5 == classes:
        return False
    return boxes == 4 + classes if classes is not None else last > boxes


def _table(path: Path, metadata: dict[str, str]) -> Network | None:
    """The network's table, which OcTrim's own files carry. Raises InputError where it is damaged."""
    if "octrim" not in metadata:
        return None
    try:
        described = json.loads(metadata["octrim"])
        return Network.from_json(described["table"], described["anchors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its octrim metadata is damaged: {shown(str(error))}") from None


def _names_and_stride(metadata: dict[str, str]) -> tuple[tuple[str, ...] | None, int]:
    """Class names and stride from the metadata of YOLOv5's exports and ours; (None, 32) where they do not say, or nonsense."""
    try:
        names = ast.literal_eval(metadata["names"])
        return tuple(str(names[index]) for index in range(len(names))), int(float(metadata["stride"]))
    except (KeyError, ValueError, SyntaxError, TypeError, IndexError, OverflowError, RecursionError, MemoryError):
        return None, 32


class PaddleSession(Session):
    """Runs the trainable network in evaluation mode, batch norm unfolded."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        from octrim.backends import paddle as backend

        super().__init__(model_info(model, "paddle", str(backend.paddle.__version__), precision))
        self.backend, self.model, self.threads = backend, model, threads
        self.network = backend.PaddleNetwork(model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self.backend.paddle.no_grad(), self.backend.processor_threads(self.threads):
            heads = self.network(self.backend.paddle.to_tensor(float_batch(batch)))
            return self.backend.decode(self.model.network, heads).numpy()


class NumpySession(Session):
    """Runs the NumPy reference."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        from octrim.backends import numpy as backend

        super().__init__(model_info(model, "numpy", np.__version__, precision))
        self.backend, self.model = backend, model
        self.ops = backend.NumpyOps(model)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.backend.decode(self.model.network, walk(self.model.network, self.ops, float_batch(batch)))
