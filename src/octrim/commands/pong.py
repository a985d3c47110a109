"""`octrim pong play`, `octrim pong data` and `octrim pong match`."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
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
    """Number of pictures in all; a tenth each is for val and for test."""
    out: Annotated[str, arg(metavar="DIR")] = "pong-data"
    """Folder to write; other commands take its data.yaml by --data."""
    imgsz: Annotated[int, arg(aliases=["--img", "--img-size"], metavar="PX"), Range(64, 4096)] = 320
    """Longer side of the pictures, in pixels."""
    seed: Seed = 0
    """Seed of everything that is random; the same seed makes the same files."""
    workers: Annotated[Number, Range(1, 1024)] = None
    """Number of processes (default: one per processor)."""

    def run(self) -> None:
        from octrim.pong.dataset import make_dataset
        from octrim.progress import progress_bar
        from octrim.runs import wide_console

        start, console = monotonic(), wide_console()
        with progress_bar("pong data", self.images, console) as bar:
            out = make_dataset(self.out, self.images, self.imgsz, self.seed, self.workers, bar.advance)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        console.print(f"{self.images:,} pictures, {size / 1e6:,.1f} MB, in {monotonic() - start:.1f} s: {out / 'data.yaml'}", soft_wrap=True)
        console.print(f"a sheet of labelled ones: {out / 'contact.jpg'}", soft_wrap=True)


@dataclass(frozen=True)
class PongMatch(MatchOptions):
    """Play games without a window and count: wins, points, rallies, and how well vision players saw."""

    def run(self) -> None:
        from octrim.pong.match import prepared, show_match, write_match
        from octrim.runs import new_run

        with prepared(self) as match:
            run = new_run(self)
            report = match.play(run.console)
        write_match(report, run.path)
        show_match(report, run)
        run.print(f"results: {run.path}")


@dataclass(frozen=True)
class Pong:
    """A game of Pong: play it, make labelled pictures of it, or let detectors play it by sight."""


PONG: dict[str, Any] = {"play": PongPlay, "data": PongData, "match": PongMatch}
