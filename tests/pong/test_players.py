"""Players: levels that differ as they say, a perfect one that never misses, moves that a seed repeats."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from octrim.errors import InputError
from octrim.pong.ball import GRAVITY
from octrim.pong.physics import LEFT, RIGHT, Ball, Game, Paddle, Rules, Scene
from octrim.pong.players import LEVELS, Computer, Keyboard, Level, Player

PLAIN = Rules(spin=False)


def played(left: Player, right: Player, rules: Rules, seed: int) -> tuple[Game, list[int]]:
    """A whole game, and the length of each rally."""
    game, rallies = Game(rules, seed), []
    while game.winner is None:
        scene = game.scene()
        moves = left.move(scene), right.move(scene)
        for _ in range(4):
            before = game.rally
            rallies += [before for event in game.step(moves) if event.kind in ("point", "draw")]
    return game, rallies


def points(level: str, other: str, rules: Rules, games: int) -> tuple[int, list[int], float]:
    """Games won by `level`, points of both, mean length of a rally. They change sides after every game."""
    wins, both, lengths = 0, [0, 0], []
    for seed in range(games):
        side = seed % 2
        players = Computer(side, level, 2 * seed), Computer(1 - side, other, 2 * seed + 1)
        game, rallies = played(players[side], players[1 - side], rules, seed)
        wins += game.winner == side
        both[0] += game.score[side]
        both[1] += game.score[1 - side]
        lengths += rallies
    return wins, both, sum(lengths) / len(lengths)


def seen(time: float, ball: Ball, rules: Rules = PLAIN, paddle: float = 0.5) -> Scene:
    return Scene(rules, ball, (Paddle(paddle, 0.0), Paddle(paddle, 0.0)), (0, 0), 0, "play", 0.0, LEFT, time)


@pytest.mark.slow
@pytest.mark.parametrize(("better", "worse"), [("medium", "easy"), ("hard", "medium"), ("hard", "easy")])
def test_the_better_level_wins(better: str, worse: str) -> None:
    wins, both, _ = points(better, worse, replace(Rules(), points=7), 4)
    assert wins == 4 and both[0] > 1.5 * both[1]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_perfect_does_not_lose_a_point(level: str) -> None:
    assert points("perfect", level, replace(PLAIN, points=5), 2)[:2] == (2, [10, 0])


def test_perfect_players_only_draw() -> None:
    game = Game(replace(PLAIN, rally_cap=40), 1)
    left, right = Computer(LEFT, "perfect", 1), Computer(RIGHT, "perfect", 2)
    kinds = []
    while game.time < 100:
        scene = game.scene()
        kinds += [event.kind for event in game.step((left.move(scene), right.move(scene)), 1 / 60)]
    assert kinds.count("draw") >= 3 and "point" not in kinds and kinds.count("paddle") >= 120


@pytest.mark.slow
@pytest.mark.parametrize("rules", [Rules(), Rules(spin=False, gravity=GRAVITY)], ids=["spin", "gravity"])
def test_rallies_are_as_long_as_among_people(rules: Rules) -> None:
    _, _, length = points("medium", "medium", replace(rules, points=7), 3)
    assert 5 <= length <= 15


def test_the_same_seeds_give_the_same_game_to_the_last_bit() -> None:
    def last(seed: int, left: Computer, right: Computer) -> Scene:
        return played(left, right, Rules(points=2), seed)[0].scene()

    left, right = Computer(LEFT, "medium", 5), Computer(RIGHT, "hard", 6)
    first = last(3, left, right)
    assert last(3, Computer(LEFT, "medium", 5), Computer(RIGHT, "hard", 6)) == first
    left.reset()  # as if it were new; the other one sees for itself that another game has begun
    assert last(3, left, right) == first
    assert last(3, Computer(LEFT, "medium", 7), Computer(RIGHT, "hard", 6)) != first


def test_perfect_meets_a_curved_ball_where_it_comes() -> None:
    rules = Rules(gravity=GRAVITY)
    for seed in range(4):
        game = Game(replace(rules, serve_delay=0.0), seed)
        game.step((0, 0), 0.0)
        game._motion = (*game._motion[:4], 25.0 - 15 * seed)
        player = Computer(1 - game.server, replace(LEVELS["perfect"], aim=0.0))
        events = []
        while not events or events[-1].kind == "wall":
            move = player.move(game.scene())
            events += game.step((move, move), 1 / 60)
            ball = game.ball
        assert events[-1].kind == "paddle"
        assert abs(ball.vy / ball.vx) < 0.05  # with the very middle, so that it goes back straight; gravity has had 1/60 s


def test_a_computer_reacts_late() -> None:
    level = Level(reaction=0.2, refresh=0.0, error=0.0, speed=1.0, spin=True, dead=0.0, aim=0.0)
    player = Computer(LEFT, level)
    away, coming = Ball(0.6, 0.5, 1.0, 0.0, 0.0), Ball(0.6, 0.8, -1.0, 0.0, 0.0)
    moves = [player.move(seen(i / 60, away if i < 30 else coming)) for i in range(60)]
    assert moves[:42] == [0.0] * 42 and moves[42:] == [1.0] * 18  # 0.2 s are 12 decisions


def test_a_computer_keeps_its_plan_until_the_next() -> None:
    player = Computer(LEFT, Level(reaction=0.0, refresh=0.1, error=0.0, speed=1.0, spin=True, dead=0.0, aim=0.0))
    moves = [player.move(seen(i / 60, Ball(0.6, 0.8 if i < 1 or i > 5 else 0.2, -1.0, 0.0, 0.0))) for i in range(9)]
    assert moves == [1.0] * 9


def test_errors_are_as_large_as_the_level_says_and_wander() -> None:
    player = Computer(LEFT, replace(LEVELS["easy"], reaction=0.0, refresh=0.0), 3)
    heights = []
    for i in range(20000):
        player.move(seen(i / 60, Ball(0.885, 0.5, -0.8, 0.0, 0.0)))  # 0.8 heights before the line, seen 0.02 too high or low, 0.2 rad aside
        heights.append(player._target - 0.5)
    mean = sum(heights) / len(heights)
    spread = (sum((height - mean) ** 2 for height in heights) / len(heights)) ** 0.5
    assert abs(mean) < 0.015 and spread == pytest.approx((0.02**2 + (0.8 * 0.2) ** 2) ** 0.5, rel=0.1)
    steps = [abs(b - a) for a, b in pairwise(heights)]
    assert sum(steps) / len(steps) < 0.5 * spread


def test_a_computer_has_a_top_speed_a_dead_zone_and_no_jitter() -> None:
    level = Level(reaction=0.0, refresh=0.0, error=0.0, speed=0.5, spin=True, dead=0.02, aim=0.0)
    ball = Ball(0.6, 0.5, -1.0, 0.0, 0.0)
    assert Computer(LEFT, level).move(seen(0.0, ball, paddle=0.2)) == 0.5
    assert Computer(LEFT, level).move(seen(0.0, ball, paddle=0.8)) == -0.5
    assert Computer(LEFT, level).move(seen(0.0, ball, paddle=0.485)) == 0
    near = Computer(LEFT, replace(level, dead=0.0)).move(seen(0.0, ball, paddle=0.49))
    assert near * PLAIN.paddle_speed / 60 == pytest.approx(0.01)  # arrives with this one decision
    game, player, ways = Game(PLAIN, 2), Computer(RIGHT, "perfect"), []
    game.server = LEFT
    for _ in range(100):  # the countdown, and most of the serve's flight
        move = player.move(game.scene())
        ways += [move] if abs(move) > 1e-9 else []
        game.step((0, move), 1 / 60)
    assert ways and (min(ways) > 0 or max(ways) < 0)


def test_a_computer_aims_where_the_other_one_is_not() -> None:
    """27 degrees take the ball 0.59 heights aside, by way of a wall to 0.87 or 0.13, and sooner there than steeper ones."""
    ball, player = Ball(0.6, 0.5, -1.0, 0.0, 0.0), Computer(LEFT, "perfect")
    above = replace(seen(0.0, ball), paddles=(Paddle(0.5, 0.0), Paddle(0.1, 0.0)))
    below = replace(above, paddles=(Paddle(0.5, 0.0), Paddle(0.9, 0.0)))
    assert player.move(above) < 0  # to hit it with the lower half of its paddle
    assert player._target == pytest.approx(0.5 - 0.45 * 0.09)
    assert player.move(replace(below, time=0.1)) < 0  # it does not change its mind on the way
    assert player.move(replace(below, time=0.2, phase="serve")) == 0
    assert player.move(replace(below, time=0.3)) > 0  # in the next rally it may


def test_wrong_level() -> None:
    with pytest.raises(InputError, match="easy, medium, hard, perfect"):
        Computer(LEFT, "godlike")


def test_keyboard() -> None:
    player, scene = Keyboard(LEFT), Game().scene()
    assert player.move(scene) == 0
    player.press("up")
    player.press("up")  # the system repeats keys that are held
    assert player.move(scene) == -1
    player.press("down")
    assert player.move(scene) == 0
    player.release("up")
    player.reset()
    assert player.move(scene) == 1
    player.release("down")
    player.release("down")
    assert player.move(scene) == 0
