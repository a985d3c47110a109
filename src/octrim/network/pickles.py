"""Reads the pickle inside a PyTorch checkpoint without executing any of it.

A pickle is a program for a small stack machine whose instructions may import and call anything. This interpreter has no
instruction that does: a name on the allow-list becomes an inert `Instance` that remembers its arguments and state, containers
become plain containers, and a tensor becomes a `StoredTensor`, a description checked against its storage before it is read.
A name that is not on the list ends the reading.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from octrim.errors import InputError, shown

# yolov5x6 with its optimizer needs 0.4 MB and 150,000 instructions; far more is an attack or another kind of file.
_MOST_BYTES = 64 * 2**20
_MOST_INSTRUCTIONS = 4_000_000

STORAGE_TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}

# Namespaces of module classes. Their instances are inert whatever the class; `checkpoint` decides which ones mean something.
_CLASS_NAMESPACES = ("models.", "torch.nn.modules.", "torch.nn.parallel.", "ultralytics.", "utils.activations.")

_INERT = {
    *(f"torch.{name}" for name in STORAGE_TYPES),
    *(f"torch.{name}" for name in ("Size", "device", "float16", "float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")),
    *(f"numpy{core}.multiarray.{name}" for core in (".core", "._core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64")),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath")),
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "bool", "tuple")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    "datetime.datetime",
    "_codecs.encode",
}


@dataclass(frozen=True, repr=False)
class Name:
    """The name of a class or function in a pickle."""

    path: str

    def __repr__(self) -> str:
        return f"<{self.path[:80]}>"


@dataclass(eq=False, repr=False)
class Instance:
    """The inert result of calling an allowed name: the name, the call's arguments, and the state that was set."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name[:80]}>"


@dataclass(frozen=True)
class Storage:
    """A run of `count` values in the archive's record `data/{key}`. kind: a value of STORAGE_TYPES."""

    kind: str
    key: str
    count: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("u2" if self.kind == "bf16" else self.kind)


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; offset and strides count elements. Raises InputError where the view does not lie within the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides) if isinstance(self.shape, tuple) and isinstance(self.strides, tuple) else (None,)
        if not isinstance(self.storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers) or len(self.shape) != len(self.strides):
            raise InputError(f"a tensor of shape {shown(self.shape)}, strides {shown(self.strides)}, offset {shown(self.offset)} makes no sense")
        elements = math.prod(self.shape) if len(self.shape) <= 8 else self.storage.count + 1
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)) if elements else 0
        if elements > self.storage.count or max(self.strides, default=0) > max(self.storage.count, 1) or last >= max(self.storage.count, 1):
            raise InputError(
                f"a tensor of shape {shown(self.shape)}, strides {shown(self.strides)}, offset {self.offset} "
                f"does not fit into its storage {shown(self.storage.key)} of {self.storage.count} values"
            )


def _rebuild_tensor(*arguments: Any) -> StoredTensor:
    if len(arguments) < 4:
        raise InputError(f"a tensor is described by {len(arguments)} values, expected storage, offset, shape and strides")
    return StoredTensor(*arguments[:4])


def _rebuild_parameter(*arguments: Any) -> Any:
    if not arguments:
        raise InputError("a parameter without its tensor")
    return arguments[0]


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """Return the dictionary that OrderedDict() or OrderedDict([[key, value], ...]) makes."""
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise InputError(f"a mapping built from {shown(arguments)}")
    return {_key(key): value for key, value in pairs}


def _set(*arguments: Any) -> set[Any]:
    values = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(values, list | tuple):
        raise InputError(f"a set built from {shown(arguments)}")
    return {_key(value) for value in values}


def _bound_method(*arguments: Any) -> Instance:
    """Return an inert stand-in for `getattr(module, "forward_fuse")`, which modules pickle after `model.fuse()`. Nothing is looked up."""
    if len(arguments) != 2 or not isinstance(arguments[0], Instance) or not isinstance(arguments[1], str) or not arguments[1].isidentifier():
        raise InputError(f"its pickle takes an attribute of {shown(arguments[:1])}, which no checkpoint needs; nothing was executed")
    return Instance("builtins.getattr")


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "builtins.set": _set,
    "builtins.getattr": _bound_method,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}


def _key(value: Any) -> Any:
    """Return a dictionary key or set member. Raises InputError unless it is a plain value: hashing nested tuples can take exponential time."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    raise InputError(f"{shown(value)} as a dictionary key")


def named_globals(data: bytes) -> set[str]:
    """Return every name that a pickle may mention, found without interpreting it; the names tell what kind of checkpoint it is."""
    names: set[str] = set()
    strings = ["", ""]
    for opcode, argument, _ in _instructions(data):
        if opcode == "GLOBAL":
            names.add(_path(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            names.add(_path(*strings))
        elif isinstance(argument, str):
            strings = [strings[1], argument]
    return names


def read_pickle(data: bytes) -> Any:
    """Return the object that a pickle describes, inert. Raises InputError for a name, an instruction or a structure that is not allowed."""
    machine = _Machine()
    for opcode, argument, position in _instructions(data):
        if opcode == "STOP":
            return machine.pop()
        try:
            machine.execute(opcode, argument)
        except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"malformed pickle: {opcode} at byte {position} does not fit what comes before it") from None
    raise InputError("malformed pickle: it has no end")


def _instructions(data: bytes) -> Iterator[tuple[str, Any, int]]:
    if len(data) > _MOST_BYTES:
        raise InputError(f"its pickle has {len(data)} bytes; no detector needs more than {_MOST_BYTES}")
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count > _MOST_INSTRUCTIONS:
                raise InputError(f"its pickle has more than {_MOST_INSTRUCTIONS} instructions; no detector needs that many")
            yield opcode.name, argument, position or 0
    except InputError:
        raise
    except Exception as error:  # genops raises ValueError for most damage, and whatever its decoders raise for the rest
        raise InputError(f"malformed pickle: {shown(str(error))}") from None


def _path(module: str, name: str) -> str:
    if len(module) + len(name) > 200:
        raise InputError(f"its pickle has a name of {len(module) + len(name)} characters; no class has that")
    return f"{'builtins' if module == '__builtin__' else module}.{name}"


class _Machine:
    """The stack machine of pickle protocols 2 to 5, without imports and calls."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def copy(self, *containers: Any) -> None:
        """Count the elements of containers that an instruction copies, and raise InputError for too many: a pickle may name a long one repeatedly."""
        self.copied += sum(len(container) for container in containers if isinstance(container, list | tuple | dict | set))
        if self.copied > _MOST_INSTRUCTIONS:
            raise InputError("its pickle copies the same containers over and over; no checkpoint needs that")

    def pop(self) -> Any:
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise InputError("malformed pickle: it takes more values than it has made")
        return self.stack.pop()

    def popped(self) -> list[Any]:
        """Take all values above the last mark from the stack, and the mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def execute(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > 64:
                raise InputError(f"its pickle holds an integer of {argument.bit_length()} bits; no checkpoint needs that")
            self.stack.append(argument)
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(tuple([self.pop() for _ in range(int(opcode[-1]))][::-1]))
        elif opcode == "MARK":
            self.marks.append(len(self.stack))
        elif opcode == "POP":
            self.pop()
        elif opcode == "POP_MARK":
            self.popped()
        elif opcode == "DUP":
            self.stack.append(self.stack[-1])
        elif opcode in ("PROTO", "FRAME"):
            pass
        else:
            method = getattr(self, f"do_{opcode.lower()}", None)
            if method is None:
                raise InputError(f"its pickle uses the instruction {opcode}, which no checkpoint needs; nothing was executed")
            method(argument)

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.popped()))

    def do_list(self, _: Any) -> None:
        self.stack.append(self.popped())

    def do_dict(self, _: Any) -> None:
        values = self.popped()
        self.stack.append({_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)})

    def do_frozenset(self, _: Any) -> None:
        self.stack.append({_key(value) for value in self.popped()})

    def do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self.popped())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Instance):  # a container class of torch.nn may be filled this way; what it holds is not needed
            raise InputError(f"malformed pickle: it appends to {shown(target)}")

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def do_setitems(self, _: Any) -> None:
        self._update(self.popped())

    def _update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Instance):
            target = target.state
        if not isinstance(target, dict) or len(values) % 2:
            raise InputError(f"malformed pickle: it sets items of {shown(target)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def do_additems(self, _: Any) -> None:
        values = self.popped()
        if not isinstance(self.stack[-1], set):
            raise InputError(f"malformed pickle: it adds to {shown(self.stack[-1])}")
        self.stack[-1].update(_key(value) for value in values)

    def do_global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise InputError("malformed pickle: a name that is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        path = _path(module, name)
        if path not in _CALLS and path not in _INERT and not (f"{module}.".startswith(_CLASS_NAMESPACES) and name.isidentifier()):
            raise InputError(f"its pickle names {path[:120]!r}, which is not on the list of what a YOLOv5 checkpoint needs; nothing was executed")
        self.stack.append(Name(path))

    def do_reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    def do_newobj(self, _: Any) -> None:
        self.do_reduce(None)

    def do_newobj_ex(self, _: Any) -> None:
        self.pop()
        self.do_reduce(None)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise InputError(f"malformed pickle: it calls {shown(function)} with {shown(arguments)}")
        self.copy(arguments, *arguments[:4])
        call = _CALLS.get(function.path)
        self.stack.append(call(*arguments) if call else Instance(function.path, arguments))

    def do_build(self, _: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Instance):
            if isinstance(state, tuple) and len(state) == 2:  # the state is (attributes, slots)
                state = state[0]
            self.copy(state)
            target.state.update(state if isinstance(state, dict) else {})
        elif not isinstance(target, dict | set | StoredTensor):  # attributes of containers (a state dict's _metadata) are dropped
            raise InputError(f"malformed pickle: it sets the state of {shown(target)}")

    def do_binpersid(self, _: Any) -> None:
        identity = self.pop()
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage" or not isinstance(identity[1], Name):
            raise InputError(f"malformed pickle: {shown(identity)} is no storage")
        kind = STORAGE_TYPES.get(identity[1].path.removeprefix("torch."))
        if kind is None or not isinstance(identity[2], str) or type(identity[4]) is not int or identity[4] < 0:
            raise InputError(f"malformed pickle: {shown(identity)} is no storage")
        self.stack.append(Storage(kind, identity[2], identity[4]))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
