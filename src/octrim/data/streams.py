"""Reads videos and live streams frame by frame through OpenCV; a live stream that drops is opened again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # OpenCV reads this when it opens its first video; we report damage ourselves

import cv2
import numpy as np

from octrim.errors import InputError
from octrim.machine import quiet_stderr

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a lost stream is opened again: doubled from attempt to attempt
_TIMEOUT = 10_000  # milliseconds to wait for a connection, and for each frame


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, or one frame of a video. source: its path, address or camera. image: uint8 BGR `[height, width, 3]`, or None where it could not
    be read, for the reason `error`.

    index: number of the frame in its video, from 0; None for a picture. fps: frames per second of the video.
    """

    source: str
    image: np.ndarray | None
    index: int | None = None
    error: str | None = None
    fps: float = 30.0


def without_password(address: str) -> str:
    """Return an address without user name and password, as it may stand in a log."""
    return re.sub(r"//[^/@]*@", "//", address)


class Stream:
    """An opened video file, camera or network stream; iterating it gives its frames.

    video: path, address, or camera number. stride: one of so many frames is given. retries: number of attempts in a row to open a lost live stream
    again. report: called with lines on what happens. Raises InputError where nothing can be opened.
    """

    def __init__(self, video: str | int, stride: int = 1, retries: int = 0, report: Callable[[str], None] = print) -> None:
        self.video, self.stride, self.retries, self.report = video, stride, retries, report
        self.name = f"camera{video}" if isinstance(video, int) else without_password(video)
        if isinstance(video, str) and "://" not in video and Path(video).stat().st_size == 0:
            raise InputError(f"{video}: the file is empty")
        self.capture = _opened(video)
        if not self.capture.isOpened():
            if isinstance(video, int):
                raise InputError(f"camera {video}: cannot be opened")
            raise InputError(f"{self.name}: {'not there, or no video or stream' if '://' in video else 'not a readable video'}")
        count, fps = self.capture.get(cv2.CAP_PROP_FRAME_COUNT), self.capture.get(cv2.CAP_PROP_FPS)
        self.frames = int(count) if 0 < count < 10**9 else None  # the number that the container claims; a live stream has none
        self.fps = (fps if 0 < fps < 1000 else 30.0) / stride
        self.live = isinstance(video, int) or ("://" in video and self.frames is None)

    @property
    def total(self) -> int | None:
        return None if self.frames is None else -(-self.frames // self.stride)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        try:
            while True:
                read, image = self._read()
                if not read and self.live:
                    image = self._found_again(index)
                    read = image is not None
                if not read:
                    break
                if index % self.stride == 0:
                    yield Frame(self.name, image, index, fps=self.fps)
                index += 1
        finally:
            self.capture.release()
        if self.live and self.retries:
            attempts = f"not there again at any of {self.retries} attempts (--retries 0 ends without an error)"
            yield Frame(self.name, None, index, f"{self.name}: lost after {index} frames, and {attempts}")
        elif self.live:
            self.report(f"{self.name}: ended after {index} frames")
        elif index == 0:
            yield Frame(self.name, None, 0, f"{self.name}: a video without a single readable frame")
        elif self.frames is not None and index < self.frames:
            self.report(f"{self.name}: ended after {index} of the {self.frames} frames that its header claims")

    def _read(self) -> tuple[bool, np.ndarray | None]:
        with quiet_stderr():
            return self.capture.read()

    def _found_again(self, index: int) -> np.ndarray | None:
        """Open a lost stream again and return its first frame; None where no attempt gave one."""
        pause = FIRST_PAUSE
        for attempt in range(1, self.retries + 1):
            self.report(f"{self.name}: lost after {index} frames; trying again in {pause:g} s ({attempt} of {self.retries})")
            self.capture.release()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            self.capture = _opened(self.video)
            read, image = self._read() if self.capture.isOpened() else (False, None)
            if read:
                self.report(f"{self.name}: is there again")
                return image
        return None


def _opened(video: str | int) -> cv2.VideoCapture:
    with quiet_stderr():
        if isinstance(video, str) and "://" in video and cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends():
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT]
            return cv2.VideoCapture(video, cv2.CAP_FFMPEG, limits)
        return cv2.VideoCapture(video)
