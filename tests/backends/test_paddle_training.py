"""The compiled training step against Paddle's own ops, and against differences of its own loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import chain as joined
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.onednn import runs as onednn_programs
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from tests.networks import lively_model, random_networks, variant

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.onednn.library import library  # noqa: E402
from octrim.backends.paddle import PaddleNetwork  # noqa: E402

compiled_only = pytest.mark.skipif(library() is None, reason="this Paddle carries no oneDNN 3")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    """The test runs with one thread, as all others do, and with two: what threads do to each other's maps shows."""
    if request.param == 2:
        request.getfixturevalue("two_threads")
    return request.param


def training(model: Model, compiled: bool = True) -> PaddleNetwork:
    layer = PaddleNetwork(model)
    layer.train()
    layer.compiled = compiled
    return layer


def exactly(model: Model, images: paddle.Tensor, features: bool = False) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A `step` by Paddle's own operations in float64."""
    wide = SimpleNamespace(network=model.network, tensors={name: tensor.astype(np.float64) for name, tensor in model.tensors.items()})
    paddle.set_default_dtype("float64")
    try:
        return step(training(wide, compiled=False), images.astype("float64"), features)  # type: ignore[arg-type]
    finally:
        paddle.set_default_dtype("float32")


def pictures(*shape: int, seed: int = 2) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).random((shape[0], 3, *shape[1:]), np.float32))


def loss_of(heads: list[paddle.Tensor]) -> paddle.Tensor:
    return sum((head * head).mean() for head in heads)


def step(
    layer: PaddleNetwork, images: paddle.Tensor, features: bool = False
) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Heads (and features), gradients and running statistics after one forward and backward pass."""
    heads = [*joined(*layer.with_features(images))] if features else layer(images)
    loss_of(heads).backward()
    tensors = layer.named_tensors()
    gradients = {name: tensor.grad.numpy().copy() for name, tensor in tensors.items() if tensor.grad is not None}
    layer.clear_gradients()
    return [head.numpy() for head in heads], gradients, {name: tensor.numpy() for name, tensor in tensors.items() if ".running_" in name}


def was_compiled(layer: PaddleNetwork, images: paddle.Tensor, frozen: frozenset[str] = frozenset(), features: bool = False) -> bool:
    return layer._programs.find(tuple(images.shape), frozen, features) is not None


def assert_alike(model: Model, images: paddle.Tensor, forward: float, backward: float, features: bool = False, exact: bool = False) -> bool:
    """Errors relative to a head's largest value, and to the norm of a parameter's gradient. Returns whether oneDNN ran.

    exact: compare with float64 instead of with Paddle in float32.
    """
    layer = training(model)
    heads, gradients, statistics = step(layer, images, features)
    expected = exactly(model, images, features) if exact else step(training(model, compiled=False), images, features)
    for found, head in zip(heads, expected[0], strict=True):
        np.testing.assert_allclose(found, head, rtol=0, atol=forward * np.abs(head).max())
    assert gradients.keys() == expected[1].keys()
    # Batch norm makes the gradient of some weights nothing but rounding, which is measured by the largest gradient of all.
    largest = max(np.linalg.norm(gradient) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        error = np.linalg.norm(gradients[name] - gradient)
        assert error <= backward * np.linalg.norm(gradient) + 1e-6 * largest, f"{name}: {error} of {np.linalg.norm(gradient)}"
    for name, values in expected[2].items():
        np.testing.assert_allclose(statistics[name], values, rtol=0, atol=5e-6 * np.abs(values).max(), err_msg=name)
        assert not np.array_equal(values, model.tensors[name])
    return was_compiled(layer, images, features=features)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@compiled_only
@pytest.mark.parametrize(
    ("cfg", "shape", "tolerance"), [("yolov5n", (4, 128, 160), 4e-5), ("yolov5n", (4, 192, 96), 4e-5), ("yolov5n6", (4, 256, 256), 1e-4)]
)
def test_published_networks(cfg: str, shape: tuple[int, ...], tolerance: float) -> None:
    # Rounding: Paddle's own float32 is as far from float64 (1e-5 the heads, 5e-5 the gradients of yolov5n), and yolov5n6 is deeper.
    assert assert_alike(variant(cfg), pictures(*shape), tolerance, 5 * tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@compiled_only
@pytest.mark.parametrize(("keep", "align"), [("1/8", 8), ("1/2", 1), ("1/5", 1)])
def test_pruned_networks(keep: str, align: int) -> None:
    """Against float64: with one thread oneDNN and Paddle round the stem's gradients to different sides, each by up to 1.5e-4 and 3e-4 together."""
    model = variant("yolov5n")
    assert assert_alike(prune(model, plan(model, keep, align)), pictures(4, 128, 128), 3e-5, 2e-4, exact=True)


@pytest.mark.slow
@settings(max_examples=40)
@given(network=random_networks(), features=st.booleans())
def test_random_networks(network: Network, features: bool) -> None:
    compiled = assert_alike(lively_model(network, seed=1), pictures(2, 32, 64), 1e-5, 1e-4, features)
    strided = any(row.kernel == 1 and row.stride > 1 for row in network.convs)
    assert compiled == (library() is not None and not strided)


def chain(*rows: Row) -> Network:
    """Stem, the given rows one after the other, head."""
    stem = Row("stem", "conv", ("images",), 8, 4, 4, norm=True, activation="silu")
    head = Row("head", "conv", (rows[-1].name,), 14, bias=True)
    anchors = (((4.0, 5.0), (9.0, 7.0)),)
    return Network((Row("images", "image", channels=3), stem, *rows, head, Row("detect", "detect", ("head",))), anchors)


@compiled_only
@pytest.mark.parametrize(
    "row",
    [
        Row("a", "conv", ("stem",), 7, 7, 1, 3, norm=True, activation="leaky_relu:0.2"),
        Row("a", "conv", ("stem",), 12, 2, 2, norm=True, activation="mish"),
        Row("a", "conv", ("stem",), 16, 4, 4, 1, groups=8, norm=True, activation="hardswish"),
        Row("a", "conv", ("stem",), 4, 3, 2, 1, groups=4, bias=True, activation="relu6"),
        Row("a", "maxpool", ("stem",), kernel=3, stride=2, padding=1),
        Row("a", "maxpool", ("stem",), kernel=4, stride=4, padding=1),
        Row("a", "upsample", ("stem",), stride=4),
        Row("a", "add", ("stem", "stem")),
        Row("a", "concat", ("stem", "stem", "stem")),
    ],
    ids=lambda row: f"{row.op}{row.kernel}s{row.stride}p{row.padding}g{row.groups}",
)
def test_rows_that_no_published_network_has(row: Row) -> None:
    """On pictures that the windows do not divide."""
    assert assert_alike(lively_model(chain(row)), pictures(3, 52, 68), 1e-5, 1e-4)


@compiled_only
def test_gradients_are_those_of_the_loss() -> None:
    """Along random directions, a small step changes the loss as the gradient says; measured in float32, so to a percent."""
    model = lively_model(chain(Row("a", "conv", ("stem",), 12, 3, 1, 1, norm=True, activation="silu"), Row("b", "add", ("a", "a"))))
    images = pictures(4, 32, 32)
    layer = training(model)
    _, gradients, _ = step(layer, images)
    generator = np.random.default_rng(0)
    for name, gradient in gradients.items():
        direction = generator.normal(size=gradient.shape).astype(np.float32) + gradient * np.float32(
            np.sqrt(gradient.size) / np.linalg.norm(gradient)
        )
        losses = []
        for sign in (-1, 1):
            moved = replace(model, tensors={**model.tensors, name: model.tensors[name] + np.float32(sign * 3e-3) * direction})
            losses.append(float(loss_of(training(moved)(images))))
        expected = float((gradient.astype(np.float64) * direction).sum())
        assert (losses[1] - losses[0]) / 6e-3 == pytest.approx(expected, rel=0.02, abs=1e-3), name


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@compiled_only
def test_runs_are_the_same_bit_for_bit() -> None:
    images = pictures(4, 96, 128)
    first, again = (step(training(variant("yolov5n")), images) for _ in range(2))
    for one, other in zip(first[1:], again[1:], strict=True):
        assert {name: values.tobytes() for name, values in one.items()} == {name: values.tobytes() for name, values in other.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@compiled_only
def test_maps_do_not_depend_on_what_the_block_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read before it is written: not in the maps, and not in the gaps that vectors of 16 leave in narrow ones."""
    model = prune(variant("yolov5n"), plan(variant("yolov5n"), "1/5", 1))
    images = pictures(2, 64, 64)
    _, expected, _ = step(training(model), images)
    take: Callable[..., np.ndarray] = onednn_programs.Programs.take

    def dirty(self: onednn_programs.Programs, size: int) -> np.ndarray:
        block = take(self, size)
        block[: len(block) // 4 * 4].view(np.float32)[:] = np.nan
        return block

    monkeypatch.setattr(onednn_programs.Programs, "take", dirty)
    _, found, _ = step(training(model), images)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient, err_msg=name)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@compiled_only
def test_blocks_are_reused_and_steps_may_overlap() -> None:
    one, other = pictures(2, 64, 64, seed=1), pictures(2, 64, 96, seed=2)
    model = variant("yolov5n")
    expected = [step(training(model), images)[1] for images in (one, other, one)]
    layer = training(model)
    for images, gradients in zip((one, other, one), expected, strict=True):
        np.testing.assert_array_equal(step(layer, images)[1]["model.4.cv1.conv.weight"], gradients["model.4.cv1.conv.weight"])
        assert len(layer._programs._blocks) == 1
    first, second, third = (loss_of(layer(images)) for images in (one, other, one))
    for loss in (third, first, second):
        loss.backward()
    total = layer.named_tensors()["model.4.cv1.conv.weight"].grad.numpy()
    np.testing.assert_allclose(total, sum(gradients["model.4.cv1.conv.weight"] for gradients in expected), rtol=1e-5, atol=1e-6 * np.abs(total).max())


@pytest.mark.slow
@compiled_only
def test_parameters_may_move_between_the_passes() -> None:
    """The gradient is that at the parameters which the backward pass finds, but none that were given back to the system are read."""
    layer = training(variant("yolov5n"))
    loss = loss_of(layer(pictures(1, 64, 64)))
    for tensor in layer.parameters():
        tensor.set_value(tensor.numpy().copy())
    loss.backward()
    _, expected, _ = step(training(variant("yolov5n")), pictures(1, 64, 64))
    np.testing.assert_array_equal(layer.named_tensors()["model.0.conv.weight"].grad.numpy(), expected["model.0.conv.weight"])


def test_features_are_what_detect_reads() -> None:
    images = pictures(2, 64, 64)
    model = variant("yolov5n")
    for layer in (training(model), training(model, compiled=False), PaddleNetwork(model)):
        heads, features = layer.with_features(images)
        assert [tuple(feature.shape) for feature in features] == [(2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2)]
        for index, (head, feature) in enumerate(zip(heads, features, strict=True)):
            tensors = layer.named_tensors()
            name = f"model.24.m.{index}"
            again = paddle.nn.functional.conv2d(feature, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
            np.testing.assert_allclose(again.numpy(), head.numpy(), rtol=0, atol=1e-5 * float(head.abs().max()))


@compiled_only
def test_without_batch_norm_both_modes_are_compiled() -> None:
    images = pictures(2, 96, 64)
    model = variant("yolov5n")
    layer = PaddleNetwork(folded(model))
    for parameter in layer.parameters():
        parameter.stop_gradient = True
    outputs = layer.with_features(images)
    assert layer._programs.find((2, 3, 96, 64), frozenset(layer.named_tensors()), True) is not None
    for found, expected in zip(joined(*outputs), joined(*PaddleNetwork(model).with_features(images)), strict=True):
        assert found.stop_gradient
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))


@compiled_only
def test_frozen_rows() -> None:
    images = pictures(2, 64, 64)
    layers = [training(variant("yolov5n"), compiled) for compiled in (True, False)]
    for layer in layers:
        for name, tensor in layer.named_tensors().items():
            if name.startswith(("model.0.", "model.1.", "model.2.")) or name == "model.5.conv.weight":
                tensor.stop_gradient = True
    (heads, found, _), (_, expected, _) = (step(layer, images) for layer in layers)
    assert len(heads) == 3
    assert found.keys() == expected.keys()
    assert "model.2.cv3.conv.weight" not in found
    assert "model.5.bn.weight" in found
    for name, gradient in expected.items():
        assert np.linalg.norm(found[name] - gradient) <= 2e-4 * np.linalg.norm(gradient), name
    for parameter in layers[0].parameters():
        parameter.stop_gradient = True
    assert all(head.stop_gradient for head in layers[0](images))


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_evaluation_and_statistics_without_gradients() -> None:
    images = pictures(2, 64, 64)
    layer, plain = training(variant("yolov5n")), training(variant("yolov5n"), compiled=False)
    with paddle.no_grad():
        for network in (layer, plain):
            for _ in range(3):
                network(images)
            network.eval()
        walked = walk(layer.network, layer, images)
        for found, same, expected in zip(layer(images), walked, plain(images), strict=True):
            np.testing.assert_array_equal(found.numpy(), same.numpy())
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
def test_whoever_looks_inside_gets_paddles_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(1, 64, 64)
    seen: list[str] = []

    class Counting(PaddleNetwork):
        def add(self, row: Row, a: paddle.Tensor, b: paddle.Tensor) -> paddle.Tensor:
            seen.append(row.name)
            return super().add(row, a, b)

    layer = Counting(variant("yolov5n"))
    layer.train()
    layer(images)
    assert len(seen) == 7
    layer = training(variant("yolov5n"))
    handle = layer._sub_layers["model.0"].register_forward_post_hook(lambda *_: seen.append("hook"))
    layer(images)
    assert seen.pop() == "hook"
    handle.remove()
    layer(images)
    assert seen[-1] != "hook"
    images.stop_gradient = False
    loss_of(layer(images)).backward()
    assert float(images.grad.abs().max()) > 0
    monkeypatch.setattr(onednn_programs.dnn, "library", lambda: None)
    layer = training(variant("yolov5n"))
    assert not was_compiled(layer, images)
    step(layer, pictures(1, 64, 64))


def test_copies_train_on_their_own() -> None:
    images = pictures(1, 64, 64)
    layer = training(variant("yolov5n"))
    layer(images)
    twin = copy.deepcopy(layer)
    _, expected, _ = step(layer, images)
    _, found, _ = step(twin, images)
    np.testing.assert_array_equal(found["model.9.cv1.conv.weight"], expected["model.9.cv1.conv.weight"])
    assert twin._programs is not layer._programs


def test_pictures_that_do_not_fit_are_told_by_paddle() -> None:
    with pytest.raises(ValueError, match="concat"):
        training(lively_model(yolov5_network("yolov5n", 3)))(pictures(1, 40, 40))
