"""`octrim data`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import arg

from octrim.options import Folder


@dataclass(frozen=True)
class Data(Folder):
    """Look at a data set: counts, class balance, box sizes, what is broken, and a contact sheet of labelled pictures."""

    command: ClassVar[str] = "data"

    check: Annotated[str | None, arg(metavar="DATA", aliases=["--data"], help_behavior_hint="")] = None
    """data.yaml, a folder (YOLO, COCO, VOC), or a COCO annotation file."""
    split: str = "train"
    """Which part of it."""
    names: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = ()
    """Class names, where the format has none."""

    def run(self) -> None:
        from octrim.data.check import check

        check(self)
