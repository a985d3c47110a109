"""TensorRT engines, built by hand from the table: original and pruned networks alike, for TensorRT 10.3 (JetPack 6) up to 11.

    engine = build_engine(model, 640, 640, precision="fp16")

An engine runs on the kind of GPU, and with the version of TensorRT, that it was built with. Input `images` uint8 `[batch, height, width, 3]` RGB;
output `output0` float32 `[batch, boxes, 5 + classes]` as in the ONNX contract (`octrim.targets.onnx.graph`). The layers are those of
`octrim.targets.tensorrt.layers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from octrim.atomic import write_bytes
from octrim.errors import InputError, shown
from octrim.network.cost import shapes
from octrim.network.model import Model
from octrim.targets.tensorrt.cuda import Gpu
from octrim.targets.tensorrt.header import EngineHeader
from octrim.targets.tensorrt.options import BuildProgress

PRECISIONS = ("fp32", "fp16", "int8")


def import_tensorrt() -> ModuleType:
    """The `tensorrt` module or, where it is missing, the module of TensorRT for RTX, which has the same API. Raises InputError where both are missing
    or `tensorrt` is older than the API used here.
    """
    try:
        import tensorrt  # pyright: ignore[reportMissingImports] (an extra that only machines with an NVIDIA GPU have)
    except (ImportError, OSError) as error:  # OSError: its libraries do not load
        with contextlib.suppress(ImportError, OSError):
            import tensorrt_rtx_bindings  # pyright: ignore[reportMissingImports]

            return tensorrt_rtx_bindings
        raise InputError(f"TensorRT cannot be imported ({shown(str(error))}); pip install 'octrim[tensorrt]'") from None
    version = str(tensorrt.__version__)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (10, 3):
        raise InputError(f"TensorRT {version} is too old; expected 10.3 or newer")
    return tensorrt


def version_of(trt: ModuleType) -> str:
    """Version of TensorRT as engines record it: "10.3.0.26", or "rtx 1.7.1.116" of TensorRT for RTX, which counts on its own."""
    return f"rtx {trt.__version__}" if trt.__name__.startswith("tensorrt_rtx") else str(trt.__version__)


@cache
def logger(trt: Any) -> Any:
    """The one logger of this process, an ILogger with `errors`: the latest messages of severity error and worse, oldest first.

    TensorRT keeps the first logger that it is given and ignores others, and uses it as long as any of its objects lives. So there is one for ever.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants the base called by name
            self.errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(msg)

        def last(self) -> str:
            return " ".join(self.errors[-1].split()) if self.errors else "it gives no reason"

        def reason(self) -> str:
            """Reason of a failed build: the first message, which names the layer, and the last, which says what came of it."""
            return " .. ".join(dict.fromkeys((" ".join(self.errors[0].split()), self.last()))) if self.errors else self.last()

    return Logger()


def build_engine(
    model: Model,
    height: int,
    width: int,
    precision: str = "fp32",
    batch: int | tuple[int, int, int] = 1,
    pixels: bool = True,
    decode: bool = True,
    pad_channels: int = 1,
    workspace: int = 1 << 30,
    level: int = 3,
    timing_cache: Path | None = None,
    progress: BuildProgress | None = None,
    high_precision: str = "fp16",
) -> bytes:
    """A serialized engine for pictures of height x width pixels, multiples of the stride. Takes minutes.

    precision: "fp32" (without TF32), "fp16", or "int8", which needs a model with scales.
    high_precision: precision of everything in an int8 engine that is not int8, such as maps before they are rounded: "fp16", or "fp32", which makes
    the same integers as ONNX but leaves Detect's convolutions without tensor cores.
    batch: pictures at a time, or (fewest, typical, most) for an engine that takes any number between and is fastest at the typical one.
    pixels: False takes float32 `[batch, 3, height, width]` in 0..1 instead of uint8 `[batch, height, width, 3]`.
    decode: False gives the logits `head0`, `head1`, .. float32 `[batch, anchors x (5 + classes), h, w]` instead of `output0`.
    pad_channels: convolutions get zero channels up to a multiple of it; results stay the same.
    workspace: bytes of GPU memory for temporary values. level: TensorRT's optimization level, 0 (builds fast) to 5 (runs fast).
    timing_cache: file of measured kernel times, read where it exists and fits, and written back; later builds are faster.
    Raises InputError for options that do not fit, weights beyond the precision's range, and with TensorRT's last error for a failed build.
    """
    from octrim.targets.tensorrt.layers import define  # imports onnx, which running an engine does not need

    counts = check_options(model, height, width, precision, batch, pad_channels, level, high_precision)
    if workspace < 1:
        raise InputError(f"workspace is {workspace} bytes, expected at least 1")
    if timing_cache is not None and (timing_cache.is_dir() or not timing_cache.parent.is_dir()):
        raise InputError(f"{timing_cache}: is a folder, or its folder does not exist; expected a file for kernel times")
    if timing_cache is not None and not os.access(timing_cache.parent, os.W_OK):
        raise InputError(f"{timing_cache}: its folder cannot be written to")
    trt: Any = import_tensorrt()
    log = logger(trt)
    log.errors.clear()
    pressed: list[int] = []
    monitor = _monitor(trt, progress or (lambda *_: None), pressed)
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind11 makes a TypeError of a builder that could not be made
        raise InputError(f"TensorRT {version_of(trt)} cannot start: {log.last() if log.errors else error}") from None
    try:
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        # TensorRT reads these arrays until the build returns.
        kept = define(trt, network, model, height, width, precision, batch, pixels, decode, pad_channels, log.reason, high_precision)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # TensorRT rounds float32 to TF32 by default; here float32 means float32
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace))
        config.builder_optimization_level = level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers can be read and timed by their rows' names
        if not isinstance(batch, int):
            profile = builder.create_optimization_profile()
            sides = (height, width, 3) if pixels else (3, height, width)
            profile.set_shape(model.network.rows[0].name, *((count, *sides) for count in counts))
            if config.add_optimization_profile(profile) < 0:
                raise RuntimeError(f"the batches {counts} were refused")
        cache_kept = None if timing_cache is None else _read_timing_cache(trt, config, timing_cache)
        config.progress_monitor = monitor
        log.errors.clear()  # a timing cache of another version is no reason to fail
        with _noting_interrupts(pressed):
            serialized = builder.build_serialized_network(network, config)
    except RuntimeError as error:
        if pressed or monitor.raised is not None:  # the build was stopped by Ctrl-C or by an error in `progress`
            raise (monitor.raised or KeyboardInterrupt) from None
        raise InputError(f"TensorRT {version_of(trt)}: {log.reason() if log.errors else error}") from None
    if pressed or monitor.raised is not None:
        raise monitor.raised or KeyboardInterrupt
    if serialized is None:
        raise InputError(f"TensorRT {version_of(trt)} cannot build the engine: {log.reason()}")
    engine = bytes(serialized)
    times = None if timing_cache is None else config.get_timing_cache()
    if timing_cache is not None and times is not None:
        with contextlib.suppress(OSError):  # a full disk: the engine took minutes, the cache only saves some
            write_bytes(timing_cache, bytes(times.serialize()))
    del cache_kept, kept
    return engine


def check_options(
    model: Model,
    height: int,
    width: int,
    precision: str,
    batch: int | tuple[int, int, int],
    pad_channels: int = 1,
    level: int = 3,
    high_precision: str = "fp16",
) -> tuple[int, int, int]:
    """Raise InputError for options that cannot work, before anything takes time. Returns the batch as (fewest, typical, most)."""
    stride = model.network.stride
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} for TensorRT; expected one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not model.scales:
        raise InputError("int8 needs scales: octrim quantize --weights .. first")
    if high_precision not in ("fp16", "fp32"):
        raise InputError(f"high_precision is {high_precision!r}, expected fp16 or fp32")
    if any(side < stride or side % stride for side in (height, width)):
        raise InputError(f"picture sides must be multiples of the stride {stride}; found {height}x{width}")
    shapes(model.network, height, width)  # raises an error that names the row for which a picture is too small
    counts = (batch,) * 3 if isinstance(batch, int) else tuple(batch)
    if len(counts) != 3 or not 1 <= counts[0] <= counts[1] <= counts[2]:
        raise InputError(f"batch is {batch}, expected a number from 1 or three that do not fall: fewest, typical, most")
    if not 1 <= pad_channels <= 128:
        raise InputError(f"pad_channels is {pad_channels}, expected 1 (none) to 128")
    if not 0 <= level <= 5:
        raise InputError(f"optimization level is {level}, expected 0 to 5")
    return counts


def _read_timing_cache(trt: Any, config: Any, path: Path) -> Any:
    """Give the configuration the file's kernel times, or an empty cache where the file is missing, damaged, or of another GPU or version."""
    stored = path.read_bytes() if path.is_file() else b""
    for content in (stored, b""):
        try:
            found = config.create_timing_cache(content)
            if found is not None and config.set_timing_cache(found, ignore_mismatch=False):
                return found  # the cache must outlive the build
        except (RuntimeError, ValueError, TypeError):
            if not content:
                raise
    return None


@contextlib.contextmanager
def _noting_interrupts(pressed: list[int]) -> Iterator[None]:
    """Note Ctrl-C in `pressed` within the block: TensorRT prints and drops a KeyboardInterrupt that is raised in a callback, such as the logger's."""
    try:
        before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    except ValueError:  # only the main thread may handle signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _monitor(trt: Any, progress: BuildProgress, pressed: list[int]) -> Any:
    """An IProgressMonitor that stops the build after Ctrl-C (`pressed`) or an exception of `progress`. The exception is kept in `raised`, because it
    must not pass through TensorRT's code."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self.raised is None and not pressed

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self.steps.pop(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            if self.raised is not None:
                return
            try:
                progress(phase, done, self.steps.get(phase, done))
            except BaseException as error:
                self.raised = error

    return Monitor()


def engine_header(
    model: Model,
    height: int,
    width: int,
    precision: str,
    batch: int | tuple[int, int, int],
    pixels: bool,
    decode: bool,
    engine: bytes,
    high_precision: str = "fp16",
    gpu: Gpu | None = None,
) -> EngineHeader:
    """The header of an engine that `build_engine` made with these options."""
    return EngineHeader(
        precision=precision,
        high_precision=high_precision if precision == "int8" else precision,
        names=model.names,
        image_size=model.image_size,
        size=(height, width),
        batch=check_options(model, height, width, precision, batch),
        tensorrt=version_of(import_tensorrt()),
        gpu=gpu,
        network=model.network,
        input="uint8" if pixels else "float32",
        decode=decode,
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        weights_sha256=weights_sha256(model),
        lineage=model.lineage,
    )


def weights_sha256(model: Model) -> str:
    """SHA-256 of all tensors and scales with their names, which does not depend on the file that they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**model.tensors, **model.scales}.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return digest.hexdigest()
