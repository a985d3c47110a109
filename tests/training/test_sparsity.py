"""Sparsity: the proximal step against its definition, what a target promises, and whole trainings with it."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.cli import main
from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.cut import prune
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import read_maps
from octrim.pruning.plan import plan
from octrim.pruning.repair import compensated
from octrim.training.checkpoint import CHECKPOINT, State, load_state
from octrim.training.cut_state import cut_state
from octrim.training.vectors import unflattened
from tests.networks import lively_model, random_networks, tiny_model, variant

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork  # noqa: E402
from octrim.training.dying import CHOSEN, DyingChannels  # noqa: E402
from octrim.training.maps import map_moments  # noqa: E402
from octrim.training.optimizer import MovingAverage, Weights  # noqa: E402
from octrim.training.parallel import World  # noqa: E402
from octrim.training.sparsity import PenalisedChannels, Penalty, Sparsity  # noqa: E402


def weights_of(model: Model) -> Weights:
    return Weights(PaddleNetwork(model))


def sparsity_of(model: Model, penalty: Penalty, exclude: tuple[str, ...] = ()) -> tuple[Sparsity, Weights]:
    weights = weights_of(model)
    return Sparsity(weights, PenalisedChannels(model.network, exclude), penalty), weights


def scales(weights: Weights) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in weights.parameters.tensors.items() if name.endswith(".bn.weight")}


def coupled(network: Network) -> list[list[list[tuple[str, int]]]]:
    """By brute force: per group that may be cut and has batch norm, per label, the (convolution, channel) pairs that carry it."""
    labels = channel_labels(network)
    normed = {row.name for row in network.convs if row.norm}
    return [
        [[(name, int(place)) for name in group.convs for place in np.flatnonzero(labels.labels[name] == label)] for label in group.labels]
        for group in labels.groups
        if group.reason is None and normed.issuperset(group.convs)
    ]


@settings(max_examples=30)
@given(network=random_networks(), strength=st.floats(0.1, 300), pictures=st.integers(1, 128))
def test_the_step_is_the_proximal_operator(network: Network, strength: float, pictures: int) -> None:
    check_step(lively_model(network, seed=3), strength, pictures)


def test_a_convolution_may_have_channels_that_are_left_alone() -> None:
    """d's first channels go with a's, which have batch norm, and its last ones with b's, which have none."""
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 8, 4, 4, norm=True, activation="silu"),
        Row("b", "conv", ("images",), 8, 4, 4, bias=True, activation="silu"),
        Row("c", "concat", ("a", "b")),
        Row("d", "conv", ("c",), 16, norm=True, activation="silu"),
        Row("e", "add", ("c", "d")),
        Row("head", "conv", ("e",), 14, bias=True),
        Row("detect", "detect", ("head",)),
    )
    network = Network(rows, (((4.0, 5.0), (9.0, 7.0)),))
    assert len(coupled(network)) == 1
    check_step(lively_model(network, seed=3), 50, 64)


def check_step(model: Model, strength: float, pictures: int) -> None:
    """The penalised scales are what the proximal operator makes of them, and no other scale changes."""
    network = model.network
    try:
        sparsity, weights = sparsity_of(model, Penalty(strength, None, align=1))
    except InputError:
        assert not coupled(network)
        return
    before = scales(weights)
    sparsity.step(rate=0.01, pictures=pictures, share=0.5)
    after = scales(weights)
    threshold = 0.01 * strength * pictures / 64
    expected = {name: values.astype(np.float64) for name, values in before.items()}
    touched = {name: np.zeros(len(values), bool) for name, values in before.items()}
    for name, place in (pair for group in coupled(network) for channel in group for pair in channel):
        touched[f"{name}.bn.weight"][place] = True
    for name, places in touched.items():
        np.testing.assert_array_equal(after[name][~places], before[name][~places])
    dead = 0
    for channels in coupled(network):
        norms = [np.sqrt(sum(expected[f"{name}.bn.weight"][place] ** 2 for name, place in channel)) for channel in channels]
        largest = int(np.argmax(np.asarray(norms) / np.sqrt([len(channel) for channel in channels])))
        for index, (channel, norm) in enumerate(zip(channels, norms, strict=True)):
            factor = 1.0 if index == largest else max(0.0, 1 - threshold * np.sqrt(len(channel)) / norm)
            dead += factor == 0
            for name, place in channel:
                assert after[f"{name}.bn.weight"][place] == pytest.approx(factor * before[f"{name}.bn.weight"][place], rel=1e-5, abs=1e-6)
    assert sparsity.dead() * len(sparsity.penalised.group) == pytest.approx(dead)


@pytest.mark.slow
def test_a_strength_means_the_same_in_any_batch() -> None:
    model = variant("yolov5n")
    found = []
    for pictures in (1, 4, 16, 64):
        sparsity, weights = sparsity_of(model, Penalty(20.0, None))
        for _ in range(64 // pictures):
            sparsity.step(0.01, pictures, 0.5)
        found.append(np.concatenate(list(scales(weights).values())))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


class Scored:
    """A stand-in for `Learner`: a network, its weights and their average, and scores by label that a test sets."""

    world = World()

    def __init__(self, model: Model, seed: int = 0) -> None:
        self.network = PaddleNetwork(model)
        self.network.train()
        self.weights = Weights(self.network)
        self.average = MovingAverage(self.weights.values())
        self.optimizer = SimpleNamespace(steps=1)
        self.scores = np.random.default_rng(seed).random(channel_labels(model.network).count)
        self.taylor = self

    def of_labels(self) -> np.ndarray:
        return self.scores


def dying_of(model: Model, penalty: Penalty, pictures: Sequence[np.ndarray] = ()) -> tuple[DyingChannels, Scored]:
    learner: Any = Scored(model)
    return DyingChannels(learner, PenalisedChannels(model.network, penalty.exclude), penalty, pictures), learner


@pytest.mark.slow
@pytest.mark.parametrize(("scope", "target", "align"), [("network", "1/2", 8), ("network", "0.8", 4), ("group", "7/8", 8), ("group", "1/3", 1)])
def test_a_target_is_met_exactly_whatever_the_gradients_do(scope: str, target: str, align: int) -> None:
    """Those with the lowest scores die, in time, although an optimizer pulls all scales up; those that live are not touched."""
    model = variant("yolov5n")
    penalty = Penalty(None, Fraction(target), scope=scope, align=align)
    dying, learner = dying_of(model, penalty)
    weights, penalised = learner.weights, dying.penalised
    generator = np.random.default_rng(0)
    gamma = weights.groups[1]
    assert gamma.stop - gamma.start == sum(tensor.size for name, tensor in weights.parameters.tensors.items() if name.endswith(".bn.weight"))
    deaths = []
    for step in range(1, 41):
        values = weights.parameters.values().numpy()
        values[gamma] += np.float32(0.01) * generator.random(gamma.stop - gamma.start, np.float32)
        weights.parameters.assign(paddle.to_tensor(values))
        dying.step(0.01, 16, step / 40)
        after = weights.parameters.values().numpy()
        alone = np.ones(len(values), bool)
        for part in ("weight", "bias"):
            places = penalised.places_in(weights.parameters, part)[dying.gone[penalised.channel]]
            assert not after[places].any()
            alone[places] = False
        np.testing.assert_array_equal(after[alone], values[alone])
        deaths.append(dying.columns()["sparsity/dead"])
    counts, wanted = penalised.counts, penalised.dead_counts(penalty)
    dead = dying.norms() == 0
    np.testing.assert_array_equal(dead, dying.gone)
    per_group = np.bincount(penalised.group, weights=dead)
    scores = learner.scores[penalised.label]
    if scope == "group":
        np.testing.assert_array_equal(per_group, wanted)
        planned = plan(model, str(1 - Fraction(target)), align)
        by_name = {group.name: group.before - group.after for group in planned.groups if group.reason is None}
        assert per_group.tolist() == list(by_name.values())  # what a uniform cut takes
        for number in range(len(counts)):
            own = penalised.group == number
            assert scores[own & dead].max(initial=-1) < scores[own & ~dead].min()
    else:
        assert per_group.sum() == round(Fraction(target) * counts.sum())
        assert (counts - per_group >= np.minimum(align, counts)).all()
        roomy = (counts - per_group > np.minimum(align, counts))[penalised.group]  # groups that could have lost more
        assert scores[dead].max() < scores[roomy & ~dead].min()
    assert deaths == sorted(deaths) and 0 < deaths[0] < 0.25 * deaths[-1]
    assert deaths[-1] == deaths[int(40 * CHOSEN)] > deaths[int(40 * CHOSEN) - 4]  # and then it stays so
    silenced = dying.silence(np.ones(weights.parameters.size + weights.statistics.size, np.float32))
    assert (silenced == 0).sum() == 2 * dead[penalised.channel].sum()


@pytest.mark.parametrize(("warmup", "start"), [(0.0, 0.0), (0.1, 0.1), (0.5, CHOSEN / 4)])
def test_deaths_begin_after_the_warm_up(warmup: float, start: float) -> None:
    model = lively_model(fresh_model("yolov5n", classes=1).network, seed=1)
    learner: Any = Scored(model)
    dying = DyingChannels(learner, PenalisedChannels(model.network), Penalty(None, Fraction(1, 2), scope="group"), warmup=warmup)
    assert not len(dying._choice(start))
    assert len(dying._choice(start + 0.05))
    assert len(dying._choice(CHOSEN)) == sum(dying.wanted)


@pytest.mark.slow
@pytest.mark.parametrize("later", [False, True])
def test_dying_channels_are_merged_as_a_cut_merges_them(later: bool) -> None:
    """The network with dead channels computes, in training mode, what the one computes that is cut with the same moments; also at a second death."""
    model = lively_model(fresh_model("yolov5n", classes=1).network, seed=1)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    dying, learner = dying_of(model, Penalty(None, Fraction(1, 8), scope="group", align=1), [pictures])
    if later:
        dying.step(0.01, 1, 0.2)
    assert dying.gone.any() == later
    state = State(model.network, model.names, 64, (), "", {"values": learner.weights.values().numpy(), "average": learner.average.values.numpy()})
    gone = np.zeros(channel_labels(model.network).count, bool)
    chosen = dying._choice(1.0)
    gone[dying.penalised.label[chosen]] = True
    whole = gone.copy()
    whole[dying.penalised.label[dying.gone]] = True
    labels = channel_labels(model.network)
    maps = map_moments(cast(Any, learner), pictures, read_maps(model, gone), 1)
    dying.step(0.01, 1, 1.0)
    cut_state(state, whole, maps)
    images = paddle.to_tensor(np.random.default_rng(1).random((2, 3, 64, 64), np.float32))
    small = PaddleNetwork(Model(state.network, unflattened(state.network, state.arrays["values"]), state.names))
    small.train()
    with paddle.no_grad():
        for one, other in zip(learner.network(images), small(images), strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-3)
    kept = {row.name: np.flatnonzero(~whole[labels.labels[row.name]]) for row in model.network.convs}
    average, expected = (
        unflattened(network, vector)
        for network, vector in ((model.network, learner.average.values.numpy()), (state.network, state.arrays["average"]))
    )
    for row in model.network.convs:
        if row.norm:
            name = f"{row.name}.bn.running_mean"
            np.testing.assert_allclose(average[name][kept[row.name]], expected[name], rtol=1e-4, atol=1e-4)
            dead = np.setdiff1d(np.arange(row.channels), kept[row.name])
            assert not average[f"{row.name}.bn.weight"][dead].any() and not average[f"{row.name}.bn.bias"][dead].any()


def test_what_cannot_be_met_is_refused() -> None:
    network = variant("yolov5n").network
    with pytest.raises(InputError, match="at least 16 live ones per group at most"):
        PenalisedChannels(network).dead_counts(Penalty(None, Fraction(99, 100), align=16))
    with pytest.raises(InputError, match="no group of channels"):
        PenalisedChannels(network, ("model.*",))
    assert not {"model.0", "model.2.cv1"} & set(PenalisedChannels(network, ("model.0", "model.2")).convs)


COMMON = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "8", "--workers", "1"]


@pytest.mark.slow
def test_a_run_ends_with_dead_channels_that_cost_nothing_to_cut(shapes: Path, tmp_path: Path) -> None:
    tiny_model(4.0).save(tmp_path / "wide.safetensors")
    common = ["--weights", str(tmp_path / "wide.safetensors"), "--data", str(shapes), "--project", str(tmp_path), *COMMON]
    assert main(["sparsify", *common, "--epochs", "4", "--target", "1/2", "--scope", "group", "--name", "whole"]) == 0
    folder = tmp_path / "whole"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    dead = [float(row["sparsity/dead"]) for row in rows]
    assert dead[-1] == pytest.approx(0.5, abs=0.05) and dead == sorted(dead)
    assert {"scales.png", "best.safetensors"} <= {path.name for path in folder.iterdir()}
    model = load(folder / "best.safetensors")
    assert model.lineage[-1]["action"] == "sparsify" and model.lineage[-1]["epoch"] == 4
    # Both the raw weights and the average are zero there.
    state = load_state(folder / CHECKPOINT)
    for name, tensor in unflattened(state.network, state.arrays["values"]).items():
        if name.endswith(".bn.weight"):
            np.testing.assert_array_equal(tensor == 0, model.tensors[name] == 0)
            assert (tensor == 0).sum() >= (len(tensor) // 2 if len(tensor) > 8 else 0)
    made = plan(model, "1/2", 8, "bn")
    assert made.removed == 0
    told = (folder / "log.txt").read_text()
    assert "dead" in told and " s best" not in told
    command = told.split("next: octrim ")[1].splitlines()[0]
    assert main([*command.split(), "--project", str(tmp_path), "--name", "cut"]) == 0
    assert load(tmp_path / "cut" / "model.safetensors").network == made.network
    small = compensated(model, made, prune(model, made))
    images = paddle.to_tensor(np.random.default_rng(1).random((1, 3, 128, 128), np.float32))
    with paddle.no_grad():
        for one, other in zip(PaddleNetwork(model)(images), PaddleNetwork(small)(images), strict=True):
            # A dead channel emits SiLU(0), which is 0, so that zero padding at the border makes no difference either.
            assert float((one - other).abs().max()) < 1e-4

    killed = ["sparsify", *common, "--epochs", "4", "--target", "1/2", "--scope", "group", "--name", "killed"]
    process = subprocess.Popen([sys.executable, "-m", "octrim", *killed], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "3/4" in line:  # beyond the target
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main(["sparsify", "--resume", str(tmp_path / "killed")]) == 0
    for name in ("results.csv", "best.safetensors", "scales.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give either --strength"),
        (["--strength", "1", "--target", "0.5"], "give either --strength"),
        (["--strength", "-1"], "--strength is -1.0, expected 0 to 1000000"),
        (["--target", "1"], "target is 1, expected less than 1"),
        (["--target", "1.5"], "target is 1.5, expected more than 0"),
        (["--target", "0.99"], "at most"),
        (["--target", "0.5", "--strength-schedule", "linear"], "strength_schedule linear is for --strength"),
        (["--target", "0.5", "--exclude", "model.99"], "matches no convolution"),
    ],
)
def test_refusals(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str) -> None:
    assert main(["sparsify", "--cfg", "yolov5n", "--data", str(shapes), "--project", str(tmp_path / "runs"), *COMMON, *options]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
