"""`octrim finetune`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.training.options import Distilled


@dataclass(frozen=True)
class Finetune(Distilled):
    """Train a cut network, with the network before the cut as its teacher; without --teacher from the labels alone."""

    def run(self) -> None:
        from octrim.training.finetune import finetune_command

        finetune_command(self)
