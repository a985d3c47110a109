"""`octrim data --check`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from octrim.atomic import write_bytes, write_text
from octrim.data.charts import save_box_chart, save_class_chart
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.data.sheet import contact_sheet
from octrim.errors import InputError
from octrim.runs import new_run

if TYPE_CHECKING:
    from octrim.commands import Data

# COCO's bounds of small, medium and large: areas of 32 x 32 and 96 x 96 pixels.
COCO_AREAS = (32**2, 96**2)
SHARES = (0.001, 0.01, 0.1)  # of the picture's area


def check(config: Data) -> None:
    """Print and write the counts, the charts and a sheet of labelled pictures."""
    if config.check is None:
        raise InputError("--check is missing: a data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file")
    dataset = open_dataset(config.check, config.split, config.names)
    run = new_run(config)
    write_bytes(run.path / "contact.jpg", contact_sheet(dataset, seed=0))
    facts = summary(dataset)
    write_text(run.path / "check.json", json.dumps(facts, indent=1, ensure_ascii=False))
    save_class_chart(facts["classes"], run.path / "classes.png")
    save_box_chart(dataset, run.path / "boxes.png")
    run.print(_counted(facts))
    run.print(_class_table(facts))
    run.print(_size_table(facts))
    for note in dataset.notes:
        run.print(Text(note))
    run.print(f"problems: {dataset.report.problems:,}" if dataset.report.problems else "no problems found")
    for line in dataset.report.lines():
        run.print(Text(f"  {line}"))  # as it is: paths may hold what Rich takes for markup
    run.print(Text(f"counts, charts and a sheet of labelled pictures: {run.path}"))


def summary(dataset: Dataset) -> dict[str, Any]:
    """The counts as plain values. Crowd regions are counted apart and in nothing else; sizes are in pixels of the pictures."""
    one = ~dataset.crowd
    boxes, labels = dataset.boxes[one].astype(np.float64), dataset.labels[one]
    picture = np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))[one]
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shares = widths * heights / dataset.sizes.astype(np.float64).prod(1)[picture]
    counts = np.bincount(labels, minlength=len(dataset.names))
    pairs = np.unique(picture.astype(np.int64) * len(dataset.names) + labels)
    holding = np.bincount(pairs % len(dataset.names), minlength=len(dataset.names))
    share = counts / max(len(labels), 1)
    classes = [
        {"class": number, "name": name, "boxes": int(counts[number]), "pictures": int(holding[number]), "share": round(float(share[number]), 4)}
        for number, name in enumerate(dataset.names)
    ]
    return {
        "pictures": len(dataset),
        "backgrounds": int((np.diff(dataset.starts) == 0).sum()),
        "boxes": len(labels),
        "crowd_regions": int(dataset.crowd.sum()),
        "classes": classes,
        "coco_sizes": dict(zip(("small", "medium", "large"), _binned(widths * heights, COCO_AREAS), strict=True)),
        "picture_shares": dict(zip(("below 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 % and more"), _binned(shares, SHARES), strict=True)),
        "percentiles": {
            name: dict(zip(("p5", "p50", "p95"), np.percentile(values, (5, 50, 95)).round(2).tolist(), strict=True))
            for name, values in (("box_width", widths), ("box_height", heights))
            if len(values)
        },
        "picture_sizes": _common_sizes(dataset.sizes),
        "problems": {problem: {"count": count, "examples": dataset.report.examples[problem]} for problem, count in dataset.report.counts.items()},
    }


def _binned(values: np.ndarray, bounds: tuple[float, ...]) -> list[int]:
    """Counts below the first bound, from it up to the second, and so on."""
    return np.bincount(np.searchsorted(bounds, values, "right"), minlength=len(bounds) + 1).tolist()


def _common_sizes(sizes: np.ndarray) -> dict[str, int]:
    """The five most frequent, as width x height."""
    found, counts = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    return {f"{width}x{height}": int(count) for (height, width), count in zip(found[order].tolist(), counts[order], strict=True)}


def _counted(facts: dict[str, Any]) -> str:
    crowd = f", {facts['crowd_regions']:,} crowd regions" * (facts["crowd_regions"] > 0)
    sizes = ", ".join(f"{size} ({count:,})" for size, count in facts["picture_sizes"].items())
    pictures = f"{facts['pictures']:,} pictures, {facts['backgrounds']:,} of them without boxes"
    return f"{pictures}; {facts['boxes']:,} boxes{crowd}\nmost frequent sizes: {sizes}"


_CLASSES_SHOWN = 1000  # LVIS has 1,203, of which those that occur are shown


def _class_table(facts: dict[str, Any]) -> Table:
    table = Table(title="Classes")
    table.add_column("", justify="right")
    table.add_column("class", overflow="fold")
    for name in ("boxes", "share", "pictures"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max((entry["boxes"] for entry in facts["classes"]), default=0) or 1
    classes = facts["classes"]
    # A label of class 65,535 where nothing names the classes makes as many of them.
    shown = classes if len(classes) <= _CLASSES_SHOWN else [entry for entry in classes if entry["boxes"]][:_CLASSES_SHOWN]
    for entry in shown:
        bar = "█" * round(30 * entry["boxes"] / most) or "▏" * (entry["boxes"] > 0)
        table.add_row(str(entry["class"]), Text(entry["name"]), f"{entry['boxes']:,}", f"{100 * entry['share']:.1f} %", f"{entry['pictures']:,}", bar)
    if len(shown) < len(classes):
        table.add_row("", f"and {len(classes) - len(shown):,} more")
    return table


def _size_table(facts: dict[str, Any]) -> Table:
    table = Table(title="Box sizes")
    for name in ("COCO's bounds", "share of the picture"):
        table.add_column(name, no_wrap=True)
        table.add_column("boxes", justify="right", no_wrap=True)
    bounds = ("small, below 32² px", "medium, below 96² px", "large", "")
    left = [*(f"{count:,}" for count in facts["coco_sizes"].values()), ""]
    for bound, count, (share, boxes) in zip(bounds, left, facts["picture_shares"].items(), strict=True):
        table.add_row(bound, count, share, f"{boxes:,}")
    return table
