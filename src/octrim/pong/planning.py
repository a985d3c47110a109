"""Plan of a vision player: where its paddle should go.

If the ball comes to the own side, the paddle goes where it arrives, and is placed so that the return gives the other paddle the longest way;
else it goes to the middle of where the ball may come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, sqrt

import numpy as np

from octrim.pong.ball import Ball, Motion, Rules, arrival, hit
from octrim.pong.tracking import EPSILON, Rackets, Track

HITS = 4  # most arrivals at paddles that a forecast goes through
GRACE = 0.04  # seconds for which the ball is still awaited after its expected arrival
SHOTS = (0.0, -0.35, 0.35, -0.7, 0.7)  # offsets on the own paddle with which to hit the ball
RETURNS = (-0.7, 0.0, 0.7)  # offsets on the other paddle at which the ball may be hit
READ = 0.12  # seconds after which the other paddle's place says little about where it will be
SURE = 2.5  # number of standard deviations of the ball's arrival that have to stay on the paddle
SAME = 0.15  # largest change, in seconds, between two forecasts of one arrival


@dataclass(frozen=True)
class Intention:
    """A vision player's intention.

    target: height at which the own paddle's centre should be. time, y: moment and height at which the ball is expected at the own paddle's
    face; inf and None if it is not expected there.
    """

    target: float
    time: float = inf
    y: float | None = None


class Planner:
    """Planner of a vision player on `side`; it remembers the shot that it has chosen for an arrival of the ball."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.shot = 0.0  # offset on the paddle, -1 to 1, with which to hit the ball
        self.shot_time = -inf  # time of the arrival that the shot was chosen for

    def plan(self, now: float, track: Track | None, rackets: Rackets, rules: Rules) -> Intention:
        """The plan at the time `now`. track: the ball as it was in the last picture, or None. rackets: places of both paddles at any time."""
        if track is None:
            return Intention(0.5)
        motion, time = track.motion, track.time
        certain = True
        for _ in range(HITS):
            coming = arrival(Ball(*motion), rules)
            if coming is None:
                break
            after, who, ball = coming
            time += after
            motion = (ball.x, ball.y, ball.vx, ball.vy, ball.spin)
            racket = rackets(who, time)
            if who == self.side and time > now - GRACE:
                sigma = _deviation(track, ball.y, rules) if certain else inf
                return Intention(ball.y - self._shot(motion, time, sigma, rackets(1 - who, now).y, rules) * rules.paddle_height / 2, time, ball.y)
            if who != self.side:
                return Intention(self._return(motion, time - track.time, racket.offset(ball.y, rules), rules))
            offset = racket.offset(ball.y, rules)
            if abs(offset) > 1.3:
                break  # the ball passes the paddle
            motion = hit(motion, rules, who, offset, racket.vy)
            certain = False
        return Intention(0.5)

    def _shot(self, motion: Motion, time: float, sigma: float, opponent: float, rules: Rules) -> float:
        """The offset with which to hit the ball so that the other paddle has the longest way for the time that it has.

        sigma: standard deviation of the height of the arrival; the larger it is, the nearer the offset stays to the paddle's middle. opponent:
        height of the other paddle's centre.
        """
        if sigma == inf:
            return 0.0
        if abs(time - self.shot_time) > SAME:
            best, self.shot = -inf, 0.0
            for offset in SHOTS:
                coming = arrival(Ball(*hit(motion, rules, self.side, offset, 0.0)), rules)
                if coming is None or coming[1] == self.side:
                    continue
                way = abs(coming[2].y - opponent) - rules.paddle_speed * coming[0]
                if way > best:
                    best, self.shot = way, offset
        self.shot_time = time
        room = max(0.85 - SURE * sigma / (rules.paddle_height / 2), 0.0)
        return max(-room, min(room, self.shot))

    def _return(self, motion: Motion, ahead: float, offset: float, rules: Rules) -> float:
        """The middle of the heights at which the ball may come back from the other paddle.

        ahead: seconds from the last picture to the hit. offset: where on the other paddle the ball would be met, as far as is known.
        """
        known = exp(-max(ahead, 0.0) / READ)
        heights: list[float] = []
        for share in RETURNS:
            where = max(-1.0, min(1.0, known * max(-1.0, min(1.0, offset)) + (1 - 0.7 * known) * share))
            coming = arrival(Ball(*hit(motion, rules, 1 - self.side, where, 0.0)), rules)
            if coming is not None and coming[1] == self.side:
                heights.append(coming[2].y)
        return sum(heights) / len(heights) if heights else 0.5


def _deviation(track: Track, y: float, rules: Rules) -> float:
    """Standard deviation of the height at which the ball arrives, from the track's covariance."""
    slopes = np.zeros(5)
    for index, point in enumerate(track.around()):
        coming = arrival(Ball(*point), rules)
        slopes[index] = (coming[2].y - y) / EPSILON[index] if coming else 0.0
    slopes = np.clip(slopes, -10, 10)
    return sqrt(max(float(slopes @ track.covariance @ slopes), 0.0))
