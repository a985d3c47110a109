"""AutoAnchor: recall counted by hand, clusters that are found again, and what happens to anchors that fit and that do not."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest

from octrim.data.dataset import Dataset
from octrim.errors import InputError
from octrim.training.anchors import AnchorReport, auto_anchors, best_possible_recall, fit_anchors, fitness, k_means, label_sizes

PUBLISHED = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
STRIDES = (8, 16, 32)
CLUSTERS = np.asarray([[6, 6], [20, 40], [50, 30], [120, 110], [30, 300], [400, 380]], np.float64)


def times(factor: float) -> tuple[tuple[tuple[float, float], ...], ...]:
    return tuple(tuple((w * factor, h * factor) for w, h in level) for level in PUBLISHED)


def dataset(sizes_wh: np.ndarray, side: int = 640, each: int = 10) -> Dataset:
    """Pictures of side x side / 2 pixels (their longer side is `side`), with `each` boxes of the given sizes, which may reach out of them."""
    pictures = -(-len(sizes_wh) // each)
    boxes = np.concatenate([np.zeros_like(sizes_wh), sizes_wh], 1).astype(np.float32)
    starts = np.minimum(np.arange(pictures + 1) * each, len(boxes))
    shape = np.tile(np.asarray([[side // 2, side]], np.int32), (pictures, 1))
    names = tuple(str(number) for number in range(pictures))
    return Dataset(("a",), names, shape, boxes, np.zeros(len(boxes), np.int32), np.zeros(len(boxes), bool), starts, names, (0,))


def scattered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(4, 0.6, (count, 1)) + rng.normal(0, 0.3, (count, 2)))


def noisy_clusters(each: int = 50) -> np.ndarray:
    return np.concatenate([cluster * np.random.default_rng(7).uniform(0.95, 1.05, (each, 2)) for cluster in CLUSTERS])


def test_recall_by_hand() -> None:
    anchors = np.asarray([[10, 10], [30, 30]])
    sizes = np.asarray(
        [
            [10, 10],  # ratios 1 and 3: both
            [40, 40],  # 4 is not below 4; 4/3: the second only
            [39.9, 10],  # 3.99, and 1.33 and 3: both
            [2.5, 10],  # 4 and 12: neither
            [8, 120],  # 12 and 4: neither
            [0, 10],  # no extent: neither
        ]
    )
    recall, per_label = best_possible_recall(sizes, anchors)
    assert recall == 3 / 6
    assert per_label == (2 + 1 + 2) / 6
    assert best_possible_recall(sizes, anchors, 4.1) == (5 / 6, (2 + 2 + 2 + 1 + 1) / 6)
    assert best_possible_recall(sizes, anchors, 1.01) == (1 / 6, 1 / 6)
    assert all(isnan(value) for value in best_possible_recall(np.zeros((0, 2)), anchors))


def test_fitness_by_hand() -> None:
    anchors = np.asarray([[10, 20], [40, 40]])
    # min(1, 1) = 1; min(.8, .5) = .5, of the second 32/40 and 10/40 = .25; min(.5, .25), of the second .125: at 1/4 nothing counts.
    assert fitness(np.asarray([[10, 20], [8, 10], [5, 5]]), anchors, 3.99) == pytest.approx((1 + 0.5 + 0) / 3, abs=1e-6)
    assert fitness(np.asarray([[5, 5]]), anchors, 4.1) == pytest.approx(0.25, abs=1e-6)


def test_sizes_belong_to_the_longer_side_and_crowds_are_left_out() -> None:
    boxes = np.asarray([[10, 10, 30, 50], [0, 0, 100, 100], [0, 0, 4, 8]], np.float32)
    shape = np.asarray([[200, 100], [50, 80]], np.int32)
    made = Dataset(("a",), ("x", "y"), shape, boxes, np.zeros(3, np.int32), np.asarray([False, True, False]), np.asarray([0, 2, 3]), ("x", "y"), (0,))
    sizes, picture = label_sizes(made, 400)
    assert sizes.tolist() == [[40, 80], [20, 40]]
    assert picture.tolist() == [0, 1]


def test_k_means_finds_separated_clusters() -> None:
    """Of different sizes, whatever the seed: 200 points down to 10."""
    rng = np.random.default_rng(3)
    places = np.asarray([[0, 0], [10, 0], [0, 12], [30, 30], [-20, 15]], np.float64)
    points = np.concatenate([place + rng.normal(0, 0.3, (count, 2)) for place, count in zip(places, (200, 100, 50, 20, 10), strict=True)])
    means = np.stack([part.mean(0) for part in np.split(points, np.cumsum((200, 100, 50, 20)))])
    for seed in range(5):
        found = k_means(points, 5, np.random.default_rng(seed))
        distance = np.abs(found[:, None] - means).max(2)
        assert distance.min(0).max() < 1e-9  # exactly the clusters' means


def test_k_means_with_fewer_different_points_than_centres() -> None:
    points = np.repeat(np.asarray([[1.0, 2.0], [5.0, 5.0]]), 10, axis=0)
    found = k_means(points, 4, np.random.default_rng(0))
    assert {tuple(centre) for centre in found.tolist()} == {(1.0, 2.0), (5.0, 5.0)}


def test_fitted_anchors_lie_in_the_clusters_by_area() -> None:
    found = fit_anchors(noisy_clusters(), len(CLUSTERS))
    expected = CLUSTERS[np.argsort(CLUSTERS.prod(1))]
    assert np.abs(found / expected - 1).max() < 0.05
    assert (np.diff(found.prod(1)) >= 0).all()


def test_fitness_never_decreases() -> None:
    sizes = scattered(500)
    reached = [fitness(sizes, fit_anchors(sizes, 6, generations=count)) for count in (0, 1, 1000)]
    assert reached[0] <= reached[1] + 1e-7
    assert reached[2] > reached[0] + 0.002
    # The steps shrink over the generations that are asked for, so runs of different lengths differ; each is at least its own start.
    for generations in (10, 100, 300):
        assert fitness(sizes, fit_anchors(sizes, 6, generations=generations)) >= reached[0] - 1e-7


def test_small_labels_are_not_fitted_to() -> None:
    tiny = np.full((1000, 2), 1.9)
    flat = np.tile([50, 1.9], (1000, 1))
    sizes = noisy_clusters()
    assert np.array_equal(fit_anchors(np.concatenate([sizes, tiny, flat]), 6), fit_anchors(sizes, 6))
    with pytest.raises(InputError, match="7 cannot be fitted to 6 labels"):
        fit_anchors(np.concatenate([CLUSTERS, tiny]), 7)


def test_many_labels_are_sampled() -> None:
    sizes = np.tile(noisy_clusters(), (200, 1))  # 60,000
    found = fit_anchors(sizes, 6, generations=20)
    assert np.abs(found / CLUSTERS[np.argsort(CLUSTERS.prod(1))] - 1).max() < 0.05


def test_good_anchors_stay() -> None:
    labels = np.asarray([anchor for level in PUBLISHED for anchor in level], np.float64)
    report = auto_anchors(dataset(labels), 640, PUBLISHED, STRIDES)
    assert (report.reason, report.changed, report.labels) == ("good", False, 9)
    assert report.anchors is PUBLISHED
    assert report.recall_before == report.recall_after == 1
    assert report.per_label_before == report.per_label_after > 1
    assert len(report.lines()) == 1
    assert report.lines()[0].startswith("anchors stay: 100.00 % of 9 labels fit an anchor within a factor of 4")


@pytest.mark.parametrize("factor", [10, 0.1])
def test_bad_anchors_are_replaced(factor: float) -> None:
    report = auto_anchors(dataset(scattered(800)), 640, times(factor), STRIDES)
    assert (report.reason, report.changed) == ("fitted", True)
    assert report.recall_before < 0.95
    assert report.recall_after > 0.98
    assert report.per_label_after > report.per_label_before
    flat = np.asarray(report.anchors).reshape(-1, 2)
    assert flat.shape == (9, 2)
    assert (np.diff(flat.prod(1)) >= 0).all()
    assert np.array_equal(flat, flat.round(2))
    assert len(report.lines()) == 2 + 3
    assert report.lines()[2] == "  " + " ".join(f"{w:g},{h:g}" for w, h in report.anchors[0])


def test_small_anchors_go_to_small_strides() -> None:
    data = dataset(scattered(300))
    rising = auto_anchors(data, 640, times(10), (8, 16, 32))
    falling = auto_anchors(data, 640, times(10), (32, 16, 8))
    mixed = auto_anchors(data, 640, times(10), (16, 32, 8))
    assert falling.anchors == rising.anchors[::-1]
    assert mixed.anchors == (rising.anchors[1], rising.anchors[2], rising.anchors[0])


def test_the_same_seed_gives_the_same_report() -> None:
    def run(seed: int) -> AnchorReport:
        return auto_anchors(dataset(scattered(300)), 640, times(10), STRIDES, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_sizes_are_scaled_to_the_side() -> None:
    """At a quarter of the side, labels are a quarter as large and anchors of a quarter fit them as well."""
    labels = scattered(200)
    large = auto_anchors(dataset(labels), 640, PUBLISHED, STRIDES)
    small = auto_anchors(dataset(labels), 160, times(0.25), STRIDES)
    assert (large.recall_before, large.per_label_before) == (small.recall_before, small.per_label_before)


def test_jitter_is_per_picture() -> None:
    """A label of 4 / sqrt(1.1 * .9) times the anchor fits in about half of the pictures, and then with all others of its picture."""
    labels = np.full((2000, 2), 40 / sqrt(0.99))
    anchors = (((10.0, 10.0),),)
    report = auto_anchors(dataset(labels, each=1000), 640, anchors, (8,))
    assert report.recall_before in (0, 0.5, 1)
    report = auto_anchors(dataset(labels, each=1), 640, anchors, (8,))
    assert 0.4 < report.recall_before < 0.6


def test_too_few_labels() -> None:
    report = auto_anchors(dataset(np.concatenate([np.full((8, 2), 600.0), np.full((5, 2), 1.0)])), 640, times(0.05), STRIDES)
    assert (report.reason, report.changed, report.anchors, report.recall_before) == ("few", False, times(0.05), 5 / 13)
    assert report.lines() == ["anchors stay: 8 labels of 2 pixels and more are too few to fit 9 anchors to"]
    report = auto_anchors(dataset(np.zeros((0, 2))), 640, PUBLISHED, STRIDES)
    assert report.anchors == PUBLISHED
    assert isnan(report.recall_before) and isnan(report.recall_after)
    assert report.lines() == ["anchors stay: 0 labels of 2 pixels and more are too few to fit 9 anchors to"]


def test_anchors_that_cannot_be_bettered_stay() -> None:
    """A tenth of the labels have no extent that any anchor could fit."""
    labels = np.concatenate([np.full((90, 2), 50.0), np.tile([0.001, 50.0], (10, 1))])
    report = auto_anchors(dataset(labels), 640, (((50.0, 50.0),),), (8,))
    assert (report.reason, report.changed, report.recall_before, report.recall_after) == ("no better", False, 0.9, 0.9)
    assert report.lines()[0].endswith("fitting found none that fit more")


def test_arguments_that_do_not_fit_together() -> None:
    for anchors, strides in ((PUBLISHED, (8, 16)), (((),), (8,)), ((((1.0, 1.0),), ((1.0, 1.0), (2.0, 2.0))), (8, 16)), ((), ())):
        with pytest.raises(InputError, match="strides need as many"):
            auto_anchors(dataset(CLUSTERS), 640, anchors, strides)
    with pytest.raises(InputError, match="threshold is 1"):
        auto_anchors(dataset(CLUSTERS), 640, PUBLISHED, STRIDES, threshold=1)
