"""The stages that look at what the small network is worth where it will run: exports, compared with Paddle, and times beside the original."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octrim.atomic import write_text
from octrim.compression.job import Job, emptied
from octrim.compression.rehearsal import INT8_FORMATS, export_formats
from octrim.data.pictures import read_picture
from octrim.data.scenes import drawn_scene
from octrim.deploy.bench import compared
from octrim.deploy.bench_report import show_bench, write_bench
from octrim.deploy.export import export
from octrim.deploy.options import BenchOptions
from octrim.deploy.share import able_runtimes
from octrim.errors import InputError
from octrim.runs import new_run
from octrim.stages import EXPORT, FINETUNE, INT8, STUDENT, TRAIN, Stage
from octrim.targets.c.profile import layer_times
from octrim.targets.table import program

_EXPORT_PICTURES = 8

PROFILE = "profile.json"
"""File of the times of the small network's layers in C."""


def exporting(job: Job, folder: Path) -> dict[str, Any]:
    """Export the small network to ONNX, OpenVINO and, where C can be compiled, C, and its int8 form, where there is one, to INT8_FORMATS. Each
    deployable is compared with the network itself on validation pictures."""
    emptied(folder)
    model = job.network(FINETUNE)
    pictures = []
    for path in job.start.val_set.paths:
        if len(pictures) == _EXPORT_PICTURES:
            break
        try:
            pictures.append(read_picture(path))
        except InputError as error:
            job.run.print(f"left out: {error}")
    formats, why_not_c = export_formats(model)
    if why_not_c is not None:
        job.run.print(f"not exported to C: {why_not_c}")
    wanted = [(name, name, "fp32", model) for name in formats]
    if INT8 in job.stages:
        wanted += [(name, in_int8(name), "int8", job.network(INT8)) for name in formats if name in INT8_FORMATS]
    reports = {}
    for name, key, precision, network in wanted:
        path = folder / ("model.onnx" if name == "onnx" else key)
        report = export(network, path, name, precision, imgsz=model.image_size, pictures=pictures or None)
        errors = f"{report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
        reference = "Paddle" if precision == "fp32" else report.reference
        job.run.print(f"{report.path}: {report.bytes / 1e6:.2f} MB; largest difference to {reference} on {report.pictures} pictures {errors}")
        reports[key] = asdict(report)
    write_text(folder / "export.json", json.dumps(reports, indent=1))
    # The results leave out the files' sizes, which differ from run to run, because OpenVINO numbers its nodes anew in every process.
    keys = ("pictures", "runtime", "score_error", "box_error")
    return {"export": {name: {key: report[key] for key in keys} for name, report in reports.items()}}


def in_int8(format: str) -> str:
    """Name of the int8 form of a deployable in the exports of a compression, which is also its folder there."""
    return f"{format}-int8"


def timing(job: Job, folder: Path) -> dict[str, Any]:
    """Time the first and the last network, and a student that was cut, taking turns, in OpenVINO; then the last in every runtime that works here;
    then all in C beside the first in OpenVINO and the last one's layers in C, where C can be compiled. The int8 form of the last, where there is one,
    runs beside it in both."""
    timed = tuple(stage for stage in (TRAIN, STUDENT, FINETUNE, INT8) if stage in job.stages)
    weights = [str(job.weights(stage)) for stage in timed if stage is not INT8]
    size, rounds = job.start.base.image_size, job.start.config.bench_rounds
    options = BenchOptions(weights=tuple(weights), imgsz=(size,), rounds=rounds, project=str(folder.parent), name=folder.name, exist_ok=True)
    run = new_run(options)
    networks = [(name, name) for name in (*weights, *_int8_exports(job, "openvino"))]
    found = compared(networks, options, drawn_scene(0), run.console)
    write_bench(found, run.path)
    show_bench(found, run)
    result = {"bench": _times(found.rows, timed)}
    small = job.network(FINETUNE)
    runtimes = able_runtimes(small, options)[0]
    more = {"runtimes": compared([(program(runtime), weights[-1]) for runtime in runtimes], options, drawn_scene(0), run.console, runtimes)}
    write_bench(found, run.path, more)
    why_not_c = export_formats(small)[1]
    if why_not_c is not None:
        run.print(f"not timed in C: {why_not_c}")
        return result
    networks = [(f"{weights[0]} in OpenVINO", weights[0])]
    networks += [(f"{name} in C", name) for name in (*weights, *_int8_exports(job, "c"))]
    in_c = compared(networks, options, drawn_scene(0), run.console, ("openvino", *["c"] * (len(networks) - 1)))
    write_bench(found, run.path, {"c": in_c, **more})
    show_bench(in_c, run)
    layers = [asdict(layer) for layer in layer_times(small, found.header["height"], found.header["width"])]
    write_text(run.path / PROFILE, json.dumps({"processor": found.header["processor"], "threads": 1, "layers": layers}, indent=1))
    return result | {"bench_c": _times(in_c.rows[1:], timed)}


def _int8_exports(job: Job, format: str) -> list[str]:
    """Path of the int8 form that the export has left in a format; none where the run has no int8."""
    return [str(job.folder(EXPORT) / in_int8(format))] if INT8 in job.stages else []


def _times(rows: list[dict[str, Any]], timed: Sequence[Stage]) -> dict[str, dict[str, float]]:
    """The numbers of a bench that the summary needs, by the names of the networks of the stages `timed`, one for each row."""
    keys = ("network_p50_ms", "total_p50_ms", "network_speedup", "total_speedup")
    return {stage.network: {key: row[key] for key in keys} for stage, row in zip(timed, rows, strict=True)}
