"""The target `onnx`: a file for ONNX Runtime and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class OnnxTarget(Target):
    name = "onnx"
    what = "an ONNX file"
    purpose = "a file for ONNX Runtime, OpenCV and others"
    ending = ".onnx"
    precisions = ("fp32", "fp16", "int8")
    raw_heads = True
    portable = True
    runtime = "onnxruntime"
    program = "ONNX Runtime"
    live = ("fp32", "fp16", "int8")
    install = "pip install onnxruntime"

    def write(self, model: Model, path: Path, order: Order) -> None:
        from octrim.targets.onnx.graph import onnx_model

        batch = order.batch if isinstance(order.batch, int) else None
        graph = onnx_model(model, order.height, order.width, batch, order.precision, decode=not order.raw_heads)
        path.write_bytes(graph.SerializeToString(deterministic=True))
        if order.raw_heads:
            from octrim.network.cost import shapes
            from octrim.targets.raw_heads import write_description

            size = "batch" if batch is None else batch
            found = shapes(model.network, order.height, order.width)
            image = {"shape": [size, 3, order.height, order.width], "type": "float32", "values": "RGB, 0 to 1"}
            heads = {f"head{index}": {"shape": [size, *found[name]], "type": "float32"} for index, name in enumerate(model.network.rows[-1].inputs)}
            write_description(path, model, "NCHW", image, heads, order.precision)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.onnx.session import OnnxruntimeFileSession

        return OnnxruntimeFileSession(path, precision, threads)

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        from octrim.targets.onnx.session import OnnxruntimeSession

        return OnnxruntimeSession(model, precision, threads)

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)


TARGET = OnnxTarget()
