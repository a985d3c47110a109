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
from octrim.training.loss import ciou, level_balance
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
        self.hyper, self.classes = hyper, network.classes
        self.anchors = [np.asarray(level, np.float32) / stride for level, stride in zip(network.anchors, network.strides, strict=True)]
        levels = len(self.anchors)
        self.balance = level_balance(levels)
        self.gains = (hyper.box * 3 / levels, hyper.obj * (side / 640) ** 2 * 3 / levels, hyper.cls * self.classes / 80 * 3 / levels)
        self.output_weight, self.feature_weight = output_weight, feature_weight

    def __call__(self, images: Any, heads: Sequence[Any], features: Sequence[Any]) -> tuple[Any, Any]:
        """The loss, a scalar tensor, times the batch size; and its output and feature parts, not times the batch size, detached, float32 `[2]`.

        images: `[batch, 3, height, width]`, 0..1. heads, features: per level what the student's `with_features` returns for the images;
        features are not read when the feature weight is 0.
        """
        teacher_heads, teacher_features = self.teacher(images, features=bool(self.feature_weight))
        output = feature = paddle.zeros([])
        for level, (head, place) in enumerate(zip(heads, self.order, strict=True)):
            known = teacher_heads[place]
            if self.output_weight:
                output = output + self._output(head.astype("float32"), known, level)
            if self.feature_weight:
                objectness = F.sigmoid(known.reshape([known.shape[0], len(self.anchors[level]), -1, *known.shape[2:]])[:, :, 4]).max(axis=1)
                feature = feature + feature_loss(features[level].astype("float32"), teacher_features[place], objectness.numpy()) / len(heads)
        output, feature = output * self.output_weight, feature * self.feature_weight
        return (output + feature) * images.shape[0], paddle.stack([output.detach(), feature.detach()])

    def _output(self, head: Any, known: Any, level: int) -> Any:
        """Output loss of one level. head, known: logits of student and teacher, `[batch, anchors x (5 + classes), height, width]`."""
        batch, _, height, width = head.shape
        anchors, values, cells = self.anchors[level], 5 + self.classes, height * width
        shape = [batch, len(anchors), values, cells]
        head, known = head.reshape(shape), known.reshape(shape)
        sure = F.sigmoid(known[:, :, 4])
        box_gain, objectness_gain, class_gain = self.gains
        loss = objectness_gain * self.balance[level] * F.binary_cross_entropy_with_logits(head[:, :, 4], sure)
        image, anchor, cell = np.nonzero(sure.numpy() > _LEAST_OBJECTNESS)
        if not len(cell):
            return loss
        first = ((image * len(anchors) + anchor) * values) * cells + cell
        chosen = paddle.to_tensor((first[:, None] + np.arange(values) * cells).reshape(-1))
        found, wanted = (paddle.gather(logits.reshape([-1]), chosen).reshape([-1, values]) for logits in (head, known))
        weight = F.sigmoid(wanted[:, 4])
        weight = weight / paddle.clip(weight.sum(), min=1.0)
        sizes = paddle.to_tensor(anchors[anchor])
        boxes = [paddle.concat([F.sigmoid(one[:, :2]) * 2 - 0.5, (F.sigmoid(one[:, 2:4]) * 2) ** 2 * sizes], axis=1) for one in (found, wanted)]
        loss = loss + box_gain * ((1 - ciou(*boxes)) * weight).sum()
        if self.classes > 1:
            entropy = F.binary_cross_entropy_with_logits(found[:, 5:], F.sigmoid(wanted[:, 5:]), reduction="none")
            loss = loss + class_gain * (entropy.mean(axis=1) * weight).sum()
        return loss


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
