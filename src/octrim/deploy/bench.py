"""Networks side by side, interleaved in one process."""

from __future__ import annotations

import csv
import io
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from rich.progress import track
from rich.table import Table

from octrim.atomic import write_text
from octrim.data.pictures import read_picture
from octrim.data.scenes import drawn_scene
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.evaluate.nms import non_max_suppression
from octrim.machine import usable_cores
from octrim.network.cost import Cost, network_cost
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.runs import Run, new_run

if TYPE_CHECKING:
    from octrim.commands import Bench

STAGES = ("pre", "network", "post", "total")


@dataclass
class Contestant:
    """One network in the comparison. graphs: for an engine, whether it runs as a CUDA graph or is enqueued layer by layer; else None.

    seconds: per stage, one entry per round.
    """

    name: str
    detector: Detector
    cost: Cost | None
    file_bytes: int | None
    graphs: bool | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def round(self, image: np.ndarray, batch: int, keep: bool) -> None:
        """Run one batch of equal pictures; its times per stage are kept where `keep`."""
        session: Any = self.detector.session
        if self.graphs is not None:  # one session serves both ways
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
        """How an engine really ran, see `TensorrtFileSession.execution`; None for what is no engine."""
        session: Any = self.detector.session
        if self.graphs is None:
            return None
        session.graphs = self.graphs
        return session.execution(batch)


def turns(count: int, iterations: int, burst: int = 5) -> Iterator[tuple[int, bool]]:
    """The order in which `count` candidates take turns: (which one, whether its run is timed), `iterations` timed runs each.

    Candidates alternate in short bursts, so that a busy moment of the machine hits all of them. The first run of a burst is not timed:
    it finds the caches, and perhaps still spinning threads, of the candidate before it.
    """
    for number, start in enumerate(range(0, iterations, burst)):
        for offset in range(count):
            which = (number + offset) % count
            yield which, False
            yield from [(which, True)] * min(burst, iterations - start)


def bench(contestants: Sequence[Contestant], image: np.ndarray, iterations: int = 100, warmup: int = 10, batch: int = 1) -> None:
    """Fill in the contestants' times: `iterations` timed rounds each, after `warmup` untimed ones."""
    order = list(turns(len(contestants), iterations))
    for contestant in contestants:
        for _ in range(warmup):
            contestant.round(image, batch, keep=False)
    for which, timed in track(order, description="bench", transient=True, disable=not sys.stdout.isatty()):
        contestants[which].round(image, batch, keep=timed)


def results(contestants: Sequence[Contestant], batch: int) -> list[dict[str, Any]]:
    """One dictionary per network: sizes, milliseconds per batch (p50, p90, p99 per stage), speed-up against the first network.

    `speedup_per_mac_reduction` is 1 where all that was cut became speed.
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


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model\t")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bench_command(config: Bench) -> None:
    """`octrim bench`."""
    if config.iterations < 1 or config.warmup < 0 or not config.batch or not all(1 <= batch <= 4096 for batch in config.batch):
        counts = " ".join(map(str, config.batch))
        raise InputError(f"iterations {config.iterations}, warmup {config.warmup} and batch {counts} must be at least 1, 0 and 1")
    image = read_picture(config.source) if config.source else drawn_scene(0)
    entered = _entered(config)
    rows: list[dict[str, Any]] = []
    for batch in config.batch:
        contestants = [replace(one, seconds={stage: [] for stage in STAGES}) for one in entered]
        bench(contestants, image, config.iterations, config.warmup, batch)
        rows += results(contestants, batch)
    header = _header(config, entered)
    run = new_run(config)
    _print(run, header, rows)
    write_text(run.path / "bench.json", json.dumps({"header": header, "networks": rows}, indent=1))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, dict.fromkeys((*header, *rows[0])))
    writer.writeheader()
    writer.writerows({**header, **row} for row in rows)
    write_text(run.path / "bench.csv", buffer.getvalue())
    run.print(f"results: {run.path}")


def _entered(config: Bench) -> list[Contestant]:
    """The networks, opened, at one picture size; an engine enters twice, as a CUDA graph and enqueued. Raises InputError where they differ."""
    weights: list[tuple[str, str | Model]] = [(name, name) for name in config.weights]
    if config.cfg is not None:
        weights.insert(0, (config.cfg, fresh_model(config.cfg, seed=config.seed)))
    if not weights:
        raise InputError("give --weights (one or more networks) or --cfg")
    contestants: list[Contestant] = []
    size = config.imgsz
    for name, source in weights:
        detector = Detector(source, size, config.conf, config.iou, runtime=config.runtime, precision=config.precision, threads=config.threads)
        if detector.info.batch is not None and any(batch != detector.info.batch for batch in config.batch):
            raise InputError(f"{name}: was built for batches of {detector.info.batch}; use --batch {detector.info.batch}")
        low, high = detector.info.batches or (1, max(config.batch))
        if not low <= min(config.batch) <= max(config.batch) <= high:
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


def _header(config: Bench, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Where and how it was measured."""
    detector = contestants[0].detector
    info = [contestant.detector.info for contestant in contestants]
    header = {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": config.threads or usable_cores(),
        "runtime": ", ".join(dict.fromkeys(f"{one.runtime} {one.version}" for one in info)),
        "precision": ", ".join(dict.fromkeys(one.precision for one in info)),
        "system": platform.platform(),
        "height": detector.height,
        "width": detector.width,
        "batch": config.batch[0] if len(config.batch) == 1 else list(config.batch),
        "iterations": config.iterations,
    }
    engines = [contestant.detector.session for contestant in contestants if contestant.graphs is not None]
    if engines:
        from octrim.targets.tensorrt.cuda import nvidia_smi

        gpu = cast(Any, engines[0]).gpu
        header |= {"gpu": gpu.name, "compute_capability": gpu.capability, "cuda": gpu.cuda, "cuda_driver": gpu.driver}
        header |= {f"gpu_{key}": value for key, value in nvidia_smi().items() if key != "name"}
    return header


def _file_bytes(weights: str | Model) -> int | None:
    if isinstance(weights, Model):
        return None
    path = Path(weights)
    if path.suffix == ".xml":
        return sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def _print(run: Run, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A table per batch size; engines also side by side, a line each."""
    run.print(f"{header['processor']}, {header['threads']} threads, {header['runtime']}, {header['precision']}")
    if "gpu" in header:
        smi = ", ".join(f"{key.removeprefix('gpu_').replace('_', ' ')} {value}" for key, value in header.items() if key.startswith("gpu_"))
        about = f"{header['gpu']} (compute capability {header['compute_capability']}), CUDA {header['cuda']}, driver's CUDA {header['cuda_driver']}"
        run.print(f"{about}{', ' + smi if smi else ''}")
    for batch in dict.fromkeys(row["batch"] for row in rows):
        run.print(f"{header['height']}x{header['width']}, batch {batch}, {header['iterations']} rounds, milliseconds per batch")
        run.print(_table([row for row in rows if row["batch"] == batch]))
    engines = [row for row in rows if row["execution"] is not None]
    if engines:
        run.print(_engines(engines))


def _table(rows: list[dict[str, Any]]) -> Table:
    """A column per network, so that paths and many networks still fit a terminal."""
    table = Table(caption="per MAC cut: speed-up / MAC reduction; 1 where every cut MAC became speed")
    table.add_column("")
    for row in rows:
        kind = f" {row['execution'].partition(':')[0]}" if row["execution"] else ""
        table.add_column("/".join(Path(row["name"]).parts[-2:]) + kind, justify="right", overflow="fold")
    lines: list[tuple[str, str, str, float]] = [
        ("parameters", "parameters", "{:,.0f}", 1),
        ("MACs, M", "macs", "{:,.1f}", 1e-6),
        ("file, MB", "file_bytes", "{:.2f}", 1e-6),
        *((f"{stage} {label}", f"{stage}_{label}_ms", "{:.2f}", 1) for stage in STAGES for label in ("p50", "p90", "p99")),
        ("pictures/s", "pictures_per_second", "{:.1f}", 1),
        ("speed-up, network", "network_speedup", "{:.2f}x", 1),
        ("speed-up, total", "total_speedup", "{:.2f}x", 1),
        ("MAC reduction", "mac_reduction", "{:.2f}x", 1),
        ("speed-up per MAC cut", "speedup_per_mac_reduction", "{:.2f}", 1),
    ]
    for label, key, style, factor in lines:
        table.add_row(
            label, *("" if row[key] is None else style.format(row[key] * factor) for row in rows), end_section=label.endswith(("MB", "p99"))
        )
    return table


def _engines(rows: list[dict[str, Any]]) -> Table:
    """Engines: how a batch was launched, and what it took."""
    table = Table()
    for name in ("engine", "batch", "launched as", "network p50", "p90", "p99", "pictures/s"):
        table.add_column(name, justify="left" if name in ("engine", "launched as") else "right", overflow="fold")
    for row in rows:
        times = (f"{row[f'network_{label}_ms']:.3f}" for label in ("p50", "p90", "p99"))
        table.add_row("/".join(Path(row["name"]).parts[-2:]), str(row["batch"]), row["execution"], *times, f"{row['pictures_per_second']:.1f}")
    return table
