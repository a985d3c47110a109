"""`octrim finetune`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.commands.train import start
from octrim.training.options import Distilled


@dataclass(frozen=True)
class Finetune(Distilled):
    """Train a cut network, with the network before the cut as its teacher; without --teacher from the labels alone."""

    def run(self) -> None:
        from octrim.training.finetune import run_finetuning

        start(self, run_finetuning)
