"""Repair a cut network without training, each step measured by itself (docs/pruning.md):

* `compensated`: a cut channel was not silent; the constant it stood for goes into its consumers. Needs no pictures.
* `reconstructed`: the consumers' weights are fitted, by least squares, to what the original computes on pictures.
* `recalibrated`: batch-norm statistics move by as much as the cut has moved them on pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Row, walk
from octrim.pruning.moments import activation_moments
from octrim.pruning.plan import Plan

Progress = Callable[[str], None]


def compensated(model: Model, plan: Plan, small: Model) -> Model:
    """`small`, with the expected output of every cut channel put into its consumers: into batch norm's mean, or into the bias.

    A channel with batch norm's beta and gamma emits, on average, the expectation of its activation for N(beta, gamma^2): for gamma 0 the
    constant act(beta). It goes through additions, concatenations, pooling and upsampling, and through the consumer's weights. For
    gamma 0 this is exact where the consumer's window does not reach the zero padding.
    """
    ops = _ConstantOps(model, plan)
    walk(model.network, ops, np.zeros(model.network.rows[0].channels))
    tensors = dict(small.tensors)
    for row in model.network.convs:
        if row.groups > 1:
            continue  # a depthwise channel is cut with its input; other grouped convolutions are never touched
        shift = ops.shifts[row.name][plan.kept[row.name]]
        name, sign = (f"{row.name}.bn.running_mean", -1.0) if row.norm else (f"{row.name}.bias", 1.0)
        if name in tensors:
            tensors[name] = (tensors[name].astype(np.float64) + sign * shift).astype(np.float32)
    return _repaired(small, tensors, {"action": "compensate"})


class _ConstantOps:
    """`Ops` over float64 `[channels]`: the constant that stands for a cut channel, 0 for one that stays. Keeps what it adds to each convolution."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.shifts: dict[str, np.ndarray] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight = self.model.tensors[row.weight_name].astype(np.float64).sum((2, 3))
        self.shifts[row.name] = weight @ x if row.groups == 1 else np.zeros(row.channels)
        constants = np.zeros(row.channels)
        if row.norm:
            cut = np.ones(row.channels, bool)
            cut[self.plan.kept[row.name]] = False
            beta, gamma = (self.model.tensors[f"{row.name}.bn.{part}"][cut] for part in ("bias", "weight"))
            constants[cut] = activation_moments(row, beta, gamma)[0]
        return constants

    def add(self, row: Row, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def concat(self, row: Row, xs: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(xs)

    def maxpool(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x

    def upsample(self, row: Row, x: np.ndarray) -> np.ndarray:
        return x

    def detect(self, row: Row, heads: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(heads)


def recalibrated(model: Model, plan: Plan, small: Model, pictures: np.ndarray, progress: Progress | None = None) -> Model:
    """`small`, with batch-norm statistics moved by as much as the cut has moved them on `pictures`.

    Layer after layer: means by the difference of small and original, variances by their ratio. Statistics taken from a few pictures
    alone would carry these pictures' peculiarities into the network; here they cancel, and an uncut network does not change.
    pictures: uint8 RGB `[pictures, height, width, 3]`, sides multiples of the stride.
    """
    ops = _RecalibratingOps(model, plan, small, progress)
    walk(model.network, ops, [(batch, batch) for batch in _split(pictures)])
    return _repaired(small, ops.tensors, {"action": "recalibrate", "pictures": len(pictures)})


def reconstructed(
    model: Model,
    plan: Plan,
    small: Model,
    pictures: np.ndarray,
    samples: int = 1000,
    ridge: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """`small`, with every convolution's weights fitted so that its output, before batch norm, is the original's on `pictures`.

    Layer after layer, from the top: inputs are what the already fitted layers above give (channel pruning, He et al. 2017). samples:
    positions per picture and layer. Ridge regression towards the weights as they were cut, ridge relative to the mean square of the
    inputs; the intercept goes into batch norm's mean or into the bias. pictures: as for `recalibrated`.
    """
    ops = _FittingOps(model, plan, small, samples, ridge, seed, progress)
    walk(model.network, ops, [(batch, batch) for batch in _split(pictures)])
    step = {"action": "reconstruct", "pictures": len(pictures), "samples": samples, "ridge": ridge, "seed": seed}
    return _repaired(small, ops.tensors, step)


def _repaired(small: Model, tensors: Mapping[str, np.ndarray], step: dict[str, Any]) -> Model:
    """`small` with other weights, for which int8 scales that it may have do not hold."""
    return replace(small, tensors=tensors, lineage=(*small.lineage, step), scales={})


_BATCH = 16


def _split(pictures: np.ndarray) -> list:
    """Float Paddle tensors of a few pictures each."""
    from octrim.backends.paddle import paddle
    from octrim.targets.session import float_batch

    return [paddle.to_tensor(float_batch(pictures[start : start + _BATCH])) for start in range(0, len(pictures), _BATCH)]


class _PairedOps:
    """`Ops` over lists of pairs of Paddle batches: the original's map and the small network's, for all pictures at once, because a layer
    must be settled before the next one is looked at. Keeps the small network's tensors.
    """

    def __init__(self, model: Model, plan: Plan, small: Model, progress: Progress | None) -> None:
        from octrim.backends import paddle as backend

        self.backend, self.paddle = backend, backend.paddle
        self.model, self.plan = model, plan
        self.tensors = dict(small.tensors)
        self.small_rows = {row.name: row for row in small.network.convs}
        self.progress = progress or (lambda _: None)

    def settle(self, row: Row, smalls: list, wanted: list) -> None:
        """Change the small network's tensors of this row. smalls: its inputs; wanted: the original's outputs before bias or batch norm."""
        raise NotImplementedError

    def conv(self, row: Row, x: list) -> list:
        self.progress(row.name)
        originals, smalls = [pair[0] for pair in x], [pair[1] for pair in x]
        wanted = self.convolved(row, self.model.tensors, originals)
        self.settle(row, smalls, wanted)
        found = self.convolved(self.small_rows[row.name], self.tensors, smalls)
        behind = self.finished(row, wanted, self.model.tensors), self.finished(row, found, self.tensors)
        return list(zip(*behind, strict=True))

    def convolved(self, row: Row, tensors: Mapping[str, np.ndarray], x: list) -> list:
        """Outputs before bias, batch norm and activation."""
        kernel = self.paddle.to_tensor(tensors[row.weight_name])
        with self.paddle.no_grad():
            return [self.backend.F.conv2d(part, kernel, None, row.stride, row.padding, 1, row.groups) for part in x]

    def finished(self, row: Row, y: list, tensors: Mapping[str, np.ndarray]) -> list:
        """Outputs behind bias or batch norm, and activation."""
        if row.norm:
            gamma, beta, mean, variance = (
                tensors[f"{row.name}.bn.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
            shift = beta - mean * scale
        else:
            shift = tensors[f"{row.name}.bias"].astype(np.float64) if row.bias else np.zeros(1)
            scale = np.ones(1)
        a, b = (self.paddle.to_tensor(part.astype(np.float32).reshape(1, -1, 1, 1)) for part in (scale, shift))
        with self.paddle.no_grad():
            return [self.backend.activate(row, part * a + b) for part in y]

    def add(self, row: Row, a: list, b: list) -> list:
        return self.both(lambda x, y: x + y, a, b)

    def concat(self, row: Row, xs: Sequence[list]) -> list:
        return self.both(lambda *parts: self.paddle.concat(list(parts), axis=1), *xs)

    def maxpool(self, row: Row, x: list) -> list:
        return self.both(lambda part: self.backend.F.max_pool2d(part, row.kernel, row.stride, row.padding), x)

    def upsample(self, row: Row, x: list) -> list:
        return self.both(lambda part: self.backend.F.interpolate(part, scale_factor=row.stride, mode="nearest"), x)

    def detect(self, row: Row, heads: Sequence[list]) -> list[list]:
        return list(heads)

    @staticmethod
    def both(function: Callable, *values: list) -> list:
        """The function on the original's batches and on the small network's."""
        return [tuple(function(*side) for side in zip(*pairs, strict=True)) for pairs in zip(*values, strict=True)]


class _RecalibratingOps(_PairedOps):
    def settle(self, row: Row, smalls: list, wanted: list) -> None:
        if not row.norm:
            return
        kept = self.plan.kept[row.name]
        mean, variance = _moments(wanted)
        own_mean, own_variance = _moments(self.convolved(self.small_rows[row.name], self.tensors, smalls))
        names = [f"{row.name}.bn.{part}" for part in ("running_mean", "running_var")]
        moved = self.model.tensors[names[0]][kept] + own_mean - mean[kept]
        scaled = self.model.tensors[names[1]][kept] * (own_variance + BATCH_NORM_EPS) / (variance[kept] + BATCH_NORM_EPS)
        self.tensors |= {name: values.astype(np.float32) for name, values in zip(names, (moved, scaled), strict=True)}


def _moments(y: list) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance per channel over all batches, float64."""
    values = [part.numpy().astype(np.float64).swapaxes(0, 1).reshape(part.shape[1], -1) for part in y]
    joined = np.concatenate(values, axis=1)
    return joined.mean(1), joined.var(1)


class _FittingOps(_PairedOps):
    def __init__(self, model: Model, plan: Plan, small: Model, samples: int, ridge: float, seed: int, progress: Progress | None) -> None:
        super().__init__(model, plan, small, progress)
        self.samples, self.ridge = samples, ridge
        self.generator = np.random.default_rng(seed)

    def settle(self, row: Row, smalls: list, wanted: list) -> None:
        if row.groups > 1 or row.inputs[0] == self.model.network.rows[0].name:  # depthwise: nothing to combine; the first: nothing is missing
            return
        kept = self.plan.kept[row.name]
        parts = [self.sampled(row, x.numpy(), y.numpy()[:, kept]) for x, y in zip(smalls, wanted, strict=True)]
        a, b = (np.concatenate(side).astype(np.float64) for side in zip(*parts, strict=True))
        weight = self.tensors[row.weight_name].astype(np.float64).reshape(len(kept), -1)
        rest = b - a @ weight.T  # what the cut weights leave unexplained
        a_mean, rest_mean = a.mean(0), rest.mean(0)
        a -= a_mean
        gram = a.T @ a
        gram[np.diag_indices_from(gram)] += self.ridge * np.trace(gram) / len(gram) + np.finfo(float).tiny
        change = np.linalg.solve(gram, a.T @ (rest - rest_mean)).T
        intercept = rest_mean - change @ a_mean
        self.tensors[row.weight_name] = (weight + change).reshape(self.tensors[row.weight_name].shape).astype(np.float32)
        name, sign = (f"{row.name}.bn.running_mean", -1.0) if row.norm else (f"{row.name}.bias", 1.0)
        if name in self.tensors:
            # The fit is to the original's output, so that the original's mean or bias is the one to start from.
            self.tensors[name] = (self.model.tensors[name][kept].astype(np.float64) + sign * intercept).astype(np.float32)

    def sampled(self, row: Row, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows `[n, inputs x kernel x kernel]` and outputs `[n, channels]` at random positions of every picture."""
        batch, _, height, width = y.shape
        padding = row.padding
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        view = np.lib.stride_tricks.sliding_window_view(padded, (row.kernel, row.kernel), (2, 3))[:, :, :: row.stride, :: row.stride]
        count = min(self.samples, height * width)
        windows, outputs = [], []
        for index in range(batch):
            cells = self.generator.choice(height * width, count, replace=False)
            lines, columns = np.divmod(cells, width)
            windows.append(view[index][:, lines, columns].transpose(1, 0, 2, 3).reshape(count, -1))
            outputs.append(y[index][:, lines, columns].T)
        return np.concatenate(windows), np.concatenate(outputs)
