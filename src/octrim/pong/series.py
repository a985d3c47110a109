"""Games without a window, one after the other or in several processes, and how well vision players saw in them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from math import hypot
from typing import Any

import cv2

from octrim.data.crew import child_pipes, hand_out, receive, send
from octrim.errors import InputError
from octrim.pong.options import MatchOptions
from octrim.pong.physics import Game, Scene
from octrim.pong.players import STEPS_PER_MOVE
from octrim.pong.recording import Recording
from octrim.pong.renderer import BALL, field_view, render
from octrim.pong.sides import NAMES, game_seed, player
from octrim.pong.vision import Sighting, VisionPlayer

DRAWS = 3  # rallies that end as a draw, one after the other, after which the game is drawn
LONGEST = 1800.0  # s of the game after which it is drawn
RECORDED = (640, 480)  # pixels
COLOURS = ((86, 204, 242), (255, 158, 88))  # RGB, of the boxes that the left and the right player saw


@dataclass
class Sight:
    """What a vision player saw in a game, against what was there.

    seen, missed: pictures looked at, and those that came while it was busy. balls: pictures looked at with a ball in them. found: of these,
    with a box for a ball whose centre lies within the ball. false: boxes for a ball that are none. errors: distances of the centres, pixels.
    latencies: ms.
    """

    seen: int = 0
    missed: int = 0
    balls: int = 0
    found: int = 0
    false: int = 0
    errors: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


@dataclass
class Result:
    """One game. winner: a side, or None for a draw. rallies: hits in each; drawn: how many of them were a draw. seconds: of the game.

    sights: of both sides, None where there is no vision player.
    """

    seed: int
    winner: int | None
    score: tuple[int, int]
    rallies: list[int]
    drawn: int
    seconds: float
    sights: tuple[Sight | None, Sight | None]


class Judge:
    """Knows the truth: compares a vision player's sightings with the scenes that they are of."""

    def __init__(self, one: VisionPlayer) -> None:
        self.one, self.sight = one, Sight()
        self.last: Sighting | None = None
        self.scenes: dict[float, Scene] = {}

    def look(self, scene: Scene) -> None:
        """After every move."""
        self.sight.seen, self.sight.missed = self.one.seen, self.one.missed
        self.scenes[scene.time] = scene
        sighting = self.one.sighting
        if sighting is None or sighting is self.last:
            return
        self.last = sighting
        self._compare(sighting, self.scenes[sighting.time])
        self.scenes = {time: kept for time, kept in self.scenes.items() if time > sighting.time}

    def _compare(self, sighting: Sighting, scene: Scene) -> None:
        sight = self.sight
        sight.latencies.append(round(sighting.latency_ms, 3))
        boxes = sighting.boxes[sighting.classes == BALL].tolist()
        view = field_view(scene.rules, self.one.width, self.one.height)
        radius = scene.rules.ball_radius
        ball = scene.ball
        x1, y1, x2, y2 = view.to_pixels((ball.x - radius, ball.y - radius, ball.x + radius, ball.y + radius))
        x1, x2 = max(x1, 0.0), min(x2, float(self.one.width))  # what is visible of it, as boxes are
        distances = [hypot((box[0] + box[2] - x1 - x2) / 2, (box[1] + box[3] - y1 - y2) / 2) for box in boxes]
        visible = scene.phase != "over" and x2 - x1 >= 2
        found = visible and bool(distances) and min(distances) <= radius * view.scale
        sight.balls += visible
        sight.found += found
        sight.false += len(boxes) - found
        if found:
            sight.errors.append(round(min(distances), 3))


def play_game(config: MatchOptions, index: int, detectors: MutableMapping[str, Any], recording: Recording | None = None) -> Result:
    """Game `index` of the series. detectors: as for `player`."""
    seed = game_seed(config.seed, index, 0)
    game = Game(config.rules(config.rally_cap), seed)
    players = [
        player(spec, side, config, game_seed(config.seed, index, 1 + side), detectors) for side, spec in enumerate((config.left, config.right))
    ]
    judges = [Judge(one) if isinstance(one, VisionPlayer) else None for one in players]
    rallies: list[int] = []
    drawn = in_a_row = 0
    while game.winner is None and in_a_row < DRAWS and game.time < LONGEST:
        scene = game.scene()
        moves = (players[0].move(scene), players[1].move(scene))
        for judge in judges:
            if judge is not None:
                judge.look(scene)
        if recording is not None:
            recording.add(_picture(scene, players), scene.time)
        for _ in range(STEPS_PER_MOVE):
            for event in game.step(moves):
                if event.kind in ("point", "draw"):
                    rallies.append(game.rally)
                    in_a_row = in_a_row + 1 if event.kind == "draw" else 0
                    drawn += event.kind == "draw"
    sights = tuple(judge.sight if judge is not None else None for judge in judges)
    return Result(seed, game.winner, game.score, rallies, drawn, game.time, (sights[0], sights[1]))


def _picture(scene: Scene, players: Sequence[Any]) -> Any:
    """The scene, with what vision players know of it: boxes that are as old as their latency."""
    image = render(scene, *RECORDED).image
    for one, colour in zip(players, COLOURS, strict=True):
        if isinstance(one, VisionPlayer) and one.sighting is not None:
            own, shown = field_view(scene.rules, one.width, one.height), field_view(scene.rules, *RECORDED)
            for box in one.sighting.boxes.tolist():
                x1, y1, x2, y2 = (round(side) for side in shown.to_pixels(own.to_field(tuple(box))))
                cv2.rectangle(image, (x1 - 3, y1 - 3), (x2 + 2, y2 + 2), colour, 1)
    return image


def play_series(
    config: MatchOptions, workers: int, detectors: MutableMapping[str, Any], recording: Recording | None, progress: Callable[[Result], None]
) -> list[Result]:
    """All games, in their order. workers: processes; 1 plays here. recording: of the first game. progress: told of each game that is over."""
    results: dict[int, Result] = {}
    if recording is not None:
        results[0] = play_game(config, 0, detectors, recording)
        progress(results[0])
    if workers > 1:
        _shared(config, workers, results, progress)
    for index in range(config.games):  # also what a process that died has left
        if index not in results:
            results[index] = play_game(config, index, detectors)
            progress(results[index])
    return [results[index] for index in range(config.games)]


def _shared(config: MatchOptions, workers: int, results: dict[int, Result], progress: Callable[[Result], None]) -> None:
    waiting = [index for index in range(config.games) if index not in results]

    def take(number: int, message: bytes) -> None:
        answer = json.loads(message)
        if "error" in answer:
            raise InputError(answer["error"])
        results[waiting[number]] = _result(answer)
        progress(results[waiting[number]])

    hand_out(__name__, [str(index).encode() for index in waiting], workers, take, json.dumps(asdict(config)).encode())


def serve() -> None:
    """The child's side: the configuration, then numbers of games in, results out, until the parent closes the pipe."""
    cv2.setNumThreads(1)
    source, output = child_pipes()
    with contextlib.suppress(EOFError, OSError):
        config = MatchOptions(**json.loads(receive(source)))
        detectors: dict[str, Any] = {}
        while True:
            index = int(receive(source))
            try:
                answer = asdict(play_game(config, index, detectors))
            except InputError as error:
                answer = {"error": str(error)}
            send(output, json.dumps(answer).encode())


def _result(answer: dict[str, Any]) -> Result:
    left, right = (Sight(**sight) if sight else None for sight in answer.pop("sights"))
    score = answer.pop("score")
    return Result(**answer, score=(score[0], score[1]), sights=(left, right))


def sides_of(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(NAMES, values, strict=True))
