"""Comparison of two sessions on the same pictures: by outputs, boxes and mAP, with limits on each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from octrim.errors import InputError
from octrim.evaluate.matching import box_iou
from octrim.evaluate.nms import non_max_suppression
from octrim.targets.session import Session

CONF, IOU = 0.25, 0.45
"""Thresholds at which boxes are compared: those of `octrim predict`."""

PARTS = {"centre, px": slice(0, 2), "size, px": slice(2, 4), "objectness": slice(4, 5), "class scores": slice(5, None)}


@dataclass(frozen=True)
class Limits:
    """Limits on the difference between two sessions.

    score: largest difference of a score. pixel, relative: largest difference of a box coordinate is `pixel` pixels plus `relative` times the
    coordinate. Instead of these, int8 has `energy`: the root of the summed squares of score differences over that of the scores.
    margin: boxes of one session above the confidence threshold plus `margin` are looked for among those of the other above the threshold minus
    `margin`. agreement: least share of boxes that both find. map: largest fall of mAP50-95.
    """

    margin: float
    agreement: float
    map: float
    score: float | None = None
    pixel: float = 0.0
    relative: float = 0.0
    energy: float | None = None


# float16 keeps 11 bits, so its logits move in the third digit. In int8 a value next to a rounding border may be rounded differently by another
# program, and later layers carry the difference on: single scores move by .2 to .9 though both programs are right, so the largest difference tells
# nothing. `energy`, measured with yolov5n and random networks, is .04 to .12 between ONNX Runtime and OpenVINO in int8, .12 to .29 between int8 and
# float32, and was 1.0 where OpenVINO computed convolutions wrongly. Only mAP tells whether int8 is accurate enough (`--data`).
_LIMITS = {
    "fp32": Limits(margin=0.01, agreement=0.98, map=0.002, score=1e-3, pixel=0.05, relative=1e-4),
    "fp16": Limits(margin=0.05, agreement=0.95, map=0.01, score=5e-2, pixel=1.0, relative=3e-2),
    "int8": Limits(margin=0.1, agreement=0.9, map=0.03, energy=0.25),
}
_INT8_AND_FLOAT = Limits(margin=0.15, agreement=0.7, map=0.1, energy=0.5)


def limits_of(precision: str, reference: str) -> Limits:
    """Limits on differences that rounding explains. precision, reference: precisions of the judged session and of the reference, "fp32", "fp16" or
    "int8"."""
    return _INT8_AND_FLOAT if precision == "int8" and reference != "int8" else _LIMITS[precision]


@dataclass
class Comparison:
    """Differences over all boxes of the pictures compared.

    score_error: largest difference of objectness and class scores. box_error: largest difference of coordinates, in pixels. energy: as in `Limits`.
    parts: (largest, mean) difference for each of PARTS. boxes: number of boxes that either side is sure to show; matched: number of them that the
    other side has, too, with the same class and an IoU of .5 or more. iou: mean IoU of the matched boxes.
    """

    pictures: int = 0
    score_error: float = 0.0
    box_error: float = 0.0
    energy: float = 0.0
    excess: float = 0.0  # largest coordinate difference minus the one that the limits allow; too much where positive
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)
    boxes: int = 0
    matched: int = 0
    iou: float = 1.0

    @property
    def agreement(self) -> float:
        return self.matched / self.boxes if self.boxes else 1.0

    def table(self) -> Table:
        table = Table()
        for name in ("output0", "largest difference", "mean"):
            table.add_column(name, justify="left" if name == "output0" else "right")
        for name, (largest, mean) in self.parts.items():
            table.add_row(name, f"{largest:.3g}", f"{mean:.3g}")
        return table


def compare(reference: Session, session: Session, images: np.ndarray, batch: int, limits: Limits) -> Comparison:
    """Run both sessions on `images`, uint8 RGB `[n, height, width, 3]`, in batches of `batch`, and measure the differences of their outputs.

    Raises InputError for outputs of different shapes, and for values that are not finite.
    """
    found = Comparison(pictures=len(images))
    sums, counts, ious = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0), []
    largest = dict.fromkeys(PARTS, 0.0)
    squares = [0.0, 0.0]
    for expected, given in _outputs(reference, session, images, batch):
        difference = np.abs(expected - given)
        for name, part in PARTS.items():
            values = difference[..., part]
            largest[name] = float(np.maximum(largest[name], values.max()))
            sums[name], counts[name] = sums[name] + float(values.sum(dtype=np.float64)), counts[name] + values.size
        allowed = limits.pixel + limits.relative * np.abs(expected[..., :4])
        found.excess = float(np.maximum(found.excess, (difference[..., :4] - allowed).max()))
        squares[0] += float(np.square(difference[..., 4:], dtype=np.float64).sum())
        squares[1] += float(np.square(expected[..., 4:], dtype=np.float64).sum())
        for one, other in zip(expected, given, strict=True):
            matched = [*_matched(one, other, limits.margin), *_matched(other, one, limits.margin)]
            found.boxes += len(matched)
            ious += [iou for iou in matched if iou >= 0.5]
    found.parts = {name: (largest[name], sums[name] / counts[name]) for name in PARTS}
    found.score_error = float(np.maximum(largest["objectness"], largest["class scores"]))
    found.box_error = float(np.maximum(largest["centre, px"], largest["size, px"]))
    found.energy = float(np.sqrt(squares[0] / max(squares[1], 1e-12)))
    found.matched, found.iou = len(ious), float(np.mean(ious)) if ious else 1.0
    return found


def judge(found: Comparison, limits: Limits, reference: str, boxes: bool = False) -> None:
    """Raise InputError where the difference exceeds the limits. reference: name of the reference. boxes: whether detected boxes must agree, too."""
    # The conditions are written so that NaN, for which every comparison is false, is refused.
    if limits.score is not None and not (found.score_error <= limits.score and found.excess <= 0):
        raise InputError(
            f"the deployable differs from {reference} by {found.score_error:.2g} in scores and {found.box_error:.2g} px in boxes; "
            f"allowed are {limits.score:g}, and {limits.pixel:g} px plus {limits.relative:g} of the coordinate; nothing was written"
        )
    if limits.energy is not None and not found.energy <= limits.energy:
        raise InputError(
            f"the deployable differs from {reference} by {found.energy:.2g} of the scores' magnitude; allowed are {limits.energy:g}; "
            f"nothing was written. Other scales may help: octrim quantize --method or --skip"
        )
    if boxes and found.agreement < limits.agreement:
        raise InputError(
            f"the deployable and {reference} agree on {found.matched} of {found.boxes} boxes ({found.agreement:.3f}); "
            f"expected at least {limits.agreement:g}; nothing was written"
        )


def _outputs(reference: Session, session: Session, images: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(images), batch):
        part = np.take(images, range(start, start + batch), axis=0, mode="wrap")  # the last batch is filled up with the first pictures
        expected, given = reference(part), session(part)
        if expected.shape != given.shape:
            where = reference.info.runtime
            raise InputError(f"the deployable gives {list(given.shape)} values where {where} gives {list(expected.shape)}; nothing was written")
        # Values that are not finite would make every later comparison meaningless.
        for which, values in ((reference, expected), (session, given)):
            if not np.isfinite(values).all():
                name = "the deployable" if which is session else which.info.runtime
                raise InputError(f"{name} gives values that are not finite: are the network's weights sound? nothing was written")
        kept = min(batch, len(images) - start)
        yield expected[:kept], given[:kept]


def _matched(one: np.ndarray, other: np.ndarray, margin: float) -> list[float]:
    """Best IoU of every box that `one` is sure to show with the boxes of the same class that `other` may show.

    Boxes are compared before suppression: where many boxes overlap alike, the last digit decides which of them stays.
    """
    boxes = non_max_suppression(one, CONF + margin, IOU)
    boxes = boxes[(boxes[:, 2:4] - boxes[:, :2]).min(1, initial=np.inf) >= 1]  # IoU is meaningless for a box without area
    ious = np.zeros(len(boxes))
    for label in np.unique(boxes[:, 5]).astype(int).tolist():
        candidates = other[other[:, 4] * other[:, 5 + label] > max(CONF - margin, 0.01), :4]
        corners = np.hstack([candidates[:, :2] - candidates[:, 2:] / 2, candidates[:, :2] + candidates[:, 2:] / 2])
        own = boxes[:, 5] == label
        ious[own] = box_iou(boxes[own, :4], corners).max(1, initial=0.0)
    return ious.tolist()
