"""Draws pictures from a seed, for checks and benchmarks that should not depend on a download."""

from __future__ import annotations

import cv2
import numpy as np


def drawn_scene(seed: int, height: int = 720, width: int = 1280) -> np.ndarray:
    """Draw a picture with a smooth background, shapes, edges and noise: uint8 BGR `[height, width, 3]`, the same for the same arguments."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 10, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        colour = generator.integers(0, 256, 3).tolist()
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        size = int(generator.integers(height // 40, height // 4))
        if generator.random() < 0.5:
            cv2.ellipse(image, (x, y), (size, size // 2 + 1), float(generator.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x, y), (x + size, y + int(size * generator.uniform(0.4, 2.5))), colour, -1)
    noise = generator.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
