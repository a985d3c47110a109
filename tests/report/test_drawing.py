"""Axes, marks and numbers against values worked out by hand, and the matching of boxes against the evaluation's."""

from __future__ import annotations

import re
from math import nan

import numpy as np
import pytest
from markupsafe import Markup

from octrim.evaluate.matching import match
from octrim.report import numerals
from octrim.report.charts import _free_height, accuracy_chart, channels_chart, recall_charts
from octrim.report.contents import ClassCurve, Cut, PlannedConv, SummaryRow
from octrim.report.shots import matched
from octrim.report.svg import Axis, Plot, axis, epochs_axis
from tests.evaluate.material import random_case


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 0.62, ["0", "0.2", "0.4", "0.6", "0.8"]),
        (0, 256, ["0", "100", "200", "300"]),
        (0, 0, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 0.0075, ["0", "0.002", "0.004", "0.006", "0.008"]),
        (0, 3e-7, ["0", "1e-07", "2e-07", "3e-07"]),
        (0, 1767976, ["0", "500,000", "1 M", "1.5 M", "2 M"]),
        (-0.3, 0.3, ["-0.4", "-0.2", "0", "0.2", "0.4"]),
        (7, 7, ["7.0", "7.2", "7.4", "7.6", "7.8", "8.0"]),
    ],
)
def test_axes_hold_their_values(low: float, high: float, ticks: list[str]) -> None:
    found = axis(low, high)
    assert [text for _, text in found.ticks] == ticks
    assert found.low <= low and found.high >= high and (found.ticks[0][0], found.ticks[-1][0]) == (found.low, found.high)


def test_epochs() -> None:
    assert [text for _, text in epochs_axis(1).ticks] == ["1"]
    assert [text for _, text in epochs_axis(200).ticks] == ["1", "50", "100", "150", "200"]
    assert [text for _, text in epochs_axis(3).ticks] == ["1", "2", "3"]
    assert epochs_axis(60).low == 1 and epochs_axis(60).high == 60


def test_marks_are_where_they_belong() -> None:
    plot = Plot(Axis(0, 10), Axis(0, 2), height=100)
    plot.line([0, 5, 7, 10], [0, 1, nan, 2], "original")
    plot.line([5, nan], [0.5, 1], "cut")  # one point: a dot
    plot.bar(2, 4, 1.5, "after")
    plot.band(2, 4, "a < b & c")
    svg = plot.svg('"quoted"')
    assert 'd="M0.0 100.0 500.0 50.0 1000.0 0.0"' in svg
    assert '<circle class="dot s-cut" cx="50.00%" cy="75.0"' in svg
    assert '<rect class="after" x="20.00%" width="20.00%" y="25.0" height="75.0"/>' in svg
    assert "<title>a &lt; b &amp; c</title>" in svg and 'aria-label="&#34;quoted&#34;"' in svg


def test_a_map_of_cells() -> None:
    plot = Plot(Axis(0, 2), Axis(0, 3), height=90)
    plot.cells(np.asarray([[2, 0, 1], [0, 0, 2]]), 2)  # two columns of three rows, the first at the bottom
    svg = plot.svg("cells")
    assert 'fill-opacity="0.50" d="M0 0h1v1h-1z"' in svg and 'fill-opacity="1.00" d="M0 2h1v1h-1zM1 0h1v1h-1z"' in svg


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numerals.short(1767976), "1.77 M"),
        (numerals.short(34280), "34.3 k"),
        (numerals.short(999_960), "1.00 M"),
        (numerals.short(744), "744"),
        (numerals.short(None), "–"),
        (numerals.times(51.574), "51.6×"),
        (numerals.milliseconds(3.6641), "3.66"),
        (numerals.milliseconds(0.4491), "0.449"),
        (numerals.milliseconds(1234.5), "1,234"),
        (numerals.change(-0.0698), "−0.070"),
        (numerals.change(0.0001), "±0.000"),
        (numerals.tiny(7.2e-6), "7.2 × 10⁻⁶"),
        (numerals.tiny(0), "0"),
        (numerals.duration(1512.82), "25 min"),
        (numerals.duration(61), "1 min 1 s"),
        (numerals.duration(2.56), "2.6 s"),
        (numerals.duration(7300), "2 h 2 min"),
        (numerals.percent(0.154), "15.4 %"),
    ],
)
def test_numbers_for_people(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_matched_as_the_evaluation_does(seed: int) -> None:
    dataset, detections = random_case(seed, 6, 2, crowds=True)
    found = match(dataset, detections)
    for index, rows in enumerate(detections):
        right, ignored, hit = matched(rows, *dataset.targets(index))
        mine = found.picture == index
        np.testing.assert_array_equal(right, found.matched[mine, 0])
        np.testing.assert_array_equal(ignored, found.ignored[mine, 0])
        assert hit.sum() == right.sum()


def row(key: str, macs: int, value: float) -> SummaryRow:
    return SummaryRow(key, 1, macs, 1, 1, value, value, (value - 0.02, value + 0.02), 1)


def test_networks_of_one_cost_stand_side_by_side() -> None:
    """Labels of what would lie on top of each other are at least fifteen pixels apart."""
    rows = [row("original", 500, 0.6), row("cut", 40, 0.01), row("finetuned", 40, 0.55), row("control", 40, 0.545)]
    svg = accuracy_chart(rows, [one.macs for one in rows], "MACs", "M").drawing
    shifts = dict(re.findall(r'class="dot s-(\w+)"[^>]*translate\((-?\d+)\)', svg))
    assert shifts == {"original": "0", "cut": "0", "finetuned": "-6", "control": "6"}
    places = {text.split()[0]: float(y) + float(dy) for y, dy, text in re.findall(r'y="([\d.]+)" dx="-?\d+" dy="([\d.-]+)"[^>]*>([^<]+)', svg)}
    assert places["control"] - places["fine-tuned"] >= 15 and 'text-anchor="end">original 0.600' in svg


def test_classes_beyond_the_limit_are_counted() -> None:
    curves = {("original", "one"): [ClassCurve(f"class{index} <b>", 0.5, np.linspace(1, 0, 101)) for index in range(5)]}
    charts, left = recall_charts(curves, 3)
    assert [chart.title for chart in charts] == ["Mean of 5 classes", "class0 <b>", "class1 <b>", "class2 <b>"] and left == 2
    assert "<b>" not in charts[1].drawing and "recall 0.50" in charts[1].drawing
    assert charts[0].legend == (("original", "one 0.500"),)


def test_the_largest_network_has_a_bar_for_every_layer() -> None:
    layers = tuple(PlannedConv(f"model.{index}", 1024, 128, (), 0.5, (1, 1), None) for index in range(300))
    svg = channels_chart(Cut(layers, (1, 1), (1, 1), (1, 1)))
    assert isinstance(svg, Markup) and svg.count('class="before"') == svg.count('class="after"') == svg.count("<title>") == 300
    assert svg.count('class="tick"') < 20


def test_labels_of_dots_do_not_lie_on_each_other() -> None:
    """A label moves up or down by whole lines where one is in the way: of a dot nearby, or on the other side, which comes towards it."""
    assert _free_height(100, 0.2, 250, []) == 100
    assert _free_height(100, 0.3, 250, [(104, 0.2, False)]) == 85  # not 115, which would be 11 pixels from 104
    assert _free_height(100, 0.55, 250, [(100, 0.1, False)]) == 100  # to the right of a dot far away
    assert _free_height(100, 0.8, 250, [(100, 0.3, False)]) == 115
    assert _free_height(248, 0.8, 250, [(240, 0.3, False)]) == 218  # neither below the axis nor within a line of the other one
    assert _free_height(2, 0.8, 10, [(2, 0.3, False)]) == 2  # there is no room anywhere


def test_labels_of_a_chart_have_places_of_their_own() -> None:
    rows = [row("original", 100, 0.2), row("cut", 60, 0.2), row("finetuned", 55, 0.2)]
    svg = accuracy_chart(rows, [one.macs for one in rows], "MACs", "M").drawing
    found = [float(y) + float(dy) for y, dy in re.findall(r'y="([\d.]+)" dx="-?\d+" dy="([\d.-]+)"[^>]*>[\w-]+ 0\.200', svg)]
    assert len(found) == 3 and np.diff(np.sort(found)).min() >= 15
