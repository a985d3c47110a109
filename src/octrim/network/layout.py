"""The published YAML layout of YOLOv5 v6/v7, and users' own files of that format: read, with the line of every module for error messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from octrim.errors import InputError, shown
from octrim.plain_yaml import parse, read_text

MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
"""Depth and width multiple of each published scale."""

VARIANTS = tuple(f"yolov5{scale}{suffix}" for suffix in ("", "6") for scale in MULTIPLES)

_KEYS = {"nc", "depth_multiple", "width_multiple", "anchors", "activation", "ch", "backbone", "head"}


@dataclass(frozen=True)
class Layout:
    """A parsed layout: the YAML's mapping, its name, and for every module where it stands (for error messages)."""

    name: str
    values: dict[str, Any]
    places: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        return self.places[index] if index < len(self.places) else f"{self.name}: module {index}"


def read_layout(cfg: str | Path) -> Layout:
    """The layout of a published variant or of a YAML file; `yolov5n.yaml` names the published one where no such file exists."""
    path, variant = Path(cfg), str(cfg).removesuffix(".yaml")
    if not path.is_file() and variant in VARIANTS:
        family = "p6" if variant.endswith("6") else "p5"
        text = resources.files("octrim.network").joinpath("layouts").joinpath(f"{family}.yaml").read_text("utf-8")
        depth, width = MULTIPLES[variant.removeprefix("yolov5")[0]]
        layout = parse_layout(text, variant)
        return replace(layout, values={**layout.values, "depth_multiple": depth, "width_multiple": width})
    if not path.is_file():
        raise InputError(f"{cfg}: no such YAML file, and not one of {', '.join(VARIANTS)}")
    return parse_layout(read_text(path), str(cfg))


def parse_layout(text: str, name: str) -> Layout:
    """Parse YAML text; `name` stands in error messages."""
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
