"""`octrim train`, and how all commands that train are started: in this process, or in one per device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from octrim.options import arguments_of
from octrim.training.options import Training

T = TypeVar("T", bound=Training)


@dataclass(frozen=True)
class Train(Training):
    """Train a detector, from given weights or from scratch."""

    def run(self) -> None:
        from octrim.training.train import run_training

        start(self, run_training)


def start(config: T, work: Callable[[T], object]) -> None:
    """Run a training from options or a run to resume; with several devices in as many processes, each of which comes here again."""
    from octrim.training.parallel import launch, launched
    from octrim.training.setup import check, to_resume

    devices = config.devices or 1
    if config.devices is None and config.resume is not None:
        devices = to_resume(config).config.devices or 1
    if devices <= 1 or launched():
        work(config)
        return
    if config.resume is None:
        check(config)
    code = launch(arguments_of(dataclasses.replace(config, devices=devices)), devices)
    if code:
        raise SystemExit(code)
