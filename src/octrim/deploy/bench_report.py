"""Results of a bench as tables for people, and as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from octrim.atomic import write_text
from octrim.deploy.bench import STAGES, Timings
from octrim.errors import counted
from octrim.runs import Run


def write_bench(found: Timings, folder: Path, more: Mapping[str, Timings] | None = None) -> None:
    """Write `bench.json` and `bench.csv`. more: further measurements, each under its name in `bench.json`."""
    content: dict[str, Any] = {"header": found.header, "networks": found.rows}
    content |= {name: {"header": one.header, "networks": one.rows} for name, one in (more or {}).items()}
    write_text(folder / "bench.json", json.dumps(content, indent=1))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, dict.fromkeys((*found.header, *found.rows[0])))
    writer.writeheader()
    writer.writerows({**found.header, **row} for row in found.rows)
    write_text(folder / "bench.csv", buffer.getvalue())


def show_bench(found: Timings, run: Run) -> None:
    """Print a table per batch size, and for engines another one with a line for each."""
    header, rows = found.header, found.rows
    run.print(f"{header['processor']}, {counted(header['threads'], 'thread')}, {header['runtime']}, {header['precision']}")
    if "gpu" in header:
        smi = ", ".join(f"{key.removeprefix('gpu_').replace('_', ' ')} {value}" for key, value in header.items() if key.startswith("gpu_"))
        about = f"{header['gpu']} (compute capability {header['compute_capability']}), CUDA {header['cuda']}, driver's CUDA {header['cuda_driver']}"
        run.print(f"{about}{', ' + smi if smi else ''}")
    for batch in dict.fromkeys(row["batch"] for row in rows):
        run.print(f"{header['height']}x{header['width']}, batch {batch}, {counted(header['iterations'], 'round')}, milliseconds per batch")
        run.print(_table([row for row in rows if row["batch"] == batch]))
    engines = [row for row in rows if row["execution"] is not None]
    if engines:
        run.print(_engines(engines))


def _table(rows: list[dict[str, Any]]) -> Table:
    """Table with a column per network, so that long paths and many networks still fit a terminal."""
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
    """Table of engines: how a batch was launched, and the times that it took."""
    table = Table()
    for name in ("engine", "batch", "launched as", "network p50", "p90", "p99", "pictures/s"):
        table.add_column(name, justify="left" if name in ("engine", "launched as") else "right", overflow="fold")
    for row in rows:
        times = (f"{row[f'network_{label}_ms']:.3f}" for label in ("p50", "p90", "p99"))
        table.add_row("/".join(Path(row["name"]).parts[-2:]), str(row["batch"]), row["execution"], *times, f"{row['pictures_per_second']:.1f}")
    return table
