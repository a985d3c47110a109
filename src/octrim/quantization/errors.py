"""Errors of the logits after quantization: of the whole network, and of each layer by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from octrim.data.from_python import Picture
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Row
from octrim.network.scales import Scales
from octrim.quantization.calibration import fitted, runner
from octrim.targets.onnx.graph import onnx_model

_LARGEST = 40  # power of ten that stands for an infinite ratio


@dataclass(frozen=True)
class LogitError:
    """Difference of the int8 network's logits from the float32 network's.

    sqnr: signal to quantization noise, 10 log10(sum of squared logits / sum of squared differences), dB;
    400 for equal logits, because JSON has no infinity.
    median_relative: median of |difference| / |logit|.
    """

    sqnr: float
    median_relative: float


@dataclass(frozen=True)
class LayerError:
    """Error of the network with only one row quantized: a convolution's weight and input, or both inputs of an addition. sqnr: as in `LogitError`."""

    row: str
    op: str
    inputs: tuple[str, ...]
    sqnr: float


def logit_error(model: Model, pictures: Iterable[Picture], height: int, width: int) -> LogitError:
    """Error of a quantized model in ONNX Runtime, over all logits of all pictures together. Raises InputError for logits that are not finite."""
    batches = [fitted(picture, height, width) for picture in pictures]
    return _compared(_exact(model, batches, height, width), _runner(model, height, width, "int8"), batches)


def layer_errors(
    model: Model, pictures: Sequence[Picture], height: int, width: int, progress: Callable[[str], None] | None = None
) -> list[LayerError]:
    """Errors of every row of a quantized model that computes on int8 maps, each row quantized by itself, the worst first.

    progress: called with each row's name.
    """
    batches = [fitted(picture, height, width) for picture in pictures]
    exact = _exact(model, batches, height, width)
    found = []
    for row in layers(model):
        error = _compared(exact, _runner(model, height, width, "int8", (row.name,)), batches)
        found.append(LayerError(row.name, row.op, row.inputs, error.sqnr))
        if progress is not None:
            progress(row.name)
    return sorted(found, key=lambda error: error.sqnr)


def layers(model: Model) -> list[Row]:
    """The convolutions and additions of a quantized model that read int8."""
    scales = Scales(model.network, model.scales)
    return [row for row in model.network.rows if row.op in ("conv", "add") and scales.reads(row)]


def _runner(model: Model, height: int, width: int, precision: str, only: Sequence[str] | None = None) -> Callable[..., list[np.ndarray]]:
    return runner(onnx_model(model, height, width, precision=precision, decode=False, only=only).SerializeToString())


def _exact(model: Model, batches: Sequence[np.ndarray], height: int, width: int) -> list[list[np.ndarray]]:
    run = _runner(model, height, width, "fp32")
    return [run(batch) for batch in batches]


def _compared(exact: Sequence[Sequence[np.ndarray]], run: Callable[..., list[np.ndarray]], batches: Sequence[np.ndarray]) -> LogitError:
    signal = noise = 0.0
    relative = []
    for expected, batch in zip(exact, batches, strict=True):
        for one, other in zip(expected, run(batch), strict=True):
            difference = other - one
            signal += float(np.square(one, dtype=np.float64).sum())
            noise += float(np.square(difference, dtype=np.float64).sum())
            relative.append((np.abs(difference) / np.maximum(np.abs(one), np.finfo(np.float32).tiny)).reshape(-1))
    if not math.isfinite(signal) or not math.isfinite(noise):
        raise InputError("the network gives logits that are not finite; what quantization does to them cannot be said")
    ratio = signal / noise if noise else math.inf
    sqnr = 10 * math.log10(min(max(ratio, 10**-_LARGEST), 10**_LARGEST))
    return LogitError(sqnr, float(np.median(np.concatenate(relative))))
