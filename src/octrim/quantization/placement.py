"""Choice of the rows of a network that are quantized, and of the groups of maps that need a scale for it."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from octrim.errors import InputError, shown
from octrim.network.rows import Network, Row
from octrim.network.scales import scale_groups


@dataclass(frozen=True)
class Placement:
    """The part of a network that is quantized.

    rows: convolutions and additions that read int8, in the table's order. groups: for every group of maps that has a scale, by its name,
    the maps in it that are computed: the picture, convolutions and additions. The others in it (concatenations, max-pools, upsamplings) hold
    the same values.
    """

    rows: tuple[Row, ...]
    groups: dict[str, tuple[str, ...]]

    @property
    def convs(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.op == "conv")


def placement(network: Network, skip: Sequence[str] = ()) -> Placement:
    """Placement that quantizes all additions and all convolutions but Detect's, without those that a pattern of `skip` fits.

    skip: names of rows or patterns (`model.0`, `model.2.*`); `model.2` also fits all rows below it. Raises InputError for a pattern that fits
    no convolution and no addition, an addition that cannot be skipped by itself, and when nothing is left.
    """
    candidates = [row for row in network.rows if row.op in ("conv", "add")]
    skipped: set[str] = set()
    for pattern in skip:
        found = [row.name for row in candidates if fnmatch.fnmatchcase(row.name, pattern) or row.name.startswith(f"{pattern}.")]
        if not found:
            names = f"{candidates[0].name}, {candidates[-1].name}"
            raise InputError(f"skip: {shown(pattern)} matches no convolution and no addition; their names look like {names}")
        skipped |= set(found)
    rows = tuple(row for row in candidates if row.name not in skipped and row.name not in network.heads)
    if not any(row.op == "conv" for row in rows):
        raise InputError("skip leaves no convolution to quantize; Detect's own stay in high precision anyway")
    joined = scale_groups(network)
    needed = {joined[name] for row in rows for name in row.inputs}
    for row in candidates:
        if row.op == "add" and row.name in skipped and all(joined[name] in needed for name in row.inputs):
            readers = [other.name for other in rows if joined[other.inputs[0]] in {joined[name] for name in row.inputs}]
            raise InputError(f"skip: {row.name} cannot stay in high precision while {', '.join(readers[:4])} read both of its inputs in int8")
    computed = [row.name for row in network.rows if row.op in ("image", "conv", "add") and row.name not in network.heads]
    if skipped <= network.heads:
        # What Detect's convolutions read gets a scale, too, for deployables that are int8 from the picture to the logits. No other one reads it.
        needed |= {joined[row.inputs[0]] for row in candidates if row.name in network.heads}
    order = [name for name in joined if name in needed]
    return Placement(rows, {group: tuple(name for name in computed if joined[name] == group) for group in order})
