"""What `octrim prune` does: plan, cut, repair, and write the model with its plan."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from octrim.atomic import write_text
from octrim.data.open import open_dataset
from octrim.data.pictures import Readable, letterboxed
from octrim.data.sources import open_source
from octrim.errors import InputError, shown
from octrim.network.model import Model
from octrim.network.options import image_size, model_from
from octrim.network.rows import Network
from octrim.plain_yaml import parse, read_text
from octrim.pruning.chart import save_channel_chart
from octrim.pruning.cut import prune
from octrim.pruning.importance import Criterion
from octrim.pruning.plan import Plan, plan
from octrim.pruning.repair import compensated, recalibrated, reconstructed
from octrim.runs import Run, new_run, wide_console

if TYPE_CHECKING:
    from octrim.commands import Prune


def prune_command(config: Prune) -> None:
    """Plan, show the plan, and unless `dry_run` cut and write the model. The plan's files are written either way."""
    model = model_from(config)
    keep_map = read_keep_map(config.keep_map) if config.keep_map else None
    size = image_size(config.imgsz, model.image_size, model.network.stride)

    def planned(criterion: str | Criterion) -> Plan:
        return plan(model, config.keep, config.align, criterion, config.exclude, keep_map, config.seed, size, config.budget)

    notes: list[str] = []
    if config.criterion == "taylor":
        # A command may look upwards where its package must not; the import waits because only this criterion needs Paddle and a loss.
        from octrim.training.gradients import taylor_on

        planned("random")  # options that make no sense are told before gradients are computed
        criterion, notes = taylor_on(model, config.data, size, config.pictures, config.seed, wide_console(), **config.reading())
        made = planned(criterion)
    else:
        made = planned(config.criterion)
    sources = [data for data in (config.reconstruct, config.recalibrate) if data]
    readable = {data: Readable(picture_paths(data, config.pictures, config.seed, **config.reading())) for data in sources}
    for some in readable.values():
        some.require()
    run = new_run(config)
    for line in notes:
        run.print(line)
    run.print(made.table())
    write_plan(made, run.path)
    if config.dry_run:
        run.print(f"plan only, nothing was cut: {run.path}")
        return
    reconstruct, recalibrate = (letterboxed(readable[data], *size) if data else None for data in (config.reconstruct, config.recalibrate))
    smaller = cut(run, model, made, config.compensate, reconstruct, recalibrate, config.seed)
    for line in dict.fromkeys(line for some in readable.values() for line in some.failures):
        run.print(f"left out: {line}")
    path = run.path / "model.safetensors"
    smaller.save(path)
    run.print(f"pruned model: {path} ({path.stat().st_size / 1e6:.2f} MB)")
    run.print(f"next: octrim bench --weights {config.weights or path} {path}" if config.weights else f"next: octrim bench --weights {path}")


def write_plan(made: Plan, folder: Path) -> None:
    """Write the plan into a folder as `plan.json`, `plan.txt` and `channels.png`."""
    write_text(folder / "plan.json", json.dumps(made.to_json(), indent=1))
    write_text(folder / "plan.txt", made.text())
    save_channel_chart(made, folder / "channels.png")


def cut(
    run: Run,
    model: Model,
    made: Plan,
    compensate: bool,
    reconstruct: Iterable[np.ndarray] | None = None,
    recalibrate: Iterable[np.ndarray] | None = None,
    seed: int = 0,
) -> Model:
    """Return the model cut as planned, and repaired as asked. reconstruct, recalibrate: pictures as from `letterboxed`, or None to leave it out."""
    smaller = prune(model, made)
    if compensate:
        smaller = compensated(model, made, smaller)
    if reconstruct is not None:
        with layers(run, "reconstruct", model.network) as progress:
            smaller = reconstructed(model, made, smaller, reconstruct, seed=seed, progress=progress)
    if recalibrate is not None:
        with layers(run, "recalibrate", model.network) as progress:
            smaller = recalibrated(model, made, smaller, recalibrate, progress)
    return smaller


def picture_paths(data: str, count: int, seed: int, **reading: Any) -> list[str]:
    """Return the paths of at most `count` pictures, drawn by `seed`, from a picture, folder or glob, or from a data set's training part.
    reading: as `open_dataset` takes it.

    Raises InputError where there are none.
    """
    if count < 1:
        raise InputError(f"pictures is {count}, expected 1 or more")
    source = None
    if Path(data).suffix.lower() not in (".yaml", ".yml", ".json"):  # a source takes any file for a picture
        with contextlib.suppress(InputError):
            source = open_source(data)
    if source is None:
        paths = list(open_dataset(data, "train", **reading).paths)
    else:
        if source.video is not None:
            raise InputError(f"{data}: expected pictures or a data set")
        paths = [str(path) for path in source.pictures]
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[index] for index in sorted(chosen)]


@contextlib.contextmanager
def layers(run: Run, title: str, network: Network) -> Iterator[Callable[[str], None]]:
    """Show a progress bar over the network's convolutions; the callable takes the name of the one at work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as progress:
        task = progress.add_task(title, total=len(network.convs))
        yield lambda name: progress.update(task, advance=1, description=f"{title} {name}")


def read_keep_map(path: str) -> dict[str, Any]:
    """Read a JSON or YAML file that maps patterns of convolutions to fractions of channels to keep."""
    values, _ = parse(read_text(path), path)  # every JSON file is a YAML file, too
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: expected a mapping of patterns to fractions, found {shown(values)}")
    for pattern, value in values.items():
        if not isinstance(pattern, str) or not pattern.isprintable() or not isinstance(value, str | int | float):
            raise InputError(f"{path}: expected patterns and fractions, found {shown(pattern)}: {shown(value)}")
    return values
