"""Players, which move a paddle: the keyboard, and a computer with the limits of a human.

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

DECISION = 1 / 60  # seconds between two moves, for which a move stays the same
STEPS_PER_MOVE = round(DECISION / STEP)  # steps of the game between two moves
MEMORY = 0.4  # time constant, in seconds, with which a computer's errors of sight change


class Player(Protocol):
    """What the game asks of whoever moves a paddle: a person, a computer or a detector."""

    def move(self, scene: Scene) -> float:
        """The paddle's move, -1 (up at full speed) to 1 (down at full speed); called 60 times per second of the game."""
        ...

    def reset(self) -> None:
        """Prepare for a new game."""
        ...


@dataclass(frozen=True)
class Level:
    """Limits of a computer player."""

    reaction: float
    """Age in seconds of everything that the computer sees."""
    refresh: float
    """Seconds between two plans; the computer keeps to a plan in between."""
    error: float
    """Standard deviation of the computer's estimate of the ball's flight: direction in rad, speed as a share.

    The estimate of the ball's place has a tenth of it as error, in heights, and the estimate of its spin four times as much, as a share. The
    errors change with the time constant MEMORY.
    """
    speed: float
    """Share of the paddles' top speed that the computer uses, 0 to 1."""
    spin: bool
    """Whether the computer sees that the ball spins. All levels reckon with walls and gravity."""
    dead: float
    """Distance from its target, in field heights, within which the computer does not move its paddle."""
    aim: float
    """Largest offset from its paddle's middle with which the computer tries to hit, to where the other paddle is not: 0 to 1."""


LEVELS = {
    "easy": Level(reaction=0.25, refresh=0.15, error=0.2, speed=0.45, spin=False, dead=0.02, aim=0.0),
    "medium": Level(reaction=0.2, refresh=0.1, error=0.15, speed=0.5, spin=False, dead=0.015, aim=0.4),
    "hard": Level(reaction=0.15, refresh=0.06, error=0.09, speed=0.65, spin=True, dead=0.01, aim=0.7),
    "perfect": Level(reaction=0.0, refresh=0.0, error=0.0, speed=1.0, spin=True, dead=0.0, aim=0.9),
}


class Computer:
    """Computer player: sees a scene late and not quite right, plans now and then where to meet the ball, and moves there.

    level: a name in LEVELS, or a Level. The same seed and scenes give the same moves, from each `reset` on. Raises InputError for another name.
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
        self._planned = -math.inf  # time of the last plan
        self._target = 0.5
        self._shot: int | None = None  # number of hits in the rally when `_offset` was chosen
        self._offset = 0.0

    def move(self, scene: Scene) -> float:
        if self._seen and scene.time < self._seen[-1].time:  # another game has begun
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
        """The height at which the centre of the computer's paddle should be."""
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
        """The offset on the paddle, up to the level's aim, from which the opponent would have to move fastest."""
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
    """Player with two keys, held or not: the window calls `press` and `release` when they go down and up."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._held: set[str] = set()

    def press(self, key: Literal["up", "down"]) -> None:
        self._held.add(key)

    def release(self, key: Literal["up", "down"]) -> None:
        self._held.discard(key)

    def move(self, scene: Scene) -> float:
        """The paddle's move: -1 while the key for up is held, 1 while that for down is, 0 with both or neither."""
        return float("down" in self._held) - float("up" in self._held)

    def reset(self) -> None:
        """Do nothing: a key that is held stays held in the next game."""
