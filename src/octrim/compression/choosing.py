"""The stage of a compression that chooses which blocks and detection levels the trained network drops, by measuring what it loses without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octrim.compression.job import Job, finished, sweep
from octrim.compression.planning import planned, times_of
from octrim.errors import InputError
from octrim.pruning.plan import Plan
from octrim.stages import CHOOSE
from octrim.training.dropping import choose_rows


def choosing(job: Job, folder: Path) -> dict[str, Any]:
    """Measure the trained network without each block and level, on training pictures, and choose what the plan drops."""
    start = job.start
    config, preset = start.config, start.preset
    folder.mkdir(exist_ok=True)
    sweep(folder)
    model = job.network(preset.uncut)
    size = (model.image_size, model.image_size)
    table = times_of(config)

    def plan(drop: Sequence[str], levels: Sequence[int], criterion: str) -> Plan:
        asked = replace(config, drop=tuple(drop), levels=tuple(levels))
        return planned(asked, preset, start.keep_map, model, model.network, preset.cut_steps, criterion, table)

    chosen = choose_rows(model, start.train_set, size, config, table, plan, console=job.run.console, report=job.run.print)
    chosen.tell(job.run, folder)
    return {"dropping": chosen.to_json()}


def with_chosen_rows(job: Job) -> Job:
    """The job with the blocks and levels that were chosen in place of `auto`. Raises InputError for a damaged result."""
    folder = job.folder(CHOOSE)
    found = (finished(job.run.path, CHOOSE) or {}).get("dropping", {})
    try:
        drop, levels = tuple(map(str, found["drop"])), tuple(map(int, found["levels"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / 'stage.json'}: damaged; delete it, and the stage is done again") from None
    return replace(job, start=replace(job.start, config=replace(job.start.config, drop=drop, levels=levels)))
