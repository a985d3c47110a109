"""Where the paddles are, as far as a vision player knows: its own from its moves and from pictures, the other one from pictures alone."""

from __future__ import annotations

from bisect import bisect
from collections import deque
from dataclasses import dataclass

from octrim.pong.ball import Rules

MEMORY = 2.0  # s of the own paddle's path
JUMP = 0.06  # heights by which a single sighting may contradict what is known
COAST = 0.1  # s for which the other paddle is taken to go on as it did


@dataclass(frozen=True)
class Racket:
    """A paddle at one moment: centre, speed, standard deviation of the centre."""

    y: float
    vy: float
    sigma: float

    def offset(self, y: float, rules: Rules) -> float:
        """Where on the paddle's face a ball at `y` is: -1 at its upper end, 1 at its lower."""
        return (y - self.y) / (rules.paddle_height / 2)


class OwnPaddle:
    """Dead reckoning, corrected by sightings, which are older than the last moves."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.path: deque[tuple[float, float]] = deque([(0.0, 0.5)])  # time and height
        self.error: float | None = None  # of the last sighting that was not believed

    def moved(self, now: float, speed: float, rules: Rules) -> None:
        """It has gone at `speed` until now."""
        time, y = self.path[-1]
        half = rules.paddle_height / 2
        self.path.append((now, min(max(y + speed * (now - time), half), 1 - half)))
        while self.path[0][0] < now - MEMORY:
            self.path.popleft()

    @property
    def y(self) -> float:
        """Now."""
        return self.path[-1][1]

    def at(self, time: float) -> Racket:
        """At a moment of the past; for the future, where it is now."""
        index = bisect(self.path, (time, 2.0))
        if index in (0, len(self.path)):
            return Racket(self.path[min(index, len(self.path) - 1)][1], 0.0, self.sigma)
        (t0, y0), (t1, y1) = self.path[index - 1], self.path[index]
        speed = (y1 - y0) / (t1 - t0) if t1 > t0 else 0.0
        return Racket(y0 + speed * (time - t0), speed, self.sigma)

    def see(self, time: float, heights: list[tuple[float, float]]) -> None:
        """heights: y and confidence of all paddles where the own one should be, at `time`."""
        if not heights:
            return
        known = self.at(time).y
        y = max(heights, key=lambda height: height[1] - 2 * abs(height[0] - known))[0]
        error = y - known
        if abs(error) > JUMP and (self.error is None or abs(error - self.error) > JUMP):  # once is chance
            self.error = error
            return
        self.error = None
        self.path = deque((t, height + error) for t, height in self.path)


class OtherPaddle:
    """Its last two sightings."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.last: tuple[float, float] | None = None
        self.before: tuple[float, float] | None = None

    def see(self, time: float, heights: list[tuple[float, float]]) -> None:
        """heights: y and confidence of all paddles where the other one should be, at `time`."""
        if heights:
            self.before, self.last = self.last, (time, max(heights, key=lambda height: height[1])[0])

    def at(self, time: float, rules: Rules) -> Racket:
        """At any moment; the less certain the farther it is from a sighting, within what a paddle can do."""
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
