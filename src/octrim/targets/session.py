"""One interface over every runtime: `session(batch) -> predictions`.

    session = open_session("yolov5n.pt")                     # OpenVINO, float32
    session = open_session("model.onnx", runtime="onnxruntime")
    predictions = session(batch)

batch: uint8 RGB `[batch, height, width, 3]`, sides multiples of `session.stride`. predictions: float32 `[batch, boxes, 5 + classes]`:
cx, cy, w, h in pixels of the batch, objectness, class scores.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from octrim.errors import InputError
from octrim.network.cost import shapes
from octrim.network.model import Model
from octrim.network.rows import Network

# Compiled graphs kept per session: rectangular pictures of a folder come in a dozen shapes.
_SHAPES_KEPT = 16


@dataclass(frozen=True)
class SessionInfo:
    """Description of a session and of the batches that it takes.

    size: (height, width) in pixels where the graph fixes it, else None. batch: number of pictures per batch where the graph fixes it, else None.
    batches: fewest and most pictures per batch, where there is a limit.
    image_size: the side in pixels that the network was made for. network: the table, where the file carries it.
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

    A runtime is a subclass with `run`; with `ready`, where batches of a new shape must be compiled; and with `end`, where something has to be given
    back. One thread at a time calls them.
    """

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self._lock = threading.Lock()
        self._closed = False

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Compile for batches of this shape in advance; otherwise the first call with this shape does it."""
        with self._lock:
            self._require_open()
            self.ready(batch, height, width)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Predictions for a batch; none for an empty one, where the session takes batches of any size.

        Raises InputError for a batch that the session cannot take, where the runtime fails, and once it is closed.
        """
        check_batch(batch, self.info)
        with self._lock:
            self._require_open()
            if len(batch):
                return self.run(batch)
            blank = np.zeros((1, *batch.shape[1:]), np.uint8)  # some runtimes refuse an empty batch
            return self.run(blank)[:0]

    def close(self) -> None:
        """Give back what the runtime holds outside of Python, once the call of another thread is answered; the session cannot run afterwards."""
        with self._lock:
            self._closed = True
            self.end()

    def _require_open(self) -> None:
        if self._closed:
            raise InputError(f"this {self.info.runtime} session is closed: open another")

    def ready(self, batch: int, height: int, width: int) -> None:
        """Compile for batches of this shape. Runtimes whose graph is ready when it is opened need not override this."""

    def end(self) -> None:
        """Give back what the runtime holds, however often it is called. Runtimes that hold nothing need not override this."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Predictions for a batch that `check_batch` has passed, in an array that nothing else writes to."""
        raise NotImplementedError


def model_info(model: Model, runtime: str, version: str, precision: str) -> SessionInfo:
    """Description of a session that runs a model file's network."""
    return SessionInfo(runtime, version, precision, model.names, model.network.stride, model.image_size, network=model.network)


def check_batch(batch: np.ndarray, info: SessionInfo) -> None:
    """Raise InputError for a batch that the session cannot take."""
    if not isinstance(batch, np.ndarray):
        raise InputError(f"a batch is a uint8 array [batch, height, width, 3]; found {type(batch).__name__}")
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
        shapes(info.network, *size)  # raises an error that names the row for which a picture is too small
        info.network.sizes_checked.add(size)


def float_batch(batch: np.ndarray) -> np.ndarray:
    """The batch, uint8 `[batch, height, width, 3]`, as float32 `[batch, 3, height, width]` in 0..1."""
    return np.multiply(batch.transpose(0, 3, 1, 2), np.float32(1 / 255), dtype=np.float32, order="C")


C = TypeVar("C")


class PerShape(Generic[C]):
    """Cache of the results of `build(batch, height, width)` for the latest shapes. It is used by one thread at a time, as `Session` ensures."""

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
