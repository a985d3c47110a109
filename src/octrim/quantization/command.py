"""`octrim quantize`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from octrim.atomic import write_text
from octrim.data.pictures import Readable
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.options import image_size, model_from
from octrim.network.quantization import Scales, scale_groups
from octrim.pruning.command import picture_paths
from octrim.quantization.calibration import Calibration, calibrate
from octrim.quantization.chart import save_scale_chart
from octrim.quantization.errors import LayerError, LogitError, layer_errors, layers, logit_error
from octrim.quantization.histogram import check_method
from octrim.quantization.placement import placement
from octrim.runs import Run, new_run

if TYPE_CHECKING:
    from octrim.commands import Quantize

_COMPARED = 8  # pictures on which logits are compared
_LISTED = 20  # layers shown of the sensitivity; all are in the file


def quantize_command(config: Quantize) -> None:
    """Calibrate, and write the model with its scales; `quantize.json`, `scales.png`, and on request `sensitivity.json`."""
    model = model_from(config)
    check_method(config.method, config.percentile)
    placement(model.network, config.skip)
    size = image_size(config.imgsz, model.image_size, model.network.stride)
    if (config.data is None) == (config.source is None):
        raise InputError("give either --data (a data set) or --source (a picture, folder or glob) to calibrate on")
    if config.seed < 0:
        raise InputError(f"seed is {config.seed}, expected 0 or more")
    paths = picture_paths(config.data or config.source or "", config.pictures, config.seed)
    readable = Readable(paths)
    readable.require()  # nothing is written otherwise
    run = new_run(config)
    if model.scales:
        run.print(f"{config.weights}: has scales already; they are replaced")
    with _bar(run, len(paths)) as advance:
        calibration = calibrate(model, readable, config.skip, size, lambda done: advance("calibrate", done))
    for line in readable.failures:
        run.print(f"left out: {line}")
    quantized = calibration.quantized(config.method, config.percentile)
    shown = readable.read[:_COMPARED]
    error = logit_error(quantized, shown, *size)
    clips = calibration.clips(config.method, config.percentile)
    path = run.path / "model.safetensors"
    quantized.save(path)
    write_text(run.path / "quantize.json", json.dumps(_content(config, calibration, quantized, clips, error, len(shown)), indent=1))
    save_scale_chart(calibration.histograms, clips, run.path / "scales.png")
    run.print(_summary(calibration, quantized, clips, error, len(shown)))
    if config.sensitivity:
        with _bar(run, len(layers(quantized))) as advance:
            found = layer_errors(quantized, shown, *size, lambda name: advance(f"sensitivity {name}", 1))
        content = {"pictures": len(shown), "all": error.sqnr, "layers": [asdict(layer) for layer in found]}
        write_text(run.path / "sensitivity.json", json.dumps(content, indent=1))
        run.print(_sensitivity_table(found))
    run.print(f"quantized model: {path} ({path.stat().st_size / 1e6:.2f} MB: float32 weights and {len(quantized.scales)} tensors of scales)")
    run.print(f"next: octrim export --weights {path} --precision int8 --format onnx")


@contextlib.contextmanager
def _bar(run: Run, total: int) -> Iterator[Callable[[str, int], None]]:
    """A progress bar; the callable takes what is at work and how much of it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=run.console, transient=True, disable=not run.console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda title, done: progress.update(task, advance=done, description=title)


def _content(
    config: Quantize, calibration: Calibration, quantized: Model, clips: dict[str, float], error: LogitError, compared: int
) -> dict[str, Any]:
    """`quantize.json`. clipped: share of a group's values beyond the clip."""
    joined = scale_groups(quantized.network)
    scales = Scales(quantized.network, quantized.scales)
    maps = {
        group: {
            "scale": float(scales.map(group) or 0.0),
            "largest": histogram.max,
            "clip": clips[group],
            "clipped": histogram.above(clips[group]),
            "rows": [name for name, root in joined.items() if root == group],
        }
        for group, histogram in calibration.histograms.items()
    }
    return {
        "method": config.method,
        "percentile": config.percentile if config.method == "percentile" else None,
        "pictures": calibration.pictures,
        "imgsz": [calibration.height, calibration.width],
        "seed": config.seed,
        "quantized": [row.name for row in calibration.placement.rows],
        "float": _float_rows(quantized),
        "logits": {"pictures": compared, **asdict(error)},
        "maps": maps,
    }


def _float_rows(quantized: Model) -> list[str]:
    known = {row.name for row in layers(quantized)}
    return [row.name for row in quantized.network.rows if row.op in ("conv", "add") and row.name not in known]


def _summary(calibration: Calibration, quantized: Model, clips: dict[str, float], error: LogitError, compared: int) -> str:
    convs = calibration.placement.convs
    rest = _float_rows(quantized)
    most = max(clips, key=lambda group: calibration.histograms[group].above(clips[group]))
    return (
        f"calibrated on {calibration.pictures} pictures of {calibration.height}x{calibration.width}: {len(convs)} convolutions and "
        f"{len(calibration.placement.rows) - len(convs)} additions in int8, {len(clips)} scales of maps\n"
        f"in high precision: {', '.join(rest)}\n"
        f"clipped at most: {most}, {100 * calibration.histograms[most].above(clips[most]):.3f} % of its values\n"
        f"logits of {compared} pictures: {error.sqnr:.1f} dB signal to noise, median relative error {error.median_relative:.4f}"
    )


def _sensitivity_table(found: Sequence[LayerError]) -> Table:
    table = Table(title="each layer in int8 by itself, the worst first" + f" ({_LISTED} of {len(found)})" * (len(found) > _LISTED))
    table.add_column("row", overflow="fold")
    table.add_column("op")
    table.add_column("reads", overflow="fold")
    table.add_column("SQNR, dB", justify="right")
    for layer in found[:_LISTED]:
        table.add_row(layer.row, layer.op, ", ".join(layer.inputs), f"{layer.sqnr:.1f}")
    return table
