"""Result of a sensitivity analysis: as a value, a file, a table and a keep-map."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from octrim.errors import InputError, shown
from octrim.plain_yaml import read_text

FRACTIONS = tuple(tenths / 10 for tenths in range(1, 10))
"""Fractions of a group's channels that are cut."""

_SHOWN = 8  # number of groups shown at either end of the table
_DIGITS = 6


@dataclass(frozen=True)
class GroupCurve:
    """Curve of one group of coupled channels. convs: names of the coupled convolutions. channels: number of channels of the group. kept: number of
    channels that stay at each of FRACTIONS. values: the metric at each of them, nan where the loss is not finite."""

    name: str
    convs: tuple[str, ...]
    channels: int
    kept: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def title(self) -> str:
        """Name of the group, and how many convolutions are coupled to the one that it is named after."""
        return f"{self.name} +{len(self.convs) - 1}" if len(self.convs) > 1 else self.name


@dataclass(frozen=True)
class Bypassed:
    """A block or a detection level that was dropped by itself. rows: number of rows that vanish. value: the metric without it, nan where the loss is
    not finite."""

    name: str
    rows: int
    value: float


@dataclass(frozen=True)
class SensitivityCurves:
    """Curves of all groups of a network. metric: `map` (mAP50-95, 0..1) or `loss` (per picture). baseline: metric of the uncut network. pictures:
    number of pictures used. digest: digest of network and pictures. groups: curves in the table's order. blocks: what was dropped, in that order."""

    metric: str
    baseline: float
    pictures: int
    digest: str
    groups: tuple[GroupCurve, ...]
    blocks: tuple[Bypassed, ...] = ()

    def __post_init__(self) -> None:
        # Values are rounded as in the file, so that a resumed analysis has the same numbers as an undisturbed one.
        object.__setattr__(self, "baseline", round(self.baseline, _DIGITS))

    def with_group(self, curve: GroupCurve) -> SensitivityCurves:
        rounded = tuple(round(value, _DIGITS) for value in curve.values)
        return dataclasses.replace(self, groups=(*self.groups, dataclasses.replace(curve, values=rounded)))

    def with_block(self, block: Bypassed) -> SensitivityCurves:
        return dataclasses.replace(self, blocks=(*self.blocks, dataclasses.replace(block, value=round(block.value, _DIGITS))))

    def harm(self, value: float) -> float:
        """How much worse a value is than the baseline: mAP50-95 lost, or the share by which the loss is higher; inf for nan."""
        if math.isnan(value):
            return math.inf
        return self.baseline - value if self.metric == "map" else (value - self.baseline) / max(self.baseline, 1e-12)

    def channels_kept(self, curve: GroupCurve, tolerance: float) -> int:
        """The fewest channels of a group down to which no cut was measured to harm by more than `tolerance`; all where the first cut does."""
        limit = tolerance + 0.5 * 10**-_DIGITS  # half a digit more, so that .5 - .48 counts as .02 in spite of rounding
        # A deeper cut that measures better again is due to chance.
        harmless = takewhile(lambda cut: self.harm(cut[1]) <= limit, zip(curve.kept, curve.values, strict=True))
        return min((count for count, _ in harmless), default=curve.channels)

    def keep_map(self, tolerance: float, align: int = 1) -> dict[str, str]:
        """Keep-map for `plan` and `octrim prune --keep-map`: a group's first convolution to the fraction of channels to keep, such as `13/16`.

        The fraction is `channels_kept` rounded up to a multiple of `align`, because `plan` rounds down to one and would cut more than was measured.
        Groups that share a convolution, which a keep-map cannot tell apart, get the largest of their fractions.
        """
        fractions: dict[str, Fraction] = {}
        for curve in self.groups:
            count = min(-(-self.channels_kept(curve, tolerance) // align) * align, curve.channels)
            fractions[curve.name] = Fraction(count, curve.channels)
        for joined in self._sharing():
            largest = max(fractions[curve.name] for curve in joined)
            fractions |= {curve.name: largest for curve in joined}
        # A pattern also stands for what is below it (`a` for `a.b`); the last one that matches counts, so the longer goes last.
        entries = {curve.convs[0]: str(fractions[curve.name]) for curve in self.groups}
        nested = {name for name in entries if any(name.startswith(f"{other}.") for other in entries)}
        return {**{name: value for name, value in entries.items() if name not in nested}, **{name: entries[name] for name in sorted(nested)}}

    def _sharing(self) -> list[list[GroupCurve]]:
        """Lists of groups that are connected by common convolutions."""
        joined: list[list[GroupCurve]] = []
        for curve in self.groups:
            near = [part for part in joined if any(set(curve.convs) & set(other.convs) for other in part)]
            joined = [part for part in joined if part not in near] + [[*(other for part in near for other in part), curve]]
        return joined

    def to_json(self) -> dict[str, Any]:
        """Content of `sensitivity.json`, with null for nan."""
        groups = [
            {
                "name": curve.name,
                "convs": list(curve.convs),
                "channels": curve.channels,
                "kept": list(curve.kept),
                "values": [value if math.isfinite(value) else None for value in curve.values],
            }
            for curve in self.groups
        ]
        content = {"baseline": self.baseline, "metric": self.metric, "pictures": self.pictures, "fractions": list(FRACTIONS), "digest": self.digest}
        blocks = [{**vars(block), "value": block.value if math.isfinite(block.value) else None} for block in self.blocks]
        return {**content, "groups": groups, "blocks": blocks}

    def line(self) -> str:
        """Line for the log about the last block, else the last group or, before the first group, about the uncut network."""
        what = "mAP50-95" if self.metric == "map" else "loss"
        if self.blocks:
            block = self.blocks[-1]
            return f"{block.name:<20} {block.rows:>4} rows, {what} without them: {_shown(block.value, self.metric)}"
        if not self.groups:
            return f"uncut: {what} {_shown(self.baseline, self.metric)}"
        curve = self.groups[-1]
        values = " ".join(_shown(value, self.metric) for value in curve.values)
        return f"{curve.name:<20} {curve.channels:>4} channels, {what} at 10 .. 90 % cut: {values}"

    def table(self, tolerance: float) -> Table:
        """Table for people: the groups that suffer most and least, by their mean over all cuts."""
        what = "mAP50-95" if self.metric == "map" else "loss"
        table = Table(title=f"{what} with one group cut, most sensitive first ({what} {_shown(self.baseline, self.metric)} uncut)")
        table.add_column("group", no_wrap=True)
        table.add_column("channels", justify="right")
        for fraction in FRACTIONS[::2]:
            table.add_column(f"{round(100 * fraction)} %", justify="right")
        table.add_column("keep", justify="right")
        ordered = sorted(self.groups, key=lambda curve: -float(np.mean([min(self.harm(value), 1e6) for value in curve.values])))
        for place, curve in enumerate(ordered):
            if _SHOWN <= place < len(ordered) - _SHOWN:
                if place == _SHOWN:
                    table.add_row(f".. {len(ordered) - 2 * _SHOWN} more ..")
                continue
            values = [_shown(value, self.metric) for value in curve.values[::2]]
            table.add_row(curve.title, str(curve.channels), *values, str(self.channels_kept(curve, tolerance)))
        return table

    def blocks_table(self) -> Table:
        """Table for people: blocks and levels, those that are missed most first."""
        what = "mAP50-95" if self.metric == "map" else "loss"
        table = Table(title=f"{what} with one block or level dropped, most missed first ({what} {_shown(self.baseline, self.metric)} with all)")
        table.add_column("block", no_wrap=True)
        table.add_column("rows", justify="right")
        table.add_column(what, justify="right")
        for block in sorted(self.blocks, key=lambda block: -self.harm(block.value)):
            table.add_row(block.name, str(block.rows), _shown(block.value, self.metric))
        return table


def _shown(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if metric == "map" else f"{value:.4f}"


def load_curves(path: Path) -> SensitivityCurves:
    """Read a `sensitivity.json`. Raises InputError for a file that is damaged or of another kind."""
    try:
        content = json.loads(read_text(path))
        if tuple(content["fractions"]) != FRACTIONS:
            raise ValueError(f"fractions {shown(content['fractions'])}")
        groups = []
        for entry in content["groups"]:
            values = tuple(math.nan if value is None else float(value) for value in entry["values"])
            kept = tuple(int(count) for count in entry["kept"])
            if len(values) != len(FRACTIONS) or len(kept) != len(FRACTIONS):
                raise ValueError(f"{len(values)} values of {shown(entry['name'])}")
            groups.append(GroupCurve(str(entry["name"]), tuple(map(str, entry["convs"])), int(entry["channels"]), kept, values))
        blocks = []
        for entry in content.get("blocks", ()):  # OcTrim 0.1 dropped no blocks
            value = math.nan if entry["value"] is None else float(entry["value"])
            blocks.append(Bypassed(str(entry["name"]), int(entry["rows"]), value))
        facts = (str(content["metric"]), float(content["baseline"]), int(content["pictures"]), str(content["digest"]))
        return SensitivityCurves(*facts, tuple(groups), tuple(blocks))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not the results of a sensitivity analysis: {shown(str(error))}") from None
