"""Pipeline of a compression from its start to its report: it runs the stages one by one, and can be resumed at any point.

done = octrim.compress(weights="yolov5n.pt", data="bccd", imgsz=320, keep="1/8", preset="fast")
print(done.summary["stages"]["finetuned"]["mAP50-95"], done.summary["times"]["speedup"])
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from octrim.atomic import write_bytes, write_text
from octrim.compression import builtin
from octrim.compression.choosing import choosing, with_chosen_rows
from octrim.compression.cutting import cutting
from octrim.compression.deploying import exporting, timing
from octrim.compression.job import Job, StageWork, finished, left, once, sweep
from octrim.compression.measured import require_measured
from octrim.compression.options import Compression
from octrim.compression.presets import Preset, resolved
from octrim.compression.quantizing import quantizing
from octrim.compression.searching import searching, with_chosen_shape
from octrim.compression.start import (
    HYPER,
    START,
    Start,
    checked,
    checked_network,
    checked_plan,
    refuse_changes,
    refuse_long_cuts,
    remember,
    remembered,
    resolved_config,
    space_needed,
    with_times,
)
from octrim.compression.student import refuse_cuts
from octrim.compression.summary import summarised, table, text
from octrim.compression.trainings import control, finetuning, first_training, sparsity_training, student_training
from octrim.data.overlap import told_once, trained_on
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.options import from_python
from octrim.progress import remaining, work_ahead
from octrim.report.page import write_report
from octrim.resuming import Resumed, absolute, run_to_resume
from octrim.runs import Run, check_name, new_run, open_run, require_space, typed
from octrim.stages import BENCH, CHOOSE, CONTROL, EXPORT, FINETUNE, INT8, MATCH, PRUNE, SEARCH, SPARSIFY, STAGES, STUDENT, TRAIN, Stage

_WORK: dict[Stage, StageWork] = {
    TRAIN: first_training,
    STUDENT: student_training,
    SPARSIFY: sparsity_training,
    CHOOSE: choosing,
    SEARCH: searching,
    PRUNE: cutting,
    FINETUNE: finetuning,
    INT8: quantizing,
    EXPORT: exporting,
    BENCH: timing,
    MATCH: builtin.playing,
    CONTROL: control,
}

_INPUTS = ("data", "unlabelled", "weights", "cfg", "student", "hyp", "keep_map", "latency_table")
"""Options that name the inputs of a run. A resumed run may be given new places of them; digests tell whether they are the same inputs."""

_FREE = ("device", "workers", "cache", *_INPUTS)
"""Options that may be given to a resumed run: besides the inputs, those that change no result or belong to the machine."""


@dataclass(frozen=True, eq=False)
class Compressed:
    """Result of a compression: its folder, the small network, and the content of summary.json."""

    folder: Path
    model: Model
    summary: Mapping[str, Any]


def compress(**options: Any) -> Compressed:
    """Compress a detector from Python: `compress(weights="yolov5n.pt", data="bccd", keep="1/8")`.

    Takes the options of `octrim compress`, with underscores, and leaves a run folder as that command does. Raises InputError for bad input, before
    anything is trained.
    """
    return run_compression(from_python(Compression, options))


def run_compression(config: Compression) -> Compressed:
    """Start a run, or go on with one; for a run that is done, show the summary again."""
    if config.resume is None:
        job = _begun(config)
    else:
        folder = Path(config.resume)
        resuming = run_to_resume(config, _FREE)
        preset, inputs = remembered(folder, resuming.began)
        if all(finished(folder, stage) for stage in preset.stages(resuming.began.control)):
            return _finished(open_run(folder), resuming.config, preset)
        job = _resumed(resuming, preset, inputs)
    began, asked, numbers = perf_counter(), job.start.config, job.start.preset
    for number, stage in enumerate(job.stages, 1):
        _announced(job, stage, f"[{number}/{len(job.stages)}]", began)
        if stage is CHOOSE:
            job = with_chosen_rows(job)
        if stage is SEARCH:
            job = with_chosen_shape(job)
    return _finished(job.run, asked, numbers)


def _begun(config: Compression) -> Job:
    """Start a new run. Raises InputError for whatever does not fit together, before anything is written."""
    check_name(config.name)
    refuse_cuts(config)
    config = absolute(config)
    if config.data is None:
        config = builtin.with_data(config)
        preset = resolved(config)
        config = with_times(config, preset, made=False)
        preset = resolved(config)
        model, keep_map = checked_network(config, preset)
        checked_plan(config, preset, model, builtin.CLASSES, keep_map)
        builtin.make_pictures(config)
    config = absolute(config)  # paths become absolute only now, because the built-in data have just been made
    preset = resolved(config)
    config = with_times(config, preset)
    preset = resolved(config)  # with a stage of its own where blocks are chosen
    start = _checked(config, preset)
    start = replace(start, preset=resolved(config, start.steps))
    refuse_long_cuts(start.preset)
    require_measured(start)
    require_space(config.project or ".", space_needed(start))
    _clear(config)
    run = new_run(resolved_config(config, start.preset))
    if Path(config.hyp).is_absolute():  # every training reads this file, so the run keeps a copy against changes
        write_bytes(run.path / HYPER, Path(config.hyp).read_bytes())
    remember(run, start)
    if start.preset.finetune_epochs != preset.finetune_epochs:
        run.print(
            f"{len(start.train_set):,} training pictures: {start.preset.finetune_epochs} epochs of fine-tuning in place of "
            f"{preset.finetune_epochs}, for enough steps (--finetune-epochs says it otherwise)"
        )
    return _told(Job(run, start))


def _resumed(resuming: Resumed, preset: Preset, inputs: dict[str, str] | None) -> Job:
    """Go on with a run that is not done. inputs: digests of the inputs that it began with, None where it was killed before they were noted.

    Raises InputError where an input is not what it was when the run began.
    """
    folder = resuming.folder
    resuming.require(*_still_needed(folder))
    start = _checked_again(resuming, preset, inputs or {})
    if inputs is not None:
        refuse_changes(folder, start, inputs, resuming.began.data)
    job = Job(open_run(folder), start)
    resuming.keep()
    sweep(folder)
    if inputs is None:
        remember(job.run, start)
    done = sum(finished(folder, stage) is not None for stage in job.stages)
    job.run.print(f"resumed: {done} of {len(job.stages)} stages are done")
    return _told(job)


def _told(job: Job) -> Job:
    """Say once, for all stages, what makes the accuracy of all of them look better than it is."""
    for line in trained_on(job.start.train_set, job.start.val_set):
        job.run.print(line)
    return job


def _still_needed(folder: Path) -> list[str]:
    """The input options that a resumed run still reads: not the network once the first stage has left one, and not a recipe that was copied."""
    done = {"weights": f"{TRAIN.folder}/stage.json", "cfg": f"{TRAIN.folder}/stage.json", "hyp": HYPER}
    return [name for name in _INPUTS if name not in done or not (folder / done[name]).is_file()]


def _checked_again(resuming: Resumed, preset: Preset, inputs: dict[str, str]) -> Start:
    """The start of a resumed run, as `_checked` gives it, with the run's own copies in place of inputs that are gone.

    The run has a copy of the recipe, which is used unless another is given, and the network of the first stage, which takes the place of missing
    weights. inputs: digests of the inputs when the run began.
    """
    folder, config = resuming.folder, resuming.config
    if (folder / HYPER).is_file() and config.hyp == resuming.began.hyp:
        config = replace(config, hyp=str(folder / HYPER))
    given = config.weights or config.cfg or ""
    if not Path(given).is_absolute() or Path(given).exists():
        return replace(_checked(config, preset), config=resuming.config)
    start = _checked(replace(config, weights=str(left(folder, TRAIN)), cfg=None), preset)
    same = {what: digest for what, digest in start.inputs.items() if what != "weights"}
    same |= {what: digest for what, digest in inputs.items() if what in ("weights", "cfg")}
    return replace(start, config=resuming.config, inputs=same)


def _checked(config: Compression, preset: Preset) -> Start:
    def check_names(names: Sequence[str]) -> None:
        if preset.match_games:
            builtin.check_classes(config, preset, names)

    return checked(config, preset, check_names)


def _announced(job: Job, stage: Stage, number: str, began: float) -> None:
    """Do a stage that is not done yet, and print a line before and after it."""
    folder = job.folder(stage)
    if finished(job.run.path, stage) is not None:
        return
    left = _left(job)
    ahead = "" if left is None else f", about {remaining(left)} to go"
    job.run.print(f"{number} {stage.title} ... ({_elapsed(began)} so far{ahead}): {folder}")
    try:
        with told_once(), work_ahead(lambda pace: _effort(job, stage) * pace / stage.effort if stage.effort else 0.0):
            result = once(job, folder, _WORK[stage], stage.results)
    except KeyboardInterrupt:
        job.run.print(f"stopped in {stage.title}; go on with: {typed('compress', '--resume', job.run.path)}")
        raise
    if "row" in result:
        row = result["row"]
        found = f"mAP50 {row['mAP50']:.4f}, mAP50-95 {row['mAP50-95']:.4f} ({row['interval'][0]:.4f} to {row['interval'][1]:.4f})"
        job.run.print(f"{stage.title}: {row['parameters']:,} parameters, {row['macs'] / 1e6:,.1f} M MACs, {found}")


def _left(job: Job) -> float | None:
    """Estimated seconds of the remaining stages, by the time of the first training; None where that tells nothing."""
    trained, epochs = finished(job.run.path, TRAIN), job.start.preset.train_epochs
    return None if trained is None or not epochs else _effort(job) * trained["seconds"] / epochs


def _effort(job: Job, but: Stage | None = None) -> float:
    """Rough duration of the stages that are not done, in epochs of the first training. but: the stage that is being done, which does not count."""
    effort = 0.0
    for stage in job.stages:
        if stage is not but and finished(job.run.path, stage) is None:
            effort += job.start.preset.effort_of(stage) + 0.5
    return effort


def _elapsed(began: float) -> str:
    return str(timedelta(seconds=round(perf_counter() - began)))


def _finished(run: Run, config: Compression, preset: Preset) -> Compressed:
    """Write the summary and the report from the results of the stages, and print the summary."""
    results = {stage: finished(run.path, stage) or {} for stage in preset.stages(config.control)}
    weights = left(run.path, FINETUNE)
    model = load(weights)
    try:
        summary = summarised(config, preset, results)
    except KeyError as error:
        raise InputError(f"{run.path}: a stage.json lacks {error}; delete it, and its stage is done again") from None
    write_text(run.path / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))
    write_text(run.path / "summary.txt", text(summary, model.image_size))
    run.print(table(summary, model.image_size))
    run.print(f"results: {run.path}")
    run.print(f"report: {write_report(run.path)}")
    if preset.match_games:
        run.print(builtin.invitation(weights))
    run.print(f"next: {typed('predict', '--weights', run.path / EXPORT.folder / 'openvino', '--source', 'PICTURE')}")
    return Compressed(run.path, model, summary)


def _clear(config: Compression) -> None:
    """With --exist-ok, remove an earlier compression from the same folder, because its stages do not belong to this run. Raises InputError where
    another process works on it.

    The file by which a folder is recognised as a compression is removed last, so that a kill in between leaves nothing that the next attempt takes
    for its own.
    """
    folder = Path(config.project or "runs/compress") / config.name
    if config.exist_ok and Path(config.name).name == config.name and (folder / START).is_file():
        open_run(folder)  # raises InputError where another process works on it
        for stage in STAGES:
            if (folder / stage.folder).is_dir():
                shutil.rmtree(folder / stage.folder)
        for name in (HYPER, "summary.json", "summary.txt", "report.html", START):
            (folder / name).unlink(missing_ok=True)
