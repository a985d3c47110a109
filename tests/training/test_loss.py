"""The loss and its gradient, by hand and in float64 NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from octrim.backends.paddle import paddle
from octrim.network.initialize import fresh_model
from octrim.training.hyper import Hyperparameters
from octrim.training.loss import DetectionLoss, ciou


def tensor(*rows: tuple[float, ...]) -> paddle.Tensor:
    return paddle.to_tensor(np.asarray(rows, np.float32), stop_gradient=False)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return ciou(tensor(a).unbind(1), tensor(b).unbind(1)).numpy().item()


def ciou_by_hand(a: np.ndarray, b: np.ndarray, alpha: float | None = None) -> tuple[float, float]:
    """CIoU and alpha in float64, straight from the paper; alpha is recomputed unless it is given."""
    x1, y1, w1, h1 = a
    x2, y2, w2, h2 = b
    across = max(min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2), 0)
    down = max(min(y1 + h1 / 2, y2 + h2 / 2) - max(y1 - h1 / 2, y2 - h2 / 2), 0)
    iou = across * down / (w1 * h1 + w2 * h2 - across * down)
    c2 = (max(x1 + w1 / 2, x2 + w2 / 2) - min(x1 - w1 / 2, x2 - w2 / 2)) ** 2 + (max(y1 + h1 / 2, y2 + h2 / 2) - min(y1 - h1 / 2, y2 - h2 / 2)) ** 2
    v = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    alpha = v / (v - iou + 1 + 1e-7) if alpha is None else alpha
    return iou - ((x1 - x2) ** 2 + (y1 - y2) ** 2) / c2 - alpha * v, alpha


def test_ciou_of_boxes_that_can_be_reckoned_in_the_head() -> None:
    assert overlap((1, 1, 2, 2), (1, 1, 2, 2)) == pytest.approx(1, abs=1e-6)
    # Squares of side 2, moved by 1: intersection 2, union 6; distance 1, diagonal of the 3 x 2 box around both sqrt(13).
    assert overlap((0, 0, 2, 2), (1, 0, 2, 2)) == pytest.approx(1 / 3 - 1 / 13, abs=1e-6)
    # Apart: 4 between the centres, box around both 6 x 2.
    assert overlap((0, 0, 2, 2), (4, 0, 2, 2)) == pytest.approx(-16 / 40, abs=1e-6)
    # One inside the other, same centre, aspects 1 and 4: IoU 1/4, v = 4/pi^2 (atan 4 - pi/4)^2.
    v = 4 / math.pi**2 * (math.atan(4) - math.pi / 4) ** 2
    assert overlap((0, 0, 1, 1), (0, 0, 4, 1)) == pytest.approx(0.25 - v * v / (v + 0.75), abs=1e-6)


def test_gradient_of_ciou_against_differences_with_alpha_held() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        a = np.concatenate([generator.uniform(0, 4, 2), generator.uniform(0.5, 4, 2)])
        b = np.concatenate([generator.uniform(0, 4, 2), generator.uniform(0.5, 4, 2)])
        found = tensor(a)
        ciou(found.unbind(1), tensor(b).unbind(1)).sum().backward()
        _, alpha = ciou_by_hand(a, b)
        steps = np.eye(4) * 1e-6
        wanted = [(ciou_by_hand(a + step, b, alpha)[0] - ciou_by_hand(a - step, b, alpha)[0]) / 2e-6 for step in steps]
        np.testing.assert_allclose(found.grad.numpy()[0], wanted, atol=2e-4)


def reference_loss(heads: list[np.ndarray], targets: np.ndarray, network, hyper: Hyperparameters, side: int) -> np.ndarray:
    """Box, objectness and class loss in float64, label after label."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def cross_entropy(x: np.ndarray, t: np.ndarray, weight: float) -> np.ndarray:
        return -(weight * t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x)))

    box = objectness = classes = 0.0
    balance = {3: (4, 1, 0.4), 4: (4, 1, 0.25, 0.06)}[len(heads)]
    for index, logits in enumerate(heads):
        anchors = np.asarray(network.anchors[index]) / network.strides[index]
        batch, _, height, width = logits.shape
        y = logits.astype(np.float64).reshape(batch, len(anchors), -1, height, width)
        wanted = np.zeros((batch, len(anchors), height, width))
        ious, entropies = [], []
        moves = [(0.0, 0.0), (-0.5, 0.0), (0.0, -0.5), (0.5, 0.0), (0.0, 0.5)]
        for move in moves:
            for number, anchor in enumerate(anchors):
                for image, label, *relative in targets.astype(np.float64):
                    centre, size = np.asarray(relative).reshape(2, 2) * (width, height)
                    if max(*(size / anchor), *(anchor / size)) >= hyper.anchor_t:
                        continue
                    axis = 0 if move[0] else 1
                    if any(move):
                        near = centre[axis] if move[axis] < 0 else (width, height)[axis] - centre[axis]
                        if not (near % 1 < 0.5 and near > 1):
                            continue
                    cell = np.clip((centre + move).astype(int), 0, (width - 1, height - 1))
                    values = y[int(image), number, :, cell[1], cell[0]]
                    found = np.concatenate([sigmoid(values[:2]) * 2 - 0.5, (sigmoid(values[2:4]) * 2) ** 2 * anchor])
                    iou = ciou_by_hand(found, np.concatenate([centre - cell, size]))[0]
                    ious.append(iou)
                    wanted[int(image), number, cell[1], cell[0]] = max(iou, 0)
                    truth = np.eye(network.classes)[int(label)]
                    entropies.append(cross_entropy(values[5:], truth, hyper.cls_pw))
        if ious:
            box += np.mean(1 - np.asarray(ious))
            classes += np.mean(entropies) if network.classes > 1 else 0
        objectness += balance[index] * cross_entropy(y[:, :, 4], wanted, hyper.obj_pw).mean()
    scale = 3 / len(heads)
    gains = (hyper.box * scale, hyper.obj * (side / 640) ** 2 * scale, hyper.cls * network.classes / 80 * scale)
    return np.asarray([box, objectness, classes]) * gains


@pytest.mark.parametrize(("cfg", "classes"), [("yolov5n", 3), ("yolov5n", 1), ("yolov5n6", 5)])
@pytest.mark.parametrize("hyper", [Hyperparameters(), Hyperparameters(cls_pw=2.0, obj_pw=0.5, anchor_t=3.0)])
def test_losses_against_float64(cfg: str, classes: int, hyper: Hyperparameters) -> None:
    network = fresh_model(cfg, classes=classes).network
    generator = np.random.default_rng(classes)
    side = 128
    heads = [generator.normal(0, 1, (2, 3 * (5 + classes), side // stride, side // stride)).astype(np.float32) for stride in network.strides]
    sizes = generator.uniform(0.05, 0.9, (12, 2))
    targets = np.column_stack([generator.integers(0, 2, 12), generator.integers(0, classes, 12), generator.uniform(0, 1, (12, 2)), sizes]).astype(
        np.float32
    )
    loss = DetectionLoss(network, hyper, side)
    found = loss([paddle.to_tensor(head) for head in heads], targets)
    wanted = reference_loss(heads, targets, network, hyper, side)
    np.testing.assert_allclose(found.parts.numpy(), wanted, rtol=2e-6, atol=1e-7)
    assert float(found.total) == pytest.approx(2 * wanted.sum(), rel=1e-5)


def test_without_labels_only_objectness_is_left() -> None:
    network = fresh_model("yolov5n", classes=2).network
    heads = [paddle.zeros([1, 21, 64 // stride, 64 // stride]) for stride in network.strides]
    found = DetectionLoss(network, Hyperparameters(), 64)(heads, np.zeros((0, 6), np.float32))
    # Logits of 0 cost log 2 everywhere; level weights 4 + 1 + .4.
    np.testing.assert_allclose(found.parts.numpy(), [0, 5.4 * math.log(2) * 0.01, 0], rtol=1e-6)


def test_label_smoothing_moves_the_class_targets() -> None:
    network = fresh_model("yolov5n", classes=2).network
    target = np.asarray([[0, 1, 0.5, 0.5, 0.2, 0.2]], np.float32)
    heads = [paddle.full([1, 21, 64 // stride, 64 // stride], 2.0) for stride in network.strides]
    found = DetectionLoss(network, Hyperparameters(label_smoothing=0.1), 64)(heads, target).parts.numpy()[2]
    right, wrong = math.log1p(math.exp(-2)), 2 + math.log1p(math.exp(-2))  # costs of the targets 1 and 0 at logit 2
    expected = np.mean([0.95 * right + 0.05 * wrong, 0.05 * right + 0.95 * wrong])
    assert found == pytest.approx(expected * 0.5 * 2 / 80, rel=1e-5)  # 12.8 pixels fit anchors of the first level alone


def test_focal_loss_weighs_easy_cells_down() -> None:
    network = fresh_model("yolov5n", classes=2).network
    heads = [paddle.full([1, 21, 64 // stride, 64 // stride], -2.0) for stride in network.strides]
    found = DetectionLoss(network, Hyperparameters(fl_gamma=1.5), 64)(heads, np.zeros((0, 6), np.float32)).parts.numpy()[1]
    probability = 1 / (1 + math.exp(2))
    assert found == pytest.approx(5.4 * 0.01 * 0.75 * probability**1.5 * -math.log(1 - probability), rel=1e-5)
