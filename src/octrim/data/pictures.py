"""Pictures in: decoding whatever users have, and letterboxing for the network."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from octrim.data.probe import PNG, chunks_fit
from octrim.errors import InputError
from octrim.quiet import quiet_stderr

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".gif", ".avif", ".ppm", ".pgm", ".dng", ".mpo")

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
"""Of a picture that is decoded: 179 million, where Pillow takes a file for an attack."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # of half that size, and of damage that is reported by us
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints what it logs of damage on standard error

PADDING = 114  # the grey that YOLOv5 is trained with around a picture

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its reports of damaged files would stand beside our own line


def read_picture(path: str | Path) -> np.ndarray:
    """A picture as uint8 BGR `[height, width, 3]`, upright by its EXIF orientation.

    Grey, CMYK, 16-bit (scaled to 8) and transparent (alpha dropped) pictures come out the same way; of an animation, the first frame.
    Raises InputError for a file that is missing, empty, truncated or no picture.
    """
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a picture") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> np.ndarray:
    """`read_picture` for a file's contents; `name` stands in error messages."""
    if not data:
        raise InputError(f"{name}: the file is empty")
    # Some versions of OpenCV fill what is missing of a JPEG with grey and say nothing.
    if data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", _scan_start(data)) < 0:
        raise InputError(f"{name}: truncated JPEG (no end marker)")
    if data.startswith(PNG) and not chunks_fit(data):
        raise InputError(f"{name}: truncated or damaged PNG (its chunks do not fit in the file)")
    _check_size(data, name)
    try:
        with quiet_stderr():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{name}: not a readable picture ({error.err or 'unknown damage'})") from None
    if image is not None and image.ndim == 2:  # OpenCV leaves grey float pictures grey
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image is None or image.size == 0 or image.dtype != np.uint8:
        raise InputError(f"{name}: not a readable picture (damaged, truncated, or of an unknown format)")
    return image


def _check_size(data: bytes, name: str) -> None:
    """Refuse what a header of a kilobyte may ask for: gigabytes. OpenCV's own limit is two to the thirtieth and set when it is imported."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            pixels = header.width * header.height
    except Image.DecompressionBombError:
        pixels = MAX_PIXELS + 1
    except Exception:  # formats that Pillow does not know; damage, which OpenCV judges
        return
    if pixels > MAX_PIXELS:
        raise InputError(f"{name}: a picture of more than {MAX_PIXELS:,} pixels")


def _scan_start(data: bytes) -> int:
    """Where a JPEG's first scan begins: behind it the end marker cannot occur inside the data; before it, an EXIF thumbnail has its own."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda" and position + 4 <= len(data):
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position


@dataclass(frozen=True)
class Letterbox:
    """How a picture was fitted: scaled by (x, y), then moved by `left`, `top` pixels of padding."""

    scale: tuple[float, float]
    left: int
    top: int

    def to_picture(self, boxes_xyxy: np.ndarray, height: int, width: int) -> np.ndarray:
        """Boxes `[n, 4]` in pixels of the letterboxed picture to pixels of the original, clipped to its height and width."""
        boxes = (boxes_xyxy - (self.left, self.top, self.left, self.top)) / (*self.scale, *self.scale)
        return np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)


def letterbox(image: np.ndarray, height: int, width: int, stride: int | None = None) -> tuple[np.ndarray, Letterbox]:
    """Fit a picture into height x width, keeping its aspect, on grey 114.

    stride: pad only to the smallest multiple of it that holds the picture (a rectangle), instead of to the whole height x width.
    """
    rows, columns = image.shape[:2]
    ratio = min(height / rows, width / columns)
    inner_width, inner_height = max(round(columns * ratio), 1), max(round(rows * ratio), 1)
    if (inner_height, inner_width) != (rows, columns):
        image = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    if stride is not None:
        height, width = (-(-side // stride) * stride for side in (inner_height, inner_width))
    pad_y, pad_x = (height - inner_height) / 2, (width - inner_width) / 2
    # As published: an odd pixel of padding goes to the right and to the bottom.
    top, bottom, left, right = round(pad_y - 0.1), round(pad_y + 0.1), round(pad_x - 0.1), round(pad_x + 0.1)
    if top or bottom or left or right:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(PADDING,) * 3)
    return image, Letterbox((inner_width / columns, inner_height / rows), left, top)
