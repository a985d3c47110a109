"""Picture of the README: a whole network and its cut on the same pictures, with what each finds, and its milliseconds beside.

    python -m benchmarks.side_by_side --whole RUN/1-train/last.safetensors --small RUN/4-finetune/last.safetensors --data DATA --imgsz 256 \\
        --pictures 3 9 14 20 --out docs/side-by-side.png

Both networks are timed in OpenVINO and in C, with one thread, in turns. --pictures: numbers of pictures in the validation part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import octrim
from octrim.data.open import open_dataset
from octrim.data.pictures import read_picture
from octrim.data.scenes import drawn_scene
from octrim.deploy.bench import compared
from octrim.deploy.options import BenchOptions
from octrim.network.loading import load
from octrim.network.model import Model

COLOURS = ("#ffb000", "#40d0ff")
"""Colours of the boxes, by class."""


def draw_found(axes: Axes, picture: str, detector: octrim.Detector, names: tuple[str, ...]) -> None:
    """A picture with the boxes that a detector finds in it, with confidences."""
    axes.imshow(cv2.cvtColor(read_picture(picture), cv2.COLOR_BGR2RGB))
    axes.set_axis_off()
    for found in detector.predict(picture)[0]:
        x1, y1, x2, y2 = found.xyxy
        colour = COLOURS[names.index(found.name)]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=1.6))
        axes.text(x1, y1 - 3, f"{found.confidence:.2f}", color=colour, fontsize=7, weight="bold", clip_on=True)


def describe(axes: Axes, title: str, weights: Path, times: list[float]) -> None:
    """Name, times in OpenVINO and in C, and size of a network's file as text."""
    axes.set_axis_off()
    axes.text(0.04, 0.86, title, fontsize=12, weight="bold", va="center")
    for height, program, time in zip((0.62, 0.38), ("OpenVINO", "C"), times, strict=True):
        axes.text(0.04, height, f"{time:.1f} ms" if time >= 1 else f"{time:.2f} ms", fontsize=18, weight="bold", va="center", color="#d55e00")
        axes.text(0.66, height, program, fontsize=11, va="center")
    axes.text(0.04, 0.14, f"{weights.stat().st_size / 1e6:.2f} MB", fontsize=11, va="center")


def measured(models: list[Model], side: int, rounds: int) -> list[list[float]]:
    """Median milliseconds of each network alone in OpenVINO and in C."""
    runtimes = ("openvino", "c")
    named = [(runtime, model) for model in models for runtime in runtimes]
    options = BenchOptions(imgsz=(side,), threads=1, rounds=rounds)
    rows = compared(named, options, drawn_scene(0, side, side), runtimes=runtimes * len(models)).rows
    times = [row["network_p50_ms"] for row in rows]
    return [times[:2], times[2:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", required=True)
    parser.add_argument("--small", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--pictures", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    models = [load(options.whole), load(options.small)]
    dataset = open_dataset(options.data, "val")
    paths = [str(dataset.paths[number]) for number in options.pictures]
    times = measured(models, options.imgsz, options.rounds)
    shapes = [read_picture(path).shape for path in paths]
    widths = [*(shape[1] / shape[0] for shape in shapes), 1.35]  # of the picture's height; the last is the text's
    figure, rows = plt.subplots(2, len(widths), figsize=(12, 2 * 12 / sum(widths)), width_ratios=widths)
    files = (Path(options.whole), Path(options.small))
    for row, title, file, model, own in zip(rows, ("whole network", "cut by OcTrim"), files, models, times, strict=True):
        detector = octrim.Detector(model, imgsz=options.imgsz, conf=0.25)
        for axes, path in zip(row, paths, strict=False):
            draw_found(axes, path, detector, model.names)
        describe(row[-1], title, file, own)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, 0.03, 0.03)
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
