"""Blocks and levels that were chosen to be dropped, and all that were tried: as a value, a file and a table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from octrim.atomic import write_text
from octrim.runs import Run, plain_text

FILE = "dropping"
"""Name, without its ending, of the files that `ChosenRows.write` leaves."""


@dataclass(frozen=True)
class Candidate:
    """A block or level that could be dropped, beside everything that was chosen before it.

    rows: number of rows that go with it. saved: what the whole network costs less without them, in the budget's unit. accuracy: mAP50-95 of the whole
    network without them and what was chosen before. strain: that of the plan and of all that is dropped, inf where the budget cannot be met, or too
    much is lost.
    """

    name: str
    rows: int
    saved: float
    accuracy: float
    strain: float
    chosen: bool = False


@dataclass(frozen=True)
class ChosenRows:
    """What `octrim.training.dropping.choose_rows` has chosen.

    drop, levels: patterns of rows that are dropped, and strides of the levels that stay, all where there are none; what was given is among them.
    dropping: a line for people about the rows. unit: the budget's. pictures: number of pictures. accuracy: mAP50-95 of the whole network on them.
    strain: of the plan before anything was chosen, inf where the budget cannot be met. cuts: strain of cuts of channels, and mAP50-95 of the whole
    network after them. candidates: what was chosen, in that order, then what was not, best first.
    """

    drop: tuple[str, ...]
    levels: tuple[int, ...]
    dropping: str
    unit: str
    pictures: int
    accuracy: float
    strain: float
    cuts: tuple[tuple[float, float], ...]
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """What was chosen, in that order."""
        return tuple(candidate for candidate in self.candidates if candidate.chosen)

    @property
    def needed(self) -> bool:
        """Whether the budget cannot be met with all blocks and levels, so that something had to go."""
        return not math.isfinite(self.strain)

    def line(self) -> str:
        """A line for the log about the choice."""
        names = ", ".join(candidate.name for candidate in self.chosen)
        if not self.accuracy > 0:
            what = f"{names} go, without which the budget cannot be met" if names else "all stay"
            return f"blocks and levels: the network finds nothing on {self.pictures} training pictures, so nothing was measured and {what}"
        if not self.chosen:
            return f"blocks and levels: all stay; none of the {len(self.candidates)} that could go is missed less than the channels it makes room for"
        why = "with all of them the budget cannot be met; " if self.needed else ""
        return (
            f"blocks and levels that are missed least: {names}; {why}mAP50-95 of the whole network without them {self.chosen[-1].accuracy:.3f} "
            f"({self.accuracy:.3f} with all, {self.pictures} training pictures)"
        )

    def table(self) -> Table:
        """A table for people with a row per candidate."""
        cuts = "; ".join(f"{strain:.1f}: {accuracy:.3f}" for strain, accuracy in self.cuts)
        whole = "the budget cannot be met with all of them" if self.needed else f"strain of the plan with all of them: {_shown(self.strain)}"
        caption = f"{whole}; mAP50-95 after cuts of channels by their strain: {cuts}" if self.cuts else whole
        table = Table(title=f"Blocks and levels; mAP50-95 of the whole network {self.accuracy:.3f}", caption=caption)
        table.add_column("without", no_wrap=True)
        for header in ("rows", f"{self.unit} saved", "mAP50-95", "strain", ""):
            table.add_column(header, justify="right")
        for one in self.candidates:
            table.add_row(one.name, str(one.rows), f"{one.saved:.3g}", f"{one.accuracy:.3f}", _shown(one.strain), "dropped" if one.chosen else "")
        return table

    def to_json(self) -> dict[str, Any]:
        """Content of `dropping.json`, with null for an infinite strain."""
        candidates = [
            {
                "name": one.name,
                "rows": one.rows,
                "saved": one.saved,
                "mAP50-95": one.accuracy,
                "strain": _finite(one.strain),
                "chosen": one.chosen,
            }
            for one in self.candidates
        ]
        return {
            "drop": list(self.drop),
            "levels": list(self.levels),
            "dropping": self.dropping,
            "unit": self.unit,
            "pictures": self.pictures,
            "mAP50-95": self.accuracy,
            "strain": _finite(self.strain),
            "cuts": [{"strain": strain, "mAP50-95": accuracy} for strain, accuracy in self.cuts],
            "candidates": candidates,
        }

    def tell(self, run: Run, folder: Path | None = None) -> None:
        """Print the choice to a run's log, and write it into the run's folder, or another one."""
        run.print(self.line())
        run.print(self.table())
        self.write(run.path if folder is None else folder)

    def write(self, folder: Path) -> None:
        """Write `dropping.json` and `dropping.txt` into a folder."""
        write_text(folder / f"{FILE}.json", json.dumps(self.to_json(), indent=1))
        write_text(folder / f"{FILE}.txt", f"{self.line()}\n{plain_text(self.table())}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "-"
