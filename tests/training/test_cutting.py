"""Cutting within a training: the curve by hand, scores and counts on the way to the goal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.rows import Network
from octrim.pruning.importance import CRITERIA, taylor
from octrim.pruning.labels import channel_labels
from octrim.training.hyper import RECIPES
from octrim.training.schedule import PUBLISHED, Averaging, Schedule, averaging
from octrim.training.vectors import unflattened
from tests.networks import lively_model, random_networks
from tests.training.cut_states import learner_of, simple_network, state_of

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.training.cutting import Cutting, GradualCut, count_at, whole_cut
from octrim.training.optimizer import MovingAverage, Weights
from octrim.training.taylor import TaylorScores

pytestmark = pytest.mark.usefixtures("unrendered")


def test_the_curve_by_hand() -> None:
    """16 channels to 2: at half of the curve an eighth of the 14 is left to go, 1.75; the first two groups round up from .382 and .764."""
    assert [count_at(0.5, 16, 2, group) for group in (0, 1)] == [2 + 2, 2 + 1]
    assert [count_at(0.2, 128, 16, 0), count_at(0.9, 128, 16, 0)] == [16 + 57, 16 + 0]  # 112 x .512 = 57.3, 112 x .001 = .1
    for group in range(50):
        assert count_at(0.0, 16, 2, group) == 16
        assert count_at(1.0, 16, 2, group) == 2
        counts = [count_at(share, 16, 2, group) for share in np.linspace(0, 1, 101)]
        assert counts == sorted(counts, reverse=True)


def test_groups_of_one_width_lose_their_first_channel_at_different_times() -> None:
    first = [next(share for share in range(10_000) if count_at(share / 10_000, 16, 2, group) < 16) for group in range(20)]
    assert len(set(first)) == 20


@pytest.mark.parametrize(("warmup", "start"), [(0.0, 0), (1.0, 100), (50.0, 300)])
def test_the_curve_begins_after_the_warm_up(warmup: float, start: int) -> None:
    """12 epochs of 100 batches; a warm-up that is longer than a quarter of them does not delay the cutting any more."""
    model = lively_model(simple_network())
    state = state_of(model)
    wanted = GradualCut(12, "1/2", align=1, criterion="signal")
    wanted.begin(model, state)
    cutting = Cutting(wanted, state, Schedule(replace(RECIPES["low"], warmup_epochs=warmup), epochs=20, batches=100, accumulate=1))
    assert cutting.share(start) == 0
    assert cutting.share(start + 1) == pytest.approx(1 / (1200 - start))
    assert cutting.share(1200) == cutting.share(1500) == 1


def test_the_average_reaches_back_a_twentieth_of_the_curve_while_channels_go() -> None:
    """8 epochs of 50 steps: 20 updates; and the number of updates that a cut leaves is the last one with at most that."""
    model = lively_model(simple_network())
    state, wanted = state_of(model), GradualCut(8, "1/2", align=1, criterion="signal")
    wanted.begin(model, state)
    schedule = Schedule(replace(RECIPES["low"], warmup_epochs=0.0), epochs=10, batches=100, accumulate=2)
    cutting, learner = Cutting(wanted, state, schedule), learner_of(state, "signal")
    assert cutting.window == 20
    learner.average = MovingAverage(state.arrays["average"], averaging(500))
    state.epoch, state.updates, learner.optimizer.steps = 4, 400, 400
    cutting.cut(state, learner)
    decays = [learner.average.averaging.at(state.updates + more) for more in (0, 1)]
    assert decays[0] <= 1 - 1 / 20 < decays[1]
    assert PUBLISHED.updates_within(20_000) is None
    assert Averaging(0.9, 10).updates_within(2) == 8  # .9 (1 - exp(-.8)) = .4956, (1 - exp(-.9)) = .534


def test_scores_are_those_of_the_criterion_taylor() -> None:
    """After one step the criterion's own; after several its mean square with weights that fall by the decay."""
    model = lively_model(simple_network())
    labels = channel_labels(model.network)
    weights = Weights(PaddleNetwork(model))
    running, generator = TaylorScores(model.network), np.random.default_rng(0)
    single = []
    for step in range(3):
        gradient = generator.standard_normal(weights.parameters.size).astype(np.float32)
        running.observe(weights, paddle.to_tensor(gradient))
        named = {name: gradient[where] for name, where in weights.parameters.slices.items()}
        single.append(taylor([named])(model, labels, 0) ** 2)
        wanted = sum(0.02 * 0.98 ** (step - index) * squares for index, squares in enumerate(single))
        for group in labels.groups:
            if group.reason is None:
                found = running.criterion(model, labels, 0)[group.labels]
                np.testing.assert_allclose(found, np.sqrt(wanted)[group.labels], rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    network=random_networks(),
    goal=st.sampled_from([{"keep": "1/4"}, {"keep": "5/8"}, {"budget": "channels=0.5"}, {"budget": "params=0.6"}, {"keep_map": {"stem": "1/2"}}]),
    align=st.sampled_from([1, 4, 8]),
    criterion=st.sampled_from(["taylor", "signal", "random"]),
    seed=st.integers(0, 9),
)
def test_counts_fall_to_the_goal(network: Network, goal: dict[str, Any], align: int, criterion: str, seed: int) -> None:
    """At every step of 40, counts only fall, and none below the goal; at the end they are the goal's, and what is noted as kept is what is left."""
    rows = tuple(replace(row, norm=True, bias=False) if row.op == "conv" and row.name not in network.heads else row for row in network.rows)
    model = lively_model(Network(rows, network.anchors), seed)
    state = state_of(model, seed)
    wanted = GradualCut(2, align=align, criterion=criterion, seed=seed, **goal)
    try:
        wanted.begin(model, state)
    except InputError:
        return  # a network that is too small to be cut so
    cutting = Cutting(wanted, state, Schedule(replace(RECIPES["low"], warmup_epochs=0.0), epochs=3, batches=20, accumulate=1))
    learner, sizes = learner_of(state, criterion), [network_cost(model.network, 64).channels]
    for step in range(1, 61):
        learner.optimizer.steps, state.epoch, state.batch = step, (step - 1) // 20, (step - 1) % 20 + 1
        if cutting.due(state, step):
            cutting.cut(state, learner)
        sizes.append(network_cost(state.network, 64).channels)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes[40:])) == 1
    labels, whole = channel_labels(state.network), {group.name: len(group) for group in channel_labels(model.network).groups}
    for group in labels.groups:
        count, width = len(group), whole.get(group.name, 1)
        assert count == width or (count % align == 0 and count >= align)
        if "keep" in goal and group.reason is None:
            exact = width * float(eval(goal["keep"]))  # noqa: S307 (a fraction of the table above)
            assert count == min(max(align * int(np.ceil(exact / align - 0.5)), align), width)
    if "budget" in goal:
        before, after = network_cost(model.network, model.image_size), network_cost(state.network, model.image_size)
        name, limit = ("channels", 0.5) if "channels" in goal["budget"] else ("parameters", 0.6)
        assert getattr(after, name) <= limit * getattr(before, name)
    for row in state.network.convs:
        kept = state.extra["cutting"]["kept"][row.name]
        assert len(kept) == row.channels
        np.testing.assert_array_equal(
            unflattened(state.network, state.arrays["values"])[row.weight_name].shape[0], len(set(kept)), err_msg="channels are kept once"
        )
        if row.norm:
            scale = model.tensors[f"{row.name}.bn.weight"][kept]
            np.testing.assert_array_equal(unflattened(state.network, state.arrays["values"])[f"{row.name}.bn.weight"], scale)


def test_frozen_convolutions_and_what_goes_with_them_stay_whole() -> None:
    model = lively_model(simple_network())
    state = state_of(model)
    wanted = GradualCut(1, "1/2", align=8, exclude=("model.9.*",)).sparing(model.network, ("1", "model.2.cv1.bn.weight"))
    assert wanted.exclude == ("model.9.*", "model.0", "model.2.cv1")
    wanted.begin(model, state)
    cutting, learner = Cutting(wanted, state, Schedule(RECIPES["low"], epochs=2, batches=10, accumulate=1)), learner_of(state, "taylor")
    state.batch = learner.optimizer.steps = 10
    cutting.cut(state, learner)
    counts, before = ({row.name: row.channels for row in network.convs} for network in (state.network, model.network))
    whole = {"model.0", "model.2.cv1", "model.2.m.0.cv2", *(name for name in before if name.startswith("model.9.") or name in model.network.heads)}
    assert {name for name, count in counts.items() if count == before[name]} == whole
    made = whole_cut(state)
    assert {group.name for group in made.groups if group.reason == "excluded"} == {"model.0", "model.2.cv1", "model.9.cv1", "model.9.cv2"}
    assert {name: len(kept) for name, kept in made.kept.items()} == counts
    assert all(0 < group.removed < 1 for group in made.groups if group.after < group.before)
    assert [step["action"] for step in state.lineage] == ["prune", "compensate"]


def test_every_criterion_is_known() -> None:
    assert GradualCut(1).criterion not in CRITERIA  # the training's own gradients
