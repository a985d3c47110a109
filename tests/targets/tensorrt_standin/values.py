"""Dims, Permutation and Weights."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tests.targets.tensorrt_standin.api import Enum, Guarded, brief

MAX_DIMS = 8

DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "UINT8": np.uint8, "BOOL": np.bool_, "INT64": np.int64}
"""NumPy's type of a TensorRT one, for those that NumPy has."""

_WEIGHTS = ("FLOAT", "HALF", "INT8", "INT32")


class _Integers(Guarded):
    _items: list[int]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int | slice) -> Any:
        return self._items[index] if isinstance(index, int) else tuple(self._items[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._items[index] = value

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def __repr__(self) -> str:
        return repr(tuple(self._items))


class Dims(_Integers):
    """The bindings compare it with tuples and lists only."""

    __hash__ = None  # type: ignore[assignment]

    def _setup(self, shape: Sequence[int] = ()) -> None:
        if len(shape) > MAX_DIMS:
            raise ValueError(f"{self._where()}: {len(shape)} dimensions, at most {MAX_DIMS}")
        self._items = list(shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple)):
            raise TypeError(f"{self._where()}: == compares with a tuple or list, not {brief(other)}; wrap it in tuple()")
        return self._items == list(other)


class Permutation(_Integers):
    """Zeros beyond what it was given, so that one for fewer dimensions than a tensor has is none."""

    def _setup(self, arg0: Sequence[int] = ()) -> None:
        if sorted(arg0) != list(range(len(arg0))) or len(arg0) > MAX_DIMS:
            raise ValueError(f"{self._where()}: {tuple(arg0)} is no permutation of at most {MAX_DIMS} dimensions")
        self._items = [*arg0, *[0] * (MAX_DIMS - len(arg0))]


class Weights(Guarded):
    """`_data` is a flat copy; `_source` the array that TensorRT would keep a pointer to."""

    _data: np.ndarray
    _source: np.ndarray | None = None
    _type: Enum

    def _setup(self, type: Enum | None = None, ptr: int | None = None, count: int = 0, a: np.ndarray | None = None) -> None:
        types = self._space.names["DataType"]
        if a is not None:
            self._type = types.__members__[type_of(a)]
            self._source, self._data = a, a.reshape(-1).copy()
            return
        if type is None or type.name not in DTYPES:
            raise ValueError(f"{self._where()}: no weights of type {type}")
        self._type = type
        dtype = np.dtype(DTYPES[type.name])
        data = ctypes.string_at(ptr, count * dtype.itemsize) if ptr is not None and count else b""
        self._data = np.frombuffer(data, dtype).copy()

    def __len__(self) -> int:
        return self._data.size

    def _get_dtype(self) -> Enum:
        return self._type

    def _get_size(self) -> int:
        return self._data.size

    def _get_nbytes(self) -> int:
        return self._data.nbytes

    def _do_numpy(self) -> np.ndarray:
        return self._data


def type_of(array: np.ndarray) -> str:
    """DataType of an array that may become weights. Raises TypeError.

    The bindings look at the identity of the dtype, not its value: an array out of a pickle carries a copy of float32 and is refused, and so is what
    NumPy derives from it, until it is rebuilt with a named dtype.
    """
    for name in _WEIGHTS:
        if array.dtype is np.dtype(DTYPES[name]):
            break
    else:
        if any(array.dtype == np.dtype(DTYPES[name]) for name in _WEIGHTS):
            raise TypeError(f"weights of a {array.dtype} that came out of a pickle; rebuild the array with np.ascontiguousarray(a, dtype=...)")
        kinds = ", ".join(np.dtype(DTYPES[name]).name for name in _WEIGHTS)
        raise TypeError(f"weights of dtype {array.dtype.str} ({array.dtype}); expected native-endian {kinds}")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise TypeError(f"weights {list(array.shape)} with strides {array.strides} are not C-contiguous and aligned")
    return name
