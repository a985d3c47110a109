"""Expands the published YAML layouts of YOLOv5 v6/v7, and users' own files of that format, to rows.

    network = yolov5_network("yolov5n")                  # n s m l x, n6 s6 m6 l6 x6
    network = yolov5_network("mine.yaml", classes=3)

A layout lists modules as `[from, repeats, module, arguments]`. Nothing in it is evaluated: modules and activations are looked up
by name, and whatever is not known is an error that names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from octrim.errors import InputError, shown
from octrim.network.layout import Layout, read_layout
from octrim.network.modules import MODULES, PRUNED, REFUSED, activation_of, add_detect
from octrim.network.rows import INPUTS, Network, Row
from octrim.network.table import Call, Stored, Table, Tree

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""Anchor sizes in pixels of the network's input, `[level][anchor] = (width, height)`, as in `Network.anchors`."""

_MOST_ANCHORS = 64  # most anchors per level where a layout gives only their number


def yolov5_network(cfg: str | Path, classes: int | None = None, to_fit: bool = False) -> Network:
    """Return the network of a published variant (`yolov5n` .. `yolov5x6`) or of a user's YAML file.

    classes: number of classes instead of the layout's `nc`. to_fit: whether the caller fits anchors to data where the layout gives only their
    number; the network then has provisional ones. Raises InputError for an unknown name and for a layout that is not understood.
    """
    layout = read_layout(cfg)
    if classes is not None:
        layout = replace(layout, values={**layout.values, "nc": classes})
    return expand(layout, to_fit=to_fit)


def anchors_to_fit(cfg: str | Path) -> bool:
    """Tell whether a layout gives only the number of anchors per level, so that they must be fitted to data before training."""
    layout = read_layout(cfg)
    modules = layout.values.get("head")
    last = modules[-1] if isinstance(modules, list) and modules else None
    return isinstance(last, list) and len(last) == 4 and isinstance(last[3], list) and isinstance(_given_anchors(layout, last), int | float)


def expand(layout: Layout, to_fit: bool = False) -> Network:
    """Return the network of a layout. to_fit: as `yolov5_network` takes it. Raises InputError that names the line of what is not understood."""
    return expanded(layout, to_fit=to_fit)[0]


def expanded(layout: Layout, tree: Tree | None = None, to_fit: bool = False) -> tuple[Network, Mapping[str, Stored]]:
    """Return the network of a layout, and for each convolution the place of its tensors in a checkpoint.

    tree: facts of the checkpoint that the layout comes from, which take precedence over the layout's. Raises InputError as `expand` does.
    """
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
        why = f"{last[2]} is {REFUSED[last[2]]}" if last[2] in REFUSED else f"found {shown(last[2])}"
        raise InputError(f"{place}: the last module must be Detect, {why}")
    anchors = _anchors(layout, last, place, to_fit)
    table = Table(
        width=_multiple(layout, "width_multiple"),
        depth=_multiple(layout, "depth_multiple"),
        head_channels=(anchors if isinstance(anchors, int) else len(anchors[0])) * (5 + classes),
        activation=activation_of(values.get("activation", True), "silu", layout.name),
        tree=tree,
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
            add_detect(table, f"model.{index}", inputs)
        else:
            build = MODULES.get(_known(module, place, pruned=tree is not None))
            assert build is not None
            if len(inputs) > 1 and module != "Concat":
                raise InputError(f"{place}: {module} reads one layer, found {shown(source)}")
            outputs.append(build(table, Call(f"model.{index}", inputs, repeats, arguments, place)))
    try:
        if isinstance(anchors, int):
            anchors = _provisional(table.rows, anchors)
        return Network(tuple(table.rows), anchors), table.stored
    except InputError as error:
        row = re.match(r"model\.(\d+)", str(error))
        raise InputError(f"{layout.place(int(row[1])) if row else layout.name}: {error}") from None


def _known(module: str, place: str, pruned: bool) -> str:
    """Return a module's name in MODULES. Raises InputError for a module that is not supported, with the reason where it is known.

    pruned: whether modules of PRUNED are supported, because the layout comes from a checkpoint.
    """
    if pruned:
        module = PRUNED.get(module, module)
    if module in MODULES:
        return module
    if module in PRUNED:
        raise InputError(f"{place}: {module} comes from a pruned fork, whose channel counts only its checkpoint has: give --weights")
    why = REFUSED.get(module, "not supported")
    raise InputError(f"{place}: module {shown(module)} is {why}; supported are {', '.join([*MODULES, 'Detect'])}")


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


def _given_anchors(layout: Layout, detect: list[Any]) -> object:
    return detect[3][1] if len(detect[3]) > 1 and detect[3][1] != "anchors" else layout.values.get("anchors")


def _anchors(layout: Layout, detect: list[Any], place: str, to_fit: bool) -> Anchors | int:
    """Return the anchors in pixels per level, the layout's or Detect's own; only their number per level where no more is given and `to_fit`.

    Raises InputError for anchors that are not understood, and for a number without `to_fit`.
    """
    anchors = _given_anchors(layout, detect)
    levels = len(detect[0]) if isinstance(detect[0], list) else 1
    if isinstance(anchors, int | float) and not isinstance(anchors, bool):
        if not 1 <= anchors <= _MOST_ANCHORS or anchors != int(anchors):
            raise InputError(f"{place}: anchors is {shown(anchors)}, expected lists, or how many a level has (1 to {_MOST_ANCHORS})")
        if not to_fit:
            from octrim.runs import typed  # brings the console with it, which reading a network needs for this error only

            command = typed("train", "--data", "DATA", "--cfg", layout.name)
            raise InputError(
                f"{place}: anchors is {shown(anchors)}, a number: training fits them to data ({command}); "
                f"without data the layout needs a list of {levels} anchor lists"
            )
        return int(anchors)
    if not isinstance(anchors, list) or len(anchors) != levels or not all(isinstance(level, list) for level in anchors):
        raise InputError(f"{place}: {levels} levels need a list of {levels} anchor lists, found {shown(anchors)}")
    for level in anchors:
        if not level or len(level) % 2 or len(level) != len(anchors[0]) or not all(type(v) in (int, float) and 0 < v < 1_000_000 for v in level):
            raise InputError(f"{place}: anchors must be width, height, width, height, .. in pixels, as many in each level; found {shown(level)}")
    return tuple(tuple((float(level[i]), float(level[i + 1])) for i in range(0, len(level), 2)) for level in anchors)


def _provisional(rows: list[Row], count: int) -> Anchors:
    """Return `count` squares of 1.5 to 4.5 cells per level, as provisional anchors until others are fitted to data."""
    levels = len(rows[-1].inputs)
    strides = Network(tuple(rows), (((1.0, 1.0),) * count,) * levels).strides
    factors = [1.5 * 3 ** (index / max(count - 1, 1)) for index in range(count)]
    return tuple(tuple((round(stride * factor, 1), round(stride * factor, 1)) for factor in factors) for stride in strides)
