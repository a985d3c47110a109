"""`octrim train`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.training.options import Training


@dataclass(frozen=True)
class Train(Training):
    """Train a detector, from given weights or from scratch."""

    def run(self) -> None:
        from octrim.training.train import train_command

        train_command(self)
