"""How the ball flies and bounces, against formulas and a fine integration."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octrim.pong.ball import bounce, glance, hit
from octrim.pong.physics import LEFT, RIGHT, Ball, Game, Rules, flight
from tests.pong.games import CURVED, NEAR, PLAIN, kinds, placed, seeds, speeds

# Flight


@given(speeds, speeds, st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 2))
@settings(max_examples=40)
def test_flight_is_the_solution_of_its_equation(vx: float, vy: float, rate: float, gravity: float, t: float) -> None:
    def slope(state: list[float]) -> list[float]:
        return [state[2], state[3], -rate * state[3], rate * state[2] + gravity]

    state, steps = [0.3, 0.7, vx, vy], 1000
    h = t / steps
    for _ in range(steps):  # Runge-Kutta; its error is about steps * (5 h)^5 / 120
        k1 = slope(state)
        k2 = slope([s + h / 2 * k for s, k in zip(state, k1, strict=True)])
        k3 = slope([s + h / 2 * k for s, k in zip(state, k2, strict=True)])
        k4 = slope([s + h * k for s, k in zip(state, k3, strict=True)])
        state = [s + h / 6 * (a + 2 * b + 2 * c + d) for s, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)]
    ball = flight(Ball(0.3, 0.7, vx, vy, rate / 0.02), replace(CURVED, gravity=gravity, magnus=0.02), t)
    assert [ball.x, ball.y, ball.vx, ball.vy] == pytest.approx(state, abs=1e-8)


def test_flight_is_a_line_a_parabola_a_circle_a_cycloid() -> None:
    assert flight(Ball(0.5, 0.5, 1.0, -0.25, 9.0), PLAIN, 0.5) == Ball(1.0, 0.375, 1.0, -0.25, 9.0)
    assert flight(Ball(0.5, 0.5, 1.0, -0.25, 0.0), replace(CURVED, gravity=2.0), 0.5) == Ball(1.0, 0.625, 1.0, 0.75, 0.0)
    # A positive spin is topspin for a ball that flies right: it bends down. A quarter of a circle of radius v / rate = 0.3 / 0.5.
    quarter = flight(Ball(0.5, 0.2, 0.3, 0.0, 25.0), Rules(magnus=0.02), math.pi)
    assert [quarter.x, quarter.y, quarter.vx, quarter.vy] == pytest.approx([0.5 + 0.6, 0.2 + 0.6, 0.0, 0.3], **NEAR)
    # From rest under gravity with spin: a cycloid, at its lowest 2 g / rate^2 below the start when it has gone pi g / rate^2 to the side.
    lowest = flight(Ball(0.0, 0.0, 0.0, 0.0, 50.0), Rules(magnus=0.02, gravity=0.6), math.pi)
    assert [lowest.x, lowest.y] == pytest.approx([-math.pi * 0.6, 1.2], **NEAR)


@given(speeds, speeds, st.floats(-30, 30) | st.floats(-1e-6, 1e-6), st.floats(-3, 3), st.floats(0, 1), st.floats(0, 1))
def test_two_flights_in_a_row_are_one(vx: float, vy: float, spin: float, gravity: float, t1: float, t2: float) -> None:
    rules, ball = replace(CURVED, gravity=gravity, magnus=0.02), Ball(0.5, 0.5, vx, vy, spin)
    once, twice = flight(ball, rules, t1 + t2), flight(flight(ball, rules, t1), rules, t2)
    assert [twice.x, twice.y, twice.vx, twice.vy] == pytest.approx([once.x, once.y, once.vx, once.vy], **NEAR)
    back = flight(once, rules, -t1 - t2)
    assert [back.x, back.y] == pytest.approx([0.5, 0.5], **NEAR)


@given(speeds, speeds, st.sampled_from([1e-3, 1e-8, 1e-15, 1e-300, 5e-324]))
def test_flight_has_its_limit_where_spin_vanishes(vx: float, vy: float, spin: float) -> None:
    ball = Ball(0.5, 0.5, vx, vy, spin)
    curved, straight = flight(ball, CURVED, 1.0), flight(replace(ball, spin=0.0), CURVED, 1.0)
    assert [curved.x, curved.y] == pytest.approx([straight.x, straight.y], abs=10 * CURVED.magnus * spin + 1e-15)


# Bounces


@given(seeds, st.floats(0.1, 50), st.floats(0, 1.4), st.floats(1e-3, 0.4))
@settings(max_examples=60)
def test_plain_bounces_conserve_speed_to_the_last_bit(seed: int, speed: float, angle: float, dt: float) -> None:
    game = Game(replace(PLAIN, serve_speed=speed, max_speed=speed, serve_angle=angle, serve_delay=0.0, stall=3.0), seed)
    game.step((0, 0), 1e-12)
    vx, vy = game.ball.vx, game.ball.vy
    for _ in range(40):
        if any(event.kind != "wall" for event in game.step((0, 0), dt)):
            break
        assert (game.ball.vx, abs(game.ball.vy)) == (vx, abs(vy))


@pytest.mark.slow
@given(st.floats(1, 1000), st.floats(0.1, 1.4), st.floats(0.001, 0.3))
def test_the_path_between_walls_is_a_line_folded(speed: float, angle: float, t: float) -> None:
    """Through up to 300 bounces."""
    vy = speed * math.sin(angle)
    game = placed(replace(PLAIN, stall=10.0), Ball(0.7, 0.5, 0.0, vy, 0.0))
    events = game.step((0, 0), t)
    folds, rest = divmod(0.48 + vy * t, 0.96)  # heights of the centre above the lowest, 0.02, as if there were no walls
    assert game.ball.y == pytest.approx(0.02 + (rest if folds % 2 == 0 else 0.96 - rest), abs=1e-8)
    assert abs(len(events) - folds) <= (min(rest, 0.96 - rest) < 1e-8)


def test_gravity_trades_height_for_speed_and_walls_take_nothing() -> None:
    game = placed(replace(PLAIN, gravity=2.0, stall=10.0), Ball(0.7, 0.3, 0.0, 0.8, 0.0))
    energies = []
    for _ in range(500):
        game.step((0, 0), 0.01)
        energies.append(game.ball.vy**2 / 2 - 2.0 * game.ball.y)
    assert energies == pytest.approx([0.8**2 / 2 - 2.0 * 0.3] * 500, abs=1e-9)


@given(speeds, st.floats(0, 3), st.floats(-50, 50), st.floats(0, 1), st.sampled_from([1, -1]))
def test_a_wall_trades_speed_for_spin(more: float, vy: float, spin: float, friction: float, ny: int) -> None:
    vx = more + math.copysign(vy + 1, more)  # so flat that it stays below STEEPEST
    rules = Rules(friction=friction, max_spin=10000)
    r = rules.ball_radius
    _, _, vx2, vy2, spin2 = bounce((0.5, 0.02, vx, -ny * vy, spin), rules, ny)

    # The ball touches at (0, -ny r) from its centre, where its spin moves the surface by ny r spin in x.
    assert vx2 + ny * r * spin2 == pytest.approx((1 - friction) * (vx + ny * r * spin), abs=1e-9)
    # The wall's push turns what momentum it gives, at the arm r, into spin; a solid ball of mass 1 has the inertia 2/5 r^2.
    assert 2 / 5 * r * (spin2 - spin) == pytest.approx(ny * (vx2 - vx), abs=1e-9)
    assert vy2 == ny * vy or vy < 0.02  # more where its spin would press it back at once
    assert vx2**2 + 2 / 5 * (r * spin2) ** 2 <= vx**2 + 2 / 5 * (r * spin) ** 2 + 1e-9


def test_the_place_of_a_hit_sets_the_angle_and_the_motion_sets_the_spin() -> None:
    rules = replace(Rules(), serve_angle=0.0, serve_delay=0.0)
    game = placed(rules, Ball(0.5, 0.5, -0.8, 0.0, 0.0), left=0.455)  # met halfway between the middle and the lower end
    events = game.step((0, 0), 0.7)
    assert kinds(events) == [("paddle", LEFT)]
    assert events[0].time == pytest.approx((0.5 - 0.085) / 0.8, abs=1e-8)
    ball = game.ball
    assert math.hypot(ball.vx, ball.vy) == pytest.approx(0.8 * 1.06) and math.atan2(ball.vy, ball.vx) == pytest.approx(math.radians(30))
    assert ball.spin == 0 and game.rally == 1

    game = placed(rules, Ball(0.2, 0.6, -0.8, 0.0, 0.0), left=0.4)  # the paddle goes down at 1.4 and drags the ball's surface along
    events = game.step((1, 0), 0.2)
    assert kinds(events) == [("paddle", LEFT)]
    assert game.ball.spin == pytest.approx(5 / 7 * 0.35 * -1.4 / 0.02)
    flying = game.ball
    assert flight(flying, rules, 0.5).vy < flying.vy  # that spin bends it up

    right = hit((1.2, 0.5, 0.8, 0.0, 0.0), rules, RIGHT, 2.0, 1.4)  # an offset beyond the end counts as the end
    assert right[2:] == pytest.approx((-0.848 * 0.5, 0.848 * math.sqrt(0.75), 5 / 7 * 0.35 * 1.4 / 0.02))
    fast = hit((1.2, 0.5, 2.39, 0.0, 0.0), rules, RIGHT, 0.0, 0.0)
    assert fast[2:] == pytest.approx((-2.4, 0.0, 0.0))


@given(st.floats(0, 2 * math.pi), speeds, speeds, st.floats(-1000, 1000))
def test_a_ball_leaves_an_edge_faster_than_the_edge_follows(angle: float, vx: float, vy: float, v: float) -> None:
    nx, ny = math.cos(angle), math.sin(angle)
    _, _, vx, vy, _ = glance((0.5, 0.5, vx, vy, 3.0), CURVED, nx, ny, v)
    assert vx * nx + (vy - v) * ny >= 0
    assert math.hypot(vx, vy) <= CURVED.max_speed + abs(v) + 0.25


@pytest.mark.parametrize("vx", [0.01, -0.01])
def test_no_ball_dances_up_and_down(vx: float) -> None:
    """75 degrees are the steepest off an edge, and where spin can turn a ball; a wall without spin changes nothing."""
    steep = pytest.approx((math.copysign(math.cos(math.radians(75)), vx), -math.sin(math.radians(75))), rel=1e-3)
    assert glance((0.05, 0.39, vx, 1.0, 0.0), PLAIN, 0.0, -1.0, 0.0)[2:4] == steep
    assert bounce((0.5, 0.98, vx, 1.0, 0.0), Rules(), -1)[2:4] == steep
    assert bounce((0.5, 0.98, vx, 1.0, 0.0), PLAIN, -1)[2:4] == (vx, -1.0)
    assert abs(glance((0.05, 0.39, vx, 0.01, 0.0), PLAIN, 0.0, -1.0, 0.0)[2]) == 0.2  # not slower, either
