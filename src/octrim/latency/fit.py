"""Coefficients of a network's time, fitted to networks that were measured: least squares of relative errors, without negative times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octrim.latency.terms import BLOCKS, TERMS, Blocks, Rows

_FOLDS = 4  # parts of the measured networks, each of which is predicted from the others to choose the blocks
_ROUNDS = 4  # fits, after each of which networks far off their prediction, whose measurement was disturbed, count less
_FAR = 2.5  # standard deviations from which on a network counts less


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients of a network's time in milliseconds.

    overhead: time of a network without rows. kinds: names of the rows' kinds. coefficients: float64 `[kinds, terms]`. blocks: channels per block.
    """

    overhead: float
    kinds: tuple[str, ...]
    coefficients: np.ndarray
    blocks: Blocks

    def times(self, rows: Rows) -> np.ndarray:
        """Milliseconds of networks, float64 `[networks]`. Every kind of row must be known."""
        places = [self.kinds.index(kind) for kind in rows.kinds]
        return self.overhead + np.einsum("nrt,rt->n", rows.terms(self.blocks), self.coefficients[places])


def fitted(networks: Sequence[Rows], milliseconds: Sequence[float], blocks: Sequence[Blocks] = BLOCKS) -> Fit:
    """The fit to measured networks, with those blocks under which each part of them is predicted best from the others.

    networks: rows of one network each. milliseconds: their times.
    """
    times = np.asarray(milliseconds, np.float64)
    kinds = tuple(sorted({kind for rows in networks for kind in rows.kinds}))
    designs = {choice: _design(networks, kinds, choice) for choice in dict.fromkeys(blocks)}
    errors = {choice: _error(design, times) for choice, design in designs.items()} if len(designs) > 1 else {}
    best = min(designs, key=lambda choice: errors.get(choice, 0.0))
    solution = _robust(designs[best], times)
    return Fit(float(solution[0]), kinds, solution[1:].reshape(len(kinds), len(TERMS)), best)


def _design(networks: Sequence[Rows], kinds: Sequence[str], blocks: Blocks) -> np.ndarray:
    """What the coefficients are multiplied by, float64 `[networks, 1 + kinds * terms]`; the first is of the overhead."""
    places = {kind: index for index, kind in enumerate(kinds)}
    design = np.zeros((len(networks), len(kinds), len(TERMS)))
    for line, rows in zip(design, networks, strict=True):
        np.add.at(line, [places[kind] for kind in rows.kinds], rows.terms(blocks)[0])
    return np.hstack([np.ones((len(networks), 1)), design.reshape(len(networks), -1)])


def _error(design: np.ndarray, times: np.ndarray) -> float:
    """Mean relative error of networks that are predicted from the others; those of the worst twentieth, often disturbed, count as its border."""
    parts = np.arange(len(times)) % _FOLDS
    found = np.empty(len(times))
    for part in range(_FOLDS):
        held = parts == part
        found[held] = design[held] @ _robust(design[~held], times[~held])
    errors = np.abs(found / times - 1)
    return float(np.minimum(errors, np.quantile(errors, 0.95)).mean())


def _robust(design: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Coefficients of least relative error, where networks far off their prediction count less (Huber 1964)."""
    weights = np.ones(len(times))
    solution = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        factors = weights / times
        solution = non_negative(design * factors[:, None], weights)
        errors = np.abs(design @ solution / times - 1)
        deviation = 1.4826 * float(np.median(errors))
        if deviation == 0:
            break
        weights = np.sqrt(np.minimum(1, _FAR * deviation / np.maximum(errors, 1e-12)))
    return solution


def non_negative(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The solution x >= 0 of least squared error of `matrix @ x = values` (Lawson and Hanson 1974)."""
    scale = np.maximum(np.sqrt((matrix**2).sum(0)), 1e-300)
    gram, target = (matrix / scale).T @ (matrix / scale), (matrix / scale).T @ values
    count = len(target)
    x, free = np.zeros(count), np.zeros(count, bool)
    enough = 1e-10 * float(np.abs(target).max(initial=0))
    for _ in range(3 * count):
        gradient = target - gram @ x
        if free.all() or gradient[~free].max() <= enough:
            break
        free[np.argmax(np.where(free, -np.inf, gradient))] = True
        while True:
            places = np.flatnonzero(free)
            wanted = np.zeros(count)
            wanted[places] = np.linalg.lstsq(gram[np.ix_(places, places)], target[places], rcond=None)[0]
            negative = places[wanted[places] <= 0]
            if not len(negative):
                break
            step = float((x[negative] / np.maximum(x[negative] - wanted[negative], 1e-300)).min())
            x += step * (wanted - x)
            free &= x > 1e-14
            x[~free] = 0
        x = wanted
    return x / scale
