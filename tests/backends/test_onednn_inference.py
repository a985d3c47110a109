"""Forward passes by oneDNN with weights that stay: against NumPy's reference, with every number rounded to bfloat16 where they are in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps
from octrim.network.folding import folded
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from tests.networks import lively_model, random_networks, three_levels, tiny_model, variant

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.backends.onednn import library as dnn  # noqa: E402
from octrim.backends.onednn.inference import Inference  # noqa: E402
from octrim.backends.onednn.library import Description, Operation, has_bfloat16, library  # noqa: E402
from octrim.backends.paddle import PaddleNetwork  # noqa: E402

onednn = pytest.mark.skipif(library() is None, reason="this Paddle carries no oneDNN 3")
bfloat16_only = pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply in bfloat16")


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).random((shape[0], 3, *shape[1:]), np.float32)


class WatchingOps(NumpyOps):
    """The reference, which also keeps the maps that Detect's convolutions read."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, np.float64)
        self.heads: tuple[str, ...] = model.network.rows[-1].inputs
        self.features: dict[str, np.ndarray] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        if row.name in self.heads:
            self.features[row.name] = x
        return super().conv(row, x)


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest numbers that bfloat16 has, which are float32 numbers with 16 bits of zeros; ties go to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


class RoundedOps(WatchingOps):
    """The reference with all weights and maps, but not sums and biases, rounded to bfloat16."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.weights = {name: (rounded(weight), bias) for name, (weight, bias) in self.weights.items()}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        return rounded(super().conv(row, rounded(x)))

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return rounded(super().add(row, a, b))


def reference(model: Model, images: np.ndarray, ops: type[WatchingOps] = WatchingOps) -> list[np.ndarray]:
    """Heads, then features."""
    reader = ops(model)
    heads = walk(model.network, reader, images.astype(np.float64))
    return [*heads, *(reader.features[name] for name in reader.heads)]


def assert_close(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], tolerance: float) -> None:
    """Errors relative to the largest value of a map."""
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@onednn
@settings(max_examples=30)
@given(network=random_networks(), features=st.booleans())
def test_random_networks_in_float32(network: Network, features: bool) -> None:
    model, images = folded(lively_model(network, seed=1)), pictures(2, 32, 64)
    heads, maps = Inference(model)(images, features)
    wanted = reference(model, images)
    assert len(maps) == (len(heads) if features else 0)
    assert_close([*heads, *maps], wanted[: len(heads) + len(maps)], 1e-5)


@onednn
@pytest.mark.parametrize("fixture", [None, "two_threads"])
def test_float32_is_that_of_the_compiled_layer_to_the_bit(fixture: str | None, request: pytest.FixtureRequest) -> None:
    """What a teacher says must not depend on which of the two runs it."""
    if fixture:
        request.getfixturevalue(fixture)
    model = folded(variant("yolov5n"))
    layer, infer = PaddleNetwork(model), Inference(model)
    for shape in ((2, 96, 64), (3, 64, 64), (2, 96, 64)):
        images = pictures(*shape)
        with paddle.no_grad():
            wanted = layer.with_features(paddle.to_tensor(images))
        for found, kept in zip(infer(images, features=True), wanted, strict=True):
            for one, other in zip(found, kept, strict=True):
                np.testing.assert_array_equal(one, other.numpy())


@onednn
def test_results_stay_when_the_next_batch_is_computed() -> None:
    infer = Inference(folded(tiny_model()))
    first = infer(pictures(2, 64, 64))[0]
    kept = [head.copy() for head in first]
    infer(pictures(2, 64, 64) * 0)
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


@bfloat16_only
@pytest.mark.parametrize("which", ["levels", "tiny"])
def test_bfloat16_rounds_weights_and_maps_and_nothing_else(which: str) -> None:
    """The difference from rounding in NumPy is a tenth of what rounding does: sums in another order put few values on the other side of a tie."""
    model = folded(lively_model(three_levels(3)) if which == "levels" else lively_model(tiny_model().network))
    images = pictures(2, 64, 64)
    heads, maps = Inference(model, "bfloat16")(images, features=True)
    exact, wanted = reference(model, images), reference(model, images, RoundedOps)
    for found, plain, emulated in zip([*heads, *maps], exact, wanted, strict=True):
        assert np.linalg.norm(found - emulated) < 0.1 * np.linalg.norm(emulated - plain)
        assert np.linalg.norm(emulated - plain) < 0.02 * np.linalg.norm(plain)


@bfloat16_only
@settings(max_examples=15)
@given(network=random_networks())
def test_random_networks_in_bfloat16(network: Network) -> None:
    model, images = folded(lively_model(network, seed=1)), pictures(2, 32, 64)
    heads, _ = Inference(model, "bfloat16")(images)
    for found, wanted in zip(heads, reference(model, images), strict=False):
        assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def codes(operation: Operation) -> list[str]:
    """Names of all code that oneDNN has for an operation, best first."""
    found = [operation.implementation]
    while not dnn._library().c.dnnl_primitive_desc_next_impl(operation.description.handle):
        found.append(operation.implementation)
    return found


@onednn
@pytest.mark.parametrize(("channels", "kernel"), [(8, 1), (8, 3), (16, 3)])
def test_eight_channels_are_computed_in_vectors_of_eight_where_there_is_code_for_it(channels: int, kernel: int) -> None:
    source, result = (Description((2, count, 16, 16), dnn.NHWC) for count in (16, channels))
    window = (dnn.numbers(1, 1), dnn.numbers(0, 0), *[dnn.numbers(kernel // 2, kernel // 2)] * 2)
    arguments = (dnn.FORWARD, dnn.DIRECT, source, Description((channels, 16, kernel, kernel)), None, result, *window)
    known = codes(Operation("convolution_forward", *arguments))
    narrow = [name for name in known if name.endswith(":avx2")]
    chosen = Operation("convolution_forward", *arguments, channels=channels).implementation
    assert chosen == (narrow[0] if narrow and channels == 8 else known[0])
