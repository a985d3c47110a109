"""Optimizers and moving average, by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.network.initialize import fresh_model
from octrim.training.optimizer import CLIP, MovingAverage, Optimizer, Weights
from octrim.training.schedule import PUBLISHED, Settings, averaging
from octrim.training.vectors import kind_of, unflattened
from tests.networks import tiny_model


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights(PaddleNetwork(fresh_model("yolov5n", classes=2)))


def test_the_vector_holds_every_tensor_in_its_place(weights: Weights) -> None:
    model = fresh_model("yolov5n", classes=2)
    network = PaddleNetwork(model)
    named = unflattened(model.network, Weights(network).values().numpy())
    assert named.keys() == model.tensors.keys()
    for name, tensor in named.items():
        np.testing.assert_array_equal(tensor, model.tensors[name], err_msg=name)
    groups = [sum(model.tensors[name].size for name in named if kind_of(name) == kind) for kind in range(3)]
    assert [where.stop - where.start for where in weights.groups] == groups
    # A convolution each has a weight; 57 have batch norm, with a weight and a bias; Detect's three have biases.
    assert [sum(kind_of(name) == kind for name in named) for kind in range(4)] == [60, 57, 60, 114]


@pytest.mark.slow
def test_assigning_changes_the_network_itself() -> None:
    network = PaddleNetwork(fresh_model("yolov5n", classes=2))
    weights = Weights(network)
    values = np.arange(weights.values().size, dtype=np.float32)
    weights.assign(paddle.to_tensor(values))
    named = unflattened(network.network, values)
    for name, tensor in network.named_tensors().items():
        np.testing.assert_array_equal(tensor.numpy(), named[name])


def backward(network: PaddleNetwork) -> None:
    images = paddle.to_tensor(np.random.default_rng(0).random((2, 3, 64, 64), np.float32))
    heads = network(images)
    sum((head * head).mean() * (level + 1) for level, head in enumerate(heads)).backward()


def test_the_gradient_arrives_as_one_vector_and_is_that_of_the_tensors() -> None:
    """Against gradients that every tensor receives by itself, to the bit, and against Paddle's own operations; frozen parameters have zeros."""
    networks = {name: PaddleNetwork(tiny_model()) for name in ("vector", "tensors", "paddle")}
    networks["paddle"].compiled = False
    found, statistics = {}, {}
    head = networks["paddle"].network.convs[-1]
    inner = (
        "model.1.conv.weight",
        "model.1.bn.weight",
        "model.1.bn.bias",
    )  # oneDNN computes scales' and biases' gradients on its way to the rows in front
    for name, network in networks.items():
        network.train()
        for frozen in (*inner, head.weight_name):
            network.named_tensors()[frozen].stop_gradient = True
        flat = Weights(network)
        if name == "tensors":
            network._tensors = None
        for _ in range(2):  # nothing is left of the first one
            backward(network)
            found[name] = flat.parameters.gradient().numpy()
        for frozen in (*inner, head.weight_name):
            assert not found[name][flat.parameters.slices[frozen]].any()
        assert not flat.parameters.gradient().numpy().any()  # it has been taken
        statistics[name] = flat.statistics.values().numpy()
    np.testing.assert_array_equal(found["vector"], found["tensors"])
    np.testing.assert_array_equal(statistics["vector"], statistics["tensors"])
    for values in (found, statistics):
        np.testing.assert_allclose(values["vector"], values["paddle"], rtol=0, atol=1e-4 * np.abs(values["paddle"]).max())


def test_a_copy_of_a_network_in_a_vector_has_its_own_gradients() -> None:
    network = PaddleNetwork(tiny_model())
    network.train()
    weights = Weights(network)
    other = copy.deepcopy(network)
    backward(other)
    assert not weights.parameters.gradient().numpy().any()
    assert any(parameter.grad is not None and parameter.grad.numpy().any() for parameter in other.parameters())


def sgd_by_hand(value: float, gradients: list[float], rates: list[float], decay: float, momenta: list[float]) -> float:
    velocity = 0.0
    for gradient, rate, momentum in zip(gradients, rates, momenta, strict=True):
        gradient += decay * value
        velocity = momentum * velocity + gradient
        value -= rate * (gradient + momentum * velocity)
    return value


def test_sgd_with_its_own_rate_decay_and_momentum_per_group_and_step(weights: Weights) -> None:
    start = weights.parameters.values()
    optimizer = Optimizer.create(weights, "SGD", 0.1)
    steps = [Settings(0.01, 0.1, 0.8, 1), Settings(0.02, 0.05, 0.9, 1), Settings(0.03, 0.03, 0.937, 1)]
    pulls = [1e-4, -2e-4, 3e-4]
    for settings, pull in zip(steps, pulls, strict=True):
        optimizer.step(paddle.full([weights.parameters.size], pull), settings)
    before, after = start.numpy(), weights.parameters.values().numpy()
    weights.parameters.assign(start)
    for where, decay, rates in zip(weights.groups, (0.1, 0, 0), ([0.01, 0.02, 0.03],) * 2 + ([0.1, 0.05, 0.03],), strict=True):
        for index in (where.start, where.stop - 1):
            wanted = sgd_by_hand(float(before[index]), pulls, rates, decay, [0.8, 0.9, 0.937])
            assert after[index] == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_the_gradients_norm_is_clipped(weights: Weights) -> None:
    start = weights.parameters.values()
    size = weights.parameters.size
    for factor, wanted in ((1.0, 10.0), (10.0, 10.0), (0.1, 1.0)):
        optimizer = Optimizer.create(weights, "SGD", 0.0)
        optimizer.step(paddle.full([size], factor * CLIP / size**0.5), Settings(1.0, 1.0, 0.0, 1))
        change = (weights.parameters.values() - start).numpy().astype(np.float64)
        assert np.linalg.norm(change) == pytest.approx(wanted, rel=1e-3)
        weights.parameters.assign(start)


def test_adamw_by_hand(weights: Weights) -> None:
    start = weights.parameters.values()
    optimizer = Optimizer.create(weights, "AdamW", 0.1)
    pulls = [1e-3, -5e-4]
    for pull in pulls:
        optimizer.step(paddle.full([weights.parameters.size], pull), Settings(0.01, 0.02, 0.9, 1))
    before, after = start.numpy().astype(np.float64), weights.parameters.values().numpy()
    weights.parameters.assign(start)
    for where, rate, decay in zip(weights.groups, (0.01, 0.01, 0.02), (0.1, 0, 0), strict=True):
        value, first, second = before[where.start], 0.0, 0.0
        for step, pull in enumerate(pulls, 1):
            first, second = 0.9 * first + 0.1 * pull, 0.999 * second + 0.001 * pull**2
            value -= rate * decay * value
            value -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        assert after[where.start] == pytest.approx(value, rel=1e-4)


def test_frozen_parameters_stay_whatever_decays(weights: Weights) -> None:
    start = weights.parameters.values()
    mask = np.ones(weights.parameters.size, np.float32)
    mask[:1000] = 0
    Optimizer.create(weights, "SGD", 0.5, paddle.to_tensor(mask)).step(paddle.ones([weights.parameters.size]), Settings(0.1, 0.1, 0.9, 1))
    changed = (weights.parameters.values() != start).numpy()
    weights.parameters.assign(start)
    assert not changed[:1000].any() and changed[1000:].all()


def test_moving_average_at_its_corners() -> None:
    average = MovingAverage(paddle.to_tensor([1.0, 2.0]))
    average.update(paddle.to_tensor([3.0, 2.0]))
    first = PUBLISHED.at(1)
    np.testing.assert_allclose(average.values.numpy(), [first + (1 - first) * 3, 2], rtol=1e-6)
    average.update(paddle.to_tensor([0.0, 2.0]))
    np.testing.assert_allclose(average.values.numpy(), [PUBLISHED.at(2) * (first + (1 - first) * 3), 2], rtol=1e-6)
    late = MovingAverage(paddle.to_tensor([1.0]), updates=10**6 - 1)
    late.update(paddle.to_tensor([0.0]))
    assert late.values.numpy().item() == pytest.approx(0.9999, rel=1e-6)


def test_a_short_average_forgets_what_the_published_one_would_not_yet_average() -> None:
    """Noise of +1 and -1 in turn: over 500 updates it averages out; by the published decay, which is then .63, a good part of it is left."""
    left = []
    for chosen in (averaging(2000), PUBLISHED):
        average = MovingAverage(paddle.to_tensor([0.0]), chosen)
        for number in range(2000):
            average.update(paddle.to_tensor([1.0 if number % 2 else -1.0]))
        left.append(abs(average.values.numpy().item()))
    assert left[0] < 0.002 and left[1] == pytest.approx((1 - PUBLISHED.at(2000)) / (1 + PUBLISHED.at(2000)), rel=0.01)
    still = MovingAverage(paddle.to_tensor([3.0]), averaging(1))
    still.update(paddle.to_tensor([5.0]))
    assert still.values.numpy().item() == 5
