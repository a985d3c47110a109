"""The small network of `octrim compress --student`: a layout of its own with fresh weights, which the whole network teaches instead of being cut."""

from __future__ import annotations

from dataclasses import fields, replace

from octrim.compression.options import Compression
from octrim.errors import InputError
from octrim.network.initialize import fresh_tensors
from octrim.network.layout import read_layout
from octrim.network.model import Model
from octrim.network.yolov5 import expand

_CUT = ("keep", "align", "budget", "criterion", "exclude", "keep_map", "widths", "drop", "levels", "activation")
_WHEN = ("search", "search_epochs", "sparsify_epochs", "cut_steps", "cut_epochs", "step_epochs")
_TIMES = ("latency_table", "runtime", "threads", "precision")
_ABOUT_CUTTING = (*_CUT, *_WHEN, *_TIMES)
"""Options that say how a network is cut, or how what is left of it differs from it."""


def refuse_cuts(config: Compression) -> None:
    """Raise InputError where options of a new run say how a network is to be cut, and `--student` names another in its place."""
    if config.student is None:
        return
    usual = {field.name: (field.default, 0, 1) for field in fields(config)}  # cuts of no epochs, in one step
    given = [name for name in _ABOUT_CUTTING if getattr(config, name) not in usual[name]]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} is about cutting, and --student names a network of its own: leave one of them out")


def student_of(config: Compression, whole: Model) -> Model:
    """The fresh network of the layout that `--student` names, with the classes, the pictures' size and the anchors of the network that will teach it.

    It learns from the teacher's outputs, so its levels have strides of the teacher's. Raises InputError where they do not, and where its last module
    has a number of anchors of its own.
    """
    layout, taught = read_layout(config.student or ""), dict(zip(whole.network.strides, whole.network.anchors, strict=True))
    values = {**layout.values, "nc": whole.network.classes, "anchors": len(whole.network.anchors[0])}
    network = expand(replace(layout, values=values), to_fit=True)
    missing = [stride for stride in network.strides if stride not in taught]
    if missing:
        raise InputError(f"{layout.name}: has a level of stride {missing[0]}; the network that teaches it has strides {', '.join(map(str, taught))}")
    anchors = tuple(taught[stride] for stride in network.strides)
    for stride, own, others in zip(network.strides, network.anchors, anchors, strict=True):
        if len(own) != len(others):
            raise InputError(f"{layout.name}: has {len(own)} anchors at stride {stride}; the network that teaches it has {len(others)}")
    network = replace(network, anchors=anchors)
    lineage = ({"action": "initialise", "layout": layout.name, "seed": config.seed, "licence": "none: no trained weights"},)
    return Model(network, fresh_tensors(network, config.seed), whole.names, whole.image_size, lineage)
