"""Converts pictures that programs hold in memory: arrays, and pictures of Pillow's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from octrim.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | Path | np.ndarray | Image"
"""A picture as programs give it: a path, an array as OpenCV reads it, or a picture of Pillow's."""


def bgr_picture(image: Any) -> np.ndarray:
    """Return a picture in memory as uint8 BGR `[height, width, 3]`.

    image: a uint8 array of that shape, one with a fourth channel (alpha, which is dropped), a grey one (`[height, width]`, `[height, width, 1]`),
    or a picture of Pillow's, which is turned upright by its EXIF orientation. Raises InputError for everything else, such as floats, whose range
    is not known.
    """
    if is_pillow(image):
        return _from_pillow(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f"a picture is an array, a path or a picture of Pillow's; found {type(image).__name__}")
    found = f"{image.dtype} {list(image.shape)}"
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise InputError(f"a picture is uint8 [height, width, 3] (BGR) or grey [height, width]; found {found}")
    if image.dtype != np.uint8:
        raise InputError(f"a picture is uint8 [height, width, 3] (BGR), 0 to 255; found {found}: (image * 255).astype('uint8') where it is 0 to 1")
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image[:, :, :3]


def is_pillow(image: Any) -> bool:
    """Tell whether an object is a `PIL.Image.Image`, without importing Pillow."""
    return type(image).__module__.split(".")[0] == "PIL" or any(kind.__module__ == "PIL.Image" for kind in type(image).__mro__)


def _from_pillow(image: Any) -> np.ndarray:
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("I", "I;16", "I;16L", "I;16B", "F"):
            raise InputError(f"a picture of Pillow's in mode {image.mode} has more than 8 bits; convert it to L or RGB first")
        return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[:, :, ::-1])
    except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes when pixels are asked for
        if isinstance(error, InputError):
            raise
        raise InputError(f"a picture of Pillow's that cannot be decoded: {error}") from None
