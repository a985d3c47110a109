"""AutoAnchor: checks whether the anchors fit the labels, and finds better anchors where they do not.

Training gives a label to an anchor only when no side of one is `threshold` times the other's (FACTS: `anchor_t`, 4). A label that fits no
anchor is never learned, so the share of labels that fit one, the best possible recall, bounds what the detector can find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from octrim.data.dataset import Dataset
from octrim.errors import InputError
from octrim.network.yolov5 import Anchors

ENOUGH = 0.98  # best possible recall above which the given anchors are kept
SMALLEST = 2.0  # least side of a label or an anchor in pixels: augmentation drops smaller labels (FACTS)
_MOST_LABELS = 50_000  # largest number of labels that anchors are fitted to
_STARTS, _ROUNDS = 5, 30  # number of k-means runs from different starts, and most rounds of each run
_SHARE_MUTATED = 0.9  # share of the values that a generation changes (FACTS)
_SIGMA, _LAST_SIGMA = 0.1, 0.003  # step sizes in the first generation (FACTS) and in the last: a constant one soon finds nothing better


@dataclass(frozen=True)
class AnchorReport:
    """Result of the check of the anchors, and the anchors to train with.

    anchors: the new anchors if `changed`, else the given ones. recall_before, recall_after: best possible recall, 0..1, of the given
    anchors and of `anchors`. per_label_before, per_label_after: how many anchors a label fits, on average. All four are nan without labels.
    reason: `good` (nothing to improve), `few` (fewer labels than anchors), `no better` (than the given ones), or `fitted`. labels: number
    of labels that were looked at. side: the pictures' longer side in pixels.
    """

    anchors: Anchors
    changed: bool
    reason: Literal["good", "few", "no better", "fitted"]
    recall_before: float
    recall_after: float
    per_label_before: float
    per_label_after: float
    labels: int
    side: int
    threshold: float

    def lines(self) -> list[str]:
        """Lines for people: the result of the check and, where the anchors change, the new anchors."""
        if self.reason == "few":
            count = sum(len(level) for level in self.anchors)
            return [f"anchors stay: {self.labels:,} labels of {SMALLEST:g} pixels and more are too few to fit {count} anchors to"]
        found = (
            f"{_percent(self.recall_before)} of {self.labels:,} labels fit an anchor within a factor of {self.threshold:g}, "
            f"{self.per_label_before:.2f} anchors per label (pictures of {self.side} pixels)"
        )
        if not self.changed:
            why = "; fitting found none that fit more" if self.reason == "no better" else ""
            return [f"anchors stay: {found}{why}"]
        return [
            f"anchors before: {found}",
            f"anchors fitted to the labels: {_percent(self.recall_after)} fit, {self.per_label_after:.2f} anchors per label",
            *(f"  {' '.join(f'{width:g},{height:g}' for width, height in level)}" for level in self.anchors),
        ]


def auto_anchors(
    dataset: Dataset, side: int, anchors: Anchors, strides: tuple[int, ...], threshold: float = 4.0, seed: int = 0, provisional: bool = False
) -> AnchorReport:
    """Check the anchors against a data set's labels, and fit new ones where they hold too few of them.

    side: the pictures' longer side in training, in pixels. strides: stride of every level, in any order; the smallest new anchors go to the smallest.
    threshold: `anchor_t`, above 1. The check is on sizes jittered by U(.9, 1.1) per picture. The given anchors stay when more than 98 % of
    the labels fit one, when there are fewer labels of 2 pixels and more than anchors, and when the new ones would not hold more labels.
    provisional: the given anchors are made up, because the layout has only their number; they stay only where there are too few labels.
    Crowd regions are left out. The same arguments give the same report.
    Raises InputError where strides do not belong to the levels, or levels have different numbers of anchors.
    """
    if len(strides) != len(anchors) or len({len(level) for level in anchors}) != 1 or not anchors[0]:
        counts = [len(level) for level in anchors]
        raise InputError(f"anchors: {len(strides)} strides need as many non-empty, equally long lists of anchors, found lists of {counts}")
    if not threshold > 1:
        raise InputError(f"anchors: the threshold is {threshold:g}, expected more than 1")
    rng = np.random.default_rng(seed)
    sizes, picture = label_sizes(dataset, side)
    jittered = sizes * rng.uniform(0.9, 1.1, (len(dataset), 1))[picture]
    old = np.asarray(anchors, np.float64).reshape(-1, 2)
    recall, per_label = best_possible_recall(jittered, old, threshold)

    def report(reason: Literal["good", "few", "no better", "fitted"], kept: Anchors, recall_after: float, per_label_after: float) -> AnchorReport:
        count = len(large) if reason == "few" else len(sizes)
        return AnchorReport(kept, reason == "fitted", reason, recall, recall_after, per_label, per_label_after, count, side, threshold)

    large = sizes[(sizes >= SMALLEST).all(1)]
    if recall > ENOUGH and not provisional:
        return report("good", anchors, recall, per_label)
    if len(large) < len(old):
        return report("few", anchors, recall, per_label)
    new = fit_anchors(large, len(old), threshold, seed=seed).round(2)  # two decimals keep the printed anchors readable
    new_recall, new_per_label = best_possible_recall(jittered, new, threshold)
    if not new_recall > recall and not provisional:
        return report("no better", anchors, recall, per_label)
    levels = new.reshape(len(anchors), -1, 2)[np.argsort(np.argsort(strides, kind="stable"))]
    return report("fitted", tuple(tuple((w, h) for w, h in level) for level in levels.tolist()), new_recall, new_per_label)


def label_sizes(dataset: Dataset, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights of the boxes, float64 `[boxes, 2]`, in pixels where the picture's longer side is `side`, and each box's picture.

    Crowd regions are left out.
    """
    one = ~dataset.crowd
    picture = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))[one]
    boxes = dataset.boxes[one].astype(np.float64)
    longer = dataset.sizes.max(1, initial=1).astype(np.float64)
    return (boxes[:, 2:] - boxes[:, :2]) * (side / longer[picture])[:, None], picture


def best_possible_recall(sizes_wh: np.ndarray, anchors_wh: np.ndarray, threshold: float = 4.0) -> tuple[float, float]:
    """Share of the sizes `[n, 2]` that fit an anchor `[k, 2]`, and how many anchors a size fits on average; both are nan without sizes.

    A size fits where max(w / wa, wa / w, h / ha, ha / h) < threshold; one without extent fits nothing.
    """
    if not len(sizes_wh):
        return float("nan"), float("nan")
    counts = np.zeros(len(sizes_wh), np.int64)
    with np.errstate(divide="ignore"):
        for anchor in np.asarray(anchors_wh, np.float64):
            ratios = sizes_wh / anchor
            counts += np.maximum(ratios, 1 / ratios).max(1) < threshold
    return float((counts > 0).mean()), float(counts.mean())


def fitness(sizes_wh: np.ndarray, anchors_wh: np.ndarray, threshold: float = 4.0) -> float:
    """Mean over the sizes `[n, 2]` of the best anchor's ratio min(w / wa, wa / w, h / ha, ha / h), 0..1; ratios up to 1 / threshold count as 0."""
    return _Fitness(np.log(sizes_wh), threshold)(np.log(anchors_wh))


def fit_anchors(sizes_wh: np.ndarray, count: int, threshold: float = 4.0, generations: int = 1000, seed: int = 0) -> np.ndarray:
    """`count` anchors for label sizes `[n, 2]` in pixels: float64 `[count, 2]`, by area, the smallest first, no side below 2 pixels.

    k-means runs on at most 50,000 of the sizes that have 2 pixels and more; then `generations` mutations follow, of which those stay that raise
    the fitness. k-means takes the logarithms, where distances are ratios, as in the fitness; on pixels it starts lower and the mutations do not
    catch up (fitness on COCO128 at 640: .70 against .67, the published anchors .69). The same arguments give the same anchors.
    Raises InputError where fewer than `count` such sizes are given.
    """
    sizes = np.asarray(sizes_wh, np.float64)
    sizes = sizes[(sizes >= SMALLEST).all(1)]
    if len(sizes) < count:
        raise InputError(f"anchors: {count} cannot be fitted to {len(sizes)} labels of {SMALLEST:g} pixels and more")
    rng = np.random.default_rng(seed)
    if len(sizes) > _MOST_LABELS:
        sizes = sizes[np.sort(rng.choice(len(sizes), _MOST_LABELS, replace=False))]
    best = k_means(np.log(sizes), count, rng)
    measure = _Fitness(np.log(sizes), threshold)
    reached = measure(best)
    for sigma in np.geomspace(_SIGMA, _LAST_SIGMA, generations):
        steps = rng.normal(0, sigma, best.shape) * (rng.random(best.shape) < _SHARE_MUTATED)
        candidate = np.maximum(best + steps, np.log(SMALLEST))
        value = measure(candidate)
        if value > reached:
            best, reached = candidate, value
    found = np.exp(best)
    return found[np.argsort(found.prod(1), kind="stable")]


class _Fitness:
    """Function that computes `fitness` for many anchor sets on the same sizes.

    In logarithms a size's worse ratio is a distance, max(|log w - log wa|, |log h - log ha|), so that a generation is subtractions.
    """

    def __init__(self, log_sizes: np.ndarray, threshold: float) -> None:
        self.width, self.height = np.ascontiguousarray(log_sizes.T, np.float32)
        self.limit = np.float32(np.log(threshold))
        self.nearest, self.one, self.other = np.empty((3, len(log_sizes)), np.float32)

    def __call__(self, log_anchors: np.ndarray) -> float:
        self.nearest.fill(np.inf)
        for width, height in log_anchors.astype(np.float32):
            np.abs(np.subtract(self.width, width, out=self.one), out=self.one)
            np.abs(np.subtract(self.height, height, out=self.other), out=self.other)
            np.minimum(self.nearest, np.maximum(self.one, self.other, out=self.one), out=self.nearest)
        return float((np.exp(-self.nearest) * (self.nearest < self.limit)).mean(dtype=np.float64))


def k_means(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres float64 `[count, 2]` of points `[n, 2]`: the best of five k-means++ starts, by the mean squared distance."""
    points = np.asfortranarray(points)  # each column contiguous: several times faster
    found = [_lloyd(points, _start(points, count, rng)) for _ in range(_STARTS)]
    return min(found, key=lambda pair: pair[1])[0]


def _start(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres by k-means++ (Arthur and Vassilvitskii 2007): each next centre is a point drawn with more weight the farther it is from the others."""
    centres = [points[rng.integers(len(points))]]
    distances = _squared(points, centres[0])
    while len(centres) < count:
        sums = np.cumsum(distances)
        # Fewer different sizes than centres: the last ones repeat.
        chosen = np.searchsorted(sums, rng.random() * sums[-1], "right") if sums[-1] > 0 else rng.integers(len(points))
        centres.append(points[min(int(chosen), len(points) - 1)])
        distances = np.minimum(distances, _squared(points, centres[-1]))
    return np.stack(centres)


def _lloyd(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres that are the means of the points nearest to them, and the mean squared distance to them."""
    nearest = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        distances = np.stack([_squared(points, centre) for centre in centres])
        previous, nearest = nearest, distances.argmin(0)
        if (previous == nearest).all():
            break
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.stack([np.bincount(nearest, column, len(centres)) for column in points.T], 1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)  # an empty cluster's centre stays
    return centres, float(np.square(points - centres[nearest]).sum(1).mean())


def _squared(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Squared distances `[n]` of the points `[n, 2]` from one centre."""
    return np.square(points[:, 0] - centre[0]) + np.square(points[:, 1] - centre[1])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
