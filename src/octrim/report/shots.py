"""Pictures of the validation split with the labels' boxes and those of each network, drawn as vectors over one copy of the picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from octrim.data.dataset import Dataset
from octrim.data.open import open_labelled
from octrim.data.pictures import read_picture
from octrim.detector import Detector
from octrim.errors import InputError, counted
from octrim.evaluate.classes import map_classes
from octrim.evaluate.matching import box_iou

PICTURES = 8
SIDE = 640  # pixels of the longer side in the report
_QUALITY = 80
_COLOURS = 7  # number of colours, which classes take in turn


@dataclass(frozen=True)
class Drawing:
    """One drawing of a picture with boxes. title: whose boxes they are. note: how many objects there are, or were found."""

    title: str
    drawing: Markup
    note: str


@dataclass(frozen=True)
class Shot:
    """A picture, by the name of its file, and its drawings: one with the labels, then one per network."""

    name: str
    views: tuple[Drawing, ...]


@dataclass(frozen=True)
class Shots:
    """Pictures with boxes. classes: name and colour number of the classes that appear. missing: why there are no pictures, or None."""

    pictures: tuple[Shot, ...]
    classes: tuple[tuple[str, int], ...]
    missing: str | None = None


def take_shots(
    networks: Mapping[str, str | Path], data: str, split: str, options: Mapping[str, Any] | None = None, reading: Mapping[str, Any] | None = None
) -> Shots:
    """Run networks on some pictures of a split, spread evenly over those with labels.

    networks: weights by title. options: further arguments of `Detector`. reading: further arguments of `open_labelled`. Where the data set or a
    network is gone, or none of the pictures can be read, the result's `missing` says so.
    """
    try:
        detectors = {title: Detector(weights, **(options or {})) for title, weights in networks.items()}
        names = next(iter(detectors.values())).info.names
        dataset = open_labelled(data, split, names, **(reading or {}))
        mapping = {title: map_classes(detector.info.names, dataset.names)[0] for title, detector in detectors.items()}
    except InputError as error:
        return Shots((), (), str(error))
    labelled = np.flatnonzero(np.diff(dataset.starts)).tolist()
    shots: list[Shot] = []
    seen: set[int] = set()
    for index in _spread(len(labelled), PICTURES):
        try:
            image = read_picture(dataset.paths[labelled[index]])
        except InputError:  # the evaluation has told of this file
            continue
        found = {title: _detected(detector, image, mapping[title]) for title, detector in detectors.items()}
        _, labels, _ = dataset.targets(labelled[index])
        shots.append(_shot(len(shots), dataset, labelled[index], image, found))
        seen |= {*labels.tolist(), *(int(label) for boxes in found.values() for label in boxes[:, 5])}
    if not shots:
        return Shots((), (), f"{data}: none of the pictures in {split} can be read")
    return Shots(tuple(shots), tuple((dataset.names[label], label % _COLOURS) for label in sorted(seen)))


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _detected(detector: Detector, image: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """Detections in a picture: float `[n, 6]` as in `Evaluation.detections`, with class numbers of the data set.

    mapping: int `[classes]`, class of the data set for each class of the network, negative for none.
    """
    found = detector.detect(image)
    labels = mapping[found.class_id]
    return np.column_stack([found.xyxy, found.confidence, labels])[labels >= 0]


def matched(found: np.ndarray, boxes_xyxy: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match detections with objects at IoU .5: which detections are right, which are ignored, and which objects are found, all bool.

    found: `[n, 6]`, xyxy, confidence and class. boxes_xyxy: `[m, 4]`. labels: `[m]`. crowd: bool `[m]`. The rule is COCO's: the most confident
    detection comes first, each takes the free object of its class that it overlaps most (of equals the last), and one that takes none is
    ignored if it lies in a crowd region of its class.
    """
    right, ignored, hit = np.zeros(len(found), bool), np.zeros(len(found), bool), np.zeros(len(boxes_xyxy), bool)
    iou = box_iou(found[:, :4], boxes_xyxy, crowd)
    for place in np.argsort(-found[:, 4], kind="stable").tolist():
        own = labels == found[place, 5]
        free = np.where(own & ~crowd & ~hit & (iou[place] >= 0.5), iou[place], -1)
        if free.size and free.max() >= 0:
            hit[len(free) - 1 - free[::-1].argmax()] = right[place] = True
        else:
            ignored[place] = bool((own & crowd & (iou[place] >= 0.5)).any())
    return right, ignored, hit


def _shot(number: int, dataset: Dataset, index: int, image: np.ndarray, found: Mapping[str, np.ndarray]) -> Shot:
    boxes, labels, crowd = dataset.targets(index)
    objects = int((~crowd).sum())
    scale = min(SIDE / max(image.shape[:2]), 1)
    width, height = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    fitted = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", fitted, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    picture = Markup('<image id="shot{}" width="{}" height="{}" href="data:image/jpeg;base64,{}"/>').format(
        number, width, height, base64.b64encode(jpeg).decode("ascii")
    )
    texts = [dataset.names[label] + " (crowd)" * is_crowd for label, is_crowd in zip(labels.tolist(), crowd.tolist(), strict=True)]
    views = [Drawing("labels", _drawing(picture, width, height, boxes * scale, labels, texts, ["right"] * len(boxes)), counted(objects, "object"))]
    for title, rows in found.items():
        right, ignored, hit = matched(rows, boxes, labels, crowd)
        missed = ~hit & ~crowd
        kinds = ["right" if good or neither else "wrong" for good, neither in zip(right.tolist(), ignored.tolist(), strict=True)]
        texts = [f"{dataset.names[int(label)]} {score:.2f}" for score, label in rows[:, 4:6].tolist()]
        texts = [f"{text}, no such label" if kind == "wrong" else text for text, kind in zip(texts, kinds, strict=True)]
        every = np.concatenate([boxes[missed], rows[:, :4]]) * scale
        drawing = _drawing(
            Markup('<use href="#shot{}"/>').format(number),
            width,
            height,
            every,
            np.concatenate([labels[missed], rows[:, 5]]),
            [f"{dataset.names[label]}, missed" for label in labels[missed].tolist()] + texts,
            ["missed"] * int(missed.sum()) + kinds,
        )
        note = f"{int(right.sum())} of {objects} found"
        if "wrong" in kinds:
            note += f", {kinds.count('wrong')} without a label"
        views.append(Drawing(title, drawing, note))
    return Shot(Path(dataset.paths[index]).name, tuple(views))


def _drawing(
    picture: Markup, width: int, height: int, boxes_xyxy: np.ndarray, labels: np.ndarray, texts: Sequence[str], kinds: Sequence[str]
) -> Markup:
    """A drawing of a picture and its boxes, large ones first, so that the pointer can reach small ones. kinds: right, wrong or missed, per box."""
    rects = []
    for place in np.argsort(-(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1), kind="stable").tolist():
        x1, y1, x2, y2 = boxes_xyxy[place].tolist()
        place_and_size = Markup('x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"').format(x1, y1, max(x2 - x1, 0), max(y2 - y1, 0))
        mark = '<g class="box {} c{}"><title>{}</title><rect class="halo" {}/><rect {}/></g>'
        rects.append(Markup(mark).format(kinds[place], int(labels[place]) % _COLOURS, texts[place], place_and_size, place_and_size))
    return Markup('<svg class="shot" viewBox="0 0 {} {}" role="img">{}{}</svg>').format(width, height, picture, Markup("").join(rects))
