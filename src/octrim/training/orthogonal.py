"""Muon: steps of convolution kernels along a momentum whose singular values are all made about equal.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), kellerjordan.github.io/posts/muon. A kernel `[out, in, k, k]` is
taken for a matrix with a row per output channel. Its momentum is mostly a few strong directions; orthogonalised, the weak ones get steps of the same
length. A small network learns more in as many steps (docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octrim.backends.paddle import paddle

STEP = 0.15
"""Length of a Muon step, relative to the learning rate: with it the rates that suit SGD suit the fine-tuning of networks that know something already.
Fresh weights want three times as high a rate (docs/notebook.md)."""

# Newton-Schulz iteration x <- a x + b (x xT) x + c (x xT)^2 x, with the published coefficients: five rounds bring every singular value from
# (0.003, 1] to between 0.68 and 1.14.
_ROUNDS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315
_TINY = 1e-7  # added to norms: a matrix of zeros stays zero


def orthogonalised(matrices: Any) -> Any:
    """Matrices with the same singular vectors, and singular values of about 1 (0.68 to 1.14) where they were more than 0.003 of the matrix's norm.

    matrices: float32 `[count, rows, columns]`; so is the result.
    """
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose([0, 2, 1]) if upright else matrices
    x = x / (paddle.sqrt((x * x).sum([1, 2], keepdim=True)) + _TINY)
    # Every round multiplies x by a polynomial p of its Gram matrix x xT. Multiplied up by themselves, they cost half of what the published rounds
    # do, because kernels have far more columns than rows.
    gram, product = paddle.matmul(x, x, transpose_y=True), None
    one = paddle.eye(x.shape[1])
    for left in reversed(range(_ROUNDS)):
        p = _A * one + _B * gram + _C * paddle.matmul(gram, gram)
        product = p if product is None else paddle.matmul(p, product)
        if left:
            gram = paddle.matmul(paddle.matmul(p, gram), p)
    x = paddle.matmul(product, x)
    return x.transpose([0, 2, 1]) if upright else x


class Orthogonal:
    """The parts of a flat vector that are kernels, and their steps.

    slices: the part of every kernel, in the vector's order and without gaps. shapes: shapes `[out, in, k, k]` of the kernels, by the same names.
    """

    def __init__(self, slices: Mapping[str, slice], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._slices = list(slices.values())
        self._same: dict[tuple[int, int], list[int]] = {}
        for index, name in enumerate(slices):
            out, entering, *kernel = shapes[name]
            if entering > 1:  # the rows of a depthwise kernel read different maps: they make no matrix
                self._same.setdefault((out, entering * kernel[0] * kernel[1]), []).append(index)

    def steps(self, direction: Any) -> Any:
        """The steps for a direction of SGD, flat vectors: kernels' parts orthogonalised, times STEP; those of depthwise kernels as they are.

        The steps of kernels with more rows than columns are longer, as published, by the root of that ratio: each output changes as much.
        """
        parts = [direction[part] for part in self._slices]
        for (rows, columns), chosen in self._same.items():
            found = orthogonalised(paddle.stack([parts[index].reshape([rows, columns]) for index in chosen]))
            found = found * (STEP * max(1.0, rows / columns) ** 0.5)
            for index, one in zip(chosen, found, strict=True):
                parts[index] = one.reshape([-1])
        return paddle.concat(parts)
