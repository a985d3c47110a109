"""`octrim prune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from octrim.atomic import write_text
from octrim.errors import InputError, shown
from octrim.network.options import image_size, model_from
from octrim.pruning.chart import save_channel_chart
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.runs import new_run

if TYPE_CHECKING:
    from octrim.cli import Prune


def prune_command(config: Prune) -> None:
    """Plan, show the plan, and unless `dry_run` cut and write the model. The plan's files are written either way."""
    model = model_from(config)
    keep_map = read_keep_map(config.keep_map) if config.keep_map else None
    size = image_size(config.imgsz, model.image_size, model.network.stride)
    made = plan(model, config.keep, config.align, config.criterion, config.exclude, keep_map, config.seed, size)
    smaller = None if config.dry_run else prune(model, made)
    run = new_run("prune", config)
    run.print(made.table())
    write_text(run.path / "plan.json", json.dumps(made.to_json(), indent=1))
    write_text(run.path / "plan.txt", made.text())
    save_channel_chart(made, run.path / "channels.png")
    if smaller is None:
        run.print(f"plan only, nothing was cut: {run.path}")
        return
    path = run.path / "model.safetensors"
    smaller.save(path)
    run.print(f"pruned model: {path} ({path.stat().st_size / 1e6:.2f} MB)")
    run.print(f"next: octrim bench --weights {config.weights or path} {path}" if config.weights else f"next: octrim bench --weights {path}")


def read_keep_map(path: str) -> dict[str, Any]:
    """A JSON or YAML file that maps patterns to fractions."""
    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))  # JSON is YAML too
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not JSON or YAML: {shown(str(error))}") from None
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: expected a mapping of patterns to fractions, found {shown(values)}")
    return values
