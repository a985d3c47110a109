"""`Detector`, the class that detects objects in pictures with given weights.

detector = octrim.Detector("yolov5n.pt")
for detections in detector.predict("pictures/"):
    print(detections.source, detections.summary())
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, ClassVar

import numpy as np

from octrim.data.from_python import Picture, bgr_picture, is_pillow
from octrim.data.pictures import network_input
from octrim.data.sources import Frame, open_source
from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.evaluate.nms import non_max_suppression
from octrim.network.model import Model
from octrim.network.options import image_size
from octrim.options import Conf, ImageSize, Iou, Range, from_python
from octrim.targets.opening import open_session


@dataclass(frozen=True)
class _Wishes:
    """What the arguments of `Detector` may hold, besides those of `open_session`."""

    command: ClassVar[str] = "Detector"

    imgsz: ImageSize = None
    conf: Conf = 0.25
    iou: Iou = 0.45
    classes: tuple[int | str, ...] | None = None
    agnostic: bool = False
    max_det: Annotated[int, Range(1)] = 300
    score_voting: bool = False


class Detector:
    """A network in a runtime, with letterboxing before and suppression behind it. It may be used by several threads at once, see `Session`.

    weights, runtime, precision, threads, device: as for `open_session`. imgsz: side in pixels, or (height, width), by default what the network was
    made for; rounded up to the stride. conf, iou, classes, agnostic, max_det, score_voting: as for `non_max_suppression`; classes may be given
    by name, too, and one class by itself. Raises InputError for values that an argument cannot have.
    """

    def __init__(
        self,
        weights: str | Path | Model,
        imgsz: int | Sequence[int] | None = None,
        conf: float = 0.25,
        iou: float = 0.45,
        classes: int | str | Collection[int | str] | None = None,
        agnostic: bool = False,
        max_det: int = 300,
        runtime: str | None = None,
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "auto",
        score_voting: bool = False,
    ) -> None:
        given = {"imgsz": imgsz, "conf": conf, "iou": iou, "classes": classes, "agnostic": agnostic, "max_det": max_det, "score_voting": score_voting}
        asked = from_python(_Wishes, given)
        imgsz = asked.imgsz
        self.session = open_session(weights, runtime, precision, threads, device)
        self.info = self.session.info
        numbers = None if asked.classes is None else [_class_number(label, self.info.names) for label in asked.classes]
        self.height, self.width = self.info.size or image_size(imgsz, self.info.image_size, self.info.stride)
        self.rectangular = self.info.size is None
        if imgsz is not None and (self.height, self.width) != image_size(imgsz, self.info.image_size, self.info.stride):
            name = "the model" if isinstance(weights, Model) else weights
            raise InputError(f"{name}: was built for {self.height}x{self.width} pixels; imgsz cannot change that")
        self.options: dict[str, Any] = {
            "conf": asked.conf,
            "iou": asked.iou,
            "classes": numbers,
            "agnostic": asked.agnostic,
            "max_det": asked.max_det,
            "score_voting": asked.score_voting,
        }

    def predict(self, source: Picture | Sequence[Picture]) -> list[Detections]:
        """Detections of every picture or frame of `source`, in order.

        source: a picture (a path, an array as OpenCV reads it, or a Pillow picture), a sequence of them, or anything that `octrim predict --source`
        takes: a folder, glob, video, list, stream address or camera number. Raises InputError for a source that cannot be read.
        """
        return list(self.stream(source))

    def stream(self, source: Picture | Sequence[Picture]) -> Iterator[Detections]:
        """Detections of every picture or frame of `source`, one at a time: for long videos and cameras. See `predict`."""
        for frame in _frames(source):
            if frame.image is None:
                raise InputError(frame.error or f"{frame.source}: cannot be read")
            yield self.detect(frame.image, frame.source, frame.index)

    def detect(self, image: np.ndarray, source: str = "array", frame: int | None = None) -> Detections:
        """Detections in one picture: uint8 BGR `[height, width, 3]`, grey `[height, width]` or `[height, width, 1]`, or a picture of Pillow's."""
        image = bgr_picture(image)
        start = perf_counter()
        batch, box = self.prepare(image)
        prepared = perf_counter() - start
        self.session.prepare(*batch.shape[:3])  # not timed, because only the first picture of a shape needs it
        start = perf_counter()
        predictions = self.session(batch)
        run = perf_counter()
        found = non_max_suppression(predictions[0], **self.options)
        height, width = image.shape[:2]
        xyxy = box.to_picture(found[:, :4], height, width)
        speed = {"pre": prepared, "network": run - start, "post": perf_counter() - run}
        milliseconds = {stage: 1000 * seconds for stage, seconds in speed.items()}
        return Detections(xyxy, found[:, 4], found[:, 5].astype(int), self.info.names, source, height, width, frame, milliseconds)

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, Any]:
        """A picture as the session's batch of one, and the letterbox that leads back. Raises InputError for an array that is no picture."""
        image = bgr_picture(image)
        fitted, box = network_input(image, self.height, self.width, self.info.stride if self.rectangular else None)
        return fitted[None], box


def _class_number(label: int | str, names: Sequence[str]) -> int:
    """The number of a class that is given by name or number. Raises InputError for a class that the network does not have."""
    if isinstance(label, str):
        same = [number for number, name in enumerate(names) if name == label]
        same = same or [number for number, name in enumerate(names) if name.casefold() == label.casefold()]
        if len(same) == 1:
            return same[0]
        if not label.isdecimal() or same:
            known = f"it has {', '.join(names[:20])}{', ..' if len(names) > 20 else ''}"
            raise InputError(f"class {label!r} was asked for; this network has {'several' if same else 'none'} of that name; {known}")
        label = int(label)
    if not 0 <= label < len(names):
        raise InputError(f"class {label} was asked for; this network has classes 0 to {len(names) - 1}")
    return int(label)


def _frames(source: Picture | Sequence[Picture]) -> Iterator[Frame]:
    if isinstance(source, np.ndarray) or is_pillow(source):
        yield Frame(str(getattr(source, "filename", "") or ("array" if isinstance(source, np.ndarray) else "picture")), bgr_picture(source))
    elif isinstance(source, str | Path):
        yield from open_source(source)
    elif not isinstance(source, Iterable):
        raise InputError(f"a source is a path, an array, a picture of Pillow's, or several of them; found {type(source).__name__}")
    else:
        for item in source:
            yield from _frames(item)
