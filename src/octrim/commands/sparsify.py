"""`octrim sparsify`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.commands.train import start
from octrim.training.options import Sparsifying


@dataclass(frozen=True)
class Sparsify(Sparsifying):
    """Train with a penalty that drives whole channels to zero, so that cutting them costs nothing. The last epoch is the result; no patience."""

    def run(self) -> None:
        from octrim.training.sparsify import run_sparsity_training

        start(self, run_sparsity_training)
