"""The curves of a sensitivity analysis as a picture: a row per group of channels, a column per share that is cut."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from octrim.figures import new_figure, save_figure
from octrim.training.sensitivity_curves import FRACTIONS, SensitivityCurves


def save_sensitivity_chart(curves: SensitivityCurves, tolerance: float, path: Path) -> None:
    """Write a PNG: a row per group, a column per share cut, dark where it does harm; a frame around what the keep-map takes."""
    loss = curves.metric == "loss"
    # A rise of the loss has no upper bound, so only its order of magnitude matters; of mAP no more can be lost than the baseline.
    harms = np.asarray([[curves.harm(value) for value in curve.values] for curve in curves.groups]).reshape(-1, len(FRACTIONS))
    worst = harms[np.isfinite(harms)].max(initial=1)
    shades = np.log10(np.clip(harms, 1e-3, worst)) if loss else harms
    scale = Normalize(-3, np.log10(worst)) if loss else Normalize(0, max(curves.baseline, 1e-6))
    figure = new_figure(9.5, 0.235 * max(len(curves.groups), 4) + 1.7)
    axes = figure.add_subplot()
    image = axes.imshow(shades, cmap="cividis_r", norm=scale, aspect="auto", interpolation="nearest")
    for row, curve in enumerate(curves.groups):
        fewest = curves.channels_kept(curve, tolerance)
        for column, value in enumerate(curve.values):
            shade = float(np.clip(scale(shades[row, column]), 0, 1))
            text = _cell(curves.harm(value)) if loss else f"{value:.3f}".lstrip("0")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if shade > 0.45 else "black")
        if fewest < curve.channels:
            column = max(place for place, count in enumerate(curve.kept) if count == fewest)
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=1.8))
    names = [f"{curve.title.removeprefix('model.')}   {curve.channels}" for curve in curves.groups]
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_xticks(range(len(FRACTIONS)), [f"{round(100 * fraction)} %" for fraction in FRACTIONS], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("group (+ coupled convolutions), channels", fontsize=9)
    axes.set_xlabel("share of the group's channels that is cut", fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 12 / max(len(names), 1) + 0.3), pad=0.015)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=8)
    if loss:
        powers = range(-3, math.floor(np.log10(worst)) + 1)
        bar.set_ticks(list(powers), labels=[f"{10.0 ** (power + 2):g} %" for power in powers])
    bar.set_label("loss higher by" if loss else "mAP50-95 lost", fontsize=9)
    uncut = f"loss {curves.baseline:.4f}" if loss else f"mAP50-95 {curves.baseline:.3f}"
    limit = f"{100 * tolerance:g} % of the loss" if loss else f"{tolerance:g} mAP50-95"
    what = "Rise of the loss, %," if loss else "mAP50-95"
    axes.set_title(f"{what} with one group cut; uncut: {uncut}; framed: the largest cut that costs at most {limit}", fontsize=9.5)
    save_figure(figure, path)


def _cell(harm: float) -> str:
    """Text of a cell for a rise of the loss, in percent or as a factor."""
    if not math.isfinite(harm):
        return "-"
    if harm >= 9.995:
        return f"x{1 + harm:.0f}"
    return f"{100 * harm:+.0f}" if abs(harm) >= 0.0995 else f"{100 * harm:+.1f}"
