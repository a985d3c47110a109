"""What `octrim predict` leaves: annotated pictures and videos, labels, results, crops."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from octrim.atomic import write_bytes, write_text
from octrim.data.streams import Frame
from octrim.data.video import Video
from octrim.errors import InputError
from octrim.evaluate.detections import Detections


@dataclass(frozen=True)
class Wanted:
    """What of detections is written, and how they are drawn.

    media: annotated pictures and videos. labels: files in YOLO format, `confidence` for a last column with it. results: predictions.json. crops:
    every box as a picture. line_width: pixels, None for what suits the picture's size. names, confidences: whether they are drawn beside boxes.
    """

    media: bool = True
    labels: bool = False
    confidence: bool = False
    results: bool = False
    crops: bool = False
    line_width: int | None = None
    names: bool = True
    confidences: bool = True


class Output:
    """Everything that detections in pictures and videos leave in a folder.

    together: whether frames of several videos come in turns, so that none of them has ended when the next begins. report: function that takes a line
    for people. count: number of pictures and frames so far. frames: number of frames of each video. objects: number of boxes of each video, by class
    name.
    """

    def __init__(self, wanted: Wanted, folder: Path, together: bool = False, report: Callable[[str], None] = print) -> None:
        self.wanted, self.folder, self.together, self.report = wanted, folder, together, report
        self.count = 0
        self.frames: Counter[str] = Counter()
        self.objects: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.taken: set[tuple[str, str]] = set()
        self.results: list[dict[str, Any]] = []
        self.stems: dict[str, str] = {}
        self.videos: dict[str, Video] = {}

    def write(self, frame: Frame, found: Detections) -> None:
        assert frame.image is not None
        self.count += 1
        if frame.index is not None:
            self.frames[frame.source] += 1
            self.objects[frame.source].update(found.names[label] for label in found.class_id.tolist())
        stem = self.stem(frame)
        if self.wanted.media:
            drawn = found.draw(frame.image, self.wanted.line_width, self.wanted.names, self.wanted.confidences)
            if frame.index is None:
                self.picture(self.folder, stem, Path(frame.source).suffix.lower(), drawn)
            else:
                self.video(frame, stem, drawn).write(drawn)
        name = stem if frame.index is None else self.free("", f"{stem}_{frame.index}")
        if self.wanted.labels:
            folder = self.folder / "labels"
            folder.mkdir(exist_ok=True)
            write_text(folder / f"{name}.txt", found.to_yolo(self.wanted.confidence))
        if self.wanted.results:
            self.results += [{"image_id": name, **entry} for entry in found.to_json()]
        if self.wanted.crops:
            self.crop(frame.image, found, name)

    def video(self, frame: Frame, stem: str, drawn: np.ndarray) -> Video:
        """Return the video that a frame goes into. Videos before it are closed, and then appear under their names."""
        if frame.source not in self.videos:
            if not self.together:
                self.close_videos()
            self.videos[frame.source] = Video(self.folder / f"{stem}.mp4", frame.fps, drawn.shape[1], drawn.shape[0])
        return self.videos[frame.source]

    def stem(self, frame: Frame) -> str:
        """Return the source's name, numbered where pictures or videos of one name come from different folders or formats."""
        place = (
            frame.source.partition("?")[0] if "://" in frame.source else frame.source
        )  # an address may have a query, and a file's name a question mark
        name = Path(place).stem or "video"
        if frame.index is None:
            return self.free("", name)
        if frame.source not in self.stems:
            self.stems[frame.source] = self.free("", name)
        return self.stems[frame.source]

    def free(self, folder: str, stem: str) -> str:
        """Return `stem`, or `stem-2` and so on where that is taken already, and take it."""
        for number in itertools.count(1):
            name = stem if number == 1 else f"{stem}-{number}"
            key = folder.casefold(), name.casefold()  # some file systems do not tell letter case apart
            if key not in self.taken:
                self.taken.add(key)
                return name
        raise AssertionError("unreachable: count() does not end")

    def picture(self, folder: Path, stem: str, suffix: str, image: np.ndarray) -> None:
        # OpenCV cannot write every format that it reads, and writes no file names that it cannot spell: encode, then write bytes.
        suffix = suffix if suffix in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff") else ".jpg"
        data = _encoded(suffix, image)
        if data is None:  # the format's largest side is less than the picture's: 16,383 px in WebP, 65,500 in JPEG
            self.report(
                f"{folder / stem}{suffix}: OpenCV cannot write {image.shape[1]}x{image.shape[0]} pixels in this format; written as {stem}.png"
            )
            suffix, data = ".png", _encoded(".png", image)
        if data is None:
            raise InputError(f"{folder / stem}{suffix}: OpenCV cannot encode this picture")
        write_bytes(folder / f"{stem}{suffix}", data)

    def crop(self, image: np.ndarray, found: Detections, name: str) -> None:
        for box in found:
            x1, y1, x2, y2 = (round(side) for side in box.xyxy)
            part = image[max(y1, 0) : y2, max(x1, 0) : x2]
            if part.size:
                # A class name is data, not a path.
                label = "".join(c if c.isalnum() or c in " -_." else "_" for c in box.name).strip(". ") or "class"
                folder = self.folder / "crops" / label
                folder.mkdir(parents=True, exist_ok=True)
                self.picture(folder, self.free(label, name), ".jpg", part)

    def close(self) -> None:
        """Finish the videos and write what was kept until now. Raises OSError where a video does not hold all its frames."""
        try:
            self.close_videos()
        finally:
            if self.wanted.results:
                write_text(self.folder / "predictions.json", json.dumps(self.results, indent=1, ensure_ascii=False))

    def close_videos(self) -> None:
        while self.videos:
            self.videos.popitem()[1].close()


def _encoded(suffix: str, image: np.ndarray) -> bytes | None:
    """The picture in the format of a suffix; None where OpenCV cannot write it."""
    try:
        encoded, data = cv2.imencode(suffix, image)
    except cv2.error:
        return None
    return data.tobytes() if encoded else None
