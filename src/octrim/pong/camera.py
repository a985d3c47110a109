"""Effects of a camera and of a file format on a frame: blur, light, noise, compression."""

from __future__ import annotations

import math

import cv2
import numpy as np

from octrim.pong.looks import Look, tone


def develop(image: np.ndarray, look: Look, scale: float, generator: np.random.Generator) -> np.ndarray:
    """The frame as the look's camera shows it, uint8 RGB `[height, width, 3]`; the very same array where the look changes nothing.

    image: uint8 RGB `[height, width, 3]`. scale: pixels per field height. generator: source of the noise.
    """
    if look.blur:
        image = cv2.GaussianBlur(image, (0, 0), max(look.blur * scale, 0.1))
    if any(look.shake):
        image = _shaken(image, look.shake[0] * scale, look.shake[1] * scale)
    if look.vignette:
        height, width = image.shape[:2]
        x = np.linspace(-1, 1, width, dtype=np.float32)
        y = np.linspace(-1, 1, height, dtype=np.float32)
        light = 1 - np.float32(look.vignette / 2) * (x**2 + y[:, None] ** 2)
        image = np.rint(image * light[..., None]).astype(np.uint8)
    if (look.contrast, look.brightness, look.gamma) != (1, 0, 1):
        table = np.rint(255 * tone(np.arange(256) / 255, look)).astype(np.uint8)
        image = cv2.LUT(image, table)
    if look.scanlines:
        image = image.copy()
        image[1::2] = np.rint(image[1::2] * (1 - look.scanlines)).astype(np.uint8)
    if look.noise:
        noise = generator.standard_normal(image.shape, np.float32)
        noise *= look.noise
        image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    if look.jpeg:
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, look.jpeg])[1]
        image = cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
    return image


def _shaken(image: np.ndarray, right: float, down: float) -> np.ndarray:
    """The frame as a shaken camera sees it: its mean along a straight path of `right` and `down` pixels."""
    half = math.ceil(max(abs(right), abs(down)) / 2)
    if not half:
        return image
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 8 * half + 1)
    np.add.at(kernel, (np.rint(half + down * steps).astype(int), np.rint(half + right * steps).astype(int)), 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
