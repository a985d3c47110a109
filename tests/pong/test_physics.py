"""The game's physics against formulas, a fine integration, dense sampling, and what must hold in every game whatsoever."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.pong.ball import GRAVITY, arrival, bounce, glance, hit, next_contact
from octrim.pong.physics import LEFT, RIGHT, STEP, Ball, Event, Game, Rules, Scene, flight, paddle_box

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


# Contacts


@given(any_rules(), seeds, st.lists(st.tuples(moves, st.floats(1e-4, 1)), min_size=1, max_size=8))
@settings(max_examples=60)
def test_the_ball_is_never_inside_a_paddle_or_outside_the_field(rules: Rules, seed: int, steps: list[tuple[tuple[float, float], float]]) -> None:
    game = Game(rules, seed)
    for move, dt in steps:
        game.step(move, dt)
        assert gap(game.scene()) >= -1e-9
        assert -rules.ball_radius - 1e-9 <= game.ball.x <= rules.width + rules.ball_radius + 1e-9
        assert all(rules.paddle_height / 2 <= paddle.y <= 1 - rules.paddle_height / 2 for paddle in game.paddles)


@given(any_rules(), seeds, st.floats(STEP, 1))
@settings(max_examples=30)
def test_nothing_passes_a_paddle_as_high_as_the_field(rules: Rules, seed: int, dt: float) -> None:
    game = Game(replace(rules, paddle_height=1.0), seed)
    for _ in range(5):
        assert not any(event.kind == "point" for event in game.step((1, -1), dt))


@pytest.mark.slow
@given(any_rules(), seeds, moves)
@settings(max_examples=40)
def test_the_first_contact_is_the_first(rules: Rules, seed: int, move: tuple[float, float]) -> None:
    """Sampled densely along the flight's formula and the paddles' straight motion."""
    game = Game(rules, seed)
    game.step(move, rules.serve_delay)
    assume(game.phase == "play")
    start = game.scene()
    spell = min(1.0, 2 * rules.width / rules.serve_speed)
    events = game.step(move, spell)
    until = events[0].time - start.time if events else spell
    half, r = rules.paddle_height / 2, rules.ball_radius
    for i in range(1001):
        ball = flight(start.ball, rules, until * i / 1000)
        speed = [m * rules.paddle_speed * until * i / 1000 for m in move]
        ys = [min(max(paddle.y + way, half), 1 - half) for paddle, way in zip(start.paddles, speed, strict=True)]
        boxes = [paddle_box(rules, side, ys[side]) for side in (LEFT, RIGHT)]
        gaps = [ball.y - r, 1 - r - ball.y, ball.x + r, rules.width + r - ball.x]
        gaps += [math.hypot(max(x1 - ball.x, 0, ball.x - x2), max(y1 - ball.y, 0, ball.y - y2)) - r for x1, y1, x2, y2 in boxes]
        assert min(gaps) >= -1e-9
        if not boxes[LEFT][2] + r < ball.x < boxes[RIGHT][0] - r:
            assume(not any(x1 - r < ball.x < x2 + r and not y1 < ball.y < y2 for x1, y1, x2, y2 in boxes))  # there a paddle may have to stop
    if events:
        assert min(gaps) <= 1e-9


@given(speeds, speeds, st.floats(-30, 30), st.floats(-20, 20), st.floats(-3, 3), st.floats(0.1, 0.9))
def test_no_contact_is_overlooked_on_a_strongly_curved_flight(vx: float, vy: float, rate: float, gravity: float, v: float, y: float) -> None:
    """In one long search, with an obstacle that moves."""
    rules = Rules(magnus=1.0, gravity=gravity, max_spin=100.0)
    box, motion, r = (0.4, 0.45, 0.43, 0.6, v), (0.6, y, vx, vy, rate), rules.ball_radius
    t, then, contact = next_contact(motion, rules, 1.0, (0.0, 1.0), (box,))
    assert then[:2] == (flight(Ball(*motion), rules, t).x, flight(Ball(*motion), rules, t).y)

    def nearest(t: float) -> float:
        ball = flight(Ball(*motion), rules, t)
        dx, dy = max(0.4 - ball.x, 0, ball.x - 0.43), max(0.45 + v * t - ball.y, 0, ball.y - 0.6 - v * t)
        return min(ball.y - r, 1 - r - ball.y, ball.x, 1 - ball.x, math.hypot(dx, dy) - r)

    assert min(nearest(t * i / 300) for i in range(301)) >= -1e-9
    assert contact is None or nearest(t) <= 1e-9
    assert contact is not None or t > 0.01


def test_a_fast_corner_and_a_fast_paddle_do_not_pass_through_the_ball() -> None:
    rules = replace(PLAIN, paddle_speed=1000.0)
    game = placed(rules, Ball(0.0525, 0.5, -0.001, 0.0, 0.0), left=0.2)  # in the paddle's way, which crosses the field in a millisecond
    events = game.step((1, 0), STEP)
    assert events[0].kind == "edge" and gap(game.scene()) >= -1e-9
    corner = Ball(0.5, 0.5 - 0.09 - 0.02 * math.sqrt(0.75), -1000.0, 0.0, 0.0)  # meets the front corner 60 degrees above the x axis
    game = placed(rules, corner)
    assert game.step((0, 0), 0.01)[0].kind == "edge"
    t, motion, contact = next_contact((0.5, corner.y, -1000.0, 0.0, 0.0), rules, 0.01, (-0.02, 2.0), ((*paddle_box(rules, LEFT, 0.5), 0.0),))
    assert contact is not None and contact[1:] == pytest.approx((0.5, -math.sqrt(0.75)))
    assert motion[0] == pytest.approx(0.065 + 0.01, abs=1e-9) and t == pytest.approx((0.5 - 0.075) / 1000)


@given(st.floats(0.041, 0.0649), st.floats(-2, 2), st.floats(-2, 2), st.floats(-30, 30), st.sampled_from([-1, 1]))
@settings(max_examples=40)
def test_a_paddle_cannot_squeeze_the_ball(x: float, vx: float, vy: float, spin: float, way: int) -> None:
    """The ball lies between a wall and the edge of a paddle that is driven towards it."""
    rules = replace(CURVED, paddle_speed=5.0, stall=4.0)
    game = placed(rules, Ball(x, 0.5 - way * -0.45, vx, vy, spin), left=0.5 + way * 0.2)
    for _ in range(1000):
        events = game.step((way, 0))
        assert gap(game.scene()) >= -1e-9
        if any(event.kind in ("point", "draw") for event in events) or game.ball.x > 0.2:
            break
    else:
        pytest.fail("the ball is caught")


def test_a_blocked_paddle_stops() -> None:
    """As exactly at any speed, without touching the ball from beyond."""
    game = placed(replace(PLAIN, serve_speed=0.001, paddle_speed=1000.0), Ball(0.05, 0.03, 0.0, 0.0, 0.0), left=0.3)
    assert game.step((-1, 0)) == []
    assert paddle_box(game.scene(), LEFT, game.paddles[LEFT].y)[1] == pytest.approx(0.06)
    assert game.paddles[LEFT].vy == 0


# The game


def test_serve_point_server_and_end() -> None:
    rules = replace(PLAIN, points=2, serve_delay=0.5, paddle_speed=3.0)
    game = Game(rules, seed=4)
    server = game.server
    away = (1.0, 1.0)  # both paddles hide in the lower corners
    assert game.step(away, 0.4) == [] and game.wait == pytest.approx(0.1)
    (serve,) = game.step(away, 0.2)
    assert (serve.kind, serve.side) == ("serve", server) and serve.time == pytest.approx(0.5)
    assert (game.ball.vx > 0) == (server == LEFT) and math.hypot(game.ball.vx, game.ball.vy) == pytest.approx(0.8)
    angles, scored = [], []
    while game.winner is None:
        for event in game.step(away, 0.1):
            if event.kind == "serve":
                assert event.side == 1 - scored[-1]  # who lost the point
                angles.append(math.atan2(game.ball.vy, abs(game.ball.vx)))
            elif event.kind == "point":
                scored.append(event.side)
    assert game.winner == scored[-1] and game.score[game.winner] == 2 and sum(game.score) == len(scored)
    assert all(abs(angle) <= rules.serve_angle for angle in angles)
    before = game.scene()
    assert before.phase == "over" and game.step((-1, 1), 1.0) == [] and game.scene() == before


def test_a_point_when_the_ball_has_wholly_left() -> None:
    game = placed(PLAIN, Ball(0.5, 0.5, -0.8, 0.0, 0.0), left=0.2)
    (point, *_) = game.step((0, 0), 0.7)
    assert (point.kind, point.side) == ("point", RIGHT) and point.time == pytest.approx(0.52 / 0.8, abs=1e-8)
    assert game.score == (0, 1) and game.server == LEFT and game.phase == "serve"


def test_draws() -> None:
    game = placed(replace(PLAIN, rally_cap=3, paddle_height=1.0), Ball(0.5, 0.5, -2.0, 0.0, 0.0))
    server = game.server
    events = game.step((0, 0), 3.0)
    assert kinds(events)[:5] == [("paddle", LEFT), ("paddle", RIGHT), ("paddle", LEFT), ("draw", None), ("serve", 1 - server)]
    assert game.score == (0, 0)

    game = placed(replace(PLAIN, stall=2.0), Ball(0.6, 0.5, 0.0, 1.0, 0.0))  # up and down for ever
    events = [event for event in game.step((0, 0), 2.5) if event.kind != "wall"]
    assert kinds(events)[:1] == [("draw", None)] and events[0].time == pytest.approx(2.0, abs=STEP)


@given(any_rules() | st.just(CURVED), seeds, st.lists(st.tuples(moves, st.floats(0, 0.3)), max_size=8))
@settings(max_examples=30)
def test_the_same_seed_gives_the_same_game_to_the_last_bit(rules: Rules, seed: int, steps: list[tuple[tuple[float, float], float]]) -> None:
    one, other = Game(rules, seed), Game(rules, seed)
    for move, dt in steps:
        assert one.step(move, dt) == other.step(move, dt)
        assert one.scene() == other.scene()


def test_another_seed_gives_another_game() -> None:
    games = [Game(PLAIN, seed) for seed in range(20)]
    for game in games:
        game.step((0, 0), 1.2)
    assert len({game.ball.vy for game in games}) == 20 and {game.server for game in games} == {LEFT, RIGHT}


@pytest.mark.slow
@given(seeds, moves, st.floats(0.1, 4), st.sampled_from([1, 7]), st.booleans(), st.sampled_from([0.0, GRAVITY]), st.floats(0.2, 1))
@settings(max_examples=40)
def test_the_size_of_the_step_changes_nothing(
    seed: int, move: tuple[float, float], spell: float, count: int, spin: bool, gravity: float, height: float
) -> None:
    """By less than 1e-11 through any bounces off walls, and than 1e-9 after up to three hits by faces, each of which spreads differences
    about tenfold. Until the ball comes between a wall and a paddle's edge, where the paddle stops at the next step."""
    rules = Rules(spin=spin, gravity=gravity, serve_delay=0.05, paddle_height=height)
    one, other = Game(rules, seed), Game(rules, seed)
    events, again = [], []
    for _ in range(count):
        events += one.step(move, spell / count)
    for _ in range(1300):
        again += other.step(move, spell / 1300)
        boxes = [paddle_box(rules, side, other.paddles[side].y) for side in (LEFT, RIGHT)]
        assume(not any(x1 - 0.03 < other.ball.x < x2 + 0.03 and not y1 < other.ball.y < y2 for x1, y1, x2, y2 in boxes))
    names = [event.kind for event in events]
    assume(names.count("paddle") <= 3 and 0.1 < one.ball.x < rules.width - 0.1)
    assert kinds(events) == kinds(again)
    bound = 1e-9 if "paddle" in names else 1e-11
    assert [event.time for event in again] == pytest.approx([event.time for event in events], rel=0, abs=bound)
    assert [other.ball.x, other.ball.y] == pytest.approx([one.ball.x, one.ball.y], rel=0, abs=bound)


@given(seeds, st.booleans(), st.sampled_from([0.0, GRAVITY]), st.floats(0, 1))
@settings(max_examples=40)
def test_arrival_is_where_the_ball_then_is(seed: int, spin: bool, gravity: float, early: float) -> None:
    game = Game(Rules(spin=spin, gravity=gravity, serve_delay=0.0, serve_angle=1.0, paddle_height=0.9), seed)
    game.step((1, -1), 0.001)
    for _ in range(3):
        game.step((1, -1), early * 0.5)
        coming = arrival(game.ball, game.rules)
        assert coming is not None
        t, side, ball = coming
        rally = game.rally
        game.step((1, -1), max(t - 1e-10, 0))
        assume(game.rally == rally and game.phase == "play")  # not off an edge
        assert [game.ball.x, game.ball.y] == pytest.approx([ball.x, ball.y], abs=1e-8)
        assert (side == LEFT) == (ball.x < 0.5)
        game.step((1, -1), 1e-6)


def test_arrival_of_a_ball_that_comes_nowhere() -> None:
    assert arrival(Ball(0.6, 0.5, 0.0, 1.0, 0.0), PLAIN) is None
    assert arrival(Ball(0.6, 0.5, 0.05, 0.0, 0.0), PLAIN) is None  # takes 13 s
    past = arrival(Ball(0.01, 0.5, -1.0, 0.0, 0.0), PLAIN)
    assert past == (0.0, LEFT, Ball(0.01, 0.5, -1.0, 0.0, 0.0))


def test_faster_is_the_same_game_in_less_time() -> None:
    slow = replace(CURVED, serve_delay=0.0, paddle_height=0.8)
    one, other = Game(slow, 3), Game(slow.faster(2), 3)
    events, again = one.step((0.2, -0.2), 4.0), other.step((0.2, -0.2), 2.0)
    assert kinds(events[:6]) == kinds(again[:6]) and "paddle" in [event.kind for event in events]
    assert [event.time for event in again[:6]] == pytest.approx([event.time / 2 for event in events[:6]], abs=1e-4)


def test_faster_has_the_same_patience() -> None:
    assert Rules().faster(2).stall == 5 and Rules().faster(1) == Rules()


def test_rules_change_in_a_game_but_sizes_do_not() -> None:
    game = placed(Rules(), Ball(0.5, 0.5, 0.5, 0.0, 20.0))
    game.rules = PLAIN
    game.step((0, 0), 0.5)
    assert game.ball.x == pytest.approx(0.75) and (game.ball.y, game.ball.vx, game.ball.vy, game.ball.spin) == (0.5, 0.5, 0.0, 0.0)
    with pytest.raises(InputError, match="ball_radius cannot change"):
        game.rules = replace(PLAIN, ball_radius=0.03)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0.1}, {"gravity": math.nan}, {"points": 2.5}, {"points": 0}, {"max_speed": 0.5}, {"friction": 1.1}, {"spin": 1}, {"width": True}]
    + [{"serve_speed": "fast"}, {"width": 0.2, "ball_radius": 0.05}],
)
def test_impossible_rules(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Rules(**wrong)  # type: ignore[arg-type]


def test_impossible_steps() -> None:
    for dt in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="a step is"):
            Game().step((0, 0), dt)
    with pytest.raises(InputError, match="not a number"):
        Game().step((math.nan, 0))
