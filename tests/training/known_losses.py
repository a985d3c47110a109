"""In place of measurements on pictures: what a network loses without rows is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octrim.network.cost import network_cost
from octrim.network.model import Model

_SIDE = 64

LOSSES = {"model.4.cv2": 0.5, "model.7.cv3": 0.01, "model.2.m.0.cv1": 0.02}
"""In TINY, without the level of stride 8 and without the pooling the network finds nothing; the level of stride 4 is hardly missed."""


@dataclass(eq=False)
class KnownLosses:
    """mAP50-95 of the whole network without rows is .8 less a sum over these rows; that of cuts of channels falls with their MACs."""

    model: Model
    losses: Mapping[str, float]

    @classmethod
    def by(cls, losses: Mapping[str, float]) -> Callable[..., KnownLosses]:
        """What stands for the class `octrim.training.sensitivity.Measuring`."""

        def made(model: Model, *_: Any) -> KnownLosses:
            return cls(model, losses)

        return made

    def of(self, model: Model) -> float:
        share = network_cost(model.network, _SIDE).macs / network_cost(self.model.network, _SIDE).macs
        return 0.8 - 0.4 * (1 - share)

    def without(self, gone: Sequence[str]) -> float:
        return max(0.8 - sum(self.losses.get(name, 0.0) for name in gone), 0.0)
