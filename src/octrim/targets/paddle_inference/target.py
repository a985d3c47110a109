"""The target `paddle`: a folder for Paddle Inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class PaddleInferenceTarget(Target):
    name = "paddle"
    what = "a folder for Paddle Inference"
    purpose = "a folder for Paddle Inference"
    runtime = "paddle"
    program = "Paddle Inference"
    install = "pip install 'octrim[cpu]'"

    def find(self, path: Path) -> Path | None:
        return path if (path / "model.json").is_file() else None

    def write(self, model: Model, path: Path, order: Order) -> None:
        from octrim.targets.paddle_inference.graph import write_paddle_inference

        path.mkdir()
        write_paddle_inference(model, path, order.height, order.width, order.batch if isinstance(order.batch, int) else None)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.paddle_inference.session import PaddleInferenceSession

        return PaddleInferenceSession(path, precision, threads)

    def version(self) -> str:
        from octrim.backends.paddle import paddle

        return str(paddle.__version__)


TARGET = PaddleInferenceTarget()
