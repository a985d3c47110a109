"""Options of commands: their types, ranges and names, and the one check of their values, whether typed, given from Python or stored in a YAML file.

A command's options are the fields of a frozen dataclass. A field's annotation states its values: `epochs: Annotated[int, Range(1, 100_000)] = 100`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import arg

from octrim.errors import InputError, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Range of the numbers that an option may have, stated in its annotation; where an option takes several numbers, each must lie in it.

    low, high: the bounds, which are allowed themselves; None for no upper bound. above: the lower bound itself is not allowed.
    """

    low: float
    high: float | None = None
    above: bool = False

    def __contains__(self, value: float) -> bool:
        large_enough = value > self.low if self.above else value >= self.low
        return large_enough and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"more than {self.low}" if self.above else f"{self.low} or more"
        return f"more than {self.low} and at most {self.high}" if self.above else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Option:
    """Description of a field of a command's dataclass: its names and the values that it may hold.

    kinds: types of a value, or of each value where `many`. choices: all allowed values, where they are listed; of
    an option with types, words that may stand in their place. optional: whether None is allowed.
    aliases: further names on the command line, without dashes.
    """

    name: str
    kinds: tuple[type, ...]
    choices: tuple[Any, ...]
    many: bool
    optional: bool
    range: Range | None
    aliases: tuple[str, ...]
    default: Any

    @property
    def flag(self) -> bool:
        """Whether the option is a flag, which its name alone switches on."""
        return self.kinds == (bool,) and self.default is False

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the option on the command line, without leading dashes, and with dashes in place of underscores."""
        return (self.name.replace("_", "-"), *self.aliases)

    def value(self, given: object, label: str) -> Any:
        """The field's value for a given one. Raises InputError, whose text begins with `label`, for values that the field cannot hold."""
        if given is None and self.optional:
            return None
        if self.many:
            items = given if isinstance(given, list | tuple) else (given,)
            return tuple(self._one(item, label) for item in items)
        return self._one(given, label)

    def _one(self, given: object, label: str) -> Any:
        if any(given == choice and type(given) is type(choice) for choice in self.choices):
            return given
        if not self.kinds:
            raise InputError(f"{label} is {shown(given)}, expected {self._expected()}")
        number = type(given) in (int, float)
        if type(given) in self.kinds:
            value: Any = given
        elif number and float in self.kinds:
            value = _as_float(typing.cast(float, given))
        elif number and str in self.kinds:
            value = str(given)
        else:
            raise InputError(f"{label} is {shown(given)}, expected {self._expected()}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{label} is {value}, expected {self.range or 'a finite number'}")
        if self.range is not None and not isinstance(value, str) and value not in self.range:
            raise InputError(f"{label} is {shown(value)}, expected {self.range}")
        return value

    def _expected(self) -> str:
        nouns = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
        what = " or ".join(nouns[kind] for kind in self.kinds)
        if self.kinds and self.range is not None:
            what = f"{what}, {self.range}"
        return alternatives([*(str(choice) for choice in self.choices), *([what] if what else [])])

    def from_text(self, texts: Sequence[str], label: str) -> Any:
        """The value that words of the command line mean. Raises InputError for words that are no value of the option."""
        if not texts:
            raise InputError(f"{label}: the value is missing")
        if not self.many:
            return self.value(self._read(texts[-1]), label)
        if str not in self.kinds or int in self.kinds:
            # Several values may stand in one word, as in imgsz=480,640, classes=[0, 2] and classes=person,car; names have spaces.
            between = None if str not in self.kinds or not any(letter.isalpha() for text in texts for letter in text) else ","
            texts = [part.strip() for text in texts for part in (text.strip("[]() ").replace(",", " ") if between is None else text).split(between)]
        if not texts:
            raise InputError(f"{label}: the value is missing")
        if self.optional and list(texts) == ["None"]:
            return None
        return self.value([self._read(text) for text in texts], label)

    def _read(self, text: str) -> object:
        """A word converted to the first of the option's types that fits; the word itself where none fits."""
        if text == "None" and self.optional:
            return None
        kinds = (*self.kinds, *(type(choice) for choice in self.choices))
        for kind in kinds:
            if kind is bool and text.lower() in SWITCH:
                return SWITCH[text.lower()]
            if kind in (int, float):
                try:
                    return kind(text)
                except (ValueError, OverflowError):
                    continue
        return text


SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
"""Words that switch an option on or off."""


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def alternatives(words: Sequence[str]) -> str:
    """The words joined as alternatives: `a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@functools.cache
def options_of(kind: Any) -> Mapping[str, Option]:
    """The options of a command's dataclass, by the names of its fields."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _option(field, hints[field.name]) for field in dataclasses.fields(kind)}


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    kinds: list[type] = []
    choices: list[Any] = []
    notes: list[Any] = []
    many = optional = False

    def note(hint: Any) -> None:
        nonlocal many, optional
        origin, parts = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            notes.extend(parts[1:])
            note(parts[0])
        elif origin in (typing.Union, types.UnionType):
            for part in parts:
                note(part)
        elif origin is tuple:
            many = True
            note(parts[0])
        elif origin is Literal:
            choices.extend(parts)
        elif hint is type(None):
            optional = True
        else:
            kinds.append(hint)

    note(hint)
    ranges = [one for one in notes if isinstance(one, Range)]
    aliases = tuple(alias.lstrip("-") for one in notes for alias in getattr(one, "aliases", None) or ())
    return Option(field.name, tuple(kinds), tuple(choices), many, optional, ranges[-1] if ranges else None, aliases, field.default)


def from_python(kind: type[T], options: Mapping[str, Any]) -> T:
    """The configuration with the given options from Python, or the arguments of a function that a dataclass describes.

    Paths count as text, and numbers and arrays of NumPy as Python's.
    Raises TypeError for unknown options, as a function call does, and InputError for values that a field cannot hold.
    """
    known = options_of(kind)
    values: dict[str, Any] = {}
    for name, given in in_todays_words(kind, options).items():
        if name not in known:
            command = typing.cast(Any, kind).command
            raise TypeError(f"{command}() got an unexpected keyword argument '{name}'; it takes {', '.join(known)}")
        values[name] = known[name].value(plain(given), name)
    return kind(**values)


def plain(given: Any) -> Any:
    """A value in Python's own types, which YAML and JSON can hold: NumPy's scalars as numbers, its arrays as lists, sets
    as sorted lists, paths as text."""
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    if isinstance(given, list | tuple):
        return [plain(item) for item in given]
    if isinstance(given, set | frozenset):
        return sorted(map(plain, given), key=str)
    # Scalars and arrays of NumPy (and tensors) have `tolist`; NumPy itself is not imported for that.
    return given.tolist() if hasattr(given, "tolist") else given


def from_stored(kind: type[T], content: Mapping[str, Any], source: str) -> T:
    """The configuration that was stored in a file. source: the file's name for errors. Raises InputError for values that a field cannot hold."""
    known = options_of(kind)
    return kind(**{name: known[name].value(value, f"{source}: {name}") for name, value in in_todays_words(kind, content).items()})


def in_todays_words(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by today's names of the fields: an option's older names, which are aliases on the command line, are replaced."""
    known = options_of(kind)
    names = {alias.replace("-", "_"): name for name, option in known.items() for alias in option.aliases}
    return {name if name in known else names.get(name, name): value for name, value in values.items()}


def arguments_of(config: Any) -> list[str]:
    """The command-line arguments that give this configuration."""
    arguments = config.command.split()
    for name, option in options_of(type(config)).items():
        value = getattr(config, name)
        if value != option.default:
            arguments.append(f"--{option.names[0]}")
            if not option.flag:
                arguments += map(str, value) if isinstance(value, tuple) else [str(value)]
    return arguments


Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
File = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
ImageSize = Annotated[tuple[int, ...] | None, arg(aliases=["--img", "--img-size"], metavar="PX [PX]", help_behavior_hint=""), Range(1, 16384)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Conf = Annotated[float, arg(aliases=["--conf-thres"]), Range(0, 1)]
Iou = Annotated[float, arg(aliases=["--iou-thres"]), Range(0, 1)]
Align = Annotated[int | Literal["auto"], arg(metavar="N|auto", help_behavior_hint="(default: auto)"), Range(1)]
Budget = Annotated[str | None, arg(metavar="{channels,params,macs,latency}=F", help_behavior_hint="")]
BatchSize = Annotated[int, arg(aliases=["--batch-size"]), Range(1, 65536)]
CriterionName = Literal["bn", "l1", "l2", "group-l2", "fpgm", "scale", "signal", "taylor", "random"]

Widths = Literal["importance", "variance"]
"""What says how many channels each group keeps of what is to be left."""

OptimizerName = Literal["SGD", "Muon", "AdamW"]
"""Names of the optimizers that change weights in a training."""

ActivationName = Literal["relu", "relu6", "leaky_relu:0.1", "hardswish"]
"""Names of the activations that a network can be trained to have in place of its own; that of a leaky ReLU carries its slope below zero."""

TeacherPrecision = Literal["fp32", "bf16"]
"""Names of the number formats that a teacher can compute in."""


@dataclass(frozen=True)
class OneNetwork:
    """Options of every command that reads one network."""

    weights: Text = None
    """Model file (.safetensors) or YOLOv5 checkpoint (.pt) to start from."""
    cfg: Text = None
    """Layout to start from with fresh weights, instead of --weights: yolov5n .. yolov5x6, or a YAML file."""
    seed: Seed = 0
    """Seed of fresh weights, and of everything else that is drawn at random."""


@dataclass(frozen=True)
class Reading:
    """Options of every command that opens a data set."""

    val_share: Annotated[float | None, arg(metavar="F", help_behavior_hint=""), Range(0, 0.9)] = None
    """Share of the pictures that validates where the data set has one part only, chosen by their contents (default: 0.2); 0 divides nothing."""
    keep_difficult: bool = False
    """Take objects that Pascal VOC marks difficult as any others, instead of ignoring them."""

    def reading(self) -> dict[str, Any]:
        """These options as `open_dataset` and `open_labelled` take them."""
        return {"val_share": self.val_share, "keep_difficult": self.keep_difficult}


@dataclass(frozen=True)
class Folder:
    """Options of every command that leaves files."""

    project: Text = None
    """Folder of runs (default: runs/COMMAND)."""
    name: str = "exp"
    """Name of the run's folder; a number is added where it exists."""
    exist_ok: bool = False
    """Write into an existing run folder."""
