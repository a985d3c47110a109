"""What a compression came to: `summary.json`, and the table that people read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from octrim.compression.options import Compression
from octrim.compression.presets import Preset
from octrim.compression.stages import Stage

_ELSEWHERE = ("project", "name", "exist_ok", "resume", "workers", "cache", "device")
"""Options that change no result."""


def summarised(config: Compression, preset: Preset, results: Mapping[str, dict[str, Any]], stages: list[Stage]) -> dict[str, Any]:
    """The content of summary.json. results: stage.json's, by the stages' titles. All times stand under `times`, milliseconds per picture and seconds.

    The latency of the cut network and of the control is the fine-tuned one's, that of the sparse network the original's: their tables are the same.
    """
    rows = {stage.label: results[stage.title]["row"] for stage in stages if stage.label is not None}
    measured = results["bench"]["bench"]
    of = {"original": "original", "sparse": "original", "cut": "finetuned", "finetuned": "finetuned", "control": "finetuned"}
    times: dict[str, Any] = {"seconds": {title: result["seconds"] for title, result in results.items()}}
    times["latency_ms"] = {label: measured[of[label]]["network_p50_ms"] for label in rows}
    times["latency_total_ms"] = {label: measured[of[label]]["total_p50_ms"] for label in rows}
    times["speedup"] = {label: measured[of[label]]["network_speedup"] for label in rows}
    times["speedup_total"] = {label: measured[of[label]]["total_speedup"] for label in rows}
    if "match" in results:  # which depends on the latency that was measured
        times["match"] = results["match"]["match"]
    settings = {name: value for name, value in asdict(config).items() if name not in _ELSEWHERE} | asdict(preset)
    settings["criterion"] = config.criterion  # as asked for; what each cut was made by stands with it
    epochs = {"train": preset.train_epochs, "sparsify": preset.sparsify_epochs, "between_cuts": (preset.iterations - 1) * preset.step_epochs}
    epochs |= {"finetune": preset.finetune_epochs, "all": preset.whole}
    return {
        "stages": rows,
        "export": results["export"]["export"],
        "epochs": epochs,
        "seed": config.seed,
        "settings": settings,
        "cuts": results["prune"]["cuts"],
        "times": times,
    }


def table(summary: Mapping[str, Any], size: int) -> Table:
    """For people: a row per network."""
    caption = f"{size} px; mAP on the val part, 95 % interval over resampled pictures; latency of the network, p50, batch 1, OpenVINO fp32"
    result = Table(title="Compression", caption=caption)
    result.add_column("network", no_wrap=True)
    for name in ("parameters", "MACs, M", "channels", "file, MB", "epochs", "mAP50", "mAP50-95", "95 % interval", "latency, ms", "speed-up"):
        result.add_column(name, justify="right")
    times = summary["times"]
    games = times.get("match")
    if games:
        result.add_column("games won", justify="right")
    for label, row in summary["stages"].items():
        sizes = (f"{row['parameters']:,}", f"{row['macs'] / 1e6:,.1f}", f"{row['channels']:,}", f"{row['file_bytes'] / 1e6:.2f}", f"{row['epochs']}")
        found = (f"{row['mAP50']:.3f}", f"{row['mAP50-95']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]))
        speed = (f"{times['latency_ms'][label]:.2f}", f"{times['speedup'][label]:.2f}x")
        name = "fine-tuned" if label == "finetuned" else label
        won = [f"{games[label]['wins']} of {games[label]['games']}" if label in games else ""] if games else []
        result.add_row(name, *sizes, *found, *speed, *won, style="bold" if label == "finetuned" else None)
    return result


def text(summary: Mapping[str, Any], size: int) -> str:
    """The table as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=150, markup=False, highlight=False).print(table(summary, size))
    return buffer.getvalue()
