"""Tracking of the ball through pictures in which a detector sometimes misses it and sometimes takes other things for it.

A track is an extended Kalman filter over position, velocity and spin, whose transition is the game's own: flight, walls, paddles. Several tracks
compete (Bar-Shalom and others, "Estimation with Applications to Tracking and Navigation", ch. 9: a track's score is a log-likelihood ratio
against clutter).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from math import hypot, inf, log, pi, sqrt

import numpy as np

from octrim.pong.ball import BOTTOM, LEFT, LEFT_END, RIGHT, Motion, Rules, bounce, fly, hit, next_contact
from octrim.pong.rackets import Racket

OPEN = (-1e3, 1e3)  # faces, far away, for a ball that meets no paddle
BOUNCES = 64  # most contacts of one prediction
EPSILON = np.array([1e-4, 1e-4, 1e-4, 1e-4, 1e-2])  # steps of numerical derivatives by x, y (heights), vx, vy (heights/s) and spin (rad/s)

FOUND = 0.8  # share of pictures in which a ball that is there is found
CLUTTER = 0.1  # false balls per picture and squared height
GATE = 16.0  # largest squared Mahalanobis distance of a sighting from its track; 1 of 3000 true sightings lies beyond
BEST_SCORE = 10.0  # limit of scores, so that a track, however old, gives way to a better one after a few misses
WORST_SCORE = -3.0  # score at which a track is dropped
KNOWN_HITS, KNOWN_SCORE = 5, 0.5  # a track of so many sightings keeps at least this score
STALE = 2.5  # loss of score per miss since the last sighting, when the best track is chosen
MEMORY = 1.0  # seconds without a sighting after which a track is dropped
TRACKS = 8  # most tracks that are kept
FAN = 0.15  # standard deviation in rad of the direction off a paddle from which on a track is split into a fan
FAN_OFFSETS = (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0)  # offsets on the paddle at which the tracks of a fan meet it
FAN_SIGMA = 0.25  # standard deviation of the offset of each track of a fan
ANYWHERE = 0.6  # standard deviation of an offset that may be any
RIVAL = 4.0  # difference to the best score of its family from which on a track is dropped
DRIFT = np.array([1e-3, 1e-3, 0.03, 0.03, 2.0])  # process noise: standard deviations of x, y, vx, vy and spin after one second
# Standard deviations of the spin, as shares of the largest spin: the first for a ball that is new, or comes off a paddle whose motion is hardly
# known, the second, which grows with the uncertainty of the paddle, for a ball after a hit.
UNKNOWN_SPIN = 0.27
SPIN_AFTER_HIT = 0.13


def advance(motion: Motion, rules: Rules, time: float, faces: tuple[float, float] = OPEN) -> tuple[Motion, float, int | None]:
    """Fly and bounce off walls for `time` seconds, or until the ball's centre reaches one of the two x in `faces` (on its way out).

    Returns the motion at the end, the seconds that it took, and the side that was reached or None.
    """
    left = time
    for _ in range(BOUNCES):
        x, y, vx, vy, _spin = motion
        reach = (hypot(vx, vy) + abs(rules.gravity) * left) * left
        beside = reach + rules.ball_radius
        if beside < y < 1 - beside and faces[0] + reach < x < faces[1] - reach:
            return fly(motion, rules, left), time, None
        used, motion, contact = next_contact(motion, rules, left, faces)
        left -= used
        if contact is None:
            if left <= 1e-9:
                break
        elif contact[0] <= BOTTOM:
            motion = bounce(motion, rules, contact[2])
        else:
            return motion, time - left, LEFT if contact[0] == LEFT_END else RIGHT
    return motion, time, None


def faces(rules: Rules) -> tuple[float, float]:
    """The x of the ball's centre when it touches the left and the right paddle's face."""
    left = rules.paddle_inset + rules.paddle_width + rules.ball_radius
    return left, rules.width - left


Rackets = Callable[[int, float], Racket]
"""Function from a side and a time to what is known of that side's paddle at that time."""


class Track:
    """One hypothesis of where the ball is.

    motion: x, y, vx, vy, spin at `time`. covariance: `[5, 5]`, of the motion. score: log-likelihood ratio against clutter. hits: number of
    sightings. seen: time of the last one. misses: number of pictures since then. family: number that tracks share which were one before they met
    a paddle.
    """

    def __init__(self, rules: Rules, time: float, x: float, y: float, sigma: float, score: float, family: int) -> None:
        spread = rules.max_speed / 2
        self.rules, self.time, self.seen = rules, time, time
        self.motion: Motion = (x, y, 0.0, 0.0, 0.0)
        self.covariance = np.diag(np.square([sigma, sigma, spread, spread, UNKNOWN_SPIN * rules.max_spin if rules.spin else 0.0]))
        self.score, self.hits, self.misses, self.family = score, 1, 0, family

    @property
    def speed(self) -> float:
        return hypot(self.motion[2], self.motion[3])

    @property
    def still(self) -> bool:
        """Whether the track hardly moves: a ball that is not yet served, or no ball at all."""
        return self.hits > 1 and self.speed < self.rules.serve_speed / 3

    def predict(self, time: float, rackets: Rackets, split: bool = True) -> list[Track]:
        """Advance the track to `time`, also through paddles, where the direction follows from the place at which the ball meets them.

        Returns the track, or, where that place is hardly known and `split` is true, a fan of tracks of one family in its stead, because a direction
        that may be anything is no normal distribution. The tracks of a fan are not split again.
        """
        rules, ends = self.rules, faces(self.rules)
        while (left := time - self.time) > 1e-9:
            motion, used, side = advance(self.motion, rules, left, ends)
            points = [advance(point, rules, used)[0] for point in self.around()]
            self.time += used
            self._moved(motion, points, np.diag(np.square(DRIFT) * used))
            if side is None:
                continue
            racket = rackets(side, self.time)
            where, unsure = racket.offset(motion[1], rules), 2 * racket.sigma / rules.paddle_height
            if abs(where) > 1 + 2 * rules.ball_radius / rules.paddle_height + 2 * unsure:
                ends = OPEN  # the ball passes the paddle
            elif rules.max_angle * unsure < FAN or not split:
                self._meet(side, ends[side], racket, min(unsure, ANYWHERE))
            else:
                fan = []
                for y in FAN_OFFSETS:
                    track = copy(self)
                    away = (y - where) / unsure
                    track.score -= min(away * away / 2, 3.0)
                    at = Racket(motion[1] - y * rules.paddle_height / 2, racket.vy, racket.sigma)
                    track._meet(side, ends[side], at, FAN_SIGMA)
                    fan += track.predict(time, rackets, split=False)
                return fan
        return [self]

    def around(self) -> list[Motion]:
        """Five copies of the motion, in each of which one number is larger by its EPSILON, for numerical derivatives."""
        return [(*(np.array(self.motion) + step).tolist(),) for step in np.diag(EPSILON)]

    def _moved(self, motion: Motion, points: Sequence[Motion], noise: np.ndarray) -> None:
        # A derivative beyond 50 means that motion and point ended on different sides of an event.
        slope = np.clip((np.array(points) - motion).T / EPSILON, -50, 50)
        self.covariance = slope @ self.covariance @ slope.T + noise
        self.motion = motion

    def _meet(self, side: int, face: float, racket: Racket, unsure: float) -> None:
        """Let the ball bounce off a paddle. face: x of the ball's centre at the contact. unsure: standard deviation of the offset on the paddle."""
        rules = self.rules
        motion, *points = [_off(point, rules, side, face, racket) for point in (self.motion, *self.around())]
        angle = rules.max_angle * unsure
        _, _, vx, vy, _ = motion
        turned = np.array([0, 0, -vy * angle, vx * angle, 0])
        spin = min(SPIN_AFTER_HIT * (1 + racket.sigma / 0.02), UNKNOWN_SPIN) * rules.max_spin if rules.spin else 0.0
        # The rules give the speed; its standard deviation of 2 % allows for a ball that has touched an end of the face.
        self._moved(motion, points, np.outer(turned, turned) + np.diag(np.square([0, 0, 0.02 * vx, 0.02 * vx, spin])))

    def gain(self, x: float, y: float, confidence: float, sigma: float) -> float:
        """The log-likelihood ratio against clutter that a sighting would add to the score; -inf where it cannot be this track's ball.

        x, y: place of the sighting in the field. confidence: 0 to 1. sigma: standard deviation of the place.
        """
        s = self.covariance[:2, :2] + np.eye(2) * sigma**2
        d = np.array([x - self.motion[0], y - self.motion[1]])
        distance = float(d @ np.linalg.solve(s, d))
        if distance > GATE:
            return -inf
        determinant = float(s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0])
        return log(FOUND / CLUTTER * max(confidence, 0.01) / (2 * pi * sqrt(determinant))) - distance / 2

    def update(self, x: float, y: float, sigma: float, gain: float) -> None:
        """Correct the track by a sighting at x, y, with the standard deviation sigma. gain: what the sighting adds to the score."""
        weights = np.linalg.solve(self.covariance[:2, :2] + np.eye(2) * sigma**2, self.covariance[:2]).T
        state = np.array(self.motion) + weights @ np.array([x - self.motion[0], y - self.motion[1]])
        rest = np.eye(5)
        rest[:, :2] -= weights
        self.covariance = rest @ self.covariance @ rest.T + weights @ weights.T * sigma**2  # Joseph's form stays positive
        limit = self.rules.max_spin
        x, y, vx, vy, spin = state.tolist()
        self.motion = x, y, vx, vy, max(-limit, min(limit, spin))
        if hypot(vx, vy) > 1.5 * self.rules.max_speed and self.hits > 1:  # no ball is that fast
            gain -= 4
        self.score += gain
        self.seen, self.hits, self.misses = self.time, self.hits + 1, 0

    def missed(self) -> None:
        """Take note of a picture without a sighting. A track of KNOWN_HITS sightings keeps KNOWN_SCORE, because misses come in runs."""
        self.score = max(self.score + log(1 - FOUND), KNOWN_SCORE if self.hits >= KNOWN_HITS else -inf)
        self.misses += 1


def _off(motion: Motion, rules: Rules, side: int, face: float, racket: Racket) -> Motion:
    """The motion after a hit by the paddle's face, as if the flight had been bent exactly at x = `face`.

    For numerical derivatives the ball may be a little before or behind the face: its place is set back along the old flight, then forward along
    the new one.
    """
    x, y, vx, vy, spin = motion
    ago = (x - face) / vx if abs(vx) > 1e-6 else 0.0
    y -= vy * ago
    _, _, vx, vy, spin = hit((face, y, vx, vy, spin), rules, side, racket.offset(y, rules), racket.vy)
    return face + vx * ago, y + vy * ago, vx, vy, spin


class Tracker:
    """Tracker that finds the ball among all sightings of balls. sigma: standard deviation of a sighting, in field heights."""

    def __init__(self, rules: Rules, sigma: float) -> None:
        self.rules, self.sigma = rules, sigma
        self.tracks: list[Track] = []
        self.families = 0

    @property
    def ball(self) -> Track | None:
        """The best track that moves, or None. A single sighting is no such track yet, because it has no velocity."""
        moving = [track for track in self.tracks if track.hits > 1 and track.score > 0 and not track.still]
        return max(moving, key=lambda track: track.score - STALE * track.misses, default=None)

    def update(self, time: float, sightings: Sequence[tuple[float, float, float]], rackets: Rackets) -> Track | None:
        """Take note of a picture of the moment `time` and return `ball`.

        sightings: x and y in the field, and confidence (0 to 1), of every ball found in the picture. rackets: places of the paddles at any time.
        """
        self.tracks = [track for track in self.tracks if time - track.seen < MEMORY]
        births = [track for track in self.tracks if track.still and track.time == track.seen]
        origins = [(track.motion[0], track.motion[1], track.time) for track in births]
        families: dict[int, list[Track]] = {}
        for track in sorted(self.tracks, key=lambda track: -track.score):
            track.rules = self.rules
            families.setdefault(track.family, []).extend(track.predict(time, rackets))
        self.tracks = []
        free = list(range(len(sightings)))
        for family in families.values():
            pairs = [(track.score + track.gain(*sightings[index], self.sigma), index) for track in family for index in free]
            best, index = max(pairs, default=(-inf, -1))
            if best > -inf:
                free.remove(index)
            for track in family:
                gain = track.gain(*sightings[index], self.sigma) if best > -inf else -inf
                if gain > -inf:
                    track.update(*sightings[index][:2], self.sigma, gain)
                else:
                    track.missed()
            top = max(track.score for track in family)
            for track in family:
                track.score += min(BEST_SCORE - top, 0.0)
            self.tracks += [track for track in family if track.score > min(top, BEST_SCORE) - RIVAL]
        for index in free:
            self._born(time, *sightings[index], origins, rackets)
        self._prune()
        return self.ball

    def _born(self, time: float, x: float, y: float, confidence: float, origins: Sequence[tuple[float, float, float]], rackets: Rackets) -> None:
        """Begin a new track; if it can be a serve, from where a ball lay still a moment ago, so that its velocity is known at once."""
        score = max(min(log(max(confidence, 0.01) / max(1 - confidence, 0.01)), 2.0), -2.0)
        for x0, y0, before in origins:
            track = Track(self.rules, before, x0, y0, self.sigma, score, self._family()).predict(time, rackets)[0]
            gain = track.gain(x, y, confidence, self.sigma)
            if gain > -inf:
                track.update(x, y, self.sigma, gain)
                self.tracks.append(track)
                return
        self.tracks.append(Track(self.rules, time, x, y, self.sigma, score, self._family()))

    def _family(self) -> int:
        self.families += 1
        return self.families

    def _prune(self) -> None:
        kept: list[Track] = []
        for track in sorted(self.tracks, key=lambda track: -track.score):
            x, y, vx, vy, _ = track.motion
            outside = not -0.1 < x < self.rules.width + 0.1
            twin = any(
                hypot(x - other.motion[0], y - other.motion[1]) < 2 * self.sigma
                and hypot(vx - other.motion[2], vy - other.motion[3]) < 0.2 * self.rules.max_speed
                for other in kept
                if other.hits > 1 and other.family != track.family
            )
            if track.score > WORST_SCORE and not outside and not twin:
                kept.append(track)
        self.tracks = kept[:TRACKS]
