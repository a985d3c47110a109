"""Global budgets, and the criteria that need more than one convolution."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.layout import VARIANTS
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.importance import CRITERIA, taylor
from octrim.pruning.labels import channel_labels
from octrim.pruning.moments import activation_moments
from octrim.pruning.plan import Plan, cut_network, plan
from tests.networks import lively_model, random_networks, variant
from tests.pruning.test_prune import COUPLED

MEASURES = {"channels": "channels", "params": "parameters", "macs": "macs"}


def check_budget(model: Model, made: Plan, what: str, fraction: str, align: int, scores: np.ndarray) -> None:
    """At or below the budget, and with any group's last step back it is exceeded; everything counted anew, from the plan's channels."""
    network, labels = model.network, channel_labels(model.network)
    size = (made.before.height, made.before.width)
    limit = Fraction(fraction) * getattr(network_cost(network, *size), MEASURES[what])
    assert getattr(network_cost(prune(model, made).network, *size), MEASURES[what]) <= limit
    kept = np.zeros(labels.count, bool)
    for row in network.convs:
        kept[labels.labels[row.name][made.kept[row.name]]] = True
    for group, planned in zip(labels.groups, made.groups, strict=True):
        count = int(kept[group.labels].sum())
        assert count == planned.after == (planned.before if planned.reason else planned.after)
        assert planned.after == planned.before or planned.after % align == 0
        if count == len(group):
            continue
        # the labels that went are the least important of their group
        assert scores[group.labels[kept[group.labels]]].min() >= scores[group.labels[~kept[group.labels]]].max()
        order = group.labels[np.argsort(-scores[group.labels], kind="stable")]
        restored = kept.copy()
        restored[order[count : count + align]] = True
        channels = {row.name: np.flatnonzero(restored[labels.labels[row.name]]) for row in network.convs}
        assert getattr(network_cost(cut_network(network, labels, channels), *size), MEASURES[what]) > limit


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VARIANTS if name[6] in "nsm"])
def test_budgets_on_variants(name: str) -> None:
    model = variant(name)

    @settings(max_examples=12)
    @given(
        st.sampled_from(sorted(MEASURES)), st.sampled_from(["0.3", "0.5", "0.8", "0.95", "1"]), st.sampled_from([1, 4, 8, 16]),
        st.sampled_from(["bn", "l2", "group-l2", "signal", "random"]),
    )  # fmt: skip
    def check(what: str, fraction: str, align: int, criterion: str) -> None:
        made = plan(model, align=align, criterion=criterion, budget=f"{what}={fraction}", seed=3)
        check_budget(model, made, what, fraction, align, CRITERIA[criterion](model, channel_labels(model.network), 3))

    check()


@pytest.mark.slow
@settings(max_examples=60)
@given(random_networks(), st.sampled_from(sorted(MEASURES)), st.sampled_from(["0.5", "0.8"]), st.sampled_from([1, 2, 4]))
def test_budgets_on_random_networks(network: Network, what: str, fraction: str, align: int) -> None:
    model = lively_model(network, seed=2)
    try:
        made = plan(model, align=align, criterion="l2", budget=f"{what}={fraction}", image_size=(64, 64))
    except InputError as error:
        assert "the least possible is" in str(error)
        least = plan(model, align=align, criterion="l2", keep="1/1000", image_size=(64, 64))
        whole = network_cost(network, 64)
        assert getattr(least.after, MEASURES[what]) > Fraction(fraction) * getattr(whole, MEASURES[what])
        return
    check_budget(model, made, what, fraction, align, CRITERIA["l2"](model, channel_labels(network), 0))


def test_the_least_budget_is_told_and_can_be_met() -> None:
    model = variant("yolov5n")
    with pytest.raises(InputError, match=r"budget macs=0\.01 cannot be met: the least possible is macs=(0\.\d+)") as caught:
        plan(model, budget="macs=0.01")
    least = str(caught.value).split("macs=")[2].split()[0]
    made, possible = plan(model, budget=f"macs={least}"), plan(model, keep="1/1000").after.macs
    assert possible <= Fraction(least) * made.before.macs < possible + 1e-4 * made.before.macs  # rounded up to four digits
    assert possible <= made.after.macs <= Fraction(least) * made.before.macs


def test_a_budget_respects_keep_exclude_and_the_map() -> None:
    model = variant("yolov5n")
    made = plan(model, keep="1/2", budget="channels=0.7", exclude=["model.0"], keep_map={"model.9.*": "1/4"})
    after = {group.name: (group.before, group.after) for group in made.groups}
    assert after["model.0"] == (16, 16)
    assert after["model.9.cv1"] == (128, 32)
    assert all(count >= before // 2 for name, (before, count) in after.items() if not name.startswith("model.9."))
    assert made.after.channels <= 0.7 * made.before.channels


@pytest.mark.parametrize(("budget", "align", "least"), [("macs=0.08", 8, 16), ("macs=0.05", 4, 16), ("params=0.01", 3, 18), ("channels=0.1", 1, 16)])
def test_maps_that_detect_reads_keep_16_channels_where_the_budget_allows_it(budget: str, align: int, least: int) -> None:
    made = plan(variant("yolov5n"), align=align, budget=budget, image_size=(64, 64))
    after = {group.name: group.after for group in made.groups}
    read = ("model.17.cv3", "model.20.cv3", "model.23.cv3")
    assert min(after[name] for name in read) >= least > min(count for name, count in after.items() if name not in read)
    with pytest.raises(InputError, match="the least possible is") as caught:
        plan(variant("yolov5n"), align=align, budget=f"{budget.partition('=')[0]}=1/10000", image_size=(64, 64))
    there = str(caught.value).partition("the least possible is ")[2].split()[0]
    smallest = {group.name: group.after for group in plan(variant("yolov5n"), align=align, budget=there, image_size=(64, 64)).groups}
    assert [smallest[name] for name in read] == [align] * 3


@pytest.mark.parametrize("budget", ["speed=0.5", "macs", "macs=", "macs=0", "macs=2", "=0.5", "macs=0.5=1"])
def test_budgets_that_make_no_sense(budget: str) -> None:
    with pytest.raises(InputError, match="budget"):
        plan(variant("yolov5n"), budget=budget)


def test_damage_is_predicted() -> None:
    model = variant("yolov5n")
    cuts = [plan(model, budget=f"channels={share}", align=1, criterion="l2").removed for share in ("0.95", "0.8", "0.5")]
    assert 0 < cuts[0] < cuts[1] < cuts[2] < 1
    assert plan(model, keep=1).removed == 0
    # the least important twentieth holds less than a twentieth of the importance
    assert cuts[0] < 0.05


def by_hand() -> tuple[Model, np.ndarray]:
    """Labels: a0..a3 (coupled with b), c0..c3."""
    model = lively_model(COUPLED)
    labels = channel_labels(COUPLED)
    return model, np.concatenate([labels.groups[0].labels, labels.groups[1].labels])


def test_group_l2_by_hand() -> None:
    model, own = by_hand()
    square = {name: model.tensors[f"{name}.conv.weight"].astype(float)[:, :, 0, 0] ** 2 for name in "abc"}
    level = model.tensors["level.weight"].astype(float)[:, :, 0, 0] ** 2

    def relative(values: np.ndarray) -> np.ndarray:
        return values / values.mean()

    # the coupled channel: filters of a and b; read by b (which reads a) and by c (which reads the sum)
    first = (relative(square["a"].sum(1)) + relative(square["b"].sum(1)) + relative(square["b"].sum(0)) + relative(square["c"].sum(0))) / 4
    second = (relative(square["c"].sum(1)) + relative(level.sum(0))) / 2
    np.testing.assert_allclose(CRITERIA["group-l2"](model, channel_labels(COUPLED), 0)[own], np.sqrt(np.concatenate([first, second])))


def test_fpgm_by_hand() -> None:
    model, own = by_hand()
    tensors = dict(model.tensors)
    tensors["c.conv.weight"] = np.asarray([[0, 0, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 12]], np.float32)[:, :, None, None]
    scores = CRITERIA["fpgm"](Model(COUPLED, tensors, model.names), channel_labels(COUPLED), 0)[own][4:]
    # distances: to the two zeros 5 and 12, between them 13
    distances = np.asarray([17, 23, 17, 37.0])
    np.testing.assert_allclose(scores, distances[[0, 1, 2, 3]] / np.mean([17, 5 + 5 + 13, 17, 12 + 12 + 13]))


def test_scale_and_signal_by_hand() -> None:
    rows = (*COUPLED.rows[:1], Row("a", "conv", ("images",), 3, 1, norm=True, activation="silu"), Row("b", "conv", ("a",), 2, 1, norm=True))
    network = Network((*rows, Row("level", "conv", ("b",), 6, bias=True), COUPLED.rows[-1]), COUPLED.anchors)
    model = lively_model(network)
    labels = channel_labels(network)
    weight = model.tensors["b.conv.weight"].astype(float)[:, :, 0, 0]
    power = (weight**2 / (model.tensors["b.bn.running_var"].astype(float)[:, None] + 1e-3)).mean(0)
    gamma, beta = (model.tensors[f"a.bn.{part}"].astype(float) for part in ("weight", "bias"))
    own = labels.labels["a"]
    np.testing.assert_allclose(CRITERIA["scale"](model, labels, 0)[own], np.abs(gamma) * np.sqrt(power))
    variance = activation_moments(network.rows[1], beta, gamma)[1]
    np.testing.assert_allclose(CRITERIA["signal"](model, labels, 0)[own], np.sqrt(variance * power))
    # Detect has no batch norm: its outputs' variance follows from what it reads
    level = model.tensors["level.weight"].astype(float)[:, :, 0, 0] ** 2
    spread = model.tensors["b.bn.weight"].astype(float) ** 2
    expected = spread * (level / (level @ spread)[:, None]).mean(0)
    np.testing.assert_allclose(CRITERIA["signal"](model, labels, 0)[labels.labels["b"]] ** 2, expected, rtol=1e-6)


def test_taylor_by_hand() -> None:
    model, own = by_hand()
    tensors = dict(model.tensors)
    for name, gamma, beta in (("a", [1, 2, 3, 4], [0, 1, 0, 1]), ("b", [1, 1, 2, 2], [0, 0, 0, 1]), ("c", [2, 2, 2, 2], [1, 1, 1, 1])):
        tensors |= {f"{name}.bn.weight": np.asarray(gamma, np.float32), f"{name}.bn.bias": np.asarray(beta, np.float32)}
    model = Model(COUPLED, tensors, model.names)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    first = {"a.bn.weight": ones, "a.bn.bias": zeros, "b.bn.weight": -ones, "b.bn.bias": ones, "c.bn.weight": ones, "c.bn.bias": ones}
    second = {"a.bn.weight": zeros, "a.bn.bias": 2 * ones, "b.bn.weight": zeros, "b.bn.bias": zeros, "c.bn.weight": -ones, "c.bn.bias": -ones}
    # a and b are coupled. First batch: 1-1, 2-1, 3-2, 4-2+1; second: 2 beta of a. c: 2+1, then -(2+1): together they would cancel.
    coupled = np.sqrt((np.square([0, 1, 1, 3]) + np.square([0, 2, 0, 2])) / 2)
    scores = taylor([first, second])(model, channel_labels(COUPLED), 0)[own]
    np.testing.assert_allclose(scores, [*coupled, 3, 3, 3, 3])
    made = plan(model, "1/2", 1, taylor([first, second]))
    assert made.kept["a"].tolist() == made.kept["b"].tolist() == [1, 3]
    assert made.settings["criterion"] == "taylor" and prune(model, made).lineage[-1]["criterion"] == "taylor"
    # Of 18 channels (the heads keep 6), 14 may stay. What a and b lose counts twice, and their scores are 2.55, 1.58, 0.71 and 0: without the
    # last two they are thinner by 4.84 / 4.13 - 1 = 0.17, for 4 channels. c would be thinner by 12 / 9 - 1 = 0.33 for its first.
    made = plan(model, None, 1, taylor([first, second]), budget="channels=0.8")
    assert len(made.kept["a"]) == 2 and len(made.kept["c"]) == 4


def test_taylor_refuses() -> None:
    model, _ = by_hand()
    labels = channel_labels(COUPLED)
    with pytest.raises(InputError, match="one batch or more"):
        taylor([])
    with pytest.raises(InputError, match=r"a gradient \[4\] of a\.bn\.weight, found none"):
        taylor([{}])(model, labels, 0)
    with pytest.raises(InputError, match=r"found float\d+ \[3\]"):
        taylor([{"a.bn.weight": np.zeros(3)}])(model, labels, 0)
    with pytest.raises(InputError, match="needs gradients of the loss"):
        plan(model, criterion="taylor")


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_scores_do_not_depend_on_a_layers_scale(criterion: str) -> None:
    """Batch norm takes any factor out of the weights before it: what comes of the channel is the same, so must be its score."""
    model = lively_model(yolov5_network("yolov5n", 3))
    tensors = dict(model.tensors)
    tensors["model.5.conv.weight"] = tensors["model.5.conv.weight"] * 4
    tensors["model.5.bn.running_mean"] = tensors["model.5.bn.running_mean"] * 4
    tensors["model.5.bn.running_var"] = (tensors["model.5.bn.running_var"] + 1e-3) * 16 - np.float32(1e-3)
    labels = channel_labels(model.network)
    own = np.concatenate([group.labels for group in labels.groups if group.reason is None])
    before, after = (CRITERIA[criterion](one, labels, 0)[own] for one in (model, Model(model.network, tensors, model.names)))
    np.testing.assert_allclose(after, before, rtol=1e-4)
