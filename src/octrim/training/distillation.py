"""Learning from a teacher besides the labels: its boxes and scores, and its feature maps in front of Detect.

Outputs: Mehta and Ozturk, "Object detection at 200 frames per second" (2018): what the teacher says of boxes and classes counts as much as it is
sure that an object is there, so that its background does not drown them.
Features: FitNets (Romero et al., 2015): a 1x1 convolution, the adapter, maps the student's channels to the teacher's. Here it is the best one for the
batch at hand, found by least squares, instead of one that is trained along: the student is never punished for an adapter that lags behind, nothing
is kept between steps, and nothing is left to throw away. The gradient is exact all the same: at the optimum it does not depend on how the optimum
moves. Where a batch has few cells and the student many channels (small pictures, the deepest level) the adapter fits that batch better than the next,
and the loss asks for less than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from octrim.backends.paddle import F, PaddleNetwork, paddle
from octrim.errors import InputError, shown
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.training.hyper import Hyperparameters
from octrim.training.loss import ciou, level_balance

# Cells where the teacher is less sure than this of an object say nothing about boxes and classes.
_LEAST_OBJECTNESS = 0.01

# The weight of background in the feature loss, where objects have their objectness.
_BACKGROUND = 0.05

_RIDGE = 1e-4  # of the mean square of the student's channels: dead ones must not make the adapter singular


class Distillation:
    """The loss of a student against its teacher, in units of the loss against labels.

        distillation = Distillation(teacher, student, hyper, side=640, output_weight=1, feature_weight=1)
        distillation(images, heads, features).backward()

    teacher, student: models with the same classes, anchors and strides. side: of the training pictures in pixels.
    Raises InputError where they do not fit together.
    """

    names = ("train/output_loss", "train/feature_loss")

    def __init__(self, teacher: Model, student: Model, hyper: Hyperparameters, side: int, output_weight: float, feature_weight: float) -> None:
        check_teacher(teacher, student)
        self.teacher = PaddleNetwork(folded(teacher))
        for parameter in self.teacher.parameters():
            parameter.stop_gradient = True
        network = student.network
        self.hyper, self.classes = hyper, network.classes
        self.anchors = [np.asarray(level, np.float32) / stride for level, stride in zip(network.anchors, network.strides, strict=True)]
        levels = len(self.anchors)
        self.balance = level_balance(levels)
        self.gains = (hyper.box * 3 / levels, hyper.obj * (side / 640) ** 2 * 3 / levels, hyper.cls * self.classes / 80 * 3 / levels)
        self.output_weight, self.feature_weight = output_weight, feature_weight

    def __call__(self, images: Any, heads: Sequence[Any], features: Sequence[Any]) -> tuple[Any, Any]:
        """The loss, a scalar tensor times the batch size, and float32 `[2]`: its parts by output and feature, detached.

        images: `[batch, 3, height, width]`, 0..1. heads, features: per level what the student's `with_features` returns for them;
        without a feature weight, features are not looked at.
        """
        with paddle.no_grad():
            teacher_heads, teacher_features = self.teacher.with_features(images) if self.feature_weight else (self.teacher(images), [])
        output = feature = paddle.zeros([])
        for level, (head, known) in enumerate(zip(heads, teacher_heads, strict=True)):
            if self.output_weight:
                output = output + self._output(head.astype("float32"), known, level)
            if self.feature_weight:
                objectness = F.sigmoid(known.reshape([known.shape[0], len(self.anchors[level]), -1, *known.shape[2:]])[:, :, 4]).max(axis=1)
                feature = feature + feature_loss(features[level].astype("float32"), teacher_features[level], objectness.numpy()) / len(heads)
        output, feature = output * self.output_weight, feature * self.feature_weight
        return (output + feature) * images.shape[0], paddle.stack([output.detach(), feature.detach()])

    def _output(self, head: Any, known: Any, level: int) -> Any:
        """Of one level's logits `[batch, anchors x (5 + classes), height, width]`."""
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
    """What of the teacher's map the best 1x1 adapter cannot make of the student's: a share of its variance, 0..1, a scalar tensor.

    student: `[batch, channels, height, width]`; teacher: the same with other channels; objectness: `[batch, height, width]`, 0..1, how much a
    cell counts besides a small weight that all have.
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


def check_teacher(teacher: Model, student: Model) -> None:
    """Raises InputError where a teacher's outputs do not mean what the student's do."""
    if teacher.names != student.names:
        raise InputError(f"the teacher knows the classes {shown(teacher.names)}, the data has {shown(student.names)}: train it on this data first")
    shapes = [[len(level) for level in one.network.anchors] for one in (teacher, student)]
    if (
        teacher.network.strides != student.network.strides
        or shapes[0] != shapes[1]
        or not np.allclose(teacher.network.anchors, student.network.anchors, rtol=1e-3)
    ):
        raise InputError(
            f"the teacher has strides {teacher.network.strides} and anchors {shown(teacher.network.anchors)}, the network to train "
            f"{student.network.strides} and {shown(student.network.anchors)}: they must be the same"
        )
