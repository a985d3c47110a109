"""Rows of the leaderboard that a compression is compared with in its report.

They come with OcTrim in leaderboard.json, which `python benchmarks/leaderboard.py page` makes from the rows of benchmarks/leaderboard.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from math import log
from pathlib import Path
from typing import Any

CLOSE = 2.0
"""Largest ratio of the multiply-accumulates of two networks that count as close to each other."""

MOST = 8
"""Most rows that are shown."""


@dataclass(frozen=True)
class Neighbour:
    """A row of the leaderboard: a network, trained by one recipe on one data set.

    data: name of the data set. about: the data set in a line. seeds: number of trainings that map is the mean of. map: mAP50-95 of the last epoch.
    whole: that of the whole network on the same data, None where it is not there. macs: multiply-accumulates of a picture. ms_openvino, ms_c:
    milliseconds on the leaderboard's machine, None where they were not measured.
    """

    data: str
    about: str
    network: str
    recipe: str
    seeds: int
    map: float
    whole: float | None
    macs: int
    ms_openvino: float | None
    ms_c: float | None

    @property
    def kept(self) -> float | None:
        """Share of the whole network's mAP50-95 that the network reaches."""
        return self.map / self.whole if self.whole else None


def leaderboard() -> list[Neighbour]:
    """All rows that come with OcTrim."""
    content = json.loads((resources.files("octrim.report") / "leaderboard.json").read_text("utf-8"))
    return [Neighbour(**row) for row in content]


def neighbours(rows: list[Neighbour], macs: int, data: Any) -> list[Neighbour]:
    """The rows on a data set of the same name, then those of other data with multiply-accumulates close to `macs`, the closest first; at most MOST.

    data: path of the run's data set, as its configuration has it; the name is that of the file, or of the folder that it lies in.
    """
    path = Path(str(data))
    names = {path.name, path.stem, path.parent.name}
    same = [row for row in rows if row.data in names]
    others = [row for row in rows if row.data not in names and row.macs and macs and max(row.macs / macs, macs / row.macs) <= CLOSE]
    return [*sorted(same, key=lambda row: row.macs), *sorted(others, key=lambda row: abs(log(row.macs / macs)))][:MOST]
