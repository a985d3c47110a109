"""Evaluation during training: the averaged weights, in Paddle, with the losses beside the metrics, shared among the processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork, decode, paddle
from octrim.backends.quantized import trainable
from octrim.data.dataset import Dataset
from octrim.errors import InputError
from octrim.evaluate.batches import Batch
from octrim.evaluate.evaluation import Evaluation, measure
from octrim.evaluate.val import detect
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.targets.session import Session, float_batch, model_info
from octrim.training.loss import DetectionLoss
from octrim.training.parallel import World
from octrim.training.vectors import unflattened


class Validator(Session):
    """Evaluates changing weights without building a new network each time. It is a session, so that the same code detects as in `octrim val`."""

    def __init__(self, model: Model, dataset: Dataset, loss: DetectionLoss, batch: int, world: World) -> None:
        super().__init__(model_info(model, "paddle", str(paddle.__version__), "fp32"))
        self.model = model
        self.network = _frozen(model)
        self.dataset, self.loss, self.batch, self.world = dataset, loss, batch, world
        self.side = model.image_size
        self.heads: list[Any] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            self.heads = self.network(paddle.to_tensor(float_batch(batch)))
            return decode(self.network.network, self.heads).numpy()

    def evaluate(self, network: Network, values: Any, stop: Callable[[], bool]) -> tuple[Evaluation | None, list[float]]:
        """Evaluation of the weights `values` (a flat vector) of `network`, on the first process only, and their box, objectness and class loss.

        network: table of the model that this was made for, which may have lost channels since.

        Raises InputError when no picture can be read, and KeyboardInterrupt when `stop` returns True, but not among several processes, which must
        stay together.
        """
        changed = network != self.model.network
        self.model = replace(self.model, network=network, tensors=unflattened(network, values.numpy()))
        if changed:
            self.network = _frozen(self.model)
        else:
            now = folded(self.model)
            for name, tensor in self.network.named_tensors().items():
                tensor.set_value(now.tensors[name])
        sums = np.zeros(4, np.float32)

        def add(group: Batch) -> None:
            if stop() and self.world.size == 1:
                raise KeyboardInterrupt
            with paddle.no_grad():
                sums[:3] += self.loss(self.heads, batch_targets(self.dataset, group)).parts.numpy()
            sums[3] += 1

        found = detect(self, self.dataset, self.side, self.batch, part=(self.world.rank, self.world.size), observe=add)
        sums = np.concatenate(self.world.gather(sums[None])).sum(0)
        losses = (sums[:3] / max(sums[3], 1)).tolist()
        numbers = np.repeat(np.arange(len(self.dataset)), [len(one) for one in found.detections])
        everyone = np.concatenate(self.world.gather(np.concatenate([numbers[:, None], np.concatenate(found.detections)], axis=1).astype(np.float32)))
        unread = np.concatenate(self.world.gather(np.asarray(found.unread, np.float32)[:, None]))[:, 0].astype(int).tolist()
        if len(unread) == len(self.dataset):
            raise InputError(f"none of the {len(self.dataset)} validation pictures can be read: {found.failures[0] if found.failures else ''}")
        if not self.world.first:
            return None, losses
        everyone = everyone[np.argsort(everyone[:, 0], kind="stable")]
        detections = np.split(everyone[:, 1:], np.searchsorted(everyone[:, 0], np.arange(1, len(self.dataset))))
        return measure(self.dataset, detections, bootstrap=0, failures=found.failures, unread=unread), losses


def _frozen(model: Model) -> PaddleNetwork:
    """The network without gradients, folded, because oneDNN evaluates a network only without batch norm."""
    network = trainable(folded(model))
    for parameter in network.parameters():
        parameter.stop_gradient = True
    return network


def batch_targets(dataset: Dataset, batch: Batch) -> np.ndarray:
    """A batch's labels as the loss takes them, float32 `[n, 6]`: slot, class, cx, cy, w, h in fractions of the picture; without crowd regions."""
    height, width = batch.images.shape[1:3]
    rows = [np.zeros((0, 6), np.float32)]
    for slot, picture, box in zip(batch.slots, batch.pictures, batch.boxes, strict=True):
        boxes, labels, crowd = dataset.targets(picture)
        boxes, labels = boxes[~crowd], labels[~crowd]
        corners = (boxes * (*box.scale, *box.scale) + (box.left, box.top, box.left, box.top)) / (width, height, width, height)
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        rows.append(np.concatenate([np.full((len(boxes), 1), slot), labels[:, None], centre, size], axis=1).astype(np.float32))
    return np.concatenate(rows)
