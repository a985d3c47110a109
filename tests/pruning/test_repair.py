"""Repair without training, against what the original computes."""

from __future__ import annotations

import os
import signal
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps, activate, convolution
from octrim.cli import main
from octrim.errors import InputError
from octrim.network.initialize import pad_weight
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.maps import Maps
from octrim.pruning.moments import activation_moments
from octrim.pruning.plan import plan
from octrim.pruning.repair import compensated, recalibrated, reconstructed
from tests.networks import ACTIVATIONS, lively_model, random_networks

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_moments_against_sampling(activation: str | None) -> None:
    row = Row("a", "conv", ("x",), 4, activation=activation)
    beta, gamma = np.asarray([0.3, -1.0, 2.0, -0.5]), np.asarray([0.0, 0.7, -1.5, 1.0])
    mean, variance = activation_moments(row, beta, gamma)
    samples = activate(row, beta[:, None] + gamma[:, None] * np.random.default_rng(0).standard_normal(400_000))
    np.testing.assert_allclose(mean, samples.mean(1), atol=0.01)
    np.testing.assert_allclose(variance, samples.var(1), atol=0.02)
    assert variance[0] == pytest.approx(0, abs=1e-20)
    assert mean[0] == pytest.approx(float(activate(row, np.asarray([0.3]))[0]))


def silenced(model: Model, made) -> Model:
    """The original, in which the channels that the plan cuts have gamma 0."""
    tensors = dict(model.tensors)
    for row in model.network.convs:
        if row.norm:
            gamma = np.zeros(row.channels, np.float32)
            gamma[made.kept[row.name]] = tensors[f"{row.name}.bn.weight"][made.kept[row.name]]
            tensors[f"{row.name}.bn.weight"] = gamma
    return replace(model, tensors=tensors)


class Interior(NumpyOps):
    """Keeps every convolution's output, before activation, and how far from the border it has not seen padding."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, np.float64)
        self.outputs: dict[str, np.ndarray] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        self.outputs[row.name] = super().conv(row, x)
        return self.outputs[row.name]


def normed(network: Network) -> Network:
    """Every convolution but Detect's with batch norm; without it no constant is known."""
    rows = tuple(replace(row, norm=True, bias=False) if row.op == "conv" and row.name not in network.heads else row for row in network.rows)
    return Network(rows, network.anchors)


@pytest.mark.slow
@settings(max_examples=60)
@given(random_networks().map(normed), st.sampled_from(["1/2", "1/4"]), st.integers(0, 9))
def test_channels_of_scale_zero_leave_nothing_behind(network: Network, keep: str, seed: int) -> None:
    """Exactly: windows of one cell do not see the zero padding."""
    rows = tuple(replace(row, kernel=1, padding=0) if row.op == "conv" else row for row in network.rows)
    network = Network(rows, network.anchors)
    made = plan(lively_model(network, seed), keep, 1, "random", seed=seed, image_size=(64, 64))
    model = silenced(lively_model(network, seed), made)
    small = compensated(model, made, prune(model, made))
    image = np.random.default_rng(0).random((1, 3, 64, 64))
    original, cut = Interior(model), Interior(small)
    expected, found = walk(network, original, image), walk(small.network, cut, image)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(one).max())))
    for row in network.convs:
        kept = original.outputs[row.name][:, made.kept[row.name]]
        np.testing.assert_allclose(cut.outputs[row.name], kept, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(kept).max())))


@pytest.mark.parametrize("depthwise", [{}, {"bias": True}, {"bias": True, "activation": "silu"}])
def test_constants_go_through_depthwise_convolutions_without_batch_norm(depthwise: dict[str, Any]) -> None:
    """Such as zero padding, which yolov3-tiny has: all but the border of what is behind it is unchanged."""
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"),
        Row("pad", "conv", ("a",), 8, 3, 1, 1, groups=8, **depthwise),
        Row("b", "conv", ("pad",), 8, 3, 2, 1, norm=True, activation="silu"),
        Row("head", "conv", ("b",), 14, bias=True),
        Row("detect", "detect", ("head",)),
    )
    model = lively_model(Network(rows, (((4.0, 5.0), (9.0, 7.5)),)), 3)
    if rows[2].pads:
        model = replace(model, tensors={**model.tensors, "pad.weight": pad_weight((8, 1, 3, 3))})
    made = plan(model, "1/2", 1, "random", image_size=(64, 64))
    model = silenced(model, made)
    small = compensated(model, made, prune(model, made))
    image = np.random.default_rng(0).random((1, 3, 64, 64))
    original, cut = Interior(model), Interior(small)
    walk(model.network, original, image)
    walk(small.network, cut, image)
    kept = original.outputs["b"][:, made.kept["b"]][:, :, 3:-3, 3:-3]
    np.testing.assert_allclose(cut.outputs["b"][:, :, 3:-3, 3:-3], kept, atol=1e-5)


def test_the_interior_of_yolov5n() -> None:
    """With padding: of each consumer's output, all that no zero-padded border has reached is unchanged."""
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, "3/4", 1, "random", keep_map={"model.0": 1, "model.2.*": 1, "model.4.*": 1, "model.6.*": 1, "model.8.*": 1})
    model = silenced(model, made)
    small = compensated(model, made, prune(model, made))
    image = np.random.default_rng(0).random((1, 3, 256, 256))
    original, cut = Interior(model), Interior(small)
    walk(model.network, original, image)
    walk(small.network, cut, image)
    # model.1 (3x3) reads model.0, whole; model.2 reads model.1, cut: 1x1, so exact everywhere. model.3 is the first 3x3 behind a cut.
    for name, border in (("model.2.cv1", 0), ("model.2.cv3", 2), ("model.3", 2)):
        kept = original.outputs[name][:, made.kept[name]]
        inner = (slice(None), slice(None), slice(border, kept.shape[2] - border), slice(border, kept.shape[3] - border))
        np.testing.assert_allclose(cut.outputs[name][inner], kept[inner], atol=1e-4)


def test_compensation_by_hand() -> None:
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 2, 1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 2, 1, norm=True),
        Row("level", "conv", ("b",), 6, bias=True),
        Row("detect", "detect", ("level",)),
    )
    network = Network(rows, (((8.0, 8.0),),))
    model = lively_model(network)
    tensors = dict(model.tensors)
    tensors["a.bn.weight"] = np.asarray([1, 0], np.float32)
    tensors["a.bn.bias"] = np.asarray([0, 2], np.float32)
    tensors["b.conv.weight"] = np.asarray([[5, 3], [7, -1]], np.float32)[:, :, None, None]
    tensors["b.bn.weight"] = np.asarray([0, 1], np.float32)
    tensors["b.bn.bias"] = np.asarray([4, 0], np.float32)
    tensors["b.bn.running_mean"] = np.asarray([1, 1], np.float32)
    model = Model(network, tensors, model.names)
    made = plan(model, "1/2", 1, "bn")
    assert (made.kept["a"].tolist(), made.kept["b"].tolist()) == ([0], [1])
    small = compensated(model, made, prune(model, made))
    silu = 2 / (1 + np.exp(-2))
    # b's channel 1 lost -1 x silu(2) from its input's second channel: the mean goes down by as much
    np.testing.assert_allclose(small.tensors["b.bn.running_mean"], [1 + silu], rtol=1e-6)
    # b's channel 0 stood for the constant 4 (no activation), which goes into Detect's bias
    np.testing.assert_allclose(small.tensors["level.bias"], tensors["level.bias"] + 4 * tensors["level.weight"][:, 0, 0, 0], rtol=1e-5)


def pictures(count: int = 24, side: int = 64) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.slow
def test_recalibration_leaves_an_uncut_network_alone() -> None:
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, keep=1)
    again = recalibrated(model, made, prune(model, made), pictures())
    for name, tensor in model.tensors.items():
        np.testing.assert_allclose(again.tensors[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_recalibration_by_hand() -> None:
    """Means move by the difference of small and original on the pictures, variances by their ratio."""
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, 1, 1, "l2", keep_map={"model.*": 1, "model.0": "1/2"})
    cut = prune(model, made)
    again = recalibrated(model, made, cut, pictures())
    images = pictures().transpose(0, 3, 1, 2) / 255
    row = next(row for row in model.network.convs if row.name == "model.0")
    behind = NumpyOps(model, np.float64).conv(row, images)
    row = next(row for row in model.network.convs if row.name == "model.1")
    original, small = (
        convolution(x, one.tensors[row.weight_name].astype(np.float64), 2, 1, 1)
        for one, x in ((model, behind), (cut, behind[:, made.kept["model.0"]]))
    )
    mean, variance = (model.tensors[f"model.1.bn.running_{part}"] for part in ("mean", "var"))
    axes = (0, 2, 3)
    np.testing.assert_allclose(again.tensors["model.1.bn.running_mean"], mean + small.mean(axes) - original.mean(axes), rtol=1e-4, atol=1e-4)
    expected = variance * (small.var(axes) + 1e-3) / (original.var(axes) + 1e-3)
    np.testing.assert_allclose(again.tensors["model.1.bn.running_var"], expected, rtol=1e-3)
    assert np.array_equal(again.tensors["model.1.conv.weight"], cut.tensors["model.1.conv.weight"])


@pytest.mark.slow
def test_reconstruction_brings_outputs_nearer() -> None:
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, "0.9", 1, "l2")
    cut = prune(model, made)
    image = pictures(4).transpose(0, 3, 1, 2) / 255

    def error(small: Model) -> float:
        pairs = zip(walk(model.network, NumpyOps(model, np.float64), image), walk(small.network, NumpyOps(small, np.float64), image), strict=True)
        return float(np.mean([((one - other) ** 2).mean() / one.var() for one, other in pairs]))

    plain, constants = error(cut), error(compensated(model, made, cut))
    fitted = error(reconstructed(model, made, cut, pictures(32), ridge=0.01))
    assert fitted < 0.5 * plain
    assert fitted < constants


@pytest.mark.slow
def test_reconstruction_of_redundant_channels_is_exact() -> None:
    """Where one channel repeats another, the consumers can do without it: least squares must find that."""
    model = lively_model(yolov5_network("yolov5n", 3))
    tensors = dict(model.tensors)
    for name in [name for name in tensors if name.startswith("model.1.")]:
        tensors[name] = tensors[name].copy()
        tensors[name][16:] = tensors[name][:16]
    model = replace(model, tensors=tensors)
    made = plan(model, "1/2", 16, lambda model, labels, seed: np.arange(labels.count)[::-1].astype(float), keep_map={"model.*": 1, "model.1": "1/2"})
    assert made.kept["model.1"].tolist() == list(range(16))
    cut = prune(model, made)
    fitted = reconstructed(model, made, cut, pictures(16, 128), samples=256, ridge=1e-6)
    image = pictures(2).transpose(0, 3, 1, 2) / 255
    for one, plain, other in zip(
        walk(model.network, NumpyOps(model, np.float64), image),
        walk(cut.network, NumpyOps(cut, np.float64), image),
        walk(fitted.network, NumpyOps(fitted, np.float64), image),
        strict=True,
    ):
        assert ((one - other) ** 2).mean() < 1e-2 * ((one - plain) ** 2).mean()


@pytest.mark.parametrize("repair", [recalibrated, reconstructed])
def test_memory_does_not_grow_with_the_pictures(repair: Callable[..., Model]) -> None:
    """NumPy's peak, which is what Python sees of it; `benchmarks/repair_memory.py` measures the whole process."""
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 8, 3, padding=1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 8, 3, 8, 1, norm=True),
        Row("level", "conv", ("b",), 6, bias=True),
        Row("detect", "detect", ("level",)),
    )
    model = lively_model(Network(rows, (((8.0, 8.0),),)))
    made = plan(model, "1/2", 1, "l2", image_size=(64, 64))
    cut = prune(model, made)
    peaks = []
    for count in (8, 64):
        images = iter(pictures(count))
        tracemalloc.start()
        repair(model, made, cut, images)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_without_pictures_nothing_is_repaired() -> None:
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, "1/2", 8)
    for repair in (recalibrated, reconstructed):
        with pytest.raises(InputError, match="needs pictures"):
            repair(model, made, prune(model, made), pictures(0))


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are posix")
def test_a_disk_without_room_for_the_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    maps = Maps()
    maps.add(np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot keep the feature maps"):
            maps.add(np.zeros((100, 3, 2, 2), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list((tmp_path / "octrim").iterdir())  # the file has no name


@pytest.mark.slow
def test_one_picture_that_cannot_be_read_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "model.safetensors"
    lively_model(yolov5_network("yolov5n", 3)).save(weights)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(pictures(3)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "1.png").write_bytes(b"nothing of the kind")
    command = ["prune", "--weights", str(weights), "--imgsz", "64", "--recalibrate", str(folder), "--reconstruct", str(folder)]
    assert main([*command, "--project", str(tmp_path), "--name", "run"]) == 0
    assert capsys.readouterr().out.count("left out: " + str(folder / "1.png")) == 1
    lineage = load(tmp_path / "run" / "model.safetensors").lineage
    assert [(step["action"], step["pictures"]) for step in lineage[-2:]] == [("reconstruct", 2), ("recalibrate", 2)]
    for name in ("0.png", "2.png"):
        (folder / name).write_bytes(b"")
    assert main([*command, "--project", str(tmp_path), "--name", "second"]) == 2
    assert "none of the 3 pictures can be read" in capsys.readouterr().err and not (tmp_path / "second").exists()


@pytest.mark.slow
def test_repairs_are_reproducible_and_leave_their_input_alone() -> None:
    model = lively_model(yolov5_network("yolov5n", 3))
    made = plan(model, "1/2", 8)
    cut = prune(model, made)
    before = {name: tensor.copy() for name, tensor in cut.tensors.items()}
    one, two = (reconstructed(model, made, cut, pictures(8), samples=16, seed=5) for _ in range(2))
    assert all(one.tensors[name].tobytes() == two.tensors[name].tobytes() for name in one.tensors)
    assert all(np.array_equal(cut.tensors[name], tensor) for name, tensor in before.items())
    assert [step["action"] for step in one.lineage[-2:]] == ["prune", "reconstruct"]


@pytest.mark.slow
@settings(max_examples=15)
@given(random_networks())
def test_every_repair_runs_on_every_network(network: Network) -> None:
    model = lively_model(network)
    made = plan(model, "1/2", 2, "l1", image_size=(64, 64))
    cut = replace(prune(model, made), scales={"images.scale": np.ones(1, np.float32)})
    for repaired in (
        compensated(model, made, cut),
        recalibrated(model, made, cut, pictures(2)),
        reconstructed(model, made, cut, pictures(2), samples=8),
    ):
        assert repaired.network == cut.network
        assert not repaired.scales  # they were those of other weights
        assert all(np.isfinite(tensor).all() for tensor in repaired.tensors.values())
