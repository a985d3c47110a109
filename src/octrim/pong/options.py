"""Options of `octrim pong play` and `octrim pong match`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import FlagConversionOff, arg

from octrim.options import Conf, File, Folder, ImageSize, Number, Range, Seed
from octrim.pong.ball import GRAVITY, Rules
from octrim.targets.options import Execution

Side = Annotated[str, arg(metavar="PLAYER")]
Milliseconds = Annotated[float | None, arg(metavar="MS", help_behavior_hint="")]


@dataclass(frozen=True)
class PongRules:
    """Options of every command that plays games."""

    points: Annotated[int, Range(1, 1_000_000)] = 11
    """Points that win a game."""
    speed: Annotated[float, Range(0.1, 10)] = 1.0
    """Speed of ball and paddles: 2 is the same game twice as fast."""
    spin: FlagConversionOff[bool] = True
    """Let a moving paddle spin the ball, which bends its flight and its bounces."""
    gravity: bool = False
    """Let the ball fall."""
    seed: Seed = 0
    """Seed of serves, and of what players do at random."""

    def rules(self, rally_cap: int = 0) -> Rules:
        """Rules of the game with these options. Raises InputError where no game is possible.

        rally_cap: number of hits after which a rally ends as a draw; 0: no limit.
        """
        gravity = GRAVITY if self.gravity else 0.0
        return Rules(points=self.points, spin=self.spin, gravity=gravity, rally_cap=rally_cap).faster(self.speed)


@dataclass(frozen=True)
class Eyes(Execution):
    """Options of vision players."""

    imgsz: ImageSize = None
    """Picture size of vision players: side, or height and width, in pixels (default: what the network was made for)."""
    conf: Conf = 0.25
    """Least confidence at which vision players believe in a ball."""
    latency_ms: Annotated[Milliseconds, Range(0, 10_000)] = None
    """Milliseconds by which vision players see everything later (default: as long as detection takes just now)."""


@dataclass(frozen=True)
class PlayOptions(PongRules, Eyes):
    """Options of a game in a window."""

    command: ClassVar[str] = "pong play"

    left: Side = "human"
    """Player on the left: human, computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable).
    vision alone has the network that comes with OcTrim."""
    right: Side = "computer:medium"
    """Player on the right: human, computer:LEVEL or vision:WEIGHTS, as on the left."""
    keys: Annotated[str, arg(metavar="KEYS")] = "qapl"
    """Keys of the paddles, in this order: left up, left down, right up, right down."""
    width: Annotated[int, Range(64, 8192)] = 960
    """Width of the window in pixels; it can be resized."""
    height: Annotated[int, Range(64, 8192)] = 720
    """Height of the window in pixels."""
    mute: bool = False
    """Play without sound."""
    record: File = None
    """MP4 file to write the game into."""


@dataclass(frozen=True)
class MatchOptions(Folder, PongRules, Eyes):
    """Options of a series of games without a window."""

    command: ClassVar[str] = "pong match"

    left: Side = "computer:medium"
    """Player on the left: computer:LEVEL (easy, medium, hard, perfect), or vision:WEIGHTS (any model or deployable).
    vision alone has the network that comes with OcTrim."""
    right: Side = "computer:medium"
    """Player on the right: computer:LEVEL or vision:WEIGHTS, as on the left."""
    games: Annotated[int, Range(1)] = 20
    """Number of games."""
    rally_cap: Annotated[int, Range(0, 10**9)] = 100
    """Number of hits after which a rally is a draw, so that games of two perfect players end; 0: no limit."""
    workers: Annotated[Number, Range(1, 1024)] = None
    """Number of processes (default: one per processor; 1 where a vision player's latency is measured, which others would disturb)."""
    record: File = None
    """MP4 file to write the first game into."""
