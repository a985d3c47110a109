"""Tables of many label files as flat arrays, with the problems of their rows, whatever their format.

A table holds for each file `digest` uint8 `[n, 16]` (blake2b), `state` uint8 (READ, MISSING, UNREADABLE), `count` and `bad_count` int32;
for each usable row of all files in turn `rows` float64 `[m, 5]` (class and four coordinates as the format has them), `line` int32 and `mark` uint8,
a sum of POLYGON, KEYPOINTS and DIFFICULT; and for each unusable row `bad_line` int32 and `bad_code` uint8, a place in ROW_PROBLEMS.
In formats whose files name the classes, `words` holds the names as JSON in uint8, and the class in `rows` is a place in that list.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from octrim.data.texts import decoded_paths

READ, MISSING, UNREADABLE = range(3)
ROW_PROBLEMS = (
    "label row without exactly five values, dropped",
    "label row that is not UTF-8 text, dropped",
    "label row with a value that is not a finite number, dropped",
    "label row whose class is not a whole number from 0 up, dropped",
    "label row with a value outside 0..1, dropped",
    "object without a name or a box, dropped",
    "box without area (xmin >= xmax or ymin >= ymax), dropped",
    "shape that has no area (a point or a line), dropped",
)
COLUMNS, ENCODING, NUMBER, CLASS, RANGE, INCOMPLETE, AREA, LINE = range(len(ROW_PROBLEMS))
POLYGON, KEYPOINTS, DIFFICULT, CROWD = 1, 2, 4, 8
PER_FILE = ("digest", "state", "count", "bad_count")
MOST_CLASSES = 65536
MOST_BYTES = 2**24  # limit on one picture's label file: half a million rows
MOST_WITH_PICTURE = 2**28  # bytes, limit on a label file that may hold the picture itself


def file_digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a file and return its descriptor; usable as `opener` of `open`. Raises OSError for anything but a file: a pipe or device may never end."""
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # the path holds NUL or half of a surrogate pair: no file can have such a name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) if stat.S_ISDIR(mode) else OSError(errno.EINVAL, "not a file", path)
    return handle


def read_bytes(path: str, most: int | None = None) -> bytes:
    """Return a file's first `most` bytes, by default all. For small files, of which there are many, this is faster than `open`.

    Raises OSError where the file cannot be read.
    """
    handle = open_regular(path)
    try:
        parts = [os.read(handle, 1 << 16)]
        while len(parts[-1]) == 1 << 16 and (most is None or len(parts) << 16 < most):
            parts.append(os.read(handle, 1 << 16))
    finally:
        os.close(handle)
    return b"".join(parts)[:most]


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file; bytes that are not UTF-8 are kept so that paths still name their files. Raises OSError."""
    return decoded_paths(read_bytes(path)).splitlines()


def word_array(words: Sequence[object]) -> np.ndarray:
    """Return a list of JSON values as uint8 `[n]`, which `words_of` reads; arrays of text would need pickles or fixed lengths."""
    return np.frombuffer(json.dumps(list(words)).encode(), np.uint8)


def words_of(array: np.ndarray) -> list[str]:
    """Return the list that `word_array` wrote. Raises ValueError for a damaged one."""
    return json.loads(array.tobytes())


def read_labels(paths: Sequence[str], most: int = MOST_BYTES) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Return the digests `[n, 16]`, states `[n]` and contents of label files; a file that cannot be read or exceeds `most` bytes has no contents."""
    digests = np.zeros((len(paths), 16), np.uint8)
    states = np.full(len(paths), READ, np.uint8)
    contents: list[bytes] = []
    for index, path in enumerate(paths):
        try:
            data = read_bytes(path, most + 1)
            if len(data) > most:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            digests[index] = np.frombuffer(file_digest(data), np.uint8)
        except OSError as error:
            data = b""
            states[index] = MISSING if isinstance(error, FileNotFoundError) else UNREADABLE
        contents.append(data)
    return digests, states, contents


def joined(tables: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join several tables into one with one list of words."""
    words: dict[str, int] = {}
    parts = []
    for table in tables:
        own = words_of(table["words"])
        if own:
            numbers = np.asarray([words.setdefault(word, len(words)) for word in own], np.float64)
            rows = table["rows"].copy()
            rows[:, 0] = numbers[rows[:, 0].astype(np.int64)]
            table = {**table, "rows": rows}
        parts.append(table)
    return {key: word_array(list(words)) if key == "words" else np.concatenate([part[key] for part in parts]) for key in parts[0]}


def taken(table: dict[str, np.ndarray], files: np.ndarray) -> dict[str, np.ndarray]:
    """Return the table of the files with the given places, in the given order."""
    if np.array_equal(files, np.arange(len(table["count"]))):
        return table
    rows, bad = (_ragged(table[key], files) for key in ("count", "bad_count"))
    chosen = {}
    for key, values in table.items():
        if key == "words":
            chosen[key] = values
        elif key in PER_FILE:
            chosen[key] = values[files]
        else:
            chosen[key] = values[bad if key.startswith("bad_") else rows]
    return chosen


def _ragged(counts: np.ndarray, files: np.ndarray) -> np.ndarray:
    """Return the places of the rows of the given files. counts: rows per file."""
    starts = np.cumsum(counts) - counts
    lengths = counts[files]
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts[files], lengths) + offsets


class Objects:
    """Collector that makes a table from files that name their objects' classes. files: number of files."""

    def __init__(self, files: int) -> None:
        self._words: dict[str, int] = {}
        self._rows: list[list[float]] = []
        self._lines: list[int] = []
        self._marks: list[int] = []
        self._bad: list[tuple[int, int]] = []
        self._counts = np.zeros((2, files), np.int32)

    def add(self, file: int, line: int, found: tuple[str, list[float], int] | int) -> None:
        """Add an object of a file: its name, four coordinates and mark, or a place in ROW_PROBLEMS where it is unusable. Files come in order."""
        if isinstance(found, int):
            self._bad.append((line, found))
            self._counts[1, file] += 1
            return
        name, box, mark = found
        self._rows.append([self._words.setdefault(name, len(self._words)), *box])
        self._lines.append(line)
        self._marks.append(mark)
        self._counts[0, file] += 1

    def table(self) -> dict[str, np.ndarray]:
        """Return all arrays of a table but `digest` and `state`."""
        bad_line, bad_code = np.asarray(self._bad, np.int32).reshape(-1, 2).T
        return {
            "words": word_array(list(self._words)),
            "count": self._counts[0],
            "bad_count": self._counts[1],
            "rows": np.asarray(self._rows, np.float64).reshape(-1, 5),
            "line": np.asarray(self._lines, np.int32),
            "mark": np.asarray(self._marks, np.uint8),
            "bad_line": bad_line,
            "bad_code": bad_code.astype(np.uint8),
        }
