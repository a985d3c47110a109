"""Sensitivity: zeroed weights against networks that are really cut, curves against independent measurements, killed runs, keep-maps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps
from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.cli import main
from octrim.data.digests import digest_with_places
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.evaluate.val import evaluate
from octrim.network.dropping import droppable, without_rows
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.pruning.cut import prune
from octrim.pruning.importance import CRITERIA
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, plan
from octrim.targets.opening import open_session
from octrim.training.hyper import Hyperparameters
from octrim.training.labelled import drawn
from octrim.training.loss import DetectionLoss
from octrim.training.partial_cuts import PartialOps, cut_consumers
from octrim.training.sensitivity import sensitivity
from octrim.training.sensitivity_curves import FRACTIONS, GroupCurve, SensitivityCurves, load_curves
from tests.networks import lively_model, lively_tensors, random_networks
from tests.pruning.test_criteria_checked import one_is
from tests.training.conftest import draw_shapes


def plan_without(model: Model, cut: np.ndarray) -> Plan:
    """The plan that leaves out these labels and no others."""
    labels = channel_labels(model.network)
    kept = {row.name: np.flatnonzero(~np.isin(labels.labels[row.name], cut)) for row in model.network.convs}
    return dataclasses.replace(plan(model, 1, 1, "l2", image_size=(64, 64)), kept=kept)


@pytest.mark.slow
@settings(max_examples=60)
@given(random_networks(), st.integers(0, 99), st.floats(0.05, 0.95))
def test_zeroed_consumers_compute_what_a_cut_network_does(network: Network, seed: int, share: float) -> None:
    """With every activation, also those that are not 0 at 0, and through residuals, pools, concats and depthwise convolutions."""
    model = lively_model(network, seed=4)
    labels = channel_labels(network)
    generator = np.random.default_rng(seed)
    groups = [group for group in labels.groups if group.reason is None and len(group) > 1]
    image = generator.random((1, 3, 64, 64))
    for group in groups:
        cut = generator.permutation(group.labels)[: min(max(int(len(group) * share), 1), len(group) - 1)]
        zeroed = dataclasses.replace(model, tensors={**model.tensors, **cut_consumers(model, labels, group, cut)})
        small = prune(model, plan_without(model, cut))
        expected = walk(small.network, NumpyOps(small, np.float64), image)
        for one, other in zip(walk(network, NumpyOps(zeroed, np.float64), image), expected, strict=True):
            assert np.abs(one - other).max() <= 1e-9 * max(1.0, float(np.abs(other).max()))


@pytest.mark.slow
@settings(max_examples=25)
@given(random_networks(), st.integers(0, 99))
def test_only_what_follows_from_a_change_is_run_again(network: Network, seed: int) -> None:
    model = lively_model(network, seed=4)
    labels = channel_labels(network)
    generator = np.random.default_rng(seed)
    images = paddle.to_tensor(generator.random((2, 3, 64, 64), np.float32))
    layer = PaddleNetwork(model)
    tensors = layer.named_tensors()
    for group in labels.groups:
        if group.reason is None and len(group) > 1:
            orders = [generator.permutation(group.labels) for _ in range(3)]
            weights = [cut_consumers(model, labels, group, order[1:]) for order in orders]
            changed = {row.name for row in network.convs if row.weight_name in weights[0]}
            with paddle.no_grad():
                ops = PartialOps(layer, changed)
                for cut in weights:
                    for name, value in cut.items():
                        tensors[name].set_value(value)
                    for one, other in zip(ops.run(images), walk(network, layer, images), strict=True):
                        np.testing.assert_array_equal(one.numpy(), other.numpy())
                assert not ops.first and set(ops.maps) <= ops.border
            for name in weights[0]:
                tensors[name].set_value(model.tensors[name])


TINY = Network(
    (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 12, 3, 2, 1, norm=True, activation="sigmoid"),
        Row("c", "conv", ("b",), 16, 3, 2, 1, norm=True, activation="silu"),
        Row("d", "conv", ("c",), 3, 1, norm=True, activation="silu"),
        Row("e", "conv", ("d",), 16, 3, 1, 1, norm=True, activation="hardswish"),
        Row("sum", "add", ("c", "e")),
        Row("f", "conv", ("sum",), 20, 1, norm=True, activation="silu"),
        Row("pool", "maxpool", ("f",), kernel=5, padding=2),
        Row("g", "conv", ("sum",), 16, 1, norm=True, activation="silu"),
        Row("both", "concat", ("pool", "g")),
        *(Row(f"h{index}", "conv", ("both" if index == 0 else f"h{index - 1}",), 11, 1, norm=True, activation="silu") for index in range(6)),
        Row("level", "conv", ("h5",), 21, bias=True),
        Row("detect", "detect", ("level",)),
    ),
    (((16.0, 16.0), (30.0, 30.0), (45.0, 45.0)),),
)


@pytest.fixture(scope="module")
def tiny() -> Model:
    return Model(TINY, lively_tensors(TINY, 2), ("square", "disc"), 96, ({"action": "made up"},))


@pytest.fixture(scope="module")
def tiny_weights(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    tiny.save(path)
    return path


@pytest.fixture(scope="module")
def lively(small_weights: Path) -> Model:
    small = load(small_weights)
    return dataclasses.replace(small, tensors=lively_tensors(small.network, 3), image_size=64)


@pytest.mark.slow
def test_losses_are_those_of_cut_networks(lively: Model, shapes: Path) -> None:
    dataset = open_dataset(shapes, "val")
    found = sensitivity(lively, dataset, "loss", "l2", 96, batch=4)
    assert [curve.name for curve in found.groups] == [group.name for group in channel_labels(lively.network).groups if group.reason is None]
    labels = channel_labels(lively.network)
    scores = CRITERIA["l2"](lively, labels, 0)
    # Six square pictures of 96 pixels, shown on 128 = 96 rounded up by the half stride that `octrim val` adds: 16 of grey around them.
    images = np.full((6, 128, 128, 3), 114, np.uint8)
    rows = []
    for index, path in enumerate(dataset.paths):
        images[index, 16:112, 16:112] = cv2.imread(path)[:, :, ::-1]
        boxes, names, _ = dataset.targets(index)
        boxes = (boxes + 16) / 128
        rows += [[index, label, *((box[:2] + box[2:]) / 2), *(box[2:] - box[:2])] for box, label in zip(boxes, names, strict=True)]
    targets = np.asarray(rows, np.float32)

    def loss(model: Model) -> float:
        total = 0.0
        network, criterion = PaddleNetwork(model), DetectionLoss(model.network, Hyperparameters(), 96)
        with paddle.no_grad():
            for first, last in ((0, 4), (4, 6)):  # means over a batch's boxes make the batches matter
                own = targets[(targets[:, 0] >= first) & (targets[:, 0] < last)] - np.asarray([first, 0, 0, 0, 0, 0], np.float32)
                heads = network(paddle.to_tensor((images[first:last].transpose(0, 3, 1, 2) / 255).astype(np.float32)))
                total += float(criterion(heads, own).total)
        return total / 6

    assert found.baseline == pytest.approx(loss(lively), rel=1e-4)
    by_name = {group.name: group for group in labels.groups}
    checked = 0
    for curve in found.groups[::9]:
        group = by_name[curve.name]
        assert curve.kept == tuple(len(group) - len(group) * tenths // 10 for tenths in range(1, 10))
        for place in (2, 8):
            cut = group.labels[np.argsort(scores[group.labels], kind="stable")[: len(group) - curve.kept[place]]]
            assert curve.values[place] == pytest.approx(loss(prune(lively, plan_without(lively, cut))), rel=1e-4)
            checked += 1
    assert checked >= 8
    assert all(curve.values[0] == found.baseline for curve in found.groups if curve.channels < 10)  # a tenth of them is no channel
    blocks = droppable(lively.network)
    assert [(block.name, block.rows) for block in found.blocks] == [(name, len(gone)) for name, gone in blocks.items()]
    values = {block.name: block.value for block in found.blocks}
    for name in ("model.2.m", "model.6.m.1", "model.8", "model.23.m"):
        assert values[name] == pytest.approx(loss(without_rows(lively, blocks[name])), rel=1e-4)
    # A level that has learnt nothing: 8 objects in a picture of 640 pixels, each class as likely, boxes like the anchors.
    level = {"model.24.m.2.weight": np.zeros_like(lively.tensors["model.24.m.2.weight"])}
    level["model.24.m.2.bias"] = np.tile([0, 0, 0, 0, np.log(8 / 20**2), *[np.log(0.6 / (2 - 0.99999))] * 2], 3).astype(np.float32)
    assert values["level 32"] == pytest.approx(loss(replace(lively, tensors={**lively.tensors, **level})), rel=1e-4)


@pytest.mark.slow
def test_map_is_that_of_cut_networks(tiny: Model, tmp_path: Path) -> None:
    dataset = open_dataset(draw_shapes(tmp_path / "shapes", {"val": 5}, seed=1), "val")
    found = sensitivity(tiny, dataset, "map", "l1", batch=3)

    def measured(model: Model) -> float:
        return evaluate(open_session(model, "paddle"), dataset, batch=3, bootstrap=0).map

    assert found.baseline == pytest.approx(measured(tiny), abs=1e-6) and found.baseline > 1e-4
    labels = channel_labels(TINY)
    scores = CRITERIA["l1"](tiny, labels, 0)
    for curve in found.groups:
        group = next(group for group in labels.groups if group.name == curve.name)
        cut = group.labels[np.argsort(scores[group.labels], kind="stable")[: len(group) - curve.kept[6]]]
        assert curve.values[6] == pytest.approx(measured(prune(tiny, plan_without(tiny, cut))), abs=2e-6)
    assert len({curve.values[6] for curve in found.groups}) > 6
    for block in found.blocks:
        assert block.value == pytest.approx(measured(without_rows(tiny, droppable(TINY)[block.name])), abs=2e-6)
    assert [block.name for block in found.blocks] == ["pool", "g", *(f"h{index}" for index in range(1, 6))]


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_told_and_left_out(tiny: Model, shapes: Path) -> None:
    dataset = open_dataset(shapes, "val")
    lines: list[str] = []
    without = sensitivity(tiny, dataset.subset([0, 1, 2, 3, 4]), "loss", "l1", 64, batch=6)
    Path(dataset.paths[5]).write_bytes(b"no picture")
    found = sensitivity(tiny, dataset, "loss", "l1", 64, batch=6, report=lines.append)
    assert found.baseline == without.baseline and found.groups == without.groups
    assert len(lines) == 1 and dataset.paths[5] in lines[0]
    with pytest.raises(InputError, match="criterion mine: gives nan"):
        sensitivity(tiny, dataset, "loss", one_is(np.nan), 64)
    for path in dataset.paths:
        Path(path).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 6 pictures can be read"):
        sensitivity(tiny, dataset, "loss", "l1", 64)


def curves_of(metric: str, baseline: float, **groups: tuple[tuple[str, ...], int, list[float]]) -> SensitivityCurves:
    found = SensitivityCurves(metric, baseline, 1, "", ())
    for name, (convs, channels, values) in groups.items():
        kept = tuple(channels - channels * tenths // 10 for tenths in range(1, 10))
        found = found.with_group(GroupCurve(name, convs, channels, kept, tuple(values)))
    return found


def test_keep_maps_by_hand() -> None:
    found = curves_of(
        "map",
        0.5,
        a=(("a",), 20, [0.5, 0.5, 0.48, 0.47, 0.4, 0.3, 0.2, 0.1, 0.0]),  # 30 % is within .02 (20 channels: 14 stay)
        b=(("b", "c"), 16, [0.47] * 9),  # nowhere
        d=(("d",), 16, [0.6] * 9),  # everywhere: 16 - 14 stay
        e=(("e",), 3, [0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]),  # 3 - 0, 0, 0, 1, ..
    )
    assert found.keep_map(0.02) == {"a": "7/10", "b": "1", "d": "1/8", "e": "1"}
    assert found.keep_map(0.02, align=8) == {"a": "4/5", "b": "1", "d": "1/2", "e": "1"}
    # of a loss, shares of what it was; not finite is too much
    found = curves_of("loss", 2.0, a=(("a",), 10, [2.0, 2.2, 2.2, 2.19, float("nan"), 2.2, 2.5, 3, 4]))
    assert found.keep_map(0.1) == {"a": "3/5"}  # not 2/5: beyond a cut that harms nothing counts
    assert found.keep_map(0.0) == {"a": "9/10"}


def test_groups_that_share_a_convolution_keep_the_same_fraction() -> None:
    good, bad = [0.5] * 9, [0.0] * 9
    found = curves_of("map", 0.5, **{"a": (("a",), 10, good), "a~1": (("a", "b"), 10, good), "b": (("b",), 20, bad), "c": (("c",), 10, good)})
    assert found.keep_map(0.02) == {"a": "1", "b": "1", "c": "1/10"}


@pytest.mark.slow
@settings(max_examples=60)
@given(random_networks(), st.integers(0, 99))
def test_plans_take_any_keep_map(network: Network, seed: int) -> None:
    model = lively_model(network, seed=4)
    generator = np.random.default_rng(seed)
    groups = [group for group in channel_labels(network).groups if group.reason is None]
    found = curves_of("map", 0.5, **{group.name: (group.convs, len(group), generator.choice([0.1, 0.5], 9).tolist()) for group in groups})
    if not groups:
        return
    for align in (1, 4):
        after = {group.name: group.after for group in plan(model, 1, align, "l2", keep_map=found.keep_map(0.1, align), image_size=(64, 64)).groups}
        for curve in found.groups:
            assert after[curve.name] >= min(found.channels_kept(curve, 0.1), curve.channels)
        if align == 1 and all(len(part) == 1 for part in found._sharing()):
            assert all(after[curve.name] == found.channels_kept(curve, 0.1) for curve in found.groups)


def command(weights: Path, shapes: Path, project: Path, *more: str) -> list[str]:
    common = ["--metric", "loss", "--imgsz", "64", "--batch", "1", "--pictures", "5", "--tolerance", "0.02", "--align", "1", "--name", "run"]
    return ["sensitivity", "--weights", str(weights), "--data", str(shapes), "--project", str(project), *common, *more]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_results(tiny_weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tiny_weights, shapes, tmp_path / "whole", "--criterion", "taylor")) == 0
    whole, run = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    assert {path.name for path in whole.iterdir()} == {"sensitivity.json", "keep-map.json", "sensitivity.png", "config.yaml", "log.txt"}
    process = subprocess.Popen([sys.executable, "-m", "octrim", *command(tiny_weights, shapes, tmp_path / "killed", "--criterion", "taylor")])
    deadline = time.monotonic() + 120
    while not ((run / "sensitivity.json").exists() and len(load_curves(run / "sensitivity.json").groups) >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    early = load_curves(run / "sensitivity.json")
    groups = sum(group.reason is None for group in channel_labels(load(tiny_weights).network).groups)
    assert 3 <= len(early.groups) < groups and not (run / "keep-map.json").exists()
    assert main(["sensitivity", "--resume", str(run)]) == 0
    for name in ("sensitivity.json", "keep-map.json", "sensitivity.png"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert f"resumed after {len(early.groups)} groups" in (run / "log.txt").read_text()
    content = json.loads((run / "sensitivity.json").read_text())
    assert (content["metric"], content["fractions"], len(content["groups"])) == ("loss", list(FRACTIONS), groups)
    assert all(len(group["values"]) == 9 for group in content["groups"])
    assert cv2.imread(str(run / "sensitivity.png")).shape[0] > 300
    # the keep-map is one that `octrim prune` takes, channel for channel
    keep_map = run / "keep-map.json"
    assert (
        main(["prune", "--weights", str(tiny_weights), "--keep-map", str(keep_map), "--align", "1", "--project", str(tmp_path), "--name", "cut"]) == 0
    )
    found = load_curves(run / "sensitivity.json")
    convs = {row.name: row.channels for row in load(tmp_path / "cut" / "model.safetensors").network.convs}
    fractions = json.loads(keep_map.read_text())
    for curve in found.groups:
        expected = curve.channels * Fraction(fractions[curve.name])
        assert expected == found.channels_kept(curve, 0.02) and all(convs[name] == expected for name in curve.convs)
    # other options, other data
    capsys.readouterr()
    assert main(["sensitivity", "--resume", str(run), "--pictures", "3"]) == 2
    assert "leave out --pictures" in capsys.readouterr().err
    # what ranks the channels: labels, and pictures of the same size
    for folder, change in (("labels", _other_label), ("images", _other_picture)):
        files = {path: path.read_bytes() for path in (shapes.parent / folder / "train").iterdir()}
        for path in files:
            change(path)
        assert main(["sensitivity", "--resume", str(run)]) == 2
        assert "the pictures that rank the channels, are not what they were" in capsys.readouterr().err
        for path, content in files.items():
            path.write_bytes(content)
    _note_digest_of_0_1(run / "sensitivity.json", load(tiny_weights), shapes)
    assert main(["sensitivity", "--resume", str(run)]) == 0
    (run / "sensitivity.json").write_bytes((whole / "sensitivity.json").read_bytes())
    # data that lie elsewhere
    moved = tmp_path / "moved"
    shapes.parent.rename(moved)
    assert main(["sensitivity", "--resume", str(run)]) == 2
    assert "give --data" in capsys.readouterr().err
    assert main(["sensitivity", "--resume", str(run), "--data", str(moved / "data.yaml")]) == 0
    moved.rename(shapes.parent)
    assert main(["sensitivity", "--resume", str(run), "--data", str(shapes)]) == 0
    picture = next((shapes.parent / "labels" / "val").iterdir())
    picture.write_text("0 0.5 0.5 0.25 0.25\n")
    lines = [line for line in (shapes.parent / "labels" / "val").glob("*.txt") if line != picture]
    for path in lines:
        path.write_text("1 0.5 0.5 0.25 0.25\n")
    assert main(["sensitivity", "--resume", str(run)]) == 2
    assert "not what they were when this run began" in capsys.readouterr().err


def _other_label(path: Path) -> None:
    path.write_text("0 0.5 0.5 0.25 0.25\n")


def _other_picture(path: Path) -> None:
    assert cv2.imwrite(str(path), 255 - cv2.imread(str(path)))


def _note_digest_of_0_1(path: Path, model: Model, data: Path) -> None:
    """Put the digest into the curves that OcTrim 0.1 would have noted: without the pictures' contents, and of the validation part only."""
    digest = hashlib.sha256(digest_with_places(drawn(open_dataset(data, "val"), 5, 0)).encode())
    digest.update(json.dumps(model.network.to_json(), sort_keys=True).encode())
    for name in sorted(model.tensors):
        digest.update(name.encode() + np.ascontiguousarray(model.tensors[name]).tobytes())
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": digest.hexdigest()}))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--pictures", "0"], "pictures is 0, expected 1 or more"),
        (["--batch", "0"], "--batch is 0, expected 1 to 65536"),
        (["--tolerance", "-1"], "tolerance is -1"),
        (["--split", "odd"], "odd"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_what_makes_no_sense(
    tiny_weights: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(command(tiny_weights, shapes, tmp_path / "runs", *more)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
