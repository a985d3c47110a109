"""From the published YAML layout of YOLOv5 v6/v7 (users' own files of that format too) to rows.

    network = yolov5_network("yolov5n")                  # n s m l x, n6 s6 m6 l6 x6
    network = yolov5_network("mine.yaml", classes=3)

A layout lists modules as `[from, repeats, module, arguments]`. Nothing in it is evaluated: modules and activations are looked up
by name, and whatever is not known is an error that names the file and the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octrim.errors import InputError, shown
from octrim.network.layout import Layout, read_layout
from octrim.network.rows import INPUTS, MAX_ROWS, Network, Row


def yolov5_network(cfg: str | Path, classes: int | None = None) -> Network:
    """The network of a published variant (`yolov5n` .. `yolov5x6`) or of a user's YAML file.

    classes: replaces the layout's `nc`. Raises InputError for an unknown name and for a layout that is not understood.
    """
    layout = read_layout(cfg)
    if classes is not None:
        layout = replace(layout, values={**layout.values, "nc": classes})
    return expand(layout)


def expand(layout: Layout) -> Network:
    """The rows of a layout. Raises InputError that names the line of whatever is not understood."""
    values = layout.values
    for key in ("nc", "backbone", "head"):
        if key not in values:
            raise InputError(f"{layout.name}: no {key}")
    classes = values["nc"]
    if type(classes) is not int or not 1 <= classes <= 10_000:
        raise InputError(f"{layout.name}: nc is {shown(classes)}, expected 1 to 10000 classes")
    modules = [*_modules(layout, "backbone"), *_modules(layout, "head")]
    place = layout.place(len(modules) - 1)
    last = modules[-1]
    if last[2] != "Detect":
        raise InputError(f"{place}: the last module must be Detect, found {shown(last[2])}")
    anchors = _anchors(layout, last, place)
    table = _Table(
        width=_multiple(layout, "width_multiple"),
        depth=_multiple(layout, "depth_multiple"),
        head_channels=len(anchors[0]) * (5 + classes),
        activation=_activation(values.get("activation", True), "silu", layout.name),
    )
    if values.get("ch", 3) != 3:
        raise InputError(f"{layout.name}: ch is {shown(values['ch'])}; pictures have 3 channels here")
    table.add(Row("images", "image", channels=3))
    outputs: list[str] = []
    for index, (source, repeats, module, arguments) in enumerate(modules):
        place = layout.place(index)
        sources = source if isinstance(source, list) else [source]
        inputs = [outputs[_source(value, index, place)] if (value, index) != (-1, 0) else "images" for value in sources]
        if not inputs:
            raise InputError(f"{place}: {module} reads nothing")
        if module == "Detect":
            if index != len(modules) - 1:
                raise InputError(f"{place}: Detect must be the last module")
            if arguments and arguments[0] not in ("nc", classes):
                raise InputError(f"{place}: Detect has {shown(arguments[0])} classes, nc is {classes}")
            _detect(table, f"model.{index}", inputs)
        elif module in _MODULES:
            if len(inputs) > 1 and module != "Concat":
                raise InputError(f"{place}: {module} reads one layer, found {shown(source)}")
            outputs.append(_MODULES[module](table, _Call(f"model.{index}", inputs, repeats, arguments, place)))
        else:
            known = ", ".join([*_MODULES, "Detect"])
            raise InputError(f"{place}: module {shown(module)} is not supported; supported are {known}")
    try:
        return Network(tuple(table.rows), anchors)
    except InputError as error:
        row = re.match(r"model\.(\d+)", str(error))
        raise InputError(f"{layout.place(int(row[1])) if row else layout.name}: {error}") from None


def _modules(layout: Layout, section: str) -> list[list[Any]]:
    modules = layout.values[section]
    if not isinstance(modules, list) or not modules:
        raise InputError(f"{layout.name}: {section} must be a list of modules, found {shown(modules)}")
    if len(modules) > 1000:
        raise InputError(f"{layout.name}: {section} has {len(modules)} modules, at most 1000 are read")
    first = 0 if section == "backbone" else len(layout.values["backbone"])
    for index, entry in enumerate(modules):
        if not isinstance(entry, list) or len(entry) != 4 or not isinstance(entry[2], str) or not isinstance(entry[3], list):
            raise InputError(f"{layout.place(first + index)}: expected [from, repeats, module, arguments], found {shown(entry)}")
        if isinstance(entry[0], list) and len(entry[0]) > INPUTS["concat"][1]:
            raise InputError(f"{layout.place(first + index)}: reads {len(entry[0])} layers, at most {INPUTS['concat'][1]} are joined")
        if type(entry[1]) is not int or not 1 <= entry[1] <= 1000:
            raise InputError(f"{layout.place(first + index)}: repeats is {shown(entry[1])}, expected 1 to 1000")
    return modules


def _source(value: object, index: int, place: str) -> int:
    if type(value) is not int or not -index <= value < index:
        raise InputError(f"{place}: reads layer {shown(value)}, which is not an earlier one")
    return index + value if value < 0 else value


def _multiple(layout: Layout, key: str) -> float:
    value = layout.values.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise InputError(f"{layout.name}: {key} is {shown(value)}, expected a positive number")
    return float(value)


def _integer(value: object, what: str, place: str, least: int = 1) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Upsample factors are often written 2.0
    if type(value) is not int or not least <= value <= 1_000_000:
        raise InputError(f"{place}: {what} is {shown(value)}, expected a whole number from {least}")
    return value


def _anchors(layout: Layout, detect: list[Any], place: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Anchors in pixels per level: the layout's, Detect's own, or the published ones where only their number (3) is given."""
    anchors = detect[3][1] if len(detect[3]) > 1 and detect[3][1] != "anchors" else layout.values.get("anchors")
    levels = len(detect[0]) if isinstance(detect[0], list) else 1
    if anchors == 3 and levels in (3, 4):
        anchors = read_layout("yolov5n" if levels == 3 else "yolov5n6").values["anchors"]
    if not isinstance(anchors, list) or len(anchors) != levels or not all(isinstance(level, list) for level in anchors):
        raise InputError(f"{place}: {levels} levels need a list of {levels} anchor lists, found {shown(anchors)}")
    for level in anchors:
        if not level or len(level) % 2 or len(level) != len(anchors[0]) or not all(type(v) in (int, float) and 0 < v < 1_000_000 for v in level):
            raise InputError(f"{place}: anchors must be width, height, width, height, .. in pixels, as many in each level; found {shown(level)}")
    return tuple(tuple((float(level[i]), float(level[i + 1])) for i in range(0, len(level), 2)) for level in anchors)


TORCH_ACTIVATIONS = {
    "SiLU": "silu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "Hardswish": "hardswish",
    "Mish": "mish",
    "Sigmoid": "sigmoid",
    "Identity": None,
}
"""PyTorch's class names of the activations that take no argument, and what rows call them."""


def _activation(value: object, default: str | None, place: str) -> str | None:
    """An activation as YAML gives it: True (the default), False or None (none), or text such as `nn.LeakyReLU(0.1)`."""
    if value is True:
        return default
    if value is False or value is None:
        return None
    match = re.fullmatch(r"(?:torch\.)?(?:nn\.)?(\w+)\(([^()]*)\)", value.strip()) if isinstance(value, str) else None
    if match and match[1] in TORCH_ACTIVATIONS:
        return TORCH_ACTIVATIONS[match[1]]
    if match and match[1] == "LeakyReLU":
        slope = re.match(r"\s*(?:negative_slope\s*=\s*)?([0-9.eE+-]+)", match[2])
        try:
            return f"leaky_relu:{float(slope[1]) if slope else 0.01:g}"
        except ValueError:
            pass
    known = ", ".join(f"nn.{name}()" for name in [*TORCH_ACTIVATIONS, "LeakyReLU"])
    raise InputError(f"{place}: activation {shown(value)} is not supported; supported are {known}")


@dataclass
class _Table:
    """The rows so far, and the channels of each output."""

    width: float
    depth: float
    head_channels: int
    activation: str | None
    rows: list[Row] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)

    def add(self, row: Row) -> str:
        channels = sum(self.channels[name] for name in row.inputs) if row.op == "concat" else row.channels
        self.channels[row.name] = channels or self.channels[row.inputs[0]]
        if len(self.rows) >= MAX_ROWS:
            raise InputError(f"{row.name}: more than {MAX_ROWS} rows; no network needs that many")
        self.rows.append(row)
        return row.name

    def conv(
        self, name: str, x: str, channels: int, kernel: int = 1, stride: int = 1, padding: int | None = None, groups: int = 1, act: Any = True
    ) -> str:
        activation = self.activation if act is True else act
        padding = kernel // 2 if padding is None else padding
        return self.add(Row(name, "conv", (x,), channels, kernel, stride, padding, groups, norm=True, activation=activation))

    def scaled(self, channels: int) -> int:
        """Channels times the width multiple, up to a multiple of 8; a count that equals Detect's output is left alone, as published."""
        return channels if channels == self.head_channels else math.ceil(channels * self.width / 8) * 8

    def repeated(self, repeats: int) -> int:
        return max(round(repeats * self.depth), 1) if repeats > 1 else repeats


@dataclass(frozen=True)
class _Call:
    """One module of the layout: its name, what it reads, and its arguments as written."""

    name: str
    inputs: list[str]
    repeats: int
    arguments: list[Any]
    place: str

    def bind(self, *parameters: str, **defaults: Any) -> dict[str, Any]:
        """Arguments by name. `key=value` (text) and `key: value` are keywords, the rest positional; unknown or too many: an error."""
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
        # YOLOv5 v7 put dilation before the activation: a sixth argument that is no whole number is v6's activation.
        if "d" in parameters and len(positional) == 6 and type(positional[5]) is not int:
            positional.insert(5, 1)
        if len(positional) > len(parameters):
            raise InputError(f"{self.place}: {len(positional)} arguments, at most {len(parameters)} ({', '.join(parameters)}) are known")
        bound.update(zip(parameters, positional, strict=False))
        missing = [name for name in parameters if name not in bound]
        if missing:
            raise InputError(f"{self.place}: argument {missing[0]} is missing")
        return {key: _literal(value) if isinstance(value, str) else value for key, value in bound.items()}


def _literal(text: str) -> Any:
    """The number or Python constant that `text` spells, else the text; layouts spell None, True and False Python's way."""
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    try:
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError:
        return text


def _chain(table: _Table, call: _Call, build: Callable[[str, str], str]) -> str:
    """A module that takes no repeat count itself is repeated as a sequence, whose members are numbered."""
    x, repeats = call.inputs[0], table.repeated(call.repeats)
    for index in range(repeats):
        x = build(f"{call.name}.{index}" if repeats > 1 else call.name, x)
    return x


def _channels(table: _Table, call: _Call, value: object) -> int:
    return table.scaled(_integer(value, "channels", call.place))


def _conv(table: _Table, call: _Call) -> str:
    a = call.bind("c2", "k", "s", "p", "g", "d", "act", k=1, s=1, p=None, g=1, d=1, act=True)
    channels = _channels(table, call, a["c2"])
    kernel, stride = _integer(a["k"], "kernel", call.place), _integer(a["s"], "stride", call.place)
    padding = None if a["p"] is None else _integer(a["p"], "padding", call.place, least=0)
    groups = _integer(a["g"], "groups", call.place)
    if a["d"] != 1:
        raise InputError(f"{call.place}: dilation {shown(a['d'])} is not supported")
    activation = _activation(a["act"], table.activation, call.place)

    def build(name: str, x: str) -> str:
        if channels % groups or table.channels[x] % groups:
            raise InputError(f"{call.place}: {groups} groups do not divide {table.channels[x]} input and {channels} output channels")
        return table.conv(name, x, channels, kernel, stride, padding, groups, activation)

    return _chain(table, call, build)


def _bottleneck(table: _Table, name: str, x: str, channels: int, shortcut: bool, groups: int, expansion: float, place: str) -> str:
    hidden = int(channels * expansion)
    if hidden < 1 or hidden % groups or channels % groups:
        raise InputError(f"{place}: {groups} groups do not divide {hidden} and {channels} channels")
    y = table.conv(f"{name}.cv2", table.conv(f"{name}.cv1", x, hidden), channels, 3, groups=groups)
    return table.add(Row(f"{name}.add", "add", (x, y))) if shortcut and table.channels[x] == channels else y


def _block_arguments(table: _Table, call: _Call) -> tuple[int, bool, int, float]:
    a = call.bind("c2", "shortcut", "g", "e", shortcut=True, g=1, e=0.5)
    if type(a["shortcut"]) is not bool:
        raise InputError(f"{call.place}: shortcut is {shown(a['shortcut'])}, expected True or False")
    if type(a["e"]) not in (int, float) or not 0 < a["e"] <= 100:
        raise InputError(f"{call.place}: expansion is {shown(a['e'])}, expected a positive number")
    return _channels(table, call, a["c2"]), a["shortcut"], _integer(a["g"], "groups", call.place), float(a["e"])


def _bottlenecks(table: _Table, call: _Call) -> str:
    channels, shortcut, groups, expansion = _block_arguments(table, call)
    return _chain(table, call, lambda name, x: _bottleneck(table, name, x, channels, shortcut, groups, expansion, call.place))


def _c3(table: _Table, call: _Call) -> str:
    channels, shortcut, groups, expansion = _block_arguments(table, call)
    hidden, source = int(channels * expansion), call.inputs[0]
    if hidden < 1:
        raise InputError(f"{call.place}: no channels left at expansion {expansion}")
    x = table.conv(f"{call.name}.cv1", source, hidden)
    for index in range(table.repeated(call.repeats)):
        x = _bottleneck(table, f"{call.name}.m.{index}", x, hidden, shortcut, groups, 1.0, call.place)
    y = table.conv(f"{call.name}.cv2", source, hidden)
    joined = table.add(Row(f"{call.name}.concat", "concat", (x, y)))
    return table.conv(f"{call.name}.cv3", joined, channels)


def _pool(table: _Table, name: str, x: str, kernel: int) -> str:
    return table.add(Row(name, "maxpool", (x,), kernel=kernel, padding=kernel // 2))


def _odd_kernel(value: object, place: str) -> int:
    kernel = _integer(value, "kernel", place)
    if kernel % 2 == 0:
        raise InputError(f"{place}: a pooling window of {kernel} changes the map's size; expected an odd one")
    return kernel


def _sppf(table: _Table, call: _Call) -> str:
    a = call.bind("c2", "k", k=5)
    channels, kernel = _channels(table, call, a["c2"]), _odd_kernel(a["k"], call.place)

    def build(name: str, x: str) -> str:
        maps = [table.conv(f"{name}.cv1", x, table.channels[x] // 2)]
        for index in range(3):
            maps.append(_pool(table, f"{name}.m.{index}", maps[-1], kernel))
        return table.conv(f"{name}.cv2", table.add(Row(f"{name}.concat", "concat", tuple(maps))), channels)

    return _chain(table, call, build)


def _spp(table: _Table, call: _Call) -> str:
    a = call.bind("c2", "k", k=[5, 9, 13])
    channels = _channels(table, call, a["c2"])
    if not isinstance(a["k"], list) or not a["k"]:
        raise InputError(f"{call.place}: SPP windows are {shown(a['k'])}, expected a list such as [5, 9, 13]")
    kernels = [_odd_kernel(kernel, call.place) for kernel in a["k"]]

    def build(name: str, x: str) -> str:
        y = table.conv(f"{name}.cv1", x, table.channels[x] // 2)
        maps = [y, *(_pool(table, f"{name}.m.{index}", y, kernel) for index, kernel in enumerate(kernels))]
        return table.conv(f"{name}.cv2", table.add(Row(f"{name}.concat", "concat", tuple(maps))), channels)

    return _chain(table, call, build)


def _concat(table: _Table, call: _Call) -> str:
    if call.bind("dimension", dimension=1)["dimension"] != 1 or call.repeats != 1:
        raise InputError(f"{call.place}: Concat joins channels (dimension 1), once")
    return table.add(Row(call.name, "concat", tuple(call.inputs)))


def _upsample(table: _Table, call: _Call) -> str:
    a = call.bind("size", "scale_factor", "mode", size=None, scale_factor=2, mode="nearest")
    if a["size"] is not None or a["mode"] != "nearest" or call.repeats != 1:
        raise InputError(f"{call.place}: nn.Upsample is supported as [None, factor, nearest], once")
    return table.add(Row(call.name, "upsample", tuple(call.inputs), stride=_integer(a["scale_factor"], "factor", call.place)))


def _detect(table: _Table, name: str, inputs: list[str]) -> None:
    heads = [table.add(Row(f"{name}.m.{level}", "conv", (x,), table.head_channels, bias=True)) for level, x in enumerate(inputs)]
    table.add(Row(name, "detect", tuple(heads)))


_MODULES: dict[str, Callable[[_Table, _Call], str]] = {
    "Conv": _conv,
    "C3": _c3,
    "SPPF": _sppf,
    "SPP": _spp,
    "Bottleneck": _bottlenecks,
    "Concat": _concat,
    "nn.Upsample": _upsample,
}
