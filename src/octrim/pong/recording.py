"""Recording of a game as a video: 60 frames for every second of the game, however fast or slowly it was shown."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from octrim.data.video import Video
from octrim.errors import InputError

FPS = 60


class Recording:
    """An MP4 of one or more games, which appears under its name when it is closed.

    path: a name that ends in .mp4, in a folder that exists; a file of this name is replaced. width, height: size of the frames in pixels.
    Raises InputError for another name, a missing folder, and where OpenCV cannot write.
    """

    def __init__(self, path: str | Path, width: int, height: int) -> None:
        path = Path(path)
        if path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: recordings are MP4; expected a name that ends in .mp4")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        if path.is_dir():
            raise InputError(f"{path}: is a folder")
        self.frames = 0
        self.video = Video(path, FPS, width, height)

    def add(self, image: np.ndarray, time: float) -> None:
        """Add the frame to be seen at `time`, in seconds from the start of the recording. image: uint8 RGB `[height, width, 3]`.

        The frame is written as often as the video needs to reach `time`: not at all if it has (while the game is paused), several times if the
        display could not keep up.
        """
        while self.frames <= time * FPS + 1e-6:
            self.video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self.frames += 1

    def close(self) -> None:
        self.video.close()
