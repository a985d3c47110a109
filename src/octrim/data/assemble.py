"""Builds a `Dataset` from parsed annotations: unusable ones are reported and dropped, the others clipped and sorted by picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.crew import Arrays
from octrim.data.dataset import DataReport, Dataset, printable
from octrim.data.labelfiles import CROWD, DIFFICULT, KEYPOINTS, MISSING, POLYGON, ROW_PROBLEMS, UNREADABLE
from octrim.data.probe import PICTURE_PROBLEMS, PICTURE_REMARKS
from octrim.errors import InputError

ROW_REMARKS = {
    POLYGON: "polygon or mask, taken as the box around it",
    KEYPOINTS: "pose, of which the box is taken and the points are ignored",
    DIFFICULT: "object marked difficult, not counted when missed and not trained on (--keep-difficult takes it as any other)",
}

OTHER_FORMAT = "picture without a label file, but with an annotation of another format, taken as background"


@dataclass(eq=False)
class Annotations:
    """Boxes parsed from annotations of any format, one row each, not yet checked against names and pictures.

    picture: index of the box's picture in the list of pictures, integer `[n]`; label: class number, any integer, `[n]`;
    boxes_xyxy: float64 `[n, 4]` in pixels; mark: uint8 `[n]`, a sum of POLYGON, KEYPOINTS, DIFFICULT and CROWD;
    place: function that names the file and line of a row for the report.
    """

    picture: np.ndarray
    label: np.ndarray
    boxes_xyxy: np.ndarray
    mark: np.ndarray
    place: Callable[[int], str]


def assemble(
    data: Path,
    names: Sequence[str],
    paths: list[str],
    picture_ids: Sequence[int | str],
    facts: Arrays,
    found: Annotations,
    report: DataReport,
    category_ids: Sequence[int] | None = None,
    left_out: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Build a `Dataset` from the usable pictures and boxes, and add to the report what had to be dropped or clipped.

    facts: arrays of `probe.picture_facts` for `paths`. left_out: bool `[pictures]`, true for pictures to leave out for reasons that the report
    holds already. category_ids: the format's class numbers, 0, 1, 2 and so on by default. Raises InputError where no picture remains.
    """
    problems = facts["problem"]
    for code, remark in enumerate(PICTURE_REMARKS, 1):
        add_remark(report, remark, np.flatnonzero(facts["remark"] == code), lambda index: paths[index])
    for code, problem in enumerate(PICTURE_PROBLEMS, 1):
        add_rows(report, problem, np.flatnonzero(problems == code), lambda index: paths[index])
    usable = problems == 0
    if left_out is not None:
        usable &= ~left_out
    if not usable.any():
        raise InputError(f"{data}: no readable picture among {len(paths)}{'; ' * bool(report.counts)}{'; '.join(report.lines()[:2])}")
    order = np.argsort(found.picture, kind="stable")
    order = order[usable[found.picture[order]]]
    order = _within(order, report, "class that is not among the names, dropped", found, (found.label >= 0) & (found.label < len(names)))
    boxes = found.boxes_xyxy
    order = _within(order, report, "box with a value that is not a finite number, dropped", found, np.isfinite(boxes).all(1))
    order = _within(order, report, "box without area, dropped", found, (boxes[:, 2:] > boxes[:, :2]).all(1))
    limits = np.tile(facts["size"][found.picture][:, ::-1], 2)
    clipped = boxes.clip(0, limits)
    final = clipped.astype(np.float32)
    order = _within(order, report, "box outside the picture, dropped", found, (final[:, 2:] > final[:, :2]).all(1))
    reaches = np.abs(clipped - boxes).max(1, initial=0) > 1
    add_rows(report, "box reaches outside the picture, clipped", order[reaches[order]], found.place)
    ignored = (found.mark & (CROWD | DIFFICULT)) > 0
    order = order[_first_of_equals(found.picture[order], found.label[order], ignored[order], final[order], order, report, found.place)]
    for mark, remark in ROW_REMARKS.items():
        add_remark(report, remark, order[(found.mark[order] & mark) > 0], found.place)
    picture = (np.cumsum(usable) - 1)[found.picture[order]]
    kept = np.flatnonzero(usable).tolist()
    return Dataset(
        names=tuple(names),
        paths=tuple(paths[index] for index in kept),
        sizes=facts["size"][usable],
        boxes=final[order],
        labels=found.label[order].astype(np.int32),
        crowd=ignored[order],
        starts=np.concatenate([[0], np.cumsum(np.bincount(picture, minlength=len(kept)))]).astype(np.int64),
        picture_ids=tuple(picture_ids[index] for index in kept),
        category_ids=tuple(range(len(names)) if category_ids is None else category_ids),
        report=DataReport(report.counts, {problem: list(map(printable, places)) for problem, places in report.examples.items()}, report.remarks),
        notes=tuple(map(printable, notes)),
    )


def add_rows(report: DataReport, problem: str, rows: np.ndarray, place: Callable[[int], str]) -> None:
    """Add a problem of some rows to the report: all rows are counted, and only the five that the report shows are looked up by `place`."""
    for index in rows[:5].tolist():
        report.add(problem, place(index))
    if len(rows) > 5:
        report.add(problem, "", len(rows) - 5)


def add_remark(report: DataReport, remark: str, rows: np.ndarray, place: Callable[[int], str]) -> None:
    """Add a remark on some rows to the report, like `add_rows`; a remark is listed, but does not count as a problem."""
    if len(rows):
        report.remarks.add(remark)
        add_rows(report, remark, rows, place)


def file_problems(report: DataReport, table: Arrays, files: Sequence[str], what: str, missing: bool, unit: str = ":") -> None:
    """Add the problems of label files and of their rows to the report.

    table: table of `labelfiles`, of which `files` are the paths. what: text of the problem of a file that cannot be read. missing: whether an
    absent file is a problem. unit: text between a file's path and the number of the row in it.
    """
    if missing:
        add_rows(report, "annotation file is missing, picture taken as background", np.flatnonzero(table["state"] == MISSING), files.__getitem__)
    add_rows(report, what, np.flatnonzero(table["state"] == UNREADABLE), files.__getitem__)
    bad_file = np.repeat(np.arange(len(files)), table["bad_count"])
    for code, problem in enumerate(ROW_PROBLEMS):
        rows = np.flatnonzero(table["bad_code"] == code)
        add_rows(report, problem, rows, lambda index: f"{files[bad_file[index]]}{unit}{table['bad_line'][index]}")


def _within(order: np.ndarray, report: DataReport, problem: str, found: Annotations, good: Any) -> np.ndarray:
    passed = good[order]
    add_rows(report, problem, order[~passed], found.place)
    return order[passed]


def _first_of_equals(
    picture: np.ndarray, label: np.ndarray, crowd: np.ndarray, boxes: np.ndarray, order: np.ndarray, report: DataReport, place: Callable[[int], str]
) -> np.ndarray:
    """Return a bool mask `[n]` of the rows that do not repeat an earlier one, and report those that do."""
    columns = [picture, label, crowd, *boxes.view(np.int32).reshape(-1, 4).T]
    # Sorting rows of seven is slow: sort a hash of them, and look closely only where hashes agree.
    hashes = np.zeros(len(picture), np.int64)
    for column, factor in zip(columns, np.random.default_rng(0).integers(1, 2**62, 7) * 2 + 1, strict=True):
        hashes += column.astype(np.int64) * factor
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    keep = np.ones(len(picture), bool)
    keep[suspects] = False
    if len(suspects):
        rows = np.column_stack([column[suspects].astype(np.int64) for column in columns])
        keep[suspects[np.unique(rows, axis=0, return_index=True)[1]]] = True
    add_rows(report, "box that repeats another of the same picture, dropped", order[~keep], place)
    return keep
