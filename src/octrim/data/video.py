"""Writes videos as MPEG-4 in MP4, with the only encoder that OpenCV's own wheels bring everywhere."""

from __future__ import annotations

import errno
from pathlib import Path

import cv2
import numpy as np

from octrim.atomic import replacing
from octrim.errors import InputError
from octrim.machine import quiet_stderr


class Video:
    """Writer of an MP4 file that appears under its name when it is complete.

    path: the file, which is replaced if it exists. fps: frames per second. width, height: size in pixels, to which other pictures are scaled.
    Raises InputError where OpenCV cannot write MP4, and OSError where no file can be made.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.size = (width, height)
        self.name, self.frames = path, 0
        self.replacing = replacing(path)
        self.path = self.replacing.__enter__()
        self.writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), fps, self.size)
        if not self.writer.isOpened():
            self.path.unlink(missing_ok=True)
            raise InputError(f"{path}: OpenCV cannot write MP4 here")

    def write(self, image: np.ndarray) -> None:
        """Add one frame, uint8 BGR `[height, width, 3]`."""
        if (image.shape[1], image.shape[0]) != self.size:  # a stream may change its size
            image = cv2.resize(image, self.size)
        self.writer.write(image)
        self.frames += 1

    def close(self) -> None:
        """Complete the file. Raises OSError where it does not hold all frames: OpenCV does not report a full disk."""
        self.writer.release()
        with quiet_stderr():
            written = cv2.VideoCapture(str(self.path))
        count = max(round(written.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        written.release()
        if count == self.frames:
            self.replacing.__exit__(None, None, None)
            return
        error = OSError(errno.EIO, f"only {count} of {self.frames} frames could be written; is the disk full?", str(self.name))
        self.replacing.__exit__(OSError, error, None)
        raise error
