"""Charts of a data set: its class balance, and the sizes and places of its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from octrim.data.dataset import Dataset
from octrim.data.marks import drawable
from octrim.errors import counted
from octrim.figures import new_figure, save_figure

_MOST_BARS = 100


def save_class_chart(classes: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a bar per class, the most frequent first. classes: entries as `check.summary` returns them."""
    ordered = sorted(classes, key=lambda entry: -entry["boxes"])
    figure = new_figure(8, max(2.2, 0.19 * min(len(ordered), _MOST_BARS) + 1.2))
    draw_classes(figure.add_subplot(), ordered)
    save_figure(figure, path)


def draw_classes(axes: Axes, classes: Sequence[dict[str, Any]], most: int = _MOST_BARS) -> None:
    """Draw a horizontal bar for each of the first `most` classes. classes: dictionaries with `name` and `boxes`."""
    shown = classes[:most]
    bars = axes.barh(range(len(shown)), [entry["boxes"] for entry in shown], 0.8, color="#0b5394")
    axes.bar_label(bars, [f"{entry['boxes']:,}" for entry in shown], padding=3, fontsize=7)
    # Matplotlib would take `$` for the beginning of a formula.
    axes.set_yticks(range(len(shown)), [drawable(entry["name"])[:40].replace("$", r"\$") for entry in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlabel("boxes")
    axes.spines[["top", "right"]].set_visible(False)
    rest = f", of which {len(classes) - len(shown)} are not shown" if len(classes) > len(shown) else ""
    axes.set_title(f"{sum(entry['boxes'] for entry in classes):,} boxes in {counted(len(classes), 'class', 'classes')}{rest}", fontsize=10)


def save_box_chart(dataset: Dataset, path: Path) -> None:
    """Write a PNG with three panels: sizes in pixels, width against height, and centres. Crowd regions are left out."""
    one = ~dataset.crowd
    boxes = dataset.boxes[one].astype(np.float64)
    picture = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))[one]
    sides = dataset.sizes[picture][:, ::-1]
    extents = boxes[:, 2:] - boxes[:, :2]
    figure = new_figure(12, 4)
    left, middle, right = figure.subplots(1, 3)
    lengths = np.sqrt(extents.prod(1))
    largest = max(lengths.max(initial=0), 128)
    left.hist(lengths, np.geomspace(max(lengths.min(initial=4), 1), largest, 40), color="#0b5394")
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for bound in (32, 96):
        left.axvline(bound, color="#d55e00", linewidth=1.2)
        left.annotate(f" {bound}", (bound, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color="#d55e00")
    left.set(xlabel="square root of the area, pixels", ylabel="boxes", title="Sizes, with COCO's bounds")
    shares, centres = extents / sides, (boxes[:, :2] + boxes[:, 2:]) / 2 / sides
    for axes, values, title, names in ((middle, shares, "Extents", ("width", "height")), (right, centres, "Centres", ("x", "y"))):
        edges = np.linspace(0, 1, 33)
        draw_density(figure, axes, values, edges, edges)
        axes.set(xlabel=f"{names[0]}, share of the picture", ylabel=f"{names[1]}, share of the picture", title=title, aspect="equal")
    right.invert_yaxis()
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(10)
    save_figure(figure, path)


def draw_density(figure: Figure, axes: Axes, values: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> None:
    """Draw how many of the points `[n, 2]` fall into each cell of a grid, with a colour bar. columns, rows: edges of the cells in x and y."""
    counts, columns, rows = np.histogram2d(values[:, 0], values[:, 1], (columns, rows))
    # The colour map cividis was made to look the same to colour-blind readers.
    image = axes.pcolormesh(columns, rows, np.ma.masked_equal(counts.T, 0), cmap="cividis", norm=LogNorm(1, max(counts.max(), 2)))
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="boxes")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    if counts.max() >= 20:
        bar.ax.yaxis.set_minor_formatter("")
