"""oneDNN through its C interface: PyTorch computes with this library on processors; Paddle's wheel contains it, but does not use it for training.

    Convolution = operation("convolution_forward", FORWARD, DIRECT, source, weights, None, result, strides, ...)

A `Description` is the shape, layout and number format of a tensor, an `Operation` is compiled code for given descriptions. The names and numbers of
constants are those of `dnnl.h` and `dnnl_types.h`, version 3, whose binary interface is stable within that version: `library` refuses other versions.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from ctypes import byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

FORWARD, FORWARD_INFERENCE, BACKWARD = 64, 96, 128  # propagation kinds
DIRECT, MAX_POOLING, NEAREST = 1, 511, 196592  # algorithms
GLOBAL_STATISTICS, SCALE_AND_SHIFT = 1, 2 | 4  # flags of batch normalisation

ANY, VECTOR, NCHW, GROUPED, NHWC = 1, 2, 5, 6, 22  # layouts, in oneDNN's names: any, a, abcd, abcde, acdb

SRC, SRC1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE = 1, 2, 17, 33, 41, 49, 50, 51, 52, 64  # arguments
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS, DIFF_SCALE, DIFF_SHIFT, MULTIPLE_SRC = 129, 145, 161, 169, 255, 256, 1024

BFLOAT16, FLOAT32 = 2, 3  # number formats
_BFLOAT16_SET = 0xE7  # instruction set: AVX-512 with products of bfloat16; every later set has its bits, too
_NARROW, _NARROW_CODE = 8, ":avx2"  # numbers in a vector of AVX2, and the end of the names of code for it
_QUERY_NAME = 8
_QUERY = {WEIGHTS: 131, DIFF_WEIGHTS: 132, WORKSPACE: 135}


class RefusedError(Exception):
    """Error for an operation for which oneDNN has no code, or only its slow reference code."""


class _Library:
    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        self.c.dnnl_version.restype = ctypes.POINTER(c_int * 3)
        self.version: tuple[int, ...] = tuple(self.c.dnnl_version().contents)
        for name, result, arguments in (
            ("dnnl_primitive_desc_query_md", c_void_p, [c_void_p, c_int, c_int]),
            ("dnnl_memory_desc_get_size", c_size_t, [c_void_p]),
            ("dnnl_memory_desc_equal", c_int, [c_void_p, c_void_p]),
            ("dnnl_memory_set_data_handle", c_int, [c_void_p, c_void_p]),
            ("dnnl_primitive_execute", c_int, [c_void_p, c_void_p, c_int, c_void_p]),
        ):
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.engine, self.stream = c_void_p(), c_void_p()
        self.call("engine_create", byref(self.engine), 1, c_size_t(0))
        self.call("stream_create", byref(self.stream), self.engine, 1)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.c, f"dnnl_{name}")(*arguments)
        if status:
            raise RefusedError(f"oneDNN: {name} returned {status}")


@lru_cache(maxsize=1)
def library() -> _Library | None:
    """The oneDNN library in the installed Paddle; None where there is none, or a version for which this module was not written."""
    package = importlib.util.find_spec("paddle")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "libs" / "libdnnl.so.3"
        if path.is_file():
            try:
                found = _Library(path)
            except (OSError, AttributeError, RefusedError):
                return None
            return found if found.version[0] == 3 else None
    return None


def _library() -> _Library:
    found = library()
    if found is None:
        raise RefusedError("no oneDNN")
    return found


class _Owned:
    """Owner of a handle of oneDNN, which is destroyed with this object."""

    def __init__(self, kind: str) -> None:
        self.handle, self.destroy = c_void_p(), getattr(_library().c, f"dnnl_{kind}_destroy")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.destroy(self.handle)


def has_bfloat16() -> bool:
    """Whether the processor multiplies numbers in bfloat16 itself, and oneDNN may use it (the environment's ONEDNN_MAX_CPU_ISA can forbid it)."""
    found = library()
    return found is not None and found.c.dnnl_get_effective_cpu_isa() & _BFLOAT16_SET == _BFLOAT16_SET


class Description(_Owned):
    """Shape, layout and number format of a tensor."""

    def __init__(self, shape: Sequence[int] = (), layout: int = ANY, kind: int = FLOAT32) -> None:
        super().__init__("memory_desc")
        self.shape = tuple(shape)
        if shape:
            _library().call("memory_desc_create_with_tag", byref(self.handle), len(shape), numbers(*shape), kind, layout)

    @classmethod
    def chosen(cls, operation: Operation, argument: int) -> Description:
        """The layout that a compiled operation wants for an argument that was described with the layout ANY."""
        copy, lib = cls(), _library()
        lib.call(
            "memory_desc_clone", byref(copy.handle), c_void_p(lib.c.dnnl_primitive_desc_query_md(operation.description.handle, _QUERY[argument], 0))
        )
        return copy

    def part(self, shape: Sequence[int], offsets: Sequence[int]) -> Description:
        """Description of a box within this tensor, in the same memory."""
        copy = Description()
        _library().call("memory_desc_create_submemory", byref(copy.handle), self.handle, numbers(*shape), numbers(*offsets))
        return copy

    @property
    def bytes(self) -> int:
        return _library().c.dnnl_memory_desc_get_size(self.handle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Description) and bool(_library().c.dnnl_memory_desc_equal(self.handle, other.handle))

    __hash__ = None  # type: ignore[assignment]


class Memory(_Owned):
    """A tensor's place in memory, which `at` sets. With `of` given, it describes the same memory as `of` differently and moves with it."""

    def __init__(self, description: Description, of: Memory | None = None) -> None:
        super().__init__("memory")
        self.description, self.address, self.root = description, 0, of.root if of else self
        self._views: list[Memory] = []
        self._array: np.ndarray | None = None
        if of:
            of.root._views.append(self)
        _library().call("memory_create", byref(self.handle), description.handle, _library().engine, c_void_p())

    def at(self, address: int) -> None:
        for view in self._views:
            view.at(address)
        if address == self.address:
            return
        self.address, self._array = address, None
        _library().c.dnnl_memory_set_data_handle(self.handle, address)

    def array(self) -> np.ndarray:
        """The numbers of a vector as an array over the same memory."""
        if self._array is None:
            self._array = np.ctypeslib.as_array((c_float * self.description.shape[0]).from_address(self.address))
        return self._array


class Attributes(_Owned):
    """What an operation does with its result before it is written."""

    def __init__(self) -> None:
        super().__init__("primitive_attr")
        _library().call("primitive_attr_create", byref(self.handle))

    @classmethod
    def activation(cls, algorithm: int, alpha: float, beta: float) -> Attributes:
        """Attributes by which an element-wise function is applied to the result."""
        attributes, lib, after = cls(), _library(), _Owned("post_ops")
        lib.call("post_ops_create", byref(after.handle))
        lib.call("post_ops_append_eltwise", after.handle, algorithm, real(alpha), real(beta))
        lib.call("primitive_attr_set_post_ops", attributes.handle, after.handle)
        return attributes


class Operation:
    """Compiled code of one operation.

    kind: middle part of the name of its creating function in `dnnl.h`. arguments: that function's arguments after the engine, without attributes.
    channels: number of channels that are computed side by side, for operations that have code for several instruction sets. oneDNN takes the widest
    vectors that there are, 16 numbers in AVX-512; with 8 channels half of each is wasted, and vectors of 8 numbers, in AVX2, are faster.
    Raises RefusedError where oneDNN has no code for it, or only reference code, which is thousands of times slower.
    """

    def __init__(self, kind: str, *arguments: Any, attributes: Attributes | None = None, channels: int | None = None) -> None:
        lib = _library()
        self.kind, self.primitive = kind, _Owned("primitive")
        values = [value.description if isinstance(value, Operation) else value for value in arguments]
        values = [value.handle if isinstance(value, Description | _Owned) else value for value in values]
        engine = () if kind == "reorder" else (lib.engine,)

        def described() -> _Owned:
            found = _Owned("primitive_desc")
            lib.call(f"{kind}_primitive_desc_create", byref(found.handle), *engine, *values, attributes.handle if attributes else None)
            return found

        self.description = described()
        if channels is not None and channels <= _NARROW and not self._found(_NARROW_CODE):
            self.description = described()
        if kind.startswith(("convolution", "batch")) and self.implementation.startswith("ref"):
            raise RefusedError(f"oneDNN has only reference code for {kind}")
        lib.call("primitive_create", byref(self.primitive.handle), self.description.handle)

    @property
    def implementation(self) -> str:
        """oneDNN's name of the code: a kind, and behind a colon the instruction set."""
        name = c_char_p()
        _library().call("primitive_desc_query", self.description.handle, _QUERY_NAME, 0, byref(name))
        return (name.value or b"").decode()

    def _found(self, code: str) -> bool:
        """Go on to the first code that is for an instruction set, best first; False where there is none."""
        while not self.implementation.endswith(code):
            if _library().c.dnnl_primitive_desc_next_impl(self.description.handle):
                return False
        return True


class _Argument(ctypes.Structure):
    _fields_ = (("which", c_int), ("memory", c_void_p))


class PrimitiveCall:
    """An operation with its arguments; calling it runs it."""

    def __init__(self, operation: Operation, arguments: Mapping[int, Memory]) -> None:
        self.operation, self.memories, self.kind = operation, tuple(arguments.values()), operation.kind
        lib = _library()
        self._arguments = (_Argument * len(arguments))(*(_Argument(which, memory.handle) for which, memory in arguments.items()))
        self._call, self._values = lib.c.dnnl_primitive_execute, (operation.primitive.handle, lib.stream, len(arguments), self._arguments)

    def __call__(self) -> None:
        status = self._call(*self._values)
        if status:
            raise RuntimeError(f"oneDNN: {self.operation.kind} returned {status}")


def numbers(*values: int) -> Any:
    return (c_int64 * 12)(*values)


def handles(descriptions: Sequence[Description]) -> Any:
    return (c_void_p * len(descriptions))(*(description.handle for description in descriptions))


def reorder(source: Description, target: Description) -> Operation:
    engine = _library().engine
    return Operation("reorder", source, engine, target, engine)


def real(value: float) -> c_float:
    return c_float(value)
