"""Match: a series of games between two players, and its summary in match.json and on the screen."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from octrim.atomic import write_text
from octrim.errors import InputError
from octrim.machine import usable_cores
from octrim.pong.options import MatchOptions
from octrim.pong.recording import Recording
from octrim.pong.series import RECORDED, Result, Sight, play_series, sides_of
from octrim.pong.sides import NAMES, player
from octrim.progress import progress_bar
from octrim.runs import Run

# Options that do not change the games; match.json leaves them out.
ELSEWHERE = ("project", "name", "exist_ok", "workers", "record")


@dataclass(frozen=True)
class Match:
    """A series of games that can be played: its players exist, and its recording, if one is wanted, has begun.

    workers: number of processes that play. detectors: networks of the vision players, by weights.
    """

    config: MatchOptions
    workers: int
    detectors: dict[str, Any]
    recording: Recording | None

    def play(self, console: Console | None = None) -> dict[str, Any]:
        """Play the games and return the contents of match.json. console: the console on which a progress bar is shown."""
        wins = [0, 0]
        with progress_bar("match", self.config.games, console) as bar:

            def advance(result: Result) -> None:
                if result.winner is not None:
                    wins[result.winner] += 1
                bar.advance(1, f"match {wins[0]}:{wins[1]}")

            results = play_series(self.config, self.workers, self.detectors, self.recording, advance)
        return summary(self.config, results)


@contextmanager
def prepared(config: MatchOptions) -> Iterator[Match]:
    """Context manager of a match that can be played; the recording ends with the block.

    Raises InputError for options that make no match, before anything is written.
    """
    specs = (config.left, config.right)
    measured = config.latency_ms is None and any(spec.partition(":")[0] == "vision" for spec in specs)
    if measured and (config.workers or 1) > 1:
        raise InputError("games in several processes would disturb the latency that is measured; give --latency-ms, or leave --workers out")
    config.rules(config.rally_cap)
    detectors: dict[str, Any] = {}
    for side, spec in enumerate(specs):
        player(spec, side, config, detectors=detectors)
    workers = 1 if measured else min(config.workers or usable_cores(), config.games)
    recording = Recording(config.record, *RECORDED) if config.record is not None else None
    try:
        yield Match(config, workers, detectors, recording)
    finally:
        if recording is not None:
            recording.close()


def write_match(report: dict[str, Any], folder: Path) -> None:
    """Write a match's report into match.json in a folder."""
    write_text(folder / "match.json", json.dumps(report, indent=1, ensure_ascii=False))


def show_match(report: dict[str, Any], run: Run) -> None:
    """Print a match's report: results of both players, how vision players saw, and lengths of rallies."""
    run.print(_table(report))
    sights = [(side, values) for side, values in report["vision"].items() if values]
    if sights:
        run.print(_sights(sights))
    rallies = report["rallies"]
    run.print(
        f"{report['games']} games, {report['draws']} drawn; {rallies['count']} rallies, {rallies['drawn']} drawn; hits per rally: "
        f"mean {rallies['mean']:.1f}, median {rallies['median']:g}, longest {rallies['longest']}"
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % for a share (Wilson 1927), which is meaningful for 0 of 20 and 20 of 20, too.

    Returns the lower and the upper end, 0 to 1. trials: 1 or more.
    """
    z = statistics.NormalDist().inv_cdf(0.975)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def summary(config: MatchOptions, results: Sequence[Result]) -> dict[str, Any]:
    """Contents of match.json. A drawn game counts as a win of neither player; win rates are shares of all games."""
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
    """Summary of what one side's vision player saw in all games; None for a player of another kind."""
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


def _table(report: dict[str, Any]) -> Table:
    table = Table()
    for name in ("", "player", "wins", "win rate", "95 %", "points", "misses"):
        table.add_column(name, justify="left" if name in ("", "player") else "right", overflow="fold")
    rates = report["win_rate"]
    for side, name in enumerate(NAMES):
        low, high = rates["right_interval95" if side else "interval95"]
        rate = (f"{rates[name]:.2f}", f"{low:.2f} .. {high:.2f}")
        wins, points, misses = (str(report[what][name]) for what in ("wins", "points", "misses"))
        table.add_row(name, _short(report["players"][name]), wins, *rate, points, misses)
    return table


def _short(spec: str) -> str:
    """A player's name for a table; of the path of a network only the last two parts, which tell networks apart."""
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
