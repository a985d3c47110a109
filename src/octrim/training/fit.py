"""The training loop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from math import isnan
from time import perf_counter
from typing import Any

import numpy as np

from octrim.backends.paddle import F, PaddleNetwork, paddle
from octrim.data.dataset import Dataset
from octrim.data.loader import Loader
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.targets.session import float_batch
from octrim.training.checkpoint import State
from octrim.training.distillation import Distillation
from octrim.training.freezing import frozen
from octrim.training.hyper import Hyperparameters
from octrim.training.loss import DetectionLoss
from octrim.training.optimizer import MovingAverage, Optimizer, Weights
from octrim.training.options import Training
from octrim.training.parallel import World
from octrim.training.record import COLUMNS, Record
from octrim.training.schedule import Schedule, side_of_batch
from octrim.training.sparsity import PenalisedChannels, Penalty, Sparsity
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
) -> State:
    """Train `model` from `state` to the last epoch and return the state at the end. What happens is told to `record`, which keeps it.

    distillation: a teacher's loss to add. penalty: what draws channels to zero; the last epoch is then the best.

    Raises InputError when gradients or weights are no longer finite, KeyboardInterrupt after SIGINT or SIGTERM, when the state has been saved.
    """
    network = PaddleNetwork(model)
    if config.sync_bn:
        for layer in network.sublayers():
            if isinstance(getattr(layer, "bn", None), paddle.nn.BatchNorm2D):
                layer.bn = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(layer.bn)
    network.train()
    weights = Weights(network)
    loss = DetectionLoss(network.network, hyper, model.image_size)
    validator = Validator(model, val_set, loss, config.batch, world) if val_set is not None else None
    accumulate = max(round(config.nominal_batch / config.batch), 1)
    decay = hyper.weight_decay * config.batch * accumulate / config.nominal_batch
    optimizer = Optimizer.create(weights, config.optimizer, decay, _freeze(weights, config.freeze))
    average = MovingAverage(weights.values())
    gradient = paddle.zeros([weights.parameters.size])
    if state.arrays:
        weights.assign(paddle.to_tensor(state.arrays["values"]))
        average = MovingAverage(paddle.to_tensor(state.arrays["average"]), state.updates)
        gradient = paddle.to_tensor(state.arrays["gradient"]) / world.size
        if len(optimizer.moments) != sum(name.startswith("moment") for name in state.arrays):
            raise InputError(f"the checkpoint is of another optimizer than {config.optimizer}")
        optimizer.moments = [paddle.to_tensor(state.arrays[f"moment{index}"]) for index in range(len(optimizer.moments))]
        optimizer.steps = state.steps

    def snapshot() -> State:
        """The state as it is now: what waits for a step is stored as the sum over the processes, whose number may change."""
        state.arrays = {"values": weights.values().numpy(), "average": average.values.numpy(), "gradient": (gradient * world.size).numpy()}
        state.arrays |= {f"moment{index}": moment.numpy() for index, moment in enumerate(optimizer.moments)}
        state.steps, state.updates = optimizer.steps, average.updates
        return state

    loader = Loader(train_set, model.image_size, config.batch, hyper.augmentation, config.seed, config.workers, config.cache, world.rank, world.size)
    schedule = Schedule(hyper, config.epochs, len(loader), accumulate, config.cos_lr)
    sparsity = (
        Sparsity(weights, PenalisedChannels(network.network, penalty.exclude, config.freeze), penalty, schedule, len(train_set)) if penalty else None
    )
    if sparsity:
        sparsity.strength = state.extra.get("strength", 0.0)
    losses = (*COLUMNS[1:4], *(distillation.names if distillation else ()))
    if len(state.losses) != len(losses):
        state.losses = (0.0,) * len(losses)
    with loader, interruptions() as interrupted:
        if not state.arrays:
            if sparsity:
                _note_scales(state, sparsity, 0)
            record.begin(snapshot())
        if accumulate > len(loader):
            record.print(
                f"an optimizer step takes {accumulate} batches and an epoch has {len(loader)}: whole epochs change nothing; "
                f"a smaller --nominal-batch (now {config.nominal_batch}) changes weights more often"
            )
        for epoch in range(state.epoch, config.epochs):
            # Asked here and not after an epoch, so that a run resumed after it had stopped stops again. Only the first process knows the best.
            if world.agree(world.first and 0 < config.patience <= epoch - 1 - state.best[1]):
                record.print(f"no better epoch in {config.patience}: stopped (patience)")
                break
            record.start_epoch(epoch, len(loader), state)
            started = perf_counter()
            pictures = 0
            for batch in loader.epoch(epoch, mosaic=epoch < config.epochs - config.close_mosaic, first=state.batch):
                settings = schedule.at(epoch, state.batch)
                images = paddle.to_tensor(float_batch(batch.images))
                if config.multi_scale:
                    side = side_of_batch(model.image_size, network.network.stride, config.seed, epoch, state.batch)
                    images = F.interpolate(images, size=[side, side], mode="bilinear")
                with _mixed_precision(config.amp):
                    heads, features = network.with_features(images) if distillation and distillation.feature_weight else (network(images), [])
                found = loss(heads, batch.targets)
                total, parts = found.total, found.parts.numpy().tolist()
                if distillation:
                    more, told = distillation(images, heads, features)
                    total, parts = total + more, parts + told.numpy().tolist()
                total.backward()
                gradient = gradient + weights.parameters.gradient()
                state.losses = tuple(sum_ + part for sum_, part in zip(state.losses, parts, strict=True))
                state.labels += len(batch.targets)
                state.waiting += 1
                state.batch += 1
                pictures += len(batch.images)
                # The gradient is a sum over pictures, so the fewer that wait at the end of the training count as what they are.
                last = epoch == config.epochs - 1 and state.batch == len(loader)
                if state.waiting >= settings.accumulate or last:
                    if not optimizer.step(world.sum(gradient), settings):
                        raise InputError(_DIVERGED.format(epoch + 1, state.batch))
                    world.share(weights.statistics.vector)
                    if sparsity:
                        sizes = [
                            min(config.batch, len(train_set) - (state.batch - 1 - back) % len(loader) * config.batch) for back in range(state.waiting)
                        ]
                        sparsity.step(hyper.lr0 * schedule.factor(epoch), sum(sizes), (epoch + state.batch / len(loader)) / config.epochs)
                        state.extra["strength"] = sparsity.strength
                    average.update(weights.vector)
                    gradient = paddle.zeros([weights.parameters.size])
                    state.waiting = 0
                record.batch(epoch, batch, images.shape[2], state)
                # The processes wait for each other at a step, so they must leave at the same one.
                if world.agree(interrupted()) if state.waiting == 0 else interrupted() and world.size == 1:
                    state.losses = tuple(world.mean_of(state.losses))
                    record.interrupt(snapshot())
                    raise KeyboardInterrupt
            trained = perf_counter()
            world.share(weights.statistics.vector)
            gradient = world.mean(gradient)
            if not paddle.isfinite(weights.vector).all().numpy().item():
                raise InputError(_DIVERGED.format(epoch + 1, state.batch))
            state.losses = tuple(world.mean_of(state.losses))
            means = [total / len(loader) for total in state.losses]
            row = dict(zip(losses, means, strict=True))
            if sparsity:
                row |= {"sparsity/dead": sparsity.dead(), "sparsity/strength": sparsity.strength}
                _note_scales(state, sparsity, epoch + 1)
                if epoch == config.epochs - 1:  # an average of zeros and other values is not zero
                    average.values = paddle.to_tensor(sparsity.silence(average.values.numpy()))
            evaluation = None
            if validator is not None and (not config.noval or epoch == config.epochs - 1):
                record.save(snapshot())  # evaluating may take long, and a kill then must not cost the epoch
                try:
                    evaluation, found_losses = validator.evaluate(average.values, interrupted)
                except KeyboardInterrupt:
                    record.interrupt(state)
                    raise
                row |= dict(zip(("val/box_loss", "val/obj_loss", "val/cls_loss"), found_losses, strict=True))
            if evaluation is not None:
                row |= {"metrics/precision": evaluation.precision, "metrics/recall": evaluation.recall}
                row |= {"metrics/mAP_0.5": evaluation.map50, "metrics/mAP_0.5:0.95": evaluation.map}
            # Without evaluation the last epoch is the best, and so it is of sparsity training: before the end channels are not dead.
            fitness = float(epoch) if evaluation is None or config.noval or sparsity else fitness_of(evaluation.map50, evaluation.map)
            at_end = schedule.at(epoch, len(loader) - 1)
            row |= {"x/lr0": at_end.bias_rate, "x/lr1": at_end.rate, "x/lr2": at_end.rate}
            if fitness > state.best[0] or fitness == state.best[0] == 0:  # of epochs that found nothing, the last
                state.best = (fitness, epoch)
            state.rows.append({"epoch": epoch, **row})
            labels = round(world.mean_of([state.labels])[0] * world.size)
            state.losses, state.labels = (0.0,) * len(losses), 0
            state.epoch, state.batch = epoch + 1, 0
            seconds = (trained - started, perf_counter() - trained)
            record.end_epoch(snapshot(), evaluation, labels, pictures * world.size, seconds)
        if world.agree(interrupted()):
            record.interrupt(state)
            raise KeyboardInterrupt
    return state


def _note_scales(state: State, sparsity: Sparsity, number: int) -> None:
    """Keep the distribution of the scales after `number` epochs; noted again, as by a resumed run, it replaces itself."""
    norms = sparsity.norms()
    scales = state.extra.setdefault("scales", {"top": max(1.05 * float(norms.max()), 1e-6), "counts": []})
    scales["counts"][number:] = [sparsity.histogram(norms, scales["top"])]


_DIVERGED = (
    "gradients or weights are not finite any more (epoch {}, batch {}); the checkpoint before that is kept; a lower lr0 or a longer warm-up may help"
)


def fitness_of(map50: float, map_: float) -> float:
    """What the best epoch has most of: .1 mAP50 + .9 mAP50-95."""
    return sum(weight * (0.0 if isnan(value) else value) for weight, value in ((0.1, map50), (0.9, map_)))


def _freeze(weights: Weights, freeze: tuple[str, ...]) -> Any:
    """Stop the gradients of frozen parameters; 1 where a parameter trains, a flat vector, or None where all do."""
    chosen = frozen(tuple(weights.parameters.tensors), freeze)
    if not chosen:
        return None
    mask = np.ones(weights.parameters.size, np.float32)
    for name in chosen:
        weights.parameters.tensors[name].stop_gradient = True
        mask[weights.parameters.slices[name]] = 0
    return paddle.to_tensor(mask)


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM are remembered until the loop comes to a place where it can stop; a second one stops at once."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            if hasattr(signal, "siginterrupt"):  # calls go on afterwards: an interrupted answer of another process would be lost
                signal.siginterrupt(number, False)
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mixed_precision(wanted: bool) -> Any:
    """bfloat16 where the device has it: unlike float16 it needs no loss scaling."""
    if wanted and paddle.device.get_device().startswith("gpu") and paddle.amp.is_bfloat16_supported():
        return paddle.amp.auto_cast(dtype="bfloat16")
    return contextlib.nullcontext()
