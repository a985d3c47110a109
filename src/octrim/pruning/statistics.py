"""Moments and least squares of more data than fit into memory, in float64.

Parts are merged by the update of Chan, Golub and LeVeque (1979), which subtracts no large sums from each other.
"""

from __future__ import annotations

import numpy as np


class Moments:
    """Mean and biased variance per channel of everything that was added."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)  # sums of squared distances from the mean

    def add(self, maps: np.ndarray) -> None:
        """Add float maps `[pictures, channels, height, width]`."""
        for picture in maps:
            values = picture.reshape(len(picture), -1).astype(np.float64)
            mean = values.mean(1)
            values -= mean[:, None]
            count = self.count + values.shape[1]
            step = mean - self.mean
            self.mean += step * (values.shape[1] / count)
            self._squares += np.einsum("ij,ij->i", values, values) + step**2 * (self.count * values.shape[1] / count)
            self.count = count

    @property
    def variance(self) -> np.ndarray:
        return self._squares / self.count


class LeastSquares:
    """Ridge regression with an intercept, of outputs on inputs that come in parts."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.count = 0
        self._means = np.zeros(inputs), np.zeros(outputs)
        self._gram = np.zeros((inputs, inputs))  # Gram matrix of the inputs around their mean
        self._cross = np.zeros((inputs, outputs))

    def add(self, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Add float64 samples `[n, inputs]` and `[n, outputs]`."""
        means = inputs.mean(0), outputs.mean(0)
        steps = [new - old for new, old in zip(means, self._means, strict=True)]
        count = self.count + len(inputs)
        weight = self.count * len(inputs) / count
        centred = inputs - means[0]
        self._gram += centred.T @ centred
        self._gram += np.outer(weight * steps[0], steps[0])
        self._cross += centred.T @ (outputs - means[1])
        self._cross += np.outer(weight * steps[0], steps[1])
        for mean, step in zip(self._means, steps, strict=True):
            mean += step * (len(inputs) / count)
        self.count = count

    def solve(self, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients `[outputs, inputs]` and intercepts `[outputs]`; ridge: relative to the mean square of the inputs around their mean."""
        gram = self._gram.copy()
        gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram) + np.finfo(float).tiny
        coefficients = np.linalg.solve(gram, self._cross).T
        return coefficients, self._means[1] - coefficients @ self._means[0]
