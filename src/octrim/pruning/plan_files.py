"""Files of plans: the keep-map that users give, and what is written of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from octrim.atomic import write_text
from octrim.errors import InputError, shown
from octrim.plain_yaml import parse, read_text
from octrim.pruning.chart import save_channel_chart
from octrim.pruning.plan import Plan


def read_keep_map(path: str) -> dict[str, Any]:
    """Read a JSON or YAML file that maps patterns of convolutions to fractions of channels to keep."""
    values, _ = parse(read_text(path), path)  # JSON is YAML too
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: expected a mapping of patterns to fractions, found {shown(values)}")
    for pattern, value in values.items():
        if not isinstance(pattern, str) or not pattern.isprintable() or not isinstance(value, str | int | float):
            raise InputError(f"{path}: expected patterns and fractions, found {shown(pattern)}: {shown(value)}")
    return values


def write_keep_map(made: Plan, path: Path) -> None:
    """Write the channels that every group keeps as a keep-map, which `--keep 1 --keep-map` with the plan's align makes the same shape of."""
    write_text(path, json.dumps(made.keep_map(), indent=1))


def write_plan(made: Plan, folder: Path) -> None:
    """Write the plan into a folder as `plan.json`, `plan.txt` and `channels.png`."""
    write_text(folder / "plan.json", json.dumps(made.to_json(), indent=1))
    write_text(folder / "plan.txt", made.text())
    save_channel_chart(made, folder / "channels.png")
