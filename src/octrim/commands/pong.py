"""`octrim pong play`, `octrim pong data` and `octrim pong match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tyro.conf import arg

from octrim.options import Number, Range, Seed
from octrim.pong.options import MatchOptions, PlayOptions


@dataclass(frozen=True)
class PongPlay(PlayOptions):
    """Play in a window."""

    def run(self) -> None:
        from octrim.pong.window import play

        play(self)


@dataclass(frozen=True)
class PongData:
    """Make labelled pictures of simulated games: train, val and test in YOLO format, classes ball and paddle."""

    command: ClassVar[str] = "pong data"

    images: Annotated[int, Range(10, 10**7)] = 800
    """Pictures in all; a tenth each is for val and for test."""
    out: Annotated[str, arg(metavar="DIR")] = "pong-data"
    """Folder to write; its data.yaml is what --data of other commands wants."""
    imgsz: Annotated[int, arg(aliases=["--img", "--img-size"], metavar="PX"), Range(64, 4096)] = 320
    """Longer side of the pictures, in pixels."""
    seed: Seed = 0
    """Of everything that is random; the same seed makes the same files."""
    workers: Annotated[Number, Range(1, 1024)] = None
    """Processes (default: one per processor)."""

    def run(self) -> None:
        from octrim.pong.dataset import data

        data(self.out, self.images, self.imgsz, self.seed, self.workers)


@dataclass(frozen=True)
class PongMatch(MatchOptions):
    """Play games without a window and count: wins, points, rallies, and how well vision players saw."""

    def run(self) -> None:
        from octrim.pong.match import match

        match(self)


@dataclass(frozen=True)
class Pong:
    """A game of Pong: play it, make labelled pictures of it, or let detectors play it by sight."""


PONG: dict[str, Any] = {"play": PongPlay, "data": PongData, "match": PongMatch}
