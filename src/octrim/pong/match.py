"""`octrim pong match`: a series of games, and what it says about its players."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from octrim.atomic import write_text
from octrim.errors import InputError
from octrim.machine import usable_cores
from octrim.pong.options import MatchOptions
from octrim.pong.recording import Recording
from octrim.pong.series import RECORDED, Result, Sight, play_series, sides_of
from octrim.pong.sides import NAMES, player
from octrim.runs import Run, new_run

__all__ = ["match", "player", "summary", "wilson"]

# What changes nothing about the games.
ELSEWHERE = ("project", "name", "exist_ok", "workers", "record")


def match(config: MatchOptions) -> None:
    """The command: plays the games and leaves a table and match.json. Raises InputError for what is no match, before a run folder exists."""
    specs = (config.left, config.right)
    measured = config.latency_ms is None and any(spec.startswith("vision:") for spec in specs)
    if measured and (config.workers or 1) > 1:
        raise InputError("games in several processes would disturb the latency that is measured; give --latency-ms, or leave --workers out")
    config.rules(config.rally_cap)
    detectors: dict[str, Any] = {}
    for side, spec in enumerate(specs):
        player(spec, side, config, detectors=detectors)
    workers = 1 if measured else min(config.workers or usable_cores(), config.games)
    recording = Recording(config.record, *RECORDED) if config.record is not None else None
    try:
        run = new_run(config)
        results = _played(config, run, workers, detectors, recording)
    finally:
        if recording is not None:
            recording.close()
    report = summary(config, results)
    write_text(run.path / "match.json", json.dumps(report, indent=1, ensure_ascii=False))
    run.print(_table(specs, report))
    sights = [(side, values) for side, values in report["vision"].items() if values]
    if sights:
        run.print(_sights(sights))
    rallies = report["rallies"]
    run.print(
        f"{len(results)} games, {report['draws']} drawn; {rallies['count']} rallies, {rallies['drawn']} drawn; hits per rally: "
        f"mean {rallies['mean']:.1f}, median {rallies['median']:g}, longest {rallies['longest']}"
    )
    run.print(f"results: {run.path}")


def _played(config: MatchOptions, run: Run, workers: int, detectors: dict[str, Any], recording: Recording | None) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    wins = [0, 0]
    with Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as progress:
        task = progress.add_task("match", total=config.games)

        def advance(result: Result) -> None:
            if result.winner is not None:
                wins[result.winner] += 1
            progress.update(task, advance=1, description=f"match {wins[0]}:{wins[1]}")

        return play_series(config, workers, detectors, recording, advance)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for a share (Wilson 1927): it also means something for 0 of 20 and 20 of 20."""
    z = statistics.NormalDist().inv_cdf(0.975)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def summary(config: MatchOptions, results: Sequence[Result]) -> dict[str, Any]:
    """What match.json holds. A drawn game is a win of nobody's; win rates are shares of all games."""
    games = len(results)
    wins = [sum(result.winner == side for result in results) for side in range(2)]
    points = [sum(result.score[side] for result in results) for side in range(2)]
    lengths = [length for result in results for length in result.rallies]
    return {
        "players": sides_of((config.left, config.right)),
        "wins": sides_of(wins),
        "draws": games - sum(wins),
        "games": games,
        "points": sides_of(points),
        "misses": sides_of(points[::-1]),  # a point is a ball that the other side let through
        "win_rate": {
            "left": wins[0] / games,
            "interval95": list(wilson(wins[0], games)),
            "right": wins[1] / games,
            "right_interval95": list(wilson(wins[1], games)),
            "method": "Wilson",
        },
        "rallies": {
            "count": len(lengths),
            "drawn": sum(result.drawn for result in results),
            "mean": statistics.fmean(lengths) if lengths else 0.0,
            "median": statistics.median(lengths) if lengths else 0.0,
            "longest": max(lengths, default=0),
        },
        "seconds": sum(result.seconds for result in results),
        "vision": sides_of([_sight_summary([result.sights[side] for result in results], config) for side in range(2)]),
        "per_game": [
            {
                "seed": result.seed,
                "winner": None if result.winner is None else NAMES[result.winner],
                "score": list(result.score),
                "rallies": result.rallies,
                "drawn_rallies": result.drawn,
                "seconds": result.seconds,
            }
            for result in results
        ],
        "config": {name: value for name, value in asdict(config).items() if name not in ELSEWHERE},
    }


def _sight_summary(sights: Sequence[Sight | None], config: MatchOptions) -> dict[str, Any] | None:
    """Over all games of one side; None for a player that does not look."""
    found = [sight for sight in sights if sight is not None]
    if not found:
        return None
    total = {name: sum(getattr(sight, name) for sight in found) for name in ("seen", "missed", "balls", "found", "false")}
    errors = [error for sight in found for error in sight.errors]
    latencies = [latency for sight in found for latency in sight.latencies]
    boxes = total["found"] + total["false"]
    return {
        "latency_ms": {"p50": _percentile(latencies, 50), "p90": _percentile(latencies, 90), "fixed": config.latency_ms is not None},
        "frames_seen": total["seen"],
        "frames_missed": total["missed"],
        "balls": total["balls"],
        "balls_found": total["found"],
        "false_balls": total["false"],
        "ball_recall": total["found"] / total["balls"] if total["balls"] else None,
        "ball_precision": total["found"] / boxes if boxes else None,
        "error_px": {"mean": statistics.fmean(errors) if errors else None, "p50": _percentile(errors, 50), "p90": _percentile(errors, 90)},
    }


def _percentile(values: Sequence[float], share: float) -> float | None:
    return float(np.percentile(values, share)) if values else None


def _table(specs: Sequence[str], report: dict[str, Any]) -> Table:
    table = Table()
    for name in ("", "player", "wins", "win rate", "95 %", "points", "misses"):
        table.add_column(name, justify="left" if name in ("", "player") else "right", overflow="fold")
    rates = report["win_rate"]
    for side, name in enumerate(NAMES):
        low, high = rates["right_interval95" if side else "interval95"]
        rate = (f"{rates[name]:.2f}", f"{low:.2f} .. {high:.2f}")
        table.add_row(name, _short(specs[side]), str(report["wins"][name]), *rate, str(report["points"][name]), str(report["misses"][name]))
    return table


def _short(spec: str) -> str:
    """The last two parts of a path tell networks apart."""
    kind, _, rest = spec.partition(":")
    return f"{kind}:{'/'.join(Path(rest).parts[-2:])}" if kind == "vision" else spec


def _sights(sights: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    table = Table()
    formats: list[tuple[str, Callable[[dict[str, Any]], float | None], str]] = [
        ("latency p50, ms", lambda sight: sight["latency_ms"]["p50"], "{:.1f}"),
        ("p90", lambda sight: sight["latency_ms"]["p90"], "{:.1f}"),
        ("frames seen", lambda sight: sight["frames_seen"], "{:,}"),
        ("missed", lambda sight: sight["frames_missed"], "{:,}"),
        ("ball recall", lambda sight: sight["ball_recall"], "{:.3f}"),
        ("precision", lambda sight: sight["ball_precision"], "{:.3f}"),
        ("error p50, px", lambda sight: sight["error_px"]["p50"], "{:.2f}"),
        ("p90", lambda sight: sight["error_px"]["p90"], "{:.2f}"),
    ]
    table.add_column("")
    for name, _, _ in formats:
        table.add_column(name, justify="right")
    for side, values in sights:
        table.add_row(side, *("-" if (value := read(values)) is None else text.format(value) for _, read, text in formats))
    return table
