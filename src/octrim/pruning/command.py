"""`octrim prune`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from octrim.atomic import write_text
from octrim.data.open import open_dataset
from octrim.data.pictures import letterbox, read_picture
from octrim.data.sources import open_source
from octrim.errors import InputError, shown
from octrim.network.options import image_size, model_from
from octrim.network.rows import Network
from octrim.plain_yaml import parse, read_text
from octrim.pruning.chart import save_channel_chart
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.pruning.repair import compensated, recalibrated, reconstructed
from octrim.runs import Run, new_run

if TYPE_CHECKING:
    from octrim.cli import Prune


def prune_command(config: Prune) -> None:
    """Plan, show the plan, and unless `dry_run` cut and write the model. The plan's files are written either way."""
    model = model_from(config)
    keep_map = read_keep_map(config.keep_map) if config.keep_map else None
    size = image_size(config.imgsz, model.image_size, model.network.stride)
    made = plan(model, config.keep, config.align, config.criterion, config.exclude, keep_map, config.seed, size, config.budget)
    paths = {data: picture_paths(data, config.pictures, config.seed) for data in (config.reconstruct, config.recalibrate) if data}
    run = new_run("prune", config)
    run.print(made.table())
    write_text(run.path / "plan.json", json.dumps(made.to_json(), indent=1))
    write_text(run.path / "plan.txt", made.text())
    save_channel_chart(made, run.path / "channels.png")
    if config.dry_run:
        run.print(f"plan only, nothing was cut: {run.path}")
        return
    smaller = prune(model, made)
    if config.compensate:
        smaller = compensated(model, made, smaller)
    if config.reconstruct:
        with layers(run, "reconstruct", model.network) as progress:
            pictures = letterboxed(paths[config.reconstruct], *size)
            smaller = reconstructed(model, made, smaller, pictures, seed=config.seed, progress=progress)
    if config.recalibrate:
        with layers(run, "recalibrate", model.network) as progress:
            smaller = recalibrated(model, made, smaller, letterboxed(paths[config.recalibrate], *size), progress)
    path = run.path / "model.safetensors"
    smaller.save(path)
    run.print(f"pruned model: {path} ({path.stat().st_size / 1e6:.2f} MB)")
    run.print(f"next: octrim bench --weights {config.weights or path} {path}" if config.weights else f"next: octrim bench --weights {path}")


def picture_paths(data: str, count: int, seed: int) -> list[str]:
    """At most `count` pictures, drawn by `seed`: of a picture, folder or glob, or of a data set's training part.

    Raises InputError where there are none.
    """
    if count < 1:
        raise InputError(f"pictures is {count}, expected 1 or more")
    try:
        source = open_source(data)
    except InputError:
        paths = list(open_dataset(data, "train").paths)
    else:
        if source.video is not None:
            raise InputError(f"{data}: expected pictures or a data set")
        paths = [str(path) for path in source.pictures]
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[index] for index in sorted(chosen)]


def letterboxed(paths: Sequence[str], height: int, width: int) -> np.ndarray:
    """Pictures fitted into height x width: uint8 RGB `[pictures, height, width, 3]`."""
    return np.stack([cv2.cvtColor(letterbox(read_picture(path), height, width)[0], cv2.COLOR_BGR2RGB) for path in paths])


@contextlib.contextmanager
def layers(run: Run, title: str, network: Network) -> Iterator[Callable[[str], None]]:
    """A progress bar over the network's convolutions; the callable takes the name of the one at work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as progress:
        task = progress.add_task(title, total=len(network.convs))
        yield lambda name: progress.update(task, advance=1, description=f"{title} {name}")


def read_keep_map(path: str) -> dict[str, Any]:
    """A JSON or YAML file that maps patterns to fractions."""
    values, _ = parse(read_text(path), path)  # JSON is YAML too
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: expected a mapping of patterns to fractions, found {shown(values)}")
    for pattern, value in values.items():
        if not isinstance(pattern, str) or not pattern.isprintable() or not isinstance(value, str | int | float):
            raise InputError(f"{path}: expected patterns and fractions, found {shown(pattern)}: {shown(value)}")
    return values
