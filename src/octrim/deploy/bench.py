"""Bench: times of several networks, which take turns in one process."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
from rich.console import Console

from octrim.deploy.options import BenchOptions
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.evaluate.nms import non_max_suppression
from octrim.machine import processor_name, usable_cores
from octrim.network.cost import Cost, network_cost
from octrim.network.model import Model
from octrim.progress import progress_bar
from octrim.shipped import network_file

STAGES = ("pre", "network", "post", "total")

_BURST = 5  # timed runs of one candidate in a row


@dataclass(frozen=True)
class Timings:
    """Measured times. header: the machine and the settings of the measurement. rows: a dictionary per network and batch, see `results`."""

    header: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass
class Contestant:
    """One network in the comparison. graphs: for an engine, whether it runs as a CUDA graph or is enqueued layer by layer; else None.

    seconds: measured seconds by stage, one entry per round.
    """

    name: str
    detector: Detector
    cost: Cost | None
    file_bytes: int | None
    graphs: bool | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def round(self, image: np.ndarray, batch: int, keep: bool) -> None:
        """Run one batch of equal pictures. keep: whether its times per stage are kept."""
        session: Any = self.detector.session
        if self.graphs is not None:  # one session runs both with and without a CUDA graph
            session.graphs = self.graphs
        start = perf_counter()
        pictures = np.concatenate([self.detector.prepare(image)[0] for _ in range(batch)])
        prepared = perf_counter()
        predictions = session(pictures)
        run = perf_counter()
        for picture in predictions:
            non_max_suppression(picture, **self.detector.options)
        end = perf_counter()
        if keep:
            for stage, value in zip(STAGES, (prepared - start, run - prepared, end - run, end - start), strict=True):
                self.seconds[stage].append(value)

    def execution(self, batch: int) -> str | None:
        """The way in which an engine really ran, see `TensorrtFileSession.execution`; None where the network is no engine."""
        session: Any = self.detector.session
        if self.graphs is None:
            return None
        session.graphs = self.graphs
        return session.execution(batch)


def turns(count: int, iterations: int) -> Iterator[tuple[int, bool]]:
    """The order in which `count` candidates take turns: (which one, whether its run is timed), `iterations` timed runs each.

    Candidates alternate in short bursts, so that a busy moment of the machine affects all of them. The first run of a burst is not timed, because
    caches are still filled by the candidate before it, whose threads may still be spinning.
    """
    for number, start in enumerate(range(0, iterations, _BURST)):
        for offset in range(count):
            which = (number + offset) % count
            yield which, False
            yield from [(which, True)] * min(_BURST, iterations - start)


def take_turns(
    contestants: Sequence[Contestant], image: np.ndarray, iterations: int, warmup: int, batch: int, console: Console | None = None
) -> None:
    """Measure all contestants: `iterations` timed rounds each, after `warmup` untimed ones; the times go into their `seconds`."""
    order = list(turns(len(contestants), iterations))
    for contestant in contestants:
        for _ in range(warmup):
            contestant.round(image, batch, keep=False)
    with progress_bar("bench", len(order), console) as bar:
        for which, timed in order:
            contestants[which].round(image, batch, keep=timed)
            bar.advance()


def results(contestants: Sequence[Contestant], batch: int) -> list[dict[str, Any]]:
    """One dictionary per network: sizes, milliseconds per batch (p50, p90, p99 per stage), speed-up against the first network.

    `speedup_per_mac_reduction` is 1 where the time fell as much as the MACs did.
    """
    first = contestants[0]
    rows: list[dict[str, Any]] = []
    for contestant in contestants:
        info = contestant.detector.info
        row: dict[str, Any] = {"name": contestant.name, "batch": batch, "execution": contestant.execution(batch)}
        row |= {"runtime": f"{info.runtime} {info.version}", "precision": info.precision, "file_bytes": contestant.file_bytes}
        row |= {key: getattr(contestant.cost, key, None) for key in ("parameters", "macs", "channels")}
        for stage in STAGES:
            values = 1000 * np.percentile(contestant.seconds[stage], (50, 90, 99))
            row |= {f"{stage}_{label}_ms": round(float(value), 4) for label, value in zip(("p50", "p90", "p99"), values, strict=True)}
        row["pictures_per_second"] = round(1000 * batch / row["total_p50_ms"], 2)
        for stage in ("network", "total"):
            row[f"{stage}_speedup"] = round(float(np.median(first.seconds[stage]) / np.median(contestant.seconds[stage])), 4)
        reduction = first.cost.macs / contestant.cost.macs if first.cost and contestant.cost else None
        row["mac_reduction"] = round(reduction, 4) if reduction else None
        row["speedup_per_mac_reduction"] = round(row["network_speedup"] / reduction, 4) if reduction else None
        rows.append(row)
    return rows


def compared(
    networks: Sequence[tuple[str, str | Path | Model]],
    options: BenchOptions,
    image: np.ndarray,
    console: Console | None = None,
    runtimes: Sequence[str | None] | None = None,
) -> Timings:
    """Time networks, each given with its name, on a picture (uint8 BGR `[height, width, 3]`); speed-ups are relative to the first network.

    console: console for a progress bar. runtimes: one for each network, in place of the one in the options. Raises InputError where there is no
    network, and for networks that do not run at one size and batch.
    """
    entered = _entered(networks, options, [options.runtime] * len(networks) if runtimes is None else runtimes)
    rows: list[dict[str, Any]] = []
    for batch in options.batch:
        contestants = [replace(one, seconds={stage: [] for stage in STAGES}) for one in entered]
        take_turns(contestants, image, options.rounds, options.warmup, batch, console)
        rows += results(contestants, batch)
    return Timings(_header(options, entered), rows)


def _entered(networks: Sequence[tuple[str, str | Path | Model]], options: BenchOptions, runtimes: Sequence[str | None]) -> list[Contestant]:
    """The networks opened at one picture size; an engine enters twice, as a CUDA graph and enqueued. Raises InputError where sizes differ."""
    if not networks:
        raise InputError("give --weights (one or more networks) or --cfg")
    contestants: list[Contestant] = []
    size = options.imgsz
    for (name, source), runtime in zip(networks, runtimes, strict=True):
        detector = Detector(
            source,
            size,
            options.conf,
            options.iou,
            runtime=runtime,
            precision=options.precision,
            threads=options.threads,
            device=options.device,
        )
        if detector.info.batch is not None and any(batch != detector.info.batch for batch in options.batch):
            raise InputError(f"{name}: was built for batches of {detector.info.batch}; use --batch {detector.info.batch}")
        low, high = detector.info.batches or (1, max(options.batch))
        if not low <= min(options.batch) <= max(options.batch) <= high:
            raise InputError(f"{name}: was built for batches of {low} to {high}")
        first = contestants[0].detector if contestants else detector
        if (detector.height, detector.width) != (first.height, first.width):
            raise InputError(
                f"{name}: runs at {detector.height}x{detector.width} where {contestants[0].name} runs at {first.height}x{first.width}; "
                f"choose an --imgsz that all can take"
            )
        size = (first.height, first.width)
        detector.rectangular = False
        cost = network_cost(detector.info.network, detector.height, detector.width) if detector.info.network else None
        ways = (True, False) if detector.info.runtime == "tensorrt" else (None,)
        contestants += [Contestant(name, detector, cost, _file_bytes(source), graphs) for graphs in ways]
    return contestants


def _header(options: BenchOptions, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """The machine, the runtimes and the settings of a measurement."""
    detector = contestants[0].detector
    info = [contestant.detector.info for contestant in contestants]
    header = {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": options.threads or usable_cores(),
        "runtime": ", ".join(dict.fromkeys(f"{one.runtime} {one.version}" for one in info)),
        "precision": ", ".join(dict.fromkeys(one.precision for one in info)),
        "system": platform.platform(),
        "height": detector.height,
        "width": detector.width,
        "batch": options.batch[0] if len(options.batch) == 1 else list(options.batch),
        "iterations": options.rounds,
    }
    engines = [contestant.detector.session for contestant in contestants if contestant.graphs is not None]
    if engines:
        from octrim.targets.tensorrt.cuda import nvidia_smi

        gpu = cast(Any, engines[0]).gpu
        header |= {"gpu": gpu.name, "compute_capability": gpu.capability, "cuda": gpu.cuda, "cuda_driver": gpu.driver}
        header |= {f"gpu_{key}": value for key, value in nvidia_smi().items() if key != "name"}
    return header


def _file_bytes(weights: str | Path | Model) -> int | None:
    if isinstance(weights, Model):
        return None
    path = network_file(weights)
    if path.suffix == ".xml":
        return sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
