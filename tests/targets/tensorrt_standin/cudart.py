"""A stand-in for `cuda.bindings.runtime` with one device, whose memory is the host's.

Every call returns a tuple that starts with the error. Work given to a stream runs when something waits for it, so that a forgotten synchronisation
shows as stale memory. New memory is filled with 0xCD. Only what is called here exists; wrong types raise TypeError as Cython's do.
"""

# ruff: noqa: N801, N802, N815  (the names are those of CUDA)

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


_SIDES = {1: ("device", "host"), 2: ("host", "device"), 3: ("device", "device"), 0: ("host", "host")}
"""(destination, source) of a cudaMemcpyKind."""


class Handle:
    """As the bindings' opaque handles: an object with an `int()`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


class cudaStream_t(Handle):
    pass


class cudaGraph_t(Handle):
    pass


class cudaGraphExec_t(Handle):
    pass


class Stream:
    """`captured`: the operations of the capture in progress; None outside of one."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.pending: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.broken = False

    def add(self, operation: Callable[[], None]) -> bool:
        """Whether the stream took it; a capture that failed takes nothing."""
        if self.captured is None:
            self.pending.append(operation)
            return True
        if self.device.fail_capture or self.broken:
            self.broken = True
            return False
        self.captured.append(operation)
        return True

    def wait(self) -> None:
        while self.pending:
            self.pending.pop(0)()


class Device:
    """Memory by address, streams and graphs by handle. `live`: what nobody freed yet, by kind."""

    def __init__(self) -> None:
        self.memory: dict[int, tuple[np.ndarray, str]] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.count = 1
        self.capacity = 1 << 33
        self.fail_capture = False
        """Makes every capture fail, as unsupported operations in one do."""
        self.driver_missing = False
        """Makes every call return cudaErrorInsufficientDriver, as on a machine without a driver."""
        self.calls: list[str] = []
        """Names of the functions called, in order."""
        self.last_error = cudaError_t.cudaSuccess
        self._next = 0x1000

    @property
    def live(self) -> dict[str, int]:
        kinds = [kind for _, kind in self.memory.values()]
        sizes = {"device": kinds.count("device"), "host": kinds.count("host"), "streams": len(self.streams)}
        sizes |= {"graphs": len(self.graphs), "executables": len(self.executables)}
        return {kind: count for kind, count in sizes.items() if count}

    def handle(self) -> int:
        self._next += 0x10
        return self._next

    def allocate(self, size: int, kind: str) -> int:
        array = np.full(size, 0xCD, np.uint8)
        self.memory[array.ctypes.data] = (array, kind)
        return array.ctypes.data

    def find(self, address: int, size: int, kind: str) -> np.ndarray | None:
        """`size` bytes at `address`, or None where they are not all in one allocation of this kind."""
        for start, (array, held) in list(self.memory.items()):  # other threads allocate meanwhile
            if held == kind and start <= address and address + size <= start + array.size:
                return array[address - start : address - start + size]
        return None


class Calls:
    """The functions. Each returns its results, or a cudaError_t alone; `module` adds the error in front."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def cudaGetDeviceCount(self) -> Any:
        return self.device.count if self.device.count else cudaError_t.cudaErrorNoDevice

    def cudaSetDevice(self, device: int) -> Any:
        return None if 0 <= device < self.device.count else cudaError_t.cudaErrorInvalidDevice

    def cudaGetDevice(self) -> Any:
        return 0

    def cudaGetDeviceProperties(self, device: int) -> Any:
        if not 0 <= device < self.device.count:
            return cudaError_t.cudaErrorInvalidDevice
        return types.SimpleNamespace(name=b"Stand-in", major=8, minor=7, totalGlobalMem=self.device.capacity, multiProcessorCount=16)

    def cudaMemGetInfo(self) -> Any:
        used = sum(array.size for array, kind in self.device.memory.values() if kind == "device")
        return self.device.capacity - used, self.device.capacity

    def cudaDriverGetVersion(self) -> Any:
        return 13000

    def cudaRuntimeGetVersion(self) -> Any:
        return 12090

    def cudaDeviceSynchronize(self) -> Any:
        for stream in self.device.streams.values():
            if stream.captured is not None:
                return cudaError_t.cudaErrorStreamCaptureUnsupported
            stream.wait()
        return None

    def cudaMalloc(self, size: int) -> Any:
        return self.device.allocate(size, "device") if 0 < size <= self.device.capacity else cudaError_t.cudaErrorMemoryAllocation

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return self.device.allocate(size, "host") if size > 0 else cudaError_t.cudaErrorInvalidValue

    def cudaMallocHost(self, size: int) -> Any:
        return self.cudaHostAlloc(size, 0)

    def _free(self, address: int, kind: str) -> Any:
        for stream in self.device.streams.values():  # freeing waits for the device
            stream.wait()
        if self.device.memory.get(address, (None, ""))[1] != kind:
            return cudaError_t.cudaErrorInvalidValue
        del self.device.memory[address]
        return None

    def cudaFree(self, devPtr: int) -> Any:
        return self._free(devPtr, "device")

    def cudaFreeHost(self, ptr: int) -> Any:
        return self._free(ptr, "host")

    def _copy(self, dst: int, src: int, count: int, kind: cudaMemcpyKind) -> Any:
        sides = _SIDES.get(int(kind))
        if sides is None:
            raise NotImplementedError(f"the stand-in does not model {kind!r}")
        target, source = self.device.find(dst, count, sides[0]), self.device.find(src, count, sides[1])
        if target is None or source is None:  # pageable memory, too: a copy from it is not asynchronous
            return cudaError_t.cudaErrorInvalidValue
        return lambda: np.copyto(target, source)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: cudaMemcpyKind) -> Any:
        copy = self._copy(dst, src, count, kind)
        if not isinstance(copy, cudaError_t):
            copy()
            return None
        return copy

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: cudaStream_t) -> Any:
        copy = self._copy(dst, src, count, kind)
        return copy if isinstance(copy, cudaError_t) else self._add(stream, copy)

    def _stream(self, stream: cudaStream_t) -> Stream | None:
        return self.device.streams.get(int(stream))

    def _add(self, stream: cudaStream_t, operation: Callable[[], None]) -> Any:
        found = self._stream(stream)
        if found is None:
            return cudaError_t.cudaErrorInvalidResourceHandle
        return None if found.add(operation) else cudaError_t.cudaErrorStreamCaptureInvalidated

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        handle = self.device.handle()
        self.device.streams[handle] = Stream(self.device)
        return cudaStream_t(handle)

    def cudaStreamSynchronize(self, stream: cudaStream_t) -> Any:
        found = self._stream(stream)
        if found is None:
            return cudaError_t.cudaErrorInvalidResourceHandle
        if found.captured is not None:
            found.broken = True
            return cudaError_t.cudaErrorStreamCaptureUnsupported
        found.wait()
        return None

    def cudaStreamDestroy(self, stream: cudaStream_t) -> Any:
        found = self.device.streams.pop(int(stream), None)
        if found is None:
            return cudaError_t.cudaErrorInvalidResourceHandle
        found.wait()
        return None

    def cudaStreamBeginCapture(self, stream: cudaStream_t, mode: cudaStreamCaptureMode) -> Any:
        found = self._stream(stream)
        if found is None or found.captured is not None:
            return cudaError_t.cudaErrorInvalidResourceHandle
        found.captured, found.broken = [], False
        return None

    def cudaStreamEndCapture(self, stream: cudaStream_t) -> Any:
        found = self._stream(stream)
        if found is None or found.captured is None:
            return cudaError_t.cudaErrorInvalidResourceHandle
        captured, broken = found.captured, found.broken or self.device.fail_capture
        found.captured, found.broken = None, False
        if broken:
            return cudaError_t.cudaErrorStreamCaptureInvalidated
        handle = self.device.handle()
        self.device.graphs[handle] = captured
        return cudaGraph_t(handle)

    def cudaGraphInstantiate(self, graph: cudaGraph_t, flags: int) -> Any:
        if int(graph) not in self.device.graphs:
            return cudaError_t.cudaErrorInvalidResourceHandle
        handle = self.device.handle()
        self.device.executables[handle] = list(self.device.graphs[int(graph)])
        return cudaGraphExec_t(handle)

    def cudaGraphLaunch(self, graphExec: cudaGraphExec_t, stream: cudaStream_t) -> Any:
        operations = self.device.executables.get(int(graphExec))
        if operations is None:
            return cudaError_t.cudaErrorInvalidResourceHandle

        def launch() -> None:
            for operation in operations:
                operation()

        return self._add(stream, launch)

    def cudaGraphExecDestroy(self, graphExec: cudaGraphExec_t) -> Any:
        return None if self.device.executables.pop(int(graphExec), None) is not None else cudaError_t.cudaErrorInvalidResourceHandle

    def cudaGraphDestroy(self, graph: cudaGraph_t) -> Any:
        return None if self.device.graphs.pop(int(graph), None) is not None else cudaError_t.cudaErrorInvalidResourceHandle

    def cudaGetLastError(self) -> Any:
        last, self.device.last_error = self.device.last_error, cudaError_t.cudaSuccess
        return last

    def cudaGetErrorName(self, error: cudaError_t) -> Any:
        return error.name.encode()

    def cudaGetErrorString(self, error: cudaError_t) -> Any:
        return error.name.removeprefix("cuda").encode()


HANDLES = {"cudaStream_t": cudaStream_t, "cudaGraph_t": cudaGraph_t, "cudaGraphExec_t": cudaGraphExec_t}
ENUMS = {"cudaError_t": cudaError_t, "cudaMemcpyKind": cudaMemcpyKind, "cudaStreamCaptureMode": cudaStreamCaptureMode}
FLAGS = {"cudaStreamDefault": 0, "cudaStreamNonBlocking": 1, "cudaHostAllocDefault": 0, "cudaHostAllocPortable": 1, "cudaHostAllocMapped": 2}


def fake_cudart(device: Device) -> types.ModuleType:
    """The module, to stand at `cuda.bindings.runtime`."""
    module = types.ModuleType("cuda.bindings.runtime")
    module.__dict__.update(HANDLES | ENUMS | FLAGS)
    calls = Calls(device)
    for name in dir(calls):
        if name.startswith("cuda"):
            setattr(module, name, _checked(device, name, getattr(calls, name)))
    return module


def _checked(device: Device, name: str, function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    signature = inspect.signature(function)

    def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}{signature.replace(return_annotation=inspect.Signature.empty)}: {error}") from None
        for key, value in bound.items():
            kind = str(signature.parameters[key].annotation)
            wanted = (HANDLES | ENUMS).get(kind, int)
            # The bindings take the number of a stream for the stream, but no number for an enum.
            if not (isinstance(value, wanted) or (kind == "cudaStream_t" and isinstance(value, int))):
                raise TypeError(f"{name}: {key} is {value!r}, expected {kind}")
        device.calls.append(name)
        missing = device.driver_missing and name not in _DRIVERLESS
        result = cudaError_t.cudaErrorInsufficientDriver if missing else function(**bound)
        if isinstance(result, cudaError_t):
            device.last_error = cudaError_t.cudaSuccess if name == "cudaGetLastError" else result
            return (result, None) if name in _RETURNING else (result,)
        if result is None:
            return (cudaError_t.cudaSuccess,)
        return (cudaError_t.cudaSuccess, *(result if isinstance(result, tuple) else (result,)))

    return call


_DRIVERLESS = ("cudaGetErrorName", "cudaGetErrorString", "cudaGetLastError", "cudaRuntimeGetVersion")

_RETURNING = (
    "cudaGetDeviceCount",
    "cudaGetDeviceProperties",
    "cudaMalloc",
    "cudaHostAlloc",
    "cudaMallocHost",
    "cudaStreamCreateWithFlags",
    "cudaStreamEndCapture",
    "cudaGraphInstantiate",
)
"""Functions that return a second item, None where they fail."""
