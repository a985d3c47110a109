"""Vision player: a player that knows of the game only what a detector finds in pictures of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import cv2
import numpy as np

from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.pong.ball import Rules
from octrim.pong.physics import Scene
from octrim.pong.planning import GRACE, Intention, Planner
from octrim.pong.players import DECISION
from octrim.pong.rackets import OtherPaddle, OwnPaddle, Racket
from octrim.pong.renderer import BALL, CLASSES, PADDLE, field_view, render
from octrim.pong.tracking import Tracker

DEAD = 0.004  # distance from its target, in field heights, within which the paddle is not moved
ERROR = 0.8  # standard deviation, in pixels, of the centres of a detector's boxes
COLUMN = 0.1  # largest distance in x, in field heights, of a found paddle from its column
WARMUP = 3  # number of detections before the first one whose time counts


class Eye(Protocol):
    """The part of an `octrim.Detector` that a vision player needs."""

    height: int
    width: int

    @property
    def info(self) -> Any: ...

    def detect(self, image: np.ndarray) -> Detections: ...


@dataclass(frozen=True, eq=False)
class Sighting:
    """Detections in one picture.

    time: time of the game at which the picture was taken. boxes: float32 `[n, 4]`, xyxy in pixels of the player's pictures. classes: int `[n]`,
    indices into `renderer.CLASSES`. confidences: float32 `[n]`, 0 to 1. latency_ms: milliseconds from the picture until the detections were known.
    """

    time: float
    boxes: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray
    latency_ms: float


class VisionPlayer:
    """A player that renders the scene, detects ball and paddles in the picture, tracks the ball, predicts its flight and moves its paddle.

    Of the scene itself it reads the rules and the clock alone. Pictures that come while it looks at another one are missed.

    detector: an `octrim.Detector` whose network has the classes ball and paddle. width, height: size of the pictures in pixels; by default the
    field's aspect in the largest size that the network takes. latency: seconds of the game, 0 to 10, after which the detections in a picture are
    known; None: as long as the detection takes. live: if true, as windows need it, detection runs beside the game in a thread that `close` ends.
    rules: rules of the game, for the pictures' aspect; in play, the rules are read from the scenes.
    Raises InputError for a network without these classes and for another latency.

    Attributes: sighting is the last sighting that is known, or None; plan is the player's present plan; seen and missed are numbers of pictures
    since `reset`.
    """

    def __init__(
        self,
        side: int,
        detector: Eye,
        width: int | None = None,
        height: int | None = None,
        latency: float | None = None,
        live: bool = False,
        rules: Rules | None = None,
    ) -> None:
        names = list(detector.info.names)
        if not set(CLASSES) <= set(names):
            shown = ", ".join(names[:8]) + (", .." if len(names) > 8 else "")
            raise InputError(f"a vision player needs a network with the classes {' and '.join(CLASSES)}; this one has {shown or 'none'}")
        if latency is not None and not 0 <= latency <= 10:
            raise InputError(f"latency is {1000 * latency:g} ms, expected 0 to 10000")
        self.rules = rules or Rules()
        scale = min(detector.width / self.rules.width, detector.height)
        self.width, self.height = width or round(scale * self.rules.width), height or round(scale)
        self.side, self.detector, self.latency, self.live = side, detector, latency, live
        self.labels = {names.index(name): label for label, name in enumerate(CLASSES)}
        if live or latency is None:
            for _ in range(WARMUP):
                detector.detect(np.zeros((self.height, self.width, 3), np.uint8))
        self.worker = _LookThread(self._look) if live else None
        self.reset()

    def reset(self) -> None:
        """Forget everything, before a new game."""
        sigma = ERROR / field_view(self.rules, self.width, self.height).scale
        self.sighting: Sighting | None = None
        self.plan = Intention(0.5)
        self.seen = self.missed = 0
        self.own, self.other = OwnPaddle(sigma), OtherPaddle(sigma)
        self.planner = Planner(self.side)
        self.tracker = Tracker(self.rules, sigma)
        self._now = 0.0
        self._last_move = 0.0
        self._coming: Sighting | None = None  # the sighting that is made, but not known yet
        if self.worker:
            self.worker.forget()

    def close(self) -> None:
        """End the thread of a live player."""
        if self.worker:
            self.worker.close()

    def move(self, scene: Scene) -> float:
        """The paddle's move, -1 (up at full speed) to 1 (down at full speed); called 60 times per second of the game."""
        now, rules = scene.time, scene.rules
        if now < self._now:  # another game has begun
            self.reset()
        self.own.moved(now, self._last_move * rules.paddle_speed, rules)
        self._now = now
        known = self._known(scene)
        if known is not None:
            self._learn(known, rules)
        if known is not None or now > self.plan.time + GRACE:  # plan for what comes after the expected arrival before it is seen
            self.plan = self.planner.plan(now, self.tracker.ball, partial(self._racket, rules), rules)
        error = self.plan.target - self.own.y
        step = rules.paddle_speed * DECISION
        self._last_move = max(-1.0, min(1.0, error / step)) if abs(error) > DEAD and step > 0 else 0.0
        return self._last_move

    def _known(self, scene: Scene) -> Sighting | None:
        """The sighting that becomes known at this scene, or None. The scene's picture goes to the detector if that is free, and is missed else."""
        known = None
        if self._coming is not None and self._is_known(scene.time):
            known, self._coming = self._coming, None
        if self.worker is not None:
            if self._coming is None:
                self._coming = self.worker.take()
                self.seen += self._coming is not None
            # With a fixed latency the player is busy until the sighting is known. A scene that the worker has not begun to look at is missed.
            if (self._coming is not None and not self._is_known(scene.time)) or self.worker.offer(scene):
                self.missed += 1
        elif self._coming is None:
            self._coming = self._look(scene)
            self.seen += 1
        else:
            self.missed += 1
        if known is None and self._coming is not None and self._is_known(scene.time):
            known, self._coming = self._coming, None
        return known

    def _is_known(self, now: float) -> bool:
        assert self._coming is not None
        delay = self.latency
        if delay is None:
            delay = 0.0 if self.live else self._coming.latency_ms / 1000
        return now >= self._coming.time + delay - 1e-9

    def _look(self, scene: Scene) -> Sighting:
        image = cv2.cvtColor(render(scene, self.width, self.height).image, cv2.COLOR_RGB2BGR)
        found = self.detector.detect(image)
        labels = [self.labels.get(label, -1) for label in found.class_id.tolist()]
        kept = np.array([index for index, label in enumerate(labels) if label >= 0], int)
        classes = np.array(labels, int)[kept]
        milliseconds = sum(found.speed_ms.values()) if self.latency is None else 1000 * self.latency
        return Sighting(scene.time, found.xyxy[kept], classes, found.confidence[kept], milliseconds)

    def _learn(self, sighting: Sighting, rules: Rules) -> None:
        self.sighting = sighting
        view = field_view(rules, self.width, self.height)
        places: dict[int, list[tuple[float, float, float]]] = {BALL: [], PADDLE: []}
        for box, label, confidence in zip(sighting.boxes.tolist(), sighting.classes.tolist(), sighting.confidences.tolist(), strict=True):
            x1, y1, x2, y2 = view.to_field(tuple(box))
            places[label].append(((x1 + x2) / 2, (y1 + y2) / 2, confidence))
        inset = rules.paddle_inset + rules.paddle_width / 2
        columns = (inset, rules.width - inset)
        for side, paddle in ((self.side, self.own), (1 - self.side, self.other)):
            paddle.see(sighting.time, [(y, share) for x, y, share in places[PADDLE] if abs(x - columns[side]) < COLUMN])
        self.tracker.rules = rules
        self.tracker.update(sighting.time, places[BALL], partial(self._racket, rules))

    def _racket(self, rules: Rules, side: int, time: float) -> Racket:
        return self.own.at(time) if side == self.side else self.other.at(time, rules)


class _LookThread:
    """A thread that looks at the latest scene that it was offered. look: function that it calls with the scene."""

    def __init__(self, look: Callable[[Scene], Sighting]) -> None:
        self.look = look
        self.condition = threading.Condition()
        self.scene: Scene | None = None
        self.result: Sighting | None = None
        self.error: BaseException | None = None
        self.round = 0  # number of calls of `forget`: results of scenes from before the last call are dropped
        self.stopped = False
        self.thread = threading.Thread(target=self._run, name="pong-vision", daemon=True)
        self.thread.start()

    def offer(self, scene: Scene) -> bool:
        """Offer a scene, and return whether an earlier one was still waiting, which nobody will look at now."""
        with self.condition:
            waiting, self.scene = self.scene is not None, scene
            self.condition.notify()
        return waiting

    def take(self) -> Sighting | None:
        """Take the result that is ready, or None; each is returned once. Raises the error that ended the thread, if there was one."""
        with self.condition:
            if self.error is not None:
                raise self.error
            result, self.result = self.result, None
        return result

    def forget(self) -> None:
        with self.condition:
            self.scene = self.result = None
            self.round += 1

    def close(self) -> None:
        with self.condition:
            self.stopped = True
            self.condition.notify()
        self.thread.join()

    def _run(self) -> None:
        while True:
            with self.condition:
                while self.scene is None and not self.stopped:
                    self.condition.wait()
                if self.stopped:
                    return
                scene, self.scene, begun = self.scene, None, self.round
            assert scene is not None
            try:
                start = perf_counter()
                result = replace(self.look(scene), latency_ms=1000 * (perf_counter() - start))
            except BaseException as error:  # `take` raises it
                with self.condition:
                    self.error = error
                return
            with self.condition:
                if begun == self.round:
                    self.result = result
