"""Adapts a model to other classes, anchors or activations than it was made for, keeping the weights that still apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from octrim.errors import InputError
from octrim.network.initialize import fresh_tensors
from octrim.network.model import Model
from octrim.network.rows import Network


def known_classes(before: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Map the number of each class of `names` that is also in `before` to its number there. Letter case counts only where it tells classes apart."""
    for spelling in (str.casefold, str):
        old, new = [spelling(name) for name in before], [spelling(name) for name in names]
        if len(set(old)) == len(old) and len(set(new)) == len(new):
            return {number: old.index(name) for number, name in enumerate(new) if name in old}
    return {}


def adapted(
    model: Model, names: Sequence[str], image_size: int, anchors: Sequence[Sequence[tuple[float, float]]] | None = None, seed: int = 0
) -> Model:
    """Return the model with classes `names`, made for `image_size` pixels, and with other anchors (pixels, per level) where given.

    The weights of Detect's outputs stay for boxes, objectness, and classes whose name the model knows; those of other classes are drawn by `seed`.
    """
    names = tuple(names)
    network = model.network if anchors is None else replace(model.network, anchors=tuple(tuple(level) for level in anchors))
    tensors = dict(model.tensors)
    if names != model.names:
        per_level, before = len(network.anchors[0]), len(model.names)
        rows = tuple(replace(row, channels=per_level * (5 + len(names))) if row.name in network.heads else row for row in network.rows)
        network = Network(rows, network.anchors)
        fresh, known = fresh_tensors(network, seed), known_classes(model.names, names)
        for head in sorted(network.heads):
            for name in (f"{head}.weight", f"{head}.bias"):
                old = tensors[name].reshape(per_level, 5 + before, -1)
                new = fresh[name].reshape(per_level, 5 + len(names), -1).copy()
                new[:, :5] = old[:, :5]
                for number, same in known.items():
                    new[:, 5 + number] = old[:, 5 + same]
                tensors[name] = new.reshape(fresh[name].shape)
    return Model(network, tensors, names, image_size, model.lineage)


def with_activation(model: Model, activation: str) -> Model:
    """Return the model with another activation behind its convolutions, and the same weights, which have to be trained on; its scales are dropped.

    activation: a name of `ACTIVATIONS`. Convolutions without activation, and those with a sigmoid, which are gates, keep what they have. Where all
    others have this activation already, the model itself is returned. Raises InputError where no convolution has an activation that can change.
    """
    rows = tuple(replace(row, activation=activation) if row.activation not in (None, "sigmoid") else row for row in model.network.rows)
    if activation not in {row.activation for row in rows}:
        raise InputError(f"activation is {activation}, but no convolution of this network has an activation that could change")
    if rows == model.network.rows:
        return model
    lineage = (*model.lineage, {"action": "activation", "activation": activation})
    return Model(replace(model.network, rows=rows), model.tensors, model.names, model.image_size, lineage)
