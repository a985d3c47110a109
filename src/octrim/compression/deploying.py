"""The stages that look at what the small network is worth where it will run: exports, compared with Paddle, and times beside the original."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octrim.atomic import write_text
from octrim.compression.job import Job, emptied
from octrim.data.pictures import read_picture
from octrim.data.scenes import drawn_scene
from octrim.deploy.bench import compared
from octrim.deploy.bench_report import show_bench, write_bench
from octrim.deploy.export import FORMATS, export
from octrim.deploy.options import BenchOptions
from octrim.errors import InputError
from octrim.runs import new_run
from octrim.stages import FINETUNE, TRAIN

_EXPORT_PICTURES = 8


def exporting(job: Job, folder: Path) -> dict[str, Any]:
    """ONNX and OpenVINO, compared with Paddle on validation pictures."""
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
    reports = {}
    for name in FORMATS:
        report = export(model, folder / ("model.onnx" if name == "onnx" else name), name, imgsz=model.image_size, pictures=pictures or None)
        errors = f"{report.score_error:.2g} in scores, {report.box_error:.2g} px in boxes"
        job.run.print(f"{report.path}: {report.bytes / 1e6:.2f} MB; largest difference to Paddle on {report.pictures} pictures {errors}")
        reports[name] = asdict(report)
    write_text(folder / "export.json", json.dumps(reports, indent=1))
    keys = ("pictures", "runtime", "score_error", "box_error")  # not the bytes: OpenVINO numbers its nodes anew in every process
    return {"export": {name: {key: report[key] for key in keys} for name, report in reports.items()}}


def timing(job: Job, folder: Path) -> dict[str, Any]:
    """The first and the last network, taking turns, in OpenVINO."""
    weights = (str(job.weights(TRAIN)), str(job.weights(FINETUNE)))
    size, rounds = job.start.base.image_size, job.start.config.bench_rounds
    options = BenchOptions(weights=weights, imgsz=(size,), rounds=rounds, project=str(folder.parent), name=folder.name, exist_ok=True)
    run = new_run(options)
    found = compared([(name, name) for name in weights], options, drawn_scene(0), run.console)
    write_bench(found, run.path)
    show_bench(found, run)
    keys = ("network_p50_ms", "total_p50_ms", "network_speedup", "total_speedup")
    return {"bench": {label: {key: row[key] for key in keys} for label, row in zip((TRAIN.network, FINETUNE.network), found.rows, strict=True)}}
