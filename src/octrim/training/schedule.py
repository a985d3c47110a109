"""Learning rate, momentum and accumulation over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from octrim.training.hyper import Hyperparameters


@dataclass(frozen=True)
class Schedule:
    """What an iteration (one batch) trains with.

    epochs: of the whole training. batches: per epoch. accumulate: batches per optimizer step, once warm. cosine: how the rate falls.
    """

    hyper: Hyperparameters
    epochs: int
    batches: int
    accumulate: int
    cosine: bool = False

    @property
    def warmup(self) -> int:
        """Iterations of warm-up; none where the recipe says 0 epochs."""
        return max(round(self.hyper.warmup_epochs * self.batches), 100) if self.hyper.warmup_epochs > 0 else 0

    def factor(self, epoch: int) -> float:
        """Of the learning rate in `epoch`, from 1 down towards lrf."""
        progress = epoch / self.epochs
        falling = (1 + math.cos(math.pi * progress)) / 2 if self.cosine else 1 - progress
        return falling * (1 - self.hyper.lrf) + self.hyper.lrf

    def at(self, epoch: int, batch: int) -> Settings:
        """Of batch `batch` of `epoch`, both from 0."""
        iteration, hyper = epoch * self.batches + batch, self.hyper
        rate = hyper.lr0 * self.factor(epoch)
        if iteration > self.warmup or not self.warmup:
            return Settings(rate, rate, hyper.momentum, self.accumulate)
        warm = iteration / self.warmup
        return Settings(
            rate=rate * warm,
            bias_rate=hyper.warmup_bias_lr + (rate - hyper.warmup_bias_lr) * warm,
            momentum=hyper.warmup_momentum + (hyper.momentum - hyper.warmup_momentum) * warm,
            accumulate=max(round(1 + (self.accumulate - 1) * warm), 1),
        )


@dataclass(frozen=True)
class Settings:
    """rate: of convolution and batch-norm weights. bias_rate: of biases, which warm up from above. accumulate: batches per step."""

    rate: float
    bias_rate: float
    momentum: float
    accumulate: int


def ema_decay(updates: int) -> float:
    """Of the moving average after so many optimizer steps: it follows fast at first."""
    return 0.9999 * (1 - math.exp(-updates / 2000))


def side_of_batch(side: int, stride: int, seed: int, epoch: int, batch: int) -> int:
    """A training size for multi-scale: 0.5 to 1.5 times `side`, a multiple of the stride."""
    drawn = np.random.default_rng((seed, epoch, batch, 1)).uniform(0.5, 1.5)  # 1: apart from the streams of the samples
    return max(round(side * drawn / stride), 1) * stride
