"""What can be chosen of games of Pong: options of `octrim pong play` and `octrim pong match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import FlagConversionOff, arg

from octrim.options import Conf, Execution, File, Folder, ImageSize, Number, Range, Seed
from octrim.pong.ball import GRAVITY, Rules

Side = Annotated[str, arg(metavar="PLAYER")]
Milliseconds = Annotated[float | None, arg(metavar="MS", help_behavior_hint="")]


@dataclass(frozen=True)
class PongRules:
    """Options of every command that plays games."""

    points: Annotated[int, Range(1, 1_000_000)] = 11
    """Points that win a game."""
    speed: Annotated[float, Range(0.1, 10)] = 1.0
    """How fast ball and paddles move: 2 is the same game twice as fast."""
    spin: FlagConversionOff[bool] = True
    """A moving paddle spins the ball, which bends its flight and its bounces."""
    gravity: bool = False
    """The ball falls."""
    seed: Seed = 0
    """Of serves and of what players do at random."""

    def rules(self, rally_cap: int = 0) -> Rules:
        """What these options mean to the game. rally_cap: hits that end a rally as a draw; 0: none. Raises InputError where no game is possible."""
        gravity = GRAVITY if self.gravity else 0.0
        return Rules(points=self.points, spin=self.spin, gravity=gravity, rally_cap=rally_cap).faster(self.speed)


@dataclass(frozen=True)
class Eyes(Execution):
    """Options of vision players."""

    imgsz: ImageSize = None
    """Vision players: side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Vision players: least confidence."""
    latency_ms: Annotated[Milliseconds, Range(0, 10_000)] = None
    """Vision players: see everything so much later (default: as long as detection takes just now)."""


@dataclass(frozen=True)
class PlayOptions(PongRules, Eyes):
    """Options of a game in a window."""

    command: ClassVar[str] = "pong play"

    left: Side = "human"
    """human, computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable)."""
    right: Side = "computer:medium"
    """As left."""
    keys: Annotated[str, arg(metavar="KEYS")] = "qapl"
    """Left up, left down, right up, right down."""
    width: Annotated[int, Range(64, 8192)] = 960
    """Of the window, in pixels; it can be resized."""
    height: Annotated[int, Range(64, 8192)] = 720
    """Of the window, in pixels."""
    mute: bool = False
    """No sound."""
    record: File = None
    """Write the game into an MP4."""


@dataclass(frozen=True)
class MatchOptions(Folder, PongRules, Eyes):
    """Options of a series of games without a window."""

    command: ClassVar[str] = "pong match"

    left: Side = "computer:medium"
    """computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable)."""
    right: Side = "computer:medium"
    """As left."""
    games: Annotated[int, Range(1)] = 20
    """How many."""
    rally_cap: Annotated[int, Range(0, 10**9)] = 100
    """Hits after which a rally is a draw, so that two perfect players end; 0: none."""
    workers: Annotated[Number, Range(1, 1024)] = None
    """Processes (default: one per processor; 1 where a vision player's latency is measured, which others would disturb)."""
    record: File = None
    """Write the first game into an MP4."""
