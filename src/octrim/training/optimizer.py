"""Parameters as one flat vector: clipping, SGD, AdamW and the moving average are a few operations on it.

Paddle's own optimizers know neither learning rates nor a momentum that change per group and step, which YOLOv5's warm-up needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from octrim.backends.paddle import PaddleNetwork, paddle
from octrim.network.cost import tensor_shapes
from octrim.training.checkpoint import kind_of
from octrim.training.schedule import Settings, ema_decay

CLIP = 10.0  # of the gradient's norm


class Flat:
    """Named tensors as one float32 vector, in a fixed order."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = dict(tensors)
        self.sizes = [tensor.size for tensor in self.tensors.values()]
        self.slices = dict(zip(self.tensors, _slices(self.sizes), strict=True))

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def values(self) -> Any:
        """A copy of the tensors' values."""
        return paddle.concat([tensor.detach().reshape([-1]) for tensor in self.tensors.values()])

    def gradient(self) -> Any:
        """The tensors' gradients, which are cleared; zeros where a tensor has none."""
        tensors = self.tensors.values()
        flat = paddle.concat([paddle.zeros([tensor.size]) if tensor.grad is None else tensor.grad.reshape([-1]) for tensor in tensors])
        for tensor in tensors:
            tensor.clear_gradient(set_to_zero=False)
        return flat

    def assign(self, values: Any) -> None:
        """Set the tensors in place."""
        with paddle.no_grad():
            for tensor, part in zip(self.tensors.values(), paddle.split(values, self.sizes), strict=True):
                paddle.assign(part.reshape(tensor.shape), tensor)


def _slices(sizes: list[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


class Weights:
    """A network's parameters and statistics while it trains.

    parameters: flat, the convolution weights first, then those of batch norm, then the biases. statistics: batch norm's running mean
    and variance. groups: these three parts of the parameters, as slices.
    """

    def __init__(self, network: PaddleNetwork) -> None:
        kinds: list[dict[str, Any]] = [{}, {}, {}, {}]
        tensors = network.named_tensors()
        for name in tensor_shapes(network.network):
            kinds[kind_of(name)][name] = tensors[name]
        self.parameters = Flat(kinds[0] | kinds[1] | kinds[2])
        self.statistics = Flat(kinds[3])
        counts = [sum(tensor.size for tensor in kind.values()) for kind in kinds[:3]]
        self.groups = _slices(counts)

    def values(self) -> Any:
        """Parameters and statistics as one vector."""
        return paddle.concat([self.parameters.values(), self.statistics.values()])

    def assign(self, values: Any) -> None:
        parameters, statistics = paddle.split(values, [self.parameters.size, self.statistics.size])
        self.parameters.assign(parameters)
        self.statistics.assign(statistics)


@dataclass
class Optimizer:
    """SGD with Nesterov momentum, or AdamW. moments: flat vectors like the parameters, one for SGD and two for AdamW.

    decay: of convolution weights only. trained: 1 for parameters that train and 0 for frozen ones, a flat vector; None where all do.
    """

    weights: Weights
    kind: str
    decay: float
    moments: list[Any]
    steps: int = 0
    trained: Any = None

    @classmethod
    def create(cls, weights: Weights, kind: str, decay: float, trained: Any = None) -> Optimizer:
        moments = [paddle.zeros([weights.parameters.size]) for _ in range(2 if kind == "AdamW" else 1)]
        return cls(weights, kind, decay, moments, trained=trained)

    def step(self, gradient: Any, settings: Settings) -> bool:
        """One step along a flat gradient, whose norm is clipped at CLIP; False, and no step, where the gradient is not finite."""
        norm = paddle.sqrt((gradient * gradient).sum())
        if not isfinite(norm.numpy().item()):
            return False
        self.steps += 1
        gradient = gradient * paddle.clip(CLIP / (norm + 1e-6), max=1.0)
        values = self.weights.parameters.values()
        update = self._sgd if self.kind == "SGD" else self._adamw
        rates = (settings.rate, settings.rate, settings.bias_rate)
        decays = (self.decay, 0.0, 0.0)
        parts, moments = [], []
        for where, rate, decay in zip(self.weights.groups, rates, decays, strict=True):
            if where.stop > where.start:
                part, moved = update(values[where], gradient[where], [moment[where] for moment in self.moments], rate, decay, settings.momentum)
                parts.append(part)
                moments.append(moved)
        new = paddle.concat(parts)
        self.moments = [paddle.concat(list(moment)) for moment in zip(*moments, strict=True)]
        self.weights.parameters.assign(new if self.trained is None else paddle.where(self.trained > 0, new, values))
        return True

    def _sgd(self, values: Any, gradient: Any, moments: list[Any], rate: float, decay: float, momentum: float) -> tuple[Any, list[Any]]:
        gradient = gradient + decay * values if decay else gradient
        velocity = momentum * moments[0] + gradient
        return values - rate * (gradient + momentum * velocity), [velocity]

    def _adamw(self, values: Any, gradient: Any, moments: list[Any], rate: float, decay: float, momentum: float) -> tuple[Any, list[Any]]:
        first = momentum * moments[0] + (1 - momentum) * gradient
        second = 0.999 * moments[1] + 0.001 * gradient * gradient
        # AdamW's bias correction supposes one beta1 throughout; warm-up moves it, and the product of all is not worth keeping.
        mean, square = first / (1 - momentum**self.steps), second / (1 - 0.999**self.steps)
        return values * (1 - rate * decay) - rate * mean / (paddle.sqrt(square) + 1e-8), [first, second]


class MovingAverage:
    """The exponential moving average of parameters and statistics, which is what is evaluated and kept."""

    def __init__(self, values: Any, updates: int = 0) -> None:
        self.values, self.updates = values, updates

    def update(self, values: Any) -> None:
        self.updates += 1
        decay = ema_decay(self.updates)
        # What does not change, as frozen weights, must not drift by rounding.
        self.values = paddle.where(values == self.values, values, decay * self.values + (1 - decay) * values)
