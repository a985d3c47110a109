"""A cut and its repairs, one after the other, with progress."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.console import Console

from octrim.network.model import Model
from octrim.progress import progress_bar
from octrim.pruning.cut import prune
from octrim.pruning.plan import Plan
from octrim.pruning.repair import compensated, recalibrated, reconstructed


def cut_and_repaired(
    model: Model,
    made: Plan,
    compensate: bool,
    reconstruct: Iterable[np.ndarray] | None = None,
    recalibrate: Iterable[np.ndarray] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Model:
    """Return the model cut as planned, and repaired as asked.

    reconstruct, recalibrate: pictures as from `network_inputs`, or None to leave the repair out. console: where progress shows.
    """
    smaller = prune(model, made)
    if compensate:
        smaller = compensated(model, made, smaller)
    if reconstruct is not None:
        with progress_bar("reconstruct", len(model.network.convs), console) as bar:
            smaller = reconstructed(model, made, smaller, reconstruct, seed=seed, progress=lambda name: bar.advance(1, f"reconstruct {name}"))
    if recalibrate is not None:
        with progress_bar("recalibrate", len(model.network.convs), console) as bar:
            smaller = recalibrated(model, made, smaller, recalibrate, lambda name: bar.advance(1, f"recalibrate {name}"))
    return smaller
