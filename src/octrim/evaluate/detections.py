"""What a detector found in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from octrim.data.marks import COLOURS, drawable


@dataclass(frozen=True)
class Detection:
    """One box: corners in pixels of the picture, confidence 0..1, class number and name."""

    xyxy: tuple[float, float, float, float]
    confidence: float
    class_id: int
    name: str


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of one picture or frame, most confident first.

    xyxy: float32 `[n, 4]`, pixels of the original picture. confidence: float32 `[n]`, 0..1. class_id: int `[n]`.
    names: all class names. source, frame: where the picture came from. height, width: of the original picture.
    speed_ms: milliseconds spent on it in `pre`, `network` and `post`.
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    names: tuple[str, ...]
    source: str
    height: int
    width: int
    frame: int | None = None
    speed_ms: dict[str, float] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[Detection]:
        for box, confidence, label in zip(self.xyxy.tolist(), self.confidence.tolist(), self.class_id.tolist(), strict=True):
            yield Detection(tuple(box), confidence, label, self.names[label])

    def summary(self) -> str:
        """Return how many of what was found, for people: `4 person, 1 bus`."""
        counts = {self.names[label]: int((self.class_id == label).sum()) for label in np.unique(self.class_id).tolist()}
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"

    def to_yolo(self, confidence: bool = False) -> str:
        """Return lines `class cx cy w h`, normalised to the picture, with the confidence behind them where asked."""
        lines = []
        for found in self:
            x1, y1, x2, y2 = found.xyxy
            values = [(x1 + x2) / 2 / self.width, (y1 + y2) / 2 / self.height, (x2 - x1) / self.width, (y2 - y1) / self.height]
            lines.append(" ".join([str(found.class_id), *(f"{value:.6g}" for value in values + [found.confidence] * confidence)]) + "\n")
        return "".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return COCO results (`bbox` is x, y, width, height in pixels), with the source and the class name besides."""
        results = []
        for found in self:
            x1, y1, x2, y2 = (round(side, 2) for side in found.xyxy)
            entry = {"file": self.source, "category_id": found.class_id, "name": found.name, "score": round(found.confidence, 5)}
            entry["bbox"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            results.append(entry if self.frame is None else {**entry, "frame": self.frame})
        return results

    def to_supervision(self) -> Any:
        """Return the boxes as `supervision.Detections` (extra `octrim[supervision]`)."""
        import supervision  # pyright: ignore[reportMissingImports]

        names = np.asarray([self.names[label] for label in self.class_id], dtype=str)
        return supervision.Detections(self.xyxy, confidence=self.confidence, class_id=self.class_id, data={"class_name": names})

    def draw(self, image: np.ndarray, thickness: int | None = None, names: bool = True, confidences: bool = True) -> np.ndarray:
        """Return a copy of the picture (uint8 BGR) with boxes and labels on it.

        thickness: of the lines in pixels, by default what suits the picture's size. names, confidences: what stands beside a box.
        """
        image = image.copy()
        line = thickness or min(max(round((image.shape[0] + image.shape[1]) * 0.0015), 1), 20)
        scale = line / 3
        for found in reversed(list(self)):  # the most confident last, so on top
            x1, y1, x2, y2 = (round(side) for side in found.xyxy)
            colour = COLOURS[found.class_id % len(COLOURS)]
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
            if not names:
                continue
            text = drawable(f"{found.name} {found.confidence:.2f}" if confidences else found.name)
            (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(line - 1, 1))
            top = y1 - height - base if y1 - height - base >= 0 else y1
            left = max(min(x1, image.shape[1] - width), 0)
            cv2.rectangle(image, (left, top), (left + width, top + height + base), colour, cv2.FILLED)
            ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
            cv2.putText(image, text, (left, top + height), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, max(line - 1, 1), cv2.LINE_AA)
        return image
