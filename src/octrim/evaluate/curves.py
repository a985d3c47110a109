"""An evaluation as pictures: precision against recall, F1 against confidence, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from octrim.data.marks import COLOURS
from octrim.errors import counted
from octrim.evaluate.matching import Matches
from octrim.evaluate.metrics import CONFIDENCES, RECALLS, Curves, recall_curves
from octrim.figures import new_figure, save_figure

_NAMED = len(COLOURS)  # most classes that have colours of their own and a legend; more are thin grey lines
_NUMBERED = 15  # most classes whose numbers are written into the confusion matrix
_SHADES = LinearSegmentedColormap.from_list("blues", ["#c6d4e1", "#0b5394", "#03213c"])  # told apart by lightness alone
_TICKS = 100  # most class names that can still be read at an axis


def save_precision_recall(matches: Matches, ap50: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Write a PNG with precision against recall at IoU .5. ap50: `[classes]`, nan where a class has no objects."""
    curves = recall_curves(matches)
    labels = [f"{_text(name)} {value:.3f}" for name, value in zip(names, ap50.tolist(), strict=True)]
    held = ~np.isnan(ap50)
    mean = f"mean of {counted(held.sum(), 'class', 'classes')} {ap50[held].mean():.3f}" if held.any() else ""
    figure, axes = _lines(RECALLS, curves, labels, mean)
    axes.set(xlabel="recall", ylabel="precision", title="Precision against recall at IoU .5 (legend: AP50)")
    save_figure(figure, path)


def save_f1(curves: Curves, names: Sequence[str], path: Path) -> None:
    """Write a PNG with F1 at IoU .5 against confidence, the confidence of the best mean marked."""
    held = ~np.isnan(curves.f1[:, 0])
    best = float(CONFIDENCES[curves.best])
    labels = [f"{_text(name)} {value:.2f}" for name, value in zip(names, curves.f1[:, curves.best].tolist(), strict=True)]
    mean = f"mean of {counted(held.sum(), 'class', 'classes')} {curves.f1[held, curves.best].mean():.2f}" if held.any() else ""
    figure, axes = _lines(CONFIDENCES, curves.f1, labels, mean)
    axes.axvline(best, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="confidence", ylabel="F1", title=f"F1 against confidence at IoU .5 (best mean, smoothed, at {best:.2f})")
    save_figure(figure, path)


def _lines(x: np.ndarray, curves: np.ndarray, labels: Sequence[str], mean: str) -> tuple[Figure, Axes]:
    """Return a figure with the curve of each class that has one, and their mean."""
    held = np.flatnonzero(~np.isnan(curves[:, 0]))
    figure = new_figure(7.5, 5.2)
    axes = figure.add_subplot()
    for index, label in enumerate(held.tolist()):
        if len(held) <= _NAMED:
            blue, green, red = COLOURS[index]
            axes.plot(x, curves[label], color=(red / 255, green / 255, blue / 255), linewidth=1.5, label=labels[label])
        else:
            axes.plot(x, curves[label], color="#7f7f7f", alpha=0.35, linewidth=0.7)
    if len(held):
        axes.plot(x, curves[held].mean(0), color="black" if len(held) <= _NAMED else "#0b5394", linewidth=2.8, label=mean)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Write a PNG of the confusion matrix `[classes + 1, classes + 1]` (rows predicted, columns true, background last).

    Shades are shares of each true class. What is found where nothing is has no such whole: the last column is shaded as a share of
    all that is found there.
    """
    share = counts / np.maximum(counts.sum(0, keepdims=True), 1)
    size = len(counts)
    inches = float(np.clip(0.115 * size + 2.6, 5.0, 14.0))
    figure = new_figure(inches + 1.2, inches)
    axes = figure.add_subplot()
    picture = axes.imshow(np.ma.masked_where(counts == 0, share), cmap=_SHADES, vmin=0, vmax=1, interpolation="nearest")
    if size <= _NUMBERED + 1:
        for row, column in np.argwhere(counts):
            ink = "white" if share[row, column] > 0.3 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=9)
    if size <= _TICKS + 1:
        labels = [_text(name) for name in [*names, "background"]]
        axes.set_xticks(range(size), labels, rotation=90, fontsize=9 if size <= 30 else 6)
        axes.set_yticks(range(size), labels, fontsize=9 if size <= 30 else 6)
    else:
        axes.set(xticks=[], yticks=[])
    axes.axhline(size - 1.5, color="#7f7f7f", linewidth=0.6)
    axes.axvline(size - 1.5, color="#7f7f7f", linewidth=0.6)
    axes.set(xlabel="true class", ylabel="predicted class", title="Confusion at IoU .45, confidence .25")
    figure.colorbar(picture, label="share of the column", shrink=0.6)
    save_figure(figure, path)


def _text(name: str) -> str:
    """Return a class name of at most 24 letters, without what Matplotlib takes for formulas and for labels to hide, and what it cannot draw."""
    short = name if len(name) <= 24 else f"{name[:23]}…"
    short = "".join(letter if letter.isprintable() else "?" for letter in short)
    return " " * short.startswith("_") + short.replace("$", r"\$")
