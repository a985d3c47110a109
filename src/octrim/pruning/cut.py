"""Cut the channels that a plan leaves out. The result is a new model like any other; the model that was cut stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.dropping import without_rows
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.labels import ChannelLabels, channel_labels
from octrim.pruning.plan import Plan, cut_network


def prune(model: Model, plan: Plan) -> Model:
    """Return the model without the rows and channels that `plan` drops.

    Output channels to keep are those of the row itself, input channels those of what it reads. Raises InputError when the plan was
    made for another network, or would part coupled channels.
    """
    if not isinstance(plan, Plan):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"plan is {shown(plan)}, expected what octrim.plan returns")
    if not {row.name for row in model.network.rows}.issuperset(plan.dropped):
        raise InputError("the plan was made for a network with other rows")
    model = without_rows(model, plan.dropped)
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
    tensors = cut_tensors(network, labels, cut, model.tensors)
    lineage = (*model.lineage, {"action": "prune", **plan.settings})
    return replace(model, network=cut_network(network, labels, plan.kept), tensors=tensors, lineage=lineage, scales={})


def cut_tensors(network: Network, labels: ChannelLabels, cut: np.ndarray, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the network's tensors by name without the channels whose labels are cut, as copies.

    cut: bool `[labels.count]`. tensors: arrays of any type in the shapes that `octrim.network.cost.tensor_shapes` gives.
    """
    smaller: dict[str, np.ndarray] = {}
    for row in network.convs:
        outputs = np.flatnonzero(~cut[labels.labels[row.name]])
        weight = tensors[row.weight_name][outputs]
        if row.groups == 1:
            inputs = np.flatnonzero(~cut[labels.labels[row.inputs[0]]])
            weight = np.ascontiguousarray(weight[:, inputs])
        smaller[row.weight_name] = weight
        for name in (*row.norm_names, *[f"{row.name}.bias"] * row.bias):
            smaller[name] = tensors[name][outputs]
    return smaller
