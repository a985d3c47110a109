"""Trials of the libraries for `octrim doctor`, each run in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octrim.errors import InputError
from octrim.targets.table import TARGETS, live_targets
from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    import numpy as np

    from octrim.network.model import Model
    from octrim.targets.session import Session

TOLERANCE = 1e-3  # largest deviation, relative to the largest value; float32 sums in another order give 1e-6

SYSTEM_LIBRARIES = {
    "libgomp.so.1": "libgomp1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
}
"""System libraries that wheels expect, and the packages of Debian and Ubuntu that have them."""

_MODULES = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "pillow": "PIL"}

_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "bf16", "amx_tile": "AMX", "asimddp": "dot product"}


@dataclass(frozen=True)
class Finding:
    """One line of the table of `octrim doctor`.

    state: "works", "missing" (not installed) or "fails". advice: what to do about it, or what it is for.
    """

    what: str
    state: str
    found: str
    advice: str = ""


def attempt(name: str) -> None:
    """Run one trial and print a line per check; `octrim.doctor.checks` reads the lines."""
    try:
        for check in trials()[name]():
            tell(check)
    except Exception as error:
        # OcTrim's own modules report a missing library by an InputError.
        module = re.search(r"No module named '(\w+)", str(error)) if isinstance(error, ModuleNotFoundError | InputError) else None
        advice = _install(name)
        if module and advice is not None:
            tell(Finding(name, "missing", f"no module {module[1]}", advice))
        else:
            tell(Finding(name, "fails", told(error), package_for(str(error))))


def tell(finding: Finding) -> None:
    print("octrim-check", json.dumps([finding.what, finding.state, finding.found, finding.advice]), flush=True)


def told(error: BaseException) -> str:
    return str(InputError(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"))[:300]


def package_for(error: str) -> str:
    """Advice on what to install for a system library that an error names; empty where it names none."""
    return next((f"apt-get install {package}" for library, package in SYSTEM_LIBRARIES.items() if library in error), "")


def _machine() -> Iterator[Finding]:
    from octrim.machine import free_memory, usable_cores

    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    name = re.search(r"^(?:model name|Model)\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    words = set(flags[1].split()) if flags else set()
    features = [label for flag, label in _FEATURES.items() if flag in words]
    slow = platform.machine() in ("x86_64", "AMD64") and words and "avx2" not in words
    cores = f"{usable_cores()} of {os.cpu_count()} cores usable"
    yield Finding("processor", "works", ", ".join([name[1] if name else platform.machine(), cores, *features]), "no AVX2: slow" if slow else "")
    free = (free_memory() or 0) / 2**30
    advice = "little for training: --batch 4 --workers 0 --cache none" if 0 < free < 2 else ""
    yield Finding("memory", "works", f"{free:.1f} GiB available" if free else "unknown", advice)


def _libraries() -> Iterator[Finding]:
    """Check every library that the package requires, and whether its version is allowed."""
    versions, wrong, install = [], [], []
    own_lines = [one.runtime for one in TARGETS.values()]
    for requirement in metadata.requires("octrim") or []:
        name = re.split(r"[<>=!~; ]", requirement)[0]
        if "extra ==" in requirement or name in own_lines:
            continue
        try:
            module = importlib.import_module(_MODULES.get(name.lower(), name.replace("-", "_")))
            version = str(getattr(module, "__version__", "") or metadata.version(name))
        except Exception as error:
            wrong.append(f"{name}: {told(error)}")
            install.append(package_for(str(error)) or f"pip install '{requirement}'")
            continue
        versions.append(f"{name} {version}")
        least = re.search(r">=([\d.]+)", requirement)
        if least and _numbers(version) < _numbers(least[1]):
            wrong.append(f"{name} {version}, expected {least[1]} or newer")
            install.append(f"pip install '{requirement}'")
    yield Finding("libraries", "fails" if wrong else "works", "; ".join(wrong) if wrong else ", ".join(versions), "; ".join(install))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def small_model() -> Model:
    """A network of a dozen rows with every op in it and lively weights."""
    from octrim.network.initialize import fresh_tensors
    from octrim.network.model import Model
    from octrim.network.rows import Network, Row

    conv: dict[str, Any] = {"op": "conv", "norm": True, "activation": "silu"}
    rows = (
        Row("images", "image", channels=3),
        Row("a", inputs=("images",), channels=16, kernel=6, stride=2, padding=2, **conv),
        Row("b", inputs=("a",), channels=16, kernel=3, stride=2, padding=1, **conv),
        Row("c", inputs=("b",), channels=16, kernel=3, padding=1, **conv),
        Row("sum", "add", ("b", "c")),
        Row("pool", "maxpool", ("sum",), kernel=2, stride=2),
        Row("up", "upsample", ("pool",), stride=2),
        Row("joined", "concat", ("up", "sum")),
        Row("d", inputs=("joined",), channels=24, kernel=3, stride=2, padding=1, **conv),
        Row("head", "conv", ("d",), 3 * 7, bias=True),
        Row("detect", "detect", ("head",)),
    )
    network = Network(rows, (((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),))
    tensors = {name: value * 3 if value.ndim == 4 else value for name, value in fresh_tensors(network).items()}
    return Model(network, tensors, ("a", "b"), 64)


def pictures() -> np.ndarray:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)


def deviation(values: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference, relative to the largest value; infinity where either has values that are not finite.

    Infinity is used instead of NaN, because `max` drops a NaN that comes second.
    """
    largest, difference = float(abs(reference).max()), float(abs(values - reference).max())
    found = difference / largest if largest else math.inf
    return found if math.isfinite(found) else math.inf


def agrees(what: str, session: Session, line: str) -> Finding:
    """Check that a session over the small network computes the same as NumPy. line: version and features of the runtime, for the table."""
    from octrim.targets.opening import open_session

    batch = pictures()
    found, expected = session(batch), open_session(small_model(), "numpy")(batch)
    # Boxes and scores are compared apart, because boxes are pixels and scores lie in 0..1.
    difference = max(deviation(found[..., :4], expected[..., :4]), deviation(found[..., 4:], expected[..., 4:]))
    line = f"{line}; differs from NumPy by {difference:.0e}"
    if difference >= TOLERANCE:
        return Finding(what, "fails", f"{line}, more than {TOLERANCE:.0e}", "its results cannot be trusted here; use another --runtime")
    return Finding(what, "works", line)


def _target(target: Target) -> Iterator[Finding]:
    """Run the small network in a target's runtime, from a file where the runtime needs one."""
    version, obstacle = target.version(), target.obstacle()
    if obstacle is not None:
        yield Finding(target.program, "works", version, f"not tried: {told(InputError(obstacle))}")
        return
    model = small_model()
    if target.live:
        yield agrees(target.program, target.session(model, "fp32", None), version)
        return
    with tempfile.TemporaryDirectory(prefix="octrim-") as folder:
        path = Path(folder) / f"model{target.ending}"
        target.write(model, path, Order("fp32", model.image_size, model.image_size))
        session = target.open(target.find(path) or path, "fp32", None)
        yield agrees(target.program, session, version)
        session.close()


def _paddle() -> Iterator[Finding]:
    from octrim.backends.paddle import PaddleNetwork, paddle
    from octrim.targets.opening import open_session
    from octrim.targets.session import float_batch

    gpu = "with CUDA" if paddle.device.is_compiled_with_cuda() else "for processors"
    yield agrees("PaddlePaddle", open_session(small_model(), "paddle"), f"{paddle.__version__}, {gpu}")

    used, results = False, []
    for compiled in (True, False):
        network = PaddleNetwork(small_model())
        network.compiled = compiled
        network.train()
        heads = network(paddle.to_tensor(float_batch(pictures())))
        (heads[0] ** 2).sum().backward()
        results += [heads[0].numpy(), network.named_tensors()["a.conv.weight"].grad.numpy()]
        used = used or (compiled and network._programs.find((1, 3, 64, 64), frozenset(), False) is not None)
    difference = max(deviation(results[0], results[2]), deviation(results[1], results[3]))
    found = f"a training step; oneDNN and Paddle's own kernels differ by {difference:.0e}"
    if difference >= TOLERANCE:
        yield Finding("training", "fails", found, "")
    elif not used:
        yield Finding("training", "works", "by Paddle's own kernels", "oneDNN is not used here: training takes about twice as long")
    else:
        yield Finding("training", "works", found)


def _gpu() -> Iterator[Finding]:
    from octrim.targets.tensorrt.cuda import cuda_runtime, nvidia_smi

    device = nvidia_smi()
    try:
        gpu = cuda_runtime().gpu()
        yield Finding("GPU", "works", f"{gpu.name}, compute capability {gpu.capability}, CUDA {gpu.cuda}, driver for {gpu.driver}")
    except InputError as error:
        there = f"{device['name']}, driver {device['driver']}, but {told(error)}" if device else "none found"
        yield Finding("GPU", "fails" if device else "missing", there, "only TensorRT engines and training on GPUs need one")


def _pygame() -> Iterator[Finding]:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    yield Finding("pygame", "works", pygame.version.ver, "" if screen else "no display here: octrim pong play needs one")


def trials() -> dict[str, Callable[[], Iterator[Finding]]]:
    """All trials by name: the machine, the libraries, the runtime of every target, and the parts that training and Pong need."""
    ordered = dict.fromkeys((*live_targets().values(), *TARGETS.values()))  # the default runtime first
    targets = {one.program: functools.partial(_target, one) for one in ordered}
    return {"machine": _machine, "libraries": _libraries, "GPU": _gpu, **targets, "PaddlePaddle": _paddle, "pygame": _pygame}


def _install(name: str) -> str | None:
    """Advice for a trial whose library is not installed; None for trials that need no library of their own."""
    advice = {one.program: one.install for one in TARGETS.values()}
    advice["PaddlePaddle"] = "training is not available; pip install 'octrim[cpu]', or paddlepaddle-gpu"
    advice["pygame"] = "only octrim pong play needs it: pip install 'octrim[pong]'"
    return advice.get(name)
