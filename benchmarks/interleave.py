"""Times several things side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from time import perf_counter
from typing import TypeVar

import numpy as np

from octrim.deploy.bench import turns

K = TypeVar("K", bound=Hashable)


def interleaved(candidates: Mapping[K, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[K, np.ndarray]:
    """Milliseconds of `rounds` timed runs of every candidate, taking turns in short bursts."""
    names = list(candidates)
    times: dict[K, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(warmup):
            candidates[name]()
    for which, timed in turns(len(names), rounds):
        start = perf_counter()
        candidates[names[which]]()
        if timed:
            times[names[which]].append(1000 * (perf_counter() - start))
    return {name: np.asarray(values) for name, values in times.items()}


def table(times: dict[str, np.ndarray], yardstick: str) -> None:
    """Medians, spread, and the median of the ratio to the yardstick round by round."""
    width = max(map(len, times))
    print(f"{'':{width}}  median ms     p10     p90   yardstick / this")
    for name, values in times.items():
        ratio = np.median(times[yardstick] / values)
        print(f"{name:{width}}  {np.median(values):9.2f} {np.percentile(values, 10):7.2f} {np.percentile(values, 90):7.2f}   {ratio:.2f}")
