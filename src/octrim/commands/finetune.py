"""`octrim finetune`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.commands.train import start
from octrim.training.options import Finetuning


@dataclass(frozen=True)
class Finetune(Finetuning):
    """Train a cut network with the network before the cut as teacher; or, with --keep, --budget or --keep-map, a whole one that is cut on the way."""

    def run(self) -> None:
        from octrim.training.finetune import run_finetuning

        start(self, run_finetuning)
