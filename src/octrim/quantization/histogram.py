"""Distribution of a map's values, counted in one pass and constant memory, and the value at which to clip them for int8."""

from __future__ import annotations

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.scales import LEAST_SCALE, LEVELS

BINS = 2048

METHODS = ("max", "percentile", "histogram")

_OCTAVES = 8  # octaves below the largest value in which `clip` looks for the least error, first in eighths of an octave, then in quarters of these


class Histogram:
    """Histogram of |x|: counts in BINS equal bins from 0 to `range`, a power of two. For a larger value `range` doubles and bins merge in pairs.

    With powers of two both the division into bins and the merging are exact: the counts are the same as those of all values at once.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.range = LEAST_SCALE
        self.max = 0.0

    def add(self, x: np.ndarray) -> None:
        """Count the values of x, float32 of any shape. Raises InputError for values that are not finite."""
        if not x.size:
            return
        top = max(float(x.max()), -float(x.min()))
        if not np.isfinite(top):
            raise InputError("values that are not finite")
        self.max = max(self.max, top)
        doublings = 0
        while self.range <= top:
            self.range *= 2
            doublings += 1
        if doublings:
            merged = self.counts.reshape(-1, min(2**doublings, BINS)).sum(1)
            self.counts = np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])
        factor = np.float32(BINS / self.range)
        flat = x.reshape(-1)
        for start in range(0, len(flat), _BLOCK):
            bins = (np.abs(flat[start : start + _BLOCK]) * factor).astype(np.int32)
            self.counts += np.bincount(bins, minlength=BINS)

    @property
    def width(self) -> float:
        """Width of a bin, in units of x."""
        return self.range / BINS

    def above(self, clip: float) -> float:
        """Share of the values above `clip`, 0..1; values are taken as spread evenly in their bin."""
        total = int(self.counts.sum())
        if clip >= self.max or not total:
            return 0.0
        position = clip / self.width
        index = int(position)
        return float((self.counts[index + 1 :].sum() + self.counts[index] * (index + 1 - position)) / total)

    def percentile(self, percentile: float) -> float:
        """The value that `percentile` percent of |x| do not exceed; 100 gives the largest."""
        wanted = self.counts.sum() * (percentile / 100)
        below = np.cumsum(self.counts)
        index = int(np.searchsorted(below, wanted))
        if percentile >= 100 or index >= BINS:
            return self.max
        inside = (wanted - (below[index] - self.counts[index])) / max(self.counts[index], 1)
        return min(float((index + inside) * self.width), self.max)

    def squared_errors(self, clips: np.ndarray) -> np.ndarray:
        """Sum over all values of (x - its int8 value)^2 for every clip in `[n]`, all above 0: rounding and clipping together.

        Values are taken as spread evenly in their bin, over which the error is integrated exactly: the error at the middle of a bin alone would
        be much too small or too large where steps and bins are of similar width.
        """
        used = int(np.flatnonzero(self.counts)[-1]) + 1 if self.counts.any() else 0
        edges = np.arange(used + 1) * self.width
        errors = np.empty(len(clips))
        for index, clip in enumerate(clips):
            step = clip / LEVELS
            u = edges / step
            level = np.minimum(np.rint(u), LEVELS)
            # Integral of (v - nearest level)^2 from 0 to u, in steps: 1/12 per level passed, plus the part between the nearest level and u.
            integral = level / 12 + (u - level) ** 3 / 3
            errors[index] = (self.counts[:used] * np.diff(integral)).sum() * step**3 / self.width
        return errors

    def clip(self, method: str, percentile: float = 99.999) -> float:
        """The value at which to clip |x|: the largest value (`max`), the percentile, or the value with the least squared error (`histogram`)."""
        if method == "percentile":
            return self.percentile(percentile)
        if method == "max" or self.max <= LEAST_SCALE:
            return self.max
        coarse = self.max * 2.0 ** (-np.arange(8 * _OCTAVES + 1) / 8)
        best = coarse[np.argmin(self.squared_errors(coarse))]
        fine = np.minimum(best * 2.0 ** (np.arange(-4, 5) / 32), self.max)
        return float(fine[np.argmin(self.squared_errors(fine))])


_BLOCK = 1 << 16  # number of values counted at a time, so that intermediate results stay in the cache


def check_method(method: str, percentile: float) -> None:
    """Raise InputError for a method that does not exist, or a percentile out of range."""
    if method not in METHODS:
        raise InputError(f"method is {shown(method)}, expected {', '.join(METHODS)}")
    if not 50 <= percentile <= 100:
        raise InputError(f"percentile is {percentile}, expected 50 to 100")
