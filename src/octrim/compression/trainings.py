"""The stages that train: the first training, a student's, sparsity training, fine-tuning, and the control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from octrim.compression.job import Job, emptied, evaluated, row
from octrim.compression.planning import cuts_channels, keep_of, sparsity, table_of
from octrim.compression.start import HYPER
from octrim.compression.student import student_of
from octrim.network.initialize import fresh_tensors
from octrim.network.model import Model
from octrim.pruning.options import NONE
from octrim.stages import CONTROL, FINETUNE, INT8, PRUNE, SPARSIFY, STUDENT, TRAIN, Stage
from octrim.training.checkpoint import BEST, CHECKPOINT, LAST
from octrim.training.finetune import finetune
from octrim.training.sparsify import sparsify
from octrim.training.train import Trained, train


def first_training(job: Job, folder: Path) -> dict[str, Any]:
    """Train the network on the data; without epochs the given weights are only evaluated."""
    config, preset = job.start.config, job.start.preset
    if preset.train_epochs:
        done = _trained(job, TRAIN, folder, train, preset.train_epochs, weights=config.weights, cfg=config.cfg)
        return row(job, done.model, folder / done.weights.name, done.evaluation, preset.train_epochs)
    emptied(folder)
    lineage = (*job.start.base.lineage, {"action": "start", "weights": Path(config.weights or "").name})
    model = replace(job.start.base, lineage=lineage)
    path = folder / TRAIN.file
    for name in (LAST, BEST):  # a training leaves both files
        model.save(folder / name)
    return row(job, model, path, evaluated(job, model, path), 0)


def student_training(job: Job, folder: Path) -> dict[str, Any]:
    """Train the student that is cut afterwards, from fresh weights, with the original as the teacher."""
    preset = job.start.preset
    student = student_of(job.start.config, job.network(TRAIN))
    done = _trained(job, STUDENT, folder, finetune, preset.student_epochs, student, **_tuned(job))
    return row(job, done.model, folder / done.weights.name, done.evaluation, preset.train_epochs + preset.student_epochs)


def sparsity_training(job: Job, folder: Path) -> dict[str, Any]:
    """Train with a penalty that sets to zero as many channels as the plan will cut."""
    preset = job.start.preset
    options = {**sparsity(job.start.config, preset, job.start.keep_map), **_taught(job), "no_autoanchor": True}
    done = _trained(job, SPARSIFY, folder, sparsify, preset.sparsify_epochs, weights=str(job.weights(TRAIN)), **options)
    return row(job, done.model, folder / done.weights.name, done.evaluation, preset.train_epochs + preset.sparsify_epochs)


def finetuning_between_cuts(job: Job, folder: Path, cut: Path) -> dict[str, Any]:
    """Fine-tune the network in the file `cut` for a while, between that cut and the next."""
    done = _trained(job, PRUNE, folder, finetune, job.start.preset.step_epochs, weights=str(cut), **_tuned(job))
    return row(job, done.model, folder / done.weights.name, done.evaluation, None)


def finetuning(job: Job, folder: Path) -> dict[str, Any]:
    """Fine-tune with the original as the teacher: the cut network, a student, or the whole network, whose channels then go on the way."""
    config, preset = job.start.config, job.start.preset
    options = _tuned(job)
    noted: dict[str, Any] = {} if job.start.unlabelled is None else {"unlabelled": job.start.unlabelled.facts()}
    if preset.own_layout:
        student = student_of(config, job.network(TRAIN))
        done = _trained(job, FINETUNE, folder, finetune, preset.finetune_epochs, student, **options)
        return {**row(job, done.model, folder / done.weights.name, done.evaluation, preset.whole), **noted}
    if not preset.cut_epochs:
        done = _trained(job, FINETUNE, folder, finetune, preset.finetune_epochs, weights=str(job.weights(PRUNE)), **options)
        return {**row(job, done.model, folder / done.weights.name, done.evaluation, preset.whole), **noted}
    uncut = job.weights(preset.uncut)
    criterion = config.criterion or preset.gradual_criterion
    options |= {"drop": config.patterns or (NONE,), "levels": config.strides}
    if cuts_channels(config):
        options |= {"cut_epochs": preset.cut_epochs, "criterion": criterion, "align": config.align, "exclude": config.exclude}
        options |= {"keep": keep_of(config), "budget": config.budget, "keep_map": config.keep_map, "widths": preset.widths}
        options |= {"latency_table": table_of(config), "precision": config.precision}
    done = _trained(job, FINETUNE, folder, finetune, preset.finetune_epochs, weights=str(uncut), **options)
    found = row(job, done.model, folder / done.weights.name, done.evaluation, preset.whole)
    return {**found, **noted, "cuts": [{"criterion": criterion, "repairs": ["merge"], "channels": found["row"]["channels"]}]}


def short_finetuning(job: Job, folder: Path, epochs: int, cut_epochs: int, shape: dict[str, Any]) -> Trained:
    """Fine-tune the whole network for a while, and cut it to a shape on the way. shape: the options that say what is left."""
    config, preset = job.start.config, job.start.preset
    cut = {"cut_epochs": cut_epochs, "criterion": config.criterion or preset.gradual_criterion, "align": config.align, "exclude": config.exclude}
    cut |= {"latency_table": table_of(config), "precision": config.precision}
    return _trained(job, FINETUNE, folder, finetune, epochs, weights=str(job.weights(preset.uncut)), **_tuned(job), **cut, **shape)


def int8_training(job: Job, folder: Path, calibrated: Path) -> dict[str, Any]:
    """Train the calibrated network in the file `calibrated` with the roundings of int8, with the original as the teacher; its scales stay."""
    preset = job.start.preset
    options = {**_taught(job), "no_autoanchor": True, "qat": True}
    done = _trained(job, INT8, folder, finetune, preset.qat_epochs, weights=str(calibrated), **options)
    return row(job, done.model, folder / done.weights.name, done.evaluation, preset.whole + preset.qat_epochs)


def control(job: Job, folder: Path) -> dict[str, Any]:
    """Train the small network's table with fresh weights, for as many epochs as everything before."""
    small = job.network(FINETUNE)
    seed, epochs = job.start.config.seed, job.start.preset.whole
    lineage = ({"action": "initialise", "layout": "table of the compressed network", "seed": seed, "licence": "none: no trained weights"},)
    fresh = replace(small, tensors=fresh_tensors(small.network, seed), lineage=lineage, scales={})
    done = _trained(job, CONTROL, folder, train, epochs, fresh, no_autoanchor=True)
    return row(job, done.model, folder / done.weights.name, done.evaluation, epochs)


def _trained(
    job: Job, stage: Stage, folder: Path, function: Callable[..., Trained], epochs: int, initial: Model | None = None, **options: Any
) -> Trained:
    """Train, or go on with a training that was killed in this folder; a training that had come to its end is only evaluated again.

    initial: network to start from, where no file holds it.
    """
    config, preset = job.start.config, job.start.preset
    free = {"workers": config.workers, "cache": config.cache, "device": config.device}
    if (folder / CHECKPOINT).is_file():
        moved = {"data": config.data} | {name: options[name] for name in ("teacher", "unlabelled") if options.get(name)}  # they may lie elsewhere now
        return function(resume=str(folder), **free, **moved)
    emptied(folder)
    if initial is not None:
        initial.save(folder / "initial.safetensors")
        options["weights"] = str(folder / "initial.safetensors")
    steps: dict[str, Any]
    if stage.tuned:
        steps = {"batch": preset.finetune_batch, "nominal_batch": preset.finetune_batch}
        rates = {INT8: preset.qat_lr0, STUDENT: preset.student_lr0}
        steps |= {"lr0": rates.get(stage, preset.finetune_lr0), "optimizer": preset.finetune_optimizer, "box_weight": preset.box_weight}
    else:
        steps = {"batch": preset.batch, "nominal_batch": preset.nominal_batch}
        if stage is TRAIN:
            steps |= {"lr0": preset.train_lr0 or None, "optimizer": preset.train_optimizer}
    # No early stop: stages and control train for exactly the epochs that the summary states.
    recipe = job.run.path / HYPER
    common = {"data": config.data, **config.reading(), "hyp": str(recipe) if recipe.is_file() else config.hyp, "patience": 0, "seed": config.seed}
    common |= {"imgsz": (job.start.base.image_size,), "ema": preset.ema}
    place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    return function(epochs=epochs, **common, **steps, **place, **free, **options)


def _tuned(job: Job) -> dict[str, Any]:
    """Options of every fine-tuning: those of distillation, the anchors that stay, and the small network's activation."""
    return {**_taught(job), "no_autoanchor": True, "activation": job.start.config.activation}


def _taught(job: Job) -> dict[str, Any]:
    """Options of distillation: the teacher is the network of the first stage, which also says what is on unlabelled pictures."""
    distill, config = job.start.preset.distill, job.start.config
    others = {"unlabelled": config.unlabelled, "unlabelled_share": config.unlabelled_share, "teacher_precision": config.teacher_precision}
    return {"distill": distill, "teacher": None if distill == "none" else str(job.weights(TRAIN)), **others}
