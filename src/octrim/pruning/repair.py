"""Repair a cut network without training, each step measured by itself (docs/pruning.md):

* `compensated`: a cut channel was not silent; the constant it stood for goes into its consumers. Needs no pictures.
* `reconstructed`: the consumers' weights are fitted, by least squares, to what the original computes on pictures.
* `recalibrated`: batch-norm statistics move by as much as the cut has moved them on pictures.

The last two go layer after layer through all pictures at once. Feature maps are kept on disk (`Maps`) and statistics gathered batch by batch
(`statistics.py`), so that the memory they take does not grow with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from octrim.backends.numpy import activate
from octrim.errors import InputError
from octrim.network.dropping import without_rows
from octrim.network.folding import scale_and_shift
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Row, walk
from octrim.pruning.labels import is_depthwise
from octrim.pruning.maps import Maps
from octrim.pruning.moments import activation_moments
from octrim.pruning.plan import Plan
from octrim.pruning.statistics import LeastSquares, Moments
from octrim.targets.session import float_batch

Progress = Callable[[str], None]
Pair = tuple[Maps, Maps]
"""The original's maps, and the small network's."""


def compensated(model: Model, plan: Plan, small: Model) -> Model:
    """Return `small` with the expected output of every cut channel put into its consumers: into batch norm's mean, or into the bias.

    A channel with batch norm's beta and gamma emits, on average, the expectation of its activation for N(beta, gamma^2): for gamma 0 the
    constant act(beta). It goes through additions, concatenations, pooling and upsampling, and through the consumer's weights. For
    gamma 0 this is exact where the consumer's window does not reach the zero padding.
    """
    changes = constants(without_rows(model, plan.dropped), plan.kept)
    tensors = dict(small.tensors)
    for name, change in changes.items():
        tensors[name] = (tensors[name].astype(np.float64) + change).astype(np.float32)
    return _repaired(small, tensors, {"action": "compensate"})


def constants(model: Model, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `compensated` adds to batch-norm means and biases of the cut network: tensor name to float64 `[channels that stay]`.

    kept: per convolution of `model`, the channels that stay, ascending.
    """
    ops = _ConstantOps(model, kept)
    walk(model.network, ops, np.zeros(model.network.rows[0].channels))
    changes = {}
    for row in model.network.convs:
        if row.groups > 1:
            continue  # a depthwise channel is cut with its input; other grouped convolutions are never touched
        shift = ops.shifts[row.name][kept[row.name]]
        if row.norm:
            changes[f"{row.name}.bn.running_mean"] = -shift
        elif row.bias:
            changes[f"{row.name}.bias"] = shift
    return changes


class _ConstantOps:
    """`Ops` over float64 `[channels]`: the constant that stands for a cut channel, 0 for one that stays. Keeps what it adds to each convolution."""

    def __init__(self, model: Model, kept: Mapping[str, np.ndarray]) -> None:
        self.model, self.kept = model, kept
        self.shifts: dict[str, np.ndarray] = {}

    def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
        weight = self.model.tensors[row.weight_name].astype(np.float64).sum((2, 3))
        self.shifts[row.name] = weight @ x if row.groups == 1 else np.zeros(row.channels)
        constants = np.zeros(row.channels)
        cut = np.ones(row.channels, bool)
        cut[self.kept[row.name]] = False
        if row.norm:
            beta, gamma = (self.model.tensors[f"{row.name}.bn.{part}"][cut] for part in ("bias", "weight"))
            constants[cut] = activation_moments(row, beta, gamma)[0]
        elif is_depthwise(row, len(x)):  # such as zero padding: it makes a constant of a constant
            bias = self.model.tensors[f"{row.name}.bias"][cut] if row.bias else 0.0
            constants[cut] = activate(row, weight[cut, 0] * x[cut] + bias)
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


def recalibrated(model: Model, plan: Plan, small: Model, pictures: Iterable[np.ndarray], progress: Progress | None = None) -> Model:
    """Return `small` with batch-norm statistics moved by as much as the cut has moved them on `pictures`.

    Layer after layer: means by the difference of small and original, variances by their ratio. Statistics taken from a few pictures
    alone would carry these pictures' peculiarities into the network; here they cancel, and an uncut network does not change.

    pictures: uint8 RGB arrays `[height, width, 3]` of one size, sides multiples of the stride; read once, one by one. Their maps are kept in a
    file in OcTrim's cache folder. Raises InputError where there is no picture, or no room on the disk.
    """
    ops = _RecalibratingOps(model, plan, small, progress)
    maps, count = _picture_maps(pictures)
    walk(model.network, ops, (maps, maps))
    return _repaired(small, ops.tensors, {"action": "recalibrate", "pictures": count})


def reconstructed(
    model: Model,
    plan: Plan,
    small: Model,
    pictures: Iterable[np.ndarray],
    samples: int = 1000,
    ridge: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """Return `small` with every convolution's weights fitted so that its output, before batch norm, is the original's on `pictures`.

    Layer after layer, from the top: inputs are what the already fitted layers above give (channel pruning, He et al. 2017). samples:
    positions per picture and layer. Ridge regression towards the weights as they were cut, ridge relative to the mean square of the
    inputs; the intercept goes into batch norm's mean or into the bias. pictures, and what is raised: as for `recalibrated`.
    """
    ops = _FittingOps(model, plan, small, samples, ridge, seed, progress)
    maps, count = _picture_maps(pictures)
    walk(model.network, ops, (maps, maps))
    step = {"action": "reconstruct", "pictures": count, "samples": samples, "ridge": ridge, "seed": seed}
    return _repaired(small, ops.tensors, step)


def _repaired(small: Model, tensors: Mapping[str, np.ndarray], step: dict[str, Any]) -> Model:
    """Return `small` with other weights, for which int8 scales that it may have do not hold."""
    return replace(small, tensors=tensors, lineage=(*small.lineage, step), scales={})


_BATCH = 4
"""Pictures that are computed together; few, because their maps are what the repair needs memory for."""


def _picture_maps(pictures: Iterable[np.ndarray]) -> tuple[Maps, int]:
    """Return float pictures `[batch, 3, height, width]`, 0..1, and how many there are. Raises InputError where there are none."""
    maps, count, waiting = Maps(), 0, []
    for picture in pictures:
        waiting.append(picture)
        count += 1
        if len(waiting) == _BATCH:
            maps.add(float_batch(np.stack(waiting)))
            waiting = []
    if waiting:
        maps.add(float_batch(np.stack(waiting)))
    if not count:
        raise InputError("a repair needs pictures; there are none")
    return maps, count


class _PairedOps:
    """`Ops` over pairs of maps: the original's and the small network's, for all pictures at once, because a layer must be settled before
    the next one is looked at. Keeps the small network's tensors. Of a row that was dropped, the small network has the map in front of it.
    """

    def __init__(self, model: Model, plan: Plan, small: Model, progress: Progress | None) -> None:
        from octrim.backends import paddle as backend

        self.backend, self.paddle = backend, backend.paddle
        self.model, self.plan = model, plan
        self.tensors = dict(small.tensors)
        self.small_rows = {row.name: row for row in small.network.convs}
        self.progress = progress or (lambda _: None)

    def begin(self, row: Row) -> None:
        """Get ready to look at a row."""
        raise NotImplementedError

    def look(self, row: Row, small: np.ndarray, wanted: np.ndarray) -> None:
        """Take note of a batch. small: the small network's input; wanted: the original's output before bias or batch norm."""
        raise NotImplementedError

    def settle(self, row: Row) -> None:
        """Change the small network's tensors of the row that was looked at."""
        raise NotImplementedError

    def conv(self, row: Row, x: Pair) -> Pair:
        self.progress(row.name)
        originals, smalls = Maps(), Maps()
        if row.name in self.plan.dropped:
            for original in x[0]:
                originals.add(self.finished(row, self.convolved(row, self.model.tensors, original), self.model.tensors))
            return originals, x[1]
        self.begin(row)
        for original, small in zip(*x, strict=True):
            wanted = self.convolved(row, self.model.tensors, original)
            self.look(row, small, wanted)
            originals.add(self.finished(row, wanted, self.model.tensors))
        self.settle(row)
        for small in x[1]:
            smalls.add(self.finished(row, self.convolved(self.small_rows[row.name], self.tensors, small), self.tensors))
        return originals, smalls

    def convolved(self, row: Row, tensors: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Return a convolution's output before bias, batch norm and activation."""
        kernel = self.paddle.to_tensor(tensors[row.weight_name])
        with self.paddle.no_grad():
            return self.backend.F.conv2d(self.paddle.to_tensor(x), kernel, None, row.stride, row.padding, 1, row.groups).numpy()

    def finished(self, row: Row, y: np.ndarray, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a convolution's output after bias or batch norm, and activation."""
        if row.norm:
            scale, shift = scale_and_shift(row, tensors)
        else:
            shift = tensors[f"{row.name}.bias"].astype(np.float64) if row.bias else np.zeros(1)
            scale = np.ones(1)
        a, b = (self.paddle.to_tensor(part.astype(np.float32).reshape(1, -1, 1, 1)) for part in (scale, shift))
        with self.paddle.no_grad():
            return self.backend.activate(row, self.paddle.to_tensor(y) * a + b).numpy()

    def add(self, row: Row, a: Pair, b: Pair) -> Pair:
        return self.both(row, lambda x, y: x + y, a, b)

    def concat(self, row: Row, xs: Sequence[Pair]) -> Pair:
        return self.both(row, lambda *parts: self.paddle.concat(list(parts), axis=1), *xs)

    def maxpool(self, row: Row, x: Pair) -> Pair:
        return self.both(row, lambda part: self.backend.F.max_pool2d(part, row.kernel, row.stride, row.padding), x)

    def upsample(self, row: Row, x: Pair) -> Pair:
        return self.both(row, lambda part: self.backend.F.interpolate(part, scale_factor=row.stride, mode="nearest"), x)

    def detect(self, row: Row, heads: Sequence[Pair]) -> list[Pair]:
        return list(heads)

    def both(self, row: Row, function: Callable, *values: Pair) -> Pair:
        """Apply a row's function of Paddle tensors to the original's maps and to the small network's."""
        sides: list[Maps] = []
        for side in range(2):
            if side == 1 and row.name in self.plan.dropped:
                sides.append(values[0][1])
                continue
            maps = Maps()
            for parts in zip(*(pair[side] for pair in values), strict=True):
                maps.add(function(*(self.paddle.to_tensor(part) for part in parts)).numpy())
            sides.append(maps)
        return sides[0], sides[1]


class _RecalibratingOps(_PairedOps):
    def begin(self, row: Row) -> None:
        self.moments = Moments(row.channels), Moments(self.small_rows[row.name].channels)

    def look(self, row: Row, small: np.ndarray, wanted: np.ndarray) -> None:
        if row.norm:
            self.moments[0].add(wanted)
            self.moments[1].add(self.convolved(self.small_rows[row.name], self.tensors, small))

    def settle(self, row: Row) -> None:
        if not row.norm:
            return
        kept = self.plan.kept[row.name]
        original, own = self.moments
        names = [f"{row.name}.bn.{part}" for part in ("running_mean", "running_var")]
        moved = self.model.tensors[names[0]][kept] + own.mean - original.mean[kept]
        scaled = self.model.tensors[names[1]][kept] * (own.variance + BATCH_NORM_EPS) / (original.variance[kept] + BATCH_NORM_EPS)
        self.tensors |= {name: values.astype(np.float32) for name, values in zip(names, (moved, scaled), strict=True)}


class _FittingOps(_PairedOps):
    def __init__(self, model: Model, plan: Plan, small: Model, samples: int, ridge: float, seed: int, progress: Progress | None) -> None:
        super().__init__(model, plan, small, progress)
        self.samples, self.ridge = samples, ridge
        self.generator = np.random.default_rng(seed)

    def fits(self, row: Row) -> bool:
        """Return whether a row is fitted: a depthwise convolution has nothing to combine, and the first one misses nothing."""
        return row.groups == 1 and row.inputs[0] != self.model.network.rows[0].name

    def weight(self, row: Row) -> np.ndarray:
        """Return the small network's weights of a row as they were cut, float64 `[channels, inputs x kernel x kernel]`."""
        tensor = self.tensors[row.weight_name].astype(np.float64)
        return tensor.reshape(len(tensor), -1)

    def begin(self, row: Row) -> None:
        if self.fits(row):
            outputs, inputs = self.weight(row).shape
            self.squares = LeastSquares(inputs, outputs)

    def look(self, row: Row, small: np.ndarray, wanted: np.ndarray) -> None:
        if not self.fits(row):
            return
        weight = self.weight(row)
        samples = self.sampled(row, small, wanted[:, self.plan.kept[row.name]])
        windows, outputs = (np.concatenate(side) for side in zip(*samples, strict=True))
        self.squares.add(windows, outputs - windows @ weight.T)  # the part of the outputs that the cut weights do not explain

    def settle(self, row: Row) -> None:
        if not self.fits(row):
            return
        change, intercept = self.squares.solve(self.ridge)
        shape = self.tensors[row.weight_name].shape
        self.tensors[row.weight_name] = (self.weight(row) + change).reshape(shape).astype(np.float32)
        name, sign = (f"{row.name}.bn.running_mean", -1.0) if row.norm else (f"{row.name}.bias", 1.0)
        if name in self.tensors:
            # The fit is to the original's output, so that the original's mean or bias is the one to start from.
            start = self.model.tensors[name][self.plan.kept[row.name]].astype(np.float64)
            self.tensors[name] = (start + sign * intercept).astype(np.float32)

    def sampled(self, row: Row, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, per picture, float64 windows `[n, inputs x kernel x kernel]` and outputs `[n, channels]` at random positions."""
        batch, _, height, width = y.shape
        padding = row.padding
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        view = np.lib.stride_tricks.sliding_window_view(padded, (row.kernel, row.kernel), (2, 3))[:, :, :: row.stride, :: row.stride]
        count = min(self.samples, height * width)
        for index in range(batch):
            cells = self.generator.choice(height * width, count, replace=False)
            lines, columns = np.divmod(cells, width)
            windows = view[index][:, lines, columns].transpose(1, 0, 2, 3).reshape(count, -1)
            yield windows.astype(np.float64), y[index][:, lines, columns].T.astype(np.float64)
