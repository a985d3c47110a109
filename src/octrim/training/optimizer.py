"""Optimizers over one flat vector of all parameters: clipping, SGD, Muon, AdamW and the moving average are a few operations on it.

Paddle's own optimizers have no learning rates and momentum that change per group and step, which YOLOv5's warm-up needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.network.cost import tensor_shapes
from octrim.training.orthogonal import Orthogonal
from octrim.training.schedule import PUBLISHED, Averaging, Settings
from octrim.training.vectors import kind_of

CLIP = 10.0  # largest norm of the gradient; longer gradients are scaled down to it


class Flat:
    """Named tensors that live in one float32 vector, in a fixed order: each tensor is a view of its part of the vector and shares its memory.

    leaf: tensor like the vector that receives gradients of all tensors at once, besides those that the tensors receive; None where there is none.
    """

    leaf: Any = None

    def __init__(self, tensors: Mapping[str, Any], vector: Any) -> None:
        """Move the tensors into the vector, whose size is the sum of theirs."""
        self.tensors, self.vector = dict(tensors), vector
        self.slices = dict(zip(self.tensors, _slices([tensor.size for tensor in self.tensors.values()]), strict=True))
        for name, tensor in self.tensors.items():
            part = vector[self.slices[name]].reshape(tensor.shape)
            paddle.assign(tensor.detach(), part)
            tensor.get_tensor()._share_data_with(part.get_tensor())
            if tensor.data_ptr() != vector.data_ptr() + 4 * self.slices[name].start:  # a copy would not change with the vector
                raise RuntimeError(f"{name}: Paddle does not let tensors share memory")

    @property
    def size(self) -> int:
        return self.vector.size

    def values(self) -> Any:
        """A copy of all values, as a flat vector."""
        return self.vector.clone()

    def gradient(self) -> Any:
        """Take the tensors' gradients as a flat vector and clear them; zeros where a tensor has none."""
        found = []
        if self.leaf is not None and self.leaf.grad is not None:
            found.append(self.leaf.grad.clone())
            self.leaf.clear_gradient(set_to_zero=False)
        tensors = self.tensors.values()
        if not found or any(tensor.grad is not None for tensor in tensors):
            found.append(paddle.concat([paddle.zeros([tensor.size]) if tensor.grad is None else tensor.grad.reshape([-1]) for tensor in tensors]))
            for tensor in tensors:
                tensor.clear_gradient(set_to_zero=False)
        return found[0] if len(found) == 1 else found[0] + found[1]

    def assign(self, values: Any) -> None:
        """Set all tensors in place from a flat vector."""
        paddle.assign(values, self.vector)


def _slices(sizes: list[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


class Weights:
    """A network's parameters and batch-norm statistics in one flat vector while it trains.

    parameters: first part of the vector: convolution weights, then batch-norm weights, then biases. statistics: the rest: running means and
    variances of batch norm. groups: the three parts of the parameters, as slices.
    """

    def __init__(self, network: PaddleNetwork) -> None:
        kinds: list[dict[str, Any]] = [{}, {}, {}, {}]
        tensors = network.named_tensors()
        for name in tensor_shapes(network.network):
            kinds[kind_of(name)][name] = tensors[name]
        counts = [sum(tensor.size for tensor in kind.values()) for kind in kinds]
        self.vector = paddle.empty([sum(counts)], "float32")
        self.parameters = Flat(kinds[0] | kinds[1] | kinds[2], self.vector[: sum(counts[:3])])
        self.statistics = Flat(kinds[3], self.vector[sum(counts[:3]) :])
        self.groups = _slices(counts[:3])
        offset = self.parameters.size
        later = {name: slice(part.start + offset, part.stop + offset) for name, part in self.statistics.slices.items()}
        self.parameters.leaf = network.moved(self.vector, self.parameters.slices | later, offset)

    def values(self) -> Any:
        """A copy of parameters and statistics as one flat vector."""
        return self.vector.clone()

    def assign(self, values: Any) -> None:
        paddle.assign(values, self.vector)

    def kernels(self) -> Orthogonal:
        """The kernels of all convolutions, which are the first group of the parameters, for orthogonal steps."""
        slices = {name: part for name, part in self.parameters.slices.items() if part.stop <= self.groups[0].stop}
        return Orthogonal(slices, {name: tuple(self.parameters.tensors[name].shape) for name in slices})


@dataclass(eq=False)
class Optimizer:
    """SGD with Nesterov momentum, Muon, or AdamW. moments: flat vectors like the parameters, one for SGD and Muon, two for AdamW.

    decay: weight decay, of convolution weights only. trained: flat vector, 1 for parameters that train and 0 for frozen ones; None where all train.
    Muon is SGD but for the kernels of convolutions, whose steps it makes orthogonal (`octrim.training.orthogonal`).
    """

    weights: Weights
    kind: str
    decay: float
    moments: list[Any]
    steps: int = 0
    trained: Any = None
    _kernels: Orthogonal | None = None

    @classmethod
    def create(cls, weights: Weights, kind: str, decay: float, trained: Any = None) -> Optimizer:
        moments = [paddle.zeros([weights.parameters.size]) for _ in range(2 if kind == "AdamW" else 1)]
        kernels = weights.kernels() if kind == "Muon" else None
        return cls(weights, kind, decay, moments, trained=trained, _kernels=kernels)

    def step(self, gradient: Any, settings: Settings) -> bool:
        """Do one step along a flat gradient, whose norm is clipped at CLIP; False, and no step, where the gradient is not finite."""
        norm = paddle.sqrt((gradient * gradient).sum())
        if not isfinite(norm.numpy().item()):
            return False
        self.steps += 1
        gradient = gradient * paddle.clip(CLIP / (norm + 1e-6), max=1.0)
        updates = {"SGD": (self._sgd, self._sgd), "Muon": (self._muon, self._sgd), "AdamW": (self._adamw, self._adamw)}[self.kind]
        rates = (settings.rate, settings.rate, settings.bias_rate)
        decays = (self.decay, 0.0, 0.0)
        for where, rate, decay, update in zip(self.weights.groups, rates, decays, (updates[0], updates[1], updates[1]), strict=True):
            if where.stop > where.start:
                values = self.weights.parameters.vector[where]
                change = update(values, gradient[where], [moment[where] for moment in self.moments], rate, decay, settings.momentum)
                values.subtract_(change if self.trained is None else change * self.trained[where])
        return True

    # `_sgd`, `_muon` and `_adamw` return what is to be subtracted from the values of a group, and update the group's moments in place.

    def _sgd(self, values: Any, gradient: Any, moments: list[Any], rate: float, decay: float, momentum: float) -> Any:
        return rate * _nesterov(values, gradient, moments[0], decay, momentum)

    def _muon(self, values: Any, gradient: Any, moments: list[Any], rate: float, decay: float, momentum: float) -> Any:
        assert self._kernels is not None
        return rate * self._kernels.steps(_nesterov(values, gradient, moments[0], decay, momentum))

    def _adamw(self, values: Any, gradient: Any, moments: list[Any], rate: float, decay: float, momentum: float) -> Any:
        first = moments[0].scale_(momentum).add_((1 - momentum) * gradient)
        second = moments[1].scale_(0.999).add_(0.001 * gradient * gradient)
        # The bias correction takes beta1 as constant. Warm-up changes it, but the exact product of all past values is not worth keeping.
        mean, square = first / (1 - momentum**self.steps), second / (1 - 0.999**self.steps)
        return rate * (decay * values + mean / (paddle.sqrt(square) + 1e-8))


def _nesterov(values: Any, gradient: Any, velocity: Any, decay: float, momentum: float) -> Any:
    """Nesterov's direction for a gradient with weight decay; `velocity` is updated in place."""
    gradient = gradient + decay * values if decay else gradient
    return gradient + momentum * velocity.scale_(momentum).add_(gradient)


class MovingAverage:
    """The exponential moving average of parameters and statistics; it is what a training evaluates and saves as weights.

    values: the average, a flat vector. averaging: how far back it reaches. updates: number of updates so far.
    """

    def __init__(self, values: Any, averaging: Averaging = PUBLISHED, updates: int = 0) -> None:
        self.values, self.averaging, self.updates = values, averaging, updates

    def update(self, values: Any) -> None:
        self.updates += 1
        decay = self.averaging.at(self.updates)
        # Values that do not change, such as frozen weights, must not drift by rounding.
        self.values = paddle.where(values == self.values, values, decay * self.values + (1 - decay) * values)
