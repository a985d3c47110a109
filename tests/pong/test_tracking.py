"""The tracker against simulated truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import hypot

import numpy as np
import pytest

from octrim.pong.ball import GRAVITY, Ball, Rules, arrival
from octrim.pong.physics import LEFT, RIGHT, STEP, Game
from octrim.pong.players import Computer
from octrim.pong.rackets import OtherPaddle, OwnPaddle, Racket
from octrim.pong.tracking import OPEN, Track, Tracker, advance, faces

SIGMA = 0.003  # heights: .7 pixels of 240


@dataclass
class Outcome:
    pictures: int = 0
    lost: int = 0
    errors: list[float] = field(default_factory=list)  # heights
    normalised: list[float] = field(default_factory=list)  # squared Mahalanobis distance of the whole motion from the truth
    arrivals: list[tuple[float, float]] = field(default_factory=list)  # seconds ahead, error of the height


def follow(every: int, drop: float, false: float, seeds: int, seconds: float = 25.0, rules: Rules | None = None) -> Outcome:
    """Track in games of strong computers from a picture in `every` sixtieths of a second; both paddles are known from pictures alone."""
    outcome = Outcome()
    rules = rules or Rules(rally_cap=60)
    for seed in range(seeds):
        game, random, tracker = Game(rules, seed), np.random.default_rng(seed), Tracker(rules, SIGMA)
        players, paddles = (Computer(LEFT, "perfect", 1), Computer(RIGHT, "hard", 2)), (OtherPaddle(SIGMA), OtherPaddle(SIGMA))
        tick = 0
        while game.time < seconds and game.winner is None:
            scene = game.scene()
            if tick % every == 0:
                sightings = []
                if random.random() >= drop:
                    sightings.append((scene.ball.x + random.normal(0, SIGMA), scene.ball.y + random.normal(0, SIGMA), 0.9))
                if random.random() < false:
                    sightings.append((random.random() * rules.width, random.random(), 0.5))
                for paddle, true in zip(paddles, scene.paddles, strict=True):
                    if random.random() >= drop:
                        paddle.see(scene.time, [(true.y + random.normal(0, SIGMA), 0.9)])
                track = tracker.update(scene.time, sightings, lambda side, time, paddles=paddles: paddles[side].at(time, rules))
                if scene.phase == "play":
                    judge(outcome, track, scene.ball, rules)
            game.step((players[0].move(scene), players[1].move(scene)), 4 * STEP)
            tick += 1
    return outcome


def judge(outcome: Outcome, track: Track | None, ball: Ball, rules: Rules) -> None:
    outcome.pictures += 1
    if track is None:
        outcome.lost += 1
        return
    outcome.errors.append(hypot(track.motion[0] - ball.x, track.motion[1] - ball.y))
    off = np.array(track.motion) - (ball.x, ball.y, ball.vx, ball.vy, ball.spin)
    outcome.normalised.append(float(off @ np.linalg.solve(track.covariance + 1e-12 * np.eye(5), off)))
    true, expected = arrival(ball, rules), arrival(Ball(*track.motion), rules)
    if true is not None:
        outcome.arrivals.append((true[0], abs(true[2].y - expected[2].y) if expected is not None and expected[1] == true[1] else 1.0))


def ahead(outcome: Outcome, least: float, most: float) -> np.ndarray:
    return np.array([error for seconds, error in outcome.arrivals if least <= seconds < most])


@pytest.mark.slow
def test_a_ball_that_is_overlooked_and_mistaken() -> None:
    """A picture in a thirtieth of a second, a fifth of the balls missing, false ones in three of ten pictures; spin on."""
    outcome = follow(2, 0.2, 0.3, seeds=2)
    assert outcome.pictures > 1000
    assert outcome.lost <= 0.01 * outcome.pictures  # after serves
    assert np.median(outcome.errors) < SIGMA  # better than the sightings, although every fifth is missing
    assert np.mean(np.array(outcome.errors) > 0.05) < 0.005
    assert np.median(ahead(outcome, 0.1, 0.2)) < 0.004
    assert np.median(ahead(outcome, 0.2, 0.4)) < 0.007
    assert np.percentile(ahead(outcome, 0.2, 0.4), 90) < 0.04  # half a paddle is .09
    assert np.median(ahead(outcome, 0.4, 0.8)) < 0.025
    # A chi-squared distribution of five numbers has median 4.35; larger would be overconfident.
    assert 1 < np.median(outcome.normalised) < 4.35


@pytest.mark.slow
def test_five_pictures_a_second() -> None:
    """The ball meets a paddle between two of three pictures, and the tracker sees none of the hits."""
    outcome = follow(12, 0.0, 0.0, seeds=4)
    assert outcome.lost <= 0.02 * outcome.pictures
    assert np.median(outcome.errors) < 1.5 * SIGMA
    assert np.mean(np.array(outcome.errors) > 0.05) < 0.03  # .13 when a poorly known paddle gave one track instead of a fan, and was trusted more
    assert np.percentile(ahead(outcome, 0.0, 0.4), 90) < 0.04


def test_gravity() -> None:
    outcome = follow(3, 0.1, 0.0, seeds=1, rules=Rules(rally_cap=60, gravity=GRAVITY))
    assert np.median(ahead(outcome, 0.2, 0.4)) < 0.01


@pytest.mark.parametrize("spin", [0.0, 20.0])
def test_advance_is_the_games_own_flight(spin: float) -> None:
    rules = Rules(gravity=0.3)
    game = Game(rules)
    game.step((0.0, 0.0), 1.0 + STEP)
    game._motion = (0.4, 0.5, 0.3, -1.5, spin)
    for _ in range(300):
        game.step((0.0, 0.0))
    motion, used, side = advance((0.4, 0.5, 0.3, -1.5, spin), rules, 300 * STEP)
    assert (used, side) == (300 * STEP, None)
    assert motion == pytest.approx((game.ball.x, game.ball.y, game.ball.vx, game.ball.vy, game.ball.spin), abs=1e-6)


def test_advance_stops_at_a_face() -> None:
    rules = Rules()
    motion, used, side = advance((0.6, 0.5, -1.0, 0.9, 0.0), rules, 2.0, faces(rules))
    assert side == LEFT
    assert used == pytest.approx(0.6 - faces(rules)[0], abs=1e-3)  # wall friction takes a little speed
    assert motion[0] == pytest.approx(faces(rules)[0], abs=1e-9)
    assert advance(motion, rules, 0.1, OPEN)[2] is None


NOWHERE = Racket(0.5, 0.0, 1.0)


def test_lost_and_found() -> None:
    """Half a second behind a curtain: the prediction is still there, and the first sighting is taken for the same ball."""
    rules = Rules(spin=False)
    tracker = Tracker(rules, SIGMA)
    for tick in range(60):
        time = tick / 60
        x, y = 0.2 + 0.9 * time, 0.5 + 0.2 * time
        track = tracker.update(time, [] if 15 <= tick < 45 else [(x, y, 0.9)], lambda side, time: NOWHERE)
        if tick > 1:
            assert track is not None
            assert hypot(track.motion[0] - x, track.motion[1] - y) < 0.02
    assert len(tracker.tracks) == 1
    assert tracker.tracks[0].hits == 30
    for tick in range(60, 60 + 60):
        track = tracker.update(tick / 60, [], lambda side, time: NOWHERE)
    assert track is None
    assert not tracker.tracks


def test_what_lies_still_is_no_ball_in_play() -> None:
    """A mark on the wall that is always taken for a ball, beside the real one; before the serve there is nothing but still things."""
    rules = Rules(spin=False)
    tracker = Tracker(rules, SIGMA)
    mark = (0.9, 0.1, 0.95)
    for tick in range(30):
        assert tracker.update(tick / 60, [mark, (rules.width / 2, 0.5, 0.9)], lambda side, time: NOWHERE) is None
    for tick in range(30, 60):
        gone = (tick - 29) / 60
        track = tracker.update(tick / 60, [mark, (rules.width / 2 - 0.8 * gone, 0.5 + 0.1 * gone, 0.9)], lambda side, time: NOWHERE)
        if tick > 33:
            assert track is not None
            assert track.motion[2:4] == pytest.approx((-0.8, 0.1), abs=0.15)


def test_a_serve_is_known_from_its_first_picture() -> None:
    """At five pictures a second the second one would come a third of the field later."""
    rules = Rules()
    tracker = Tracker(rules, SIGMA)
    for tick in range(5):
        tracker.update(tick / 5, [(rules.width / 2, 0.5, 0.9)], lambda side, time: NOWHERE)
    track = tracker.update(1.0, [(rules.width / 2 + 0.16, 0.54, 0.9)], lambda side, time: NOWHERE)
    assert track is not None
    assert track.motion[2:4] == pytest.approx((0.8, 0.2), abs=0.02)


def test_own_paddle_reckons_without_pictures() -> None:
    rules = Rules()
    game, paddle = Game(rules), OwnPaddle(SIGMA)
    random = np.random.default_rng(0)
    speed = 0.0
    for _ in range(200):
        paddle.moved(game.time, speed, rules)
        assert paddle.y == pytest.approx(game.paddles[LEFT].y, abs=1e-9)
        move = float(random.uniform(-1, 1))
        speed = move * rules.paddle_speed
        game.step((move, 0.0), 4 * STEP)
    past = paddle.at(game.time - 0.05)
    assert abs(past.vy) <= rules.paddle_speed


def test_own_paddle_believes_the_second_contradiction() -> None:
    rules = Rules()
    paddle = OwnPaddle(SIGMA)
    for tick in range(10):
        paddle.moved(tick / 60, 0.6, rules)
    assert paddle.y == pytest.approx(0.59)
    paddle.see(0.1, [(0.56 + 0.01, 0.9)])  # a small error of the past moves the present
    assert paddle.y == pytest.approx(0.60)
    paddle.see(0.1, [(0.2, 0.9)])
    assert paddle.y == pytest.approx(0.60)
    paddle.see(0.15, [(0.2, 0.9), (0.61, 0.8)])  # the one that fits is believed, although it is less confident
    assert paddle.y == pytest.approx(0.61)
    paddle.see(0.1, [(0.2, 0.9)])
    paddle.see(0.15, [(0.23, 0.9)])
    assert paddle.y == pytest.approx(0.23)


def test_other_paddle_between_and_behind_pictures() -> None:
    rules = Rules()
    paddle = OtherPaddle(SIGMA)
    assert paddle.at(1.0, rules) == Racket(0.5, 0.0, 1.0)
    paddle.see(1.0, [(0.4, 0.9)])
    paddle.see(1.2, [(0.5, 0.9), (0.8, 0.3)])
    between = paddle.at(1.1, rules)
    assert (between.y, between.vy) == pytest.approx((0.45, 0.5))
    assert between.sigma > paddle.at(1.19, rules).sigma > paddle.at(1.2, rules).sigma == SIGMA
    assert paddle.at(1.25, rules).y == pytest.approx(0.525)
    assert paddle.at(9.0, rules).y == pytest.approx(0.55)  # it will not have gone on like that
