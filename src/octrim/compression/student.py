"""The network of `octrim compress --student`: a layout of its own with fresh weights, which the whole network teaches, and which may be cut then."""

from __future__ import annotations

from dataclasses import fields, replace

from octrim.compression.options import Compression
from octrim.errors import InputError
from octrim.network.initialize import fresh_tensors
from octrim.network.layout import read_layout
from octrim.network.model import Model
from octrim.network.yolov5 import expand

_NEVER = ("search", "search_epochs", "sparsify_epochs", "cut_steps", "step_epochs", "activation")
"""Options about networks that are not a student's: it is cut within fine-tuning alone, and its layout says its activation."""

_HOW = ("align", "criterion", "exclude", "keep_map", "widths", "drop", "levels", "cut_epochs", "student_epochs")
_TIMES = ("latency_table", "runtime", "threads", "precision")
_ABOUT_CUTTING = (*_HOW, *_TIMES)
"""Options that say how a network is cut, which need one that says that it is, and how far."""

_NOTHING = {"sparsify_epochs": 0, "cut_epochs": 0, "cut_steps": 1}
"""Values of these options that ask for nothing."""


def refuse_cuts(config: Compression) -> None:
    """Raise InputError where options of a new run do not go with `--student`, or say how to cut a student that nothing says to cut."""
    if config.student is None:
        if config.student_epochs is not None:
            raise InputError("--student-epochs is about a --student that is trained and then cut")
        return
    usual = {field.name: field.default for field in fields(config)}
    given = [name for name in (*_NEVER, *_ABOUT_CUTTING) if getattr(config, name) not in (usual[name], _NOTHING.get(name))]
    refused = [name for name in given if name in _NEVER or not config.cuts_student]
    if refused:
        option = f"--{refused[0].replace('_', '-')}"
        if refused[0] in _NEVER:
            raise InputError(f"{option} is about the network of --weights, and --student names another: leave one of them out")
        raise InputError(f"{option} is about cutting, and a --student is not cut unless --keep or --budget says how far")


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
