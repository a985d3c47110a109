"""The target `litert`: a `.tflite` file for phones, microcontrollers and processors for networks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class LitertTarget(Target):
    name = "litert"
    what = "a .tflite file"
    purpose = "a .tflite file for LiteRT (TensorFlow Lite), on phones, microcontrollers and NPUs"
    ending = ".tflite"
    precisions = ("fp32", "fp16", "int8")
    raw_heads = True
    one_picture = True
    runtime = "litert"
    program = "LiteRT"
    live = ("fp32", "fp16", "int8")
    install = "pip install 'octrim[litert]'"

    def write(self, model: Model, path: Path, order: Order) -> None:
        from octrim.targets.litert.file import write_file

        write_file(model, path, order.height, order.width, order.precision, order.raw_heads)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.litert.session import LitertFileSession

        return LitertFileSession(path, precision, threads)

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        from octrim.targets.litert.session import LitertSession

        return LitertSession(model, precision, threads)

    def check(self, model: Model, order: Order) -> None:
        from octrim.errors import InputError

        if find_spec("ai_edge_litert") is None:
            raise InputError(f"writing .tflite files takes the schema that comes with LiteRT, which is not installed: {self.install}")

    def version(self) -> str:
        from octrim.targets.litert.session import version

        return version()


TARGET = LitertTarget()
