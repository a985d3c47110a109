"""Options of the building of a TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BuildProgress = Callable[[str, int, int], None]
"""Function that is called with the name of a phase of the build, its finished steps, and all its steps. Phases nest; TensorRT names them."""


@dataclass(frozen=True)
class EngineOptions:
    """Options of the building of a TensorRT engine.

    pad_channels: multiple that convolutions are padded to with zeros; results stay the same. workspace: GiB of GPU memory while building.
    builder_level: 0 (builds fast) to 5 (runs fast). timing_cache: file of kernel times, read and written, so that later builds are faster.
    progress: called during the build. high_precision: precision of everything in an int8 engine that is not int8: "fp16" or "fp32".
    """

    pad_channels: int = 1
    workspace: float = 1.0
    builder_level: int = 3
    timing_cache: str | Path | None = None
    progress: BuildProgress | None = None
    high_precision: str = "fp16"
