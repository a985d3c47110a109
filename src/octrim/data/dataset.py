"""One type for every data set, whatever format it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Report:
    """What was wrong with a data set: how often each problem occurred, and the first places where it did.

    remarks: those of the problems that are none, but ought to be known: a polygon that was taken as a box.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set)

    def add(self, problem: str, place: str, count: int = 1) -> None:
        """problem: what and what was done about it, the same words each time ("box outside the picture, clipped"); place: file and line."""
        self.counts[problem] = self.counts.get(problem, 0) + count
        places = self.examples.setdefault(problem, [])
        if len(places) < 5:
            places.append(place)

    @property
    def problems(self) -> int:
        """How many problems there are, remarks not counted."""
        return sum(count for problem, count in self.counts.items() if problem not in self.remarks)

    def lines(self) -> list[str]:
        """For people: a line per problem."""
        return [
            f"{count} x {problem}: {', '.join(self.examples[problem])}{' ..' * (count > len(self.examples[problem]))}"
            for problem, count in self.counts.items()
        ]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures and their boxes, in flat arrays: the boxes of picture i are those from starts[i] up to starts[i + 1].

    names: one per class. paths: of the pictures. sizes: int32 `[pictures, 2]`, height and width as shown (EXIF orientation applied).
    boxes: float32 `[boxes, 4]`, x1 y1 x2 y2 in pixels of the picture, inside it. labels: int32 `[boxes]`, class numbers.
    crowd: bool `[boxes]`, regions of many objects, and objects marked difficult, which evaluation ignores and training leaves out.
    picture_ids, category_ids: what the format calls pictures and classes (COCO's own numbers; otherwise the file's stem, or its path where several
    pictures share a stem, and the class number).
    notes: lines about how the data set was read: as which format, which part of it, with names from where.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    starts: np.ndarray
    picture_ids: tuple[int | str, ...]
    category_ids: tuple[int, ...]
    report: Report = field(default_factory=Report)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people: how the data set was read, and what is wrong with it."""
        return [*self.notes, *self.report.lines()]

    def __len__(self) -> int:
        return len(self.paths)

    def targets(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes `[n, 4]`, labels `[n]` and crowd flags `[n]` of one picture."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.boxes[part], self.labels[part], self.crowd[part]

    def without_objects_of(self, pictures: Sequence[int]) -> Dataset:
        """The data set with the same pictures, those of them without objects: where they turned out to be unreadable, nothing is to be found."""
        gone = np.isin(np.repeat(np.arange(len(self)), np.diff(self.starts)), pictures)
        counts = np.where(np.isin(np.arange(len(self)), pictures), 0, np.diff(self.starts))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return dataclasses.replace(self, boxes=self.boxes[~gone], labels=self.labels[~gone], crowd=self.crowd[~gone], starts=starts)

    def subset(self, pictures: Sequence[int]) -> Dataset:
        """The data set of these pictures (their numbers here), in this order. The report is the whole one's."""
        starts, ends = self.starts[list(pictures)], self.starts[[picture + 1 for picture in pictures]]
        rows = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)] or [np.zeros(0, np.int64)])
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[picture] for picture in pictures),
            sizes=self.sizes[list(pictures)],
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            starts=np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64),
            picture_ids=tuple(self.picture_ids[picture] for picture in pictures),
        )


def printable(line: str) -> str:
    """On one line of bounded length: a file name may hold line ends and bytes that are no text, and an annotation file any length of it."""
    line = line if len(line) <= 1000 else f"{line[:600]} .. {line[-300:]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in line)
