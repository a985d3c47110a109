"""Cut the channels that a plan leaves out. The result is a new model like any other; the model that was cut stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from octrim.errors import InputError
from octrim.network.model import Model
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, cut_network


def prune(model: Model, plan: Plan) -> Model:
    """Return the model without the channels that `plan` drops.

    Output channels to keep are those of the row itself, input channels those of what it reads. Raises InputError when the plan was
    made for another network, or would part coupled channels.
    """
    network = model.network
    labels = channel_labels(network)
    if plan.kept.keys() != {row.name for row in network.convs}:
        raise InputError("the plan was made for a network with other convolutions")
    cut = np.zeros(labels.count, bool)
    masks: dict[str, np.ndarray] = {}
    for row in network.convs:
        kept = np.asarray(plan.kept[row.name])
        if len(kept) == 0 or kept.min() < 0 or kept.max() >= row.channels:
            raise InputError(f"{row.name}: the plan keeps channels {kept.min(initial=0)} to {kept.max(initial=0)} of {row.channels}")
        masks[row.name] = np.isin(np.arange(row.channels), kept)
        cut[labels.labels[row.name][~masks[row.name]]] = True
    for row in network.convs:
        if (cut[labels.labels[row.name]] == masks[row.name]).any():
            raise InputError(f"{row.name}: the plan keeps a channel here that it cuts in a coupled convolution")
    tensors: dict[str, np.ndarray] = {}
    for row in network.convs:
        outputs = np.flatnonzero(masks[row.name])
        weight = model.tensors[row.weight_name][outputs]
        if row.groups == 1:
            inputs = np.flatnonzero(~cut[labels.labels[row.inputs[0]]])
            weight = np.ascontiguousarray(weight[:, inputs])
        tensors[row.weight_name] = weight
        vectors = [f"{row.name}.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")] if row.norm else []
        for name in vectors + [f"{row.name}.bias"] * row.bias:
            tensors[name] = model.tensors[name][outputs]
    lineage = (*model.lineage, {"action": "prune", **plan.settings})
    return replace(model, network=cut_network(network, labels, plan.kept), tensors=tensors, lineage=lineage, scales={})
