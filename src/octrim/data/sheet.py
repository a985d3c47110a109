"""Draws contact sheets: labelled pictures of a data set side by side, to see at a glance whether labels and pictures belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.marks import COLOURS, drawable
from octrim.data.pictures import letterbox, read_picture
from octrim.errors import InputError

WIDTH, HEIGHT, CAPTION = 480, 360, 22  # pixels of a picture on the sheet, and of the line below it
MARGIN = 2  # white pixels around a picture
_MOST = 16  # pictures on a contact sheet


def contact_sheet(dataset: Dataset, seed: int) -> bytes:
    """Return a JPEG of up to 16 pictures that the seed chooses among those with boxes (among all, where none has any), in rows of four.

    Pictures that cannot be decoded are added to the data set's report.
    """
    labelled = np.flatnonzero(np.diff(dataset.starts))
    among = labelled if len(labelled) else np.arange(len(dataset))
    chosen = np.sort(np.random.default_rng(seed).permutation(among)[:_MOST]).tolist()
    return to_jpeg(in_rows([_tile(dataset, index) for index in chosen], 4))


def in_rows(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Join tiles of one size, uint8 BGR, into one picture, row after row; white where the last row ends early."""
    columns = min(len(tiles), columns)
    blank = np.full_like(tiles[0], 255)
    rows = [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])


def to_jpeg(sheet: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()


def labelled_tile(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    caption: str = "",
    height: int = HEIGHT,
    width: int = WIDTH,
) -> np.ndarray:
    """Return a picture (uint8 BGR) fitted into height x width, with its boxes and a caption below: uint8 `[height + CAPTION, width, 3]`.

    boxes_xyxy: `[n, 4]`, in pixels of `image`. labels: `[n]`, class numbers, which choose the colours. texts: one per box. Without a caption the
    tile is `height` high.
    """
    tile = blank_tile(caption, height, width)
    # The picture is copied where letterboxing has handed back the caller's own.
    inner, fit = letterbox(image, height - 2 * MARGIN, width - 2 * MARGIN)
    inner = inner.copy() if inner is image else inner
    placed = boxes_xyxy * (*fit.scale, *fit.scale) + (fit.left, fit.top, fit.left, fit.top)
    order = np.argsort(-(placed[:, 2:] - placed[:, :2]).prod(1), kind="stable")  # small boxes are drawn last, on top
    for place in map(int, order):
        _draw(inner, placed[place], texts[place], COLOURS[int(labels[place]) % len(COLOURS)])
    tile[MARGIN : height - MARGIN, MARGIN : width - MARGIN] = inner
    return tile


def blank_tile(caption: str = "", height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a white tile with nothing but its caption."""
    tile = np.full((height + CAPTION * bool(caption), width, 3), 255, np.uint8)
    cv2.putText(tile, drawable(caption)[-60:], (4, height + CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _tile(dataset: Dataset, index: int) -> np.ndarray:
    """Return the tile of a picture with its boxes and its name below, uint8 BGR; a blank tile where the picture cannot be decoded."""
    name = Path(dataset.paths[index]).name
    try:
        image = read_picture(dataset.paths[index])
    except InputError as error:
        dataset.report.add("picture whose header is whole cannot be decoded", str(error))
        return blank_tile(f"{name}: cannot be decoded")
    boxes, labels, crowd = dataset.targets(index)
    texts = [dataset.names[label] + " (crowd)" * is_crowd for label, is_crowd in zip(labels.tolist(), crowd.tolist(), strict=True)]
    return labelled_tile(image, boxes, labels, texts, name)


def _draw(image: np.ndarray, box_xyxy: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    text = drawable(text)
    x1, y1, x2, y2 = (round(float(side)) for side in box_xyxy)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2, cv2.LINE_AA)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)
    top = max(y1 - height - base, 0)
    left = max(min(x1 - 1, image.shape[1] - width), 0)
    cv2.rectangle(image, (left, top), (left + width, top + height + base), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (left, top + height + 1), cv2.FONT_HERSHEY_SIMPLEX, 0.38, ink, 1, cv2.LINE_AA)
