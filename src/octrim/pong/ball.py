"""Motion of the ball: the rules' numbers, its flight in closed form, its next contact, its bounces. No state, no randomness.

The field is `rules.width` wide and 1 high, with x to the right and y down. Times are in seconds, speeds in field heights per second, spins in
rad/s, positive from +x to +y (clockwise on the screen). A motion is the plain tuple (x, y, vx, vy, spin): a game takes thousands a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import copysign, cos, hypot, inf, sin, sqrt

from octrim.errors import InputError, shown

LEFT, RIGHT = 0, 1
STEP = 1 / 240  # seconds of the fixed step of every game
GRAVITY = 0.6  # gravity, in heights per s^2, of games in which it is switched on
STEEPEST = math.radians(75)  # largest angle to the x axis of a ball that leaves a paddle's edge, or a wall with spin
TOUCH = 1e-12  # largest gap, in heights, that counts as contact
ITERATIONS = 64  # most iterations of one search for a contact

Motion = tuple[float, float, float, float, float]
PaddleBox = tuple[float, float, float, float, float]  # a paddle: x1, y1, x2, y2 and its speed in y


@dataclass(frozen=True)
class Rules:
    """Numbers of a game, in the units of this module. Raises InputError for numbers with which no game is possible."""

    width: float = 4 / 3
    """Width of the field, in field heights."""
    ball_radius: float = 0.02
    paddle_width: float = 0.025
    paddle_height: float = 0.18
    paddle_inset: float = 0.04
    """Distance from an end of the field to the paddle's back, in field heights."""
    paddle_speed: float = 1.4
    serve_speed: float = 0.8
    """Speed of a serve, and the least speed with which a paddle's face sends the ball back."""
    speed_gain: float = 1.06
    """Factor of the ball's speed at each hit by a paddle's face, up to `max_speed`."""
    max_speed: float = 2.4
    """Largest speed after a hit by a paddle; in flight, gravity and spin that a wall turns into speed may exceed it."""
    max_angle: float = math.radians(60)
    """Angle in rad between the flight and the x axis after a hit at the very end of a paddle's face; proportionally less nearer its middle."""
    serve_angle: float = math.radians(30)
    """Largest angle in rad between a serve and the x axis."""
    spin: bool = True
    magnus: float = 0.02
    """Strength of the Magnus effect: a ball of spin s turns its direction of flight at `magnus * s` rad/s."""
    friction: float = 0.15
    """Share of the slip between the ball's surface and a wall that a bounce takes away, 0 to 1."""
    grip: float = 0.35
    """Share of the slip between the ball's surface and a paddle's face that a hit turns into spin, 0 to 1; it does not change the direction."""
    max_spin: float = 30.0
    gravity: float = 0.0
    """Downward acceleration in heights per s^2."""
    points: int = 11
    serve_delay: float = 1.0
    rally_cap: int = 0
    """Number of hits after which a rally ends as a draw, without a point; 0: no limit."""
    stall: float = 10.0
    """Seconds without a hit by a paddle's face after which a rally ends as a draw: spin can keep a ball in mid-field."""

    def __post_init__(self) -> None:
        ranges = {
            "width": (0.2, 10.0),
            "ball_radius": (0.001, 0.2),
            "paddle_width": (0.001, 0.5),
            "paddle_height": (0.01, 1.0),
            "paddle_inset": (0.0, 1.0),
            "paddle_speed": (0.0, 1000.0),
            "serve_speed": (0.001, 1000.0),
            "speed_gain": (0.5, 2.0),
            "max_speed": (self.serve_speed, 1000.0),
            "max_angle": (0.0, math.radians(85)),
            "serve_angle": (0.0, math.radians(85)),
            "magnus": (-1.0, 1.0),
            "friction": (0.0, 1.0),
            "grip": (0.0, 1.0),
            "max_spin": (0.0, 10000.0),
            "gravity": (-100.0, 100.0),
            "points": (1, 1000000),
            "serve_delay": (0.0, 3600.0),
            "rally_cap": (0, 1000000000),
            "stall": (0.1, 1000000.0),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if isinstance(least, int) else (int, float)) or not least <= value <= most:
                raise InputError(f"{name} is {shown(value)}, expected {least:g} to {most:g}")
        if not isinstance(self.spin, bool):
            raise InputError(f"spin is {shown(self.spin)}, expected true or false")
        if self.width < 2 * (self.paddle_inset + self.paddle_width) + 4 * self.ball_radius:
            raise InputError(f"width is {self.width}, too little for the paddles and a ball between them")

    def faster(self, factor: float) -> Rules:
        """Rules of the same game, `factor` times as fast: every flight keeps its shape. The countdown of a serve stays as long as it is."""
        return replace(
            self,
            paddle_speed=self.paddle_speed * factor,
            serve_speed=self.serve_speed * factor,
            max_speed=self.max_speed * factor,
            max_spin=self.max_spin * factor,
            gravity=self.gravity * factor**2,
            stall=self.stall / factor,
        )


@dataclass(frozen=True)
class Ball:
    """The ball at one moment: centre, velocity and spin, in the units of this module."""

    x: float
    y: float
    vx: float
    vy: float
    spin: float


def flight(ball: Ball, rules: Rules, t: float) -> Ball:
    """The ball after `t` seconds (negative: before) in which it meets nothing."""
    return Ball(*fly((ball.x, ball.y, ball.vx, ball.vy, ball.spin), rules, t))


def fly(motion: Motion, rules: Rules, t: float) -> Motion:
    """The motion after `t` seconds in which the ball meets nothing: solves v' = gravity + magnus * spin x v for a constant spin.

    With a = magnus * spin * t, R the rotation by an angle and g the gravity, v(t) = R(a) v + g * integral of R over time, and the position
    is the integral of that. The integrals are sin(a) / a and its like, written so that nothing cancels or divides by zero as a goes to 0.
    """
    x, y, vx, vy, spin = motion
    g = rules.gravity
    a = rules.magnus * spin * t if rules.spin else 0.0
    if -1e-20 < a < 1e-20:  # the turn is far below rounding, and a / 2 may be zero
        return x + vx * t, y + vy * t + g * t * t / 2, vx, vy + g * t, spin
    sine, cosine = sin(a), cos(a)
    along = sine / a
    half = sin(a / 2) / (a / 2)
    half = half * half / 2  # (1 - cos a) / a^2
    across = a * half
    if -0.3 < a < 0.3:  # (a - sin a) / a^2 cancels; eleventh powers are below rounding
        b = a * a
        lag = a / 6 * (1 - b / 20 * (1 - b / 42 * (1 - b / 72 * (1 - b / 110))))
    else:
        lag = (a - sine) / (a * a)
    return (
        x + t * (along * vx - across * vy - g * t * lag),
        y + t * (across * vx + along * vy + g * t * half),
        cosine * vx - sine * vy - g * t * across,
        sine * vx + cosine * vy + g * t * along,
        spin,
    )


TOP, BOTTOM, LEFT_END, RIGHT_END, LEFT_PADDLE, RIGHT_PADDLE = range(6)
Contact = tuple[int, float, float]  # the obstacle's number (TOP to RIGHT_PADDLE), and the unit normal from it to the ball


def next_contact(
    motion: Motion, rules: Rules, limit: float, ends: tuple[float, float], boxes: tuple[PaddleBox, ...] = ()
) -> tuple[float, Motion, Contact | None]:
    """The first contact within `limit` seconds: its time, the motion at that time, and the contact, which is None where nothing is met.

    ends: x of the ball's centre at which it reaches the left and the right end. boxes: the paddles, each moving at a constant speed.

    The method is conservative advancement. Every obstacle is convex, so a plane between it and the ball, moving along with it, must be crossed
    before they touch. The gap to that plane after t is at least gap - approach * t - bend * t^2 / 2, where `bend` is the present acceleration
    towards the plane plus what its turning can add within the limit. The ball is moved to the smallest root over all obstacles, and the search
    is repeated from there; so the ball cannot pass anything, at any speed. After ITERATIONS it stays where it has safely come, with no contact.
    """
    r, g = rules.ball_radius, rules.gravity
    rate = rules.magnus * motion[4] if rules.spin else 0.0
    jerk = abs(rate) * hypot(rate * motion[3], rate * motion[2] + g)  # the acceleration turns with the velocity and keeps its size
    start, t = motion, 0.0
    for _ in range(ITERATIONS):
        x, y, vx, vy, _ = motion
        ax, ay = -rate * vy, rate * vx + g
        remaining = limit - t
        more = jerk * remaining / 3  # jerk * t^3 / 6 is at most more * t^2 / 2
        safe = remaining
        # Each obstacle: gap to the ball, unit normal (x, y), speed of the obstacle along the normal, number.
        obstacles = [
            (y - r, 0.0, 1.0, 0.0, TOP),
            (1 - r - y, 0.0, -1.0, 0.0, BOTTOM),
            (x - ends[0], 1.0, 0.0, 0.0, LEFT_END),
            (ends[1] - x, -1.0, 0.0, 0.0, RIGHT_END),
        ]
        for index, (x1, y1, x2, y2, v) in enumerate(boxes):
            top, bottom = y1 + v * t, y2 + v * t
            dx, dy = x - min(max(x, x1), x2), y - min(max(y, top), bottom)
            distance = hypot(dx, dy)
            if distance > 0:
                obstacles.append((distance - r, dx / distance, dy / distance, v * dy / distance, LEFT_PADDLE + index))
        for gap, nx, ny, v, what in obstacles:
            approach = v - vx * nx - vy * ny
            bend = more - ax * nx - ay * ny
            if gap <= TOUCH:
                if approach > 0 or (approach == 0 and bend > 0):
                    return t, motion, (what, nx, ny)
                gap = max(gap, 0.0)
            safe = min(safe, _root(gap, approach, bend))
        if safe >= remaining:
            return limit, fly(start, rules, limit), None
        t += safe
        motion = fly(start, rules, t)
    return t, motion, None


def _root(gap: float, approach: float, bend: float) -> float:
    """The first t > 0 with approach * t + bend * t^2 / 2 = gap, for a gap >= 0; infinite where there is none."""
    square = approach * approach + 2 * bend * gap
    if square < 0:
        return inf
    if approach > 0:
        return 2 * gap / (approach + sqrt(square))
    return (sqrt(square) - approach) / bend if bend > 0 else inf


_AHEAD = 10.0  # seconds that `arrival` looks ahead


def arrival(ball: Ball, rules: Rules) -> tuple[float, int, Ball] | None:
    """The ball's next arrival at the line along a paddle's face, through bounces off the walls and as if no paddle was in its way.

    Returns the seconds until the arrival, the side, and the ball at that time; None where it takes more than ten seconds. A ball that is
    past a line and still leaves the field arrives at once, after 0 seconds.
    """
    line = rules.paddle_inset + rules.paddle_width + rules.ball_radius
    ends = (line, rules.width - line)
    motion, total = (ball.x, ball.y, ball.vx, ball.vy, ball.spin), 0.0
    for _ in range(1000):
        chunk = 0.25 if rules.spin and motion[4] else _AHEAD  # short pieces bound the turning of the acceleration well
        t, motion, contact = next_contact(motion, rules, min(chunk, _AHEAD - total), ends)
        total += t
        if contact is None:
            if total >= _AHEAD:
                break
        elif contact[0] <= BOTTOM:
            motion = bounce(motion, rules, contact[2])
        else:
            return total, contact[0] - LEFT_END, Ball(*motion)
    return None


def bounce(motion: Motion, rules: Rules, ny: float) -> Motion:
    """The motion after a bounce off the wall whose normal is (0, ny), with ny 1 at the top and -1 at the bottom.

    Friction takes its share of the slip at the point of contact; of that share 2/7 goes into the ball's speed along the wall and 5/7 into the
    surface speed of its spin, as for a solid ball. In a game without spin there is no friction.
    """
    x, y, vx, vy, spin = motion
    vy = -vy
    if rules.spin:
        share = rules.friction * (vx + ny * rules.ball_radius * spin) / 7
        vx, vy = _onward(vx - 2 * share, vy, rules)
        spin = _limited(spin - ny * 5 * share / rules.ball_radius, rules.max_spin)
    return leaving((x, y, vx, vy, spin), rules, 0.0, ny, 0.0)


def glance(motion: Motion, rules: Rules, nx: float, ny: float, v: float) -> Motion:
    """The motion after a bounce off an edge or the back of a paddle that moves at `v` in y.

    The ball is reflected about the normal (nx, ny), and is not faster than `max_speed`, unless the least speed in x of `_onward` or the least
    speed off the paddle of `leaving` asks for more.
    """
    x, y, vx, vy, spin = motion
    approach = 2 * (v * ny - vx * nx - vy * ny)
    vx, vy = vx + approach * nx, vy + approach * ny
    excess = max(1.0, hypot(vx, vy) / rules.max_speed)
    return leaving((x, y, *_onward(vx / excess, vy / excess, rules), spin), rules, nx, ny, v)


def _onward(vx: float, vy: float, rules: Rules) -> tuple[float, float]:
    """The velocity, no steeper than STEEPEST and with at least a quarter of a serve's speed in x: nobody waits for a ball that dances up and down."""
    speed = hypot(vx, vy)
    least = max(speed * cos(STEEPEST), rules.serve_speed / 4)
    if abs(vx) >= least:
        return vx, vy
    return copysign(least, vx), copysign(sqrt(max(speed * speed - least * least, 0.0)), vy)


def leaving(motion: Motion, rules: Rules, nx: float, ny: float, v: float) -> Motion:
    """The motion with at least the speed off the surface that keeps the ball in the air for a STEP, so that contacts cannot pile up."""
    x, y, vx, vy, spin = motion
    rate = rules.magnus * spin if rules.spin else 0.0
    pull = rate * (vy * nx - vx * ny) - rules.gravity * ny
    lack = max(pull, 0.0) * STEP / 2 + v * ny - vx * nx - vy * ny
    if lack > 0:
        lack += 1e-6  # a margin, so that rounding makes no second contact of this one
        vx, vy = vx + lack * nx, vy + lack * ny
    return x, y, vx, vy, spin


def hit(motion: Motion, rules: Rules, side: int, offset: float, v: float) -> Motion:
    """The motion after a hit by the face of the paddle of `side`, which moves at `v` in y.

    offset: where on the face the ball is met, -1 (upper end) to 1 (lower end); values beyond are limited to this range.
    The slip at the point of contact (the ball's speed along the face and its spin, against the paddle's motion) becomes spin.
    """
    x, y, vx, vy, spin = motion
    facing = 1.0 if side == LEFT else -1.0
    if rules.spin:
        slip = (vy - v) * facing - rules.ball_radius * spin
        spin = _limited(spin + 5 / 7 * rules.grip * slip / rules.ball_radius, rules.max_spin)
    speed = min(max(hypot(vx, vy) * rules.speed_gain, rules.serve_speed), rules.max_speed)
    angle = rules.max_angle * _limited(offset, 1.0)
    return x, y, facing * speed * cos(angle), speed * sin(angle), spin


def _limited(value: float, most: float) -> float:
    return max(-most, min(most, value))
