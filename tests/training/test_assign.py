"""Assignment of labels to cells and anchors, by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from octrim.training.assign import assign

ANCHORS = [np.asarray([[2, 2], [4, 8]], np.float32)]  # cells


def cells(cx: float, cy: float, w: float = 2, h: float = 2, height: int = 10, width: int = 10) -> list[tuple[int, int, int]]:
    """(anchor, row, column) of one label given in cells."""
    target = np.asarray([[0, 0, cx / width, cy / height, w / width, h / height]], np.float32)
    (level,) = assign(target, [(height, width)], ANCHORS)
    return list(zip(level.anchor.tolist(), level.row.tolist(), level.column.tolist(), strict=True))


def test_own_cell_and_the_two_nearest_neighbours() -> None:
    # The centre lies in the upper left quarter of cell (4, 4): the cells left of it and above it are nearest.
    assert [cell for anchor, *cell in cells(4.25, 4.25) if anchor == 0] == [[4, 4], [4, 3], [3, 4]]
    # In the lower right quarter: right and below.
    assert [cell for anchor, *cell in cells(4.75, 4.75) if anchor == 0] == [[4, 4], [4, 5], [5, 4]]
    assert [cell for anchor, *cell in cells(4.75, 4.25) if anchor == 0] == [[4, 4], [3, 4], [4, 5]]


def test_exactly_in_the_middle_of_a_cell_there_is_no_neighbour() -> None:
    assert cells(4.5, 4.5, 3, 3) == [(0, 4, 4), (1, 4, 4)]


def test_on_a_line_between_cells_its_own_counts_twice() -> None:
    # 5.0 has the fraction 0 from both sides: left of it lies cell 4, and half a cell to the right still cell 5. As YOLOv5 does.
    assert [cell for anchor, *cell in cells(5.0, 4.5) if anchor == 0] == [[4, 5], [4, 4], [4, 5]]


def test_neighbours_end_at_the_border() -> None:
    assert [cell for anchor, *cell in cells(0.25, 0.25) if anchor == 0] == [[0, 0]]
    assert [cell for anchor, *cell in cells(9.75, 9.75) if anchor == 0] == [[9, 9]]
    assert [cell for anchor, *cell in cells(9.75, 0.25) if anchor == 0] == [[0, 9]]
    # Within one cell of the border there is still one neighbour inwards.
    assert [cell for anchor, *cell in cells(1.25, 0.75) if anchor == 0] == [[0, 1], [0, 0], [1, 1]]


def test_a_centre_on_the_far_border_belongs_to_the_last_cell() -> None:
    for anchor, row, column in cells(10.0, 10.0):
        assert (row, column) in [(9, 9), (9, 8), (8, 9)] and anchor in (0, 1)
    assert (0, 9, 9) in cells(10.0, 10.0)
    level = assign(np.asarray([[0, 0, 1.0, 1.0, 0.2, 0.2]], np.float32), [(10, 10)], ANCHORS)[0]
    np.testing.assert_allclose(level.boxes[0], [1, 1, 2, 2])  # counted from the corner of cell 9


def test_the_threshold_is_strict_and_counts_the_worse_side() -> None:
    assert {anchor for anchor, *_ in cells(4.5, 4.5, 7.99, 2)} == {0}  # 3.995 times anchor 0; anchor 1 is exactly 4 times as high
    assert {anchor for anchor, *_ in cells(4.5, 4.5, 8, 2.01)} == {1}  # exactly 4 times is too much
    assert cells(4.5, 4.5, 8, 0.49) == []  # too flat for both


def test_match_order_is_offset_then_anchor_then_label() -> None:
    targets = np.asarray([[0, 5, 0.425, 0.45, 0.3, 0.3], [1, 6, 0.425, 0.45, 0.3, 0.3]], np.float32)
    (level,) = assign(targets, [(10, 10)], ANCHORS)
    # 4.25 lies left in its cell, 4.5 in the middle of its row: own cell, then the left one.
    assert level.anchor.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert level.image.tolist() == [0, 1] * 4 and level.label.tolist() == [5, 6] * 4
    assert level.column.tolist() == [4] * 4 + [3] * 4 and level.row.tolist() == [4] * 8
    np.testing.assert_allclose(level.boxes[0], [0.25, 0.5, 3, 3], atol=1e-6)
    np.testing.assert_allclose(level.boxes[4], [1.25, 0.5, 3, 3], atol=1e-6)


def test_no_labels_match_nothing() -> None:
    (level,) = assign(np.zeros((0, 6), np.float32), [(10, 10)], ANCHORS)
    assert len(level) == 0 and level.boxes.shape == (0, 4)


@given(
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 2, *[st.floats(2**-10, 1, width=32)] * 2), max_size=8), st.integers(1, 12), st.integers(1, 12)
)
def test_every_match_is_one_that_brute_force_finds(boxes: list[tuple[float, ...]], height: int, width: int) -> None:
    targets = np.asarray([[index, 0, *box] for index, box in enumerate(boxes)], np.float32).reshape(-1, 6)
    (level,) = assign(targets, [(height, width)], ANCHORS)
    found = sorted(zip(level.image.tolist(), level.anchor.tolist(), level.row.tolist(), level.column.tolist(), strict=True))
    wanted = []
    size = np.asarray([width, height], np.float32)
    for index, target in enumerate(targets):
        x, y = target[2:4] * size
        w, h = target[4:6] * size
        for number, (aw, ah) in enumerate(ANCHORS[0]):
            if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                continue
            column, row = min(int(x), width - 1), min(int(y), height - 1)
            own = [(row, column)]
            if x % 1 < 0.5 and x > 1:
                own.append((row, int(x - np.float32(0.5))))
            if y % 1 < 0.5 and y > 1:
                own.append((int(y - np.float32(0.5)), column))
            if (size[0] - x) % 1 < 0.5 and size[0] - x > 1:
                own.append((row, min(int(x + np.float32(0.5)), width - 1)))
            if (size[1] - y) % 1 < 0.5 and size[1] - y > 1:
                own.append((min(int(y + np.float32(0.5)), height - 1), column))
            wanted += [(index, number, *cell) for cell in own]
    assert found == sorted(wanted)
