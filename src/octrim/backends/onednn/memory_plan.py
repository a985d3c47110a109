"""Memory plan: places in one block of memory for the maps that a list of steps reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from octrim.backends.onednn.library import Memory, PrimitiveCall

PROGRAMS_KEPT = 48
"""Compiled programs that one network keeps: multi-scale training at 640 px has 21 sizes, each with full and last batches."""

_PAGE = 4096


@dataclass(frozen=True)
class NumpyStep:
    """A step that is a function in NumPy instead of a oneDNN operation."""

    run: Callable[[], None]
    memories: tuple[Memory, ...]
    kind: str = "statistics"

    def __call__(self) -> None:
        self.run()


def places(
    steps: Sequence[PrimitiveCall | NumpyStep], forward: int, kept: Sequence[Memory], outside: set[int]
) -> tuple[int, list[tuple[Memory, int]]]:
    """Size in bytes of a block, and a list of (map, offset), such that no two maps that are needed at the same time overlap.

    forward: number of steps of the forward pass. kept: statistics, which are read between the passes. outside: ids of memories that lie elsewhere.
    Places are chosen by first fit in the order of the steps.
    """
    last: dict[int, int] = {id(memory): forward for memory in kept}
    for index, step in enumerate(steps):
        for memory in (memory.root for memory in step.memories):
            last[id(memory)] = max(index, last.get(id(memory), 0))
    free: list[tuple[int, int]] = [(0, 1 << 60)]  # (offset, bytes), by offset
    placed: dict[int, tuple[Memory, int, int]] = {}
    total = 0
    for index, step in enumerate(steps):
        for memory in (memory.root for memory in step.memories):
            if id(memory) in placed or id(memory) in outside:
                continue
            size = -(-memory.description.bytes // _PAGE) * _PAGE
            slot = next(number for number, (_, room) in enumerate(free) if room >= size)
            offset, room = free[slot]
            free[slot] = (offset + size, room - size)
            placed[id(memory)] = memory, offset, size
            total = max(total, offset + size)
        for memory in {id(memory.root): memory.root for memory in step.memories}.values():
            if last[id(memory)] == index and id(memory) in placed:
                _, offset, size = placed[id(memory)]
                free = _joined(sorted([*free, (offset, size)]))
    return total, [(memory, offset) for memory, offset, _ in placed.values()]


def _joined(free: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for offset, size in free:
        if joined and joined[-1][0] + joined[-1][1] == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        elif size:
            joined.append((offset, size))
    return joined


def aligned_block(size: int) -> np.ndarray:
    """Memory of `size` bytes that begins at a page."""
    block = np.empty(size + _PAGE, np.uint8)
    return block[-block.ctypes.data % _PAGE :][:size]
