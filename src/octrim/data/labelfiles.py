"""Label files in bulk: YOLO text and Pascal VOC XML into flat arrays, with what is wrong in them.

A table holds, per file: `digest` uint8 `[n, 16]` (blake2b), `state` uint8 (READ, MISSING, UNREADABLE), `count` and `bad_count` int32.
Per row of all files in turn: `rows` float64 `[m, 5]` (class and four coordinates as the format has them) and `line` int32. Per row
that cannot be used: `bad_line` int32 and `bad_code` uint8, a place in ROW_PROBLEMS. `words`: VOC's class names, which the class counts,
as JSON in uint8.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Sequence
from hashlib import blake2b
from itertools import compress
from xml.etree.ElementTree import Element, ParseError

import numpy as np

READ, MISSING, UNREADABLE = range(3)
ROW_PROBLEMS = (
    "label row without exactly five values, dropped",
    "label row that is not UTF-8 text, dropped",
    "label row with a value that is not a finite number, dropped",
    "label row whose class is not a whole number from 0 up, dropped",
    "label row with a value outside 0..1, dropped",
    "object without a name or a box, dropped",
    "box without area (xmin >= xmax or ymin >= ymax), dropped",
)
COLUMNS, ENCODING, NUMBER, CLASS, RANGE, INCOMPLETE, AREA = range(len(ROW_PROBLEMS))
PER_FILE = ("digest", "state", "count", "bad_count")
MOST_CLASSES = 65536
MOST_BYTES = 2**24  # of one picture's label file: half a million rows
EXCESS = 1e-3  # of the picture: what rounding does to boxes at its edge

_SPACE = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))


def file_digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A handle to read from, also as `opener` of `open`. Raises OSError for anything but a file: a pipe or a device may never end."""
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # NUL, or half of a surrogate pair: no file can have such a name
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) if stat.S_ISDIR(mode) else OSError(errno.EINVAL, "not a file", path)
    return handle


def read_bytes(path: str, most: int | None = None) -> bytes:
    """A file's first `most` bytes, or all of it. Faster than `open` for a small file, and there are many."""
    handle = open_regular(path)
    try:
        parts = [os.read(handle, 1 << 16)]
        while len(parts[-1]) == 1 << 16 and (most is None or len(parts) << 16 < most):
            parts.append(os.read(handle, 1 << 16))
    finally:
        os.close(handle)
    return b"".join(parts)[:most]


def read_lines(path: str) -> list[str]:
    """Lines of a text file; what is not UTF-8 stays what it was when the text names a file."""
    return read_bytes(path).decode("utf-8-sig", "surrogateescape").splitlines()


def word_array(words: Sequence[object]) -> np.ndarray:
    return np.frombuffer(json.dumps(list(words)).encode(), np.uint8)


def words_of(array: np.ndarray) -> list[str]:
    return json.loads(array.tobytes())


def yolo_labels(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """A table of YOLO label files: rows `class cx cy w h`, 0..1."""
    digests, states, contents = _read(paths)
    texts = [_lines(data) for data in contents]
    text = b"".join(texts)
    first_line = np.cumsum([0, *(part.count(b"\n") for part in texts)])
    # All lines of all files at once: where values start, and on which line.
    letters = np.frombuffer(text, np.uint8)
    space = _SPACE[letters]
    starts = np.flatnonzero(~space & np.concatenate([[True], space[:-1]])) if len(text) else np.zeros(0, np.int64)
    value_line = np.searchsorted(np.flatnonzero(letters == ord("\n")), starts)
    values_on = np.bincount(value_line, minlength=first_line[-1])
    whole = values_on[value_line] == 5
    tokens = text.split() if whole.all() else list(compress(text.split(), whole))
    values, wrong = _numbers(tokens, b"_" not in text)
    rows, line = values.reshape(-1, 5), value_line[whole][::5]
    label, box = rows[:, 0], rows[:, 1:]
    code = np.full(len(rows), -1)
    code[(box < -EXCESS).any(1) | (box > 1 + EXCESS).any(1)] = RANGE
    with np.errstate(invalid="ignore"):
        code[(label != np.floor(label)) | (label < 0) | (label >= MOST_CLASSES)] = CLASS
    code[~np.isfinite(rows).all(1)] = NUMBER
    code[(wrong.reshape(-1, 5) == ENCODING).any(1)] = ENCODING
    odd = np.flatnonzero((values_on != 0) & (values_on != 5))
    bad_line = np.concatenate([line[code >= 0], odd])
    bad_code = np.concatenate([code[code >= 0], np.full(len(odd), COLUMNS)])
    order = np.argsort(bad_line, kind="stable")
    bad_line, bad_code = bad_line[order], bad_code[order]
    rows, line = rows[code < 0], line[code < 0]
    rows[:, 1:] = rows[:, 1:].clip(0, 1)
    return {"digest": digests, "state": states, "words": word_array([])} | _by_file(first_line, rows, line, bad_line, bad_code)


def _by_file(first_line: np.ndarray, rows: np.ndarray, line: np.ndarray, bad_line: np.ndarray, bad_code: np.ndarray) -> dict[str, np.ndarray]:
    """Lines of the joined text to lines of each file, from 1."""
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
    """With Unix line ends, the last one included, and without a byte order mark."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"


def _numbers(tokens: Sequence[bytes], plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values (NaN where there is none), and ENCODING where the text is not even UTF-8, otherwise -1. plain: there is no `_` in them."""
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


def voc_labels(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """A table of VOC annotations: rows `class xmin ymin xmax ymax` as written; `line` is the object's number in its file, from 1."""
    # This parser is slow, but declares nothing: a file of a kilobyte can otherwise expand to gigabytes.
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    digests, states, contents = _read(paths)
    words: dict[str, int] = {}
    rows: list[list[float]] = []
    lines: list[int] = []
    bad: list[tuple[int, int]] = []
    counts = np.zeros((2, len(paths)), np.int32)
    for index, data in enumerate(contents):
        before = len(rows), len(bad)
        if states[index] == READ:
            try:
                root = fromstring(data, forbid_dtd=True)  # which also gives elements attributes by the thousand
            except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):  # LookupError: an unknown encoding
                states[index] = UNREADABLE
                continue
            for number, item in enumerate(root.iter("object"), 1):
                found = _voc_object(item)
                if isinstance(found, int):
                    bad.append((number, found))
                else:
                    name, box = found
                    rows.append([words.setdefault(name, len(words)), *box])
                    lines.append(number)
        counts[:, index] = len(rows) - before[0], len(bad) - before[1]
    bad_line, bad_code = np.asarray(bad, np.int32).reshape(-1, 2).T
    return {
        "digest": digests,
        "state": states,
        "words": word_array(list(words)),
        "count": counts[0],
        "bad_count": counts[1],
        "rows": np.asarray(rows, np.float64).reshape(-1, 5),
        "line": np.asarray(lines, np.int32),
        "bad_line": bad_line,
        "bad_code": bad_code.astype(np.uint8),
    }


def _voc_object(item: Element) -> tuple[str, list[float]] | int:
    """Name and box, or what is wrong with it."""
    name, box = (item.findtext("name") or "").strip(), item.find("bndbox")
    sides = [] if box is None else [box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    if not name or not sides or None in sides:
        return INCOMPLETE
    try:
        values = [float(side or "") for side in sides]
    except ValueError:
        return NUMBER
    if not np.isfinite(values).all():
        return NUMBER
    if values[0] >= values[2] or values[1] >= values[3]:
        return AREA
    return re.sub(r"\s+", " ", name), values


def _read(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    digests = np.zeros((len(paths), 16), np.uint8)
    states = np.full(len(paths), READ, np.uint8)
    contents: list[bytes] = []
    for index, path in enumerate(paths):
        try:
            data = read_bytes(path, MOST_BYTES + 1)
            if len(data) > MOST_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            digests[index] = np.frombuffer(file_digest(data), np.uint8)
        except OSError as error:
            data = b""
            states[index] = MISSING if isinstance(error, FileNotFoundError) else UNREADABLE
        contents.append(data)
    return digests, states, contents


def joined(tables: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table of several, with one list of words."""
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
    """The table of these files, in this order."""
    if np.array_equal(files, np.arange(len(table["count"]))):
        return table
    rows, bad = (_ragged(table[key], files) for key in ("count", "bad_count"))
    return {
        key: values[files] if key in PER_FILE else values if key == "words" else values[bad if key.startswith("bad_") else rows]
        for key, values in table.items()
    }


def _ragged(counts: np.ndarray, files: np.ndarray) -> np.ndarray:
    """Places of the rows of these files."""
    starts = np.cumsum(counts) - counts
    lengths = counts[files]
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts[files], lengths) + offsets
