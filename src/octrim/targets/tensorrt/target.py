"""The target `tensorrt`: an engine for this machine's NVIDIA GPU, and the header file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.errors import InputError
from octrim.targets.target import Order, Target
from octrim.targets.tensorrt.options import EngineOptions

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class TensorrtTarget(Target):
    name = "tensorrt"
    what = "an engine"
    purpose = "a TensorRT engine for this machine's GPU"
    ending = ".engine"
    precisions = ("fp32", "fp16", "int8")
    any_batch = False
    batch_range = True
    engine_options = True
    runtime = "tensorrt"
    program = "TensorRT"
    device = "gpu"
    install = "only engines need it: pip install 'octrim[tensorrt]' where there is an NVIDIA GPU"

    def check(self, model: Model, order: Order) -> None:
        workspace = _options(order).workspace
        if not 0 < workspace <= 1 << 20:  # refuses nan, too
            raise InputError(f"workspace is {workspace:g} GiB, expected more than 0")

    def write(self, model: Model, path: Path, order: Order) -> None:
        """Build an engine for this machine's GPU. Raises InputError where TensorRT, CUDA, the driver or a GPU is missing."""
        from octrim.targets.tensorrt.build import build_engine, engine_header, import_tensorrt
        from octrim.targets.tensorrt.cuda import cuda_runtime
        from octrim.targets.tensorrt.engine_file import write_engine

        try:
            import_tensorrt()
            gpu = cuda_runtime().gpu()
        except InputError as error:
            raise InputError(f"{error}; an engine is built on the machine that runs it, from the model file: see docs/deploy.md") from None
        options, size, batch = _options(order), (order.height, order.width), order.batch or 1
        engine = build_engine(
            model,
            *size,
            order.precision,
            batch,
            pad_channels=options.pad_channels,
            workspace=int(options.workspace * 2**30),
            level=options.builder_level,
            timing_cache=None if options.timing_cache is None else Path(options.timing_cache),
            progress=options.progress,
            high_precision=options.high_precision,
        )
        header = engine_header(model, *size, order.precision, batch, True, True, engine, options.high_precision, gpu)
        write_engine(path, engine, header)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        """A session on the GPU; it has no use for processor threads."""
        from octrim.targets.tensorrt.session import TensorrtFileSession

        return TensorrtFileSession(path, precision)

    def judge(self, precision: str) -> tuple[str, str]:
        """ONNX Runtime, because engines are built where there may be no Paddle: in int8 with the same quantization, else in float32."""
        return "onnxruntime", "int8" if precision == "int8" else "fp32"

    def version(self) -> str:
        from octrim.targets.tensorrt.build import import_tensorrt, version_of

        return version_of(import_tensorrt())

    def obstacle(self) -> str | None:
        from octrim.targets.tensorrt.cuda import cuda_runtime

        try:
            cuda_runtime().gpu()
        except InputError as error:
            return str(error)
        return None


def _options(order: Order) -> EngineOptions:
    return order.options if isinstance(order.options, EngineOptions) else EngineOptions()


TARGET = TensorrtTarget()
