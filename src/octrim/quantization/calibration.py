"""Post-training quantization: a float32 network runs over pictures, and the values of its maps decide the scales.

small = octrim.quantize(octrim.load("small.safetensors"), pictures)
small.save("small-int8.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from octrim.data.from_python import Picture, bgr_picture
from octrim.data.pictures import network_input, read_picture
from octrim.errors import InputError, shown
from octrim.network.folding import folded_conv
from octrim.network.model import Model
from octrim.network.options import image_size
from octrim.network.scales import scales_of
from octrim.quantization.histogram import Histogram, check_method
from octrim.quantization.placement import Placement, placement
from octrim.targets.session import float_batch


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of a calibration pass. histograms: distribution of |x| over all maps of a group, by the group's name. pictures: number of pictures.

    height, width: size in pixels at which the network saw the pictures.
    """

    model: Model
    placement: Placement
    skip: tuple[str, ...]
    histograms: dict[str, Histogram]
    pictures: int
    height: int
    width: int

    def clips(self, method: str = "percentile", percentile: float = 99.999) -> dict[str, float]:
        """The value at which |x| is clipped, for every group. Raises InputError for an unknown method and a percentile out of 50 .. 100."""
        check_method(method, percentile)
        return {group: histogram.clip(method, percentile) for group, histogram in self.histograms.items()}

    def quantized(self, method: str = "percentile", percentile: float = 99.999) -> Model:
        """The model with scales, in place of any that it had, and a step in its lineage. Raises InputError as `clips` does."""
        scales = {f"{group}.scale": scales_of(np.full(1, clip)) for group, clip in self.clips(method, percentile).items()}
        for row in self.placement.convs:
            weight = folded_conv(self.model, row)[0].astype(np.float32)
            largest = np.abs(weight).max((1, 2, 3))
            if not np.isfinite(largest).all():
                raise InputError(f"{row.name}: weights that are not finite")
            scales[f"{row.name}.weight_scale"] = scales_of(largest)
        step = {"action": "quantize", "method": method, "pictures": self.pictures, "imgsz": [self.height, self.width], "skip": list(self.skip)}
        if method == "percentile":
            step["percentile"] = percentile
        return replace(self.model, scales=scales, lineage=(*self.model.lineage, step))


def calibrate(
    model: Model,
    pictures: Iterable[Picture],
    skip: Sequence[str] = (),
    imgsz: int | Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Run the float32 network over pictures, one pass, and keep a histogram per group of maps that share a scale.

    pictures: paths, uint8 BGR arrays `[height, width, 3]`, or pictures of Pillow's, of any size, letterboxed on grey 114; read one by one, so that
    memory does not grow with their number. skip: rows that stay in high precision, see `placement`. imgsz: side, or (height, width), in pixels; by
    default what the network was made for. progress: called with 1 after each picture.
    Raises InputError for no pictures, unreadable ones, options as above, and a network that gives values that are not finite.
    """
    if isinstance(pictures, str | Path):
        raise InputError(f"pictures is {shown(str(pictures))}, expected a list of paths or arrays")
    placed = placement(model.network, skip)
    height, width = image_size(imgsz, model.image_size, model.network.stride)
    image = model.network.rows[0].name
    names = [name for maps in placed.groups.values() for name in maps]
    histograms = {group: Histogram() for group in placed.groups}
    of = {name: histograms[group] for group, maps in placed.groups.items() for name in maps}
    run = map_runner(model, height, width, [name for name in names if name != image])
    count = 0
    for picture in pictures:
        batch = fitted(picture, height, width)
        for name, values in {image: batch, **run(batch)}.items():
            if name not in of:
                continue
            try:
                of[name].add(values)
            except InputError as error:
                raise InputError(f"{name}: the network computes {error}") from None
        count += 1
        if progress is not None:
            progress(1)
    if not count:
        raise InputError("no pictures to calibrate on")
    return Calibration(model, placed, tuple(skip), histograms, count, height, width)


def quantize(
    model: Model,
    pictures: Iterable[Picture],
    method: str = "percentile",
    percentile: float = 99.999,
    skip: Sequence[str] = (),
    imgsz: int | Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Model:
    """The model with int8 scales from a calibration on pictures; scales that it had are replaced. Weights stay as they are.

    method: how the value is chosen at which |x| is clipped: "max", the largest; "percentile", the percentile `percentile`; "histogram", the value
    for which rounding and clipping make the least squared error. pictures, skip, imgsz, progress, errors: as for `calibrate`.
    """
    check_method(method, percentile)
    return calibrate(model, pictures, skip, imgsz, progress).quantized(method, percentile)


def fitted(picture: Picture, height: int, width: int) -> np.ndarray:
    """A picture as the network sees it: letterboxed, RGB, float32 `[1, 3, height, width]` in 0..1."""
    image = read_picture(picture) if isinstance(picture, str | Path) else bgr_picture(picture)
    return float_batch(network_input(image, height, width)[0][None])


def map_runner(model: Model, height: int, width: int, names: Sequence[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from `[1, 3, height, width]` to the maps of the rows `names`, float32, of the network with batch norm folded.

    The function uses ONNX Runtime, because it returns maps in the layout in which it computes them, while OpenVINO reorders each: 0.1 s against
    0.15 s for a picture of 640 x 640 pixels and the 63 maps of yolov5n.
    """
    from onnx import TensorProto, helper

    from octrim.targets.onnx.graph import onnx_model

    graph = onnx_model(model, height, width, decode=False)
    graph.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    run = runner(graph.SerializeToString())
    return lambda batch: dict(zip(names, run(batch, names), strict=True)) if names else {}


def runner(graph: bytes) -> Callable[..., list[np.ndarray]]:
    """A function from a float batch, and names of outputs (all by default), to these outputs of an ONNX graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    return lambda batch, names=None: [np.asarray(value) for value in session.run(names, {image: batch})]
