"""The target `web`: a folder with one page that runs the network in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octrim.targets.target import Order, Target

if TYPE_CHECKING:
    from octrim.network.model import Model
    from octrim.targets.session import Session


class WebTarget(Target):
    name = "web"
    what = "a folder with a web page"
    purpose = "a folder with one page that runs the network in any browser, on pictures, videos and cameras"
    examples = True
    one_picture = True
    runtime = "node"
    program = "WebAssembly"
    install = "apt install clang lld to write pages, nodejs to run them outside of a browser"

    def find(self, path: Path) -> Path | None:
        """The path where it is a folder with the header that OcTrim writes beside index.html, else None."""
        from octrim.targets.web.folder import HEADER

        return path if (path / HEADER).is_file() else None

    def check(self, model: Model, order: Order) -> None:
        from octrim.targets.web.compiler import clang
        from octrim.targets.web.folder import check_size

        clang()
        check_size(model, order.example)

    def write(self, model: Model, path: Path, order: Order) -> None:
        from octrim.targets.web.folder import write_folder

        path.mkdir()
        write_folder(model, path, order.height, order.width, order.example)

    def open(self, path: Path, precision: str, threads: int | None) -> Session:
        from octrim.targets.web.session import WebSession

        return WebSession(path, precision, threads)

    def version(self) -> str:
        from octrim.targets.web.compiler import version
        from octrim.targets.web.session import node
        from octrim.targets.web.session import version as version_of_node

        return f"{version()}, Node {version_of_node()}" if node() else version()

    def obstacle(self) -> str | None:
        from octrim.targets.web.session import node

        return None if node() else "Node, which runs pages outside of a browser, is not installed here (Debian: apt install nodejs)"


TARGET = WebTarget()
