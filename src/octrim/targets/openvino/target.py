"""The target `openvino`: a folder with OpenVINO's intermediate representation (IR), for processors."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from octrim.errors import shown
from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class OpenvinoTarget(Target):
    name = "openvino"
    what = "OpenVINO IR"
    purpose = "a folder with OpenVINO IR, for processors"
    precisions = ("fp32", "fp16", "int8")
    portable = True
    runtime = "openvino"
    program = "OpenVINO"
    live = ("fp32", "bf16", "fp16", "int8")
    also_opens = ("onnx",)
    install = "pip install openvino"

    def find(self, path: Path) -> Path | None:
        """The path itself for an `.xml` file, the first `.xml` file for a folder."""
        if path.is_dir():
            return min(path.glob("*.xml"), default=None)
        return path if path.suffix == ".xml" else None

    def write(self, model: Model, path: Path, order: Order) -> None:
        import openvino as ov

        from octrim.targets.openvino.graph import openvino_model
        from octrim.targets.openvino.int8 import openvino_int8_model
        from octrim.targets.rounding import require_float16

        if order.precision == "fp16":
            require_float16(model)  # because OpenVINO would write its largest number in place of what does not fit
        make = openvino_int8_model if order.precision == "int8" else openvino_model
        graph = make(model, order.height, order.width, order.batch if isinstance(order.batch, int) else None)
        path.mkdir()
        try:
            ov.save_model(graph, path / "model.xml", compress_to_fp16=order.precision == "fp16")
        except RuntimeError as error:
            raise OSError(errno.EIO, f"OpenVINO cannot write it ({shown(str(error))}); is the disk full?") from None

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.openvino.session import OpenvinoFileSession

        return OpenvinoFileSession(path, precision, threads)

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        from octrim.targets.openvino.session import OpenvinoSession

        return OpenvinoSession(model, precision, threads)

    def judge(self, precision: str) -> tuple[str, str]:
        """ONNX Runtime for int8, because it computes the same quantization; otherwise Paddle in float32."""
        return ("onnxruntime", "int8") if precision == "int8" else ("paddle", "fp32")

    def version(self) -> str:
        import openvino as ov

        from octrim.targets.openvino.core import core

        kinds = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        version = str(ov.__version__).partition("-")[0]
        return ", ".join([version, *(kind.lower() for kind in kinds if kind in ("FP32", "BF16", "FP16", "INT8"))])


TARGET = OpenvinoTarget()
