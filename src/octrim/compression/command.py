"""`octrim compress`, and the same from Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from octrim.atomic import write_text
from octrim.compression.builtin import make_pictures, on_pong
from octrim.compression.options import Compression
from octrim.compression.presets import Preset, resolved
from octrim.compression.stages import FINETUNED, FOLDERS, Job, Stage, once, stages_of, stored, sweep
from octrim.compression.start import START, checked, checked_network, checked_plan, refuse_changes, remember, remembered, resolved_config
from octrim.compression.summary import summarised, table, text
from octrim.network.model import Model, load
from octrim.options import from_python
from octrim.pong.renderer import CLASSES
from octrim.report.page import write_report
from octrim.runs import Run, new_run, open_run, stored_config

_FREE = ("device", "workers", "cache")
"""Options that a resumed run may be given anew: they change no result, or belong to the machine."""


_EFFORT = {"sparsify": 1.5, "prune": 0.5, "finetune": 0.5, "control": 0.3, "match": 5}
"""What an epoch, or else the stage, takes in epochs of the first training: seen on a processor, with a teacher and a cut to 1/8; a rough guide."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """What a compression left: its folder, the small network, and the content of summary.json."""

    folder: Path
    model: Model
    summary: Mapping[str, Any]


def compress_command(config: Compression) -> None:
    """Start a run, or go on with one; of one that is done, show the table."""
    _compress(config)


def compress(**options: Any) -> Compressed:
    """Compression from Python; options as of `octrim compress`, with underscores: `compress(weights="yolov5n.pt", data="bccd", keep="1/8")`.

    Leaves a run folder as the command does. Raises InputError for bad input, before anything is trained.
    """
    return _compress(from_python(Compression, options))


def _compress(config: Compression) -> Compressed:
    if config.resume is None:
        if config.data is None:
            config = on_pong(config)
            preset = resolved(config)
            model, keep_map = checked_network(config, preset)
            checked_plan(config, preset, model, CLASSES, keep_map)
            make_pictures(config)
        preset = resolved(config)
        start = checked(config, preset)
        _clear(config)
        run = new_run(resolved_config(config, preset))
        remember(run, start)
    else:
        folder = Path(config.resume)
        config = stored_config(config, folder, _FREE)
        preset, inputs = remembered(folder, config)
        stages = stages_of(preset, config.control)
        if all(stored(folder / stage.folder) for stage in stages):
            return _finish(open_run(folder), config, preset, stages)
        start = checked(config, preset)
        if inputs is not None:
            refuse_changes(folder, start, inputs)
        run = open_run(folder)
        sweep(folder)
        if inputs is None:
            remember(run, start)
        run.print(f"resumed: {sum(stored(folder / stage.folder) is not None for stage in stages)} of {len(stages)} stages are done")
    job, stages = Job(run, start), stages_of(preset, config.control)
    began = perf_counter()
    for number, stage in enumerate(stages, 1):
        _announced(job, stage, f"[{number}/{len(stages)}]", began)
    return _finish(run, config, preset, stages)


def _announced(job: Job, stage: Stage, number: str, began: float) -> None:
    """Do a stage that is not done yet, with a line before and behind it."""
    folder = job.path(stage.folder)
    if stored(folder) is not None:
        return
    left = _left(job)
    ahead = "" if left is None else f", about {timedelta(seconds=left)} to go"
    job.run.print(f"{number} {stage.title} ... ({_elapsed(began)} so far{ahead}): {folder}")
    try:
        result = once(job, folder, stage.work)
    except KeyboardInterrupt:
        job.run.print(f"stopped in {stage.title}; go on with: octrim compress --resume {job.run.path}")
        raise
    if "row" in result:
        row = result["row"]
        found = f"mAP50 {row['mAP50']:.4f}, mAP50-95 {row['mAP50-95']:.4f} ({row['interval'][0]:.4f} to {row['interval'][1]:.4f})"
        job.run.print(f"{stage.title}: {row['parameters']:,} parameters, {row['macs'] / 1e6:,.1f} M MACs, {found}")


def _left(job: Job) -> int | None:
    """Seconds that the stages which are not done will take, to half a minute, judged by the first training; None where it tells nothing."""
    preset = job.start.preset
    trained = stored(job.path("1-train"))
    if trained is None or not preset.train_epochs:
        return None
    epochs = {"sparsify": preset.sparsify_epochs, "prune": (preset.iterations - 1) * preset.step_epochs, "finetune": preset.finetune_epochs}
    epochs |= {"control": preset.whole}
    waiting = [stage.title for stage in stages_of(preset, job.start.config.control) if stored(job.path(stage.folder)) is None]
    effort = sum(_EFFORT.get(title, 0) * epochs.get(title, 1) + 0.5 for title in waiting)
    return 30 * round(effort * trained["seconds"] / preset.train_epochs / 30 + 0.5)


def _elapsed(began: float) -> str:
    return str(timedelta(seconds=round(perf_counter() - began)))


def _finish(run: Run, config: Compression, preset: Preset, stages: list[Stage]) -> Compressed:
    """Write the summary and the report from what the stages left, and print the summary."""
    results = {stage.title: stored(run.path / stage.folder) or {} for stage in stages}
    model = load(run.path / FINETUNED)
    summary = summarised(config, preset, results, stages)
    write_text(run.path / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))
    write_text(run.path / "summary.txt", text(summary, model.image_size))
    run.print(table(summary, model.image_size))
    run.print(f"results: {run.path}")
    run.print(f"report: {write_report(run.path)}")
    if preset.match_games:
        run.print(f"play against it: octrim pong play --right vision:{run.path / FINETUNED}")
    run.print(f"next: octrim predict --weights {run.path / '5-export' / 'openvino'} --source PICTURE")
    return Compressed(run.path, model, summary)


def _clear(config: Compression) -> None:
    """With --exist-ok, throw away an earlier compression in the same folder: its stages are not this run's.

    The file that tells a compression goes last, so that a kill in between leaves nothing that the next attempt takes for its own.
    """
    folder = Path(config.project or "runs/compress") / config.name
    if config.exist_ok and Path(config.name).name == config.name and (folder / START).is_file():
        for name in FOLDERS:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        for name in ("summary.json", "summary.txt", "report.html", START):
            (folder / name).unlink(missing_ok=True)
