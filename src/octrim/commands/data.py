"""`octrim data`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import arg

from octrim.errors import InputError
from octrim.options import Folder, Reading, Text

if TYPE_CHECKING:
    from rich.table import Table

    from octrim.data.dataset import Dataset


@dataclass(frozen=True)
class Data(Reading, Folder):
    """Look at a data set: counts, class balance, box sizes, what is broken, and a contact sheet of labelled pictures."""

    command: ClassVar[str] = "data"

    check: Annotated[str | None, arg(metavar="DATA", aliases=["--data"], help_behavior_hint="")] = None
    """Data set to look at: data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file."""
    split: Text = None
    """Split of the data set to look at (default: train, or all of it where it has one part)."""
    names: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = ()
    """Names of the classes in their order, where the data set's format has none."""

    def run(self) -> None:
        from rich.text import Text

        from octrim.atomic import write_bytes, write_text
        from octrim.data.charts import save_box_chart, save_class_chart
        from octrim.data.check import opened, other_parts, summary
        from octrim.data.formats.table import NoDataSetError
        from octrim.data.sheet import contact_sheet
        from octrim.runs import new_run

        if self.check is None:
            raise InputError("--check is missing: a data.yaml, a folder (YOLO, COCO, VOC, labelme), or a COCO annotation file")
        try:
            dataset = opened(self.check, self.split, self.names, **self.reading())
        except NoDataSetError as error:
            for name, reason in error.missed:
                print(f"  {name}: {reason}")
            raise
        others = {} if self.split is not None else other_parts(self.check, dataset, self.names, **self.reading())
        run = new_run(self)
        write_bytes(run.path / "contact.jpg", contact_sheet(dataset, seed=0))
        facts = summary(dataset)
        if others:
            facts["other_parts"] = {name: {"error": part} if isinstance(part, str) else summary(part) for name, part in others.items()}
        write_text(run.path / "check.json", json.dumps(facts, indent=1, ensure_ascii=False))
        save_class_chart(facts["classes"], run.path / "classes.png")
        save_box_chart(dataset, run.path / "boxes.png")
        run.print(_counted(facts))
        run.print(_class_table(facts))
        run.print(_size_table(facts))
        for note in dataset.notes:
            run.print(Text(note))
        run.print(_problems(dataset))
        for line in dataset.report.lines():
            run.print(Text(f"  {line}"))  # `Text`, because paths may hold what Rich takes for markup
        for name, part in others.items():
            if isinstance(part, str):
                run.print(Text(f"{name}: {part}"))
                continue
            run.print(f"{name}: {_pictures(facts['other_parts'][name])}; {_problems(part)}")
            for line in part.report.lines():
                run.print(Text(f"  {line}"))
        run.print(Text(f"counts, charts and a sheet of labelled pictures: {run.path}"))
        if isinstance(others.get("val"), str):
            raise InputError(f"the part that validates cannot be read: {others['val']}")


def _counted(facts: dict[str, Any]) -> str:
    """How many pictures and boxes there are, and the most frequent sizes of pictures."""
    sizes = ", ".join(f"{size} ({count:,})" for size, count in facts["picture_sizes"].items())
    return f"{_pictures(facts)}\nmost frequent sizes: {sizes}"


def _pictures(facts: dict[str, Any]) -> str:
    """How many pictures and boxes there are."""
    crowd = f", {facts['crowd_regions']:,} crowd regions or difficult objects" if facts["crowd_regions"] else ""
    pictures = "1 picture" if facts["pictures"] == 1 else f"{facts['pictures']:,} pictures"
    return f"{pictures}, {facts['backgrounds']:,} of them without boxes; {facts['boxes']:,} boxes{crowd}"


def _problems(dataset: Dataset) -> str:
    """How many problems a part of a data set has."""
    return f"problems: {dataset.report.problems:,}" if dataset.report.problems else "no problems found"


_CLASSES_SHOWN = 1000  # LVIS has 1,203, of which those that occur are shown


def _class_table(facts: dict[str, Any]) -> Table:
    """A line per class with its share of the boxes as a bar."""
    from rich.table import Table
    from rich.text import Text

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
        bar = "█" * round(30 * entry["boxes"] / most)
        if entry["boxes"] and not bar:
            bar = "▏"
        table.add_row(str(entry["class"]), Text(entry["name"]), f"{entry['boxes']:,}", f"{100 * entry['share']:.1f} %", f"{entry['pictures']:,}", bar)
    if len(shown) < len(classes):
        table.add_row("", f"and {len(classes) - len(shown):,} more")
    return table


def _size_table(facts: dict[str, Any]) -> Table:
    """How many boxes are small, medium and large, by COCO's bounds and by their share of the picture."""
    from rich.table import Table

    table = Table(title="Box sizes")
    for name in ("COCO's bounds", "share of the picture"):
        table.add_column(name, no_wrap=True)
        table.add_column("boxes", justify="right", no_wrap=True)
    bounds = ("small, below 32² px", "medium, below 96² px", "large", "")
    left = [*(f"{count:,}" for count in facts["coco_sizes"].values()), ""]
    for bound, count, (share, boxes) in zip(bounds, left, facts["picture_shares"].items(), strict=True):
        table.add_row(bound, count, share, f"{boxes:,}")
    return table
