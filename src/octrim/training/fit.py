"""The loop over epochs and batches that every training shares."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import isnan
from time import perf_counter
from typing import Any

from octrim.backends.paddle import F, PaddleNetwork, paddle
from octrim.data.dataset import Dataset
from octrim.data.loader import Loader, TrainingBatch
from octrim.data.unlabelled import Unlabelled
from octrim.errors import InputError
from octrim.evaluate.evaluation import Evaluation
from octrim.network.model import Model
from octrim.targets.session import float_batch
from octrim.training.checkpoint import State
from octrim.training.cutting import GradualCut
from octrim.training.distillation import Distillation
from octrim.training.hyper import Hyperparameters
from octrim.training.interruptions import interruptions
from octrim.training.learner import Learner
from octrim.training.loss import DetectionLoss
from octrim.training.options import Training
from octrim.training.parallel import World
from octrim.training.record import COLUMNS, Record
from octrim.training.schedule import PUBLISHED, Schedule, averaging, side_of_batch
from octrim.training.shrinking import Shrinking, scores_channels
from octrim.training.sparsity import Penalty
from octrim.training.validate import Validator


def fit(
    config: Training,
    hyper: Hyperparameters,
    model: Model,
    train_set: Dataset,
    val_set: Dataset | None,
    state: State,
    record: Record,
    world: World,
    distillation: Distillation | None = None,
    penalty: Penalty | None = None,
    cut: GradualCut | None = None,
    unlabelled: Unlabelled | None = None,
) -> State:
    """Train `model` from `state` to the last epoch and return the state at the end. `record` is told what happens; it writes the files.

    distillation: loss against a teacher, to be added. penalty: sparsity penalty that drives channels to zero; the last epoch then counts as the best.
    cut: what is to be left of the network, whose channels then go little by little; only epochs of its final shape can be the best one.
    unlabelled: pictures without labels that join every batch, of which only the teacher says something.

    Raises InputError when gradients or weights are no longer finite, and KeyboardInterrupt after SIGINT or SIGTERM, once the state has been saved.
    """
    learner = Learner(model, config, hyper, world, scored=scores_channels(penalty, cut))
    loss = DetectionLoss(model.network, hyper, model.image_size)
    validator = Validator(model, val_set, loss, config.batch, world) if val_set is not None else None
    reading = (config.seed, config.workers, config.cache, world.rank, world.size, unlabelled)
    loader = Loader(train_set, model.image_size, config.batch, hyper.augmentation, *reading)
    schedule = Schedule(hyper, config.epochs, len(loader), learner.accumulate, config.cos_lr)
    losses = (*COLUMNS[1:4], *(distillation.names if distillation else ()))
    if len(state.losses) != len(losses):
        state.losses = (0.0,) * len(losses)
    if state.arrays:
        learner.restore(state)
    else:
        learner.begin(state, PUBLISHED if config.ema == "published" else averaging(schedule.updates))
    shrinking = Shrinking(penalty, cut, learner, state, schedule, train_set)
    with loader, interruptions() as interrupted:
        if not state.arrays:
            shrinking.begin()
            record.begin(learner.snapshot(state))
        if learner.accumulate > len(loader):
            record.print(_FEW_BATCHES.format(learner.accumulate, len(loader), config.nominal_batch))
        for epoch in range(state.epoch, config.epochs):
            # Patience is checked before an epoch, so that a resumed run that had stopped stops again. Only the first process knows the best epoch.
            if world.agree(world.first and 0 < config.patience <= epoch - 1 - max(state.best[1], shrinking.shaped)):
                record.print(f"no better epoch in {config.patience}: stopped (patience)")
                break
            record.start_epoch(len(loader), state)
            started, pictures, last = perf_counter(), 0, epoch == config.epochs - 1
            for batch in loader.epoch(epoch, mosaic=epoch < config.epochs - config.close_mosaic, first=state.batch):
                settings = schedule.at(epoch, state.batch)
                images = _images(batch, config, model, epoch, state.batch)
                heads, features = _forward(learner.network, images, config.amp, with_features=bool(distillation and distillation.feature_weight))
                found = loss(heads if batch.labelled == len(images) else [head[: batch.labelled] for head in heads], batch.targets)
                total, parts = found.total, found.parts.numpy().tolist()
                if distillation:  # add the loss against the teacher
                    more, told = distillation(images, heads, features)
                    total, parts = total + more, parts + told.numpy().tolist()
                learner.add(total)
                state.count_batch(parts, len(batch.targets), loader.pictures_in(state.batch))
                pictures += len(batch.images)
                # The last step may have fewer batches: the gradient is a sum over pictures, so it is then smaller in proportion.
                if state.waiting >= settings.accumulate or (last and state.batch == len(loader)):
                    if not learner.step(settings):
                        raise InputError(_DIVERGED.format(epoch + 1, state.batch))
                    shrinking.penalise()
                    learner.follow()
                    state.waiting = state.waiting_pictures = 0
                    shrinking.cut()
                record.batch(epoch, batch, images.shape[2], state)
                if _stops(world, interrupted(), between_steps=state.waiting == 0):
                    state.losses = tuple(world.mean_of(state.losses))
                    record.interrupt(learner.snapshot(state))
                    raise KeyboardInterrupt
            trained = perf_counter()
            learner.synchronise()
            if not learner.finite():
                raise InputError(_DIVERGED.format(epoch + 1, state.batch))
            state.losses = tuple(world.mean_of(state.losses))
            row = dict(zip(losses, [total / len(loader) for total in state.losses], strict=True))
            row |= shrinking.columns(epoch, last)
            evaluation = None
            if validator is not None and (last or not config.noval):
                evaluation, columns = _evaluated(validator, learner, state, record, interrupted)
                row |= columns
            row |= schedule.columns(epoch)
            state.note_fitness(_fitness(evaluation, epoch, by_metrics=not (config.noval or penalty)), epoch)
            labels = round(world.mean_of([state.labels])[0] * world.size)
            state.close_epoch(epoch, row)
            seconds = (trained - started, perf_counter() - trained)
            record.end_epoch(learner.snapshot(state), evaluation, labels, pictures * world.size, seconds)
        if world.agree(interrupted()):
            record.interrupt(state)
            raise KeyboardInterrupt
    return state


_FEW_BATCHES = (
    "an optimizer step takes {} batches and an epoch has {}: whole epochs change nothing; "
    "a smaller --nominal-batch (now {}) changes weights more often"
)

_DIVERGED = (
    "gradients or weights are not finite any more (epoch {}, batch {}); the checkpoint before that is kept; a lower lr0 or a longer warm-up may help"
)


def _stops(world: World, interrupted: bool, between_steps: bool) -> bool:
    """Whether the training stops after this batch. Several processes wait for each other at a step, so they must leave at the same one."""
    if between_steps:
        return world.agree(interrupted)
    return interrupted and world.size == 1


def _evaluated(
    validator: Validator, learner: Learner, state: State, record: Record, interrupted: Callable[[], bool]
) -> tuple[Evaluation | None, dict[str, float]]:
    """The evaluation of the averaged weights, which only the first process has, and its columns of results.csv."""
    record.save(learner.snapshot(state))  # a kill during a long evaluation must not cost the epoch
    try:
        evaluation, losses = validator.evaluate(state.network, learner.average.values, interrupted)
    except KeyboardInterrupt:
        record.interrupt(state)
        raise
    columns: dict[str, float] = dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), losses, strict=True))
    if evaluation is not None:
        names = ("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95")
        columns |= dict(zip(names, (evaluation.precision, evaluation.recall, evaluation.map50, evaluation.map), strict=True))
    return evaluation, columns


def _fitness(evaluation: Evaluation | None, epoch: int, by_metrics: bool) -> float:
    """Number by which the best epoch is chosen. Without metrics the last epoch counts as the best; in sparsity training, too, because channels are
    dead only at the end."""
    if evaluation is None or not by_metrics:
        return float(epoch)
    return fitness_of(evaluation)


def fitness_of(evaluation: Evaluation) -> float:
    """Number by which the best epoch is chosen: .1 mAP50 + .9 mAP50-95; nan counts as 0."""
    return sum(weight * (0.0 if isnan(value) else value) for weight, value in ((0.1, evaluation.map50), (0.9, evaluation.map)))


def _images(batch: TrainingBatch, config: Training, model: Model, epoch: int, number: int) -> Any:
    """The pictures of a batch as the network takes them; in multi-scale training of a size that is drawn per batch. number: number of the batch."""
    images = paddle.to_tensor(float_batch(batch.images))
    if not config.multi_scale:
        return images
    side = side_of_batch(model.image_size, model.network.stride, config.seed, epoch, number)
    return F.interpolate(images, size=[side, side], mode="bilinear")


def _forward(network: PaddleNetwork, images: Any, amp: bool, with_features: bool) -> tuple[list[Any], list[Any]]:
    """The network's heads per level and, only where asked for, the feature maps in front of Detect."""
    with _mixed_precision(amp):
        if with_features:
            return network.with_features(images)
        return network(images), []


def _mixed_precision(wanted: bool) -> Any:
    """Context that computes in bfloat16 where the device has it: unlike float16 it needs no loss scaling."""
    if wanted and paddle.device.get_device().startswith("gpu") and paddle.amp.is_bfloat16_supported():
        return paddle.amp.auto_cast(dtype="bfloat16")
    return contextlib.nullcontext()
