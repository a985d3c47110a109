"""Sessions that run in C: a model's network by the compiled runtime, and exported folders by the detector.c in them."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from octrim.errors import InputError
from octrim.machine import usable_cores
from octrim.network.model import Model
from octrim.targets.c.compiler import built, compiler
from octrim.targets.c.engine import Engine, Library
from octrim.targets.c.folder import HEADER, read_source
from octrim.targets.c.program import program
from octrim.targets.c.source import assembled
from octrim.targets.metadata import file_info, read_header
from octrim.targets.session import PerShape, Session, model_info

MOST_THREADS = 64  # as in runtime/run.h


class CSession(Session):
    """Lays a model's network out as tables, once per size, for the runtime that is compiled for this machine. Batches are a loop over pictures."""

    def __init__(self, model: Model, precision: str, threads: int | None) -> None:
        library = runtime_library()
        super().__init__(model_info(model, "c", _version(library.lanes), precision))
        threads = _threads(threads)
        self.engines = PerShape(lambda _batch, height, width: Engine(library, program(model, height, width), threads))

    def ready(self, batch: int, height: int, width: int) -> None:
        self.engines(1, height, width)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self.engines(1, *batch.shape[1:3])(batch)


class CFolderSession(Session):
    """Compiles the detector.c of an exported folder and runs it, with its own header and weights.

    This executes code that stands in the folder, as compiling and starting it by hand would.
    """

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        if precision != "fp32":
            raise InputError(f"{path}: it was exported in fp32; {precision} was asked for")
        source, header = (read_source(path / name) for name in ("detector.c", "detector.h"))
        described = read_header(path / HEADER, {"detector.c": source.encode(), "detector.h": header.encode()})
        self.library = _Functions(ctypes.CDLL(str(built(source, (("detector.h", header),)))), path)
        width, height, *self.result = self.library.sizes
        super().__init__(file_info(path, described, (None, 3, height, width), (None, *self.result), "c", _version(0), "fp32"))
        self.handle = self.library.open(_threads(threads))

    def run(self, batch: np.ndarray) -> np.ndarray:
        found = np.empty((len(batch), *self.result), np.float32)
        for picture, boxes in zip(np.ascontiguousarray(batch), found, strict=True):
            self.library.calls.detector_run(self.handle, picture.ctypes.data, boxes.ctypes.data)
        return found

    def end(self) -> None:
        """End the instance's threads and give its memory back."""
        if self.handle:
            self.library.calls.detector_close(self.handle)
        self.handle = None

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.end()


class _Options(ctypes.Structure):
    """`detector_options` of detector.h."""

    _fields_ = (
        ("threads", ctypes.c_int),
        ("memory", ctypes.c_void_p),
        ("memory_bytes", ctypes.c_size_t),
        ("weights", ctypes.c_void_p),
        ("weights_bytes", ctypes.c_size_t),
        ("weights_path", ctypes.c_char_p),
    )


class _Functions:
    """The functions of detector.h. sizes: width, height, boxes, numbers per box."""

    def __init__(self, calls: ctypes.CDLL, path: Path) -> None:
        self.calls, self.path = calls, path
        sizes = (ctypes.c_int32 * 4)()
        try:
            calls.detector_message.restype = ctypes.c_char_p
            calls.detector_run.restype = None
            calls.detector_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
            calls.detector_close.argtypes = (ctypes.c_void_p,)
            calls.detector_sizes(sizes)
            self.sizes: tuple[int, ...] = tuple(sizes)
        except AttributeError:
            raise InputError(f"{path}: detector.c is not as octrim export wrote it") from None

    def open(self, threads: int) -> ctypes.c_void_p:
        """A new instance. Raises InputError with the message of detector_open, such as for weights of another export."""
        handle = ctypes.c_void_p()
        options = _Options(threads=threads, weights_path=os.fsencode(self.path / "weights.bin"))
        error = self.calls.detector_open(ctypes.byref(options), ctypes.byref(handle))
        if error:
            raise InputError(f"{self.path}: {self.calls.detector_message(error).decode()}")
        return handle


@lru_cache
def runtime_library() -> Library:
    """The runtime, compiled for this machine once per process. Raises InputError where nothing compiles it."""
    return Library(built(assembled("library.c", {})))


def _version(lanes: int) -> str:
    """The compiler's version and the width of its vectors, as text."""
    name = Path(compiler()[0]).name
    return f"{name}, {lanes} lanes" if lanes else name


def _threads(threads: int | None) -> int:
    return min(threads or usable_cores(), MOST_THREADS)
