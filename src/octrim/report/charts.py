"""Charts of the report, drawn with the marks of svg.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from octrim.report import numerals
from octrim.report.contents import ClassCurve, Cut, ProfiledLayer, ScaleHistograms, SummaryRow, Timing, TrainingPart, TriedShape
from octrim.report.svg import Axis, Plot, axis, epochs_axis, stacked

_BANDS = 100  # most places of a chart that tell their numbers
_COLUMNS = 100  # most columns of the map of scales
_LEVELS = 8  # number of shades in the map of scales

_SHARES = axis(0, 1)

_LOSSES = {"box_loss": "Box loss", "obj_loss": "Objectness loss", "cls_loss": "Class loss"}
_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    *((title, {f"train/{name}": "training", f"val/{name}": "validation"}) for name, title in _LOSSES.items()),
    ("Distillation loss", {"train/output_loss": "output", "train/feature_loss": "feature"}),
    ("Precision and recall", {"metrics/precision": "precision", "metrics/recall": "recall"}),
    ("Learning rate", {"x/lr0": "biases", "x/lr1": "batch norm", "x/lr2": "weights"}),
    ("Dead channels", {"sparsity/dead": "share"}),
    ("Sparsity strength", {"sparsity/strength": "strength"}),
)
_KEYS = ("first", "second", "third")  # keys of colours of lines that stand for no network


@dataclass(frozen=True)
class Chart:
    """A chart with its title. drawing: HTML. legend: pairs of the key of a colour and what the colour stands for."""

    title: str
    drawing: Markup
    legend: tuple[tuple[str, str], ...] = ()


def channels_chart(cut: Cut) -> Markup:
    """A chart of a cut's channels: a light bar (before) and a dark one (after) per convolution, from the picture to Detect as in the table."""
    layers = cut.layers
    y = axis(0, max(layer.before for layer in layers))
    plot = Plot(Axis(0, len(layers), tuple(_module_ticks([layer.name for layer in layers]))), y, 240)
    for place, layer in enumerate(layers):
        plot.bar(place + 0.08, place + 0.92, layer.before, "before")
        plot.bar(place + 0.08, place + 0.92, layer.after, "after")
    for place, layer in enumerate(layers):
        lines = [layer.name, f"{layer.before} → {layer.after} channels" if layer.after != layer.before else f"{layer.before} channels, all kept"]
        if layer.after != layer.before:
            lines.append(f"{numerals.percent(layer.removed)} of the importance removed")
        if layer.after:
            lines += [f"kept whole: {layer.reason}"] if layer.reason else []
        else:
            lines = [layer.name, f"{layer.before} → 0 channels", "dropped"]
        lines += [f"cut together with {', '.join(layer.coupled)}"] if layer.coupled else []
        plot.band(place, place + 1, "\n".join(lines))
    return plot.svg(f"Channels of {len(layers)} convolutions before and after the cut; the table below has the numbers")


def profile_chart(layers: Sequence[ProfiledLayer]) -> Markup:
    """A chart of the milliseconds of each layer in C: a bar per layer, from the picture to Detect."""
    whole = sum(layer.milliseconds for layer in layers) or 1.0
    y = axis(0, max(layer.milliseconds for layer in layers))
    plot = Plot(Axis(0, len(layers), tuple(_module_ticks([layer.name for layer in layers]))), y, 200)
    for place, layer in enumerate(layers):
        plot.bar(place + 0.08, place + 0.92, layer.milliseconds, "after")
        share = numerals.percent(layer.milliseconds / whole)
        plot.band(place, place + 1, f"{layer.name}\n{layer.what}\n{numerals.milliseconds(layer.milliseconds)} ms, {share} of the network's")
    return plot.svg(f"Milliseconds of {len(layers)} layers in C; the table below has the numbers")


def shapes_chart(shapes: Sequence[TriedShape]) -> Markup:
    """A chart of the shapes that a search has tried: a bar for each trial, side by side from round to round; dark for the shape that was chosen."""
    best = max(score for shape in shapes for _, score in shape.tries)
    plot = Plot(Axis(0, len(shapes), tuple((place + 0.5, f"{place + 1}") for place in range(len(shapes)))), axis(0, best), 200)
    rounds = max(len(shape.tries) for shape in shapes)
    for place, shape in enumerate(shapes):
        for turn, (_, score) in enumerate(shape.tries):
            start = place + 0.08 + 0.84 * turn / rounds
            plot.bar(start, start + 0.84 / rounds - 0.02, score, "after" if shape.chosen else "before")
        lines = [shape.name, *(f"{epochs} epochs: mAP50-95 {score:.3f}" for epochs, score in shape.tries)]
        plot.band(place, place + 1, "\n".join(lines))
    return plot.svg(f"mAP50-95 of {len(shapes)} shapes after each of their trials; the table below has the numbers")


def _module_ticks(names: Sequence[str]) -> Iterable[tuple[float, str]]:
    """Ticks (place and text) at some of the places where a module begins, far enough from each other to be read on a phone."""
    last, module = -len(names), ""
    for place, name in enumerate(names):
        here = name.removeprefix("model.").partition(".")[0]
        if here != module and place - last >= len(names) / (12 if len(here) < 3 else 5):
            yield place + 0.5, here[:10]
            last = place
        module = here


def scales_charts(scales: ScaleHistograms) -> list[Chart]:
    """Charts of the distribution of batch-norm scales, and of the share of dead channels, over the epochs of sparsity training."""
    shares = scales.counts / scales.counts.sum(1, keepdims=True)
    chosen = np.unique(np.linspace(0, len(shares) - 1, min(len(shares), _COLUMNS)).round().astype(int))
    # Shades grow with a power of the share: the bin of zeros holds most channels in the end, and the others must stay visible.
    levels = np.where(shares > 0, np.ceil(_LEVELS * shares**0.4), 0).astype(int)[chosen]
    last = len(shares) - 1
    ticks = [(value, text) for value, text in axis(0, max(last, 1), 4, whole=True).ticks if value <= last]
    x = Axis(-0.5, last + 0.5, tuple(ticks))
    plot = Plot(x, axis_to(scales.top))
    plot.cells(levels, _LEVELS)
    edges = np.linspace(-0.5, last + 0.5, len(chosen) + 1)
    below = Plot(x, Axis(0, 1, tuple((tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100))), 190)
    epochs = np.arange(1, len(scales.dead) + 1)
    below.line(epochs, scales.dead, "first")
    for place, epoch in enumerate(chosen.tolist()):
        when = f"after epoch {epoch}" if epoch else "before sparsity training"
        near_zero = f"{numerals.percent(float(shares[epoch, 0]))} of the scales below {scales.top / shares.shape[1]:.3g}"
        dead = f"{numerals.percent(scales.dead[epoch - 1])} of the channels dead" if 0 < epoch <= len(scales.dead) else ""
        text = "\n".join([when, near_zero, *([dead] if dead else [])])
        for each in (plot, below):
            each.band(float(edges[place]), float(edges[place + 1]), text)
    return [
        Chart("Batch-norm scales over epochs", plot.svg("Distribution of batch-norm scales over epochs")),
        Chart("Dead channels over epochs", below.svg("Share of dead channels over epochs")),
    ]


def axis_to(top: float) -> Axis:
    """An axis from zero to exactly `top`."""
    return Axis(0, top, tuple(tick for tick in axis(0, top, 4).ticks if tick[0] <= top))


def story_charts(parts: Sequence[TrainingPart], rows: Sequence[SummaryRow]) -> list[Chart]:
    """Charts of mAP over the epochs of all stages, one after the other, and of the control, which trains from the first epoch on.

    A chart without two scores is left out; without results of a stage there are none.
    """
    charts = []
    stages = [part for part in parts if part.results is not None and part.key != "control"]
    control = next((part for part in parts if part.key == "control" and part.results is not None), None)
    if not stages:
        return []
    starts, offset = [], 0
    for part in stages:
        starts.append(offset)
        offset += _last_epoch(part)
    whole = max(offset, _last_epoch(control) if control else 0)
    shown = list(zip(stages, starts, strict=True)) + ([(control, 0)] if control else [])
    cut_row = next((row for row in rows if row.key == "cut"), None)
    for name, column, value in (("mAP50-95", "metrics/mAP_0.5:0.95", "map"), ("mAP50", "metrics/mAP_0.5", "map50")):
        lines = {part: part.results[column] for part, _ in shown if part.results is not None and column in part.results}
        scores = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in lines.values())])
        if len(scores) < 2:
            continue
        plot = Plot(epochs_axis(whole), axis(0, max(float(scores.max()), 0.01), 5), 230)
        found: dict[int, list[str]] = {}
        for part, start in shown:
            if part not in lines or part.results is None:
                continue
            epochs = part.results["epoch"] + 1
            if part.key == "finetuned" and start and cut_row is not None:
                plot.rule(start, "cut")
            plot.line(epochs + start, lines[part], part.key)
            for epoch, score in zip(epochs.tolist(), lines[part].tolist(), strict=True):
                if np.isfinite(score) and np.isfinite(epoch):
                    own = f" (its {epoch:.0f})" if start else ""
                    found.setdefault(round(epoch + start), []).append(f"{part.title or name}{own}: {score:.3f}")
        if cut_row is not None:
            before = next((start for part, start in shown if part.key == "finetuned"), offset)
            if before >= 1:
                plot.dot(before, getattr(cut_row, value), "cut", f"{name} just after the cut: {getattr(cut_row, value):.3f}")
        _bands(plot, found, whole)
        legend = {part.key: part.title for part, _ in shown if part in lines and part.title}
        charts.append(Chart(f"{name} over epochs", plot.svg(f"{name} over {whole} epochs"), tuple(legend.items())))
    charts += [_kept_chart(part, start, whole) for part, start in shown if part.results is not None and "cut/channels" in part.results]
    return charts


def _kept_chart(part: TrainingPart, start: int, whole: int) -> Chart:
    """A chart of the shares of channels and MACs that are left while a training cuts. start: epochs before that training; whole: epochs of all."""
    assert part.results is not None
    percents = tuple((tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100))
    plot = Plot(epochs_axis(whole), Axis(0, 1, percents), 150)
    epochs = np.concatenate([[0.0], part.results["epoch"] + 1]) + start
    found: dict[int, list[str]] = {}
    lines = {label: part.results[name] for name, label in _KEPT.items() if name in part.results}
    for key, (label, values) in zip(_KEYS, lines.items(), strict=False):
        values = np.concatenate([[1.0], np.clip(values, 0, 1)])
        plot.line(epochs, values, key)
        for epoch, value in zip(epochs.tolist(), values.tolist(), strict=True):
            if np.isfinite(value) and np.isfinite(epoch):
                found.setdefault(round(epoch), []).append(f"{numerals.percent(value)} of the {label}")
    _bands(plot, found, whole)
    return Chart(
        "Channels and MACs that are left", plot.svg(f"Shares of channels and MACs over {whole} epochs"), tuple(zip(_KEYS, lines, strict=False))
    )


_KEPT = {"cut/channels": "channels", "cut/macs": "MACs"}  # columns of results.csv of a training that cuts


def _last_epoch(part: TrainingPart) -> int:
    assert part.results is not None
    known = part.results["epoch"][np.isfinite(part.results["epoch"])]
    return int(min(known.max(initial=0), 1e6)) + 1


def _bands(plot: Plot, found: Mapping[int, Sequence[str]], last: int) -> None:
    """Add bands to a plot that tell an epoch's numbers where it stands; of more than _BANDS epochs, some have one.

    found: texts by epoch. last: the last epoch.
    """
    epochs = sorted(found)
    chosen = sorted({epochs[place] for place in np.linspace(0, len(epochs) - 1, min(len(epochs), _BANDS)).round().astype(int).tolist()})
    middles = [(one + two) / 2 for one, two in itertools.pairwise(chosen)]
    low, high = plot.x.low, plot.x.high
    for epoch, start, end in zip(chosen, [low, *middles], [*middles, high], strict=True):
        plot.band(max(start, low), min(end, high), "\n".join([f"epoch {epoch} of {last}", *found[epoch]]))


def training_charts(part: TrainingPart) -> list[Chart]:
    """Charts of results.csv other than mAP: losses, precision and recall, learning rates, and every column that is not known here."""
    assert part.results is not None
    columns = {name: values for name, values in part.results.items() if name != "epoch" and not np.isnan(values).all()}
    known = {name for _, lines in _PANELS for name in lines} | _KEPT.keys() | {"metrics/mAP_0.5", "metrics/mAP_0.5:0.95"}
    panels = [*_PANELS, *((name[:40], {name: ""}) for name in columns if name not in known)]
    epochs = part.results["epoch"] + 1
    last = _last_epoch(part)
    charts = []
    for title, names in panels:
        lines = {label: columns[name] for name, label in names.items() if name in columns and (np.nan_to_num(columns[name]) != 0).any()}
        if not lines:
            continue
        finite = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
        plot = Plot(epochs_axis(last), axis(min(0.0, float(finite.min())), float(finite.max()), 4), 150)
        found: dict[int, list[str]] = {}
        for key, (label, values) in zip(_KEYS, lines.items(), strict=False):
            plot.line(epochs, values, key)
            for epoch, value in zip(epochs.tolist(), values.tolist(), strict=True):
                if np.isfinite(value) and np.isfinite(epoch):
                    found.setdefault(round(epoch), []).append(f"{label or title}: {value:.4g}")
        _bands(plot, found, last)
        legend = tuple(zip(_KEYS, lines, strict=False)) if len(lines) > 1 else ()
        charts.append(Chart(title, plot.svg(f"{title} over {last} epochs"), legend))
    return charts


def recall_charts(curves: Mapping[tuple[str, str], Sequence[ClassCurve]], most: int) -> tuple[list[Chart], int]:
    """Charts of precision against recall, with a line per network, and the number of classes that are left out.

    The first chart shows the mean of the classes, if there are several; the next show one class each. curves: curves of all classes, by key and
    title of the network. most: largest number of classes with a chart of their own.
    """
    first = next(iter(curves.values()))
    charts = []
    if len(first) > 1:
        means = {one: (float(np.mean([c.ap50 for c in found])), np.mean([c.precision for c in found], 0)) for one, found in curves.items() if found}
        charts.append(_recall_chart(f"Mean of {len(first)} classes", means))
    for place, curve in enumerate(first[:most]):
        # Classes are matched by number, because two of them may share a name.
        own = {one: (found[place].ap50, found[place].precision) for one, found in curves.items() if len(found) == len(first)}
        charts.append(_recall_chart(curve.name, own))
    return charts, max(len(first) - most, 0)


def _recall_chart(title: str, lines: Mapping[tuple[str, str], tuple[float, np.ndarray]]) -> Chart:
    plot = Plot(_SHARES, _SHARES, 170)
    for (key, _), (_, precision) in lines.items():
        plot.line(np.linspace(0, 1, len(precision)), precision, key)
    for recall in np.linspace(0, 1, 21).tolist():
        texts = [f"{title}: precision at recall {recall:.2f}"]
        texts += [f"{name or 'network'}: {curve[round(recall * (len(curve) - 1))]:.3f}" for (_, name), (_, curve) in lines.items()]
        plot.band(max(recall - 0.025, 0), min(recall + 0.025, 1), "\n".join(texts))
    legend = tuple((key, f"{name} {ap50:.3f}".strip()) for (key, name), (ap50, _) in lines.items())
    return Chart(title, plot.svg(f"Precision against recall, {title}"), legend)


_LABELS_LEFT = 0.6  # share of the width beyond which a dot's label stands on its left
_LINE = 15.0  # pixels from one label to the next


def accuracy_chart(rows: Sequence[SummaryRow], values: Sequence[float], label: str, unit: str) -> Chart:
    """A chart of mAP50-95, with its interval, against a cost: a dot per network. values: the cost of each row's network, in `unit`."""
    top = max(max(row.interval[1], row.map) for row in rows)
    plot = Plot(axis(0, max(values), 4), axis(0, max(top, 0.01), 5), 250)
    labels: list[tuple[float, float, bool]] = []  # of the labels so far: pixels from the top, place of the dot as a share of the width, on which side
    for places in _crowded(rows, values):
        for number, place in enumerate(places):
            row, value, shift = rows[place], values[place], 12 * (number - (len(places) - 1) / 2)
            low, high = row.interval
            plot.whisker(value, low, high, row.key, shift)
            plot.dot(value, row.map, row.key, f"{row.title}\nmAP50-95 {row.map:.3f} ({low:.3f} to {high:.3f})\n{value:,.4g} {unit}", shift)
        for place in places:  # labels stand beside all dots of the group
            height, share = plot.height * (1 - plot.y.share(rows[place].map)), plot.x.share(values[place])
            drawn = _free_height(height, share, plot.height, labels)
            labels.append((drawn, share, share > _LABELS_LEFT))
            beside = 12 * (len(places) - 1) / 2 + 9
            text = f"{rows[place].title} {rows[place].map:.3f}"
            plot.label(values[place], rows[place].map, text, beside, drawn - height, end=share > _LABELS_LEFT)
    return Chart(f"mAP50-95 against {label}", plot.svg(f"mAP50-95 against {label}"))


def _free_height(height: float, share: float, bottom: float, labels: Sequence[tuple[float, float, bool]]) -> float:
    """Height in pixels from the top, as near to `height` as there is room, for the label of a dot at `share` of the width.

    labels: height, share and side of those that are there. One is in the way where the two would overlap on a phone: they are of dots that are near
    each other, or one label goes to the right and the other to the left.
    """
    left = share > _LABELS_LEFT
    taken = [other for other, place, side in labels if side != left or abs(place - share) < 0.4]
    steps = [step * _LINE * sign for step in range(1 + len(labels) * 2) for sign in (1, -1)]
    fitting = [height + step for step in steps if all(abs(height + step - other) >= _LINE for other in taken)]
    return next((found for found in fitting if 0 <= found <= bottom), height)


def _crowded(rows: Sequence[SummaryRow], values: Sequence[float]) -> list[list[int]]:
    """Indices of rows, in groups of equal cost and overlapping intervals, whose dots stand side by side; sorted by cost, best mAP first."""
    groups: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda place: (values[place], -rows[place].map)):
        last = groups[-1][-1] if groups else None
        if last is not None and f"{values[last]:.3g}" == f"{values[place]:.3g}" and rows[place].interval[1] >= rows[last].interval[0]:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def latency_bars(timings: Sequence[tuple[str, str, Timing]]) -> list[tuple[str, Markup, Timing]]:
    """Title, bar and times of each network; the bar shows the medians of its three stages. timings: key, title and times of each network."""
    names = ("pre", "network", "post")
    whole = max(sum(timing.stages[name][0] for name in names) for _, _, timing in timings) or 1.0
    bars = []
    for key, title, timing in timings:
        values = [timing.stages[name][0] for name in names]
        texts = [f"{title}: {name} {numerals.milliseconds(value)} ms" for name, value in zip(names, values, strict=True)]
        bars.append((title, stacked(values, whole, names, key, texts), timing))
    return bars
