"""Python imports this first in processes that a test starts with `unrendered_figures`: they do not render figures, either."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

# A white PNG of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)


def write_pixel(_figure: object, file: str | Path, **_options: Any) -> None:
    """Stands in for `Figure.savefig`."""
    Path(file).write_bytes(PIXEL)


class _Figures(MetaPathFinder):
    """Replaces `savefig` when Matplotlib is imported, which most processes never do."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "matplotlib.figure":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def patched(module: ModuleType) -> None:
            execute(module)
            module.Figure.savefig = write_pixel

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Figures())
