"""Session that runs a TensorRT engine file through the CUDA runtime, with its own stream, pinned buffers, and a CUDA graph per batch size.

    with open_session("model.engine") as session:
        predictions = session(batch)

It needs `octrim[tensorrt]` and the kind of GPU that the engine was built on, but no Paddle.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from octrim.errors import InputError, shown
from octrim.targets.session import Session, SessionInfo, check_batch, float_batch
from octrim.targets.tensorrt.build import import_tensorrt, logger, version_of
from octrim.targets.tensorrt.cuda import Cuda, cuda_runtime
from octrim.targets.tensorrt.engine_file import check_origin, read_engine

# Number of batch sizes whose context, buffers and graph are kept: the output of yolov5s at 640 px and batch 32 takes 274 MB on host and GPU each.
_LANES = 4

_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}


class TensorrtFileSession(Session):
    """Session that runs a `.engine` file, whose description stands in the header file beside it.

    A session has its own stream, contexts and buffers and shares nothing with other sessions: threads that are to run side by side take one each.
    GPU memory is given back by `close`, at the end of a `with` block, or with the object.
    graphs: False enqueues layer by layer instead of launching a captured graph; can be changed between calls.

    Raises InputError for a header that is missing, damaged, newer, or another engine's, for another TensorRT or GPU than the engine was built with,
    and where TensorRT, CUDA's bindings, the driver or a GPU is missing.
    """

    def __init__(self, path: Path, precision: str = "fp32", graphs: bool = True) -> None:
        header, data = read_engine(path)
        if precision not in ("fp32", header.precision):  # fp32 is the default, so it is accepted for every file
            raise InputError(f"{path}: was built in {header.precision}; TensorRT cannot run it in {precision}")
        trt = import_tensorrt()
        version = version_of(trt)
        cuda = cuda_runtime()
        self.gpu = cuda.gpu()
        check_origin(path, header, version, self.gpu)
        self.path, self.header, self.graphs = path, header, graphs
        low, _, high = header.batch
        info = SessionInfo(
            runtime="tensorrt",
            version=version,
            precision=header.precision,
            names=header.names,
            stride=header.network.stride,
            image_size=header.image_size,
            size=header.size,
            batch=low if low == high else None,
            network=header.network,
            batches=(low, high),
        )
        super().__init__(info)
        self._engine = _Engine(trt, cuda, data, path)
        self._finalizer = weakref.finalize(self, self._engine.close)

    def ready(self, batch: int, height: int, width: int) -> None:
        """Make the buffers of this batch size, run it once, and capture its graph."""
        check_batch(np.empty((batch, height, width, 3), np.uint8), self.info)
        self._engine.lane(batch, self.graphs)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._engine.lane(len(batch), self.graphs).run(batch, self.graphs)

    def execution(self, batch: int) -> str:
        """The way in which batches of this size run: "graph", "enqueue", or "enqueue: " and why no graph could be captured."""
        lane = self._engine.lanes.get(batch)
        if not self.graphs or lane is None:
            return "enqueue"
        return "graph" if lane.graph is not None else f"enqueue: {lane.refusal}"

    def end(self) -> None:
        """Give all memory on the GPU back."""
        self._finalizer()

    def __enter__(self) -> TensorrtFileSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Engine:
    """The deserialised engine, its stream, and a lane per batch size. It has no reference to the session, so that it can outlive it for clean-up."""

    def __init__(self, trt: Any, cuda: Cuda, data: bytes, path: Path) -> None:
        self.cuda, self.path = cuda, path
        self.lanes: OrderedDict[int, _Lane] = OrderedDict()
        self.logger = logger(trt)
        self.logger.errors.clear()
        self.runtime: Any = trt.Runtime(self.logger)
        self.engine: Any = self.runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise InputError(f"{path}: TensorRT cannot read it: {self.logger.last()}")
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        if sorted(names) != ["images", "output0"]:
            raise InputError(f"{path}: expected the tensors images and output0, found {shown(names)}; was it built without decoding?")
        self.stream: Any = cuda.call("cudaStreamCreateWithFlags", cuda.runtime.cudaStreamNonBlocking)

    def lane(self, batch: int, graphs: bool) -> _Lane:
        if self.engine is None:
            raise InputError(f"{self.path}: this session is closed")
        if batch not in self.lanes:
            while len(self.lanes) >= _LANES:  # before the new one asks for memory
                self.lanes.popitem(last=False)[1].close()
            self.lanes[batch] = _Lane(self, batch)
        self.lanes.move_to_end(batch)
        lane = self.lanes[batch]
        if graphs and lane.graph is None and lane.refusal is None:
            lane.capture()
        return lane

    def close(self) -> None:
        if self.engine is None:
            return
        while self.lanes:
            self.lanes.popitem()[1].close()
        self.cuda.runtime.cudaStreamDestroy(self.stream)
        self.engine = self.runtime = None


class _Lane:
    """Everything that batches of one size need: context, buffers on both sides, and the graph of copy in, execute, copy out.

    The context is the lane's own: a graph is bound to the state of the context that it was captured from, which another batch size would change.
    """

    def __init__(self, engine: _Engine, batch: int) -> None:
        self.engine, self.cuda = engine, engine.cuda
        self.graph: Any = None
        self.refusal: str | None = None
        self.cleanup = ExitStack()
        try:
            self.context: Any = engine.engine.create_execution_context()
            if self.context is None:
                raise InputError(f"{engine.path}: TensorRT makes no context, for want of GPU memory most likely: {engine.logger.last()}")
            shape = (batch, *tuple(engine.engine.get_tensor_shape("images"))[1:])
            if not self.context.set_input_shape("images", shape):
                raise InputError(f"{engine.path}: TensorRT does not take {shown(list(shape))}: {engine.logger.last()}")
            self.images, self.device_images = self.buffers("images", shape)
            self.output, self.device_output = self.buffers("output0", tuple(self.context.get_tensor_shape("output0")))
            # One plain run does TensorRT's work after a change of shape, which no graph may contain.
            self.images[...] = 0
            self.enqueue()
            self.cuda.call("cudaStreamSynchronize", engine.stream)
        except BaseException:
            self.close()
            raise

    def buffers(self, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """Pinned array of a tensor and the address of its buffer on the GPU; the context is told the address."""
        kind = self.engine.engine.get_tensor_dtype(name).name
        if kind not in _DTYPES or min(shape) < 1:
            raise InputError(f"{self.engine.path}: {name} is {kind} {list(shape)}, which no OcTrim engine has")
        array, pinned = self.cuda.pinned(shape, _DTYPES[kind])
        # Clean-up ignores errors: after an error on the GPU every call of CUDA returns it again.
        self.cleanup.callback(self.cuda.runtime.cudaFreeHost, pinned)
        device = int(self.cuda.call("cudaMalloc", array.nbytes))
        self.cleanup.callback(self.cuda.runtime.cudaFree, device)
        if not self.context.set_tensor_address(name, device):
            raise InputError(f"{self.engine.path}: TensorRT does not take a buffer for {name}: {self.engine.logger.last()}")
        return array, device

    def enqueue(self) -> None:
        """Enqueue on the stream: copy the input to the GPU, execute, copy the output back."""
        kinds = self.cuda.runtime.cudaMemcpyKind
        stream, images, output = self.engine.stream, self.images, self.output
        copy: Callable[..., Any] = self.cuda.call
        copy("cudaMemcpyAsync", self.device_images, images.ctypes.data, images.nbytes, kinds.cudaMemcpyHostToDevice, stream)
        if not self.context.execute_async_v3(int(stream)):
            raise InputError(f"{self.engine.path}: TensorRT cannot run it: {self.engine.logger.last()}")
        copy("cudaMemcpyAsync", output.ctypes.data, self.device_output, output.nbytes, kinds.cudaMemcpyDeviceToHost, stream)

    def capture(self) -> None:
        """Record `enqueue` as a graph. Where that fails, `refusal` says why, and batches are enqueued as before."""
        call, runtime, stream = self.cuda.call, self.cuda.runtime, self.engine.stream
        recorded: Any = None
        try:
            # The mode ThreadLocal watches only this thread's calls, so that CUDA calls of other threads do not break the capture.
            call("cudaStreamBeginCapture", stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
            try:
                self.enqueue()
            finally:  # a failed capture must be ended, too, or the stream would stay in it
                recorded = call("cudaStreamEndCapture", stream)
            self.graph = call("cudaGraphInstantiate", recorded, 0)
            self.cleanup.callback(runtime.cudaGraphExecDestroy, self.graph)
        except InputError as error:
            self.graph, self.refusal = None, str(error)
            runtime.cudaGetLastError()  # resets CUDA's error
        finally:
            if recorded is not None:  # the executable graph is a copy
                runtime.cudaGraphDestroy(recorded)

    def run(self, batch: np.ndarray, graphs: bool) -> np.ndarray:
        self.images[...] = batch if self.images.dtype == np.uint8 else float_batch(batch)
        if graphs and self.graph is not None:
            self.cuda.call("cudaGraphLaunch", self.graph, self.engine.stream)
        else:
            self.enqueue()
        self.cuda.call("cudaStreamSynchronize", self.engine.stream)
        return self.output.astype(np.float32)  # a copy: the next batch overwrites the buffer

    def close(self) -> None:
        self.cleanup.close()
        self.context = self.graph = None
