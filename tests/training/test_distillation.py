"""Distillation: the losses against NumPy written from their definitions, and whole fine-tunings with a teacher."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.cli import main
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.training.hyper import RECIPES
from tests.networks import lively_model, tiny_model, variant

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork  # noqa: E402
from octrim.training.distillation import Distillation, check_teacher, feature_loss  # noqa: E402

HYPER = RECIPES["low"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def entropy(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    probability = sigmoid(logits)
    return -(wanted * np.log(probability) + (1 - wanted) * np.log(1 - probability))


def iou_terms(a: np.ndarray, b: np.ndarray) -> float:
    """CIoU of two boxes (cx, cy, w, h), from the paper's formula."""
    (x1, y1, w1, h1), (x2, y2, w2, h2) = a, b
    wide = max(0, min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2))
    high = max(0, min(y1 + h1 / 2, y2 + h2 / 2) - max(y1 - h1 / 2, y2 - h2 / 2))
    iou = wide * high / (w1 * h1 + w2 * h2 - wide * high)
    across = max(x1 + w1 / 2, x2 + w2 / 2) - min(x1 - w1 / 2, x2 - w2 / 2)
    down = max(y1 + h1 / 2, y2 + h2 / 2) - min(y1 - h1 / 2, y2 - h2 / 2)
    v = 4 / np.pi**2 * (np.arctan(w2 / h2) - np.arctan(w1 / h1)) ** 2
    return iou - ((x1 - x2) ** 2 + (y1 - y2) ** 2) / (across**2 + down**2) - v * v / (v - iou + 1)


def expected_output_loss(heads: list[np.ndarray], known: list[np.ndarray], distillation: Distillation) -> float:
    """Cell by cell, in float64."""
    total = 0.0
    for level, (head, teacher) in enumerate(zip(heads, known, strict=True)):
        anchors = distillation.anchors[level]
        shape = (head.shape[0], len(anchors), 5 + distillation.classes, *head.shape[2:])
        head, teacher = head.reshape(shape).astype(np.float64), teacher.reshape(shape).astype(np.float64)
        box_gain, objectness_gain, class_gain = distillation.gains
        total += objectness_gain * distillation.balance[level] * entropy(head[:, :, 4], sigmoid(teacher[:, :, 4])).mean()
        boxes = classes = weights = 0.0
        for image in range(shape[0]):
            for anchor in range(shape[1]):
                for row in range(shape[3]):
                    for column in range(shape[4]):
                        s, t = head[image, anchor, :, row, column], teacher[image, anchor, :, row, column]
                        sure = sigmoid(t[4])
                        if sure > 0.01:
                            one, other = (np.concatenate([2 * sigmoid(v[:2]) - 0.5, (2 * sigmoid(v[2:4])) ** 2 * anchors[anchor]]) for v in (s, t))
                            boxes += sure * (1 - iou_terms(one, other))
                            classes += sure * entropy(s[5:], sigmoid(t[5:])).mean()
                            weights += sure
        total += (box_gain * boxes + class_gain * classes) / max(weights, 1)
    return total


def test_output_loss_is_its_definition() -> None:
    teacher, student = variant("yolov5n"), prune(variant("yolov5n"), plan(variant("yolov5n"), "1/4", 8))
    distillation = Distillation(teacher, student, HYPER, 64, output_weight=2.0, feature_weight=0.0)
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 3, 64, 64), np.float32))
    heads, features = PaddleNetwork(student).with_features(images)
    with paddle.no_grad():
        known = [head.numpy() for head in PaddleNetwork(teacher)(images)]
    loss, parts = distillation(images, heads, features)
    expected = 2 * expected_output_loss([head.numpy() for head in heads], known, distillation)
    assert float(parts[0]) == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(2 * expected, rel=1e-4)  # times the batch
    assert float(parts[1]) == 0


def calm(seed: int) -> Model:
    """Weights whose logits are of the size that trained networks have."""
    model = lively_model(variant("yolov5n").network, seed)
    return replace(model, tensors={name: tensor * np.float32(0.05 if ".24.m." in name else 1) for name, tensor in model.tensors.items()})


@pytest.mark.slow
def test_a_student_that_is_its_teacher_gets_no_gradient() -> None:
    teacher = calm(0)
    images = paddle.to_tensor(np.random.default_rng(0).random((1, 3, 64, 64), np.float32))
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        layer, worse = PaddleNetwork(teacher), PaddleNetwork(calm(9))
        norms = []
        for network in (layer, worse):
            heads, features = network.with_features(images)
            distillation = Distillation(teacher, teacher, replace(HYPER, box=0), 64, *weights)  # IoU has an edge where boxes are equal
            distillation(images, heads, features)[0].backward()
            norms.append(sum(float((p.grad**2).sum()) for p in network.parameters() if p.grad is not None) ** 0.5)
        assert norms[0] < 0.02 * norms[1]


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), few=st.integers(1, 6), many=st.integers(1, 12))
def test_feature_loss_is_the_share_that_weighted_least_squares_leaves(seed: int, few: int, many: int) -> None:
    generator = np.random.default_rng(seed)
    student = generator.normal(1, 2, (2, few, 8, 9)).astype(np.float32)
    teacher = (generator.normal(0, 1, (2, many, 8, 9)) + 0.5 * student[:, :1]).astype(np.float32)
    objectness = generator.random((2, 8, 9)).astype(np.float32) ** 4
    found = float(feature_loss(paddle.to_tensor(student), paddle.to_tensor(teacher), objectness))
    x = np.concatenate([np.moveaxis(student, 1, -1).reshape(-1, few), np.ones((144, 1))], axis=1).astype(np.float64)
    y, w = np.moveaxis(teacher, 1, -1).reshape(-1, many).astype(np.float64), objectness.reshape(-1, 1).astype(np.float64) + 0.05
    left = y - x @ np.linalg.lstsq(np.sqrt(w) * x, np.sqrt(w) * y, rcond=None)[0]
    mean = (w * y).sum(0) / w.sum()
    assert found == pytest.approx((w * left**2).sum() / (w * (y - mean) ** 2).sum(), abs=2e-3)


def test_feature_gradient_includes_what_the_adapter_does() -> None:
    """Against differences of the loss, whose adapter is found anew for each."""
    generator = np.random.default_rng(4)
    student = generator.normal(size=(1, 3, 4, 5)).astype(np.float32)
    teacher = paddle.to_tensor(generator.normal(size=(1, 7, 4, 5)).astype(np.float32))
    objectness = generator.random((1, 4, 5)).astype(np.float32)
    x = paddle.to_tensor(student, stop_gradient=False)
    feature_loss(x, teacher, objectness).backward()
    for place in [(0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 4)]:
        values = []
        for step in (-0.02, 0.02):
            moved = student.copy()
            moved[place] += step
            values.append(float(feature_loss(paddle.to_tensor(moved), teacher, objectness)))
        assert float(x.grad[place]) == pytest.approx((values[1] - values[0]) / 0.04, rel=0.02, abs=2e-5)


def test_channels_that_are_dead_or_alike_do_not_break_the_adapter() -> None:
    student = np.zeros((1, 4, 3, 3), np.float32)
    student[:, 1] = student[:, 2] = np.arange(9).reshape(3, 3)
    teacher = np.stack([np.arange(9).reshape(3, 3)] * 2)[None].astype(np.float32)
    assert float(feature_loss(paddle.to_tensor(student), paddle.to_tensor(teacher), np.ones((1, 3, 3), np.float32))) < 1e-3
    assert float(feature_loss(paddle.to_tensor(student * 0), paddle.to_tensor(teacher), np.ones((1, 3, 3), np.float32))) == pytest.approx(1)
    assert np.isfinite(float(feature_loss(paddle.to_tensor(student), paddle.to_tensor(teacher * 0), np.ones((1, 3, 3), np.float32))))


def test_teachers_that_do_not_fit() -> None:
    model = variant("yolov5n")
    with pytest.raises(InputError, match="the teacher knows the classes"):
        check_teacher(replace(model, names=("x", "y", "z")), model)
    with pytest.raises(InputError, match="the teacher has strides"):
        check_teacher(variant("yolov5n6"), model)


pytestmark = pytest.mark.usefixtures("unrendered")

COMMON = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "8", "--workers", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("distill", ["both", "output", "feature"])
def test_fine_tuning_resumes_and_keeps_the_anchors(shapes: Path, tiny_weights: Path, tmp_path: Path, distill: str) -> None:
    tiny_model(2.0, seed=1).save(tmp_path / "teacher.safetensors")
    command = ["finetune", "--weights", str(tiny_weights), "--teacher", str(tmp_path / "teacher.safetensors"), "--data", str(shapes)]
    command += ["--project", str(tmp_path), *COMMON, "--epochs", "2", "--distill", distill]
    assert main([*command, "--name", "run"]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open()))
    for name, part in (("train/output_loss", "output"), ("train/feature_loss", "feature")):
        assert (float(rows[0][name]) > 0) == (distill in ("both", part))
    model = load(tmp_path / "run" / "best.safetensors")
    assert model.network == load(tiny_weights).network  # anchors, too; and nothing of an adapter is left
    if distill == "both":
        assert main(["finetune", "--resume", str(tmp_path / "run")]) == 0
        assert "no --teacher" not in (tmp_path / "run" / "log.txt").read_text()
        (tmp_path / "teacher.safetensors").unlink()
        tiny_model(2.0, seed=2).save(tmp_path / "teacher.safetensors")
        assert main(["finetune", "--resume", str(tmp_path / "run")]) == 2


@pytest.mark.slow
def test_the_boxes_weight_is_a_factor_of_their_losses_alone(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """Against labels and teacher alike, in training and validation; a resumed run has it once. The steps are too small to change any loss."""
    teacher = tiny_model(2.0, seed=1)
    for name in teacher.network.heads:  # the teacher must see objects: elsewhere nothing is learnt of its boxes
        teacher.tensors[f"{name}.bias"].reshape(-1, 5 + teacher.network.classes)[:, 4] = 0
    teacher.save(tmp_path / "teacher.safetensors")
    (tmp_path / "still.yaml").write_text("lr0: 1.0e-9\nwarmup_epochs: 0\n")
    command = ["finetune", "--weights", str(tiny_weights), "--teacher", str(tmp_path / "teacher.safetensors"), "--data", str(shapes), *COMMON]
    command += ["--project", str(tmp_path), "--epochs", "2", "--hyp", str(tmp_path / "still.yaml")]

    def losses(weight: str) -> dict[str, np.ndarray]:
        assert main([*command, "--name", f"by{weight}", "--box-weight", weight]) == 0
        rows = list(csv.DictReader((tmp_path / f"by{weight}" / "results.csv").open()))
        return {name: np.asarray([float(row[name]) for row in rows]) for name in rows[0] if "_loss" in name}

    none, once, four = losses("0"), losses("1"), losses("4")
    for name, values in once.items():
        share = values - none[name]
        assert (share > 0).all() == (name in ("train/box_loss", "val/box_loss", "train/output_loss")), name
        np.testing.assert_allclose(four[name], none[name] + 4 * share, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(none["train/box_loss"], 0)


def test_refusals_leave_no_folder(shapes: Path, small_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh_model("yolov5n", names=("square", "dog"), classes=2).save(tmp_path / "other.safetensors")
    command = ["finetune", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), *COMMON]
    for options, told in [
        (["--teacher", str(tmp_path / "none.safetensors")], "no such file"),
        (["--teacher", str(tmp_path / "other.safetensors")], "train it on this data first"),
        (["--teacher", str(tmp_path / "other.safetensors"), "--feature-weight", "-1"], "--feature-weight is -1.0, expected 0 to 1000"),
        (["--teacher", str(tmp_path / "other.safetensors"), "--distill", "feature", "--feature-weight", "0"], "takes nothing from the teacher"),
        (["--distill", "both"], "--distill both needs --teacher"),
    ]:
        assert main([*command, *options]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_without_a_teacher_it_says_so(shapes: Path, small_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path), *COMMON]
    assert main([*command, "--epochs", "1", "--noval"]) == 0
    assert "no --teacher: learning from the labels alone" in capsys.readouterr().out


@pytest.mark.parametrize("levels", [(8, 16), (16, 32), (16,)])
def test_a_student_with_fewer_levels_learns_from_those_of_the_same_stride(levels: tuple[int, ...]) -> None:
    """Outputs cell by cell against the whole teacher's; feature maps against the loss of each level by itself."""
    teacher = variant("yolov5n")
    student = prune(teacher, plan(teacher, "1/4", 8, drop=["model.6.m.1"], levels=levels))
    places = [teacher.network.strides.index(stride) for stride in levels]
    assert check_teacher(teacher, student) == places
    distillation = Distillation(teacher, student, HYPER, 64, output_weight=2.0, feature_weight=0.5)
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 3, 64, 64), np.float32))
    heads, features = PaddleNetwork(student).with_features(images)
    with paddle.no_grad():
        known, maps = PaddleNetwork(teacher).with_features(images)
    parts = distillation(images, heads, features)[1]
    own = [known[place].numpy() for place in places]
    assert float(parts[0]) == pytest.approx(2 * expected_output_loss([head.numpy() for head in heads], own, distillation), rel=1e-4)
    assert [anchors.tolist() for anchors in distillation.anchors] == [
        (np.asarray(teacher.network.anchors[place], np.float32) / teacher.network.strides[place]).tolist() for place in places
    ]
    objectness = [sigmoid(head.reshape(2, 3, 8, *head.shape[2:])[:, :, 4]).max(1) for head in own]
    each = [float(feature_loss(one, maps[place], sure)) for one, place, sure in zip(features, places, objectness, strict=True)]
    assert float(parts[1]) == pytest.approx(0.5 * np.mean(each), rel=1e-3)
    with pytest.raises(InputError, match="each of its levels must be one of the teacher's"):
        check_teacher(student, teacher)


@pytest.mark.slow
def test_fine_tuning_drops_levels_and_blocks_of_the_student_only(shapes: Path, small_weights: Path, tmp_path: Path) -> None:
    """The teacher keeps all levels; channels go on the way, budgets are of the whole network, and a stopped run goes on to the same plan."""
    command = ["finetune", "--weights", str(small_weights), "--teacher", str(small_weights), "--data", str(shapes), "--distill", "both", *COMMON]
    dropping = ["--drop", "model.6.m.*", "model.13.m.0", "--levels", "8", "16", "--budget", "channels=0.5", "--align", "2", "--cut-epochs", "1"]
    assert main([*command, *dropping, "--epochs", "2", "--project", str(tmp_path), "--name", "run"]) == 0
    small, whole = load(tmp_path / "run/last.safetensors"), load(small_weights)
    assert small.network.strides == (8, 16)
    assert small.network.anchors == whole.network.anchors[:2]
    assert not any(row.name.startswith(("model.6.m.", "model.13.m.", "model.21", "model.23.")) for row in small.network.rows)
    content = json.loads((tmp_path / "run/plan.json").read_text())
    before, after = (network_cost(model.network, 64) for model in (whole, small))
    assert content["channels"] == {"before": before.channels, "after": after.channels}
    assert 0.4 * before.channels < after.channels <= 0.5 * before.channels
    assert content["dropped"]["shown"].startswith("level 32; ")
    assert content["convs"]["model.21"]["after"] == 0
    assert [step["action"] for step in small.lineage][-5:] == ["start", "drop", "prune", "merge", "finetune"]
    enough = ["--levels", "8", "--budget", "params=0.95", "--epochs", "1", "--project", str(tmp_path), "--name", "only"]  # dropping alone meets it
    assert main([*command, *enough]) == 0
    one = load(tmp_path / "only/last.safetensors").network
    assert one.strides == (8,)
    assert one.convs[:-1] == tuple(row for row in whole.network.convs if row.name in {other.name for other in one.convs})[:-1]
    assert "no channels are cut" in (tmp_path / "only/log.txt").read_text()
    assert not (tmp_path / "only/plan.json").exists()
