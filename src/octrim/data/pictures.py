"""Pictures in: decoding whatever users have, and letterboxing for the network."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from octrim.data import jpeg, png
from octrim.data.labelmeshapes import picture_inside
from octrim.errors import InputError
from octrim.machine import quiet_stderr

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".gif", ".avif", ".ppm", ".pgm", ".dng", ".mpo", ".jfif", ".jpe")

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
"""Of a picture that is decoded: 179 million, where Pillow takes a file for an attack."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # of half that size, and of damage that is reported by us
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints what it logs of damage on standard error

PADDING = 114  # the grey that YOLOv5 is trained with around a picture

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its reports of damaged files would stand beside our own line


def read_picture(path: str | Path) -> np.ndarray:
    """A picture as uint8 BGR `[height, width, 3]`, upright by its EXIF orientation.

    Grey, CMYK, 16-bit (scaled to 8) and transparent (alpha dropped) pictures come out the same way; of an animation, the first frame; of an
    annotation of labelme, the picture inside it. A JPEG that lost its end marker and nothing else is whole.
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
    if data[:1] == b"{":
        data = picture_inside(data) or b""
        if not data:
            raise InputError(f"{name}: not a readable picture (an annotation that holds none)")
    if data.startswith(png.START) and not png.chunks_fit(data):
        raise InputError(f"{name}: truncated or damaged PNG (its chunks do not fit in the file)")
    _check_size(data, name)
    if data.startswith(jpeg.START):
        data = _whole_jpeg(data, name)
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


def _whole_jpeg(data: bytes, name: str) -> bytes:
    """A JPEG with its end marker. Raises InputError where some of the picture is missing: OpenCV may fill it with grey and say nothing."""
    bits = jpeg.header(data)[1]
    if bits != 8:
        raise InputError(f"{name}: JPEG of {bits} bits a sample, which is not supported; save it with 8")
    with quiet_stderr():
        whole = jpeg.ended(data)
    if whole is None:
        raise InputError(f"{name}: truncated JPEG (no end marker)")
    return whole


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


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture: by its suffix in any case, unless it is hidden, as macOS's `._` files are."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


class Readable:
    """Pictures one by one, uint8 BGR; what cannot be read is left out, the same way for every command.

    read: paths of those that could be read the last time. failures: a line for each other.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.read: list[str] = []
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        self.read, self.failures = [], []
        for path in self.paths:
            try:
                image = read_picture(path)
            except InputError as error:
                self.failures.append(str(error))
                continue
            self.read.append(path)
            yield image

    def any(self) -> bool:
        """Whether one can be read."""
        return next(iter(self), None) is not None

    def require(self) -> None:
        """Raise InputError where none can be read."""
        if not self.any():
            raise InputError(f"none of the {len(self.paths)} pictures can be read: {self.failures[0] if self.failures else 'there are none'}")


def letterboxed(pictures: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """Pictures, uint8 BGR of any size, fitted into height x width one by one: uint8 RGB `[height, width, 3]`."""
    for picture in pictures:
        yield cv2.cvtColor(letterbox(picture, height, width)[0], cv2.COLOR_BGR2RGB)


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
