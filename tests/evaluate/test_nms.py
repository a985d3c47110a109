"""Suppression against brute force, and what becomes of the boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octrim.evaluate.detections import Detections
from octrim.evaluate.nms import non_max_suppression


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def brute_force(
    predictions: np.ndarray, conf: float, limit: float, classes: list[int] | None, agnostic: bool, max_det: int, multi: bool
) -> list[tuple]:
    boxes = []
    for cx, cy, w, h, objectness, *scores in predictions.tolist():
        if not objectness > conf:
            continue
        confidences = [float(np.float32(objectness) * np.float32(score)) for score in scores]
        chosen = range(len(scores)) if multi else [int(np.argmax(np.float32(scores) * np.float32(objectness)))]
        allowed = [label for label in chosen if confidences[label] > conf and (classes is None or label in classes)]
        boxes += [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, confidences[label], label) for label in allowed]
    boxes.sort(key=lambda box: -box[4])
    kept: list[tuple] = []
    for box in boxes:
        if all(iou(np.asarray(box), np.asarray(other)) <= limit or (not agnostic and box[5] != other[5]) for other in kept):
            kept.append(box)
    return kept[:max_det]


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 4), st.sampled_from([0.001, 0.25, 0.6]), st.sampled_from([0.3, 0.45, 0.7]),
    st.sampled_from([None, [0], [1, 2]]), st.booleans(), st.sampled_from([3, 300]), st.booleans(),
)  # fmt: skip
def test_against_brute_force(
    seed: int, count: int, labels: int, conf: float, limit: float, classes: list[int] | None, agnostic: bool, max_det: int, multi: bool
) -> None:
    generator = np.random.default_rng(seed)
    centres, sizes = generator.uniform(0, 100, (count, 2)), generator.uniform(5, 60, (count, 2))
    predictions = np.hstack([centres, sizes, generator.random((count, 1 + labels))]).astype(np.float32)
    found = non_max_suppression(predictions, conf, limit, classes, agnostic, max_det, multi)
    expected = brute_force(predictions, conf, limit, classes, agnostic, max_det, multi)
    assert found.shape == (len(expected), 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(expected).reshape(-1, 6), rtol=1e-5, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([None, [1, 2]]), st.booleans(), st.sampled_from([3, 300]), st.booleans())
def test_score_voting_against_brute_force(seed: int, count: int, classes: list[int] | None, agnostic: bool, max_det: int, multi: bool) -> None:
    generator = np.random.default_rng(seed)
    centres, sizes = generator.uniform(0, 100, (count, 2)), generator.uniform(5, 60, (count, 2))
    predictions = np.hstack([centres, sizes, generator.random((count, 4))]).astype(np.float32)
    plain = non_max_suppression(predictions, 0.05, 0.5, classes, agnostic, max_det, multi)
    found = non_max_suppression(predictions, 0.05, 0.5, classes, agnostic, max_det, multi, score_voting=True)
    candidates = brute_force(predictions, 0.05, 2.0, classes, agnostic, 10**6, multi)  # no IoU is above 2: nothing is suppressed
    np.testing.assert_array_equal(found[:, 4:], plain[:, 4:])
    for box, voted in zip(plain, found, strict=True):
        voters = [one for one in candidates if agnostic or one[5] == box[5]]
        overlaps = [max(iou(box.astype(float), np.asarray(one)), 0) for one in voters]
        weights = [one[4] * np.exp(-((1 - overlap) ** 2) / 0.05) * (overlap > 0) for one, overlap in zip(voters, overlaps, strict=True)]
        expected = np.average([one[:4] for one in voters], axis=0, weights=weights)
        np.testing.assert_allclose(voted[:4], expected, rtol=1e-4, atol=1e-3)


def test_score_voting_by_hand() -> None:
    """Two boxes 10 wide and high, 1 apart: IoU 90 / 110, so the second counts 0.8 x exp(-(20/110)^2 / 0.05) for the first one's 0.9."""
    predictions = np.asarray([[5, 5, 10, 10, 1, 0.9, 0], [6, 5, 10, 10, 1, 0.8, 0], [5, 5, 10, 10, 1, 0, 0.5]], np.float32)
    found = non_max_suppression(predictions, score_voting=True)
    weight = 0.8 * np.exp(-((20 / 110) ** 2) / 0.05)
    moved = weight / (0.9 + weight)
    np.testing.assert_allclose(found, [[moved, 0, 10 + moved, 10, 0.9, 0], [0, 0, 10, 10, 0.5, 1]], rtol=1e-5, atol=1e-5)


def test_classes_do_not_vote_for_each_other_however_large_the_picture_is() -> None:
    """Boxes of neighbouring classes as far apart as classes are moved for suppression."""
    predictions = np.asarray([[7600, 7600, 500, 500, 1, 0.9, 0.1], [100, 100, 500, 500, 1, 0.1, 0.8]], np.float32)
    found = non_max_suppression(predictions, score_voting=True)
    np.testing.assert_array_equal(found[:, :4], [[7350, 7350, 7850, 7850], [-150, -150, 350, 350]])


def test_boxes_without_area_vote_for_themselves() -> None:
    predictions = np.asarray([[5, 5, 0, 10, 1, 0.9], [5, 5, 0, 10, 1, 0.8]], np.float32)
    np.testing.assert_allclose(non_max_suppression(predictions, score_voting=True)[0], [5, 0, 5, 10, 0.9, 0], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "max_det"), [(4, 300), (4, 5000), (40, 300), (90, 300)])
def test_thousands_of_candidates(size: int, max_det: int) -> None:
    """More than are looked at in the first round: few overlaps, where 300 are soon found, and many, where all are needed."""
    generator = np.random.default_rng(size)
    boxes = np.hstack([generator.uniform(0, 100, (2500, 2)), generator.uniform(size, size + 5, (2500, 2)), generator.random((2500, 3))])
    found = non_max_suppression(boxes.astype(np.float32), 0.001, 0.3, None, False, max_det, True)
    assert 0 < len(found) <= max_det
    everything = non_max_suppression(boxes.astype(np.float32), 0.001, 0.3, None, False, 10**6, True)
    np.testing.assert_array_equal(found, everything[:max_det])  # with no limit there is one round over all
    wanted = brute_force(boxes[:400].astype(np.float32), 0.001, 0.3, None, False, max_det, True)
    np.testing.assert_allclose(
        non_max_suppression(boxes[:400].astype(np.float32), 0.001, 0.3, None, False, max_det, True)[:, 4], [box[4] for box in wanted]
    )


def test_far_classes_do_not_meet() -> None:
    """Class offsets must not cost precision: two equal boxes of the last of many classes, moved by half a pixel."""
    predictions = np.zeros((2, 5 + 1000), np.float32)
    predictions[:, :4] = [[100, 100, 2, 2], [100.5, 100, 2, 2]]
    predictions[:, 4] = 1
    predictions[0, -1], predictions[1, -1] = 0.9, 0.8
    # intersection 1.5 x 2 = 3, union 5: IoU 0.6
    assert len(non_max_suppression(predictions, iou=0.601)) == 2
    assert len(non_max_suppression(predictions, iou=0.599)) == 1


@pytest.mark.parametrize(("first", "second"), [((7780, 7780), (100, 100)), ((15_400, 15_400), (40, 40)), ((-600, -600), (7080, 7080))])
def test_far_classes_do_not_meet_in_the_largest_pictures(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Pictures have up to 16384 pixels, and boxes reach beyond their sides."""
    predictions = np.asarray([[*first, 60, 60, 0.9, 0.9, 0.0, 0.0], [*second, 60, 60, 0.8, 0.0, 0.9, 0.0], [*second, 60, 60, 0.7, 0.0, 0.0, 0.9]])
    found = non_max_suppression(predictions.astype(np.float32))
    assert found[:, 5].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found[:2, :2] + 30, [first, second])
    damaged = np.asarray([[0, 0, 3e38, 3e38, 0.95, 0.9, 0.0, 0.0]])
    assert len(non_max_suppression(np.vstack([predictions, damaged]).astype(np.float32))) == 4


def test_thresholds_are_exclusive() -> None:
    predictions = np.asarray([[10, 10, 4, 4, 0.5, 0.5]], np.float32)
    assert len(non_max_suppression(predictions, conf=0.25)) == 0
    assert len(non_max_suppression(predictions, conf=0.2499)) == 1


def test_damaged_weights_find_nothing() -> None:
    predictions = np.asarray(
        [[np.nan, 10, 4, 4, 0.9, 0.9], [10, 10, np.inf, 4, 0.9, 0.9], [10, 10, 4, 4, 0.9, np.nan], [10, 10, 4, 4, 0.9, 0.9]], np.float32
    )
    assert len(non_max_suppression(predictions)) == 1


def detections() -> Detections:
    boxes = np.asarray([[10, 20, 30, 60], [0, 0, 100, 50]], np.float32)
    return Detections(boxes, np.asarray([0.9, 0.5], np.float32), np.asarray([1, 0]), ("cat", "dog"), "a.jpg", 100, 200)


def test_detections_as_text_and_json() -> None:
    found = detections()
    assert found.to_yolo() == "1 0.1 0.4 0.1 0.4\n0 0.25 0.25 0.5 0.5\n"
    assert found.to_yolo(confidence=True).splitlines()[0] == "1 0.1 0.4 0.1 0.4 0.9"
    assert found.to_json()[0] == {"file": "a.jpg", "category_id": 1, "name": "dog", "score": 0.9, "bbox": [10, 20, 20, 40]}
    assert [(one.name, one.class_id, one.xyxy) for one in found] == [("dog", 1, (10, 20, 30, 60)), ("cat", 0, (0, 0, 100, 50))]
    assert found.summary() == "1 cat, 1 dog"
    assert len(found) == 2


def test_drawing_marks_the_boxes_and_leaves_the_picture_alone() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    drawn = detections().draw(image)
    assert not image.any()
    assert drawn[40, 10].any() and drawn[40, 30].any() and drawn[60, 20].any()
    assert not drawn[90, 150].any()


def test_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed (extra octrim[supervision])")
    found = detections().to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.data["class_name"].tolist() == ["dog", "cat"]
