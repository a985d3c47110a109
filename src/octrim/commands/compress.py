"""`octrim compress`."""

from __future__ import annotations

from dataclasses import dataclass

from octrim.compression.options import Compression


@dataclass(frozen=True)
class Compress(Compression):
    """From a detector to a small one: train, sparsify if asked to, cut, fine-tune, export, bench; each stage evaluated, all of it resumable."""

    def run(self) -> None:
        from octrim.compression.pipeline import run_compression

        run_compression(self)
