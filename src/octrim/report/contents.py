"""What a run's folder holds, in plain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octrim.stages import STAGES

TITLES = {stage.network: stage.shown for stage in STAGES if stage.network}
"""What people read instead of the names of networks in summary.json."""


@dataclass(frozen=True)
class Row:
    """A network in the summary. Times are milliseconds per picture, None where nothing was timed; map: mAP50-95.

    latency_c, speedup_c: in C; every speed-up is over the original in OpenVINO.
    """

    key: str
    parameters: int
    macs: int
    channels: int
    file_bytes: int
    map50: float
    map: float
    interval: tuple[float, float]
    epochs: int | None
    latency: float | None = None
    speedup: float | None = None
    latency_c: float | None = None
    speedup_c: float | None = None

    @property
    def title(self) -> str:
        return TITLES[self.key]


@dataclass(frozen=True)
class ClassScore:
    name: str
    objects: int
    map50: float | None
    map: float | None


@dataclass(frozen=True)
class Metrics:
    """metrics.json; scores are None where there is nothing to measure."""

    map: float | None
    map50: float | None
    precision: float | None
    recall: float | None
    interval: tuple[float, float] | None
    images: int
    objects: int
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """Precision `[recalls]` of one class at IoU .5."""

    name: str
    ap50: float
    precision: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A convolution in the plan; what is said of its group stands with every member. reason: why it is kept whole, or None."""

    name: str
    before: int
    after: int
    coupled: tuple[str, ...]
    removed: float
    macs: tuple[int, int]
    reason: str | None


@dataclass(frozen=True)
class Cut:
    """plan.json; pairs are before and after."""

    layers: tuple[Layer, ...]
    channels: tuple[int, int]
    parameters: tuple[int, int]
    macs: tuple[int, int]


@dataclass(frozen=True)
class Timing:
    """A network in bench.json. stages: milliseconds per batch, p50, p90 and p99 of pre, network, post and total."""

    name: str
    batch: int
    stages: Mapping[str, tuple[float, ...]]
    speedup: float
    pictures_per_second: float


@dataclass(frozen=True)
class Bench:
    """bench.json. c: of a compression, the original in OpenVINO and both networks in C, where they were timed."""

    machine: str
    timings: tuple[Timing, ...]
    c: Bench | None = None


@dataclass(frozen=True)
class Parity:
    """An entry of export.json."""

    name: str
    format: str
    precision: str
    bytes: int
    pictures: int
    reference: str
    runtime: str
    score_error: float
    box_error: float


@dataclass(frozen=True, eq=False)
class Scales:
    """Sparsity training: channels per bin of scales between 0 and `top`, int `[epochs + 1, bins]`, and the dead share after each epoch."""

    top: float
    counts: np.ndarray
    dead: tuple[float, ...]


@dataclass(frozen=True)
class Games:
    """Of Pong, that a network has played. interval: 95 % of the share that it wins. points: its own, and the other's. recall: of the ball."""

    key: str
    games: int
    wins: int
    interval: tuple[float, float]
    points: tuple[int, int]
    latency: float
    recall: float | None

    @property
    def title(self) -> str:
        return TITLES[self.key]


@dataclass(frozen=True, eq=False)
class Part:
    """One folder: a run, or a stage of one. key: of its network in the summary, which has a colour."""

    key: str
    title: str
    folder: Path
    results: Mapping[str, np.ndarray] | None
    metrics: Metrics | None
    curves: tuple[ClassCurve, ...] | None
    cut: Cut | None
    bench: Bench | None
    exports: tuple[Parity, ...] | None
    scales: Scales | None

    @property
    def weights(self) -> Path | None:
        """The network that came out of it."""
        return next((path for name in ("best", "model") if (path := self.folder / f"{name}.safetensors").is_file()), None)


@dataclass(frozen=True, eq=False)
class Contents:
    """A run. command: what made it. seconds: per stage. cuts: criterion and repairs of each. match: opponent and games, where Pong was played."""

    folder: Path
    command: str
    config: Mapping[str, Any]
    parts: tuple[Part, ...]
    rows: tuple[Row, ...]
    seconds: Mapping[str, float]
    cuts: tuple[tuple[str, tuple[str, ...]], ...]
    match: tuple[str, tuple[Games, ...]] | None = None

    def part(self, key: str) -> Part | None:
        return next((part for part in self.parts if part.key == key), None)

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)
