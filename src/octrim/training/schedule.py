"""Schedule of learning rate, momentum and accumulation over a training, and how far back its moving average reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from octrim.training.hyper import Hyperparameters


@dataclass(frozen=True)
class Schedule:
    """Schedule of the settings of every iteration (one batch).

    epochs: epochs of the whole training. batches: batches per epoch. accumulate: batches per optimizer step after warm-up. cosine: whether the
    learning rate falls along a cosine instead of a line.
    """

    hyper: Hyperparameters
    epochs: int
    batches: int
    accumulate: int
    cosine: bool = False

    @property
    def warmup(self) -> int:
        """Number of warm-up iterations; 0 where the recipe has 0 warm-up epochs, else at least 100."""
        return max(round(self.hyper.warmup_epochs * self.batches), 100) if self.hyper.warmup_epochs > 0 else 0

    @property
    def updates(self) -> int:
        """Number of optimizer steps of the whole training, without the additional ones of a warm-up in which fewer batches make a step."""
        return max(round(self.epochs * self.batches / self.accumulate), 1)

    def factor(self, epoch: int) -> float:
        """Factor of the learning rate in `epoch`, which falls from 1 towards lrf."""
        progress = epoch / self.epochs
        falling = (1 + math.cos(math.pi * progress)) / 2 if self.cosine else 1 - progress
        return falling * (1 - self.hyper.lrf) + self.hyper.lrf

    def at(self, epoch: int, batch: int) -> Settings:
        """Settings of batch number `batch` of `epoch`, both counted from 0."""
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

    def columns(self, epoch: int) -> dict[str, float]:
        """Columns of results.csv: the learning rates at the end of `epoch`. lr0 is the one of the biases."""
        settings = self.at(epoch, self.batches - 1)
        return {"x/lr0": settings.bias_rate, "x/lr1": settings.rate, "x/lr2": settings.rate}


@dataclass(frozen=True)
class Settings:
    """Settings of an iteration. rate: learning rate of convolution and batch-norm weights. bias_rate: learning rate of biases, which falls during
    warm-up. accumulate: batches per optimizer step."""

    rate: float
    bias_rate: float
    momentum: float
    accumulate: int


@dataclass(frozen=True)
class Averaging:
    """How far back a moving average reaches: its decay after `u` updates is decay (1 - exp(-u / ramp)); the defaults are the published numbers.

    decay: the decay that is approached, 0 to less than 1; the average then reaches back about 1 / (1 - decay) updates. ramp: updates, more than 0,
    over which the decay grows: it is small at first, so that the average follows fast.
    """

    decay: float = 0.9999
    ramp: float = 2000.0

    def at(self, updates: int) -> float:
        """Decay of the update number `updates`, counted from 1."""
        return self.decay * (1 - math.exp(-updates / self.ramp))

    def updates_within(self, window: float) -> int | None:
        """Largest number of updates after which the average reaches back at most `window`, more than 1, of them; None where it never does more."""
        decay = 1 - 1 / window
        return None if decay >= self.decay else int(-self.ramp * math.log(1 - decay / self.decay))


PUBLISHED = Averaging()
"""The moving average as YOLOv5 published it, made for some hundred thousand updates."""

WINDOW = 0.25
"""Share of a training's updates over which its moving average reaches back, by `averaging`."""

RAMP = 0.1
"""Share of a training's updates over which the decay of its moving average grows, by `averaging`."""


def averaging(updates: int) -> Averaging:
    """The moving average for a training of `updates` optimizer steps, 1 or more: it reaches back a fixed share of them, and no more than published.

    The window 1 / (1 - decay) is WINDOW of the training: 2,000 updates give a decay of .998, 40,000 and more the published .9999. The ramp is RAMP of
    the training, at most the published 2,000. The reason: the published decay grows so slowly that after 2,000 updates it is .63 and averages three
    of them, so that the epochs of a short training are as noisy as without an average. In the last quarter of a training the learning rate is at
    most a quarter of its first value: the weights hardly move on, and averaging over it removes noise and lags little.
    """
    window = max(WINDOW * updates, 1)
    return Averaging(min(1 - 1 / window, PUBLISHED.decay), min(RAMP * updates, PUBLISHED.ramp))


def side_of_batch(side: int, stride: int, seed: int, epoch: int, batch: int) -> int:
    """Picture side in pixels of one batch in multi-scale training: 0.5 to 1.5 times `side`, a multiple of the stride."""
    drawn = np.random.default_rng((seed, epoch, batch, 1)).uniform(0.5, 1.5)  # the 1 keeps this stream apart from those of the samples
    return max(round(side * drawn / stride), 1) * stride
