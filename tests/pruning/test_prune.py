"""Plan and cut: the small network computes what the large one computes with its cut channels silenced."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.layout import VARIANTS
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.fractions import aligned_count, parse_fraction
from octrim.pruning.importance import CRITERIA
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, plan
from octrim.pruning.repair import compensated
from tests.networks import lively_model, random_networks, variant


class MaskedOps(NumpyOps):
    """The original network, with the outputs of cut channels set to 0. Knows only the plan's channels, nothing of labels."""

    def __init__(self, original: NumpyOps, made: Plan) -> None:
        self.weights = original.weights
        self.made = made

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        y = super().conv(row, x)
        masked = np.zeros_like(y)
        kept = self.made.kept[row.name]
        masked[:, kept] = y[:, kept]
        return masked


def check_cut(model: Model, made: Plan, side: int, align: int, original: NumpyOps | None = None) -> Model:
    """original: the model's operations, where they are at hand. Folding the batch norms of a large network takes longer than running it."""
    small = prune(model, made)
    image = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    expected = walk(model.network, MaskedOps(original or NumpyOps(model), made), image)
    found = walk(small.network, NumpyOps(small), image)
    for one, other in zip(expected, found, strict=True):
        scale = max(1.0, float(np.abs(one).max()))
        assert one.std() > 0.01  # a network that answers nothing would hide mistakes
        assert np.abs(one - other).max() <= 1e-4 * scale
    heads = model.network.heads
    for before, after in zip(model.network.convs, small.network.convs, strict=True):
        assert after.channels == len(made.kept[before.name])
        if before.name in heads:
            assert after.channels == before.channels
    for group in made.groups:
        assert group.after == group.before or (group.after % align == 0 and align <= group.after < group.before)
    cost = network_cost(small.network, made.after.height)
    assert (cost.parameters, cost.macs, cost.channels) == (made.after.parameters, made.after.macs, made.after.channels)
    return small


# Large variants cost seconds per example, and the more the larger the picture; which channels are cut does not depend on its size.
EXAMPLES = {"n": 25, "s": 12, "m": 6, "l": 3, "x": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_cut_equals_masked_on_every_variant(name: str) -> None:
    model = variant(name)
    original = NumpyOps(model)
    convs = [row.name for row in model.network.convs]

    @settings(max_examples=EXAMPLES[name[6]])
    @given(
        keep=st.sampled_from(["1/8", "1/4", "1/2", "0.3", "0.9"]),
        align=st.sampled_from([1, 4, 8, 16]),
        criterion=st.sampled_from(sorted(CRITERIA)),
        exclude=st.lists(st.sampled_from(convs), max_size=3, unique=True),
        seed=st.integers(0, 99),
    )
    def check(keep: str, align: int, criterion: str, exclude: list[str], seed: int) -> None:
        made = plan(model, keep, align, criterion, exclude, seed=seed)
        check_cut(model, made, 128 if name in ("yolov5n6", "yolov5s6") else 64, align, original)
        kept = {group.name for group in made.groups if group.after == group.before}
        for excluded in exclude:
            group = next(group for group in made.groups if excluded in group.convs)
            assert group.name in kept
            assert group.reason
        for group in made.groups:
            if group.reason is None:
                assert group.after == min(group.before, max(align, int(group.before * Fraction(keep)) // align * align))

    check()


@pytest.mark.slow
@settings(max_examples=100)
@given(random_networks(), st.sampled_from(["1/8", "1/2", "0.7"]), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["l1", "l2", "random"]))
def test_cut_equals_masked_on_random_networks(network: Network, keep: str, align: int, criterion: str) -> None:
    """Concats of a map with itself, residuals over concats, depthwise and grouped convolutions, several couplings at once."""
    model = lively_model(network, seed=4)
    small = prune(model, plan(model, keep, align, criterion, image_size=(64, 64)))
    made = plan(model, keep, align, criterion, image_size=(64, 64))
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    for one, other in zip(walk(network, MaskedOps(NumpyOps(model), made), image), walk(small.network, NumpyOps(small), image), strict=True):
        assert np.abs(one - other).max() <= 1e-4 * max(1.0, float(np.abs(one).max()))
    for row in network.convs:
        if row.groups > 1 and row.groups != row.channels:
            assert len(made.kept[row.name]) == row.channels
            assert any(row.name in group.convs and group.reason and "groups" in group.reason for group in made.groups)


@settings(max_examples=60)
@given(random_networks(), st.sampled_from([1, 4, 8]), st.sampled_from(["l1", "group-l2", "random"]), st.integers(0, 99), st.floats(0, 1))
def test_keep_live_cuts_what_is_dead_and_nothing_else(network: Network, align: int, criterion: str, seed: int, share: float) -> None:
    """Channels are silenced label by label, in every convolution that makes them; what stays computes the same, whatever the criterion says."""
    model = lively_model(network, seed=4)
    labels, rng = channel_labels(network), np.random.default_rng(seed)
    dead = rng.random(labels.count) < share
    for row in network.convs:
        for part in ("weight", "bias") if row.norm else ():
            model.tensors[f"{row.name}.bn.{part}"][dead[labels.labels[row.name]]] = 0
    made = plan(model, "live", align, criterion, seed=seed, image_size=(64, 64))
    assert made.settings["keep"] == "live"
    for group, planned in zip(labels.groups, made.groups, strict=True):
        normed = all(row.norm for row in network.convs if row.name in group.convs)
        alive = int((~dead[group.labels]).sum()) if normed and group.reason is None else len(group)
        assert planned.after == min(max(-(-alive // align), 1) * align, len(group))
    small = compensated(model, made, prune(model, made))
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    for one, other in zip(walk(network, NumpyOps(model), image), walk(small.network, NumpyOps(small), image), strict=True):
        assert np.abs(one - other).max() <= 1e-4 * max(1.0, float(np.abs(one).max()))


def test_keep_one_changes_nothing() -> None:
    model = variant("yolov5n")
    for align in (1, 7, 16):
        made = plan(model, 1, align, "random")
        small = prune(model, made)
        assert small.network == model.network
        assert all(small.tensors[name].tobytes() == tensor.tobytes() for name, tensor in model.tensors.items())
        assert all(group.removed == 0 for group in made.groups)


@pytest.mark.slow
def test_an_eighth_of_l_is_an_eighth_everywhere() -> None:
    network = yolov5_network("yolov5l")
    made = plan(fresh_model("yolov5l"), "1/8", align=1)
    for row in network.convs:
        assert len(made.kept[row.name]) == (row.channels if row.name in network.heads else row.channels // 8)


def test_eight_of_n_for_three_classes_has_the_known_size() -> None:
    """Uniform widths 8, 8, 8, 16, 32, as Torch-Pruning with the same floor leaves them."""
    small = prune(fresh_model("yolov5n", classes=3), plan(fresh_model("yolov5n", classes=3), "1/8", 8))
    assert network_cost(small.network, 320).parameters == 34_280


def test_groups_of_v5s() -> None:
    """57 batch norms, 50 independent groups, 4 of them residual (published count)."""
    groups = channel_labels(yolov5_network("yolov5s")).groups
    prunable = [group for group in groups if group.reason is None]
    assert len(prunable) == 50
    assert sum(len(group.convs) for group in prunable) == 57
    assert [group.convs for group in prunable if len(group.convs) > 1] == [
        ("model.2.cv1", "model.2.m.0.cv2"),
        ("model.4.cv1", "model.4.m.0.cv2", "model.4.m.1.cv2"),
        ("model.6.cv1", "model.6.m.0.cv2", "model.6.m.1.cv2", "model.6.m.2.cv2"),
        ("model.8.cv1", "model.8.m.0.cv2"),
    ]
    assert sum(group.reason is not None for group in groups) == 3


COUPLED = Network(
    (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 4, 1, norm=True),
        Row("b", "conv", ("a",), 4, 1, norm=True),
        Row("sum", "add", ("a", "b")),
        Row("c", "conv", ("sum",), 4, 1, norm=True),
        Row("level", "conv", ("c",), 6, bias=True),
        Row("detect", "detect", ("level",)),
    ),
    (((8.0, 8.0),),),
)


def test_criteria_by_hand() -> None:
    model = lively_model(COUPLED)
    tensors = dict(model.tensors)
    tensors["a.bn.weight"] = np.asarray([3, 0, -1, 2], np.float32)
    tensors["b.bn.weight"] = np.asarray([4, 1, 1, -2], np.float32)
    tensors["a.conv.weight"] = np.asarray([[1, -2, 2], [3, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)[:, :, None, None]
    tensors["b.conv.weight"] = np.asarray([[1, 1, 1, 1], [0, 0, 0, 4], [2, 0, 0, 0], [0, 0, 0, 0]], np.float32)[:, :, None, None]
    model = Model(COUPLED, tensors, model.names)
    labels = channel_labels(COUPLED)
    group = labels.groups[0]
    assert group.convs == ("a", "b")

    def scores(criterion: str) -> np.ndarray:
        return CRITERIA[criterion](model, labels, 0)[group.labels]

    gamma = np.sqrt([12.5, 0.5, 1, 4])
    np.testing.assert_allclose(scores("bn"), gamma / gamma.mean())
    # L1 norms 5 3 0 3 (mean 11/4) and 4 4 2 0 (mean 10/4)
    np.testing.assert_allclose(scores("l1"), (np.asarray([5, 3, 0, 3]) / 2.75 + np.asarray([4, 4, 2, 0]) / 2.5) / 2)
    # L2 norms 3 3 0 sqrt3 and 2 4 2 0
    np.testing.assert_allclose(scores("l2"), (np.asarray([3, 3, 0, 3**0.5]) / ((6 + 3**0.5) / 4) + np.asarray([2, 4, 2, 0]) / 2) / 2)
    made = plan(model, "1/2", align=1, criterion="bn")
    assert made.kept["a"].tolist() == made.kept["b"].tolist() == [0, 3]
    assert made.groups[0].removed == pytest.approx((0.5**0.5 + 1) / (12.5**0.5 + 0.5**0.5 + 1 + 2))


def test_random_depends_on_the_seed_only() -> None:
    model = variant("yolov5n")
    one, two, other = (plan(model, "1/2", criterion="random", seed=seed).kept for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


SILU = {"norm": True, "activation": "silu"}
SHARED = Network(
    (
        Row("images", "image", channels=3),
        Row("p", "conv", ("images",), 16, 3, 4, 1, **SILU),
        Row("a", "conv", ("p",), 8, **SILU),
        Row("b", "conv", ("p",), 8, **SILU),
        Row("ab", "concat", ("a", "b")),
        Row("one", "add", ("p", "ab")),
        Row("c", "conv", ("one",), 6, **SILU),
        Row("d", "conv", ("one",), 10, **SILU),
        Row("cd", "concat", ("c", "d")),
        Row("two", "add", ("one", "cd")),
        Row("head", "conv", ("two",), 14, bias=True),
        Row("detect", "detect", ("head",)),
    ),
    (((16.0, 20.0), (36.0, 30.0)),),
)
"""Three groups of 6, 2 and 8 channels that share convolutions: p, a and c; p, a and d; p, b and d."""


@pytest.mark.parametrize("seed", range(6))
def test_the_keep_map_of_a_plan_makes_its_shape_where_groups_share_convolutions(seed: int) -> None:
    model = lively_model(SHARED)
    made = plan(model, align=1, criterion="random", seed=seed, budget="macs=0.5", image_size=(64, 64))
    assert [len(group.convs) for group in made.groups[:3]] == [3, 3, 3] and sum(group.before for group in made.groups[:3]) == 16
    keep_map = made.keep_map()
    assert set(keep_map) == {"p~0", "p~1", "p~2"}
    for nearest in (False, True):
        again = plan(model, 1, 1, keep_map=keep_map, image_size=(64, 64), nearest=nearest)
        assert [group.after for group in again.groups] == [group.after for group in made.groups]
    some = plan(model, align=1, criterion="random", seed=seed, image_size=(64, 64), keep_map={"*": "3/4"})
    smaller = prune(model, some)  # names are those of the network before any cut
    left = plan(smaller, 1, 1, keep_map=keep_map, image_size=(64, 64), original=SHARED)
    assert [group.after for group in left.groups] == [min(one.after, two.after) for one, two in zip(made.groups, some.groups, strict=True)]


@settings(max_examples=30)
@given(random_networks(), st.sampled_from([1, 4]))
def test_the_keep_map_of_a_plan_makes_its_shape(network: Network, align: int) -> None:
    model = lively_model(network)
    made = plan(model, "1/2", align, "random", image_size=(64, 64))
    assert plan(model, 1, align, "l2", keep_map=made.keep_map() or {"*": 1}, image_size=(64, 64)).network == made.network


def test_keep_map_and_exclude() -> None:
    model = variant("yolov5n")
    made = plan(model, "1/2", 8, exclude=["model.0", "model.23.*"], keep_map={"model.2": 1, "model.4.*": "1/4", "model.4.cv2": "0.75"})
    after = {name: len(kept) for name, kept in made.kept.items()}
    assert (after["model.0"], after["model.1"]) == (16, 16)
    assert (after["model.2.cv1"], after["model.2.cv3"]) == (16, 32)
    assert (after["model.4.cv1"], after["model.4.cv2"]) == (8, 24)
    assert after["model.23.cv3"] == 256
    assert next(group.reason for group in made.groups if group.name == "model.0") == "excluded by model.0"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keep": 0}, "keep is 0, expected more than 0 and at most 1"),
        ({"keep": 2}, "keep is 2"),
        ({"keep": "-1/8"}, "keep is -1/8"),
        ({"keep": "1/0"}, "keep is '1/0'"),
        ({"keep": "most"}, "keep is 'most'"),
        ({"keep": "nan"}, "keep is 'nan'"),
        ({"keep": "1e-99999999"}, "keep is '1e-99999999'"),
        ({"keep": [["x"] * 9] * 9}, "keep is"),
        ({"keep": np.ones(2)}, "keep is"),
        ({"seed": -1}, "seed is -1"),
        ({"align": 0}, "align is 0"),
        ({"align": -8}, "align is -8"),
        ({"align": 2.5}, "align is 2.5"),
        ({"criterion": "magic"}, "criterion 'magic' is unknown; known are bn, l1, l2, group-l2, fpgm, scale, signal, random"),
        ({"exclude": ["model.99"]}, "exclude: 'model.99' matches no convolution"),
        ({"keep_map": {"model.99": 1}}, "keep-map: 'model.99' matches no convolution"),
        ({"keep_map": {"model.0": 3}}, "keep-map: model.0 is 3"),
        ({"keep_map": {"model.2.cv1": 1, "model.2.m.0.cv2": 0.5}}, "model.2.cv1 and model.2.m.0.cv2 are coupled"),
        ({"keep_map": 3}, "keep-map is 3, expected a mapping"),
    ],
)
def test_plans_that_make_no_sense(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(variant("yolov5n"), **options)  # type: ignore[arg-type]
    assert told in str(caught.value)


def test_bn_needs_batch_norm() -> None:
    from octrim.network.folding import folded

    with pytest.raises(InputError, match=r"model\.0 has no batch norm, which this criterion needs"):
        plan(folded(variant("yolov5n")))
    assert plan(folded(variant("yolov5n")), criterion="l2").after.channels == 3 * 24 + sum(
        group.after * len(group.convs) for group in plan(variant("yolov5n")).groups if group.reason is None
    )


def test_plans_for_another_network_are_refused() -> None:
    made = plan(variant("yolov5n"))
    with pytest.raises(InputError, match="other convolutions"):
        prune(lively_model(COUPLED), made)
    model = lively_model(COUPLED)
    made = plan(model, "1/2", align=1)
    parted = {**made.kept, "b": np.asarray([0, 1, 2])}
    with pytest.raises(InputError, match="keeps a channel here that it cuts in a coupled convolution"):
        prune(model, replace(made, kept=parted))
    beyond = {**made.kept, "c": np.asarray([0, 9])}
    with pytest.raises(InputError, match="c: the plan keeps channels 0 to 9 of 4"):
        prune(model, replace(made, kept=beyond))


@given(st.integers(1, 4096), st.fractions(min_value=Fraction(1, 100), max_value=1), st.integers(1, 64))
def test_aligned_counts(channels: int, fraction: Fraction, align: int) -> None:
    count = aligned_count(channels, fraction, align)
    assert count == channels or (count % align == 0 and count >= align)
    assert count <= max(channels * fraction, align)
    if fraction < 1 and count < channels:
        assert count + align > channels * fraction


def test_fractions_are_exact() -> None:
    assert aligned_count(100, parse_fraction("0.29", "keep"), 1) == 29  # 100 * 0.29 is 28.999999999999996
    assert aligned_count(100, parse_fraction(0.29, "keep"), 1) == 29


def test_the_plan_as_json_and_text(real_weights) -> None:
    model = load(real_weights)
    made = plan(model, "1/2", 8, "bn")
    read = json.loads(json.dumps(made.to_json()))
    assert read["parameters"] == {"before": 1_872_157, "after": made.after.parameters}
    assert read["macs"]["before"] == 2_234_060_800
    assert read["convs"]["model.0"]["before"] == 16
    assert read["convs"]["model.0"]["kept"] == made.kept["model.0"].tolist()
    # the kept ones are those of the largest scale
    gamma = np.abs(model.tensors["model.0.bn.weight"])
    assert set(np.argsort(-gamma, kind="stable")[:8]) == set(made.kept["model.0"].tolist())
    text = made.text()
    assert "model.2.m.0.cv2" in text
    assert "1,872,157" in text
    assert "whole: Detect's outputs have a meaning" in text


def test_lineage_says_what_was_done() -> None:
    small = prune(variant("yolov5n"), plan(variant("yolov5n"), "1/4", 4, "l2"))
    assert small.lineage[-1]["action"] == "prune"
    assert (small.lineage[-1]["keep"], small.lineage[-1]["align"], small.lineage[-1]["criterion"]) == ("1/4", 4, "l2")
    assert small.lineage[:-1] == variant("yolov5n").lineage
