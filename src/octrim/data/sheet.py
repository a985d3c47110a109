"""A contact sheet: some labelled pictures of a data set side by side, to see at a glance whether labels and pictures belong together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.pictures import letterbox, read_picture
from octrim.errors import InputError
from octrim.evaluate.detections import COLOURS

WIDTH, HEIGHT, CAPTION = 480, 360, 22  # pixels of a picture on the sheet, and of the line below it


def contact_sheet(dataset: Dataset, seed: int, most: int = 16) -> bytes:
    """JPEG of up to `most` pictures that the seed chooses among those with boxes (among all, where none has any), in rows of four.

    What turns out not to be decodable is added to the data set's report.
    """
    labelled = np.flatnonzero(np.diff(dataset.starts))
    among = labelled if len(labelled) else np.arange(len(dataset))
    chosen = np.sort(np.random.default_rng(seed).permutation(among)[:most]).tolist()
    tiles = [_tile(dataset, index) for index in chosen]
    columns = min(len(tiles), 4)
    blank = np.full_like(tiles[0], 255)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    sheet = np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])
    return cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def _tile(dataset: Dataset, index: int) -> np.ndarray:
    """One picture with its boxes and its name below, uint8 BGR."""
    tile = np.full((HEIGHT + CAPTION, WIDTH, 3), 255, np.uint8)
    name = Path(dataset.paths[index]).name
    try:
        image, fit = letterbox(read_picture(dataset.paths[index]), HEIGHT - 4, WIDTH - 4)
    except InputError as error:
        dataset.report.add("picture whose header is whole cannot be decoded", str(error))
        name += ": cannot be decoded"
    else:
        boxes, labels, crowd = dataset.targets(index)
        placed = boxes * (*fit.scale, *fit.scale) + (fit.left, fit.top, fit.left, fit.top)
        order = np.argsort(-(placed[:, 2:] - placed[:, :2]).prod(1), kind="stable")  # small boxes last, so on top
        for place in order.tolist():
            number = int(labels[place])
            text = dataset.names[number] + " (crowd)" * bool(crowd[place])
            _draw(image, placed[place], text, COLOURS[number % len(COLOURS)])
        tile[2 : HEIGHT - 2, 2 : WIDTH - 2] = image
    cv2.putText(tile, name[-60:], (4, HEIGHT + CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _draw(image: np.ndarray, box_xyxy: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(float(side)) for side in box_xyxy)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)
    top = max(y1 - height - base, 0)
    left = max(min(x1 - 1, image.shape[1] - width), 0)
    cv2.rectangle(image, (left, top), (left + width, top + height + base), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (left, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, 1, cv2.LINE_AA)
