"""Opening of sessions over everything that can run: a model, a model file, a checkpoint or a deployable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from octrim.errors import InputError, shown
from octrim.network.foreign import kind_of, placeholder
from octrim.network.loading import as_path, load
from octrim.network.model import Model
from octrim.network.scales import require_scales
from octrim.options import Range, from_python
from octrim.targets.reference import NumpySession, PaddleSession
from octrim.targets.session import Session
from octrim.targets.table import DEFAULT_RUNTIME, TARGETS, live_targets, runtimes
from octrim.targets.target import Target


def open_session(
    weights: str | Path | Model, runtime: str | None = None, precision: str = "fp32", threads: int | None = None, device: str = "auto"
) -> Session:
    """A session over a model, a model file, a checkpoint, or a deployable of one of the targets in `octrim.targets.table`.

    runtime: one of `runtimes()`; OpenVINO by default. A deployable runs in its own target's runtime, an `.onnx` file also in OpenVINO.
    precision: "fp32" is float32 whatever the runtime would choose; OpenVINO also offers "bf16" and "fp16", ONNX Runtime "fp16", both "int8" for
    models with scales. An ONNX file in ONNX Runtime, and an engine, run as they were exported.
    threads: number of a processor runtime's threads, all usable cores by default.
    device: "cpu", "gpu" or "auto". An engine runs on a GPU; a model or model file does so in Paddle, which then is the default runtime. "auto" is
    the GPU where the runtime has one.
    Raises InputError for what cannot be read or does not go together.
    """
    asked = from_python(_Running, {"runtime": runtime, "precision": precision, "threads": threads, "device": device})
    runtime, precision, threads, device = asked.runtime, asked.precision, asked.threads, asked.device
    of_files = {one.runtime: one for one in TARGETS.values()}
    if runtime is not None and runtime not in runtimes() and runtime not in of_files:
        raise InputError(f"unknown runtime {runtime!r}; expected one of {', '.join(runtimes())}")
    if device not in ("auto", "cpu", "gpu"):
        raise InputError(f"device is {shown(device)}, expected auto, cpu or gpu")
    found = None if isinstance(weights, Model) else _deployable(as_path(weights))
    if found is not None:
        return _file_session(*found, runtime, precision, threads, device)
    if runtime is not None and runtime not in runtimes():
        only = of_files[runtime]
        raise InputError(f"{only.program} runs {only.what}, and this is none: octrim export --format {only.name} writes one")
    model = weights if isinstance(weights, Model) else load(weights)
    if runtime is None:
        runtime = "paddle" if device == "gpu" else DEFAULT_RUNTIME
    return _model_session(model, runtime, precision, threads, device)


@dataclass(frozen=True)
class _Running:
    """What the arguments of `open_session` may hold. Which runtime and precision there is depends on the weights."""

    command: ClassVar[str] = "open_session"

    runtime: str | None = None
    precision: str = "fp32"
    threads: Annotated[int | None, Range(1, 1024)] = None
    device: str = "auto"


def _deployable(path: Path) -> tuple[Target, Path] | None:
    """The target whose deployable a path is, and the path to open; None where it is no deployable."""
    for one in TARGETS.values():
        found = one.find(path)
        if found is not None:
            return one, found
    return None


def _file_session(target: Target, path: Path, runtime: str | None, precision: str, threads: int | None, device: str) -> Session:
    able = [target, *(one for one in TARGETS.values() if target.name in one.also_opens)]
    chosen = next((one for one in able if runtime in (None, one.runtime)), None)
    if chosen is None:
        raise InputError(f"{path}: {target.what} runs in {' or '.join(one.runtime for one in able)}, not in {runtime}")
    if device not in ("auto", chosen.device):
        where = {"cpu": "processors", "gpu": "GPUs"}
        raise InputError(f"{path}: {target.what} runs on {where[chosen.device]}, and device is {device}; {_ON_A_GPU}")
    if not path.exists() or (target.ending and path.is_dir()):
        raise InputError(f"{path}: no such file")
    instead = placeholder(path) if path.is_file() else None
    if instead is not None:
        raise InputError(f"{path}: {instead}")
    try:
        return chosen.open(path, precision, threads)
    except InputError:
        kind = kind_of(path) if path.is_file() else None
        if kind is not None and not kind.endswith(f": name it {path.suffix.lower()}"):
            raise InputError(f"{path}: expected {target.what}, found {kind}") from None
        raise


_ON_A_GPU = "a GPU runs engines (octrim export --format tensorrt), and model files in Paddle (--runtime paddle) where Paddle has GPUs"


def _model_session(model: Model, runtime: str, precision: str, threads: int | None, device: str) -> Session:
    target = live_targets().get(runtime)
    if device == "gpu" and runtime != "paddle":
        raise InputError(f"{runtime} runs on processors, and device is gpu; {_ON_A_GPU}")
    offered = ("fp32",) if target is None else target.live
    if precision not in offered:
        raise InputError(f"{runtime} runs in {', '.join(offered)}; {precision} was asked for")
    if precision == "int8":
        require_scales(model.scales)
    if target is not None:
        return target.session(model, precision, threads)
    if runtime == "paddle":
        return PaddleSession(model, precision, threads, device)
    if threads is not None:
        raise InputError("numpy's threads are set by the environment (OMP_NUM_THREADS), not by --threads")
    return NumpySession(model, precision)
