"""AP by hand, against an evaluator written plainly, and against faster-coco-eval; intervals; confusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.data.dataset import Dataset
from octrim.evaluate.evaluation import measure
from octrim.evaluate.matching import IOUS, box_iou, confusion_matrix, match
from octrim.evaluate.metrics import (
    CONFIDENCES,
    RECALLS,
    average_precision,
    bootstrap_intervals,
    coco_metrics,
    confidence_curves,
    mean_ap,
    recall_curves,
)
from tests.evaluate.material import dataset, found, random_case

A, B, C = (10, 10, 30, 30), (50, 50, 80, 90), (60, 10, 90, 30)
NOWHERE = (0, 90, 5, 99)


def ap(data: Dataset, detections: list[np.ndarray]) -> np.ndarray:
    """`[classes, 10]`, the same from the library."""
    own = average_precision(match(data, detections))[:, :, 0]
    np.testing.assert_allclose(coco_metrics(data, detections)[0], own, rtol=0, atol=1e-9)
    return own


def test_perfect_detections() -> None:
    data = dataset([[(A, 0, False), (B, 1, False)], [(C, 0, False)]])
    assert (ap(data, [found((A, 0.9, 0), (B, 0.8, 1)), found((C, 0.3, 0))]) == 1).all()


def test_one_of_two_missed() -> None:
    """Recall ends at 1/2: precision 1 at the 51 recalls 0, .01, .., .50, and 0 at the other 50."""
    data = dataset([[(A, 0, False), (B, 0, False)]])
    np.testing.assert_allclose(ap(data, [found((A, 0.9, 0))])[0], 51 / 101)


def test_a_duplicate_is_wrong() -> None:
    """Right, duplicate, right: precisions 1, 1/2, 2/3; the envelope is 1 up to recall 1/2 and 2/3 beyond."""
    data = dataset([[(A, 0, False), (B, 0, False)]])
    np.testing.assert_allclose(ap(data, [found((A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0))])[0], (51 + 50 * 2 / 3) / 101)


def test_ranking_across_pictures() -> None:
    """Wrong .9, right .8, wrong .7, right .6: precisions 0, 1/2, 1/3, 1/2; the envelope is 1/2 throughout."""
    data = dataset([[(A, 0, False)], [(B, 0, False)]])
    np.testing.assert_allclose(ap(data, [found((A, 0.8, 0), (NOWHERE, 0.7, 0)), found((NOWHERE, 0.9, 0), (B, 0.6, 0))])[0], 0.5)


def test_thresholds_count_one_by_one() -> None:
    """20 x 16 of 20 x 20 is IoU .8: right at .50 .. .80, which are 7 of the 10."""
    data = dataset([[(A, 0, False)]])
    assert ap(data, [found(((10, 10, 30, 26), 0.9, 0))])[0].tolist() == [1] * 7 + [0] * 3


def test_the_confident_one_takes_the_object() -> None:
    """IoU .8 at .9 and IoU 1 at .5: up to .80 the first is right and the better box a duplicate; above, it is the other way round."""
    data = dataset([[(A, 0, False)]])
    assert ap(data, [found(((10, 10, 30, 26), 0.9, 0), (A, 0.5, 0))])[0].tolist() == [1] * 7 + [0.5] * 3


def test_crowd_regions_are_neither_right_nor_wrong() -> None:
    """Two confident detections inside the crowd region do not count; the half outside it does from IoU .55 on."""
    crowd = (50, 50, 90, 90)
    data = dataset([[(A, 0, False), (crowd, 0, True)]])
    inside = [((50, 50, 60, 60), 0.99, 0), ((70, 70, 80, 80), 0.98, 0)]
    assert (ap(data, [found(*inside, (A, 0.5, 0))]) == 1)[0].all()
    half = ((40, 60, 60, 70), 0.95, 0)  # 100 of its 200 square pixels lie in the region
    assert ap(data, [found(*inside, half, (A, 0.5, 0))])[0].tolist() == [1] + [0.5] * 9
    other = ((50, 50, 60, 60), 0.97, 1)
    assert np.isnan(ap(data, [found(*inside, other, (A, 0.5, 0))])[1]).all()


def test_nothing_to_find_and_nothing_found() -> None:
    data = dataset([[(A, 0, False)], []])
    result = ap(data, [found(), found((B, 0.9, 1))])
    assert (result[0] == 0).all()
    assert np.isnan(result[1]).all()
    assert mean_ap(result) == (0, 0)
    empty = dataset([[], [(A, 0, True)]])
    evaluated = measure(empty, [found((A, 0.9, 0)), found((A, 0.9, 0))], bootstrap=10)
    assert np.isnan([evaluated.map, evaluated.map50, evaluated.precision, evaluated.recall, *evaluated.areas.values()]).all()
    assert evaluated.interval == {}
    assert evaluated.to_json()["mAP50"] is None


def plain_ap(data: Dataset, detections: list[np.ndarray], label: int, threshold: float) -> float:
    """COCO's definition, step by step, one detection at a time."""
    outcomes: list[tuple[float, bool]] = []
    objects = 0
    for index, rows in enumerate(detections):
        boxes, labels, crowd = data.targets(index)
        truth = [(box.astype(float), bool(region)) for box, own, region in zip(boxes, labels, crowd, strict=True) if own == label]
        objects += sum(not region for _, region in truth)
        taken: set[int] = set()
        for row in rows[rows[:, 5] == label].astype(float):
            best, which = threshold, None
            for number, (box, region) in enumerate(truth):
                width, height = min(row[2], box[2]) - max(row[0], box[0]), min(row[3], box[3]) - max(row[1], box[1])
                inter = max(width, 0) * max(height, 0)
                union = (row[2] - row[0]) * (row[3] - row[1]) + (box[2] - box[0]) * (box[3] - box[1]) - inter
                if not region and number not in taken and inter / union >= best:
                    best, which = inter / union, number
            if which is not None:
                taken.add(which)
                outcomes.append((row[4], True))
                continue
            area = (row[2] - row[0]) * (row[3] - row[1])
            held = [max(min(row[2], b[2]) - max(row[0], b[0]), 0) * max(min(row[3], b[3]) - max(row[1], b[1]), 0) for b, region in truth if region]
            if not any(part and part / area >= threshold for part in held):
                outcomes.append((row[4], False))
    if not objects:
        return float("nan")
    outcomes.sort(key=lambda outcome: -outcome[0])
    points = []
    right = 0
    for count, (_, good) in enumerate(outcomes, 1):
        right += good
        points.append((right / objects, right / count))
    return sum(max((precision for recall, precision in points if recall >= level), default=0.0) for level in RECALLS.tolist()) / 101


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_against_a_plain_evaluator_and_the_library(seed: int, pictures: int, classes: int, crowds: bool) -> None:
    data, detections = random_case(seed, pictures, classes, crowds)
    own = ap(data, detections)
    for label in range(classes):
        for index in (0, 5, 9):
            expected = plain_ap(data, detections, label, float(IOUS[index]))
            np.testing.assert_allclose(own[label, index], expected, atol=1e-12)


def test_areas_come_from_the_box() -> None:
    """A small object found, a medium one missed, none large."""
    data = dataset([[(A, 0, False), ((0, 40, 60, 100), 0, False)]])
    _, areas = coco_metrics(data, [found((A, 0.9, 0))])
    assert (areas["small"], areas["medium"]) == (1, 0)
    assert np.isnan(areas["large"])


def test_resamples_weigh_pictures() -> None:
    """Weights 2 and 1: as if the first picture were there twice."""
    data, detections = random_case(5, 2, 2, True)
    twice, more = random_case(5, 2, 2, True)
    first = [[(tuple(box), int(label), bool(crowd)) for box, label, crowd in zip(*twice.targets(index), strict=True)] for index in (0, 0, 1)]
    expected = average_precision(match(dataset(first), [more[0], more[0], more[1]]))[:, :, 0]
    weighted = average_precision(match(data, detections), np.asarray([[2, 1, 0], [1, 1, 0]], np.int32))
    np.testing.assert_allclose(weighted[:, :, 1], ap(data, detections))
    assert np.isnan(weighted[:, :, 2]).all()
    # Equal confidences are one step when weighted, and two steps, the first of which is no higher, when the picture is there twice.
    assert np.nanmax(abs(weighted[:, :, 0] - expected)) < 0.02


def test_interval() -> None:
    data, detections = random_case(1, 400, 2, False)
    large = measure(data, detections, bootstrap=300, seed=3)
    small = measure(*random_case(1, 25, 2, False), bootstrap=300, seed=3)
    widths = []
    for evaluated in (large, small):
        low, high = evaluated.interval["mAP50-95"]
        assert low < evaluated.map < high
        low50, high50 = evaluated.interval["mAP50"]
        assert low50 < evaluated.map50 < high50
        widths.append(high - low)
    assert widths[0] < 0.5 * widths[1]  # a sixteenth of the pictures: four times as wide
    assert bootstrap_intervals(large.matches, 300, 3) == large.interval
    assert bootstrap_intervals(large.matches, 300, 4) != large.interval


def test_interval_of_a_proportion() -> None:
    """Each picture has one object, found (surely) or missed: AP is then the recall, which is binomial."""
    generator = np.random.default_rng(0)
    hits = generator.random(400) < 0.6
    data = dataset([[(A, 0, False)]] * 400)
    evaluated = measure(data, [found((A, 0.9, 0)) if hit else found() for hit in hits], bootstrap=2000)
    low, high = evaluated.interval["mAP50-95"]
    spread = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    np.testing.assert_allclose([low, high], [hits.mean() - spread, hits.mean() + spread], atol=0.012)


def test_precision_and_recall_by_confidence() -> None:
    """Right at .9, wrong at .6, right at .3, of three objects."""
    data = dataset([[(A, 0, False), (B, 0, False), (C, 0, False)]])
    matches = match(data, [found((A, 0.9, 0), (NOWHERE, 0.6, 0), (B, 0.3, 0))])
    curves = confidence_curves(matches)

    def at(confidence: float) -> tuple[float, float]:
        index = int(np.searchsorted(CONFIDENCES, confidence))
        return float(curves.precision[0, index]), float(curves.recall[0, index])

    assert at(0.95) == (1, 0)
    assert at(0.8) == (1, 1 / 3)
    assert at(0.5) == (1 / 2, 1 / 3)
    assert at(0.1) == (2 / 3, 2 / 3)
    assert np.isnan(curves.f1[1]).all()
    assert CONFIDENCES[curves.best] < 0.3  # F1 is 2/3 there, 1/2 and 2/5 above
    envelope = recall_curves(matches)[0]
    assert envelope[:34].tolist() == [1] * 34
    np.testing.assert_allclose(envelope[34:67], 2 / 3)
    assert not envelope[67:].any()


def test_confusion() -> None:
    data = dataset([[(A, 0, False), (B, 1, False), ((0, 40, 40, 80), 0, True)], [(C, 1, False)]])
    detections = [
        found((A, 0.9, 0), (A, 0.8, 1), (B, 0.7, 0), ((0, 40, 20, 60), 0.6, 0), (NOWHERE, 0.5, 1), (C, 0.2, 0)),
        found(),
    ]
    # A is found as a cat, its duplicate as a dog lies on nothing that is free; B is taken for a cat; the box in the crowd region does not
    # count; NOWHERE is background; C of the first picture is not confident enough; the second picture's C is missed.
    assert confusion_matrix(data, detections).tolist() == [[1, 1, 0], [0, 0, 2], [0, 1, 0]]


def test_iou_of_crowds_and_of_empty_boxes() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    result = box_iou(np.asarray([[0, 0, 5, 10], [5, 5, 5, 5]], np.float32), boxes, np.asarray([False, True, False]))
    assert result.tolist() == [[0.5, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("pictures", [0, 1])
def test_no_classes_and_no_pictures(pictures: int) -> None:
    evaluated = measure(dataset([[]] * pictures), [found()] * pictures, bootstrap=0)
    assert np.isnan(evaluated.map)
