"""Weights in the float type that a deployable stores them in."""

from __future__ import annotations

from typing import Any

import numpy as np

from octrim.errors import InputError
from octrim.network.folding import folded_conv
from octrim.network.model import Model


def rounded(name: str, values: np.ndarray, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Return the values in the type `dtype`.

    name: what they are, for the message. Raises InputError for values beyond its range, which would become infinities or, in some programs, its
    largest number: one of them is enough to make a network find nothing.
    """
    with np.errstate(all="ignore"):
        found = values.astype(dtype)
    finite = np.isfinite(found)
    if not finite.all():
        worst = values[~finite].flat[0]
        kind = np.dtype(dtype).name
        raise InputError(f"{name}: {worst:g} does not fit {kind}, which ends at {np.finfo(dtype).max:g} (with batch norm folded)")
    return found


def require_float16(model: Model) -> None:
    """Raise InputError where a convolution's weights or biases do not fit float16, naming the first of them."""
    for row in model.network.convs:
        weight, bias = folded_conv(model, row)
        rounded(f"{row.name}: weight", weight, np.float16)
        rounded(f"{row.name}: bias", bias, np.float16)
