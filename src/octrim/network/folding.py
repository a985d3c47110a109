"""Folds batch norm into the convolution before it, in float64; every deployable is built from a folded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Network, Row


def folded(model: Model) -> Model:
    """Return a model that computes the same without batch norm, with a bias in every convolution. A folded model folds to itself."""
    rows: list[Row] = []
    tensors: dict[str, np.ndarray] = {}
    for row in model.network.rows:
        if row.op != "conv":
            rows.append(row)
            continue
        plain = replace(row, norm=False, bias=True)
        weight, bias = folded_conv(model, row)
        tensors[plain.weight_name], tensors[f"{row.name}.bias"] = weight.astype(np.float32), bias.astype(np.float32)
        rows.append(plain)
    return replace(model, network=Network(tuple(rows), model.network.anchors), tensors=tensors)


def folded_conv(model: Model, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight `[out, in / groups, kernel, kernel]` and bias `[out]` of one convolution with its batch norm folded in, float64."""
    weight = model.tensors[row.weight_name].astype(np.float64)
    if not row.norm:
        return weight, model.tensors[f"{row.name}.bias"].astype(np.float64) if row.bias else np.zeros(row.channels)
    scale, shift = scale_and_shift(row, model.tensors)
    return weight * scale[:, None, None, None], shift


def scale_and_shift(row: Row, tensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a row's batch norm multiplies channels by, and what it then adds to them, float64 `[channels]` each."""
    gamma, beta, mean, variance = (tensors[name].astype(np.float64) for name in row.norm_names)
    with np.errstate(all="ignore"):  # damaged statistics give NaN, with which nothing is detected, instead of warnings
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        return scale, beta - mean * scale
