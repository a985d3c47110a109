"""Contents of the report's page, section by section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octrim.network.loading import load
from octrim.network.model import sha256
from octrim.report import numerals
from octrim.report.charts import (
    Chart,
    accuracy_chart,
    channels_chart,
    latency_bars,
    profile_chart,
    recall_charts,
    scales_charts,
    shapes_chart,
    story_charts,
    training_charts,
)
from octrim.report.contents import TITLES, Contents, Cut, SummaryRow, Timing, TrainingPart
from octrim.report.neighbours import Neighbour, leaderboard, neighbours
from octrim.report.shots import Shots, take_shots
from octrim.report.svg import swatch
from octrim.stages import STAGES

CLASSES = 11  # most classes with a chart of their own
_KEYS = ("original", "finetuned", "control", "sparse", "cut")  # keys of colours, in turn, of networks that a bench compares
_TIMED = ("original", "student", "finetuned", "int8")  # networks that a compression times, in that order, where it has them


@dataclass(frozen=True)
class Tile:
    """A headline number. value: the number as text. before: its value before compression. change: how the two compare."""

    label: str
    value: str
    unit: str = ""
    before: str = ""
    change: str = ""


@dataclass(frozen=True)
class LineageStep:
    """A step of a network's lineage. action: what was done. facts: names and values of what is recorded about it."""

    action: str
    facts: tuple[tuple[str, str], ...]


def page(run: Contents) -> dict[str, Any]:
    """Variables of the template report.html. A section that has nothing to show is None, or empty."""
    main = run.part("finetuned") or next((part for part in reversed(run.parts) if part.weights or part.metrics), run.parts[0])
    cut = next((part.cut for part in run.parts if part.cut is not None and part.key in ("cut", "finetuned", "original")), None)
    profile = next((part.profile for part in run.parts if part.profile), None)
    config = [(name, _value(value)) for name, value in run.config.items()]
    return {
        "name": run.folder.resolve().name,
        "command": run.command,
        "about": _about(run),
        "lead": _lead(run),
        "tiles": _tiles(run, main, cut),
        "rows": _table(run),
        "in_c": any(row.latency_c is not None for row in run.rows),
        "machine": next((part.bench.machine for part in run.parts if part.bench is not None), None),
        "cut": cut,
        "cuts": run.cuts,
        "channels": channels_chart(cut) if cut and cut.layers else None,
        "shapes": run.shapes,
        "choice": run.choice,
        "search": shapes_chart(run.shapes) if run.shapes else None,
        "scales": next((scales_charts(part.scales) for part in run.parts if part.scales is not None), None),
        "story": story_charts(run.parts, run.rows),
        "training": [(part.title or run.command, _epochs(part), training_charts(part)) for part in run.parts if part.results is not None],
        "recall": _recall(run),
        "classes": _class_table(run),
        "shots": _shots(run),
        "accuracy": _accuracy(run.rows),
        "latency": _latency(run),
        "runtimes": _runtimes(run),
        "profile": profile,
        "profiled": profile_chart(profile) if profile else None,
        "neighbours": _neighbours(run),
        "match": run.match,
        "exports": next((part.exports for part in run.parts if part.exports), None),
        "config": config,
        "lineages": _lineages(run, main),
        "swatch": swatch,
        "numerals": numerals,
        "unfinished": run.command == "compress" and not run.seconds,
    }


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or numerals.NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items()) or numerals.NONE
    if value is None:
        return numerals.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _about(run: Contents) -> list[str]:
    """Facts about the run in a few words each: its network, data set, picture size, options of a cut, and seed."""
    config = run.config
    given = config.get("weights") or config.get("cfg") or []
    given = ", ".join(_file(one) for one in (given[:4] if isinstance(given, list) else [given]))
    size = config.get("imgsz")
    facts = [given, _file(config["data"]) if config.get("data") else "", f"{' × '.join(map(str, size))} px" if isinstance(size, list) else ""]
    student = config.get("student")
    cuts = ("preset",) if student and not config.get("student_epochs") else ("preset", "keep", "align", "budget")
    facts += [f"{name} {config[name]}" for name in cuts if run.command in ("compress", "prune") and config.get(name)]
    facts += [f"student {_file(student)}"] if student else []
    if config.get("widths") == "variance":
        facts.append("widths by the variance of feature maps")
    if run.command in ("compress", "finetune", "prune"):
        facts += [f"{name} {_value(config[name])}" for name in ("levels", "drop") if config.get(name)]
    if run.command in ("compress", "finetune") and config.get("activation"):
        facts.append(f"activation {config['activation']}")
    joined = next((part.unlabelled for part in run.parts if part.unlabelled is not None), None)
    if joined is not None:
        facts.append(f"{joined:,} unlabelled pictures")
    return [fact for fact in [*facts, f"seed {config['seed']}" if "seed" in config else ""] if fact]


def _file(path: Any) -> str:
    return Path(str(path)).name or str(path)


def _lead(run: Contents) -> str:
    """The result of a compression in two or three sentences; empty where original or fine-tuned network are missing."""
    before, after = run.row("original"), run.row("finetuned")
    if before is None or after is None:
        return ""
    faster = f" and is {numerals.times(after.speedup)} as fast" if after.speedup else ""
    student, uncut = run.config.get("student"), run.row("student")
    of = "" if uncut is None else f" of {uncut.channels:,}"
    what = f", {_file(student)}, has {after.channels:,}{of} channels" if student else f" keeps {after.channels:,} of {before.channels:,} channels"
    text = (
        f"The small network{what}, needs {numerals.times(before.macs / max(after.macs, 1))} fewer "
        f"multiply-accumulates{faster}. Its mAP50-95 on the validation pictures is {after.map:.3f}; the original has {before.map:.3f}."
    ).replace("×", " times")
    if uncut is not None:
        text += f" The student had {uncut.map:.3f} before it was cut."
    int8 = run.row("int8")
    if int8 is not None:
        text += f" In int8 the small network has {int8.map:.3f}."
    control = run.row("control")
    if control is not None:
        text += f" The same small network, trained from scratch for as many epochs as all stages together, comes to {control.map:.3f}."
    return text


def _tiles(run: Contents, main: TrainingPart, cut: Cut | None) -> list[Tile]:
    before, after = run.row("original"), run.row("finetuned")
    if before is not None and after is not None:
        return _compared(before, after)
    tiles: list[Tile] = []
    if main.metrics is not None:
        found = main.metrics
        interval = "95 %: {:.3f} to {:.3f}".format(*found.interval) if found.interval else ""
        tiles += [Tile("mAP50-95", numerals.score(found.map), change=interval), Tile("mAP50", numerals.score(found.map50))]
        tiles += [Tile("Precision", numerals.score(found.precision)), Tile("Recall", numerals.score(found.recall))]
        tiles += [Tile("Pictures", numerals.count(found.images)), Tile("Objects", numerals.count(found.objects))]
    if cut is not None:
        tiles += [_shrunk("Parameters", *cut.parameters, numerals.short), _shrunk("MACs", *cut.macs, numerals.short)]
        tiles.append(_shrunk("Channels", *cut.channels, numerals.count))
    bench = next((part.bench for part in run.parts if part.bench is not None), None)
    if bench is not None and not tiles:
        for place, timing in enumerate(bench.timings[:6]):
            faster = f"{numerals.times(timing.speedup)} as fast as the first" if place else "the network, median"
            tiles.append(Tile(timing.name, numerals.milliseconds(timing.stages["network"][0]), "ms", change=faster))
    return tiles


def _compared(before: SummaryRow, after: SummaryRow) -> list[Tile]:
    tiles = [
        _shrunk("Parameters", before.parameters, after.parameters, numerals.short),
        _shrunk("MACs", before.macs, after.macs, numerals.short),
        _shrunk("Model file", before.file_bytes, after.file_bytes, numerals.megabytes, "MB"),
    ]
    if before.latency is not None and after.latency is not None:
        faster = f"{numerals.times(after.speedup)} as fast" if after.speedup else ""
        tiles.append(Tile("Latency", numerals.milliseconds(after.latency), "ms", numerals.milliseconds(before.latency), faster))
    if before.latency_c is not None and after.latency_c is not None:
        faster = f"{numerals.times(after.speedup_c)} as fast as the original in OpenVINO" if after.speedup_c else ""
        tiles.append(Tile("Latency in C", numerals.milliseconds(after.latency_c), "ms", numerals.milliseconds(before.latency_c), faster))
    for label, one, two in (("mAP50-95", before.map, after.map), ("mAP50", before.map50, after.map50)):
        tiles.append(Tile(label, numerals.score(two), "", numerals.score(one), numerals.change(two - one)))
    return tiles


def _shrunk(label: str, before: float, after: float, style: Any, unit: str = "") -> Tile:
    return Tile(label, style(after), unit, style(before), f"{numerals.times(before / max(after, 1))} {'smaller' if unit else 'fewer'}")


def _table(run: Contents) -> list[tuple[SummaryRow, str]]:
    """The summary's rows, each with the time that its stage took."""
    seconds = {stage.network: run.seconds.get(stage.title) for stage in STAGES if stage.network}
    return [(row, numerals.duration(taken) if (taken := seconds[row.key]) is not None else numerals.NONE) for row in run.rows]


def _epochs(part: TrainingPart) -> int:
    assert part.results is not None
    return len(part.results["epoch"])


def _evaluated(run: Contents) -> list[TrainingPart]:
    """Parts of the run whose networks are worth comparing: a network that was just cut finds next to nothing."""
    return [part for part in run.parts if part.key in ("original", "finetuned", "control")]


def _recall(run: Contents) -> tuple[list[Chart], int] | None:
    curves = {(part.key, part.title): part.curves for part in _evaluated(run) if part.curves}
    return recall_charts(curves, CLASSES) if curves else None


def _class_table(run: Contents) -> tuple[list[tuple[str, str]], list[tuple[str, int, list[str], list[str]]]] | None:
    """Key and title of each network, and a row per class: name, number of objects, mAP50-95 of each network, mAP50 of each network."""
    parts = [part for part in _evaluated(run) if part.metrics is not None and part.metrics.classes]
    if not parts:
        return None
    scores = [{one.name: one for one in part.metrics.classes} for part in parts if part.metrics is not None]
    rows = []
    for name, first in scores[0].items():
        own = [found.get(name) for found in scores]
        rows.append((name, first.objects, *([numerals.score(one and getattr(one, key)) for one in own] for key in ("map", "map50"))))
    return [(part.key, part.title) for part in parts], rows


def _shots(run: Contents) -> Shots | None:
    """Pictures with detections of the original and the fine-tuned network, or of the run's only network; None without network or data set."""
    data = run.config.get("data")
    if not isinstance(data, str):
        return None
    original, small = run.part("original"), run.part("finetuned")
    networks: dict[str, str | Path] = {}
    if run.command == "compress":
        for part in (original, small):
            if part is not None and part.weights is not None:
                networks[part.title] = part.weights
    elif run.command == "val" and isinstance(run.config.get("weights"), str):
        networks["network"] = run.config["weights"]
    elif original is not None and original.weights is not None and original.results is not None:
        networks["network"] = original.weights
    if not networks:
        return None
    split, size = run.config.get("split"), run.config.get("imgsz")
    options = {"imgsz": size} if run.command == "val" and size else {}
    share, difficult = run.config.get("val_share"), run.config.get("keep_difficult")
    if not {"val_share", "keep_difficult"} & set(run.config):  # runs of version 0.1, which had neither option, kept all objects and split nothing
        share, difficult = 0, True
    reading = {"val_share": share if isinstance(share, (int, float)) else None, "keep_difficult": bool(difficult)}
    return take_shots(networks, data, split if isinstance(split, str) else "val", options, reading)


def _accuracy(rows: Sequence[SummaryRow]) -> list[Chart]:
    if len(rows) < 2:
        return []
    charts = [accuracy_chart(rows, [row.macs / 1e6 for row in rows], "MACs, in millions", "M MACs")]
    timed = [row for row in rows if row.latency is not None]
    if len(timed) > 1:
        charts.append(accuracy_chart(timed, [row.latency or 0.0 for row in timed], "latency, in ms", "ms"))
    return charts


def _latency(run: Contents) -> dict[int, list[Any]] | None:
    """Bars of the latency of every network, by batch size; None where nothing was timed."""
    bench = next((part.bench for part in run.parts if part.bench is not None), None)
    if bench is None or not bench.timings:
        return None
    batches: dict[int, list[Any]] = {}
    for timing in bench.timings:
        batches.setdefault(timing.batch, []).append(timing)
    timed = [key for key in _TIMED if run.row(key) is not None]
    compressed = run.command == "compress" and len(bench.timings) == len(timed)
    keys = timed if compressed else _KEYS
    bars = {
        batch: [(keys[place % len(keys)], TITLES[keys[place]] if compressed else one.name, one) for place, one in enumerate(timings)]
        for batch, timings in batches.items()
    }
    if bench.c is not None and len(bench.c.timings) == 1 + len(bench.timings):  # the first timing repeats the original in OpenVINO
        for key, one in zip(keys, bench.c.timings[1:], strict=False):
            bars.setdefault(one.batch, []).append((key, f"{TITLES[key]} in C" if compressed else one.name, one))
    return {batch: latency_bars(ones) for batch, ones in bars.items()}


def _runtimes(run: Contents) -> list[tuple[Timing, str]] | None:
    """Times of the small network in every runtime of the machine, the fastest first, each with how many times as long it takes as the fastest; None
    where they were not taken."""
    found = next((part.bench.runtimes for part in run.parts if part.bench is not None), None)
    if found is None:
        return None
    timings = sorted(found.timings, key=lambda one: one.stages["network"][0])
    fastest = timings[0].stages["network"][0]
    return [(one, numerals.times(one.stages["network"][0] / fastest if fastest else None)) for one in timings]


def _neighbours(run: Contents) -> list[Neighbour]:
    """The run's own network as a row of the leaderboard, and those that it is compared with; empty where there is none of either."""
    before, after = run.row("original"), run.row("finetuned")
    if before is None or after is None:
        return []
    found = neighbours(leaderboard(), after.macs, run.config.get("data", ""))
    data = _file(Path(str(run.config.get("data", ""))).parent if str(run.config.get("data")).endswith(".yaml") else run.config.get("data"))
    own = Neighbour(data, "", "this run", "", 1, after.map, before.map, after.macs, after.latency, after.latency_c)
    return [own, *found] if found else []


def _lineages(run: Contents, main: TrainingPart) -> list[tuple[str, str, list[LineageStep]]]:
    """Lineages of the network that the run made and of the control: title, SHA-256 of the file, steps."""
    found = []
    for part in dict.fromkeys([main, *(part for part in run.parts if part.key == "control")]):
        if part.weights is None:
            continue
        steps = [LineageStep(str(step.get("action", "")), tuple(_facts(step))) for step in load(part.weights).lineage]
        found.append((part.title, sha256(part.weights), steps))
    return found


def _facts(step: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), _value(value)) for name, value in step.items() if name != "action" and value not in (None, [], {})]
