"""Layouts of other small detectors (`benchmarks/rivals`), and the module that only they name: they expand, train, are cut and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps
from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.network.rows import walk
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from tests.network.published import taps

RIVALS = Path(__file__).parents[2] / "benchmarks" / "rivals"
SHIPPED = ("picodet", "picodet-p3")  # which come with OcTrim
PARAMETERS = {
    "fastestdet": 234_690,
    "fastestdet-half": 48_562,
    "picodet": 180_748,
    "picodet-narrow": 68_244,
    "picodet-p3": 219_646,
    "yolo-fastestv2": 209_700,
    "yolo-fastestv2-half": 44_636,
}


def rival(name: str, seed: int = 0) -> Model:
    return fresh_model(name if name in SHIPPED else RIVALS / f"{name}.yaml", names=("thing",), classes=1, seed=seed, anchors_to_fit=True)


def test_every_layout_is_known_here() -> None:
    assert {*SHIPPED, *(path.stem for path in RIVALS.glob("*.yaml"))} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes(name: str) -> None:
    model = rival(name)
    assert network_cost(model.network, 320).parameters == PARAMETERS[name]
    assert model.network.strides == ((16,) if name.startswith("fastestdet") else (8, 16, 32) if name == "picodet-p3" else (16, 32))


@pytest.mark.parametrize("name", ["fastestdet-half", "picodet-narrow", "yolo-fastestv2-half"])
def test_rivals_can_be_cut(name: str) -> None:
    model = rival(name)
    small = prune(model, plan(model, "1/2", 8, "l1"))
    assert network_cost(small.network, 320).parameters < PARAMETERS[name]
    for head in walk(small.network, NumpyOps(small), np.zeros((1, 3, 64, 64), np.float32)):
        assert np.isfinite(head).all()


def stage(tmp_path: Path, units: int, kernel: int = 3) -> Model:
    """One stage of 16 channels behind a convolution of 8, with batch norm that is not the identity."""
    path = tmp_path / "stage.yaml"
    modules = [[-1, 1, "Conv", [8, 3, 2]], [-1, units, "ShuffleNetV2", [16, kernel]]]
    path.write_text(
        f"nc: 1\nactivation: nn.ReLU()\nanchors: [[10, 10]]\nbackbone: {modules}\nhead: [[[1], 1, Detect, [nc, anchors]]]\n".replace("'", "")
    )
    model = fresh_model(path)
    random = np.random.default_rng(1)
    for tensor_name, tensor in model.tensors.items():
        if ".bn." in tensor_name:
            model.tensors[tensor_name] = random.uniform(0.5, 1.5, tensor.shape).astype(np.float32)  # pyright: ignore[reportIndexIssue]
    return model


def conv(model: Model, name: str, x: np.ndarray, stride: int = 1, kernel: int = 1, depthwise: bool = False, act: bool = True) -> np.ndarray:
    """A convolution with batch norm, tap by tap, and ReLU."""
    y = taps(x, model.tensors[f"{name}.conv.weight"], None, stride, kernel // 2, x.shape[1] if depthwise else 1)
    gain, bias, mean, variance = (
        model.tensors[f"{name}.bn.{part}"].astype(np.float64)[:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    y = (y - mean) / np.sqrt(variance + 1e-3) * gain + bias
    return np.maximum(y, 0) if act else y


@pytest.mark.parametrize(("units", "kernel"), [(1, 3), (2, 3), (4, 5)])
def test_a_stage_is_shufflenet_v2_with_a_shuffle_of_quarters(tmp_path: Path, units: int, kernel: int) -> None:
    """The published unit: split the channels in halves, transform one, join, shuffle. Here the shuffle is written as reshape and transpose, as its
    authors do, of groups of a quarter of the channels."""
    model = stage(tmp_path, units, kernel)
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 32, 32))
    heads = walk(model.network, NumpyOps(model, np.float64), x)
    x = conv(model, "model.0", x, 2, 3)

    def both(name: str, x: np.ndarray, stride: int) -> np.ndarray:
        y = conv(model, f"{name}.cv2", x, stride, kernel, depthwise=True, act=False)
        return np.concatenate([conv(model, f"{name}.cv3", y), conv(model, f"{name}.cv4", y)], axis=1)

    def shuffled(x: np.ndarray) -> np.ndarray:
        batch, channels, height, width = x.shape
        return x.reshape(batch, 2, 2, channels // 4, height, width).transpose(0, 2, 1, 3, 4, 5).reshape(x.shape)

    kept = both("model.1.0.side", x, 2)
    changed = both("model.1.0", conv(model, "model.1.0.cv1", x), 2)
    x = shuffled(np.concatenate([kept, changed], axis=1))
    for index in range(1, units):
        kept, changed = x[:, :8], x[:, 8:]
        changed = both(f"model.1.{index}", conv(model, f"model.1.{index}.cv1", changed), 1)
        x = shuffled(np.concatenate([kept, changed], axis=1))
    expected = taps(x, model.tensors["model.2.m.0.weight"], model.tensors["model.2.m.0.bias"], 1, 0, 1)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(heads[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "told"), [("[14]", "ShuffleNetV2 has 14 channels, expected a multiple of 4"), ("[16, 4]", "a pooling window|odd")]
)
def test_stages_that_cannot_be(tmp_path: Path, arguments: str, told: str) -> None:
    """A count of channels that equals Detect's output, here 2 * (5 + 2), is not rounded to a multiple of 8."""
    path = tmp_path / "stage.yaml"
    path.write_text(
        f"nc: 2\nanchors: [[10, 10, 20, 20]]\nbackbone:\n  - [-1, 2, ShuffleNetV2, {arguments}]\nhead:\n  - [[0], 1, Detect, [nc, anchors]]\n"
    )
    with pytest.raises(InputError, match=told):
        fresh_model(path)
