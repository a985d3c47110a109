"""Summary of a compression: the content of `summary.json`, and the table for people."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from octrim.compression.job import TIMES
from octrim.compression.options import Compression
from octrim.compression.planning import keep_of
from octrim.compression.presets import Preset
from octrim.stages import BENCH, EXPORT, FINETUNE, INT8, MATCH, PRUNE, SEARCH, STAGES, Stage

_ELSEWHERE = ("project", "name", "exist_ok", "resume", "workers", "cache", "device")
"""Options that change no result and are left out of the summary."""


def summarised(config: Compression, preset: Preset, results: Mapping[Stage, dict[str, Any]]) -> dict[str, Any]:
    """The content of summary.json. results: contents of the stages' stage.json.

    All times stand under `times`: latencies in milliseconds per picture, the stages' durations in seconds.
    The first and the fine-tuned network are timed, and a student that was cut; the others have the latency of the one with the same table. Where
    there was a C compiler, `times` has `c` with the same numbers in C, and speed-ups over the first network in OpenVINO.
    """
    networks = [stage for stage in results if stage.network]
    times: dict[str, Any] = {"seconds": {stage.title: result["seconds"] for stage, result in results.items()}}
    times |= _by_network(networks, results[BENCH]["bench"])
    if "bench_c" in results[BENCH]:
        times["c"] = _by_network(networks, results[BENCH]["bench_c"])
    if MATCH in results:  # under times, because the match depends on the measured latency
        times["match"] = results[MATCH]["match"]
    settings = {name: value for name, value in asdict(config).items() if name not in _ELSEWHERE} | asdict(preset)
    settings["keep"] = keep_of(config)  # which config.yaml, and with it a resumed run, has filled in
    settings["criterion"] = config.criterion  # the option as given; the criterion of each cut stands with the cut
    epochs = {"train": preset.train_epochs, "sparsify": preset.sparsify_epochs, "between_cuts": preset.epochs_of(PRUNE)}
    epochs |= {"cutting": preset.cut_epochs, "finetune": preset.finetune_epochs, "all": preset.whole}
    epochs |= {"student": preset.student_epochs} if preset.student_epochs else {}
    found: dict[str, Any] = {"unlabelled": results[FINETUNE]["unlabelled"]} if "unlabelled" in results[FINETUNE] else {}
    if SEARCH in results:
        found["search"] = results[SEARCH]["search"]
    if INT8 in results:
        found["int8"] = results[INT8]["int8"]
    return found | {
        "stages": {stage.network: results[stage]["row"] for stage in networks},
        "export": results[EXPORT]["export"],
        "epochs": epochs,
        "seed": config.seed,
        "settings": settings,
        "cuts": [] if preset.own_layout else results[FINETUNE if preset.cut_epochs else PRUNE]["cuts"],
        "times": times,
    }


def _by_network(networks: Sequence[Stage], measured: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Latencies and speed-ups of a bench by their names in summary.json, each a dictionary by network."""
    return {name: {stage.network: measured[stage.timed_as][key] for stage in networks} for name, key in TIMES.items()}


def table(summary: Mapping[str, Any], size: int) -> Table:
    """Table for people with a row per network."""
    caption = f"{size} px; mAP on the val part after the last epoch, 95 % interval over resampled pictures; latency p50, batch 1, OpenVINO fp32"
    activation = summary["settings"].get("activation")
    if activation is not None:
        caption = f"{caption}\nactivation of the fine-tuned network: {activation}; the cut network is timed with it"
    if "int8" in summary:
        caption = f"{caption}\nint8: the fine-tuned network in integers of eight bits, evaluated and timed so; its file has its weights in float32"
    result = Table(title="Compression", caption=caption)
    result.add_column("network", no_wrap=True)
    for name in ("parameters", "MACs, M", "channels", "file, MB", "epochs", "mAP50", "mAP50-95", "95 % interval", "latency, ms", "speed-up"):
        result.add_column(name, justify="right")
    times = summary["times"]
    games, in_c = times.get("match"), times.get("c")
    if in_c:
        result.add_column("C, ms", justify="right")
        result.add_column("speed-up", justify="right")
        result.caption = f"{caption}\nC: the network in C (octrim export --format c), and its speed-up over the original in OpenVINO"
    if games:
        result.add_column("games won", justify="right")
    shown = {stage.network: stage.shown for stage in STAGES}
    for label, row in summary["stages"].items():
        sizes = (f"{row['parameters']:,}", f"{row['macs'] / 1e6:,.1f}", f"{row['channels']:,}", f"{row['file_bytes'] / 1e6:.2f}", f"{row['epochs']}")
        found = (f"{row['mAP50']:.3f}", f"{row['mAP50-95']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]))
        speed = (f"{times['latency_ms'][label]:.2f}", f"{times['speedup'][label]:.2f}x")
        if in_c:
            speed += (f"{in_c['latency_ms'][label]:.2f}", f"{in_c['speedup'][label]:.2f}x")
        won = []
        if games:
            won = [f"{games[label]['wins']} of {games[label]['games']}" if label in games else ""]
        result.add_row(shown[label], *sizes, *found, *speed, *won, style="bold" if label == FINETUNE.network else None)
    return result


def text(summary: Mapping[str, Any], size: int) -> str:
    """The table as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=170, markup=False, highlight=False).print(table(summary, size))
    return buffer.getvalue()
