"""Chart of the distribution of every map's values, and of the values at which they are clipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from octrim.figures import new_figure, save_figure
from octrim.quantization.histogram import BINS, Histogram

_COLUMNS = 256


def save_scale_chart(histograms: dict[str, Histogram], clips: dict[str, float], path: Path) -> None:
    """Write a PNG with a line per group: shares of |x| from 0 to its largest value, on a logarithmic colour scale, and the clip as a mark."""
    names = list(histograms)
    shares = np.stack([_resampled(histogram) for histogram in histograms.values()])
    figure = new_figure(8, max(3.0, 0.16 * len(names) + 1.6))
    axes = figure.add_subplot()
    image = axes.imshow(
        np.log10(np.maximum(shares, 1e-7)), aspect="auto", cmap="Blues", extent=(0, 1, len(names) - 0.5, -0.5), interpolation="nearest"
    )
    tops = [max(histogram.max, np.finfo(np.float32).tiny) for histogram in histograms.values()]
    positions = [min(clips[name] / top, 1.0) for name, top in zip(names, tops, strict=True)]
    axes.scatter(positions, range(len(names)), marker="|", s=60, color="#cc0000", label="clip", clip_on=False, zorder=3)
    axes.set_yticks(range(len(names)), [name.removeprefix("model.") for name in names], fontsize=7)
    axes.set_xlabel("|x| / largest |x|")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    figure.colorbar(image, ax=axes, label="log10 of the share of values", shrink=0.5)
    save_figure(figure, path)


def _resampled(histogram: Histogram) -> np.ndarray:
    """Shares of the values in _COLUMNS equal parts of the range from 0 to the largest value."""
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    edges = np.linspace(0, histogram.max / histogram.width, _COLUMNS + 1)
    return np.diff(np.interp(edges, np.arange(BINS + 1), below)) / max(below[-1], 1)
