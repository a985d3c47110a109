"""Reads the published YAML layouts of YOLOv5 v6/v7 and users' own files of that format, with the line of every module for error messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from octrim.errors import InputError, shown
from octrim.plain_yaml import parse, read_text

MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
"""Depth and width multiples of each published scale."""

VARIANTS = tuple(f"yolov5{scale}{suffix}" for suffix in ("", "6") for scale in MULTIPLES)

MORE = {
    "yolov5-p2": ("yolov5-p2", {}),
    "yolov5-p34": ("yolov5-p34", {}),
    "yolov5-p6": ("p6", {"anchors": 3}),
    "yolov5-p7": ("yolov5-p7", {}),
    "yolov5-bifpn": ("yolov5-bifpn", {}),
    "yolov5-fpn": ("yolov5-fpn", {}),
    "yolov5-panet": ("p5", {}),
    "yolov5s-ghost": ("yolov5s-ghost", {}),
    "yolov3": ("yolov3", {}),
    "yolov3-spp": ("yolov3-spp", {}),
    "yolov3-tiny": ("yolov3-tiny", {}),
    "picodet": ("picodet", {}),
    "picodet-p3": ("picodet-p3", {}),
}
"""Further layouts, those that YOLOv5 publishes in its folder `hub` and small ones after PP-PicoDet: the layout file here, and the values that differ
from it."""

_KEYS = {"nc", "depth_multiple", "width_multiple", "anchors", "activation", "ch", "backbone", "head"}


@dataclass(frozen=True)
class Layout:
    """A parsed layout. name: its name in errors. values: the YAML's mapping. places: file and line of every module, for errors."""

    name: str
    values: dict[str, Any]
    places: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        return self.places[index] if index < len(self.places) else f"{self.name}: module {index}"


def read_layout(cfg: str | Path) -> Layout:
    """Read the layout of a YAML file or of a published network.

    Where no such file exists, `yolov5n`, `yolov5n.yaml` and `models/yolov5n.yaml` name a variant; `yolov5-p2`, `models/hub/yolov5-p2.yaml` and
    the like name one of MORE. Raises InputError for anything else.
    """
    path = Path(cfg)
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    if path.is_file():
        return parse_layout(read_text(path), str(cfg))
    if name in VARIANTS:
        depth, width = MULTIPLES[name.removeprefix("yolov5")[0]]
        return _published("p6" if name.endswith("6") else "p5", name, {"depth_multiple": depth, "width_multiple": width})
    if name in MORE:
        file, values = MORE[name]
        return _published(file, name, values)
    raise InputError(f"{cfg}: no such YAML file, and not one of {', '.join([*VARIANTS, *MORE])}")


def _published(file: str, name: str, values: dict[str, Any]) -> Layout:
    text = resources.files("octrim.network").joinpath("layouts").joinpath(f"{file}.yaml").read_text("utf-8")
    layout = parse_layout(text, name)
    return replace(layout, values={**layout.values, **values})


def parse_layout(text: str, name: str) -> Layout:
    """Parse the YAML text of a layout; `name` stands in error messages. Raises InputError where it is no mapping or has an unknown key."""
    values, root = parse(text, name)
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode):
        raise InputError(f"{name}: expected a mapping with backbone and head, found {shown(values)}")
    lines: dict[str, tuple[str, ...]] = {}
    for key, value in root.value:
        if key.value not in _KEYS:
            hint = "; that is a YOLOv8 layout" if key.value == "scales" else f"; known are {', '.join(sorted(_KEYS))}"
            raise InputError(f"{name}:{key.start_mark.line + 1}: unknown key {shown(key.value)}{hint}")
        if isinstance(value, yaml.SequenceNode):
            lines[key.value] = tuple(f"{name}:{item.start_mark.line + 1}" for item in value.value)
    return Layout(name, values, (*lines.get("backbone", ()), *lines.get("head", ())))
