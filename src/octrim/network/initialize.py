"""Draws fresh weights with the distributions from which YOLOv5 starts training from scratch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from octrim.errors import InputError
from octrim.network.cost import tensor_shapes
from octrim.network.layout import read_layout
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.yolov5 import yolov5_network

_MOST_PARAMETERS = 500_000_000  # yolov5x6 has 140 million


def fresh_model(
    cfg: str | Path, classes: int | None = None, names: tuple[str, ...] | None = None, seed: int = 0, anchors_to_fit: bool = False
) -> Model:
    """Return a freshly initialised model of a published variant or a user's YAML layout. The same seed, 0 or more, gives the same weights.

    classes: number of classes instead of the layout's. names: class names, by default class0, class1 and so on. anchors_to_fit: whether a layout
    may give only the number of anchors, because the caller fits them to data. Raises InputError for a layout that is not understood.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}, expected 0 or more")
    network = yolov5_network(cfg, classes, anchors_to_fit)
    seed = int(seed)  # a number of NumPy's cannot be written into the lineage
    names = tuple(f"class{index}" for index in range(network.classes)) if names is None else names
    lineage = ({"action": "initialise", "layout": read_layout(cfg).name, "seed": seed, "licence": "none: no trained weights"},)
    return Model(network, fresh_tensors(network, seed), names, usual_image_size(network), lineage)


def pad_weight(shape: tuple[int, ...]) -> np.ndarray:
    """Return the constant weights of a row that pads: each channel is copied by the last weight of its window."""
    weight = np.zeros(shape, np.float32)
    weight[:, :, -1, -1] = 1
    return weight


def usual_image_size(network: Network) -> int:
    """Return the picture side in pixels that YOLOv5 trains networks with such levels for: 1280 where a level has stride 64 or more, else 640."""
    return 1280 if max(network.strides) >= 64 else 640


def fresh_tensors(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw fresh tensors: convolutions from U(-b, b), b = 1 / sqrt(fan_in); batch norm 1 and 0; Detect's biases raised to expected rates of objects.

    Each convolution draws from its own stream, so that its values do not depend on the shapes of those before it. Raises InputError for a network
    of more than 500 million parameters.
    """
    shapes = tensor_shapes(network)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    if parameters > _MOST_PARAMETERS:
        raise InputError(f"a network of {parameters:,} parameters; fresh weights are made for up to {_MOST_PARAMETERS:,}")
    tensors: dict[str, np.ndarray] = {}
    for index, row in enumerate(network.convs):
        generator = np.random.default_rng((seed, index))
        shape = shapes[row.weight_name]
        if row.pads:
            tensors[row.weight_name] = pad_weight(shape)
            continue
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        tensors[row.weight_name] = generator.uniform(-bound, bound, shape).astype(np.float32)
        if row.bias:
            tensors[f"{row.name}.bias"] = generator.uniform(-bound, bound, row.channels).astype(np.float32)
        if row.norm:
            tensors |= {f"{row.name}.bn.{part}": np.ones(row.channels, np.float32) for part in ("weight", "running_var")}
            tensors |= {f"{row.name}.bn.{part}": np.zeros(row.channels, np.float32) for part in ("bias", "running_mean")}
    for name, stride in zip(network.rows[-1].inputs, network.strides, strict=True):
        tensors[f"{name}.bias"] += prior_logits(network, stride)
    return tensors


def prior_logits(network: Network, stride: int) -> np.ndarray:
    """Return the logits by which a level answers that has learnt nothing but how rare objects are, float32 `[anchors x (5 + classes)]`."""
    logits = np.zeros((len(network.anchors[0]), 5 + network.classes), np.float32)
    logits[:, 4] = math.log(8 / (640 / stride) ** 2)  # 8 objects in a 640 px picture
    logits[:, 5:] = math.log(0.6 / (network.classes - 0.99999))
    return logits.reshape(-1)
