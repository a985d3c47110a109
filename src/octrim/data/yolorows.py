"""Reads YOLO label files: boxes `class cx cy w h`, polygons `class x1 y1 x2 y2 x3 y3 ..` and poses `class cx cy w h x1 y1 v1 ..`.

All coordinates are shares of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np

from octrim.data.labelfiles import CLASS, COLUMNS, ENCODING, KEYPOINTS, MOST_CLASSES, NUMBER, POLYGON, RANGE, read_labels, word_array
from octrim.data.texts import mark_of

EXCESS = 1e-3  # share of the picture by which rounding may move boxes beyond its edge
MOST_VALUES = 20_001  # most values on a row: no outline that a tool writes has ten thousand points

_SPACE = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))


def yolo_labels(paths: Sequence[str], pose: str = "") -> dict[str, np.ndarray]:
    """Return a table (see `labelfiles`) of YOLO label files: rows `class cx cy w h`, 0..1. A polygon gives the box around it, a pose its own box.

    A row of 9 values, as for oriented boxes, is a polygon of four points. pose: number of values in a row of a pose where the data set states it;
    without it, poses are recognised by their points.
    """
    digests, states, contents = read_labels(paths)
    texts = [_lines(data) for data in contents]
    text = b"".join(texts)
    first_line = np.cumsum([0, *(part.count(b"\n") for part in texts)])
    # The values of all files are found at once: where each starts, and on which line of the joined text.
    letters = np.frombuffer(text, np.uint8)
    space = _SPACE[letters]
    starts = np.flatnonzero(~space & np.concatenate([[True], space[:-1]])) if len(text) else np.zeros(0, np.int64)
    value_line = np.searchsorted(np.flatnonzero(letters == ord("\n")), starts)
    values_on = np.bincount(value_line, minlength=first_line[-1])
    plain = b"_" not in text
    tokens = text.split()
    five, five_line, five_code = _boxes(tokens, value_line, values_on, plain)
    long, long_line, long_code, mark = _outlines(tokens, value_line, values_on, plain, int(pose or 0))
    odd = np.flatnonzero((values_on != 0) & (values_on != 5) & ~_is_long(values_on))
    rows, line, code = np.concatenate([five, long]), np.concatenate([five_line, long_line]), np.concatenate([five_code, long_code])
    marks = np.concatenate([np.zeros(len(five), np.uint8), mark])
    bad_line = np.concatenate([line[code >= 0], odd])
    bad_code = np.concatenate([code[code >= 0], np.full(len(odd), COLUMNS)])
    order = np.argsort(bad_line, kind="stable")
    bad_line, bad_code = bad_line[order], bad_code[order]
    good = np.flatnonzero(code < 0)
    good = good[np.argsort(line[good], kind="stable")]
    rows, line, marks = rows[good], line[good], marks[good]
    rows[:, 1:] = rows[:, 1:].clip(0, 1)
    table = {"digest": digests, "state": states, "words": word_array([]), "mark": marks}
    return table | _by_file(first_line, rows, line, bad_line, bad_code)


def _is_long(values_on: np.ndarray) -> np.ndarray:
    return (values_on >= 7) & (values_on <= MOST_VALUES)


def _boxes(tokens: list[bytes], value_line: np.ndarray, values_on: np.ndarray, plain: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of five values, the lines that they are on, and each row's place in ROW_PROBLEMS, -1 where nothing is wrong."""
    whole = values_on[value_line] == 5
    values, wrong = _numbers(tokens if whole.all() else list(compress(tokens, whole)), plain)
    rows = values.reshape(-1, 5)
    return rows, value_line[whole][::5], _row_code(rows, rows, wrong.reshape(-1, 5))


def _row_code(rows: np.ndarray, values: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the place in ROW_PROBLEMS of each row, -1 where nothing is wrong. rows: `[n, 5]`, made of `values` `[n, any]`; wrong: by `_numbers`."""
    label, box = rows[:, 0], values[:, 1:]
    code = np.full(len(rows), -1)
    code[(box < -EXCESS).any(1) | (box > 1 + EXCESS).any(1)] = RANGE
    with np.errstate(invalid="ignore"):
        code[(label != np.floor(label)) | (label < 0) | (label >= MOST_CLASSES)] = CLASS
    code[~np.isfinite(values).all(1)] = NUMBER
    code[(wrong == ENCODING).any(1)] = ENCODING
    return code


def _outlines(
    tokens: list[bytes], value_line: np.ndarray, values_on: np.ndarray, plain: bool, pose: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of more than six values as boxes, their lines, their places in ROW_PROBLEMS or -1, and their marks.

    Rows of one length are read together.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    long = _is_long(values_on)
    lengths = np.unique(values_on[long]).tolist()
    if lengths:
        chosen = long[value_line]
        values, wrong = _numbers(list(compress(tokens, chosen)), plain)
        lines = value_line[chosen]
        for length in lengths:
            own = values_on[lines] == length
            part = values[own].reshape(-1, length)
            parts.append((*_outline_rows(part, wrong[own].reshape(-1, length), length == pose), lines[own][::length]))
    empty = (np.zeros((0, 5)), np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int64))
    rows, code, mark, line = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return rows, line.astype(np.int64), code, mark


def _outline_rows(values: np.ndarray, wrong: np.ndarray, poses: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the boxes `class cx cy w h` of rows of the same length, their places in ROW_PROBLEMS or -1, and their marks.

    poses: whether all of the rows are known to be poses.
    """
    count, length = values.shape
    rows = np.full((count, 5), np.nan)
    rows[:, 0] = values[:, 0]
    mark = np.zeros(count, np.uint8)
    coordinates = values.copy()
    pose = np.ones(count, bool) if poses else _poses(values)
    rows[pose] = values[pose, :5]
    coordinates[pose, 5:] = 0  # points of a pose may lie anywhere, and their third value is no coordinate
    mark[pose] = KEYPOINTS
    if length % 2:
        outline = ~pose
        x, y = values[outline, 1::2], values[outline, 2::2]
        low, high = np.stack([x.min(1), y.min(1)], 1), np.stack([x.max(1), y.max(1)], 1)
        rows[outline, 1:] = np.concatenate([(low + high) / 2, high - low], 1)
        mark[outline] = POLYGON
    code = _row_code(rows, coordinates, wrong)
    if not length % 2:
        code[~pose] = COLUMNS
    return rows, code, mark


def _poses(values: np.ndarray) -> np.ndarray:
    """Return a bool mask `[n]` of the rows that are a box and points `x y v` with v = 0, 1 or 2: some are visible (v > 0), all in the box."""
    count, length = values.shape
    if (length - 5) % 3:
        return np.zeros(count, bool)
    points = values[:, 5:].reshape(count, -1, 3)
    seen = points[:, :, 2] > 0
    with np.errstate(invalid="ignore"):
        away = np.abs(points[:, :, :2] - values[:, None, 1:3])
        inside = (away <= values[:, None, 3:5] / 2 + 0.02).all(2)  # annotators set points a little outside
        flags = np.isin(points[:, :, 2], (0, 1, 2)).all(1)
    return np.logical_and.reduce([flags, seen.any(1), (inside | ~seen).all(1)])


def _by_file(first_line: np.ndarray, rows: np.ndarray, line: np.ndarray, bad_line: np.ndarray, bad_code: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of a table by file: counts per file, rows, and line numbers in each file, from 1, instead of in the joined text."""
    file, bad_file = (np.searchsorted(first_line, lines, "right") - 1 for lines in (line, bad_line))
    count, bad_count = (np.bincount(files, minlength=len(first_line) - 1).astype(np.int32) for files in (file, bad_file))
    return {
        "count": count,
        "bad_count": bad_count,
        "rows": rows,
        "line": (line - first_line[file] + 1).astype(np.int32),
        "bad_line": (bad_line - first_line[bad_file] + 1).astype(np.int32),
        "bad_code": bad_code.astype(np.uint8),
    }


def _lines(data: bytes) -> bytes:
    """Return a file's text with Unix line ends, the last one included, in UTF-8 and without a byte order mark."""
    encoding = mark_of(data)
    if encoding is not None:
        data = data.decode(encoding, "replace").encode("utf-8") if encoding != "utf-8-sig" else data[3:]
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"


def _numbers(tokens: Sequence[bytes], plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens' values, NaN for those that are no numbers, and ENCODING for those that are not even UTF-8, -1 for all others.

    plain: whether no token holds `_`, which Python allows within numbers.
    """
    wrong = np.full(len(tokens), -1)
    if plain:  # Python reads 1_000 as a number
        try:
            return np.fromiter(map(float, tokens), np.float64, len(tokens)), wrong
        except ValueError:
            pass
    values = np.full(len(tokens), np.nan)
    for index, token in enumerate(tokens):
        try:
            values[index] = float(token.replace(b"_", b"?"))
        except ValueError:
            try:
                token.decode("utf-8")
            except UnicodeDecodeError:
                wrong[index] = ENCODING
    return values, wrong
