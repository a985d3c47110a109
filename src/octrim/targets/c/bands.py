"""The bands of a picture: its upper and its lower part, each with memory of its own, so that two threads share hardly a line of it.

To fetch a line that another core has written takes as long as a hundred multiplications of vectors, and processors fetch lines ahead, beyond what a
thread asks for. Rows at the border of two bands are copied into the margins of the other one before a window reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octrim.targets.c.lowering import SHIFTED, Kind, Op

_TILE = 4  # number of rows that the stem and Winograd's transform make at once
_MOST_UNEVEN = 1.5  # largest ratio of the upper band's rows to the lower band's


@dataclass(frozen=True)
class Bands:
    """Number of bands, and where they part: of maps with `height` rows the first band has `first`, and of other maps as large a share."""

    count: int
    height: int
    first: int

    def rows(self, height: int) -> int:
        """Number of rows that the first band, the largest, has of a map with `height` rows."""
        return height * self.first // self.height if self.count > 1 else height


def banded(ops: Sequence[Op]) -> Bands:
    """Divide the maps into two bands where every step makes a band from the same part of its sources and a few rows of the other one; else into one.

    Sets `rows` of all maps.
    """
    bands = _two_bands(ops) or Bands(1, 1, 1)
    for op in ops:
        for m in [*op.reads, *([op.out] if op.out else [])]:
            m.rows = bands.rows(m.height)
    return bands


def _two_bands(ops: Sequence[Op]) -> Bands | None:
    heights = {m.height for op in ops for m in [*op.reads, *([op.out] if op.out else [])]}
    heights |= {op.rows for op in ops if op.kind != Kind.POOL}
    least = min(heights)
    if least < 2 or any(height % least for height in heights) or not all(_keeps_place(op) for op in ops):
        return None
    tiles = [op.rows // least for op in ops if op.kind == Kind.STEM or (op.kind == Kind.WINOGRAD and not op.narrow)]
    first = next((rows for rows in range((least + 1) // 2, least) if all(rows * tile % _TILE == 0 for tile in tiles)), least)
    margins = [(op.out.margin * least, op.out.height) for op in ops if op.out and op.out.padded]
    if first > _MOST_UNEVEN * (least - first) or any(margin > height * (least - first) for margin, height in margins):
        return None
    return Bands(2, least, first)


def _keeps_place(op: Op) -> bool:
    """Whether a row of the result comes from the same part of the picture in what is read."""
    if op.kind == Kind.POOL:
        assert op.out is not None
        return op.row.stride == 1 and op.out.size == op.reads[0].size
    if op.kind in SHIFTED:
        assert op.out is not None
        return all(m.height == op.out.height for m in op.reads)
    return op.kind != Kind.PLAIN


def halo(op: Op) -> tuple[int, list[int], list[int]]:
    """Number of rows of the other band that a window reads at most, and offsets in the arena of the planes of which it reads them above and below."""
    if op.kind not in SHIFTED:
        return 0, [], []
    row = op.row
    reach, above, below = 0, list[int](), list[int]()
    for line in range(row.kernel):
        dy = line - row.padding
        rows = dy if row.stride == 1 else dy // 2
        reach = max(reach, abs(rows))
        if row.stride == 1:
            planes = [m.pixel(channel) for m, channel in op.x]
        else:
            planes = [op.parity[m].pixel(channel * 4 + dy % 2 * 2 + side) for m, channel in op.x for side in (0, 1)]
        if rows:
            (above if rows < 0 else below).extend(planes)
    return reach, list(dict.fromkeys(above)), list(dict.fromkeys(below))
