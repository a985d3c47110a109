"""Stages, between which threads wait for each other, and the chunks of a stage, which do not depend on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from octrim.targets.c.bands import Bands, halo
from octrim.targets.c.lowering import Kind, Op
from octrim.targets.c.maps import Map

# Number of chunks that a stage aims at, and of pixels below which a chunk is too short.
_WANTED, _FEWEST_PIXELS = 8, 192


@dataclass(frozen=True)
class Stage:
    """Steps that a thread does one after the other for one chunk.

    size: rows of the smallest map per chunk, or channels with `planes`. extent: number of these rows or channels in all; split: in the first band.
    """

    ops: tuple[Op, ...]
    chunks: int
    size: int
    extent: int
    split: int
    planes: bool


def scheduled(ops: Sequence[Op], bands: Bands) -> list[Stage]:
    """All steps in stages; sets the stages in which every map is needed."""
    producer = {op.out: op for op in ops if op.out is not None}
    members: list[list[Op]] = []
    for op in ops:
        first = max((producer[m].stage + (0 if _follows(op, m, producer[m]) else 1) for m in op.reads), default=0)
        while first < len(members) and not _fits(op, members[first]):
            first += 1
        if first == len(members):
            members.append([])
        members[first].append(op)
        op.stage = first
    for op in ops:
        if op.out is not None:
            op.out.first = op.out.last = op.stage
    for op in ops:
        for m in op.reads:
            m.last = max(m.last, op.stage)
    return [_stage(group, bands) for group in members]


def _follows(op: Op, m: Map, producer: Op) -> bool:
    """Whether a step may come behind the one that makes `m` without waiting for the other chunks."""
    if Kind.POOL in (op.kind, producer.kind):
        return op.kind == producer.kind
    by_windows = op.reads[:-1] if op.add is m else op.reads
    return op.near or m not in by_windows


def _fits(op: Op, group: Sequence[Op]) -> bool:
    """Whether a step can be shared out by the same chunks: pools by channels, all else by rows of which the smallest map's are whole multiples."""
    if not group:
        return True
    if Kind.POOL in (op.kind, group[0].kind):
        return op.kind == group[0].kind and op.rows == group[0].rows
    rows = [other.rows for other in group] + [op.rows]
    return all(count % min(rows) == 0 for count in rows)


def _stage(group: Sequence[Op], bands: Bands) -> Stage:
    if group[0].kind == Kind.POOL:
        channels = group[0].rows
        size = -(-channels // min(_WANTED, channels))
        return Stage(tuple(group), -(-channels // size), size, channels, channels, True)
    base = min(op.rows for op in group)
    split = bands.rows(base)
    size = _rows_per_chunk(group, base, split)
    return Stage(tuple(group), bands.count * -(-split // size), size, base, split, False)


def _rows_per_chunk(group: Sequence[Op], base: int, split: int) -> int:
    """Rows of the smallest map in a chunk: about `_WANTED` chunks in all, none too short, at least one for each band."""
    align = 1
    for op in group:
        if op.narrow and op.kind == Kind.WINOGRAD:
            return split
        if op.kind in (Kind.STEM, Kind.WINOGRAD):  # these make tiles of four rows
            align = math.lcm(align, 4 // math.gcd(4, op.rows // base))
    # Splits halve rows, so these are whole; a width is that of the widest map, in pixels per row of the smallest.
    widest = max(op.rows // base * _width(op) for op in group)
    size = max(base // _WANTED, -(-_FEWEST_PIXELS // widest))
    count = max(1, round(split / size))
    even = [chunks for chunks in range(1, split // align + 1) if split % (chunks * align) == 0 and count <= 2 * chunks <= 4 * count]
    if even:
        count = min(even, key=lambda chunks: abs(math.log(chunks / count)))
    size = min(-(-split // (count * align)) * align, split)
    reach = max(-(-halo(op)[0] * base // op.rows) for op in group)
    while size < split and not all(size >= reach and (rows % size == 0 or rows % size >= reach) for rows in (split, base - split)):
        size = min(size + align, split)  # only the first and the last chunk of a band fetch rows of the other one
    return size


def _width(op: Op) -> int:
    m = op.out or op.reads[0]
    return m.width
