"""Decodes pictures of all kinds that users have, and letterboxes them for the network."""

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

MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)
"""Most pixels of a picture that is decoded: 179 million, from where on Pillow takes a file for an attack."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow warns of pictures of half that size, and of damage that we report
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler, Python prints Pillow's log of damage on standard error

PADDING = 114  # the grey that YOLOv5 is trained with around a picture

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # OpenCV's reports of damaged files would stand beside our own


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture file as uint8 BGR `[height, width, 3]`, upright by its EXIF orientation.

    Grey, CMYK, 16-bit (scaled to 8) and transparent (alpha dropped) pictures come out the same way. An animation gives its first frame, a labelme
    annotation the picture inside it. A JPEG that lost nothing but its end marker counts as whole.
    Raises InputError for a file that is missing, empty, truncated, too large or no picture.
    """
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a picture") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return decode_picture(data, str(path))


def decode_picture(data: bytes, name: str) -> np.ndarray:
    """Decode the bytes of a picture file, as `read_picture` does. name: the file's name in error messages."""
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
        raise InputError(f"{name}: {instead_of_picture(data) or 'not a readable picture (damaged, truncated, or of an unknown format)'}")
    return image


def instead_of_picture(data: bytes) -> str | None:
    """Tell, as the rest of an error line, what the bytes of a file are that is called like a picture; None where they are damaged or unknown."""
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture itself: run git lfs pull where it was cloned"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "a HEIC picture, as phones take it: save it as JPEG"
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture: the download was an error or a log-in page"
    if b"<svg" in data[:1000].lower():
        return "an SVG drawing, not a picture of pixels: save it as PNG"
    return None


def _whole_jpeg(data: bytes, name: str) -> bytes:
    """Return a JPEG's bytes with the end marker. Raises InputError where some of the picture is missing: OpenCV may silently fill it with grey."""
    bits = jpeg.header(data)[1]
    if bits != 8:
        raise InputError(f"{name}: JPEG of {bits} bits a sample, which is not supported; save it with 8")
    with quiet_stderr():
        whole = jpeg.ended(data)
    if whole is None:
        raise InputError(f"{name}: truncated JPEG (no end marker)")
    return whole


def _check_size(data: bytes, name: str) -> None:
    """Raise InputError where a header asks for more than MOST_PIXELS. OpenCV's own limit is 2**30 and set when it is imported."""
    try:
        with Image.open(io.BytesIO(data)) as header:
            pixels = header.width * header.height
    except Image.DecompressionBombError:
        pixels = MOST_PIXELS + 1
    except Exception:  # Pillow does not know the format, or the file is damaged, which OpenCV judges
        return
    if pixels > MOST_PIXELS:
        raise InputError(f"{name}: a picture of more than {MOST_PIXELS:,} pixels")


def is_picture(name: str) -> bool:
    """Tell whether a file of this name is taken for a picture: by its suffix in any letter case, unless it is hidden, as macOS's `._` files are."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


class Readable:
    """Iterable of pictures, uint8 BGR; those that cannot be read are left out, the same way for every command.

    read: paths of the pictures that the last iteration could read. failures: an error line for each other picture.
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
        """Tell whether at least one picture can be read."""
        return next(iter(self), None) is not None

    def require(self) -> None:
        """Raise InputError where no picture can be read."""
        if not self.any():
            raise InputError(f"none of the {len(self.paths)} pictures can be read: {self.failures[0] if self.failures else 'there are none'}")


@dataclass(frozen=True)
class Letterbox:
    """The way in which a picture was letterboxed: scaled by (x, y), then moved by `left` and `top` pixels of padding."""

    scale: tuple[float, float]
    left: int
    top: int

    def to_picture(self, boxes_xyxy: np.ndarray, height: int, width: int) -> np.ndarray:
        """Convert boxes `[n, 4]` from pixels of the letterboxed picture to pixels of the original, clipped to its height and width."""
        boxes = (boxes_xyxy - (self.left, self.top, self.left, self.top)) / (*self.scale, *self.scale)
        return np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)


def letterbox(image: np.ndarray, height: int, width: int, stride: int | None = None) -> tuple[np.ndarray, Letterbox]:
    """Fit a picture `[h, w, 3]` into height x width, keeping its aspect, padded with grey 114; return it with the way it was fitted.

    stride: where given, each side is padded only to the next multiple of it, instead of to the whole height x width.
    """
    rows, columns = image.shape[:2]
    ratio = min(height / rows, width / columns)
    inner_width, inner_height = max(round(columns * ratio), 1), max(round(rows * ratio), 1)
    if (inner_height, inner_width) != (rows, columns):
        image = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    if stride is not None:
        height, width = (-(-side // stride) * stride for side in (inner_height, inner_width))
    image, left, top = centred(image, height, width)
    return image, Letterbox((inner_width / columns, inner_height / rows), left, top)


def centred(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """Put a picture that is not larger than height x width into its middle, grey 114 around it. Returns it with the padding on the left and on top.

    An odd pixel of padding is put to the right and to the bottom, as YOLOv5 does.
    """
    pad_y, pad_x = (height - image.shape[0]) / 2, (width - image.shape[1]) / 2
    top, bottom, left, right = round(pad_y - 0.1), round(pad_y + 0.1), round(pad_x - 0.1), round(pad_x + 0.1)
    if top or bottom or left or right:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(PADDING,) * 3)
    return image, left, top


def as_input(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Turn a letterboxed picture, uint8 BGR `[height, width, 3]`, into what sessions read: RGB of the same shape. out: array to write it to."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=out)


def network_input(image: np.ndarray, height: int, width: int, stride: int | None = None) -> tuple[np.ndarray, Letterbox]:
    """Turn a picture, uint8 BGR of any size, into a network's input, uint8 RGB `[height, width, 3]`; return it with the way it was letterboxed.

    stride: as `letterbox` takes it.
    """
    fitted, box = letterbox(image, height, width, stride)
    return as_input(fitted), box


def network_inputs(pictures: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """Yield pictures, uint8 BGR of any size, as a network's inputs, each uint8 RGB `[height, width, 3]`, letterboxed."""
    for picture in pictures:
        yield network_input(picture, height, width)[0]
