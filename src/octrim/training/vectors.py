"""All tensors of a network as one flat vector, which optimizers change and checkpoints hold: by kind and, within a kind, in the table's order."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from octrim.network.cost import tensor_shapes
from octrim.network.rows import Network


def kind_of(name: str) -> int:
    """Kind of a tensor by its name: 0 convolution weights, 1 batch-norm weights, 2 biases, 3 batch-norm statistics."""
    if name.endswith((".running_mean", ".running_var")):
        return 3
    if name.endswith(".bias"):
        return 2
    return 1 if name.endswith(".bn.weight") else 0


def unflattened(network: Network, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors by name out of one flat vector, which holds them by kind (`kind_of`) and, within a kind, in the table's order."""
    tensors, start = {}, 0
    for name, shape in sorted(tensor_shapes(network).items(), key=lambda item: kind_of(item[0])):
        size = math.prod(shape)
        tensors[name] = flat[start : start + size].reshape(shape)
        start += size
    return tensors


def flattened(network: Network, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """One flat vector of the tensors, in the order that `unflattened` reads."""
    return np.concatenate([tensors[name].reshape(-1) for name in sorted(tensor_shapes(network), key=kind_of)])
