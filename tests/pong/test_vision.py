"""The vision player, with a stand-in for its detector."""

from __future__ import annotations

import threading
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.pong import vision
from octrim.pong.physics import LEFT, RIGHT, STEP, Game, Rules
from octrim.pong.planning import GRACE, Planner
from octrim.pong.players import Computer
from octrim.pong.rackets import Racket
from octrim.pong.renderer import BALL, render
from octrim.pong.tracking import Track
from octrim.pong.vision import VisionPlayer
from tests.pong.eyes import NAMES, Eye


def play(one: VisionPlayer, level: str, points: int, seed: int = 0, rules: Rules | None = None) -> tuple[int, int]:
    """A game; the points of the vision player and of the computer."""
    game, computer = Game(rules or Rules(points=points), seed), Computer(1 - one.side, level, seed)
    while game.winner is None and game.time < 300:
        scene = game.scene()
        moves = {one.side: one.move(scene), 1 - one.side: computer.move(scene)}
        game.step((moves[LEFT], moves[RIGHT]), 4 * STEP)
    return game.score[one.side], game.score[1 - one.side]


@pytest.mark.slow
@pytest.mark.parametrize(("side", "level", "latency"), [(LEFT, "easy", 0.03), (RIGHT, "medium", 0.06)])
def test_good_eyes_win(side: int, level: str, latency: float, monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(noise=0.5, drop=0.05, false=0.05).look_through(monkeypatch)
    assert play(VisionPlayer(side, eye, latency=latency), level, 2) == (2, 0)


def test_late_and_bad_eyes_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(noise=1.0, drop=0.3, false=0.3).look_through(monkeypatch)
    own, other = play(VisionPlayer(LEFT, eye, latency=0.4), "hard", 3)
    assert own < other == 3


def test_sees_nothing_but_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is given has no ball, no paddles and no score; only the renderer gets the scene that has."""
    eye = Eye()
    true: dict[float, Any] = {}

    def rendered(scene: Any, width: int, height: int) -> Any:
        eye.picture = render(true[scene.time], width, height)
        return eye.picture

    monkeypatch.setattr(vision, "render", rendered)
    one, game = VisionPlayer(LEFT, eye, latency=0.0), Game(Rules(), 3)
    while game.time < 2:
        scene = true[game.time] = game.scene()
        game.step((one.move(SimpleNamespace(time=scene.time, rules=scene.rules)), 0.0), 4 * STEP)  # type: ignore[arg-type]
    track = one.tracker.ball
    assert track is not None
    assert track.motion[:2] == pytest.approx((scene.ball.x, scene.ball.y), abs=0.01)


def test_is_busy_for_its_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 ms are three pictures at 60 a second: that of the start, and two that are missed. Fixed or measured is the same."""
    for eye, latency in ((Eye(), 0.04), (Eye(latency=40.0), None)):
        one, game = VisionPlayer(LEFT, eye.look_through(monkeypatch), latency=latency), Game()
        ages = []
        for _ in range(61):
            scene = game.scene()
            one.move(scene)
            ages.append(None if one.sighting is None else round(60 * (scene.time - one.sighting.time)))
            game.step((0.0, 0.0), 4 * STEP)
        assert (one.seen, one.missed) == (21, 40)
        assert ages[:3] == [None] * 3
        assert ages[3:9] == [3, 4, 5, 3, 4, 5]
        assert one.sighting is not None
        assert one.sighting.latency_ms == pytest.approx(40)


def test_without_latency_it_acts_on_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    one, game = VisionPlayer(LEFT, Eye().look_through(monkeypatch), latency=0.0), Game()
    for _ in range(5):
        one.move(game.scene())
        assert one.sighting is not None
        assert one.sighting.time == game.time
        game.step((0.0, 0.0), 4 * STEP)
    assert (one.seen, one.missed) == (5, 0)


def test_its_own_paddle_need_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    one = VisionPlayer(LEFT, Eye(hidden="paddle").look_through(monkeypatch), latency=0.05)
    game, computer = Game(Rules(), 1), Computer(RIGHT, "easy", 1)
    moved = 0.0
    while game.time < 6:
        scene = game.scene()
        moves = (one.move(scene), computer.move(scene))
        assert one.own.y == pytest.approx(scene.paddles[LEFT].y, abs=1e-9)
        moved += abs(moves[0])
        game.step(moves, 4 * STEP)
    assert moved > 5
    assert game.score[RIGHT] == 0


def test_it_rests_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trembling before a serve, although boxes do."""
    one, game = VisionPlayer(LEFT, Eye(noise=0.5).look_through(monkeypatch), latency=0.0), Game(Rules(serve_delay=2.0))
    moves = []
    while game.time < 1.9:
        moves.append(one.move(game.scene()))
        game.step((moves[-1], 0.0), 4 * STEP)
    assert np.mean(np.abs(moves)) < 0.05


def test_a_new_game_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nobody says so: the clock goes back. The same game gives the same moves."""
    one = VisionPlayer(LEFT, Eye(noise=0.0).look_through(monkeypatch), latency=0.03)
    games = []
    for _ in range(2):
        game, moves = Game(Rules(), 5), []
        while game.time < 2.5:
            moves.append(one.move(game.scene()))
            game.step((moves[-1], 0.0), 4 * STEP)
        games.append(moves)
    assert games[0] == games[1]


def test_pictures_fill_the_network() -> None:
    one = VisionPlayer(LEFT, Eye(), latency=0.0)
    assert (one.width, one.height) == (320, 240)
    assert VisionPlayer(LEFT, Eye(), 640, 360, latency=0.0).width == 640


def test_classes_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has another order, and a class more."""
    one = VisionPlayer(LEFT, Eye().look_through(monkeypatch), latency=0.0)
    one.move(Game().scene())
    assert one.sighting is not None
    assert sorted(one.sighting.classes.tolist()) == [BALL, 1, 1]
    boxes = one.sighting.boxes[one.sighting.classes == BALL]
    assert boxes[0] == pytest.approx([160 - 4.8, 120 - 4.8, 160 + 4.8, 120 + 4.8], abs=1.5)


def test_bad_input() -> None:
    eye: Any = SimpleNamespace(info=SimpleNamespace(names=("person", "ball")), width=320, height=320)
    with pytest.raises(InputError, match="classes ball and paddle; this one has person, ball"):
        VisionPlayer(LEFT, eye)
    with pytest.raises(InputError, match="latency is -5 ms, expected 0 to 10000"):
        VisionPlayer(LEFT, Eye(), latency=-0.005)


class SlowEye(Eye):
    """Real time. error: what comes instead of the third picture after the warm-up."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        super().__init__()
        self.seconds, self.error, self.count = seconds, error, 0

    def detect(self, image: np.ndarray) -> Detections:
        self.count += 1
        if self.error is not None and self.count == vision.WARMUP + 3:
            raise self.error
        sleep(self.seconds)
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), NAMES, "", *image.shape[:2], None, {})


def watch(one: VisionPlayer, seconds: float) -> int:
    """Move in real time; how many different sightings there were."""
    game, start, seen = Game(), monotonic(), set()
    while monotonic() - start < seconds:
        one.move(game.scene())
        if one.sighting is not None:
            seen.add(one.sighting.time)
        game.step((0.0, 0.0), 4 * STEP)
        sleep(1 / 60)
    return len(seen)


@pytest.mark.slow
def test_live_looks_at_the_latest_picture_in_a_thread() -> None:
    one = VisionPlayer(LEFT, SlowEye(0.05), live=True)
    start = monotonic()
    one.move(Game().scene())
    assert monotonic() - start < 0.05  # the game does not wait
    assert watch(one, 0.8) >= 3
    assert one.missed > 0
    assert one.sighting is not None
    assert one.sighting.latency_ms >= 50
    one.close()
    assert "pong-vision" not in [thread.name for thread in threading.enumerate()]
    one.close()


def test_live_forgets_a_game_that_is_over() -> None:
    one = VisionPlayer(LEFT, SlowEye(0.05), live=True)
    watch(one, 0.2)
    one.reset()
    assert one.sighting is None
    sleep(0.1)  # what was being looked at is done by now
    one.move(Game().scene())
    assert one.sighting is None
    one.close()


def test_live_tells_what_went_wrong() -> None:
    one = VisionPlayer(LEFT, SlowEye(0.001, InputError("out of memory")), live=True)
    with pytest.raises(InputError, match="out of memory"):
        watch(one, 2.0)
    one.close()


def track_of(motion: tuple[float, float, float, float, float], time: float) -> Track:
    track = Track(Rules(), time, 0.0, 0.0, 0.003, 5.0, 1)
    track.motion, track.covariance, track.hits = motion, np.diag(np.square([0.003, 0.003, 0.01, 0.01, 0.5])), 20
    return track


MIDDLE = Racket(0.5, 0.0, 0.003)


def test_plans() -> None:
    rules, planner = Rules(), Planner(LEFT)
    assert planner.plan(0.0, None, lambda side, time: MIDDLE, rules).target == 0.5
    coming = planner.plan(1.0, track_of((0.6, 0.8, -1.0, 0.5, 0.0), 1.0), lambda side, time: MIDDLE, rules)
    assert coming.time == pytest.approx(1.0 + 0.515, abs=0.01)
    assert coming.y is not None
    assert coming.y == pytest.approx(0.98 - (0.8 + 0.5 * 0.515 - 0.98), abs=0.03)  # off the lower wall
    assert abs(coming.target - coming.y) <= 0.85 * rules.paddle_height / 2
    late = planner.plan(coming.time + GRACE / 2, track_of((0.6, 0.8, -1.0, 0.5, 0.0), 1.0), lambda side, time: MIDDLE, rules)
    assert late.time == coming.time  # a little late is waited for
    away = planner.plan(1.0, track_of((0.6, 0.5, 1.0, 0.0, 0.0), 1.0), lambda side, time: MIDDLE, rules)
    assert away.y is None
    assert away.target == pytest.approx(0.5, abs=0.05)


def test_plays_where_the_other_is_not() -> None:
    """The opponent waits at the top: the ball is met with the lower part of the paddle, which sends it down; and the other way round."""
    for place, sign in ((0.1, -1), (0.9, 1)):
        opponent = Racket(place, 0.0, 0.003)
        plan = Planner(LEFT).plan(
            0.0, track_of((0.5, 0.5, -1.0, 0.0, 0.0), 0.0), lambda side, time, other=opponent: MIDDLE if side == LEFT else other, Rules()
        )
        assert plan.y is not None
        assert sign * (plan.target - plan.y) > 0.02
