"""Places of the paddles as a vision player knows them: its own paddle's from moves and pictures, the other paddle's from pictures alone."""

from __future__ import annotations

from bisect import bisect
from collections import deque
from dataclasses import dataclass

from octrim.pong.ball import Rules

MEMORY = 2.0  # seconds of the own paddle's path that are kept
JUMP = 0.06  # largest deviation, in heights, at which a single sighting of the own paddle is believed
COAST = 0.1  # seconds after its last sighting for which the other paddle is expected to go on as it did


@dataclass(frozen=True)
class Racket:
    """A paddle at one moment: height of its centre, its speed in y, and the standard deviation of the height."""

    y: float
    vy: float
    sigma: float

    def offset(self, y: float, rules: Rules) -> float:
        """Offset on the paddle's face of a ball at the height `y`: -1 at the upper end, 1 at the lower end, beyond them outside."""
        return (y - self.y) / (rules.paddle_height / 2)


class OwnPaddle:
    """The own paddle's path by dead reckoning, corrected by sightings, which are older than the last moves.

    sigma: standard deviation of a sighting, in field heights.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.path: deque[tuple[float, float]] = deque([(0.0, 0.5)])  # pairs of time and height
        self.error: float | None = None  # error of the last sighting, if it was not believed

    def moved(self, now: float, speed: float, rules: Rules) -> None:
        """Take note that the paddle has moved at `speed` from the last moment of the path until `now`."""
        time, y = self.path[-1]
        half = rules.paddle_height / 2
        self.path.append((now, min(max(y + speed * (now - time), half), 1 - half)))
        while self.path[0][0] < now - MEMORY:
            self.path.popleft()

    @property
    def y(self) -> float:
        """Height of the paddle's centre at the last moment of the path."""
        return self.path[-1][1]

    def at(self, time: float) -> Racket:
        """The paddle at a moment of the path; for a moment before or after it, at rest at that end of the path."""
        index = bisect(self.path, (time, 2.0))
        if index in (0, len(self.path)):
            return Racket(self.path[min(index, len(self.path) - 1)][1], 0.0, self.sigma)
        (t0, y0), (t1, y1) = self.path[index - 1], self.path[index]
        speed = (y1 - y0) / (t1 - t0) if t1 > t0 else 0.0
        return Racket(y0 + speed * (time - t0), speed, self.sigma)

    def see(self, time: float, heights: list[tuple[float, float]]) -> None:
        """Correct the path by a picture of the moment `time`.

        heights: y and confidence of all paddles found near the own side's column. A sighting far from the path counts when the next one agrees.
        """
        if not heights:
            return
        known = self.at(time).y
        y = max(heights, key=lambda height: height[1] - 2 * abs(height[0] - known))[0]
        error = y - known
        if abs(error) > JUMP and (self.error is None or abs(error - self.error) > JUMP):  # a single one may be chance
            self.error = error
            return
        self.error = None
        self.path = deque((t, height + error) for t, height in self.path)


class OtherPaddle:
    """The other paddle's last two sightings. sigma: standard deviation of a sighting, in field heights."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.last: tuple[float, float] | None = None
        self.before: tuple[float, float] | None = None

    def see(self, time: float, heights: list[tuple[float, float]]) -> None:
        """Take note of a picture of the moment `time`. heights: y and confidence of all paddles found near the other side's column."""
        if heights:
            self.before, self.last = self.last, (time, max(heights, key=lambda height: height[1])[0])

    def at(self, time: float, rules: Rules) -> Racket:
        """The paddle at any moment, the less certain the farther the moment is from a sighting, within what a paddle can do."""
        half = rules.paddle_height / 2
        if self.last is None:
            return Racket(0.5, 0.0, 1.0)
        t1, y1 = self.last
        t0, y0 = self.before or (t1 - 1.0, y1)
        top = rules.paddle_speed
        speed = max(-top, min(top, (y1 - y0) / max(t1 - t0, 1e-3)))
        ahead = time - t1
        y = y1 + speed * (min(ahead, COAST) if ahead > 0 else max(ahead, t0 - t1))
        gap = ahead if ahead > 0 else min(time - t0, -ahead)
        return Racket(min(max(y, half), 1 - half), speed if ahead < COAST else 0.0, self.sigma + top * max(gap, 0.0) / 2)
