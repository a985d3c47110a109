"""What `--source` can name: a picture, a folder, a glob, a video, a stream or a camera, as one sequence of frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when OpenCV opens its first video; damage is reported by us

import cv2
import numpy as np

from octrim.data.pictures import SUFFIXES, is_picture, read_picture
from octrim.errors import InputError
from octrim.quiet import quiet_stderr

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".asf")


@dataclass(frozen=True)
class Frame:
    """One picture, or one frame of a video. image: uint8 BGR, or None with `error` where it could not be read."""

    source: str
    image: np.ndarray | None
    index: int | None = None  # frame number from 0; None for a picture
    error: str | None = None


@dataclass(frozen=True)
class Source:
    """An opened `--source`, to be read once. pictures: their paths; video: its path, address or camera number, and OpenCV's capture of it."""

    pictures: tuple[Path, ...] = ()
    video: str | int | None = None
    capture: cv2.VideoCapture | None = field(default=None, repr=False)
    frames: int | None = None  # as the container claims; None where unknown
    fps: float = 30.0

    @property
    def total(self) -> int | None:
        return self.frames if self.video is not None else len(self.pictures)

    def __iter__(self) -> Iterator[Frame]:
        if self.capture is not None:
            yield from self._video_frames(self.capture)
        for path in self.pictures:
            try:
                yield Frame(str(path), read_picture(path))
            except InputError as error:
                yield Frame(str(path), None, error=str(error))

    def _video_frames(self, capture: cv2.VideoCapture) -> Iterator[Frame]:
        name = f"camera{self.video}" if isinstance(self.video, int) else str(self.video)
        try:
            index = 0
            while True:
                with quiet_stderr():
                    read, image = capture.read()
                if not read:
                    return
                yield Frame(name, image, index)
                index += 1
        finally:
            capture.release()


def open_source(source: str | Path) -> Source:
    """Find out what `source` names. Raises InputError where there is nothing to read."""
    text = str(source)
    if text.isdecimal() and text.isascii() and not Path(text).exists():
        return _open_video(int(text))
    if "://" in text:
        return _open_video(text)
    path = Path(text)
    if path.is_dir():
        pictures = tuple(sorted(p for p in path.iterdir() if is_picture(p.name) and p.is_file()))
        if not pictures:
            raise InputError(f"{path}: no pictures in this folder (looked for {', '.join(SUFFIXES)})")
        return Source(pictures)
    if path.is_file():
        return _open_video(text) if path.suffix.lower() in VIDEO_SUFFIXES else Source((path,))
    if glob.has_magic(text):
        pictures = tuple(sorted(p for p in map(Path, glob.glob(text, recursive=True)) if is_picture(p.name) and p.is_file()))
        if not pictures:
            raise InputError(f"{text}: no pictures match")
        return Source(pictures)
    raise InputError(f"{text}: no such file or folder")


def _open_video(video: str | int) -> Source:
    if isinstance(video, str) and "://" not in video and Path(video).stat().st_size == 0:
        raise InputError(f"{video}: the file is empty")
    with quiet_stderr():
        capture = cv2.VideoCapture(video)
    if not capture.isOpened():
        raise InputError(f"camera {video}: cannot be opened" if isinstance(video, int) else f"{video}: not a readable video")
    count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return Source((), video, capture, int(count) if 0 < count < 10**9 else None, fps if 0 < fps < 1000 else 30.0)
