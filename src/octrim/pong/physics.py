"""The game without its window: ball, paddles, walls, score. The same seed and moves give the same game to the last bit.

game = Game(Rules(gravity=GRAVITY), seed=1)
while game.winner is None:
    scene = game.scene()
    events = game.step((left.move(scene), right.move(scene)), dt=1 / 60)

Units, flight and contact are those of `octrim.pong.ball`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import ceil, cos, hypot, sin, sqrt
from typing import Literal

from octrim.errors import InputError, shown
from octrim.pong.ball import (
    BOTTOM,
    GRAVITY,
    LEFT,
    LEFT_END,
    LEFT_PADDLE,
    RIGHT,
    RIGHT_END,
    STEP,
    Ball,
    Contact,
    Motion,
    Rules,
    bounce,
    flight,
    fly,
    glance,
    hit,
    leaving,
    next_contact,
)

__all__ = ["GRAVITY", "LEFT", "RIGHT", "STEP", "Ball", "Event", "Game", "Paddle", "Rules", "Scene", "flight", "paddle_box"]

CLASSIC = Rules()
PIECES = 32  # most pieces of one step of at most STEP; a contact, or a paddle that stops, ends a piece
POCKET = 1.0  # space beyond the ball's diameter, in ball radii, that a paddle leaves between itself and a wall while the ball is there

Phase = Literal["serve", "play", "over"]


@dataclass(frozen=True)
class Paddle:
    """A paddle at one moment. vy: its speed downwards, in field heights per second."""

    y: float
    """Height of the paddle's centre, in field heights from the top."""
    vy: float


@dataclass(frozen=True)
class Event:
    """Something that happened in a game. time: seconds since the game began."""

    kind: Literal["serve", "wall", "paddle", "edge", "point", "draw", "over"]
    side: int | None
    """Side that serves, whose paddle is met (by its face, or by its edge or back), that scores or that wins; None for walls and draws."""
    time: float


@dataclass(frozen=True)
class Scene:
    """State of a game at one moment."""

    rules: Rules
    ball: Ball
    paddles: tuple[Paddle, Paddle]
    score: tuple[int, int]
    rally: int
    """Number of hits by paddles' faces since the serve."""
    phase: Phase
    wait: float
    """Seconds until the serve."""
    server: int
    time: float


def paddle_box(where: Scene | Rules, side: int, y: float) -> tuple[float, float, float, float]:
    """Box of the paddle of `side` whose centre is at `y`: x1, y1, x2, y2 in field heights."""
    rules = where.rules if isinstance(where, Scene) else where
    x1 = rules.paddle_inset if side == LEFT else rules.width - rules.paddle_inset - rules.paddle_width
    return x1, y - rules.paddle_height / 2, x1 + rules.paddle_width, y + rules.paddle_height / 2


class Game:
    """A game to `rules.points`. The seed decides who serves first; then the one who lost the point serves, and after a draw the other one.

    A serve flies from the centre towards the server's opponent at a random angle. After every step the ball is outside the paddles and within
    the walls, to 1e-9. `rules` may be replaced between steps; other sizes of field, ball or paddles raise InputError.
    """

    def __init__(self, rules: Rules = CLASSIC, seed: int = 0) -> None:
        self._rules = rules
        self._random = random.Random(seed)
        self._motion: Motion = (rules.width / 2, 0.5, 0.0, 0.0, 0.0)
        self._y, self._v = [0.5, 0.5], [0.0, 0.0]
        self._since = 0.0  # time at which the rally began, or of its last hit
        self.score = (0, 0)
        self.rally = 0
        self.phase: Phase = "serve"
        self.wait = rules.serve_delay
        self.server = self._random.randrange(2)
        self.time = 0.0
        self.winner: int | None = None

    @property
    def rules(self) -> Rules:
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        for name in ("width", "ball_radius", "paddle_width", "paddle_height", "paddle_inset"):
            if getattr(rules, name) != getattr(self._rules, name):
                raise InputError(f"{name} cannot change in a game")
        self._rules = rules

    @property
    def ball(self) -> Ball:
        return Ball(*self._motion)

    @property
    def paddles(self) -> tuple[Paddle, Paddle]:
        return Paddle(self._y[0], self._v[0]), Paddle(self._y[1], self._v[1])

    def scene(self) -> Scene:
        return Scene(self._rules, self.ball, self.paddles, self.score, self.rally, self.phase, self.wait, self.server, self.time)

    def step(self, moves: tuple[float, float], dt: float = STEP) -> list[Event]:
        """Play the next `dt` seconds and return what happens in them, in order.

        moves: moves of the left and the right paddle, -1 (up at full speed) to 1 (down at full speed); values beyond are limited to this range.
        dt: 0 to 60. Raises InputError for another dt, and for a move that is not a number.
        """
        if not 0 <= dt <= 60:
            raise InputError(f"a step is 0 to 60 seconds, found {shown(dt)}")
        if moves[0] != moves[0] or moves[1] != moves[1]:
            raise InputError("a move is not a number")
        speed = self._rules.paddle_speed
        wanted = (max(-1.0, min(1.0, moves[0])) * speed, max(-1.0, min(1.0, moves[1])) * speed)
        if not self._rules.spin and self._motion[4]:
            self._motion = (*self._motion[:4], 0.0)
        events: list[Event] = []
        count = max(1, ceil(dt / STEP - 1e-9))
        for _ in range(count):
            if self.phase == "over":
                break
            self._step(wanted, dt / count, events)
        return events

    def _step(self, wanted: tuple[float, float], dt: float, events: list[Event]) -> None:
        """Play at most STEP seconds, cut into pieces at contacts and where a paddle stops.

        Every piece is safe by itself, so a ball that has used up its PIECES (wedged between surfaces, at absurd speeds) only waits where it is.
        """
        start, left = self.time, dt
        contact: Contact | None = None
        for _ in range(PIECES):
            if self.phase == "serve":
                t = min(self.wait, left)
                self._move_paddles(wanted, t)
                self.wait -= t
            elif self._far(left):
                t = left
                self._motion = fly(self._motion, self._rules, t)
                self._move_paddles(wanted, t)
            else:
                t, contact = self._approach(wanted, left)
            left -= t
            self.time = start + (dt - left)
            if self.phase == "serve":
                if self.wait <= 0:
                    self._serve(events)
            elif contact is not None:
                self._meet(contact, events)
                contact = None
            elif self.time - self._since >= self._rules.stall:
                self._end_rally(None, events)
            if left <= 0 or self.phase == "over":
                break
        self.time = start + dt

    def _far(self, dt: float) -> bool:
        """Whether the ball cannot meet anything within `dt`."""
        rules = self._rules
        x, y, vx, vy, _ = self._motion
        reach = rules.ball_radius + (hypot(vx, vy) + abs(rules.gravity) * dt) * dt + 1e-9
        ends = rules.paddle_inset + rules.paddle_width + reach
        return reach < y < 1 - reach and ends < x < rules.width - ends

    def _move_paddles(self, wanted: tuple[float, float], dt: float) -> None:
        half = self._rules.paddle_height / 2
        for side in (LEFT, RIGHT):
            y = max(half, min(1 - half, self._y[side] + wanted[side] * dt))
            self._y[side] = y
            self._v[side] = 0.0 if (y == half and wanted[side] < 0) or (y == 1 - half and wanted[side] > 0) else wanted[side]

    def _approach(self, wanted: tuple[float, float], left: float) -> tuple[float, Contact | None]:
        """Play one piece near a wall, a paddle or an end; returns its seconds, at most `left`, and the contact that ends it or None."""
        rules, dt = self._rules, left
        stops = [self._stop(side, wanted[side]) for side in (LEFT, RIGHT)]
        for side in (LEFT, RIGHT):
            v, room = wanted[side], stops[side] - self._y[side]
            if room * v <= 0:
                v = 0.0
            elif abs(room) < abs(v) * dt:
                dt = room / v
            self._v[side] = v
        boxes = tuple((*paddle_box(rules, side, self._y[side]), self._v[side]) for side in (LEFT, RIGHT))
        t, self._motion, contact = next_contact(self._motion, rules, dt, (-rules.ball_radius, rules.width + rules.ball_radius), boxes)
        for side in (LEFT, RIGHT):
            v = self._v[side]
            if v:
                bound = min if v > 0 else max
                self._y[side] = bound(self._y[side] + v * t, stops[side])
        return t, contact

    def _stop(self, side: int, v: float) -> float:
        """The height at which the centre of a paddle that moves at `v` stops: at the wall, or before the paddle squeezes the ball against it."""
        rules = self._rules
        half = rules.paddle_height / 2
        x, y, *_ = self._motion
        x1, y1, x2, y2 = paddle_box(rules, side, self._y[side])
        r = rules.ball_radius
        room = 0.0
        if x1 - r < x < x2 + r and ((v < 0 and y < y1) or (v > 0 and y > y2)):
            room = (2 + POCKET) * r
        return half + room if v < 0 else 1 - half - room

    def _meet(self, contact: Contact, events: list[Event]) -> None:
        what, nx, ny = contact
        if what <= BOTTOM:
            self._motion = bounce(self._motion, self._rules, ny)
            events.append(Event("wall", None, self.time))
        elif what <= RIGHT_END:
            self._end_rally(RIGHT if what == LEFT_END else LEFT, events)
        else:
            self._meet_paddle(what - LEFT_PADDLE, nx, ny, events)

    def _meet_paddle(self, side: int, nx: float, ny: float, events: list[Event]) -> None:
        """Let the ball meet a paddle: its face where the normal points into the field, by less than 45 degrees off, else its edge or back."""
        rules, v = self._rules, self._v[side]
        if (nx if side == LEFT else -nx) > sqrt(0.5):
            offset = (self._motion[1] - self._y[side]) / (rules.paddle_height / 2)
            self._motion = leaving(hit(self._motion, rules, side, offset, v), rules, nx, ny, v)
            self.rally += 1
            self._since = self.time
            events.append(Event("paddle", side, self.time))
            if 0 < rules.rally_cap <= self.rally:
                self._end_rally(None, events)
        else:
            self._motion = glance(self._motion, rules, nx, ny, v)
            events.append(Event("edge", side, self.time))

    def _serve(self, events: list[Event]) -> None:
        rules = self._rules
        angle = self._random.uniform(-rules.serve_angle, rules.serve_angle)
        facing = 1.0 if self.server == LEFT else -1.0
        x, y = self._motion[:2]
        self._motion = (x, y, facing * rules.serve_speed * cos(angle), rules.serve_speed * sin(angle), 0.0)
        self.phase, self.wait, self.rally, self._since = "play", 0.0, 0, self.time
        events.append(Event("serve", self.server, self.time))

    def _end_rally(self, scorer: int | None, events: list[Event]) -> None:
        """End the rally with a point for `scorer`, or with a draw where it is None."""
        rules = self._rules
        if scorer is None:
            self.server = 1 - self.server
            events.append(Event("draw", None, self.time))
        else:
            self.server = 1 - scorer
            self.score = (self.score[0] + (scorer == LEFT), self.score[1] + (scorer == RIGHT))
            events.append(Event("point", scorer, self.time))
            if self.score[scorer] >= rules.points:
                self.phase, self.winner = "over", scorer
                events.append(Event("over", scorer, self.time))
                return
        self.phase, self.wait = "serve", rules.serve_delay
        self._motion = (rules.width / 2, 0.5, 0.0, 0.0, 0.0)
