"""Which rows of the leaderboard a report shows beside a run."""

from __future__ import annotations

import pytest

from octrim.report.neighbours import MOST, Neighbour, neighbours


@pytest.mark.parametrize(
    ("data", "macs", "expected"),
    [
        ("runs/bccd/data.yaml", 10, ["bccd 10", "bccd 900", "pong 11"]),  # those of the same name whatever they cost, then the close ones
        ("bccd", 1000, ["bccd 10", "bccd 900", "pong 600"]),
        ("data.yaml", 10, ["bccd 10", "pong 11"]),
        ("bcc", 0, []),
        (None, 10**9, []),
    ],
)
def test_which_neighbours_are_shown(data: str | None, macs: int, expected: list[str]) -> None:
    costs = (("bccd", 900), ("pong", 600), ("bccd", 10), ("pong", 11), ("pong", 21))
    board = [Neighbour(name, "", "", "", 1, 0.5, None, cost, None, None) for name, cost in costs]
    found = neighbours(board, macs, data)
    assert [f"{row.data} {row.macs}" for row in found] == expected and all(row.kept is None for row in found)
    assert len(neighbours(board * 9, 10, "bccd")) == MOST
