"""Plans that drop rows besides channels: cut, repaired, counted, and told."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps
from octrim.cli import main
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.dropping import droppable, rows_to_drop, without_rows
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import Plan, composed, plan
from tests.networks import lively_model, random_networks, variant

PATTERNS, LEVELS = ("model.2.m", "model.6.m.1", "model.8.m.*", "model.13.m"), (8, 16)


class MaskedBypassingOps(NumpyOps):
    """The whole network, in which dropped rows hand on the map in front of them, and cut channels emit 0."""

    def __init__(self, model: Model, made: Plan) -> None:
        super().__init__(model)
        self.made = made

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        if row.name not in self.made.kept:
            return x
        y = super().conv(row, x)
        y[:, np.setdiff1d(np.arange(row.channels), self.made.kept[row.name])] = 0
        return y

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a if row.name in self.made.dropped else a + b

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return xs[0] if row.name in self.made.dropped else super().concat(row, xs)

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x if row.name in self.made.dropped else super().maxpool(row, x)

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x if row.name in self.made.dropped else super().upsample(row, x)


@pytest.mark.parametrize("keep", ["1/2", "1"])
def test_rows_and_channels_go_together(keep: str) -> None:
    model = variant("yolov5n")
    made = plan(model, keep, 8, "l2", drop=PATTERNS, levels=LEVELS)
    small = prune(model, made)
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    expected = walk(model.network, MaskedBypassingOps(model, made), image)[:2]
    for one, other in zip(expected, walk(small.network, NumpyOps(small), image), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4 * max(1.0, float(np.abs(one).max())))
    assert small.network == made.network
    assert small.network.strides == (8, 16)
    whole, left = network_cost(model.network, 640), network_cost(small.network, 640)
    assert (made.before.macs, made.after.macs, made.after.parameters) == (whole.macs, left.macs, left.parameters)
    assert small.lineage[-1]["drop"] == list(PATTERNS)
    assert small.lineage[-1]["levels"] == list(LEVELS)
    assert all(group.after == group.before for group in made.groups) == (keep == "1")


@pytest.mark.slow
@settings(max_examples=80)
@given(random_networks(), st.sampled_from(["1/2", "1/4"]), st.sampled_from([1, 2, 4]), st.data())
def test_rows_and_channels_of_random_networks(network: Network, keep: str, align: int, data: st.DataObject) -> None:
    """Whatever can be dropped by itself, a block or a level, together with channels of what is left."""
    found = droppable(network)
    assume(found)
    name = data.draw(st.sampled_from(sorted(found)))
    stride = name.removeprefix("level ")
    levels = [int(one) for one in network.strides if f"{one}" != stride]
    dropping: dict[str, Any] = {"drop": [name]} if stride == name else {"levels": levels}
    model = lively_model(network, seed=4)
    made = plan(model, keep, align, "l2", image_size=(64, 64), **dropping)
    assert made.dropped == found[name]
    small = prune(model, made)
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    heads = zip(network.rows[-1].inputs, walk(network, MaskedBypassingOps(model, made), image), strict=True)
    expected = [head for level, head in heads if level in small.network.heads]
    for one, other in zip(expected, walk(small.network, NumpyOps(small), image), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4 * max(1.0, float(np.abs(one).max())))


def test_scores_are_those_of_the_network_without_the_rows() -> None:
    model = variant("yolov5n")
    left = without_rows(model, rows_to_drop(model.network, PATTERNS, LEVELS))
    made, same = plan(model, "1/2", 8, "signal", drop=PATTERNS, levels=LEVELS), plan(left, "1/2", 8, "signal")
    assert made.groups == same.groups
    assert all(np.array_equal(made.kept[name], same.kept[name]) for name in same.kept)


def test_what_a_plan_tells() -> None:
    made = plan(variant("yolov5n"), "1", drop=["model.8.m.*"], levels=LEVELS, image_size=(320, 320))
    content = json.loads(json.dumps(made.to_json()))
    assert content["dropped"]["shown"] == "level 32; 12 rows (model.8.m.*, model.21, model.22, model.23.*, model.24.m.2)"
    assert content["dropped"]["rows"][:3] == ["model.8.m.0.cv1", "model.8.m.0.cv2", "model.8.m.0.add"]
    assert content["convs"]["model.21"] == {"before": 128, "after": 0, "kept": []}
    assert content["convs"]["model.0"]["after"] == 16
    assert content["settings"]["levels"] == [8, 16]
    text = made.text()
    assert "dropped: level 32; 12 rows" in text
    assert re.search(r"model\.21 +│ +128 → 0 │ +│ +14\.7 → 0\.0 │ dropped", text)
    assert "dropped" not in plan(variant("yolov5n"), "1").to_json()


@pytest.mark.parametrize("budget", ["macs=0.5", "params=0.4", "channels=0.6"])
def test_budgets_are_of_the_whole_network(budget: str) -> None:
    model = variant("yolov5n")
    made = plan(model, None, 8, "l2", budget=budget, drop=PATTERNS, levels=LEVELS)
    what, _, share = budget.partition("=")
    name = {"macs": "macs", "params": "parameters", "channels": "channels"}[what]
    whole = getattr(network_cost(model.network, 640), name)
    assert 0.97 * float(share) * whole <= getattr(made.after, name) <= float(share) * whole


def test_a_budget_that_dropping_alone_meets_cuts_nothing() -> None:
    made = plan(variant("yolov5n"), None, 8, "l2", budget="params=0.9", levels=LEVELS)
    assert all(group.after == group.before for group in made.groups)


def test_the_second_of_two_steps_knows_what_the_first_dropped() -> None:
    """Fractions are of the whole network's groups, also of those that lost a coupled convolution with its bottleneck."""
    model = variant("yolov5n")
    dropping: dict[str, Any] = {"drop": PATTERNS, "levels": LEVELS}
    first = plan(model, "1/2", 8, "l2", **dropping)
    half = prune(model, first)
    second = plan(half, "1/4", 8, "l2", original=model.network, **dropping)
    assert second.dropped == ()
    both = composed(first, second)
    assert both.dropped == first.dropped
    at_once = plan(model, "1/4", 8, "l2", **dropping)
    assert {group.name: group.after for group in both.groups} == {group.name: group.after for group in at_once.groups}
    small = prune(half, second)
    assert prune(model, both).network == small.network
    assert both.before == network_cost(model.network, 640)


def test_a_plan_for_a_network_with_other_rows() -> None:
    made = plan(variant("yolov5n"), "1/2", levels=LEVELS)
    with pytest.raises(InputError, match="the plan was made for a network with other rows"):
        prune(prune(variant("yolov5n"), made), made)


class BeforeNorm(NumpyOps):
    """Keeps the mean and the variance of every convolution's output before its batch norm, by undoing the folding."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.model, self.moments = model, {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        from octrim.backends.numpy import convolution

        y = convolution(x, self.model.tensors[row.weight_name], row.stride, row.padding, row.groups).astype(np.float64)
        self.moments[row.name] = (y.mean((0, 2, 3)), y.var((0, 2, 3)))
        return super().conv(row, x)


@pytest.mark.slow
def test_recalibration_moves_statistics_by_what_the_dropped_rows_did() -> None:
    """In the small network on these pictures: mean as far from batch norm's as in the whole network, variance in the same proportion."""
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    from octrim.pruning.repair import recalibrated

    model = lively_model(yolov5_network("yolov5n", classes=3), seed=2)
    made = plan(model, "1/2", 8, "l2", drop=PATTERNS, levels=LEVELS)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    repaired = recalibrated(model, made, prune(model, made), pictures)
    images = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    whole, small = BeforeNorm(model), BeforeNorm(repaired)
    walk(model.network, whole, images)
    walk(repaired.network, small, images)
    for row in repaired.network.convs:
        if row.norm:
            kept = made.kept[row.name]
            before, after = ({part: one.tensors[f"{row.name}.bn.running_{part}"] for part in ("mean", "var")} for one in (model, repaired))
            spread = np.sqrt(whole.moments[row.name][1]).mean()
            np.testing.assert_allclose(
                small.moments[row.name][0] - after["mean"], whole.moments[row.name][0][kept] - before["mean"][kept], atol=1e-3 * spread
            )
            moved = (small.moments[row.name][1] + 1e-3) / (whole.moments[row.name][1][kept] + 1e-3)
            np.testing.assert_allclose(after["var"] / before["var"][kept], moved, rtol=1e-3)


@pytest.mark.slow
def test_reconstruction_brings_the_bypassed_network_nearer() -> None:
    pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    from octrim.pruning.repair import compensated, reconstructed

    model = lively_model(yolov5_network("yolov5n", classes=3), seed=2)
    made = plan(model, "1", drop=["model.2.m", "model.4.m.0"], levels=LEVELS)
    small = prune(model, made)
    assert compensated(model, made, small).tensors.keys() == small.tensors.keys()
    pictures = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    repaired = reconstructed(model, made, small, pictures)
    images = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    wanted = walk(model.network, NumpyOps(model), images)[:2]
    errors = [
        sum(float(((one - other) ** 2).mean()) for one, other in zip(wanted, walk(two.network, NumpyOps(two), images), strict=True))
        for two in (small, repaired)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_prune_drops_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh_model("yolov5n", classes=2).save(tmp_path / "whole.safetensors")
    command = ["prune", "--weights", str(tmp_path / "whole.safetensors"), "--project", str(tmp_path), "--name"]
    assert main([*command, "small", "--keep", "1", "--drop", "model.8.m.*", "model.9", "--levels", "8", "16"]) == 0
    small = load(tmp_path / "small/model.safetensors")
    assert small.network.strides == (8, 16)
    assert not any(row.name.startswith(("model.8.m.", "model.9.", "model.23.")) for row in small.network.rows)
    assert "dropped: level 32; 18 rows" in (tmp_path / "small/plan.txt").read_text()
    assert (tmp_path / "small/channels.png").stat().st_size > 1000
    assert main(["report", str(tmp_path / "small")]) == 0
    page = (tmp_path / "small/report.html").read_text()
    assert "Dropped as a whole: level 32; 18 rows (model.8.m.*, model.9.*, model.21," in page
    assert "<th>model.23.cv3</th><td>256</td><td>0</td>" in page
    for wrong, message in [
        (["--levels", "12"], "levels: no level has the stride 12; there are 8, 16, 32"),
        (["--levels", "0"], "--levels is 0, expected 1 to 1024"),
        (["--levels", "P5"], "--levels"),
        (["--drop", "model.3"], "drop: 'model.3' cannot go: model.4.cv1 reads model.3 (64 channels at stride 8)"),
        (["--drop", "model.24.*"], "an output of model.24; levels says which levels stay"),
        (["--drop", "nothing"], "drop: 'nothing' matches no row"),
        (["--levels", "8", "16", "--exclude", "model.23.*"], "exclude: 'model.23.*' matches no convolution"),
    ]:
        capsys.readouterr()
        assert main([*command, "wrong", *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "wrong").exists()
