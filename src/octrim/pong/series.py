"""Series of games without a window, one after the other or in several processes, with how well vision players saw in them."""

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

DRAWS = 3  # number of drawn rallies, one after the other, after which a game is drawn
LONGEST = 1800.0  # seconds after which a game is drawn
RECORDED = (640, 480)  # width and height of a recording's frames, in pixels
COLOURS = ((86, 204, 242), (255, 158, 88))  # RGB colours of the boxes that the left and the right player saw


@dataclass
class Sight:
    """Counts of what a vision player saw in a game, compared with what was there.

    seen, missed: number of pictures that it looked at, and that came while it was busy. balls: number of sightings of pictures with a ball in
    them. found: number of those with a box for a ball whose centre lies within the ball. false: number of boxes for a ball that are none.
    errors: distances in pixels between the centres of found balls and of their boxes. latencies: latency of each sighting in ms.
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
    """Result of one game.

    winner: a side, or None for a draw. rallies: number of hits in each rally. drawn: number of rallies that ended as a draw. seconds: length of
    the game. sights: what the left and the right player saw, None for one that is no vision player.
    """

    seed: int
    winner: int | None
    score: tuple[int, int]
    rallies: list[int]
    drawn: int
    seconds: float
    sights: tuple[Sight | None, Sight | None]


class Judge:
    """Judge of a vision player: compares its sightings with the scenes that they are sightings of."""

    def __init__(self, one: VisionPlayer) -> None:
        self.one, self.sight = one, Sight()
        self.last: Sighting | None = None
        self.scenes: dict[float, Scene] = {}

    def look(self, scene: Scene) -> None:
        """Take note of a scene after the player's move in it, and compare the player's sighting if it is a new one. To be called at every move."""
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
        x1, x2 = max(x1, 0.0), min(x2, float(self.one.width))  # only the visible part, as in the labels' boxes
        distances = [hypot((box[0] + box[2] - x1 - x2) / 2, (box[1] + box[3] - y1 - y2) / 2) for box in boxes]
        visible = scene.phase != "over" and x2 - x1 >= 2
        found = visible and bool(distances) and min(distances) <= radius * view.scale
        sight.balls += visible
        sight.found += found
        sight.false += len(boxes) - found
        if found:
            sight.errors.append(round(min(distances), 3))


def play_game(config: MatchOptions, index: int, detectors: MutableMapping[str, Any], recording: Recording | None = None) -> Result:
    """Play game `index` of the series and return its result.

    detectors: networks by weights, which `sides.player` uses and adds to. recording: video that the game's frames are added to.
    """
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
    """A recording's frame, uint8 RGB `[height, width, 3]`: the scene with the boxes that vision players know of, as old as their latency."""
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
    """Play all games of a match and return their results in the order of the games.

    workers: number of processes; 1 plays in this one. detectors: networks by weights. recording: video of the first game, which this process
    plays. progress: called with the result of each game that is over.
    """
    results: dict[int, Result] = {}
    if recording is not None:
        results[0] = play_game(config, 0, detectors, recording)
        progress(results[0])
    if workers > 1:
        _shared(config, workers, results, progress)
    for index in range(config.games):  # with several workers these are the games that a dead process has left
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
    """Serve games in a child process: read the configuration, then indices of games; answer each with its result until the parent closes the pipe."""
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
