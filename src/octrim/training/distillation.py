"""Distillation: a student learns from a teacher besides the labels, from its boxes and scores and from its feature maps in front of Detect.

Outputs: Mehta and Ozturk, "Object detection at 200 frames per second" (2018): the teacher's boxes and classes are weighted by its objectness, so
that its predictions for background do not drown those for objects.
Features: FitNets (Romero et al., 2015): a 1x1 convolution, the adapter, maps the student's channels to the teacher's. Here the adapter is the best
one for the batch at hand, found by least squares, and not one that is trained along with the student: the student is never punished for an adapter
that lags behind, and no adapter has to be kept between steps. The gradient is exact all the same: at the optimum of the adapter, the derivative of
the loss by the adapter is zero. Where a batch has few cells and the student many channels (small pictures, the deepest level), the adapter fits that
batch better than the next one, and the loss underestimates the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import F, paddle
from octrim.errors import InputError, shown
from octrim.network.dropping import only_levels, without_rows
from octrim.network.model import Model
from octrim.options import TeacherPrecision
from octrim.training.hyper import Hyperparameters
from octrim.training.loss import Cells, anchors_in_cells, by_anchor, by_level, chosen, ciou, decoded, level_balance, loss_gains
from octrim.training.teacher import Teacher

# Cells where the teacher is less sure than this of an object say nothing about boxes and classes.
_LEAST_OBJECTNESS = 0.01

# The weight of background in the feature loss, where objects have their objectness.
_BACKGROUND = 0.05

_RIDGE = 1e-4  # regularization, relative to the mean square of the student's channels: dead channels must not make the system singular


class Distillation:
    """The loss of a student against its teacher, scaled like the loss against labels.

        distillation = Distillation(teacher, student, hyper, side=640, output_weight=1, feature_weight=1)
        distillation(images, heads, features).backward()

    teacher, student: models with the same classes, and levels of the same strides and anchors; the teacher may have more levels than the student,
    which then say nothing. side: side of the training pictures in pixels. precision: what the teacher computes in. Raises InputError where teacher
    and student do not fit together, and where the teacher cannot run in this precision here.
    """

    names = ("train/output_loss", "train/feature_loss")

    def __init__(
        self,
        teacher: Model,
        student: Model,
        hyper: Hyperparameters,
        side: int,
        output_weight: float,
        feature_weight: float,
        precision: TeacherPrecision = "fp32",
    ) -> None:
        places = check_teacher(teacher, student)
        # Whatever only the teacher's other levels need is not computed. The levels that stay keep their order among each other.
        taught = without_rows(teacher, only_levels(teacher.network, places))
        self.order = [sorted(places).index(place) for place in places]
        self.teacher = Teacher(taught, precision)
        network = student.network
        self.classes = network.classes
        self.anchors = anchors_in_cells(network)
        self.balance = level_balance(len(self.anchors))
        self.gains = loss_gains(network, hyper, side)
        self.output_weight, self.feature_weight = output_weight, feature_weight

    def __call__(self, images: Any, heads: Sequence[Any], features: Sequence[Any]) -> tuple[Any, Any]:
        """The loss, a scalar tensor, times the batch size; and its output and feature parts, not times the batch size, detached, float32 `[2]`.

        images: `[batch, 3, height, width]`, 0..1. heads, features: per level what the student's `with_features` returns for the images;
        features are not read when the feature weight is 0.
        """
        teacher_heads, teacher_features = self.teacher(images, features=bool(self.feature_weight))
        known = [by_anchor(teacher_heads[place], len(anchors)) for place, anchors in zip(self.order, self.anchors, strict=True)]
        output = feature = paddle.zeros([])
        if self.output_weight:
            for loss in self._output([by_anchor(head, len(anchors)) for head, anchors in zip(heads, self.anchors, strict=True)], known):
                output = output + loss
        if self.feature_weight:
            for level, place in enumerate(self.order):
                height, width = heads[level].shape[2:]
                objectness = F.sigmoid(known[level][:, :, 4]).max(axis=1).reshape([-1, height, width])
                feature = feature + feature_loss(features[level].astype("float32"), teacher_features[place], objectness.numpy()) / len(heads)
        output, feature = output * self.output_weight, feature * self.feature_weight
        return (output + feature) * images.shape[0], paddle.stack([output.detach(), feature.detach()])

    def _output(self, heads: Sequence[Any], known: Sequence[Any]) -> list[Any]:
        """Output loss of every level. heads, known: logits of student and teacher per level, as `by_anchor` gives them."""
        _, objectness_gain, _ = self.gains
        sizes = [int(np.prod(one.shape)) // one.shape[2] for one in heads]
        scores, teacher = (paddle.concat([one[:, :, 4].reshape([-1]) for one in logits]) for logits in (heads, known))
        sure = F.sigmoid(teacher)
        entropies = paddle.split(F.binary_cross_entropy_with_logits(scores, sure, reduction="none"), sizes)
        losses = [objectness_gain * balance * part.mean() for part, balance in zip(entropies, self.balance, strict=False)]
        cells = []
        for part, one in zip(np.split(sure.numpy(), np.cumsum(sizes)[:-1]), heads, strict=True):
            batch, anchors, _, size = one.shape
            cells.append(Cells(*np.nonzero(part.reshape(batch, anchors, size) > _LEAST_OBJECTNESS)))
        found, wanted = chosen(heads, cells), chosen(known, cells)
        if found is not None:
            for level, loss in zip([level for level, some in enumerate(cells) if len(some)], self._of_cells(found, wanted, cells), strict=True):
                losses[level] = losses[level] + loss
        return losses

    def _of_cells(self, found: Any, wanted: Any, cells: Sequence[Cells]) -> list[Any]:
        """Loss of boxes and classes of every level that has cells. found, wanted: logits of student and teacher, as `chosen` gives them."""
        box_gain, _, class_gain = self.gains
        weights = [weight / paddle.clip(weight.sum(), min=1.0) for weight in by_level(F.sigmoid(wanted[4]), cells)]
        sizes = np.concatenate([anchors[some.anchor] for anchors, some in zip(self.anchors, cells, strict=True)])
        missed = by_level(1 - ciou(decoded(found, sizes), decoded(wanted, sizes)), cells)
        losses = [box_gain * (part * weight).sum() for part, weight in zip(missed, weights, strict=True)]
        if self.classes > 1:
            entropy = F.binary_cross_entropy_with_logits(found[5:], F.sigmoid(wanted[5:]), reduction="none").mean(axis=0)
            for level, (part, weight) in enumerate(zip(by_level(entropy, cells), weights, strict=True)):
                losses[level] = losses[level] + class_gain * (part * weight).sum()
        return losses


def feature_loss(student: Any, teacher: Any, objectness: np.ndarray) -> Any:
    """Share, 0..1, of the variance of the teacher's map that the best 1x1 adapter cannot explain by the student's map; a scalar tensor.

    student: `[batch, channels, height, width]`; teacher: the same shape but for the channels; objectness: `[batch, height, width]`, 0..1, the weight
    of each cell, to which a small constant is added.
    """
    x, y = (one.transpose([0, 2, 3, 1]).reshape([-1, one.shape[1]]) for one in (student, teacher))
    weights = (objectness.reshape(-1, 1) + _BACKGROUND).astype(np.float32)
    weights /= weights.sum()
    known, wanted = x.detach().numpy(), y.numpy()
    mean, target = (weights * known).sum(0, dtype=np.float64), (weights * wanted).sum(0, dtype=np.float64)
    known, wanted = known - mean.astype(np.float32), wanted - target.astype(np.float32)
    weighted = weights * known
    squares, products = (weighted.T @ known).astype(np.float64), (weighted.T @ wanted).astype(np.float64)
    ridge = _RIDGE * max(np.trace(squares) / len(squares), np.finfo(np.float32).tiny)
    adapter = np.linalg.solve(squares + ridge * np.eye(len(squares)), products)
    total = max(float((weights * wanted**2).sum(dtype=np.float64)), np.finfo(np.float32).tiny)
    made = paddle.matmul(x, paddle.to_tensor(adapter.astype(np.float32))) + paddle.to_tensor((target - mean @ adapter).astype(np.float32))
    return (((made - y) ** 2).sum(axis=1) * paddle.to_tensor(weights[:, 0])).sum() / total


def check_teacher(teacher: Model, student: Model) -> list[int]:
    """For each level of the student, the place of the teacher's level with the same stride and anchors, counted from 0.

    Raises InputError where the outputs of teacher and student do not mean the same, as with other classes, anchors or strides.
    """
    if teacher.names != student.names:
        raise InputError(f"the teacher knows the classes {shown(teacher.names)}, the data has {shown(student.names)}: train it on this data first")
    places: list[int] = []
    for stride, anchors in zip(student.network.strides, student.network.anchors, strict=True):
        same = [place for place in range(len(teacher.network.strides)) if place not in places and _same_level(teacher, place, stride, anchors)]
        if not same:
            raise InputError(
                f"the teacher has strides {teacher.network.strides} and anchors {shown(teacher.network.anchors)}, the network to train "
                f"{student.network.strides} and {shown(student.network.anchors)}: each of its levels must be one of the teacher's"
            )
        places.append(same[0])
    return places


def _same_level(teacher: Model, place: int, stride: int, anchors: tuple[tuple[float, float], ...]) -> bool:
    """Whether the teacher's level at a place has this stride and these anchors."""
    own = teacher.network.anchors[place]
    return teacher.network.strides[place] == stride and len(own) == len(anchors) and np.allclose(own, anchors, rtol=1e-3)
