"""Who moves a paddle: the keyboard, and a computer with the limits of a human.

player = Computer(RIGHT, "medium", seed=1)
game.step((0.0, player.move(game.scene())))
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from octrim.errors import InputError, shown
from octrim.pong.ball import Ball, Rules, arrival, hit
from octrim.pong.physics import STEP, Scene

DECISION = 1 / 60  # s between two moves, for which a move stays
STEPS_PER_MOVE = round(DECISION / STEP)  # steps of the game between two moves
MEMORY = 0.4  # s after which an error of the eye has mostly become another one


class Player(Protocol):
    def move(self, scene: Scene) -> float:
        """-1 (up at full speed) to 1 (down), asked 60 times a second."""
        ...

    def reset(self) -> None:
        """Before a new game."""
        ...


@dataclass(frozen=True)
class Level:
    """What limits a computer."""

    reaction: float
    """Seconds by which all that it sees is old."""
    refresh: float
    """Seconds between two plans; it holds to a plan in between."""
    error: float
    """Standard deviation of its estimate of the flight: of the direction in rad and of the speed as a share; the ball's place is off by a
    tenth of that in heights, its spin by four times that as a share. The errors wander within MEMORY."""
    speed: float
    """Share of the paddles' top speed that it uses."""
    spin: bool
    """Whether it sees that the ball spins. All levels reckon with walls and gravity."""
    dead: float
    """Heights within which it takes its paddle as being where it should."""
    aim: float
    """How far off its paddle's middle it tries to hit, to where the other paddle is not: 0 to 1."""


LEVELS = {
    "easy": Level(reaction=0.25, refresh=0.15, error=0.2, speed=0.45, spin=False, dead=0.02, aim=0.0),
    "medium": Level(reaction=0.2, refresh=0.1, error=0.15, speed=0.5, spin=False, dead=0.015, aim=0.4),
    "hard": Level(reaction=0.15, refresh=0.06, error=0.09, speed=0.65, spin=True, dead=0.01, aim=0.7),
    "perfect": Level(reaction=0.0, refresh=0.0, error=0.0, speed=1.0, spin=True, dead=0.0, aim=0.9),
}


class Computer:
    """Sees a scene late and not quite right, plans now and then where to meet the ball, and moves there.

    level: a name of LEVELS, or a Level. The same seed and scenes give the same moves, from each `reset` on.
    """

    def __init__(self, side: int, level: str | Level = "medium", seed: int = 0) -> None:
        if isinstance(level, str) and level not in LEVELS:
            raise InputError(f"level {shown(level)}: expected {', '.join(LEVELS)}")
        self.side = side
        self.level = LEVELS[level] if isinstance(level, str) else level
        self.seed = seed
        self.reset()

    def reset(self) -> None:
        self._random = random.Random(self.seed)
        self._seen: deque[Scene] = deque()
        self._errors = [0.0] * 5
        self._planned = -math.inf  # when
        self._target = 0.5
        self._shot: int | None = None  # the rally's length for which `_offset` was chosen
        self._offset = 0.0

    def move(self, scene: Scene) -> float:
        if self._seen and scene.time < self._seen[-1].time:  # another game
            self.reset()
        self._seen.append(scene)
        while len(self._seen) > 1 and self._seen[1].time <= scene.time - self.level.reaction + 1e-9:
            self._seen.popleft()
        if scene.time - self._planned >= self.level.refresh - 1e-9:
            self._wander(scene.time - self._planned)
            self._planned = scene.time
            self._target = self._plan(self._seen[0])
        way = self._target - scene.paddles[self.side].y
        if abs(way) <= self.level.dead or scene.rules.paddle_speed == 0:
            return 0.0
        return max(-self.level.speed, min(self.level.speed, way / (scene.rules.paddle_speed * DECISION)))

    def _wander(self, elapsed: float) -> None:
        keep = math.exp(-elapsed / MEMORY)
        new = self.level.error * math.sqrt(1 - keep * keep)
        if new:
            self._errors = [keep * error + self._random.gauss(0, new) for error in self._errors]

    def _plan(self, scene: Scene) -> float:
        """Where the middle of the paddle should be."""
        rules, ball = scene.rules, self._estimate(scene.ball)
        if scene.phase != "play":
            self._shot = None
            return 0.5
        coming = arrival(ball, rules)
        if coming is None or coming[1] != self.side:
            return 0.5
        then = coming[2]
        if self.level.aim and self._shot != scene.rally:
            self._shot = scene.rally
            self._offset = self._best_offset(then, rules, scene.paddles[1 - self.side].y)
        return then.y - self._offset * rules.paddle_height / 2

    def _estimate(self, ball: Ball) -> Ball:
        x, y, turn, faster, spin = self._errors
        cosine, sine = (1 + faster) * math.cos(turn), (1 + faster) * math.sin(turn)
        vx, vy = cosine * ball.vx - sine * ball.vy, sine * ball.vx + cosine * ball.vy
        return Ball(ball.x + x / 10, ball.y + y / 10, vx, vy, ball.spin * (1 + 4 * spin) if self.level.spin else 0.0)

    def _best_offset(self, ball: Ball, rules: Rules, opponent: float) -> float:
        """The one that makes the opponent move fastest."""
        best, most = 0.0, -1.0
        for share in (0.0, -0.5, 0.5, -1.0, 1.0):
            offset = share * self.level.aim
            motion = hit((ball.x, ball.y, ball.vx, ball.vy, ball.spin), rules, self.side, offset, 0.0)
            after = arrival(Ball(*motion), rules)
            if after is not None and after[1] != self.side:
                needed = abs(after[2].y - opponent) / max(after[0], 0.01)
                if needed > most:
                    best, most = offset, needed
        return best


class Keyboard:
    """Two keys, held or not: the window tells when they go down and up."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._held: set[str] = set()

    def press(self, key: Literal["up", "down"]) -> None:
        self._held.add(key)

    def release(self, key: Literal["up", "down"]) -> None:
        self._held.discard(key)

    def move(self, scene: Scene) -> float:
        """Both held: 0."""
        return float("down" in self._held) - float("up" in self._held)

    def reset(self) -> None:
        """Nothing: a key that is held stays held."""
