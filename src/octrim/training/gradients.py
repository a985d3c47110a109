"""Gradients of the training loss, batch by batch, by which the criterion `taylor` ranks channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.data.dataset import Dataset
from octrim.errors import InputError
from octrim.evaluate.batches import fixed_plan
from octrim.network.model import Model
from octrim.network.options import image_size as sides_of
from octrim.progress import progress_bar
from octrim.pruning.importance import Criterion, taylor
from octrim.targets.session import float_batch
from octrim.training.hyper import RECIPES, Hyperparameters
from octrim.training.labelled import drawn, in_network_classes, open_in_classes, readable_batches
from octrim.training.loss import DetectionLoss
from octrim.training.validate import batch_targets

_BATCH = 4  # small, because near an optimum the gradients of many pictures cancel, and their mean square would no longer show importance


def batch_gradients(
    model: Model,
    dataset: Dataset,
    image_size: int | Sequence[int] | None = None,
    pictures: int = 200,
    batch: int = _BATCH,
    seed: int = 0,
    hyper: Hyperparameters = RECIPES["low"],
    progress: Callable[[int], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Gradients of the loss by every batch-norm weight and bias, the mean over a batch's pictures: per batch, tensor name to float32 `[channels]`.

    dataset: data set whose classes fit the network (by name, or by number). image_size: side, or (height, width), in pixels, by default what the
    network was made for; pictures are letterboxed to it and not augmented. pictures: largest number of pictures to use, drawn by `seed`.
    Batch norm keeps its running statistics, as in evaluation, so that a picture's gradient does not depend on what shares its batch.
    progress: called with the number of pictures just done. report: called with a line for each picture that could not be read and was left out.
    Raises InputError for options out of range, classes that do not fit, and when no picture can be read.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}, expected 1 or more")
    height, width = sides_of(image_size, model.image_size, model.network.stride)
    dataset = drawn(in_network_classes(dataset, model.names)[0], pictures, seed)
    network = PaddleNetwork(model)
    loss = DetectionLoss(model.network, hyper, loss_side(height, width))
    tensors = network.named_tensors()
    wanted = {name: tensor for name, tensor in tensors.items() if name.endswith((".bn.weight", ".bn.bias"))}
    for name in tensors.keys() - wanted.keys():
        tensors[name].stop_gradient = True  # gradients of other tensors are not needed and would be half of the work
    found: list[dict[str, np.ndarray]] = []
    failures: list[str] = []
    for group in readable_batches(dataset, fixed_plan(len(dataset), height, width, batch), max(height, width)):
        failures += group.failures
        for line in group.failures:
            if report is not None:
                report(f"left out: {line}")
        if group.pictures:
            heads = network(paddle.to_tensor(float_batch(group.images)))
            (loss(heads, batch_targets(dataset, group)).total / len(group.pictures)).backward()
            found.append({name: tensor.grad.numpy().copy() for name, tensor in wanted.items()})
            for tensor in wanted.values():
                tensor.clear_gradient(set_to_zero=False)
        if progress is not None:
            progress(len(group.pictures) + len(group.failures))
    if not found:
        raise InputError(f"none of the {len(dataset)} pictures can be read{': ' * bool(failures)}{failures[0] if failures else ''}")
    return found


def loss_side(height: int, width: int) -> int:
    """Side of the square with as many pixels as height x width; the loss scales its objectness by it."""
    return round((height * width) ** 0.5)


def taylor_pictures(model: Model, data: str | None, pictures: int, seed: int, **reading: Any) -> tuple[Dataset, list[str]]:
    """The pictures that `taylor_on` uses, in the network's classes, and lines about the data set for people. reading: options of `open_labelled`.

    Raises InputError without `data`, and as `open_in_classes` does.
    """
    if data is None:
        raise InputError("the criterion taylor needs the gradients of a loss: give --data")
    dataset, lines = open_in_classes(data, "train", model.names, **reading)
    return drawn(dataset, pictures, seed), lines


def taylor_on(
    model: Model, data: str | None, image_size: Sequence[int], pictures: int, seed: int, console: Console, **reading: Any
) -> tuple[Criterion, list[str]]:
    """The criterion `taylor` on the training part of a data set, and lines for the log. A progress bar shows on `console`.

    reading: options of `open_labelled`.

    Raises InputError without `data`, and as `open_in_classes` and `batch_gradients` do.
    """
    dataset, lines = taylor_pictures(model, data, pictures, seed, **reading)
    used = len(dataset)
    with progress_bar("gradients", used, console) as bar:
        gradients = batch_gradients(model, dataset, image_size, pictures, seed=seed, progress=bar.advance, report=lines.append)
    return taylor(gradients), [f"taylor: gradients of {used} pictures of {data}, train, in {len(gradients)} batches", *lines]
