"""Page of the leaderboard: docs/leaderboard.md, and a picture of mAP against milliseconds per data set, from the rows that are done."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"

SHIPPED = Path(__file__).parents[1] / "src" / "octrim" / "report" / "leaderboard.json"
"""The rows that come with OcTrim, for reports of compressions."""

ABOUT = {
    "bccd": "bccd: 205 pictures of blood cells to train on, 87 to validate, 3 classes, 320 px",
    "carla": "carla: 623 pictures of simulated streets to train on, 156 to validate, 5 classes, many small objects, 320 px",
    "raccoon": "raccoon: 160 natural pictures to train on, 40 to validate, 1 class, large objects, 320 px",
    "pong": "pong: 800 rendered pictures (640 to train on), 2 classes, 256 px",
}

_HEAD = """# Leaderboard

**A rival beats the cut to 1/8 in OpenVINO**: `picodet` takes two thirds of the time of the uniform 1/8 ([times of all
rivals](../benchmarks/rivals/README.md)), and from random weights, without a teacher, has 0.569 on the cells, 0.510 on the raccoons and 0.734 on
Pong's pictures (100 epochs, one training each; cut to 1/8: 0.554, 0.498; its shape from random weights on Pong: 0.581). So OcTrim trains it, too:
[`compress --student`](compression.md#another-layout-instead-of-a-cut---student) lets the whole YOLOv5n teach it (`-student` below), and cuts it
after that (`-student-half`): raccoons 0.590 (three trainings) in half of the time of 1/8. In OcTrim's C the cut YOLOv5n takes half of the uncut
rival's time.

What each network reaches on each data set, and what it costs. Made by `benchmarks/leaderboard.py` from `benchmarks/leaderboard.json`; do not edit.

mAP50-95 and mAP50 are those of the **last epoch** on the validation part: means over seeds, the range in brackets, and for mAP50 the 95 % interval
over resampled pictures (of the first seed). Milliseconds are those of the network alone with decoding, one picture, medians: OpenVINO in float32
with two threads, and OcTrim's [C](c.md) with one. Hours are those of the row's own training, on one thread of a machine that did other work, pauses
counted: a rough guide. Pictures leave out what has less than half of the best accuracy. **Bold**: no faster row (in OpenVINO, or in C) is as
accurate. `scratch` starts from random weights; `fast`, `default` and `best` cut the row `whole` while they fine-tune, with it as the teacher;
`-relu`, `-leaky-relu` and `-hardswish` have that activation in place of SiLU, `-levels-8-16` no stride 32 and as many multiply-adds as 1/8;
`-variance` spreads these multiply-adds by the variance of feature maps, in multiples of 4; `-student` has a layout of its own, which the row `whole`
teaches, `-student-half` is cut after that; `-ms` and `-c` are planned for the time that 1/8 takes in C, `-drop` for that in OpenVINO, where blocks
may go, `-wide` leaves 32 channels in the maps that Detect reads; `-50` fine-tunes for 50 epochs; `-box4` weighs the boxes' loss four times; `-bf16`
has a teacher that computes in bfloat16; `-sgd` has SGD in place of Muon, as the presets did at first. The rivals are layouts of ours after what
papers describe (`benchmarks/rivals/`), not their authors' networks. Rows of commit 2019a7a have the published moving average (`--ema published`
since then). Rows of commits d6e8f26 and later cut whole networks that were trained anew in the same way (0.622 on the cells, 0.723 on the raccoons,
0.403 on the streets). Milliseconds are of one machine (2 cores of an AMD EPYC with AVX-512), all rows of a data set in turns; those by variance,
levels or milliseconds of commits 121f7d0 to fbdd2de were made on an earlier machine and have its time, times the ratio of both machines' times of
the uniform 1/8; so have those of 39aae15 and b446867, which were measured in a later run. Commands are as OcTrim takes them today.
"""

_COLUMNS = ("network", "recipe", "epochs", "mAP50-95", "mAP50", "ms, OpenVINO", "ms, C", "parameters", "MACs, M", "hours", "commit")


@dataclass(frozen=True)
class Entry:
    """The rows of one network and recipe on one data set, all seeds together. ms: milliseconds by runtime, as far as they are measured."""

    data: str
    network: str
    recipe: str
    seeds: tuple[Mapping[str, Any], ...]
    ms: Mapping[str, float]

    @property
    def score(self) -> float:
        """Mean mAP50-95 over the seeds."""
        return mean(seed["mAP50-95"] for seed in self.seeds)


def entries(results: Mapping[str, Mapping[str, Any]]) -> list[Entry]:
    """The rows grouped over their seeds, the most accurate first."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for name, row in sorted(results.items()):
        data, network, recipe, _ = name.split("/")
        groups.setdefault((data, network.replace(":", "/"), recipe), []).append(row)
    found = []
    for key, seeds in groups.items():
        measured = {runtime: [row[f"ms {runtime}"] for row in seeds if f"ms {runtime}" in row] for runtime in ("openvino", "c")}
        found.append(Entry(*key, tuple(seeds), {runtime: mean(values) for runtime, values in measured.items() if values}))
    return sorted(found, key=lambda entry: -entry.score)


def best_of(found: Sequence[Entry], runtime: str) -> list[Entry]:
    """The entries that no other one beats: none that takes at most as long is at least as accurate. Entries without times are left out."""
    timed = [entry for entry in found if runtime in entry.ms]
    return [one for one in timed if not any(_beats(other, one, runtime) for other in timed if other is not one)]


def _beats(other: Entry, one: Entry, runtime: str) -> bool:
    as_good = other.ms[runtime] <= one.ms[runtime] and other.score >= one.score
    return as_good and (other.ms[runtime], -other.score) != (one.ms[runtime], -one.score)


def table(found: Sequence[Entry]) -> str:
    """A Markdown table of one data set's entries."""
    bold = {id(entry) for runtime in ("openvino", "c") for entry in best_of(found, runtime)}
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for entry in found:
        cells = _cells(entry)
        if id(entry) in bold:
            cells[0] = f"**{cells[0]}**"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(entry: Entry) -> list[str]:
    first, scores = entry.seeds[0], [seed["mAP50-95"] for seed in entry.seeds]
    score = f"{entry.score:.3f}"
    if len(scores) > 1:
        score += f" ({min(scores):.3f} to {max(scores):.3f}, {len(scores)} seeds)"
    low, high = first["mAP50 interval"]
    times = [f"{entry.ms[runtime]:.2f}" if runtime in entry.ms else "" for runtime in ("openvino", "c")]
    costs = [f"{first['parameters']:,}", f"{first['macs'] / 1e6:.0f}", f"{mean(seed['hours'] for seed in entry.seeds):.2f}"]
    commits = ", ".join(dict.fromkeys(seed["commit"] for seed in entry.seeds))
    return [entry.network, entry.recipe, str(first["epochs"]), score, f"{first['mAP50']:.3f} ({low:.3f} to {high:.3f})", *times, *costs, commits]


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of docs/leaderboard.md."""
    sections = [_HEAD]
    for data, about in ABOUT.items():
        found = [entry for entry in entries(results) if entry.data == data]
        if not found:
            continue
        picture = f"![mAP50-95 against milliseconds](leaderboard-{data}.png)\n\n" if any("openvino" in entry.ms for entry in found) else ""
        commands = "\n".join(f"    {entry.seeds[0]['command']}" for entry in found)
        sections.append(f"## {about}\n\n{picture}{table(found)}\n\n{commands}\n")
    return "\n".join(sections)


def shipped(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the rows that come with OcTrim: the fields of `octrim.report.neighbours.Neighbour`, means over seeds."""
    found = entries(results)
    whole = {entry.data: entry.score for entry in found if entry.recipe == "whole"}
    rows = [
        {
            "data": entry.data,
            "about": ABOUT[entry.data].partition(": ")[2],
            "network": entry.network,
            "recipe": entry.recipe,
            "seeds": len(entry.seeds),
            "map": round(entry.score, 4),
            "whole": round(whole[entry.data], 4) if entry.data in whole else None,
            "macs": round(mean(seed["macs"] for seed in entry.seeds)),
            **{f"ms_{runtime}": round(entry.ms[runtime], 3) if runtime in entry.ms else None for runtime in ("openvino", "c")},
        }
        for entry in found
    ]
    return json.dumps(rows, indent=1) + "\n"


def write_page(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write docs/leaderboard.md, a picture for each data set with measured times, and the rows that come with OcTrim."""
    from octrim.atomic import write_text

    write_text(DOCS / "leaderboard.md", page(results))
    write_text(SHIPPED, shipped(results))
    for data, about in ABOUT.items():
        found = [entry for entry in entries(results) if entry.data == data and "openvino" in entry.ms]
        if found:
            save_picture(found, DOCS / f"leaderboard-{data}.png", about)


def save_picture(found: Sequence[Entry], out: Path, title: str) -> None:
    """mAP50-95 against milliseconds in OpenVINO and in C, an entry a point; what no other entry beats is joined by a line.

    Entries with less than half of the best accuracy are left to the table: they would press the others together.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from octrim.figures import new_figure, save_figure

    found = [entry for entry in found if 2 * entry.score >= max(one.score for one in found)]
    figure = new_figure(11, 4.4)
    axes = figure.subplots(1, 2, sharey=True)
    apart = 0.03 * (max(entry.score for entry in found) - min(entry.score for entry in found))
    for panel, runtime, label in zip(axes, ("openvino", "c"), ("OpenVINO, two threads", "C, one thread"), strict=True):
        timed = [entry for entry in found if runtime in entry.ms]
        front = sorted(best_of(timed, runtime), key=lambda entry: entry.ms[runtime])
        panel.plot([entry.ms[runtime] for entry in front], [entry.score for entry in front], color="#0b5394", linewidth=1, zorder=1)
        for entry in timed:
            own = entry.network.startswith("yolov5n")
            panel.scatter([entry.ms[runtime]], [entry.score], color="#0b5394" if own else "#b45f06", marker="o" if own else "s", s=28, zorder=2)
        place = math.inf  # of the label above, so that none lies on another
        for entry in sorted(timed, key=lambda entry: -entry.score):
            place = min(entry.score, place - apart)
            at = (entry.ms[runtime], place)
            panel.annotate(f"{entry.network}, {entry.recipe}", at, xytext=(6, -2.5), textcoords="offset points", fontsize=7)
        panel.set(xlabel=f"milliseconds, {label}", xscale="log")
        panel.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="mAP50-95, last epoch")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, out)
