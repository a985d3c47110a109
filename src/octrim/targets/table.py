"""`TARGETS`, the one list of the forms in which a network can be deployed.

The command line, Python, export, sessions, doctor, the documentation's table and the tests all read it: a target is a folder with a module that has
a `TARGET`, and a line here. CONTRIBUTING.md tells how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from octrim.errors import InputError
from octrim.targets.target import Target

MODULES: dict[str, str] = {
    "onnx": "octrim.targets.onnx.target",
    "openvino": "octrim.targets.openvino.target",
    "tensorrt": "octrim.targets.tensorrt.target",
    "paddle": "octrim.targets.paddle_inference.target",
    "c": "octrim.targets.c.target",
    "ncnn": "octrim.targets.ncnn.target",
    "litert": "octrim.targets.litert.target",
    "web": "octrim.targets.web.target",
}
"""Module of every target by the target's name, in the order of help texts."""

BACKENDS = ("paddle", "numpy")
"""Runtimes that run a model but are no targets: the trainable network in Paddle, and the NumPy reference."""


class _Table(Mapping[str, Target]):
    """Targets by name; a target's module is imported when it is asked for."""

    def __getitem__(self, name: str) -> Target:
        return import_module(MODULES[name]).TARGET

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


TARGETS: Mapping[str, Target] = _Table()


def target(name: str) -> Target:
    """The target of this name. Raises InputError where there is none."""
    if name not in TARGETS:
        raise InputError(f"format {name!r} is unknown; known are {', '.join(TARGETS)}")
    return TARGETS[name]


def live_targets() -> dict[str, Target]:
    """Targets whose runtime runs a model without a file, by the runtime's name; the default first."""
    found = {one.runtime: one for one in TARGETS.values() if one.live}
    return {DEFAULT_RUNTIME: found[DEFAULT_RUNTIME], **found}


DEFAULT_RUNTIME = "openvino"
"""Runtime of models where none is asked for: the fastest on processors."""


def runtimes() -> tuple[str, ...]:
    """Names of the runtimes that run a model; the default first."""
    return tuple(dict.fromkeys((*live_targets(), *BACKENDS)))


def program(runtime: str) -> str:
    """Name of a runtime in sentences: `ONNX Runtime` for `onnxruntime`."""
    names = {"paddle": "Paddle", "numpy": "NumPy"}
    return names.get(runtime) or next(one.program for one in TARGETS.values() if one.runtime == runtime)


def run_precisions() -> tuple[str, ...]:
    """Precisions that some runtime can compute in."""
    return _ordered({precision for one in TARGETS.values() for precision in one.live})


def export_precisions() -> tuple[str, ...]:
    """Precisions that some target can be written in."""
    return _ordered({precision for one in TARGETS.values() for precision in one.precisions})


def _ordered(precisions: set[str]) -> tuple[str, ...]:
    """Precisions from the widest to the narrowest; new ones at the end."""
    known = ("fp32", "bf16", "fp16", "int8")
    return (*(name for name in known if name in precisions), *sorted(precisions.difference(known)))
