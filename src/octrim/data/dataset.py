"""The type of every data set, whatever format it was read from, and of the report on its problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class DataReport:
    """Report of what was wrong with a data set.

    counts: how often each problem occurred. examples: the first five places of each. remarks: entries that are no problems but ought to be known,
    such as a polygon that was taken as a box.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set)

    def add(self, problem: str, place: str, count: int = 1) -> None:
        """Count a problem and keep its place as an example, five at most.

        problem: what is wrong and what was done about it, always in the same words ("box outside the picture, dropped"). place: file and line.
        """
        self.counts[problem] = self.counts.get(problem, 0) + count
        places = self.examples.setdefault(problem, [])
        if len(places) < 5:
            places.append(place)

    @property
    def problems(self) -> int:
        """Number of problems, without the remarks."""
        return sum(count for problem, count in self.counts.items() if problem not in self.remarks)

    def lines(self) -> list[str]:
        """Return a readable line per problem or remark."""
        lines = []
        for problem, count in self.counts.items():
            examples = self.examples[problem]
            more = " .." if count > len(examples) else ""
            lines.append(f"{count} x {problem}: {', '.join(examples)}{more}")
        return lines


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures and their boxes in flat arrays: the boxes of picture i are those from starts[i] up to starts[i + 1].

    names: one name per class. paths: files of the pictures. sizes: int32 `[pictures, 2]`, height and width as shown (EXIF orientation applied).
    boxes: float32 `[boxes, 4]`, x1 y1 x2 y2 in pixels of the picture, inside it. labels: int32 `[boxes]`, class numbers.
    crowd: bool `[boxes]`, true for regions of many objects and objects marked difficult, which evaluation ignores and training leaves out.
    starts: int64 `[pictures + 1]`. picture_ids, category_ids: the format's own ids of pictures and classes (COCO's numbers; otherwise the file's
    stem, or its path where several pictures share a stem, and the class number).
    notes: lines on how the data set was read: its format, its part, and the source of its names.
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
    report: DataReport = field(default_factory=DataReport)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return readable lines on how the data set was read and what is wrong with it."""
        return [*self.notes, *self.report.lines()]

    def __len__(self) -> int:
        return len(self.paths)

    def targets(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the boxes `[n, 4]`, labels `[n]` and crowd flags `[n]` of one picture."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.boxes[part], self.labels[part], self.crowd[part]

    def without_objects_of(self, pictures: Sequence[int]) -> Dataset:
        """Return the data set with all its pictures, but without the objects of the given ones, such as those that turned out to be unreadable."""
        gone = np.isin(np.repeat(np.arange(len(self)), np.diff(self.starts)), pictures)
        counts = np.where(np.isin(np.arange(len(self)), pictures), 0, np.diff(self.starts))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return dataclasses.replace(self, boxes=self.boxes[~gone], labels=self.labels[~gone], crowd=self.crowd[~gone], starts=starts)

    def subset(self, pictures: Sequence[int]) -> Dataset:
        """Return the data set of the pictures with the given numbers, in the given order. The report stays that of the whole data set."""
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

    def with_unlabelled(self, other: Dataset) -> Dataset:
        """Return the data set with the pictures of another one, without that one's boxes, behind its own."""
        return dataclasses.replace(
            self,
            paths=(*self.paths, *other.paths),
            sizes=np.concatenate([self.sizes, other.sizes]),
            starts=np.concatenate([self.starts, np.full(len(other), self.starts[-1])]),
            picture_ids=(*self.picture_ids, *other.picture_ids),
        )


def printable(line: str) -> str:
    """Return text on one printable line of bounded length: file names may hold line ends and bytes that are no text, annotations very long texts."""
    line = line if len(line) <= 1000 else f"{line[:600]} .. {line[-300:]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in line)
