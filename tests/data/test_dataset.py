"""Parts of a data set."""

from __future__ import annotations

import numpy as np

from octrim.data.dataset import Dataset


def test_a_subset_has_its_pictures_boxes_in_the_order_asked_for() -> None:
    counts = [2, 0, 1, 3]
    boxes = np.arange(24, dtype=np.float32).reshape(6, 4)
    labels = np.asarray([0, 1, 1, 0, 1, 0], np.int32)
    crowd = np.asarray([0, 0, 1, 0, 0, 1], bool)
    sizes = np.asarray([[10, 11], [20, 21], [30, 31], [40, 41]], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)])
    whole = Dataset(("a", "b"), ("p", "q", "r", "s"), sizes, boxes, labels, crowd, starts, (7, 8, 9, 10), (1, 2))
    part = whole.subset([3, 1, 0])
    assert (part.paths, part.picture_ids, len(part)) == (("s", "q", "p"), (10, 8, 7), 3)
    for number, picture in enumerate([3, 1, 0]):
        for one, other in zip(part.targets(number), whole.targets(picture), strict=True):
            np.testing.assert_array_equal(one, other)
        assert part.sizes[number].tolist() == sizes[picture].tolist()
    assert len(whole.subset([])) == len(whole.subset([]).boxes) == 0
