"""The runtime in C as a library, called through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from octrim.targets.c.program import MapEntry, Program, StageEntry, StepEntry, entry

_ALIGNMENT = 64


class _Network(ctypes.Structure):
    """`Network` of runtime/network.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("height", "width", "boxes", "values", "arena", "scratch", "stages", "bands")),
        *((name, ctypes.c_void_p) for name in ("maps", "step", "stage", "taps")),
    )


class Library:
    """The compiled runtime. Any number of engines may come from it."""

    def __init__(self, path: Path) -> None:
        self.calls = ctypes.CDLL(str(path))
        self.calls.octrim_memory.restype = ctypes.c_size_t
        self.calls.octrim_memory.argtypes = (ctypes.c_void_p, ctypes.c_int)
        self.calls.octrim_open.restype = ctypes.c_void_p
        self.calls.octrim_open.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        self.calls.octrim_run.restype = None
        self.calls.octrim_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self.calls.octrim_close.restype = None
        self.calls.octrim_close.argtypes = (ctypes.c_void_p,)

    @property
    def lanes(self) -> int:
        """Number of floats in a vector of this build."""
        return self.calls.octrim_lanes()


class Engine:
    """A program with memory and threads of its own. It may be called by one thread at a time."""

    def __init__(self, library: Library, program: Program, threads: int) -> None:
        self.library, self.program = library, program
        self.tables = [_table(program.maps), _table(program.steps), _table(program.stages), np.ascontiguousarray(program.taps)]
        sizes = (program.height, program.width, program.boxes, program.values, program.arena, program.scratch, len(program.stages), program.bands)
        self.network = _Network(*sizes, *(table.ctypes.data for table in self.tables))
        self.weights = np.ascontiguousarray(program.weights)
        self.memory = np.empty(library.calls.octrim_memory(ctypes.byref(self.network), threads) + _ALIGNMENT, np.uint8)
        self.handle = library.calls.octrim_open(ctypes.byref(self.network), self.weights.ctypes.data, self.memory.ctypes.data, threads)
        if not self.handle:
            raise OSError(f"cannot start {threads} threads")

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Predictions, float32 `[batch, boxes, 5 + classes]`, for pictures, uint8 RGB `[batch, height, width, 3]`."""
        batch = np.ascontiguousarray(batch)
        found = np.empty((len(batch), self.program.boxes, self.program.values), np.float32)
        self.library.calls.octrim_run(self.handle, batch.ctypes.data, len(batch), found.ctypes.data)
        return found

    def close(self) -> None:
        """End the threads."""
        if self.handle:
            self.library.calls.octrim_close(self.handle)
        self.handle = None

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.close()


def _table(entries: tuple[MapEntry, ...] | tuple[StepEntry, ...] | tuple[StageEntry, ...]) -> np.ndarray:
    return np.array([entry(one) for one in entries], np.int32)
