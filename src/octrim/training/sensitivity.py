"""Sensitivity analysis: the accuracy that a network loses when one group of coupled channels is cut (Li et al. 2017, section 3.2), or when one block
or detection level is dropped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork, decode, paddle
from octrim.data.dataset import Dataset
from octrim.data.digests import data_digest, digest_with_places
from octrim.errors import InputError, shown
from octrim.evaluate.batches import Batch, Planned, fixed_plan, rectangular_plan
from octrim.evaluate.metrics import coco_metrics, mean_ap
from octrim.evaluate.nms import non_max_suppression
from octrim.network.dropping import droppable, without_rows
from octrim.network.initialize import prior_logits
from octrim.network.model import Model
from octrim.network.options import image_size
from octrim.network.rows import Network
from octrim.pruning.importance import Criterion, channel_scores
from octrim.pruning.labels import ChannelLabels, Group, channel_labels
from octrim.targets.session import float_batch
from octrim.training.gradients import loss_side
from octrim.training.hyper import RECIPES, Hyperparameters
from octrim.training.labelled import drawn, in_network_classes, readable_batches
from octrim.training.loss import DetectionLoss
from octrim.training.partial_cuts import PartialOps, cut_consumers
from octrim.training.sensitivity_curves import FRACTIONS, Bypassed, GroupCurve, SensitivityCurves
from octrim.training.validate import batch_targets

_CONFIDENCE, _IOU, _MAX_DET = 0.001, 0.6, 300  # settings of suppression, those of `octrim val`


def sensitivity(
    model: Model,
    dataset: Dataset,
    metric: str = "map",
    criterion: str | Criterion = "signal",
    imgsz: int | Sequence[int] | None = None,
    batch: int = 16,
    pictures: int = 200,
    seed: int = 0,
    hyper: Hyperparameters = RECIPES["low"],
    known: SensitivityCurves | None = None,
    on_group: Callable[[SensitivityCurves], None] | None = None,
    progress: Callable[[int], None] | None = None,
    report: Callable[[str], None] | None = None,
    ranked_on: Dataset | None = None,
) -> SensitivityCurves:
    """Cut 10, 20, .. 90 % of each group's channels, the least important first, and measure the network, unrepaired and otherwise whole; then drop
    each block and each detection level by itself, as `octrim.network.dropping.droppable` finds them, and measure what is left.

    dataset: data set whose classes fit the network; at most `pictures` of it are used, drawn by `seed`. metric: `map`, mAP50-95 as `octrim val`
    measures it, or `loss`, the training loss per picture (box + objectness + class, weights of `hyper`). criterion: a name in
    `octrim.pruning.importance.CRITERIA` or a function like those (`taylor(batch_gradients(..))`). imgsz: picture size as for `evaluate`.
    known: curves of an earlier, stopped call with the same arguments, whose groups are not measured again. ranked_on: pictures on which a criterion
    given as a function was computed, so that `known` from other pictures is refused. on_group: called after the uncut network and after every group
    and block, with the curves so far. progress: called with the number of pictures just run, `pictures x (groups + blocks + 1)` in all. report:
    called with a line for each unreadable picture, which is left out of loss and mAP.
    Raises InputError for options out of range, classes that do not fit, no picture that can be read, `known` of other inputs, and a criterion as
    `octrim.pruning.importance.channel_scores` does.
    """
    if metric not in ("map", "loss"):
        raise InputError(f"metric is {shown(metric)}, expected map or loss")
    if batch < 1:
        raise InputError(f"batch is {batch}, expected 1 or more")
    size = image_size(imgsz, model.image_size, model.network.stride)
    dataset = drawn(in_network_classes(dataset, model.names)[0], pictures, seed)
    labels = channel_labels(model.network)
    scores = channel_scores(criterion, model, labels, seed)
    groups = [group for group in labels.groups if group.reason is None]
    blocks = droppable(model.network)
    measuring = Measuring(model, labels, dataset, metric, size, batch, hyper, progress or (lambda _: None), report or (lambda _: None))
    if known is None:
        found = SensitivityCurves(metric, measuring.baseline(), len(dataset), inputs_digest(model, dataset, ranked_on), ())
        if on_group is not None:
            on_group(found)
    else:
        check_inputs(known, model, dataset, ranked_on)
        if known.metric != metric or [curve.name for curve in known.groups] != [group.name for group in groups][: len(known.groups)]:
            raise InputError("the curves are of another metric or of other groups; begin a new run")
        found = known
        (progress or (lambda _: None))(len(dataset) * (1 + len(known.groups) + len(known.blocks)))
    for group in groups[len(found.groups) :]:
        order = group.labels[np.argsort(-scores[group.labels], kind="stable")]  # the order in which `plan` ranks channels
        kept = [len(group) - len(group) * round(10 * fraction) // 10 for fraction in FRACTIONS]
        cuts = sorted({count for count in kept if count < len(group)}, reverse=True)
        values = {len(group): found.baseline, **dict(zip(cuts, measuring.cut(group, [order[count:] for count in cuts]), strict=True))}
        curve = GroupCurve(group.name, group.convs, len(group), tuple(kept), tuple(values[count] for count in kept))
        found = found.with_group(curve)
        if on_group is not None:
            on_group(found)
    for name, gone in list(blocks.items())[len(found.blocks) :]:
        found = found.with_block(Bypassed(name, len(gone), measuring.without(gone)))
        if on_group is not None:
            on_group(found)
    return found


def inputs_digest(model: Model, dataset: Dataset, ranked_on: Dataset | None = None) -> str:
    """Digest of the network, of the pictures and labels on which it is measured, and of those by which its channels are ranked."""
    digest = hashlib.sha256(data_digest(dataset, ranked_on).encode())
    _add_network(digest, model)
    for path in (*dataset.paths, *(ranked_on.paths if ranked_on is not None else ())):
        with contextlib.suppress(OSError):  # an unreadable picture is reported when it is used
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return _WITH_CONTENTS + digest.hexdigest()


def check_inputs(known: SensitivityCurves, model: Model, dataset: Dataset, ranked_on: Dataset | None = None) -> None:
    """Raise InputError where curves were measured on other inputs, or with channels ranked by other pictures."""
    if known.digest.startswith(_WITH_CONTENTS):
        same = known.digest == inputs_digest(model, dataset, ranked_on)
    else:  # the digest of OcTrim 0.1 covers neither the pictures' contents nor the pictures by which channels were ranked
        before = hashlib.sha256(digest_with_places(dataset).encode())
        _add_network(before, model)
        same = known.digest == before.hexdigest()
    if not same:
        ranking = ", or the pictures that rank the channels," if ranked_on is not None else ""
        raise InputError(f"the network or the pictures{ranking} are not what they were when this run began; begin a new one")


_WITH_CONTENTS = "2:"  # prefix of digests that cover the pictures' contents


def _add_network(digest: Any, model: Model) -> None:
    digest.update(json.dumps(model.network.to_json(), sort_keys=True).encode())
    for name in sorted(model.tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(model.tensors[name]).tobytes())


class Measuring:
    """Measurement of one network on one set of pictures; its weights are changed in place and put back."""

    def __init__(
        self,
        model: Model,
        labels: ChannelLabels,
        dataset: Dataset,
        metric: str,
        size: tuple[int, int],
        batch: int,
        hyper: Hyperparameters,
        progress: Callable[[int], None],
        report: Callable[[str], None],
    ) -> None:
        self.model, self.labels, self.dataset, self.metric = model, labels, dataset, metric
        self.progress, self.report = progress, report
        self.network = PaddleNetwork(model)
        self.tensors = self.network.named_tensors()
        self.loss = DetectionLoss(model.network, hyper, loss_side(*size))
        square = size[0] == size[1]
        self.side = max(size)
        self.plan: list[Planned] = (
            rectangular_plan(dataset.sizes, size[0], batch, model.network.stride) if square else fixed_plan(len(dataset), *size, batch)
        )
        self.told: set[str] = set()
        # Detections of classes that the data set does not have do not count in mAP; they must not take the places of others either.
        classes = np.unique(dataset.labels[~dataset.crowd]).tolist()
        self.classes = classes if len(classes) < len(dataset.names) else None

    def baseline(self) -> float:
        value = self._measure([{}], set())[0]
        if self.metric == "map" and not value > 0:
            self.report("the uncut network finds nothing: its curves and keep-map say nothing; --metric loss does")
        return value

    def cut(self, group: Group, cuts: Sequence[np.ndarray]) -> list[float]:
        """The metric of the network with the group cut, for each array of cut labels in `cuts`."""
        if not cuts:
            self.progress(len(self.dataset))
            return []
        weights = [cut_consumers(self.model, self.labels, group, cut) for cut in cuts]
        return self._measure(weights, {row.name for row in self.model.network.convs if row.weight_name in weights[0]})

    def without(self, gone: Sequence[str]) -> float:
        """The metric of the network without the rows `gone`."""
        return self.of(without_rows(self.model, gone))

    def of(self, smaller: Model) -> float:
        """The metric of a network that was made from this one: rows may be missing, and channels.

        In the loss, which sums over the levels, a level that is gone answers what a level answers that has learnt nothing: without it, the loss of a
        network with fewer levels could only fall.
        """
        network = PaddleNetwork(smaller)
        whole = self.model.network
        levels = list(zip(whole.rows[-1].inputs, whole.strides, strict=True))
        there = smaller.network.rows[-1].inputs
        silent = {name: paddle.to_tensor(prior_logits(whole, stride).reshape(1, -1, 1, 1)) for name, stride in levels if name not in there}
        losses, pictures = 0.0, 0
        detections = [np.zeros((0, 6), np.float32)] * len(self.dataset)
        with paddle.no_grad():
            for batch in self._batches():
                images = paddle.to_tensor(float_batch(batch.images))
                heads = network(images)
                pictures += len(batch.pictures)
                if self.metric == "map":
                    self._detect(heads, batch, detections, smaller.network)
                    continue
                answered = dict(zip(there, heads, strict=True))
                for name, stride in levels:
                    if name in silent:
                        height, width = images.shape[2] // stride, images.shape[3] // stride
                        answered[name] = silent[name].expand([len(images), silent[name].shape[1], height, width])
                in_order = [answered[name] for name, _ in levels]
                losses += float(self.loss(in_order, batch_targets(self.dataset, batch)).parts.numpy().sum()) * len(batch.pictures)
        return losses / pictures if self.metric == "loss" else mean_ap(coco_metrics(self.dataset, detections, _MAX_DET)[0])[0]

    def _measure(self, weights: Sequence[dict[str, np.ndarray]], changed: set[str]) -> list[float]:
        losses, pictures = np.zeros(len(weights)), 0
        detections = [[np.zeros((0, 6), np.float32)] * len(self.dataset) for _ in weights]
        with paddle.no_grad():
            for batch in self._batches():
                images = paddle.to_tensor(float_batch(batch.images))
                targets = batch_targets(self.dataset, batch)
                ops = PartialOps(self.network, changed)
                for number, tensors in enumerate(weights):
                    self._assign(tensors)
                    heads = ops.run(images)
                    if self.metric == "loss":
                        losses[number] += float(self.loss(heads, targets).parts.numpy().sum()) * len(batch.pictures)
                    else:
                        self._detect(heads, batch, detections[number], self.model.network)
                self._assign({name: self.model.tensors[name] for name in weights[0]})
                pictures += len(batch.pictures)
        if not pictures:
            raise InputError(f"none of the {len(self.dataset)} pictures can be read: {next(iter(self.told), '')}")
        if self.metric == "loss":
            return (losses / pictures).tolist()
        return [mean_ap(coco_metrics(self.dataset, found, _MAX_DET)[0])[0] for found in detections]

    def _assign(self, tensors: dict[str, np.ndarray]) -> None:
        for name, value in tensors.items():
            self.tensors[name].set_value(value)

    def _batches(self) -> Iterator[Batch]:
        for batch in readable_batches(self.dataset, self.plan, self.side):
            for line in batch.failures:
                if line not in self.told:
                    self.told.add(line)
                    self.report(f"could not be read: {line}")
            if batch.pictures:
                yield batch
            self.progress(len(batch.pictures) + len(batch.failures))

    def _detect(self, heads: list[Any], batch: Batch, detections: list[np.ndarray], network: Network) -> None:
        predictions = decode(network, heads).numpy()
        for slot, picture, box in zip(batch.slots, batch.pictures, batch.boxes, strict=True):
            found = non_max_suppression(predictions[slot], _CONFIDENCE, _IOU, self.classes, max_det=_MAX_DET, multi_label=True)
            height, width = self.dataset.sizes[picture].tolist()
            found[:, :4] = box.to_picture(found[:, :4], height, width)
            detections[picture] = found
