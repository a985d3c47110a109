"""Feature maps in the arena: planes whose rows share their zero padding, and where each plane lies while it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LANES = 16  # number of floats in the widest vector: planes and lines are multiples of it, so that one layout serves every processor


def rounded(floats: int) -> int:
    """The next multiple of `LANES`."""
    return -(-floats // LANES) * LANES


@dataclass(eq=False)
class Map:
    """The output of a step: `channels` planes of `height` rows, of which a band has `rows` at most.

    name: row of the network that it comes from. margin: columns of zeros between rows, and rows of zeros above and below, the same for all maps of
    one size. padded: whether a window reads the margin. first, last: stages between which the planes hold values. at: first float in the arena.
    """

    name: str
    channels: int
    height: int
    width: int
    margin: int = 1
    padded: bool = False
    rows: int = 0
    first: int = 0
    last: int = 0
    at: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def pitch(self) -> int:
        return self.width + self.margin

    @property
    def plane(self) -> int:
        """Number of floats from one channel to the next."""
        return rounded((self.rows + 2 * self.margin) * self.pitch + self.margin)

    @property
    def planes(self) -> int:
        """Number of planes that the map takes in the arena. Vectors are read beyond the last pixel, which must not be where other threads write."""
        return self.channels + (self.margin * self.pitch < 2 * LANES)

    def pixel(self, channel: int = 0, row: int = 0, column: int = 0) -> int:
        """Index of a pixel, also of one in the margin, in the arena of a band that begins with row 0."""
        return self.at + LANES + channel * self.plane + (self.margin + row) * self.pitch + self.margin + column


def place(maps: Sequence[Map]) -> int:
    """Choose `at` for all maps so that no two that are needed in the same stage overlap. Returns the floats of the arena.

    Maps of one size share one part of the arena, and begin whole planes apart. Those whose margins are read share none with the others, so that what
    is zero in their margins stays zero. Of each part the largest map comes first, each at the lowest place that is free during all its stages.
    """
    start = 0
    for kind in dict.fromkeys((m.size, m.padded) for m in maps):
        group = [m for m in maps if (m.size, m.padded) == kind]
        _place_planes(group)
        end = start
        for m in group:
            end = max(end, start + (m.at + m.planes) * m.plane)
            m.at = start + m.at * m.plane
        start = end
    return start + 2 * LANES


def _place_planes(maps: Sequence[Map]) -> None:
    """Choose `at` in planes for maps of one size."""
    done: list[Map] = []
    for one in sorted(maps, key=lambda m: -m.channels):
        at = 0
        for other in sorted((o for o in done if o.last >= one.first and one.last >= o.first), key=lambda o: o.at):
            if other.at - at >= one.planes:
                break
            at = max(at, other.at + other.planes)
        one.at = at
        done.append(one)
