"""Pictures of a training run: curves, labels, training batches as the network sees them, and predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from math import ceil, isfinite, nan
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from octrim.atomic import write_bytes
from octrim.data.charts import draw_classes, draw_density
from octrim.data.dataset import Dataset
from octrim.data.marks import drawable
from octrim.data.pictures import read_picture
from octrim.data.sheet import CAPTION, HEIGHT, MARGIN, blank_tile, in_rows, labelled_tile, to_jpeg
from octrim.errors import InputError, counted
from octrim.figures import new_figure, save_figure
from octrim.network.yolov5 import Anchors
from octrim.training.anchors import label_sizes

MOST_PICTURES = 16  # largest number of pictures in a grid
GAP = 16  # width in pixels of the white gap to the right of a pair of pictures
SIDE = 480  # longer side in pixels of a training picture in its grid
_BARS = 25  # largest number of classes with a bar of their own
# Colours and dashes of lines, which colour-blind readers can tell apart. Training is blue and validation orange wherever both are shown.
_STYLES = (("#0072b2", "-"), ("#d55e00", (0, (5, 1.5))), ("#009e73", (0, (1, 1))))
_MARKS = (("#d55e00", "s"), ("#ffffff", "o"), ("#cc79a7", "^"), ("#56b4e9", "D"), ("#f0e442", "v"))  # marks of the anchors, by level

_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Box loss", {"train/box_loss": "training", "val/box_loss": "validation"}),
    ("Objectness loss", {"train/obj_loss": "training", "val/obj_loss": "validation"}),
    ("Class loss", {"train/cls_loss": "training", "val/cls_loss": "validation"}),
    ("mAP", {"metrics/mAP_0.5": "mAP50", "metrics/mAP_0.5:0.95": "mAP50-95"}),
    ("Precision and recall", {"metrics/precision": "precision", "metrics/recall": "recall"}),
    ("Kept of the network", {"cut/channels": "channels", "cut/macs": "MACs"}),
    ("Learning rate", {"x/lr0": "lr0", "x/lr1": "lr1", "x/lr2": "lr2"}),
)


def save_curves(results_csv: Path, out: Path) -> None:
    """Write a PNG with the curves of a run's `results.csv`: losses, metrics, learning rates, and a panel for each further column.

    Columns that are missing, and values that are missing or no finite numbers, leave gaps. The title gives the values of the last epoch, and of the
    best one by .1 mAP50 + .9 mAP50-95, which a dotted line marks. Raises InputError for a file that cannot be read or has no epochs.
    """
    columns = read_columns(results_csv)
    epochs = columns.pop("epoch")
    panels = [(title, {name: label for name, label in lines.items() if name in columns}) for title, lines in _PANELS]
    known = {name for _, lines in _PANELS for name in lines}
    panels = [(title, lines) for title, lines in panels if lines]
    panels += [(name, {name: name}) for name, values in columns.items() if name not in known and not np.isnan(values).all()]
    rows = max(ceil(len(panels) / 3), 1)
    figure = new_figure(12, 3.1 * rows + 0.3)
    grid = np.ravel(figure.subplots(rows, 3, squeeze=False)).tolist()
    best = _best(columns)
    for axes, (title, lines) in zip(grid, panels, strict=False):
        _draw_panel(axes, title, epochs, {label: columns[name] for name, label in lines.items()}, best)
        if title in ("mAP", "Precision and recall"):
            axes.set_ylim(0, 1.02)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if best is not None:
        title = f"{counted(len(epochs), 'epoch')}; last: {_scores(columns, -1)}"
        if len(epochs) > 1:
            title += f"; best: epoch {epochs[best]:g} (dotted), {_scores(columns, best)}"
        figure.suptitle(title, fontsize=10)
    save_figure(figure, out)


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `results.csv` by name, float64 `[epochs]`; nan where a value is missing or no finite number.

    Raises InputError for a file that cannot be read or has no epochs.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    names = [name.strip() for name in rows[0]] if rows else []
    if "epoch" not in names or len(rows) < 2:
        raise InputError(f"{path}: expected a column epoch and at least one row of results, found {len(rows)} lines and the columns {names[:20]}")
    return {name: np.asarray([_number(row, place) for row in rows[1:]]) for place, name in enumerate(names)}


def _number(row: Sequence[str], place: int) -> float:
    try:
        value = float(row[place])
    except (IndexError, ValueError):
        return nan
    return value if isfinite(value) else nan


def _best(columns: dict[str, np.ndarray]) -> int | None:
    """Index of the best epoch's row, the first among equal ones; None where no epoch was evaluated. Where channels were cut, only epochs of the last
    network count."""
    if "metrics/mAP_0.5" not in columns or "metrics/mAP_0.5:0.95" not in columns:
        return None
    score = 0.1 * columns["metrics/mAP_0.5"] + 0.9 * columns["metrics/mAP_0.5:0.95"]
    if "cut/channels" in columns:
        score = np.where(columns["cut/channels"] == columns["cut/channels"][-1], score, nan)
    return None if np.isnan(score).all() else int(np.nanargmax(score))


def _scores(columns: dict[str, np.ndarray], row: int) -> str:
    """Text of the mAP values in a row of the results; a value that is missing is a dash."""
    values = {label: columns[name][row] for name, label in _PANELS[3][1].items() if name in columns}
    return ", ".join(f"{label} –" if np.isnan(value) else f"{label} {value:.3f}" for label, value in values.items())


def _draw_panel(axes: Axes, title: str, epochs: np.ndarray, lines: dict[str, np.ndarray], best: int | None) -> None:
    if best is not None and len(epochs) > 1:
        axes.axvline(epochs[best], color="#7f7f7f", linewidth=0.9, linestyle=":")
    for (label, values), (colour, dashes) in zip(lines.items(), _STYLES, strict=False):
        alone = np.isfinite(values).sum() == 1  # a line needs two points
        axes.plot(epochs, values, color=colour, linestyle=dashes, linewidth=1.6, marker="o" if alone else "", markersize=5, label=label)
    axes.set_title(drawable(title).replace("$", r"\$"), fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]) if len(epochs) > 1 else FixedLocator(epochs.tolist()))
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)


def save_scales(counts: Sequence[Sequence[int]], top: float, dead: Sequence[float], out: Path) -> None:
    """Write a PNG of sparsity training: histograms of the channels' scales before it and after every epoch, and the fraction of dead channels.

    counts: histograms, each the numbers of channels in equal bins of 0 .. top. dead: fraction of dead channels after every epoch, 0..1.
    """
    figure = new_figure(9, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shares = np.asarray(counts, np.float64).T
    shares /= shares.sum(0)
    edges = np.arange(len(counts) + 1) - 0.5
    # The colour scale is a power scale: in the end the bin of zeros holds most channels, and the others must stay visible.
    mesh = above.pcolormesh(edges, np.linspace(0, top, len(shares) + 1), shares, norm=PowerNorm(0.4, 0, 1), cmap="cividis")
    figure.colorbar(mesh, ax=above, label="share of channels", ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    above.set(ylabel="batch-norm scale (RMS of coupled ones)", title="Scales over sparsity training")
    below.plot(np.arange(1, len(dead) + 1), dead, color=_STYLES[0][0])
    below.set(xlabel="epoch", ylabel="dead channels", ylim=(-0.02, 1.02))
    below.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.grid(alpha=0.3)
    save_figure(figure, out)


def save_labels(dataset: Dataset, out: Path, side: int, anchors: Anchors = (), threshold: float = 4.0) -> None:
    """Write a PNG with a data set's labels: boxes per class, their sizes in pixels where pictures have the longer side `side`, their centres.

    anchors: anchors to mark among the sizes, together with the border of the sizes that fit one within a factor of `threshold`. Crowd regions
    are left out.
    """
    one = ~dataset.crowd
    sizes, picture = label_sizes(dataset, side)
    boxes = dataset.boxes[one].astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / dataset.sizes[picture][:, ::-1]
    counts = np.bincount(dataset.labels[one], minlength=len(dataset.names)).tolist()
    classes = sorted(({"name": name, "boxes": count} for name, count in zip(dataset.names, counts, strict=True)), key=lambda entry: -entry["boxes"])
    figure = new_figure(16, 4.9)
    figure.set_layout_engine("constrained", w_pad=0.12)
    left, middle, right = figure.subplots(1, 3)
    draw_classes(left, classes, _BARS)
    _draw_sizes(figure, middle, sizes, side, anchors, threshold)
    edges = np.linspace(0, 1, 33)
    draw_density(figure, right, centres, edges, edges)
    right.set(xlabel="x, share of the picture", ylabel="y, share of the picture", title="Centres", aspect="equal")
    right.invert_yaxis()
    for axes in (middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(10)
    save_figure(figure, out)


def _draw_sizes(figure: Figure, axes: Axes, sizes: np.ndarray, side: int, anchors: Anchors, threshold: float) -> None:
    flat = np.asarray([anchor for level in anchors for anchor in level], np.float64).reshape(-1, 2)
    low = max(min(sizes.min(initial=side), flat.min(initial=side)) * 0.8, 0.5)
    high = max(sizes.max(initial=low * 2), flat.max(initial=low * 2)) * 1.25
    edges = np.geomspace(low, high, 41)
    draw_density(figure, axes, np.maximum(sizes, low), edges, edges)
    if len(flat):
        logs = np.linspace(np.log(low), np.log(high), 300)
        away = np.abs(np.log(flat)[:, :, None] - logs)  # distances from each anchor's width and height, in logarithms, along either axis
        worst = np.maximum(away[:, 0, None, :], away[:, 1, :, None]).min(0)
        axes.contour(np.exp(logs), np.exp(logs), worst, [np.log(threshold)], colors="#000000", linewidths=1, linestyles="--")
    marks = []
    for place, level in enumerate(anchors):
        colour, shape = _MARKS[place % len(_MARKS)]
        axes.scatter(*zip(*level, strict=True), s=46, color=colour, marker=shape, edgecolors="black", linewidths=1, zorder=3)
        text = f"anchors, level {place + 1}"
        marks.append(Line2D([], [], color=colour, marker=shape, markeredgecolor="black", linestyle="", label=text))
    if marks:
        marks.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label=f"factor {threshold:g} from an anchor"))
        axes.legend(handles=marks, fontsize=8, loc="upper left", framealpha=0.9)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="width, pixels", ylabel="height, pixels", title=f"Sizes in pictures of {side} pixels", aspect="equal")


def save_batch(images: np.ndarray, targets: np.ndarray, names: Sequence[str], out: Path) -> None:
    """Write a JPEG of the first 16 pictures of a training batch with the labels that the loss will see, in rows of four.

    images: uint8 RGB `[pictures, height, width, 3]`. targets: float32 `[n, 6]`: picture in the batch, class, then cx cy w h normalised to
    the picture. Nothing is written for a batch without pictures.
    """
    height, width = images.shape[1:3]
    scale = SIDE / max(height, width)
    tiles = []
    for place, image in enumerate(images[:MOST_PICTURES]):
        mine = targets[targets[:, 0] == place].astype(np.float64)
        centres, extents = mine[:, 2:4] * (width, height), mine[:, 4:6] * (width, height)
        boxes, labels = np.concatenate([centres - extents / 2, centres + extents / 2], 1), mine[:, 1].astype(int)
        texts = [names[int(label)] for label in labels]
        # Tiles have the shape of the pictures, so that they show no padding but the network's.
        rows, columns = round(height * scale) + 2 * MARGIN, round(width * scale) + 2 * MARGIN
        tiles.append(labelled_tile(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), boxes, labels, texts, height=rows, width=columns))
    if tiles:
        write_bytes(out, to_jpeg(in_rows(tiles, 4)))


def save_predictions(
    pictures: Sequence[np.ndarray | str | Path],
    detections: Sequence[np.ndarray],
    truths: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    out: Path,
    confidence: float = 0.25,
) -> None:
    """Write a JPEG of the first 16 pictures, each with its labels and beside them the detections, two pictures to a row.

    pictures: uint8 BGR, or files. detections: per picture `[n, 6]`, x1 y1 x2 y2 in its pixels, confidence, class; those below `confidence`
    are left out. truths: per picture boxes `[m, 4]`, x1 y1 x2 y2 in its pixels, and labels `[m]`. A file that cannot be decoded gets a white
    tile that says so. Nothing is written where there are no pictures.
    """
    tiles = []
    gap = np.full((HEIGHT + CAPTION, GAP, 3), 255, np.uint8)
    for place, (picture, found, (boxes, labels)) in enumerate(list(zip(pictures, detections, truths, strict=True))[:MOST_PICTURES]):
        name = f"picture {place + 1}" if isinstance(picture, np.ndarray) else Path(picture).name
        found = found[found[:, 4] >= confidence]
        try:
            image = picture if isinstance(picture, np.ndarray) else read_picture(picture)
        except InputError:
            tiles.append(np.hstack([blank_tile(f"{name[-30:]}: cannot be decoded"), blank_tile(" "), gap]))
            continue
        true = labelled_tile(image, boxes, labels, [names[int(label)] for label in labels], f"{name[-40:]}: {counted(len(labels), 'label')}")
        texts = [f"{names[int(label)]} {score:.2f}" for score, label in found[:, 4:6].tolist()]
        said = f"{counted(len(found), 'detection')} of confidence {confidence:g} and above"
        tiles.append(np.hstack([true, labelled_tile(image, found[:, :4], found[:, 5], texts, said), gap]))
    if tiles:
        write_bytes(out, to_jpeg(in_rows(tiles, 2)))
