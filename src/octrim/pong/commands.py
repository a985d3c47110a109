"""The commands of `octrim pong`: one frozen dataclass each, like those of `octrim.commands`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagConversionOff, arg

from octrim.commands.options import Conf, Execution, Folder, ImageSize, Number

if TYPE_CHECKING:
    from octrim.pong.ball import Rules

Side = Annotated[str, arg(metavar="PLAYER")]
File = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Milliseconds = Annotated[float | None, arg(metavar="MS", help_behavior_hint="")]


@dataclass(frozen=True)
class PongRules:
    """Options of every command that plays games."""

    points: int = 11
    """Points that win a game."""
    speed: float = 1.0
    """How fast ball and paddles move: 2 is the same game twice as fast."""
    spin: FlagConversionOff[bool] = True
    """A moving paddle spins the ball, which bends its flight and its bounces."""
    gravity: bool = False
    """The ball falls."""
    seed: int = 0
    """Of serves and of what players do at random."""

    def rules(self, rally_cap: int = 0) -> Rules:
        """What these options mean to the game. rally_cap: hits that end a rally as a draw; 0: none. Raises InputError where no game is possible."""
        from octrim.errors import InputError
        from octrim.pong.ball import GRAVITY, Rules

        if not 0.1 <= self.speed <= 10:
            raise InputError(f"speed is {self.speed:g}, expected 0.1 to 10")
        gravity = GRAVITY if self.gravity else 0.0
        return Rules(points=self.points, spin=self.spin, gravity=gravity, rally_cap=rally_cap).faster(self.speed)


@dataclass(frozen=True)
class Eyes(Execution):
    """Options of vision players."""

    imgsz: ImageSize = None
    """Vision players: side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Vision players: least confidence."""
    latency_ms: Milliseconds = None
    """Vision players: see everything so much later (default: as long as detection takes just now)."""


@dataclass(frozen=True)
class PongPlay(PongRules, Eyes):
    """Play in a window."""

    left: Side = "human"
    """human, computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable)."""
    right: Side = "computer:medium"
    """As left."""
    keys: Annotated[str, arg(metavar="KEYS")] = "qapl"
    """Left up, left down, right up, right down."""
    width: int = 960
    """Of the window, in pixels; it can be resized."""
    height: int = 720
    """Of the window, in pixels."""
    mute: bool = False
    """No sound."""
    record: File = None
    """Write the game into an MP4."""

    def run(self) -> None:
        from octrim.pong.window import play

        play(self)


@dataclass(frozen=True)
class PongData:
    """Make labelled pictures of simulated games: train, val and test in YOLO format, classes ball and paddle."""

    images: int = 800
    """Pictures in all; a tenth each is for val and for test."""
    out: Annotated[str, arg(metavar="DIR")] = "pong-data"
    """Folder to write; its data.yaml is what --data of other commands wants."""
    imgsz: Annotated[int, arg(aliases=["--img", "--img-size"], metavar="PX")] = 320
    """Longer side of the pictures, in pixels."""
    seed: int = 0
    """Of everything that is random; the same seed makes the same files."""
    workers: Number = None
    """Processes (default: one per processor)."""

    def run(self) -> None:
        from octrim.pong.dataset import data

        data(self)


@dataclass(frozen=True)
class PongMatch(Folder, PongRules, Eyes):
    """Play games without a window and count: wins, points, rallies, and how well vision players saw."""

    left: Side = "computer:medium"
    """computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable)."""
    right: Side = "computer:medium"
    """As left."""
    games: int = 20
    """How many."""
    rally_cap: int = 100
    """Hits after which a rally is a draw, so that two perfect players end; 0: none."""
    workers: Number = None
    """Processes (default: one per processor; 1 where a vision player's latency is measured, which others would disturb)."""
    record: File = None
    """Write the first game into an MP4."""

    def run(self) -> None:
        from octrim.pong.match import match

        match(self)


@dataclass(frozen=True)
class Pong:
    """A game of Pong: play it, make labelled pictures of it, or let detectors play it by sight."""


PONG: dict[str, Any] = {"play": PongPlay, "data": PongData, "match": PongMatch}
