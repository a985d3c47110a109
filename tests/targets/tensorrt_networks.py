"""Networks for the tests of TensorRT, with weights under which every error shows, and how the stand-in builds and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from octrim.backends.numpy import NumpyOps, convolution
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.session import float_batch
from octrim.targets.tensorrt.build import logger
from octrim.targets.tensorrt.layers import define
from tests.networks import variant
from tests.targets.tensorrt_standin import execute


def defined(trt: Any, model: Model, height: int, width: int, precision: str, pad_channels: int = 1) -> Any:
    builder = trt.Builder(logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    define(trt, network, model, height, width, precision, pad_channels=pad_channels)
    return network


def run(engine: bytes, batch: np.ndarray) -> dict[str, np.ndarray]:
    return execute(engine, {"images": batch})


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def side(network: Network) -> int:
    return max(64, network.stride * 2)


class SettlingOps(NumpyOps):
    """Multiplies the variances of every batch norm by the power of what comes through, and sets Detect's logits to a few units: as in trained
    networks no signal dies, however much was cut, no sigmoid is saturated, and every error shows.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.tensors = model, dict(model.tensors)

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight = self.tensors[row.weight_name]
        y = convolution(x, weight, row.stride, row.padding, row.groups)
        if row.norm:
            self.tensors[f"{row.name}.bn.running_var"] = self.model.tensors[f"{row.name}.bn.running_var"] * (y * y).mean()
        else:
            self.tensors[row.weight_name] = weight * np.float32(2 / np.sqrt((y * y).mean()))
        self.weights = {row.name: tuple(part.astype(np.float32) for part in folded_conv(replace(self.model, tensors=self.tensors), row))}
        return super().conv(row, x)


@lru_cache(maxsize=32)  # all that one version of the stand-in builds, for the other
def settled(name: str, cut: str = "original") -> Model:
    """cut: "original", or the fraction to keep and the multiple, `1/8 align 16`."""
    model = variant(name)
    if cut != "original":
        keep, _, align = cut.split()
        model = prune(model, plan(model, keep, int(align)))
    ops = SettlingOps(model)
    walk(model.network, ops, float_batch(pictures(4, side(model.network), side(model.network))))
    return replace(model, tensors=ops.tensors)


@lru_cache(maxsize=32)
def settled_logits(name: str, cut: str) -> list[np.ndarray]:
    """Logits of `settled` for one square picture."""
    model = settled(name, cut)
    return logits(model, pictures(1, side(model.network), side(model.network)))


def logits(model: Model, batch: np.ndarray) -> list[np.ndarray]:
    """Logits per level, float64."""
    return walk(model.network, NumpyOps(model, np.float64), float_batch(batch).astype(np.float64))


def error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest difference over all levels, of the largest value; both logits of a few units."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
    largest = max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True))
    return float(largest / max(np.abs(other).max() for other in expected))


def heads(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [outputs[f"head{level}"] for level in range(len(outputs))]
