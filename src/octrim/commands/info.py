"""`octrim info`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from octrim.options import ImageSize, Weights


@dataclass(frozen=True)
class Info(Weights):
    """Show a network: its rows, parameters, MACs, coupled channels and lineage."""

    command: ClassVar[str] = "info"

    imgsz: ImageSize = None
    """Side, or height and width, that MACs are counted for."""

    def run(self) -> None:
        from octrim.network.describe import info

        info(self)
