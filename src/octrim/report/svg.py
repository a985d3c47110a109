"""Axes and marks of a chart that is as wide as the page lets it be.

In the drawing, x is in percent and y in pixels, so that text keeps its size on a phone and on a wide screen alike. Lines cannot be given in
percent; they go into an inner drawing that is stretched, and keep their strength because their strokes do not scale. Whatever comes from data is
escaped by Markup.format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

_INNER = 1000  # width of the stretched inner drawing, in its units


@dataclass(frozen=True)
class Axis:
    """An axis of a chart. low, high: values at its ends. ticks: values with their texts."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    def share(self, value: float) -> float:
        """The place of a value on the axis: 0 at its low end, 1 at its high end."""
        return (value - self.low) / (self.high - self.low)


def axis(low: float, high: float, steps: int = 5, whole: bool = False) -> Axis:
    """An axis that holds both values, with about `steps` steps of 1, 2 or 5 times a power of ten. whole: ticks at whole numbers only."""
    high = high if high - low > 1e-9 * abs(low) + 1e-15 else low + 1
    raw = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple((number * step, _tick(number * step, step)) for number in range(first, last + 1)))


def _tick(value: float, step: float) -> str:
    """A tick's text, as short as it can be told apart from the next one's: there is room for five or six letters."""
    if abs(value) >= 1e6 or step < 1e-4:
        return f"{round(value / 1e6, 12):,g} M" if abs(value) >= 1e6 else f"{round(value, 15):g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}" if value else "0"


def epochs_axis(last: int) -> Axis:
    """An axis of the epochs 1 to `last`, with a tick at both ends."""
    if last <= 1:
        return Axis(0.5, 1.5, ((1, "1"),))
    inner = [tick for tick in axis(0, last, 4, whole=True).ticks if 1 < tick[0] <= last - last / 12]
    return Axis(1, last, ((1, "1"), *inner, (last, f"{last:,}")))


class Plot:
    """A chart in the making: its methods add marks, later ones on top, and `svg` draws it. height: pixels."""

    def __init__(self, x: Axis, y: Axis, height: int = 190) -> None:
        self.x, self.y, self.height = x, y, height
        self._marks: list[Markup] = []
        self._lines: list[Markup] = []
        self._bands: list[Markup] = []

    def _x(self, value: float) -> str:
        return f"{100 * self.x.share(value):.2f}%"

    def _y(self, value: float) -> str:
        return f"{self.height * (1 - self.y.share(value)):.1f}"

    def line(self, xs: Iterable[float], ys: Iterable[float], key: str) -> None:
        """Add a line through the points that are finite, or a dot for a single one. key: key of its colour and dashes."""
        points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        if len(points) == 1:
            self.dot(*points[0], key)
        if len(points) < 2:
            return
        steps = (f"{_INNER * self.x.share(x):.1f} {self._y(y)}" for x, y in points)
        self._lines.append(Markup('<path class="line s-{}" d="M{}"/>').format(key, " ".join(steps)))

    def dot(self, x: float, y: float, key: str, text: str = "", shift: float = 0) -> None:
        """Add a dot. text: what the pointer shows there. shift: pixels to the right, where several dots share a place."""
        title = Markup("<title>{}</title>").format(text) if text else ""
        mark = Markup('<circle class="dot s-{}" cx="{}" cy="{}" r="4.5" transform="translate({:.0f})">{}</circle>')
        self._marks.append(mark.format(key, self._x(x), self._y(y), shift, title))

    def whisker(self, x: float, low: float, high: float, key: str, shift: float = 0) -> None:
        mark = Markup('<line class="whisker s-{}" x1="{}" x2="{}" y1="{}" y2="{}" transform="translate({:.0f})"/>')
        self._marks.append(mark.format(key, self._x(x), self._x(x), self._y(low), self._y(high), shift))

    def bar(self, start: float, end: float, value: float, kind: str) -> None:
        """Add a bar from the bottom up to a value. start, end: its sides on the x axis. kind: class of its colour."""
        height = self.height * self.y.share(value)
        mark = Markup('<rect class="{}" x="{}" width="{:.2f}%" y="{:.1f}" height="{:.1f}"/>')
        self._marks.append(mark.format(kind, self._x(start), 100 * (self.x.share(end) - self.x.share(start)), self.height - height, height))

    def rule(self, x: float, text: str) -> None:
        """Add a vertical line with a word at its top."""
        place = self._x(x)
        self._marks.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="0" y2="{}"/><text class="note" x="{}" y="10" dx="5">{}</text>').format(
                place, place, self.height, place, text
            )
        )

    def label(self, x: float, y: float, text: str, dx: float = 9, dy: float = 0, end: bool = False) -> None:
        """Add a text beside a point. dx, dy: pixels to the right and down. end: the text ends `dx` pixels left of the point instead."""
        anchor = ' text-anchor="end"' if end else ""
        mark = Markup('<text class="note" x="{}" y="{}" dx="{:.0f}" dy="{:.1f}"{}>{}</text>')
        self._marks.append(mark.format(self._x(x), self._y(y), -dx if end else dx, dy + 4, Markup(anchor), text))

    def band(self, start: float, end: float, text: str) -> None:
        """Add a text that shows where the pointer or a finger is between two values of x, from top to bottom."""
        mark = Markup('<rect class="band" x="{}" width="{:.2f}%" y="0" height="{}"><title>{}</title></rect>')
        self._bands.append(mark.format(self._x(start), 100 * (self.x.share(end) - self.x.share(start)), self.height, text))

    def cells(self, levels: np.ndarray, count: int) -> None:
        """Add a map over the whole plot. levels: int `[columns, rows]`, 0 (nothing) to count (darkest), the first row at the bottom."""
        columns, rows = levels.shape
        paths = []
        for level in range(1, count + 1):
            steps = "".join(f"M{column} {rows - 1 - row}h1v1h-1z" for column, row in np.argwhere(levels == level).tolist())
            if steps:
                paths.append(Markup('<path class="heat" fill-opacity="{:.2f}" d="{}"/>').format(level / count, steps))
        inner = '<svg viewBox="0 0 {} {}" width="100%" height="{}" preserveAspectRatio="none" shape-rendering="crispEdges">{}</svg>'
        self._marks.append(Markup(inner).format(columns, rows, self.height, Markup("").join(paths)))

    def svg(self, label: str) -> Markup:
        """The finished chart as HTML. label: what it shows, for readers who do not see it."""
        row = '<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/><text class="tick" x="-8" y="{0}" dy="4" text-anchor="end">{1}</text>'
        grid = Markup("").join(Markup(row).format(self._y(value), text) for value, text in self.y.ticks)
        ticks = Markup("").join(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(self._x(value), self.height + 18, text)
            for value, text in self.x.ticks
        )
        lines = Markup('<svg viewBox="0 0 {} {}" width="100%" height="{}" preserveAspectRatio="none">{}</svg>').format(
            _INNER, self.height, self.height, Markup("").join(self._lines)
        )
        marks, bands = Markup("").join(self._marks), Markup("").join(self._bands)
        return Markup('<div class="plot"><svg role="img" aria-label="{}" width="100%" height="{}">{}{}{}{}{}</svg></div>').format(
            label, self.height, grid, ticks, lines if self._lines else "", marks, bands
        )


def stacked(values: Sequence[float], whole: float, kinds: Sequence[str], key: str, texts: Sequence[str]) -> Markup:
    """A horizontal bar of several parts as SVG, each with its own text, in a chart that ends at `whole`. kinds, key: classes of their colours."""
    parts, start = [], 0.0
    for value, kind, text in zip(values, kinds, texts, strict=True):
        mark = Markup('<rect class="{} s-{}" x="{:.2f}%" width="{:.2f}%" y="0" height="18"><title>{}</title></rect>')
        parts.append(mark.format(kind, key, 100 * start / whole, 100 * value / whole, text))
        start += value
    return Markup('<svg class="stack" role="img" aria-label="{}" width="100%" height="18">{}</svg>').format("; ".join(texts), Markup("").join(parts))


def swatch(key: str) -> Markup:
    """A piece of a line as SVG, in the colour and dashes of `key`, for legends."""
    return Markup('<svg class="swatch" width="22" height="8" aria-hidden="true"><path class="line s-{}" d="M1 4H21"/></svg>').format(key)
