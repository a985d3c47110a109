"""`octrim quantize`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from octrim.errors import InputError
from octrim.options import Folder, ImageSize, OneNetwork, Range, Reading, Text

if TYPE_CHECKING:
    from rich.table import Table

    from octrim.network.model import Model
    from octrim.quantization.calibration import Calibration
    from octrim.quantization.errors import LayerError, LogitError

_COMPARED = 8  # pictures on which logits are compared
_LISTED = 20  # layers shown of the sensitivity; all are in the file


@dataclass(frozen=True)
class Quantize(OneNetwork, Reading, Folder):
    """Calibrate int8 scales on pictures and write them into a model file; the weights stay as they are."""

    command: ClassVar[str] = "quantize"

    data: Text = None
    """Data set whose training pictures calibrate: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    source: Text = None
    """Picture, folder or glob to calibrate on, instead of a data set."""
    method: Literal["max", "percentile", "histogram"] = "percentile"
    """Where values are clipped: the largest, a percentile, or the least squared error."""
    percentile: Annotated[float, Range(50, 100)] = 99.999
    """Percentage of the magnitudes that the method percentile does not clip."""
    pictures: Annotated[int, Range(1)] = 200
    """Largest number of pictures that are used."""
    imgsz: ImageSize = None
    """Side, or height and width, in pixels (default: what the network was made for)."""
    skip: Annotated[tuple[str, ...], arg(metavar="PATTERN [PATTERN ...]", help_behavior_hint="")] = ()
    """Convolutions and additions that stay in high precision: model.0, 'model.2.*', ... Detect's always do."""
    sensitivity: bool = False
    """Also quantize each layer by itself and measure the error of the logits."""

    def run(self) -> None:
        from octrim.atomic import write_text
        from octrim.data.picture_paths import picture_paths
        from octrim.data.pictures import Readable
        from octrim.network.options import image_size, model_from
        from octrim.progress import progress_bar
        from octrim.quantization.calibration import calibrate
        from octrim.quantization.chart import save_scale_chart
        from octrim.quantization.errors import layer_errors, layers, logit_error
        from octrim.quantization.histogram import check_method
        from octrim.quantization.placement import placement
        from octrim.runs import new_run, typed

        model = model_from(self)
        check_method(self.method, self.percentile)
        placement(model.network, self.skip)
        size = image_size(self.imgsz, model.image_size, model.network.stride)
        if (self.data is None) == (self.source is None):
            raise InputError("give either --data (a data set) or --source (a picture, folder or glob) to calibrate on")
        paths = picture_paths(self.data or self.source or "", self.pictures, self.seed, **self.reading())
        readable = Readable(paths)
        readable.require()  # refuses a set without a readable picture, before anything is written
        run = new_run(self)
        if model.scales:
            run.print(f"{self.weights}: has scales already; they are replaced")
        with progress_bar("calibrate", len(paths), run.console) as bar:
            calibration = calibrate(model, readable, self.skip, size, bar.advance)
        for line in readable.failures:
            run.print(f"left out: {line}")
        quantized = calibration.quantized(self.method, self.percentile)
        shown = readable.read[:_COMPARED]
        error = logit_error(quantized, shown, *size)
        clips = calibration.clips(self.method, self.percentile)
        path = run.path / "model.safetensors"
        quantized.save(path)
        write_text(run.path / "quantize.json", json.dumps(_content(self, calibration, quantized, clips, error, len(shown)), indent=1))
        save_scale_chart(calibration.histograms, clips, run.path / "scales.png")
        run.print(_summary(calibration, quantized, clips, error, len(shown)))
        if self.sensitivity:
            with progress_bar("sensitivity", len(layers(quantized)), run.console) as bar:
                found = layer_errors(quantized, shown, *size, lambda name: bar.advance(1, f"sensitivity {name}"))
            content = {"pictures": len(shown), "all": error.sqnr, "layers": [asdict(layer) for layer in found]}
            write_text(run.path / "sensitivity.json", json.dumps(content, indent=1))
            run.print(_sensitivity_table(found))
        run.print(f"quantized model: {path} ({path.stat().st_size / 1e6:.2f} MB: float32 weights and {len(quantized.scales)} tensors of scales)")
        run.print(f"next: {typed('export', '--weights', path, '--precision', 'int8', '--format', 'openvino')}")


def _content(
    config: Quantize, calibration: Calibration, quantized: Model, clips: dict[str, float], error: LogitError, compared: int
) -> dict[str, Any]:
    """`quantize.json`. clipped: share of a group's values beyond the clip."""
    from octrim.network.scales import Scales, scale_groups

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
    from octrim.quantization.errors import layers

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
    from rich.table import Table

    listed = f" ({_LISTED} of {len(found)})" if len(found) > _LISTED else ""
    table = Table(title=f"each layer in int8 by itself, the worst first{listed}")
    table.add_column("row", overflow="fold")
    table.add_column("op")
    table.add_column("reads", overflow="fold")
    table.add_column("SQNR, dB", justify="right")
    for layer in found[:_LISTED]:
        table.add_row(layer.row, layer.op, ", ".join(layer.inputs), f"{layer.sqnr:.1f}")
    return table
