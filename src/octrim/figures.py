"""Figures of Matplotlib without a window, written as PNG."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from octrim.atomic import replacing


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in which Matplotlib makes room for titles and labels by itself. width, height: size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all; the same figure gives the same bytes."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # no warning for characters that the font lacks: they are drawn as boxes
        warnings.filterwarnings("ignore", "Creating legend")  # nor where a legend took long to place
        figure.savefig(temporary, dpi=130, metadata={"Software": None})
