"""The table of rows while a layout is expanded, the call of one module, and the places where a checkpoint keeps each convolution's tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octrim.errors import InputError, shown
from octrim.network.rows import MOST_ROWS, Row


@dataclass(frozen=True)
class Stored:
    """The place where the module tree of a checkpoint keeps the tensors of one convolution.

    conv, norm, activation: dotted names of the modules; norm is empty for a convolution that never has batch norm. first: the convolution's
    first channel in a batch norm that several convolutions share. focus: the tree has a convolution over the four pixels of each 2x2 square,
    stacked as channels (`Focus` of YOLOv5 v2 to v5), where the row has a convolution of twice the kernel, stride and padding over the pixels.
    pads: zeros before and behind the map where the module is `nn.ZeroPad2d`, which has no tensors; else nothing.
    """

    conv: str
    norm: str = ""
    activation: str = ""
    first: int = 0
    focus: bool = False
    pads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tree:
    """Facts that a checkpoint's module tree tells better than its layout: a pruned or fused network keeps the layout that it once had.

    widths: output channels of every convolution module, by dotted name. norms: names of batch-norm modules. adds: whether a bottleneck
    adds its input, by dotted name. members: how many modules every sequence has, by dotted name.
    """

    widths: Mapping[str, int]
    norms: frozenset[str]
    adds: Mapping[str, bool]
    members: Mapping[str, int]


@dataclass
class Table:
    """A table of rows under construction.

    width, depth: the layout's multiples. head_channels: output channels of Detect's convolutions. activation: the default activation.
    tree: the module tree of a checkpoint, whose facts take precedence over the layout's. channels: output channels of each row by name.
    stored: the place of each convolution's tensors in a checkpoint.
    """

    width: float
    depth: float
    head_channels: int
    activation: str | None
    tree: Tree | None = None
    rows: list[Row] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)

    def add(self, row: Row) -> str:
        channels = sum(self.channels[name] for name in row.inputs) if row.op == "concat" else row.channels
        self.channels[row.name] = channels or self.channels[row.inputs[0]]
        if len(self.rows) >= MOST_ROWS:
            raise InputError(f"{row.name}: more than {MOST_ROWS} rows; no network needs that many")
        self.rows.append(row)
        return row.name

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        act: Any = True,
        stored: Stored | None = None,
    ) -> str:
        """Add a convolution with batch norm and activation, as YOLOv5's `Conv` is, or with a bias where the tree was fused; return its name."""
        stored = stored or Stored(f"{name}.conv", f"{name}.bn", f"{name}.act")
        activation = self.activation if act is True else act
        padding = kernel // 2 if padding is None else padding
        self.stored[name] = stored
        channels = self.width_of(stored.conv, channels)
        norm = self.tree is None or stored.norm in self.tree.norms
        return self.add(Row(name, "conv", (x,), channels, kernel, stride, padding, groups, bias=not norm, norm=norm, activation=activation))

    def width_of(self, conv: str, channels: int) -> int:
        """Return the output channels of a convolution module: the tree's where it has the module, else `channels`."""
        return channels if self.tree is None else self.tree.widths.get(conv, channels)

    def shortcut(self, name: str, wanted: bool, x: str, y: str) -> str:
        """Return the row `x + y` where a bottleneck adds its input, else `y`. wanted: whether the layout asks for the addition."""
        adds = wanted and self.channels[x] == self.channels[y]
        if self.tree is not None:
            adds = self.tree.adds.get(name, adds)
        return self.add(Row(f"{name}.add", "add", (x, y))) if adds else y

    def scaled(self, channels: int) -> int:
        """Return channels times the width multiple, rounded up to a multiple of 8; a count that equals Detect's output is kept, as in YOLOv5."""
        return channels if channels == self.head_channels else math.ceil(channels * self.width / 8) * 8

    def repeated(self, repeats: int, sequence: str = "") -> int:
        """Return repeats times the depth multiple, at least one; for a sequence in the tree, by dotted name, the number of its members."""
        scaled = max(round(repeats * self.depth), 1) if repeats > 1 else repeats
        return scaled if self.tree is None else self.tree.members.get(sequence, scaled)


@dataclass(frozen=True)
class Call:
    """One module of a layout. name: its dotted name. inputs: rows that it reads. arguments: as written. place: file and line, for errors."""

    name: str
    inputs: list[str]
    repeats: int
    arguments: list[Any]
    place: str

    def bind(self, *parameters: str, **defaults: Any) -> dict[str, Any]:
        """Return the arguments by name. `key=value` (text) and `key: value` are keywords, the others positional.

        defaults: values of parameters that may be missing. Raises InputError for unknown, missing or too many arguments.
        """
        bound = dict(defaults)
        positional: list[Any] = []
        for argument in self.arguments:
            text = re.fullmatch(r"\s*(\w+)\s*=\s*(.+)", argument) if isinstance(argument, str) else None
            if text:
                keywords = {text[1]: _literal(text[2])}
            elif isinstance(argument, dict):
                keywords = argument
            else:
                positional.append(argument)
                continue
            for key, value in keywords.items():
                if key not in parameters:
                    raise InputError(f"{self.place}: unknown argument {shown(key)}; known are {', '.join(parameters)}")
                bound[key] = value
        # YOLOv5 v7 put dilation before the activation: a last argument in dilation's place that is no whole number is v6's activation.
        dilation = parameters.index("d") if "d" in parameters else len(parameters)
        if len(positional) == dilation + 1 and type(positional[dilation]) is not int:
            positional.insert(dilation, 1)
        if len(positional) > len(parameters):
            raise InputError(f"{self.place}: {len(positional)} arguments, at most {len(parameters)} ({', '.join(parameters)}) are known")
        bound.update(zip(parameters, positional, strict=False))
        missing = [name for name in parameters if name not in bound]
        if missing:
            raise InputError(f"{self.place}: argument {missing[0]} is missing")
        return {key: _literal(value) if isinstance(value, str) else value for key, value in bound.items()}

    def chain(self, table: Table, build: Callable[[str, str], str]) -> str:
        """Repeat a module that takes no repeat count itself as a sequence, whose members are numbered; return the last row."""
        x, repeats = self.inputs[0], table.repeated(self.repeats)
        for index in range(repeats):
            x = build(f"{self.name}.{index}" if repeats > 1 else self.name, x)
        return x

    def integer(self, value: object, what: str, least: int = 1) -> int:
        """Return `value` as a whole number. Raises InputError for anything else, and for numbers below `least` or above a million."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # Upsample factors are often written 2.0
        if type(value) is not int or not least <= value <= 1_000_000:
            raise InputError(f"{self.place}: {what} is {shown(value)}, expected a whole number from {least}")
        return value

    def channels(self, table: Table, value: object) -> int:
        """Return the output channels that an argument gives, times the width multiple. Raises InputError for no whole number."""
        return table.scaled(self.integer(value, "channels"))


def _literal(text: str) -> Any:
    """Return the number or Python constant that `text` spells, else the text; layouts spell None, True and False Python's way."""
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    try:
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError:
        return text
