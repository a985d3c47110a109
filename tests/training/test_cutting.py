"""Cutting within a training: the curve by hand, states cut against brute force, whole trainings that are stopped and go on."""

from __future__ import annotations

import os
import signal
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import activate, convolution
from octrim.cli import main
from octrim.data.dataset import Dataset
from octrim.data.loader import TrainingBatch
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Network
from octrim.pruning.cut import prune
from octrim.pruning.importance import CRITERIA, taylor
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import MapMoments, merged, read_maps
from octrim.pruning.plan import Plan, plan
from octrim.pruning.repair import compensated
from octrim.training.checkpoint import CHECKPOINT, State, flattened, kind_of, load_state, unflattened
from octrim.training.hyper import RECIPES
from octrim.training.record import Record
from octrim.training.schedule import PUBLISHED, Averaging, Schedule, averaging
from tests.networks import lively_model, lively_tensors, random_networks
from tests.training.conftest import COUNTS, draw_shapes

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.training.cut_state import cut_state
from octrim.training.cutting import Cutting, GradualCut, count_at, whole_cut
from octrim.training.learner import Learner
from octrim.training.maps import cut_pictures, map_moments
from octrim.training.optimizer import MovingAverage, Weights
from octrim.training.options import Finetuning
from octrim.training.parallel import World
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


def simple_network() -> Network:
    from octrim.network.yolov5 import yolov5_network

    return yolov5_network("yolov5n", classes=2)


def state_of(model: Model, seed: int = 0) -> State:
    """A training's state with the model's weights, another model's as their average, and random vectors."""
    generator = np.random.default_rng(seed)
    sizes = [0, 0, 0, 0]
    for name, shape in tensor_shapes(model.network).items():
        sizes[kind_of(name)] += int(np.prod(shape))
    average = lively_tensors(model.network, seed + 1)
    arrays = {"values": flattened(model.network, model.tensors), "average": flattened(model.network, average)}
    arrays |= {name: generator.random(sum(sizes[:3])).astype(np.float32) for name in ("gradient", "moment0", "moment1")}
    arrays["taylor"] = generator.random(sizes[1]).astype(np.float32)
    return State(model.network, model.names, model.image_size, (), "digest", arrays, epoch=3, steps=7, updates=7)


def some_plan(model: Model, keep: str, align: int, seed: int) -> tuple[Plan, np.ndarray]:
    """A random cut, as a plan and as the mask of labels that go."""
    made = plan(model, keep, align, "random", seed=seed)
    labels = channel_labels(model.network)
    gone = np.zeros(labels.count, bool)
    for row in model.network.convs:
        gone[np.delete(labels.labels[row.name], made.kept[row.name])] = True
    return made, gone


def by_name(network: Network, vector: np.ndarray, kinds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Tensors out of a vector that has only some kinds of them, by brute force: in the order of kinds, then of the table."""
    found, start = {}, 0
    for kind in kinds:
        for name, shape in tensor_shapes(network).items():
            if kind_of(name) == kind:
                found[name] = vector[start : start + int(np.prod(shape))].reshape(shape)
                start += int(np.prod(shape))
    assert start == len(vector)
    return found


@settings(max_examples=40, deadline=None)
@given(random_networks(), st.sampled_from(["1/2", "1/4", "7/8"]), st.integers(0, 9))
def test_a_cut_state_is_that_of_the_cut_model(network: Network, keep: str, seed: int) -> None:
    """Weights and average are what `prune` and `compensated` make of them; the other vectors are sliced tensor by tensor."""
    model = lively_model(network, seed)
    state, before = state_of(model, seed), state_of(model, seed)
    made, gone = some_plan(model, keep, 1, seed)
    cut_state(state, gone)
    assert state.network == made.network
    for name in ("values", "average"):
        one = replace(model, tensors=unflattened(network, before.arrays[name]))
        small = compensated(one, made, prune(one, made))
        for key, tensor in unflattened(state.network, state.arrays[name]).items():
            np.testing.assert_array_equal(tensor, small.tensors[key], err_msg=f"{name}: {key}")
    labels = channel_labels(network)
    for name, kinds in {"gradient": (0, 1, 2), "moment0": (0, 1, 2), "moment1": (0, 1, 2), "taylor": (1,)}.items():
        found = by_name(state.network, state.arrays[name], kinds)
        for key, tensor in by_name(network, before.arrays[name], kinds).items():
            row = next(row for row in network.convs if key.startswith(f"{row.name}."))
            wanted = tensor[made.kept[row.name]]
            if key == row.weight_name and row.groups == 1:
                wanted = wanted[:, ~gone[labels.labels[row.inputs[0]]]]
            np.testing.assert_array_equal(found[key], wanted, err_msg=f"{name}: {key}")
    assert (state.epoch, state.steps, state.updates) == (3, 7, 7)


def test_moments_of_maps_in_the_middle_of_training() -> None:
    """Against NumPy: the first map, normalised by its own batch; and the learner has not changed."""
    model = lively_model(simple_network())
    learner = Learner(model, Finetuning(), RECIPES["low"], World())
    before = learner.weights.values().numpy()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = map_moments(learner, pictures, ("model.0", "model.2.concat"), seed=1)
    assert {name: moments.covariance.shape for name, moments in found.items()} == {"model.0": (16, 16), "model.2.concat": (32, 32)}
    row = model.network.convs[0]
    y = convolution(pictures.transpose(0, 3, 1, 2) / 255.0, model.tensors[row.weight_name].astype(np.float64), row.stride, row.padding, 1)
    samples = np.moveaxis(y, 1, -1).reshape(-1, 16)  # 2 x 32 x 32 positions, of which all are taken
    scale = model.tensors["model.0.bn.weight"] / np.sqrt(samples.var(0) + BATCH_NORM_EPS)
    samples = activate(row, (samples - samples.mean(0)) * scale + model.tensors["model.0.bn.bias"])
    np.testing.assert_allclose(found["model.0"].mean, samples.mean(0), atol=1e-4)
    np.testing.assert_allclose(found["model.0"].covariance, np.cov(samples.T, bias=True), atol=1e-4)
    np.testing.assert_array_equal(learner.weights.values().numpy(), before)
    learner.network(paddle.zeros([1, 3, 64, 64]))  # no hook is left: oneDNN runs it
    assert not learner.network._watched()


@pytest.mark.slow
@pytest.mark.parametrize(("side", "shapes"), [(64, [(16, 64, 64, 3), (6, 64, 64, 3)]), (1280, [(4, 1280, 1280, 3)] * 4)])
def test_the_pictures_that_cuts_look_at(shapes_set: Dataset, side: int, shapes: list[tuple[int, ...]]) -> None:
    """Sets of 16, of large pictures fewer, as far as there are pictures; and the same whenever they are asked for."""
    found, again = (cut_pictures(shapes_set, side, RECIPES["low"].augmentation, 3, 9) for _ in range(2))
    assert [one.shape for one in found] == shapes
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(found[0][:4], cut_pictures(shapes_set, side, RECIPES["low"].augmentation, 3, 10)[0][:4])


@pytest.fixture(scope="module")
def shapes_set(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(draw_shapes(tmp_path_factory.mktemp("shapes"), COUNTS), "train")


def test_a_cut_state_with_moments_of_maps_is_the_merged_model() -> None:
    """Weights and average alike, by the same predictions; the other tensors as they are cut without them."""
    model = lively_model(simple_network(), seed=4)
    _, gone = some_plan(model, "7/8", 1, 3)
    labels, generator = channel_labels(model.network), np.random.default_rng(0)
    maps = {}
    for name in read_maps(model, gone):
        spread = generator.standard_normal((len(labels.labels[name]),) * 2)
        maps[name] = MapMoments(generator.standard_normal(len(spread)), spread @ spread.T)
    predictions = {name: moments.prediction(gone[labels.labels[name]]) for name, moments in maps.items()}
    state, plain, before = state_of(model), state_of(model), state_of(model)
    cut_state(state, gone, maps)
    cut_state(plain, gone)
    for name in ("values", "average"):
        one = replace(model, tensors=unflattened(model.network, before.arrays[name]))
        expected = unflattened(plain.network, plain.arrays[name]) | merged(one, gone, predictions)
        for key, tensor in unflattened(state.network, state.arrays[name]).items():
            np.testing.assert_allclose(tensor, expected[key], rtol=1e-5, atol=1e-5, err_msg=f"{name}: {key}")
    for name in ("gradient", "moment0", "moment1", "taylor"):
        np.testing.assert_array_equal(state.arrays[name], plain.arrays[name])


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


def learner_of(state: State, criterion: str) -> Any:
    """A stand-in for `Learner` that only counts: what is cut must follow from the state alone."""

    class Learner:
        world = World()
        weights = types.SimpleNamespace(vector=None)
        optimizer = type("Optimizer", (), {"steps": 0})
        average = MovingAverage(state.arrays["average"], averaging(60))
        taylor = TaylorScores(state.network, state.arrays["taylor"]) if criterion == "taylor" else None

        def snapshot(self, state: State) -> State:
            return state

        def go_on_with(self, state: State) -> None:
            if self.taylor is not None:
                self.taylor = TaylorScores(state.network, state.arrays["taylor"])

    return Learner()


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


OPTIONS = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--keep", "1/2", "--align", "2", "--cut-epochs", "2"]


def arguments(shapes: Path, weights: Path, project: Path, *more: str) -> list[str]:
    return ["finetune", "--weights", str(weights), "--data", str(shapes), "--project", str(project), "--epochs", "3", *OPTIONS, *more]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "activation"), [("SGD", "silu"), ("Muon", "silu"), ("AdamW", "relu")])
def test_a_training_stopped_between_cuts_goes_on_to_the_same_bits(
    shapes: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, activation: str
) -> None:
    more = ["--optimizer", optimizer, "--teacher", str(tiny_weights), "--box-weight", "4"]
    more += ["--activation", activation] if activation != "silu" else []
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "whole", *more)) == 0
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (epoch, state.batch) in ((0, 4), (1, 3)):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", *more)) == 130
        first = load_state(tmp_path / "run" / CHECKPOINT)
        assert main(["finetune", "--resume", str(tmp_path / "run")]) == 130
        second = load_state(tmp_path / "run" / CHECKPOINT)
    channels = [network_cost(network, 64).channels for network in (load(tiny_weights).network, first.network, second.network)]
    assert channels[0] > channels[1] > channels[2]
    assert main(["finetune", "--resume", str(tmp_path / "run")]) == 0
    whole, run = (load_state(tmp_path / name / CHECKPOINT) for name in ("whole", "run"))
    assert whole.network == run.network
    assert whole.arrays.keys() == run.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, run.arrays[name], err_msg=name)
    assert {**whole.extra, "teacher": None} == {**run.extra, "teacher": None}
    for name in ("results.csv", "best.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    counts = {row.name: row.channels for row in load(tmp_path / "run" / "best.safetensors").network.convs}
    assert {row.activation for row in load(tmp_path / "run" / "last.safetensors").network.convs} == {activation, None}  # None is Detect's
    original = load(tiny_weights).network
    assert all(counts[row.name] == row.channels // 2 for row in original.convs if row.name not in original.heads)
    assert run.steps == 3 * 6  # no step was lost, and the schedule went on


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cut-epochs", "3"], "--cut-epochs is about cutting"),
        (["--criterion", "signal"], "--criterion is about cutting"),
        (["--align", "4"], "--align is about cutting"),
        (["--cut-interval", "2"], "--cut-interval is about cutting"),
        (["--runtime", "c"], "--runtime is about cutting"),
        (["--threads", "1"], "--threads is about cutting"),
        (["--latency-table", "table.json"], "--latency-table is about cutting"),
        (["--keep", "1/2", "--threads", "1"], "--threads is about the network's time: say with --budget latency=.. what it may take"),
        (["--budget", "macs=1/2", "--latency-table", "table.json"], "--latency-table is about the network's time"),
        (["--keep", "1/2", "--cut-epochs", "9"], "cut-epochs is 9, more than all 5 epochs"),
        (["--keep", "1"], "nothing would be cut"),
        (["--keep", "2"], "keep is 2"),
        (["--keep", "1/2", "--exclude", "nothing"], "exclude: 'nothing' matches no convolution"),
        (["--budget", "macs=0.001"], "cannot be met"),
    ],
)
def test_what_is_refused(
    shapes: Path, small_weights: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), "--epochs", "5", *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


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
