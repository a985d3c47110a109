"""The game's physics against formulas, a fine integration, dense sampling, and what must hold in every game whatsoever."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octrim.errors import InputError
from octrim.pong.ball import GRAVITY, arrival, next_contact
from octrim.pong.physics import LEFT, RIGHT, STEP, Ball, Game, Rules, flight, paddle_box
from tests.pong.games import CURVED, PLAIN, any_rules, gap, kinds, moves, placed, seeds, speeds

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
