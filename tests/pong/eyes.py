"""A stand-in for a detector: boxes of what the game draws, with what detectors do to them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from octrim.evaluate.detections import Detections
from octrim.pong import vision
from octrim.pong.physics import Scene
from octrim.pong.renderer import Picture, render

NAMES = ("net", "paddle", "ball")  # not the renderer's order


class Eye:
    """noise: standard deviation of every side of a box, pixels. drop: share of objects that are overlooked. false: share of pictures with a ball
    that is none. latency: what it claims to have taken, ms. hidden: what it never sees, a name."""

    height = width = 320
    info = SimpleNamespace(names=NAMES)

    def __init__(self, noise: float = 0.3, drop: float = 0.0, false: float = 0.0, latency: float = 0.0, seed: int = 0, hidden: str = "") -> None:
        self.noise, self.drop, self.false, self.latency, self.hidden = noise, drop, false, latency, hidden
        self.random = np.random.default_rng(seed)
        self.picture: Picture | None = None

    def look_through(self, patch: pytest.MonkeyPatch) -> Eye:
        """Hear of what is rendered for vision players."""

        def rendered(scene: Scene, width: int, height: int) -> Picture:
            self.picture = render(scene, width, height)
            return self.picture

        patch.setattr(vision, "render", rendered)
        return self

    def detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        boxes, labels = np.zeros((0, 4)), np.zeros(0, int)
        if self.picture is not None:
            assert np.array_equal(image[..., ::-1], self.picture.image)  # BGR, as detectors take it
            boxes, labels = self.picture.boxes.astype(float), 2 - self.picture.classes
        kept = (self.random.random(len(boxes)) >= self.drop) & np.array([NAMES[label] != self.hidden for label in labels], bool)
        boxes, labels = boxes[kept] + self.random.normal(0, self.noise, (int(kept.sum()), 4)), labels[kept]
        confidence = np.full(len(boxes), 0.9)
        if self.random.random() < self.false:
            x, y = self.random.random(2) * (width, height)
            boxes, labels, confidence = np.vstack([boxes, [x - 5, y - 5, x + 5, y + 5]]), np.append(labels, 2), np.append(confidence, 0.5)
        speed = {"pre": self.latency / 4, "network": self.latency / 2, "post": self.latency / 4}
        return Detections(boxes.astype(np.float32), confidence.astype(np.float32), labels, NAMES, "", height, width, None, speed)
