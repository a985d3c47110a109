"""Every backend against NumPy in float64, and against the official implementation's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import NumpyOps, convolution, decode, windows
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, walk
from octrim.network.yolov5 import yolov5_network
from octrim.targets.opening import open_session
from octrim.targets.session import float_batch
from octrim.targets.table import runtimes
from tests.networks import lively_model, random_networks

# C and ncnn decode in the same step, and are held to the reference in tests/targets.
WITH_LOGITS = [runtime for runtime in runtimes() if runtime not in ("c", "ncnn")]

paddle = pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")


def heads_of(model: Model, runtime: str, images: np.ndarray) -> list[np.ndarray]:
    """Logits per level `[batch, channels, height, width]`."""
    height, width = images.shape[2:]
    if runtime == "numpy":
        return walk(model.network, NumpyOps(model), images)
    if runtime == "paddle":
        from octrim.backends.paddle import PaddleNetwork

        with paddle.no_grad():
            return [head.numpy() for head in PaddleNetwork(model)(paddle.to_tensor(images))]
    if runtime == "onnxruntime":
        import onnxruntime

        from octrim.targets.onnx.graph import onnx_model

        graph = onnx_model(model, height, width, batch=None, decode=False).SerializeToString()
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"images": images})
    import openvino as ov

    from octrim.targets.openvino.graph import openvino_model

    compiled = ov.Core().compile_model(openvino_model(model, height, width, batch=None, decode=False), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(images)
    return [found[index] for index in range(len(compiled.outputs))]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", WITH_LOGITS)
@pytest.mark.parametrize(("picture", "tolerance"), [("bus", 1e-3), ("zidane", 9e-3)])  # zidane's logits are stored in float16
def test_official_logits(real_weights: Path, reference: dict[str, np.ndarray], runtime: str, picture: str, tolerance: float) -> None:
    images = float_batch(reference[f"{picture}_letterboxed_rgb"][None])
    for level, head in enumerate(heads_of(load(real_weights), runtime, images)):
        expected = reference[f"{picture}_head{level}"].astype(np.float32)
        found = head.reshape(1, 3, 85, *head.shape[2:]).transpose(0, 1, 3, 4, 2)
        assert np.abs(found - expected).max() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("runtime", runtimes())
def test_official_decoding(real_weights: Path, reference: dict[str, np.ndarray], runtime: str) -> None:
    found = open_session(real_weights, runtime)(reference["bus_letterboxed_rgb"][None])
    expected = reference["bus_decoded"]
    assert found.shape == expected.shape
    assert np.abs(found - expected)[..., :4].max() < 0.05
    assert np.abs(found - expected)[..., 4:].max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("runtime", WITH_LOGITS)
@settings(max_examples=25)
@given(network=random_networks(), batch=st.integers(1, 2))
def test_random_networks(runtime: str, network: Network, batch: int) -> None:
    model = lively_model(network, seed=1)
    images = np.random.default_rng(2).random((batch, 3, 32, 64), np.float32)
    expected = walk(network, NumpyOps(model, np.float64), images.astype(np.float64))
    for one, other in zip(expected, heads_of(model, runtime, images), strict=True):
        assert other.shape == one.shape
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * max(1, float(np.abs(one).max())))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", runtimes())
@pytest.mark.parametrize("cfg", ["yolov5n", "yolov5n6"])
def test_sessions_decode_alike(runtime: str, cfg: str) -> None:
    """Rectangles and batches; boxes by the formula, in float64."""
    model = lively_model(yolov5_network(cfg, 3))
    # Logits of a few units, as trained networks have, so that no sigmoid is saturated and every error shows.
    tensors = {name: tensor / 10 if name.removesuffix(".weight") in model.network.heads else tensor for name, tensor in model.tensors.items()}
    model = replace(model, tensors=tensors)
    batch = np.random.default_rng(0).integers(0, 256, (2, 128, 192, 3), np.uint8)
    expected = decode(model.network, walk(model.network, NumpyOps(model, np.float64), float_batch(batch).astype(np.float64)))
    session = open_session(model, runtime)
    for _ in range(2):  # the second call reuses what the first compiled
        found = session(batch)
        assert found.dtype == np.float32
        assert 0.2 < np.median(np.abs(expected[..., 4:] - 0.5)) < 0.4
        np.testing.assert_allclose(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=1e-4, atol=1e-3)


def test_decoding_by_hand() -> None:
    network = yolov5_network("yolov5n", 1)
    heads = [np.zeros((1, 18, side, side), np.float32) for side in (8, 4, 2)]
    heads[1][0, 6:12, 2, 3] = (0, np.log(3), -np.log(3), 0, np.log(4), -30)  # level 1, anchor 1, row 2, column 3
    boxes = decode(network, heads)[0]
    assert boxes.shape == (3 * (64 + 16 + 4), 6)
    # sigmoids 1/2, 3/4, 1/4, 1/2, 4/5, 0; stride 16; anchor 62 x 45
    found = boxes[3 * 64 + 16 + 2 * 4 + 3]
    np.testing.assert_allclose(found, [(1 - 0.5 + 3) * 16, (1.5 - 0.5 + 2) * 16, 0.25 * 62, 45, 0.8, 0], rtol=1e-6, atol=1e-6)


def test_convolution_against_loops() -> None:
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=(2, 4, 7, 6)), generator.normal(size=(6, 2, 3, 3))
    found = convolution(x, weight, stride=2, padding=1, groups=2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, c, i, j in np.ndindex(found.shape):
        first = 2 * (c // 3)
        assert found[n, c, i, j] == pytest.approx((padded[n, first : first + 2, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight[c]).sum())
    assert windows(x, 2, 2, 0, 0).max((-2, -1))[1, 2, 1, 1] == x[1, 2, 2:4, 2:4].max()


def test_paddle_starts_from_the_model_and_gives_it_back() -> None:
    from octrim.backends.paddle import PaddleNetwork

    model = lively_model(yolov5_network("yolov5n", 3))
    layer = PaddleNetwork(model)
    assert not layer.training
    assert {name: tensor.numpy().tobytes() for name, tensor in layer.named_tensors().items()} == {
        name: tensor.tobytes() for name, tensor in model.tensors.items()
    }
    trainable = sum(parameter.size for parameter in layer.parameters() if not parameter.stop_gradient)
    from octrim.network.cost import network_cost

    assert trainable == network_cost(model.network).parameters


@pytest.mark.slow
@pytest.mark.parametrize("runtime", runtimes())
def test_batches_that_do_not_fit(runtime: str) -> None:
    session = open_session(lively_model(yolov5_network("yolov5n", 3)), runtime)
    for batch, told in (
        (np.zeros((1, 60, 64, 3), np.uint8), "multiples of the stride 32"),
        (np.zeros((1, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((64, 64, 3), np.uint8), "uint8"),
        (np.zeros((1, 0, 64, 3), np.uint8), "multiples of the stride"),
    ):
        with pytest.raises(InputError, match=told):
            session(batch)


def test_sessions_that_do_not_exist(tmp_path: Path) -> None:
    model = lively_model(yolov5_network("yolov5n", 3))
    with pytest.raises(InputError, match="unknown runtime 'tensorflow'"):
        open_session(model, "tensorflow")
    with pytest.raises(InputError, match="paddle runs in fp32; fp16"):
        open_session(model, "paddle", "fp16")
    for name in ("a.onnx", "a.xml"):
        with pytest.raises(InputError, match="no such file"):
            open_session(tmp_path / name)
        (tmp_path / name).write_bytes(b"not a graph")
        with pytest.raises(InputError, match="cannot read it"):
            open_session(tmp_path / name)
    for name, kind in (("c.onnx", "expected an ONNX file, found a picture"), ("c.tflite", "expected a .tflite file, found a picture")):
        (tmp_path / name).write_bytes(b"\x89PNG and more")
        with pytest.raises(InputError, match=f"{name}: {kind}"):
            open_session(tmp_path / name)
    (tmp_path / "b.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="b.onnx"):
        open_session(tmp_path / "b.onnx", "openvino")


def test_precision_is_what_was_asked_for() -> None:
    """bf16 moves results by far more than float32 rounding, where the processor has it."""
    import openvino as ov

    model = lively_model(yolov5_network("yolov5n", 3))
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    expected = open_session(model, "numpy")(batch)
    assert np.abs(open_session(model, "openvino", "fp32")(batch) - expected)[..., 4:].max() < 1e-4
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(InputError, match="no bf16"):
            open_session(model, "openvino", "bf16")
        return
    assert np.abs(open_session(model, "openvino", "bf16")(batch) - expected)[..., 4:].max() > 1e-3
