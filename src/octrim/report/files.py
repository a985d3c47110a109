"""Reading and checking of a run's folder, so that the rest of the report can rely on its contents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from octrim.errors import InputError, counted, shown
from octrim.plain_yaml import parse, read_text
from octrim.report.contents import (
    TITLES,
    BenchResults,
    ClassCurve,
    ClassScore,
    Contents,
    Cut,
    DroppedCandidate,
    DroppingChoice,
    Games,
    Metrics,
    Parity,
    PlannedConv,
    ProfiledLayer,
    ScaleHistograms,
    SummaryRow,
    Timing,
    TrainingPart,
    TriedShape,
)
from octrim.stages import BENCH, CHOOSE, EXPORT, INT8, PRUNE, SEARCH, STAGES
from octrim.training.checkpoint import CHECKPOINT, State, load_state
from octrim.training.pictures import read_columns

T = TypeVar("T")

_TELLING = {
    "compress": "step_epochs",
    "sparsify": "strength_schedule",
    "finetune": "output_weight",
    "train": "nominal_batch",
    "sensitivity": "tolerance",
    "prune": "dry_run",
    "quantize": "percentile",
    "export": "builder_level",
    "val": "bootstrap",
    "bench": "warmup",
    "predict": "save_crop",
    "data": "check",
}
"""An option of each command that no command after it in this table has."""

_LARGEST = 1e15  # limit of numbers: no run leaves one nearly as large, and none beyond can be drawn


def read_run(folder: Path) -> Contents:
    """Read a run's folder. Raises InputError where the folder is no run, and for a file that is damaged."""
    if not folder.is_dir():
        raise InputError(f"{folder}: a file, expected the folder of a run" if folder.exists() else f"{folder}: no such folder")
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: not the folder of a run (no config.yaml)")
    config, _ = parse(read_text(folder / "config.yaml"), str(folder / "config.yaml"))
    command = _command_of(config) if isinstance(config, dict) else None
    if command is None:
        raise InputError(f"{folder / 'config.yaml'}: not the configuration of an octrim run")
    config = {str(key): value for key, value in config.items() if key != "command"}
    if command != "compress":
        choice = _read_json(folder / "dropping.json", _choice)
        return Contents(folder, command, config, (_part(folder, "original", ""),), (), {}, (), choice=choice)
    parts: list[TrainingPart] = []
    with_a_network, others = [stage for stage in STAGES if stage.network], [EXPORT, BENCH]
    for stage in (stage for stage in (*with_a_network, *others) if (folder / stage.folder).is_dir()):
        if stage is PRUNE:  # between two cuts there is a short fine-tuning
            between = sorted((folder / stage.folder).glob("finetune*"), key=lambda path: (len(path.name), path.name))
            parts += [_part(path, "between", f"fine-tuning {number} between cuts") for number, path in enumerate(between, 1)]
        parts.append(_part(folder / stage.folder, stage.network, stage.shown))
        if stage is INT8 and (folder / stage.folder / "train").is_dir():
            parts.append(_part(folder / stage.folder / "train", "between", "training with int8's roundings"))
    summary = _read_json(folder / "summary.json", _summary)
    rows, seconds, cuts, match = summary or (_stored_rows(folder), {}, (), None)
    shapes = _read_json(folder / SEARCH.folder / "stage.json", _shapes) or ()
    choice = _read_json(folder / CHOOSE.folder / "dropping.json", _choice)
    return Contents(folder, command, config, tuple(parts) or (_part(folder, "original", ""),), rows, seconds, cuts, match, shapes, choice)


def _part(folder: Path, key: str, title: str) -> TrainingPart:
    return TrainingPart(
        key,
        title,
        folder,
        _results(folder / "results.csv"),
        _read_json(folder / "metrics.json", _metrics),
        _read_json(folder / "curves.json", _curves),
        _read_json(folder / "plan.json", _cut),
        _read_json(folder / "bench.json", _bench),
        _read_json(folder / "export.json", _exports),
        *_from_checkpoint(folder),
        profile=_read_json(folder / "profile.json", _profile),
    )


def _results(path: Path) -> Mapping[str, np.ndarray] | None:
    if not path.is_file():
        return None
    return {name: np.where(np.abs(values) < _LARGEST, values, np.nan) for name, values in read_columns(path).items()}


def _command_of(config: Mapping[str, Any]) -> str | None:
    """The command that made a run, or None if it is unknown; config.yaml of version 0.1 does not name it, there an option of _TELLING does."""
    if "command" in config:
        return config["command"] if isinstance(config["command"], str) and config["command"] in _TELLING else None
    return next((command for command, option in _TELLING.items() if option in config), None)


def _read_json(path: Path, build: Callable[[Any], T]) -> T | None:
    """Read a JSON file and build a value from it; None where there is no such file. Raises InputError for a file that is damaged."""
    if not path.is_file():
        return None
    try:
        return build(json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError):  # the file is no JSON or no UTF-8, or has an integer of thousands of digits
        raise InputError(f"{path}: damaged: not JSON, or a number that none can be") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: damaged, or not written by octrim: {type(error).__name__} {shown(str(error))}") from None


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise TypeError(f"{shown(value)} is no number of a run")
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not abs(value) < _LARGEST:
        raise TypeError(f"{shown(value)} is no whole number of a run")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no text")
    return value


def _optional(convert: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else convert(value)


def _pair(convert: Callable[[Any], T], value: Any) -> tuple[T, T]:
    first, second = (value["before"], value["after"]) if isinstance(value, dict) else (value[0], value[1])
    return convert(first), convert(second)


def _row(key: str, row: Any, times: Any) -> SummaryRow:
    in_c = times.get("c", {})
    return SummaryRow(
        key,
        parameters=_whole(row["parameters"]),
        macs=_whole(row["macs"]),
        channels=_whole(row["channels"]),
        file_bytes=_whole(row["file_bytes"]),
        map50=_number(row["mAP50"]),
        map=_number(row["mAP50-95"]),
        interval=_pair(_number, row["interval"]),
        epochs=_optional(_whole, row["epochs"]),
        latency=_optional(_number, times.get("latency_ms", {}).get(key)),
        speedup=_optional(_number, times.get("speedup", {}).get(key)),
        latency_c=_optional(_number, in_c.get("latency_ms", {}).get(key)),
        speedup_c=_optional(_number, in_c.get("speedup", {}).get(key)),
    )


def _summary(
    content: Any,
) -> tuple[tuple[SummaryRow, ...], dict[str, float], tuple[tuple[str, tuple[str, ...]], ...], tuple[str, tuple[Games, ...]] | None]:
    times = content["times"]
    rows = tuple(_row(key, row, times) for key, row in content["stages"].items() if key in TITLES)
    seconds = {_text(name): _number(value) for name, value in times["seconds"].items()}
    cuts = tuple((_text(cut["criterion"]), tuple(map(_text, cut["repairs"]))) for cut in content["cuts"])
    return rows, seconds, cuts, _optional(_match, times.get("match"))


def _match(content: Any) -> tuple[str, tuple[Games, ...]]:
    games = tuple(
        Games(
            key,
            games=_whole(row["games"]),
            wins=_whole(row["wins"]),
            interval=_pair(_number, row["interval"]),
            points=(_whole(row["points"]["left"]), _whole(row["points"]["right"])),
            latency=_number(row["latency_ms"]),
            recall=_optional(_number, row["ball_recall"]),
        )
        for key, row in content.items()
        if key in TITLES
    )
    return _text(content["opponent"]), games


def _stored_rows(folder: Path) -> tuple[SummaryRow, ...]:
    """Rows of a compression that has not come to its end, from the stage.json of each stage."""
    found = [_read_json(folder / stage.folder / "stage.json", partial(_stage_row, stage.network)) for stage in STAGES if stage.network]
    return tuple(row for row in found if row is not None)


def _stage_row(key: str, content: Any) -> SummaryRow:
    return _row(key, content["row"], {})


def _shapes(content: Any) -> tuple[TriedShape, ...]:
    found = []
    if not 0 <= _whole(content["search"]["chosen"]) < len(content["search"]["shapes"]):
        raise IndexError("chosen is none of the shapes")
    for place, shape in enumerate(content["search"]["shapes"]):
        kept = [f"levels {', '.join(str(_whole(stride)) for stride in shape['levels'])}"] if shape["levels"] else []
        kept += [f"at least {_text(shape['keep'])} of every group"] if shape["keep"] else []
        kept += ["by the variance of feature maps"] if shape.get("widths") == "variance" else []
        kept += [f"own fractions for {len(shape['keep_map'])} convolutions"] if shape["keep_map"] else []
        kept += [f"without {', '.join(map(_text, shape['drop']))}"] if shape["drop"] else []
        tries = tuple((_whole(one["epochs"]), _number(one["mAP50-95"])) for one in shape["tries"])
        last = shape["tries"][-1]
        chosen = place == content["search"]["chosen"]
        found.append(TriedShape(_text(shape["name"]), "; ".join(kept), tries, _whole(last["macs"]), _whole(last["parameters"]), chosen))
    return tuple(found)


def _choice(content: Any) -> DroppingChoice:
    candidates = tuple(
        DroppedCandidate(_text(one["name"]), _number(one["saved"]), _number(one["mAP50-95"]), _optional(_number, one["strain"]), bool(one["chosen"]))
        for one in content["candidates"]
    )
    facts = (_text(content["unit"]), _whole(content["pictures"]), _number(content["mAP50-95"]), _optional(_number, content["strain"]))
    return DroppingChoice(*facts, candidates)


def _metrics(content: Any) -> Metrics:
    classes = [
        ClassScore(_text(name), _whole(row["objects"]), _optional(_number, row["mAP50"]), _optional(_number, row["mAP50-95"]))
        for name, row in content["per_class"].items()
    ]
    return Metrics(
        map=_optional(_number, content["mAP50-95"]),
        map50=_optional(_number, content["mAP50"]),
        precision=_optional(_number, content["precision"]),
        recall=_optional(_number, content["recall"]),
        interval=_optional(partial(_pair, _number), content.get("interval", {}).get("mAP50-95")),
        images=_whole(content["images"]),
        objects=_whole(content["objects"]),
        classes=tuple(classes),
        weights=_optional(_text, content.get("weights")),
    )


def _curves(content: Any) -> tuple[ClassCurve, ...]:
    count = len(content["recall"])
    curves = [ClassCurve(_text(row["name"]), _number(row["AP50"]), np.asarray([*map(_number, row["precision"])])) for row in content["classes"]]
    if count < 2 or any(len(curve.precision) != count for curve in curves):
        raise TypeError("curves of different lengths")
    return tuple(curves)


def _cut(content: Any) -> Cut:
    group_of = {_text(name): group for group in content["groups"] for name in group["convs"]}
    layers = []
    dropped = content.get("dropped", {"macs": {}, "shown": ""})
    for name, conv in content["convs"].items():
        if name in dropped["macs"]:
            layers.append(PlannedConv(_text(name), _whole(conv["before"]), 0, (), 1.0, (_whole(dropped["macs"][name]), 0), "dropped"))
            continue
        group = group_of[name]
        macs = _whole(group["macs_before"]), _whole(group["macs_after"])
        others = tuple(other for other in group["convs"] if other != name)
        counts = _whole(conv["before"]), _whole(conv["after"])
        layers.append(PlannedConv(_text(name), *counts, others, _number(group["removed"]), macs, _optional(_text, group["reason"])))
    return Cut(
        tuple(layers),
        channels=_pair(_whole, content["channels"]),
        parameters=_pair(_whole, content["parameters"]),
        macs=_pair(_whole, content["macs"]),
        dropping=_text(dropped["shown"]),
    )


def _bench(content: Any) -> BenchResults:
    header = content["header"]
    batch = header["batch"]
    machine = f"{_text(header['processor'])}, {_whole(header['threads'])} of {_whole(header['cores'])} cores, {_text(header['runtime'])}, "
    machine += f"{_text(header['precision'])}, {_whole(header['height'])} × {_whole(header['width'])} px, "
    machine += counted(_whole(header["iterations"]), "round")
    if "gpu" in header:
        machine = f"{_text(header['gpu'])}; {machine}"
    timings = []
    for row in content["networks"]:
        labels = ("p50", "p90", "p99")
        stages = {stage: tuple(_number(row[f"{stage}_{label}_ms"]) for label in labels) for stage in ("pre", "network", "post", "total")}
        name = "/".join(Path(_text(row["name"])).parts[-2:])  # the rest of the path tells where the machine has the file
        execution = row.get("execution")
        name += f" ({_text(execution).partition(':')[0]})" if execution else ""
        timings.append(Timing(name, _whole(row.get("batch", batch)), stages, _number(row["network_speedup"]), _number(row["pictures_per_second"])))
    return BenchResults(machine, tuple(timings), *(_optional(_bench, content.get(name)) for name in ("c", "runtimes")))


def _profile(content: Any) -> tuple[ProfiledLayer, ...]:
    return tuple(
        ProfiledLayer(_text(one["name"]), _text(one["what"]), _number(one["milliseconds"]), _whole(one["macs"])) for one in content["layers"]
    )


def _exports(content: Any) -> tuple[Parity, ...]:
    entries = [content] if "format" in content else list(content.values())
    return tuple(
        Parity(
            name=Path(_text(entry["path"])).name,
            format=_text(entry["format"]),
            precision=_text(entry["precision"]),
            bytes=_whole(entry["bytes"]),
            pictures=_whole(entry["pictures"]),
            reference=_text(entry.get("reference", "Paddle")),
            runtime=_text(entry["runtime"]),
            score_error=_number(entry["score_error"]),
            box_error=_number(entry["box_error"]),
        )
        for entry in entries
    )


def _from_checkpoint(folder: Path) -> tuple[ScaleHistograms | None, int | None]:
    """What a folder's checkpoint tells: the scales of sparsity training, and the number of unlabelled pictures; None for what it does not have."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None, None
    state = load_state(path)
    try:
        joined = state.extra.get("unlabelled")
        return _scales(path, state), None if joined is None else _whole(joined["pictures"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: a damaged checkpoint: {shown(str(error))}") from None


def _scales(path: Path, state: State) -> ScaleHistograms | None:
    """Scales of sparsity training from a checkpoint, which keeps their distribution after every epoch; None if it holds none."""
    kept = state.extra.get("scales")
    if kept is None:
        return None
    try:
        counts = np.asarray([[_whole(number) for number in row] for row in kept["counts"]])
        dead = tuple(_number(row["sparsity/dead"]) for row in state.rows)
        if counts.ndim != 2 or not counts.size or (counts < 0).any() or (counts.sum(1) == 0).any():
            raise TypeError("counts that are none")
        return ScaleHistograms(_number(kept["top"]), counts, dead)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged checkpoint: {shown(str(error))}") from None
