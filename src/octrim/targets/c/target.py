"""The target `c`: a folder with the network as one C file, for whatever has a C compiler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class CTarget(Target):
    name = "c"
    what = "a folder of C"
    purpose = "a folder with one C file that needs no library, for any processor with a C compiler"
    runtime = "c"
    program = "C"
    precisions = ("fp32", "int8")
    one_picture = True
    live = ("fp32", "int8")
    install = "apt install gcc, or set CC to a C compiler"

    def find(self, path: Path) -> Path | None:
        """The path where it is a folder with the header that OcTrim writes beside detector.c, else None."""
        from octrim.targets.c.folder import HEADER

        return path if (path / HEADER).is_file() else None

    def write(self, model: Model, path: Path, order: Order) -> None:
        if order.precision == "int8":
            from octrim.targets.c.integers.folder import write_folder
        else:
            from octrim.targets.c.folder import write_folder

        path.mkdir()
        write_folder(model, path, order.height, order.width)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.c.integers.session import IntegerFolderSession, is_integers
        from octrim.targets.c.session import CFolderSession

        if precision in ("fp32", "int8") and is_integers(path):  # fp32 is the default, so it is accepted for every file
            return IntegerFolderSession(path)
        return CFolderSession(path, precision, threads)

    def session(self, model: Model, precision: str, threads: int | None) -> Session:
        if precision == "int8":
            from octrim.targets.c.integers.session import IntegerSession

            return IntegerSession(model)
        from octrim.targets.c.session import CSession

        return CSession(model, precision, threads)

    def version(self) -> str:
        from octrim.targets.c.compiler import version

        return version()

    def obstacle(self) -> str | None:
        from octrim.targets.c.compiler import has_compiler

        return None if has_compiler() else "there is no C compiler here"


TARGET = CTarget()
