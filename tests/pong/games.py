"""Rules, games and strategies that the tests of the physics share."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import strategies as st

from octrim.pong.ball import GRAVITY
from octrim.pong.physics import LEFT, RIGHT, Ball, Event, Game, Rules, Scene, paddle_box

PLAIN = Rules(spin=False)
CURVED = Rules(gravity=GRAVITY)
NEAR = {"rel": 0, "abs": 1e-12}
speeds = st.floats(-5, 5)
seeds = st.integers(0, 10**9)
moves = st.tuples(st.floats(-1, 1), st.floats(-1, 1))


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    """Far beyond any sensible game."""

    def scale(least: float, most: float) -> float:
        return math.exp(draw(st.floats(math.log(least), math.log(most))))

    serve = scale(0.05, 300)
    return Rules(
        width=scale(1, 5),
        ball_radius=scale(0.002, 0.1),
        paddle_width=scale(0.002, 0.1),
        paddle_height=scale(0.02, 1),
        paddle_inset=draw(st.floats(0, 0.15)),
        paddle_speed=draw(st.sampled_from([0.0, 1.4, 30.0, 1000.0])),
        serve_speed=serve,
        speed_gain=draw(st.floats(0.8, 1.5)),
        max_speed=serve * scale(1, 3),
        max_angle=draw(st.floats(0, 1.4)),
        serve_angle=draw(st.floats(0, 1.4)),
        spin=draw(st.booleans()),
        magnus=draw(st.sampled_from([0.02, -0.3, 1.0, 1e-300])),
        friction=draw(st.floats(0, 1)),
        grip=draw(st.floats(0, 1)),
        max_spin=scale(1, 1000),
        gravity=draw(st.sampled_from([0.0, GRAVITY, -3.0, 100.0])),
        points=2,
        serve_delay=0.01,
        stall=2.0,
    )


def placed(rules: Rules, ball: Ball, left: float = 0.5, right: float = 0.5) -> Game:
    """A game in play with its ball and paddles there."""
    game = Game(replace(rules, serve_delay=0.0))
    game.step((0, 0), 0.0)
    game.rules = rules
    game._motion = (ball.x, ball.y, ball.vx, ball.vy, ball.spin)
    game._y = [left, right]
    return game


def gap(scene: Scene) -> float:
    """Between the ball and the next wall or paddle, negative inside."""
    rules, ball = scene.rules, scene.ball
    gaps = [ball.y - rules.ball_radius, 1 - rules.ball_radius - ball.y]
    for side in (LEFT, RIGHT):
        x1, y1, x2, y2 = paddle_box(scene, side, scene.paddles[side].y)
        gaps.append(math.hypot(max(x1 - ball.x, 0, ball.x - x2), max(y1 - ball.y, 0, ball.y - y2)) - rules.ball_radius)
    return min(gaps)


def kinds(events: list[Event]) -> list[tuple[str, int | None]]:
    return [(event.kind, event.side) for event in events]
