"""States of trainings cut against brute force, and the maps that cuts look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import activate, convolution
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.network.cost import tensor_shapes
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Network
from octrim.pruning.cut import prune
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import MapMoments, merged, read_maps
from octrim.pruning.plan import Plan, plan
from octrim.pruning.repair import compensated
from octrim.training.hyper import RECIPES
from octrim.training.vectors import kind_of, unflattened
from tests.networks import lively_model, random_networks
from tests.training.conftest import COUNTS, draw_shapes
from tests.training.cut_states import simple_network, state_of

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.paddle import paddle
from octrim.training.cut_state import cut_state
from octrim.training.learner import Learner
from octrim.training.maps import cut_pictures, map_moments
from octrim.training.options import Finetuning
from octrim.training.parallel import World

pytestmark = pytest.mark.usefixtures("unrendered")


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
