"""The stage of a compression that cuts channels: in one step or in several, with a short fine-tuning between two steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from octrim.compression.job import Job, evaluated, once, row, sweep
from octrim.compression.options import Compression
from octrim.compression.planning import planned, times_of, with_macs
from octrim.compression.trainings import finetuning_between_cuts
from octrim.data.pictures import Readable, network_inputs
from octrim.latency.budget import fitted_plan
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.importance import Criterion, live_channels
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, composed
from octrim.pruning.plan_files import write_plan
from octrim.pruning.repaired import cut_and_repaired
from octrim.pruning.spectra import PICTURES, measured_by_variance
from octrim.stages import PRUNE
from octrim.training.gradients import taylor_on
from octrim.training.labelled import drawn

_REPAIR_PICTURES = 200
_TAYLOR_PICTURES = 200


def cutting(job: Job, folder: Path) -> dict[str, Any]:
    """Cut in steps, with a short fine-tuning between them. The plan in the folder compares the network before the first cut with the last one."""
    preset = job.start.preset
    folder.mkdir(exist_ok=True)
    sweep(folder)
    model = job.network(preset.uncut)
    original, whole = model.network, None
    cuts: list[dict[str, Any]] = []
    for step in range(1, preset.cut_steps + 1):
        here = folder / f"cut{step}" if preset.cut_steps > 1 else folder
        here.mkdir(exist_ok=True)
        made = _planned(job, model, original, step)
        job.run.print(made.table())
        model, repairs = _cut(job, model, made)
        cuts.append({"criterion": made.settings["criterion"], "repairs": repairs, "channels": made.after.channels})
        whole = made if whole is None else composed(whole, made)
        if preset.cut_steps > 1:
            write_plan(made, here)
            model.save(here / PRUNE.file)
        if step < preset.cut_steps:
            job.run.print(f"cut {step} of {preset.cut_steps} is made; fine-tuning for {preset.step_epochs} epochs")
            between = folder / f"finetune{step}"
            result = once(job, between, partial(finetuning_between_cuts, cut=here / PRUNE.file), ["row", "model"])
            model = load(job.run.path / result["model"])
    assert whole is not None
    if preset.cut_steps > 1:
        whole = replace(whole, settings={**whole.settings, "cut_steps": preset.cut_steps})
    write_plan(whole, folder)
    model.save(folder / PRUNE.file)
    return {**row(job, model, folder / PRUNE.file, evaluated(job, model, folder / PRUNE.file), preset.before_finetune), "cuts": cuts}


def _planned(job: Job, model: Model, original: Network, step: int) -> Plan:
    """The plan of one cut, by the criterion that the options or the preset name."""
    config, preset = job.start.config, job.start.preset
    criterion: str | Criterion = config.criterion or preset.criterion
    if preset.sparsify_epochs and config.criterion is None and step == 1:
        criterion = "bn"  # zero scales go first; in later steps fine-tuning has filled them again
    if criterion == "taylor":
        size = (model.image_size, model.image_size)
        criterion, notes = taylor_on(model, config.data, size, _TAYLOR_PICTURES, config.seed, job.run.console, **config.reading())
        for line in notes:
            job.run.print(line)
    if preset.widths == "variance":
        config, criterion = _by_variance(job, model, original, criterion)
    make = partial(planned, config, preset, job.start.keep_map, model, original, step, criterion)
    table = times_of(config)
    if table is None or step < preset.cut_steps:
        return make()
    timed = fitted_plan(table, config.budget, original, make)
    for line in timed.told:
        job.run.print(line)
    return timed.plan


def _by_variance(job: Job, model: Model, original: Network, criterion: str | Criterion) -> tuple[Compression, Criterion]:
    """The options and the criterion for a cut of `model` by the variance of its feature maps without the rows that the cut drops; the options have a
    budget, where `--keep` alone says what is to be left that of the MACs that it leaves. original: the network before the first cut."""
    config = with_macs(job.start.config, job.start.preset, job.start.keep_map, job.start.uncut)
    there = {row.name for row in model.network.rows}
    gone = [name for name in rows_to_drop(original, config.patterns, config.strides) if name in there]
    paths = drawn(job.start.train_set, PICTURES, config.seed).paths
    criterion, lines = measured_by_variance(criterion, without_rows(model, gone), paths, (model.image_size, model.image_size), job.run.console)
    for line in lines:
        job.run.print(line)
    return config, criterion


def _cut(job: Job, model: Model, made: Plan) -> tuple[Model, list[str]]:
    """The network cut and repaired, and the names of the repairs. Where all cut channels are dead, no repair with pictures is needed: a dead channel
    is constant, and its constant goes into its consumers."""
    preset, seed = job.start.preset, job.start.config.seed
    labels = channel_labels(model.network)
    live = live_channels(model, labels)
    dead = all(set(np.flatnonzero(live[labels.labels[conv.name]])) <= set(made.kept.get(conv.name, ())) for conv in model.network.convs)
    fit, move = preset.reconstruct and not dead, preset.recalibrate and not dead
    readable = _training_pictures(job) if fit or move else Readable(())
    fitted, moved = (network_inputs(readable, model.image_size, model.image_size) if wanted else None for wanted in (fit, move))
    repaired = cut_and_repaired(model, made, True, fitted, moved, seed, job.run.console)
    for line in readable.failures:
        job.run.print(f"left out: {line}")
    return repaired, ["compensate", *["reconstruct"] * fit, *["recalibrate"] * move]


def _training_pictures(job: Job) -> Readable:
    """Some training pictures, drawn by the seed. Raises InputError where none of them can be read."""
    readable = Readable(drawn(job.start.train_set, _REPAIR_PICTURES, job.start.config.seed).paths)
    readable.require()
    return readable
