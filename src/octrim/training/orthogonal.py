"""Muon: steps of convolution kernels along a momentum whose singular values are all made about equal.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), kellerjordan.github.io/posts/muon. A kernel `[out, in, k, k]` is
taken for a matrix with a row per output channel. Its momentum is mostly a few strong directions; orthogonalised, the weak ones get steps of the same
length. A small network learns more in as many steps (docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from octrim.backends.paddle import paddle

STEP = 0.15
"""Length of a Muon step, relative to the learning rate: with it the rates that suit SGD suit the fine-tuning of networks that know something already.
Fresh weights want three times as high a rate (docs/notebook.md)."""

# Newton-Schulz iteration x <- a x + b (x xT) x + c (x xT)^2 x, with the published coefficients: five rounds bring every singular value from
# (0.003, 1] to between 0.68 and 1.14.
_ROUNDS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315
_TINY = 1e-7  # added to norms: a matrix of zeros stays zero


def _scaled(matrices: Any) -> Any:
    """Matrices divided by their norms."""
    return matrices / (paddle.sqrt((matrices * matrices).sum([1, 2], keepdim=True)) + _TINY)


def _product(gram: Any) -> Any:
    """What all rounds together multiply a matrix x by, from its Gram matrix x xT.

    Every round multiplies x by a polynomial p of its Gram matrix. Multiplied up by themselves, these cost half of what the published rounds do,
    because kernels have far more columns than rows.
    """
    product, one = None, paddle.eye(gram.shape[1])
    for left in reversed(range(_ROUNDS)):
        p = _A * one + _B * gram + _C * paddle.matmul(gram, gram)
        product = p if product is None else paddle.matmul(p, product)
        if left:
            gram = paddle.matmul(paddle.matmul(p, gram), p)
    return product


class Orthogonal:
    """The parts of a flat vector that are kernels, and their steps.

    slices: the part of every kernel, in the vector's order and without gaps. shapes: shapes `[out, in, k, k]` of the kernels, by the same names.
    """

    def __init__(self, slices: Mapping[str, slice], shapes: Mapping[str, tuple[int, ...]]) -> None:
        matrices: dict[tuple[int, int], list[np.ndarray]] = {}  # places of the kernels' values in the vector, by shape of the matrix that lies down
        lengths: dict[tuple[int, int], list[float]] = {}
        others: list[np.ndarray] = [np.zeros(0, np.int64)]
        for name, part in slices.items():
            places = np.arange(part.start, part.stop)
            out, entering = shapes[name][:2]
            if entering == 1:  # the rows of a depthwise kernel read different maps: they make no matrix
                others.append(places)
                continue
            places = places.reshape(out, -1)
            length = STEP * max(1.0, out / places.shape[1]) ** 0.5
            lying = places.T if out > places.shape[1] else places
            matrices.setdefault(lying.shape, []).append(lying)
            lengths.setdefault(lying.shape, []).append(length)
        self._shapes = [(len(found), *shape) for shape, found in matrices.items()]
        order = np.concatenate([*(np.stack(found).reshape(-1) for found in matrices.values()), *others])
        factors = np.ones(len(order), np.float32)
        ends = np.cumsum([np.prod(shape) for shape in self._shapes])
        for (count, rows, columns), end, found in zip(self._shapes, ends, lengths.values(), strict=True):
            factors[end - count * rows * columns : end] = np.repeat(np.asarray(found, np.float32), rows * columns)
        # The kernels of one shape are brought together and computed at once, and all Gram matrices of one size: a step is a few operations.
        self._sizes = [int(np.prod(shape)) for shape in self._shapes] + [sum(len(places) for places in others)]
        self._order, self._back = paddle.to_tensor(order), paddle.to_tensor(np.argsort(order))
        self._factors = paddle.to_tensor(factors)

    def steps(self, direction: Any) -> Any:
        """The steps for a direction of SGD, flat vectors: kernels' parts orthogonalised, times STEP; those of depthwise kernels as they are.

        The steps of kernels with more rows than columns are longer, as published, by the root of that ratio: each output changes as much.
        """
        *parts, others = paddle.split(paddle.gather(direction, self._order), self._sizes)
        matrices = [_scaled(part.reshape(shape)) for part, shape in zip(parts, self._shapes, strict=True)]
        found: list[Any] = [None] * len(matrices)
        for rows in {shape[1] for shape in self._shapes}:
            chosen = [index for index, shape in enumerate(self._shapes) if shape[1] == rows]
            grams = paddle.concat([paddle.matmul(matrices[index], matrices[index], transpose_y=True) for index in chosen])
            products = paddle.split(_product(grams), [self._shapes[index][0] for index in chosen])
            for index, product in zip(chosen, products, strict=True):
                found[index] = paddle.matmul(product, matrices[index]).reshape([-1])
        return paddle.gather(paddle.concat([*found, others]) * self._factors, self._back)
