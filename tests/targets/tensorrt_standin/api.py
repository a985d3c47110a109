"""Classes and enums that refuse whatever the API of one TensorRT version does not have.

A `Guarded` class has no public names of its own. Those that the facts list are served by private ones: method `m` by `_do_m`, property `p` by
`_get_p` and `_set_p` or else a plain value. Every call is bound to the overloads of the facts first, and every argument converted as the bindings do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

FACTS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "tensorrt_api.json").read_text())

VERSIONS = tuple(FACTS)


class EnumMeta(type):
    _version: str
    __members__: dict[str, Any]

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(f"TensorRT {cls._version}: {cls.__name__} has no member {name}; it has {', '.join(cls.__members__)}")


class Enum(metaclass=EnumMeta):
    """As pybind11's: not an integer (`1 << member` is a TypeError), but `int(member)` is its value."""

    _version = ""
    __members__: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: int) -> None:
        self.value = value
        self.name = next((name for name, member in type(self).__members__.items() if member.value == value), "")

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.value))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enum(version: str, name: str, members: Mapping[str, int]) -> type[Enum]:
    made = EnumMeta(name, (Enum,), {"_version": version, "__members__": {}})
    for member, value in members.items():
        made.__members__[member] = made(value)
        made.__members__[member].name = member
        setattr(made, member, made.__members__[member])
    return made


@dataclass
class ClassFacts:
    """Of one class, its bases included: what it has by name."""

    name: str
    lineage: tuple[str, ...]
    methods: dict[str, list[list[list[str]]]]
    properties: dict[str, tuple[str | None, str | None]]

    @classmethod
    def of(cls, version: str, name: str) -> ClassFacts:
        known = FACTS[version]["classes"][name]
        bases = [cls.of(version, base) for base in known["bases"]]
        methods = {key: value for base in bases for key, value in base.methods.items()} | known["methods"]
        properties = {key: value for base in bases for key, value in base.properties.items()} | known["properties"]
        return cls(name, (name, *(ancestor for base in bases for ancestor in base.lineage)), methods, properties)


@dataclass
class Space:
    """One version of the module: its enums and classes, and what all objects of it share."""

    version: str
    device: Any
    names: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """Of every build and every deserialisation that failed."""

    def new(self, name: str, /, **setup: Any) -> Any:
        """An object of a class that the API itself makes."""
        made = object.__new__(self.names[name])
        made._made = True
        made._setup(**setup)
        return made


class Guarded:
    """Base of all classes. `_space` and `_facts` are set on the subclass that is made for each version."""

    _space: ClassVar[Space]
    _facts: ClassVar[ClassFacts]
    _made = False
    """Whether the constructor ran: a user's subclass has to call it by name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "__init__" not in self._facts.methods:
            raise TypeError(f"{self._where()}: no constructor; the API makes it")
        self._setup(**bind(self._space, self._where("__init__"), self._facts.methods["__init__"], args, kwargs))
        self._made = True

    def _setup(self, *_: Any, **__: Any) -> None:
        """What the constructor does with its converted arguments."""

    @classmethod
    def _where(cls, name: str = "") -> str:
        return f"TensorRT {cls._space.version}: {cls._facts.name}" + (f".{name}" if name else "")

    def _existing(self) -> str:
        return ", ".join(sorted(name for name in {**self._facts.methods, **self._facts.properties} if not name.startswith("_")))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        if name in self._facts.methods:
            return partial(self._call, name)
        if name not in self._facts.properties:
            raise AttributeError(f"{self._where(name)} does not exist; there are {self._existing()}")
        read = self._facts.properties[name][0]
        if read is None:
            raise AttributeError(f"{self._where(name)} can be written, not read")
        getter = getattr(self, f"_get_{name}", None)
        if getter:
            return getter()
        values = self.__dict__.get("_values", {})
        return values[name] if name in values else zero(self._space, read)

    def __setattr__(self, name: str, value: Any) -> None:
        users = type(self) is not self._space.names[self._facts.name]  # a subclass of theirs holds what it likes
        if name.startswith("_") or (users and name not in self._facts.properties):
            object.__setattr__(self, name, value)
            return
        if name not in self._facts.properties:
            if type(self) is not self._space.names[self._facts.name]:  # a class that users derived, as from ILogger: Python's own attributes
                object.__setattr__(self, name, value)
                return
            what = "is a method" if name in self._facts.methods else f"does not exist; there are {self._existing()}"
            raise AttributeError(f"{self._where(name)} {what}")
        write = self._facts.properties[name][1]
        if write is None:
            raise AttributeError(f"{self._where(name)} is read-only")
        converted = convert(self._space, self._where(name), write, value)
        self._write(name, converted)

    def _write(self, name: str, value: Any) -> None:
        setter = getattr(self, f"_set_{name}", None)
        if setter:
            setter(value)
        else:
            self.__dict__.setdefault("_values", {})[name] = value

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        bound = bind(self._space, self._where(name), self._facts.methods[name], args, kwargs)
        served: Callable[..., Any] | None = getattr(self, f"_do_{name}", None)
        if served is None:
            raise NotImplementedError(f"{self._where(name)} exists, but the stand-in does not model it")
        return served(**bound)


def bind(space: Space, where: str, overloads: Sequence[Sequence[Sequence[str]]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, of the first overload that takes them. Raises TypeError with what each one had against them."""
    reasons = []
    for parameters in overloads:
        try:
            return _bound(space, where, parameters, args, kwargs)
        except TypeError as error:
            reasons.append(f"({', '.join(f'{name}: {kind}' for name, kind, *_ in parameters)}) - {error}")
    given = ", ".join([*(brief(value) for value in args), *(f"{name}={brief(value)}" for name, value in kwargs.items())])
    raise TypeError(f"{where}({given}) is refused; there is " + "; and ".join(reasons))


def _bound(space: Space, where: str, parameters: Sequence[Sequence[str]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name, *_ in parameters]
    if len(args) > len(names):
        raise TypeError(f"{len(args)} arguments given, at most {len(names)} taken")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise TypeError(f"no parameter {name!r}")
        if name in given:
            raise TypeError(f"{name!r} given twice")
        given[name] = value
    bound = {}
    for name, kind, *default in parameters:
        if name not in given:
            if not default:
                raise TypeError(f"{name!r} is missing")
            bound[name] = _default(space, kind, default[0])
        elif given[name] is None and default == ["None"]:
            bound[name] = None
        else:
            bound[name] = convert(space, f"{where}, {name}", kind, given[name])
    return bound


def _default(space: Space, kind: str, text: str) -> Any:
    if text.startswith("<"):  # an enum's repr, `<DataType.FLOAT: 0>`
        name, _, member = text[1:].partition(":")[0].partition(".")
        return space.names[name].__members__[member]
    return {"None": None, "True": True, "False": False}.get(text, int(text) if text.isdigit() else text)


def brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array {list(value.shape)}"
    return repr(value) if isinstance(value, (int, float, str, Enum, type(None))) else type(value).__name__


def _refused(where: str, kind: str, value: Any) -> TypeError:
    """Made where it is raised: a frame that keeps its own exception would keep the arguments alive."""
    return TypeError(f"{where} is {brief(value)}, expected {kind}")


def convert(space: Space, where: str, kind: str, value: Any) -> Any:
    """`value` as the bindings would take it for a parameter of type `kind`. Raises TypeError."""
    if kind.startswith("collections.abc.Sequence["):
        if not isinstance(value, (list, tuple)):
            raise _refused(where, kind, value)
        return [convert(space, where, kind[len("collections.abc.Sequence[") : -1], item) for item in value]
    if kind.startswith("trt."):
        return _instance(space, where, kind, value)
    if kind == "typing.SupportsInt":  # pybind11 never takes a float for an integer
        if isinstance(value, (float, np.floating)) or not hasattr(value, "__index__"):
            raise _refused(where, kind, value)
        return value.__index__()
    if kind == "typing.SupportsFloat":
        if isinstance(value, (str, Enum)) or not hasattr(value, "__float__"):
            raise _refused(where, kind, value)
        return float(value)
    if kind == "typing_extensions.Buffer":
        try:
            return bytes(memoryview(value))
        except TypeError:
            raise _refused(where, kind, value) from None
    plain = {"str": str, "bool": bool, "tuple": tuple, "list": list, "slice": slice, "object": object, "numpy.ndarray": np.ndarray}
    if not isinstance(value, plain[kind]):
        raise _refused(where, kind, value)
    return value


def _instance(space: Space, where: str, kind: str, value: Any) -> Any:
    name = kind.removeprefix("trt.")
    if name == "ILogger.Severity":
        name = "Severity"
    wanted = space.names.get(name)
    if wanted is None:
        raise NotImplementedError(f"{where} takes a {name}, which the stand-in does not model")
    if issubclass(wanted, Enum):
        if type(value) is not wanted:
            raise _refused(where, kind, value)
        return value
    if isinstance(value, Guarded) and value._space is space and name in value._facts.lineage:
        if not value._made:
            raise TypeError(f"{where}: __init__ of {name} was not called by {type(value).__name__}")
        return value
    if name in ("Dims", "Permutation") and isinstance(value, (list, tuple)):  # which the bindings convert, but no array
        return wanted(value)
    if name == "Weights" and isinstance(value, np.ndarray):
        return wanted(value)
    raise _refused(where, kind, value)


def zero(space: Space, kind: str) -> Any:
    """What a property holds before anyone wrote it, where the class does not say."""
    plain = {"int": 0, "float": 0.0, "bool": False, "str": "", "list[str]": [], "list[float]": []}
    if kind in plain:
        return plain[kind]
    made = space.names.get(kind.removeprefix("trt."))
    return made(0) if made is not None and issubclass(made, Enum) else None
