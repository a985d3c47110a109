"""Contents of a run's folder, in plain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octrim.stages import STAGES

TITLES = {stage.network: stage.shown for stage in STAGES if stage.network}
"""Titles that people read instead of the names of networks in summary.json."""


@dataclass(frozen=True)
class SummaryRow:
    """A network in the summary.

    map: mAP50-95. interval: ends of its interval. latency, latency_c: milliseconds per picture, latency_c in C. speedup, speedup_c: speed-up over
    the original in OpenVINO, speedup_c in C. Latencies and speed-ups are None where nothing was timed.
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
    """Scores of one class in metrics.json, None where there is nothing to measure. objects: number of its objects. map: mAP50-95."""

    name: str
    objects: int
    map50: float | None
    map: float | None


@dataclass(frozen=True)
class Metrics:
    """Contents of metrics.json; scores are None where there is nothing to measure.

    map: mAP50-95. interval: ends of its interval. weights: name of the file in the same folder that was evaluated; None where metrics.json does not
    say it, as in runs of OcTrim 0.1.
    """

    map: float | None
    map50: float | None
    precision: float | None
    recall: float | None
    interval: tuple[float, float] | None
    images: int
    objects: int
    classes: tuple[ClassScore, ...]
    weights: str | None = None


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """Precision-recall curve of one class at IoU .5. precision: float64 `[recalls]`, at equally spaced recalls from 0 to 1."""

    name: str
    ap50: float
    precision: np.ndarray


@dataclass(frozen=True)
class PlannedConv:
    """A convolution in the plan.

    before, after: number of channels. coupled: the other convolutions of its group. removed: share of the group's importance that is removed.
    macs: MACs of the group before and after, of a dropped convolution its own. reason: why the convolution is kept whole or has gone as a whole, or
    None.
    """

    name: str
    before: int
    after: int
    coupled: tuple[str, ...]
    removed: float
    macs: tuple[int, int]
    reason: str | None


@dataclass(frozen=True)
class Cut:
    """Contents of plan.json. channels, parameters, macs: numbers before and after the cut. dropping: a line about dropped rows, or empty."""

    layers: tuple[PlannedConv, ...]
    channels: tuple[int, int]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    dropping: str = ""


@dataclass(frozen=True)
class TriedShape:
    """A shape that a search has tried.

    about: what it keeps and drops, for people. tries: epochs of each of its trials, and mAP50-95 after them. macs, parameters: of the network of its
    last trial. chosen: whether it got the long fine-tuning.
    """

    name: str
    about: str
    tries: tuple[tuple[int, float], ...]
    macs: int
    parameters: int
    chosen: bool


@dataclass(frozen=True)
class DroppedCandidate:
    """A block or level that could be dropped. saved: what the whole network costs less without it. map: mAP50-95 of the whole network without it and
    what was chosen before. strain: of the plan and all that is dropped, or None. chosen: whether it was dropped."""

    name: str
    saved: float
    map: float
    strain: float | None
    chosen: bool


@dataclass(frozen=True)
class DroppingChoice:
    """Contents of dropping.json. unit: of `saved`. pictures: number of pictures. map: mAP50-95 of the whole network. strain: of the plan with all of
    its rows, or None. candidates: what was chosen, in that order, then what was not, best first."""

    unit: str
    pictures: int
    map: float
    strain: float | None
    candidates: tuple[DroppedCandidate, ...]


@dataclass(frozen=True)
class Timing:
    """A network in bench.json. stages: p50, p90 and p99, in milliseconds per batch, of pre, network, post and total."""

    name: str
    batch: int
    stages: Mapping[str, tuple[float, ...]]
    speedup: float
    pictures_per_second: float


@dataclass(frozen=True)
class BenchResults:
    """Contents of bench.json. c: timings of the original in OpenVINO and of both networks in C, where a compression took them, or None. runtimes:
    timings of the small network in every runtime of the machine, likewise."""

    machine: str
    timings: tuple[Timing, ...]
    c: BenchResults | None = None
    runtimes: BenchResults | None = None


@dataclass(frozen=True)
class ProfiledLayer:
    """A layer in profile.json. what: a line that describes it. milliseconds: of one picture in C, on one thread. macs: its multiply-accumulates."""

    name: str
    what: str
    milliseconds: float
    macs: int


@dataclass(frozen=True)
class Parity:
    """An entry of export.json: an exported file, and how far its results are from the reference's."""

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
class ScaleHistograms:
    """Batch-norm scales in sparsity training.

    counts: number of channels per bin of scales between 0 and `top`, before training and after each epoch, int `[epochs + 1, bins]`. dead: share
    of dead channels after each epoch.
    """

    top: float
    counts: np.ndarray
    dead: tuple[float, ...]


@dataclass(frozen=True)
class Games:
    """Games of Pong that a network has played.

    interval: ends of the 95 % interval of the share of games that it wins. points: its own points, and the opponent's. latency: milliseconds.
    recall: recall of the ball, or None.
    """

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
class TrainingPart:
    """Contents of one folder: a run, or a stage of one. key: key of its network in the summary, which also chooses the colour. unlabelled: number of
    pictures without labels that joined the training, or None."""

    key: str
    title: str
    folder: Path
    results: Mapping[str, np.ndarray] | None
    metrics: Metrics | None
    curves: tuple[ClassCurve, ...] | None
    cut: Cut | None
    bench: BenchResults | None
    exports: tuple[Parity, ...] | None
    scales: ScaleHistograms | None
    unlabelled: int | None = None
    profile: tuple[ProfiledLayer, ...] | None = None

    @property
    def weights(self) -> Path | None:
        """The file of the network in the folder: the one that was evaluated, else best.safetensors or model.safetensors; None where there is none."""
        names = [self.metrics.weights] if self.metrics is not None and self.metrics.weights is not None else []
        return next((path for name in (*names, "best.safetensors", "model.safetensors") if (path := self.folder / Path(name).name).is_file()), None)


@dataclass(frozen=True, eq=False)
class Contents:
    """Contents of a run.

    command: the octrim command that made the run. seconds: duration of each stage. cuts: criterion and repairs of each cut. match: opponent and
    games, where Pong was played, or None. shapes: what a search has tried. choice: how blocks and levels to drop were chosen, or None.
    """

    folder: Path
    command: str
    config: Mapping[str, Any]
    parts: tuple[TrainingPart, ...]
    rows: tuple[SummaryRow, ...]
    seconds: Mapping[str, float]
    cuts: tuple[tuple[str, tuple[str, ...]], ...]
    match: tuple[str, tuple[Games, ...]] | None = None
    shapes: tuple[TriedShape, ...] = ()
    choice: DroppingChoice | None = None

    def part(self, key: str) -> TrainingPart | None:
        return next((part for part in self.parts if part.key == key), None)

    def row(self, key: str) -> SummaryRow | None:
        return next((row for row in self.rows if row.key == key), None)
