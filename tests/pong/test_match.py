"""Matches: what is counted, and that nothing about them depends on who plays them where."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from octrim.commands.pong import PongMatch, PongPlay
from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.options import from_python
from octrim.pong.match import summary, wilson
from octrim.pong.physics import LEFT, RIGHT, Game, Rules
from octrim.pong.players import Computer, Keyboard
from octrim.pong.series import DRAWS, Judge, Result, Sight, play_game, play_series
from octrim.pong.sides import game_seed, player
from octrim.pong.vision import Sighting, VisionPlayer
from tests.pong.eyes import Eye


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that sees balls and paddles where there are none: its boxes depend on the picture, which is enough here."""
    model = fresh_model("yolov5n", names=("ball", "paddle"), classes=2)
    tensors = dict(model.tensors)
    for level in range(3):
        bias = tensors[f"model.24.m.{level}.bias"].copy()
        bias.reshape(3, 7)[:, 4:] += 4.5
        tensors[f"model.24.m.{level}.bias"] = bias
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    Model(model.network, tensors, model.names, 64).save(path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(name: str = "exp") -> dict[str, Any]:
    return json.loads(Path(f"runs/pong-match/{name}/match.json").read_text("utf-8"))


def test_wilson() -> None:
    """Values of the textbook formula for z = 1.96 (Wilson 1927; also R's prop.test(correct = FALSE))."""
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(10, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson(16, 20) == pytest.approx((0.5840, 0.9193), abs=1e-4)


def test_players_by_name(weights: Path) -> None:
    assert isinstance(player("human", LEFT, PongPlay()), Keyboard)
    computer = player("computer:hard", RIGHT, PongMatch())
    assert isinstance(computer, Computer)
    assert computer.side == RIGHT
    eyes = player(f"vision:{weights}", LEFT, PongMatch(latency_ms=30.0))
    assert isinstance(eyes, VisionPlayer)
    assert (eyes.width, eyes.height, eyes.latency, eyes.live) == (64, 48, 0.03, False)
    live = player(f"vision:{weights}", RIGHT, PongPlay(imgsz=(96,)))
    assert isinstance(live, VisionPlayer)
    assert (live.width, live.latency, live.live) == (96, None, True)
    live.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("human", r"right: human plays in a window \(octrim pong play\); here computer:LEVEL or vision:WEIGHTS"),
        ("computer:brilliant", r"'computer:brilliant' is no player; expected computer:LEVEL \(easy, medium, hard, perfect\) or vision:WEIGHTS"),
        ("computer", "'computer' is no player"),
        ("vision:", "'vision:' is no player"),
        ("", "'' is no player"),
        ("vision:nowhere.pt", "nowhere.pt: "),
    ],
)
def test_players_that_are_none(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        player(spec, RIGHT, PongMatch())


def test_a_network_with_other_classes() -> None:
    fresh_model("yolov5n", names=("person", "dog"), classes=2).save("other.safetensors")
    with pytest.raises(InputError, match="left: other.safetensors: a vision player needs .* ball and paddle; this one has person, dog"):
        player("vision:other.safetensors", LEFT, PongMatch(latency_ms=0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": 0}, "games is 0, expected 1 or more"),
        ({"workers": 0}, "workers is 0, expected 1 to 1024"),
        ({"seed": -1}, "seed is -1, expected 0 to"),
        ({"points": 0}, "points is 0, expected 1"),
        ({"speed": 0.0}, "speed is 0.0, expected 0.1 to 10"),
        ({"left": "vision:best.pt", "workers": 2}, "give --latency-ms, or leave --workers out"),
        ({"record": "game.avi"}, "game.avi: recordings are MP4"),
    ],
)
def test_bad_input_leaves_nothing(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        from_python(PongMatch, options).run()
    assert not list(folder.iterdir())


def test_the_stronger_wins_and_the_report_adds_up() -> None:
    PongMatch(left="computer:easy", right="computer:hard", games=3, points=2, workers=1).run()
    found = report()
    assert found["wins"] == {"left": 0, "right": 3}
    assert (found["games"], found["draws"]) == (3, 0)
    assert found["points"]["right"] == found["misses"]["left"] == 6
    assert found["win_rate"]["left"] == 0
    assert found["win_rate"]["interval95"] == pytest.approx(wilson(0, 3))
    rallies = [length for game in found["per_game"] for length in game["rallies"]]
    assert len(rallies) == found["rallies"]["count"] == sum(found["points"].values())
    assert found["rallies"]["longest"] == max(rallies)
    assert found["rallies"]["mean"] == pytest.approx(np.mean(rallies))
    assert found["rallies"]["median"] == np.median(rallies)
    assert found["vision"] == {"left": None, "right": None}
    assert len({game["seed"] for game in found["per_game"]}) == 3
    assert found["config"]["right"] == "computer:hard"
    assert "computer:hard" in Path("runs/pong-match/exp/log.txt").read_text("utf-8")


def test_two_perfect_players_come_to_an_end() -> None:
    results = play_series(
        PongMatch(left="computer:perfect", right="computer:perfect", rally_cap=4, games=1, spin=False), 1, {}, None, lambda result: None
    )
    assert results[0].winner is None
    assert results[0].drawn == len(results[0].rallies) == DRAWS
    assert set(results[0].rallies) == {4}
    summarised = summary(PongMatch(games=1), results)
    assert summarised["draws"] == 1
    assert summarised["wins"] == {"left": 0, "right": 0}
    assert summarised["rallies"]["drawn"] == DRAWS


@pytest.mark.slow
def test_any_number_of_processes_plays_the_same_games(weights: Path) -> None:
    """To the last bit of match.json, with networks and computers."""
    config = PongMatch(left=f"vision:{weights}", right="computer:easy", games=2, points=1, latency_ms=250.0, seed=7)
    for name, workers in (("one", 1), ("two", 2)):
        replace(config, name=name, workers=workers).run()
    texts = [Path(f"runs/pong-match/{name}/match.json").read_bytes() for name in ("one", "two")]
    assert texts[0] == texts[1]
    found = report("one")
    assert found["vision"]["left"]["latency_ms"] == {"p50": 250, "p90": 250, "fixed": True}
    assert found["vision"]["left"]["frames_missed"] > 13 * found["vision"]["left"]["frames_seen"]
    assert found["vision"]["right"] is None
    # The order does not matter either: a game is made of the seed and its number.
    alone = play_game(config, 1, {})
    assert {"seed": alone.seed, "rallies": alone.rallies, "seconds": alone.seconds}.items() <= found["per_game"][1].items()


@pytest.mark.slow
def test_a_child_tells_what_went_wrong(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights vanish between the check and the games."""
    config = PongMatch(left="vision:gone.safetensors", games=2, latency_ms=100.0)
    with pytest.raises(InputError, match="gone.safetensors"):
        play_series(config, 2, {}, None, lambda result: None)


def test_seeds_differ() -> None:
    seeds = {game_seed(seed, index, part) for seed in range(4) for index in range(50) for part in range(3)}
    assert len(seeds) == 600


@pytest.mark.slow
def test_measured_latency_is_told(weights: Path) -> None:
    PongMatch(left=f"vision:{weights}", right="computer:easy", games=1, points=1, record="first.mp4").run()
    sight = report()["vision"]["left"]
    assert 0 < sight["latency_ms"]["p50"] <= sight["latency_ms"]["p90"]
    assert sight["latency_ms"]["fixed"] is False
    ticks = round(60 * report()["seconds"])
    assert sight["frames_seen"] + sight["frames_missed"] == pytest.approx(ticks, abs=1)
    video = cv2.VideoCapture("first.mp4")
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == pytest.approx(ticks, abs=2)
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (640, 480)


def test_judge_by_hand() -> None:
    """A picture with the ball two pixels off, one with nothing, and one with the ball and two that are none."""
    one = VisionPlayer(LEFT, Eye(), latency=0.0)
    judge, game = Judge(one), Game(Rules())
    centre = np.array([160.0, 120.0])  # of 320 x 240; the ball's radius is 4.8 pixels
    for balls in ([centre + (2, 0)], [], [centre + (0, 1), centre + (5, 0), np.array([20.0, 20.0])]):
        scene = game.scene()
        boxes = np.array([[*(ball - 4), *(ball + 4)] for ball in balls] + [[1, 1, 9, 50]], np.float32)
        classes = np.array([0] * len(balls) + [1])
        one.sighting = Sighting(scene.time, boxes, classes, np.ones(len(classes)), 12.0)
        judge.look(scene)
        judge.look(scene)  # the same sighting counts once
        game.step((0.0, 0.0))
    sight = judge.sight
    assert (sight.balls, sight.found, sight.false) == (3, 2, 2)
    assert sight.errors == [2.0, 1.0]
    assert sight.latencies == [12.0] * 3
    result = Result(1, LEFT, (11, 3), [4, 5], 0, 60.0, (sight, None))
    summarised = summary(PongMatch(games=1), [result])["vision"]["left"]
    assert summarised["ball_recall"] == pytest.approx(2 / 3)
    assert summarised["ball_precision"] == 0.5
    assert summarised["error_px"] == {"mean": 1.5, "p50": 1.5, "p90": pytest.approx(1.9)}


def test_nothing_seen_is_no_number() -> None:
    result = Result(1, RIGHT, (0, 11), [1], 0, 60.0, (Sight(), None))
    sight = summary(PongMatch(games=1), [result])["vision"]["left"]
    assert (sight["ball_recall"], sight["ball_precision"], sight["latency_ms"]["p50"]) == (None, None, None)
    json.dumps(sight)


def test_config_is_plain() -> None:
    """Children get it as JSON."""
    config = PongMatch(imgsz=(96, 128), latency_ms=20.0)
    again = PongMatch(**json.loads(json.dumps(asdict(config))))
    assert again.rules() == config.rules()
    assert list(again.imgsz or ()) == [96, 128]
