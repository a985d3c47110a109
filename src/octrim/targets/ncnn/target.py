"""The target `ncnn`: a folder for phones, Raspberry Pis and RISC-V boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class NcnnTarget(Target):
    name = "ncnn"
    what = "a folder of ncnn"
    purpose = "a folder with .param and .bin for ncnn, on phones and Raspberry Pis"
    precisions = ("fp32", "fp16")
    one_picture = True
    runtime = "ncnn"
    program = "ncnn"
    live = ("fp32", "fp16")
    install = "pip install 'octrim[ncnn]'"

    def find(self, path: Path) -> Path | None:
        """The path itself for a `.param` file, that of `model.param` for a folder with one."""
        if path.is_dir():
            found = path / "model.param"
            return found if found.is_file() else None
        return path if path.suffix == ".param" else None

    def write(self, model: Model, path: Path, order: Order) -> None:
        from octrim.targets.ncnn.folder import write_folder

        path.mkdir()
        write_folder(model, path, order.height, order.width, order.precision)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.ncnn.session import NcnnFolderSession

        return NcnnFolderSession(path, precision, threads)

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        from octrim.targets.ncnn.session import NcnnSession

        return NcnnSession(model, precision, threads)

    def version(self) -> str:
        from octrim.targets.ncnn.session import version

        return version()

    def obstacle(self) -> str | None:
        from importlib.util import find_spec

        return None if find_spec("ncnn") else "ncnn is not installed here (pip install 'octrim[ncnn]')"


TARGET = NcnnTarget()
