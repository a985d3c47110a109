"""Compiled training steps at work: one program per shape of batch, the memory that they share, and a step's forward and backward pass."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from octrim.backends.onednn import library as dnn
from octrim.backends.onednn.library import RefusedError
from octrim.backends.onednn.memory_plan import PROGRAMS_KEPT, aligned_block
from octrim.backends.onednn.program import TrainingProgram
from octrim.network.rows import Network


class Programs:
    """The programs of one network by shape, and the blocks of memory that they share."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._programs: OrderedDict[Any, TrainingProgram | None] = OrderedDict()
        self._blocks: list[np.ndarray] = []

    def __deepcopy__(self, memo: object) -> Programs:
        return Programs(self.network)

    def __reduce__(self) -> Any:
        return Programs, (self.network,)

    def find(self, shape: tuple[int, ...], frozen: frozenset[str], features: bool) -> TrainingProgram | None:
        """The program for batches of this shape; None where oneDNN cannot run it."""
        if dnn.library() is None:
            return None
        key = shape, frozen, features
        if key not in self._programs:
            try:
                self._programs[key] = TrainingProgram(self.network, shape, frozen, features)
            except RefusedError:
                self._programs[key] = None
            if len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def take(self, size: int) -> np.ndarray:
        """A page-aligned block of at least `size` bytes that no other run uses."""
        while self._blocks:
            block = self._blocks.pop()
            if block.nbytes >= size:
                return block
        return aligned_block(size)

    def give_back(self, block: np.ndarray) -> None:
        self._blocks.append(block)


class TrainingPass:
    """One forward pass and, once, its backward pass.

    Tensors from outside come as addresses of contiguous float32, by their names in `TrainingProgram`.
    """

    def __init__(self, programs: Programs, program: TrainingProgram) -> None:
        self.program, self._programs = program, programs
        self._block: np.ndarray | None = None

    def forward(self, addresses: Mapping[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Run the forward pass, which writes the outputs. Returns mean and biased variance of the batch by row, valid until the backward pass."""
        self._block = block = self._programs.take(self.program.bytes)
        self.program.execute(self.program.forward, block.ctypes.data, addresses)
        return {
            row: (block[mean : mean + 4 * size].view(np.float32), block[variance : variance + 4 * size].view(np.float32))
            for row, (mean, variance, size) in self.program.moments.items()
        }

    def backward(self, addresses: Mapping[str, int]) -> None:
        """Run the backward pass, which writes the gradients of the parameters."""
        if self._block is None:
            raise RuntimeError("the backward pass of a training step runs once: its maps are gone (retain_graph has no effect here)")
        self.program.execute(self.program.backward, self._block.ctypes.data, addresses)
        self.end()

    def end(self) -> None:
        if self._block is not None:
            self._programs.give_back(self._block)
            self._block = None
