"""The formats of deployables, and how each is written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from octrim.errors import InputError, shown
from octrim.network.model import Model

FORMATS = ("onnx", "openvino")
"""What every machine can write and run."""

ALL_FORMATS = {"onnx": ".onnx", "openvino": "", "tensorrt": ".engine", "paddle": ""}
"""Every format, and how its file's name ends; without an ending it is a folder."""

PRECISIONS = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16", "int8"), "tensorrt": ("fp32", "fp16", "int8"), "paddle": ("fp32",)}

Build = Callable[[str, int, int], None]
"""Called with a phase of the building of an engine, its steps done, and its steps in all."""


@dataclass(frozen=True)
class EngineOptions:
    """How TensorRT builds.

    pad_channels: multiple that convolutions are padded to with zeros; results stay the same. workspace: GiB of GPU memory while building.
    builder_level: 0 (builds fast) to 5 (runs fast). timing_cache: file of kernel times, read and written, so that later builds are faster.
    high_precision: of int8 engines, what is not int8: "fp16" or "fp32". progress: see `Build`.
    """

    pad_channels: int = 1
    workspace: float = 1.0
    builder_level: int = 3
    timing_cache: str | Path | None = None
    progress: Build | None = None
    high_precision: str = "fp16"


def write_portable(model: Model, made: Path, format: str, precision: str, height: int, width: int, batch: int | None) -> None:
    """Write an `.onnx` file, or the folder `made` of OpenVINO IR or Paddle Inference. batch: None for any number."""
    if format == "onnx":
        from octrim.targets.onnx.graph import onnx_model

        made.write_bytes(onnx_model(model, height, width, batch, precision).SerializeToString(deterministic=True))
        return
    made.mkdir()
    if format == "paddle":
        from octrim.targets.paddle_inference.graph import write_paddle_inference

        write_paddle_inference(model, made, height, width, batch)
        return
    import openvino as ov

    from octrim.targets.openvino.graph import openvino_model
    from octrim.targets.openvino.int8 import openvino_int8_model

    graph = openvino_int8_model(model, height, width, batch) if precision == "int8" else openvino_model(model, height, width, batch)
    try:
        ov.save_model(graph, made / "model.xml", compress_to_fp16=precision == "fp16")
    except RuntimeError as error:
        raise OSError(errno.EIO, f"OpenVINO cannot write it ({shown(str(error))}); is the disk full?") from None


def write_engine_files(
    model: Model, made: Path, precision: str, height: int, width: int, batch: int | tuple[int, int, int], options: EngineOptions
) -> None:
    """Build for this machine's GPU and write engine and header. Raises InputError where TensorRT, CUDA, driver or GPU are missing."""
    from octrim.targets.tensorrt.build import build_engine, engine_header, import_tensorrt
    from octrim.targets.tensorrt.cuda import cuda_runtime
    from octrim.targets.tensorrt.engine_file import write_engine

    try:
        import_tensorrt()
        gpu = cuda_runtime().gpu()
    except InputError as error:
        raise InputError(f"{error}; an engine is built on the machine that runs it, from the model file: see docs/deploy.md") from None
    if not 0 < options.workspace <= 1 << 20:  # not a number, too
        raise InputError(f"workspace is {options.workspace:g} GiB, expected more than 0")
    engine = build_engine(
        model,
        height,
        width,
        precision,
        batch,
        pad_channels=options.pad_channels,
        workspace=int(options.workspace * 2**30),
        level=options.builder_level,
        timing_cache=None if options.timing_cache is None else Path(options.timing_cache),
        progress=options.progress,
        high_precision=options.high_precision,
    )
    header = engine_header(model, height, width, precision, batch, True, True, engine, options.high_precision)
    write_engine(made, engine, header | {"gpu": {"name": gpu.name, "capability": gpu.capability, "cuda": gpu.cuda, "driver": gpu.driver}})
