"""Reads class names from wherever tools put them beside the labels: lists of lines, JSON, YAML, TensorFlow's label maps and tables."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from octrim.data.formats.place import Place, head
from octrim.data.labelfiles import read_bytes
from octrim.data.paths import child
from octrim.data.texts import decoded
from octrim.data.values import name, whole
from octrim.errors import InputError, shown

NAME_FILES = ("labels.txt", "label_list.txt", "classes.txt", "obj.names", "names.txt", "predefined_classes.txt", "_darknet.labels", "class_names.txt")
"""Files of a name per line, the likeliest first."""
_STEMS = ("classes", "class_names", "classnames", "class_list", "names", "label_list", "label_names", "labels", "label_map", "labelmap", "categories")
_SUFFIXES = (".txt", ".yaml", ".yml", ".json", ".pbtxt", ".csv")
_KEYS = ("names", "classes", "class_names", "categories", "labels")  # keys of documents that hold the names
_MOST = 2**20  # bytes of a file of names


def class_names(folders: Sequence[Path], leave_out: Sequence[str] = ()) -> tuple[tuple[str, ...], Path | None]:
    """Return the class names that a tool put into one of the folders, and their file; no names and None where there are none.

    Tried in each folder in turn: NAME_FILES, the only *.names, files of the usual names in other formats, Label Studio's notes.json, and the only
    YAML file with `names`. leave_out: lines that name no class. Raises InputError for a file that ought to hold names and does not.
    """
    for folder in dict.fromkeys(folders):
        for path in _candidates(folder):
            found = names_in(path, leave_out)
            if found:
                return found, path
    return (), None


def _candidates(folder: Path) -> list[Path]:
    """Return the files in a folder that may hold class names, the likeliest first."""
    place = Place(folder)
    try:
        files = place.files
    except OSError:
        return []
    stems = {Path(one).stem.casefold(): one for one in reversed(files)}
    listed = [child(folder, one) for one in NAME_FILES]
    own = place.having(".names")
    usual = [folder / one for stem in _STEMS for one in files if Path(one).stem.casefold() == stem and one.lower().endswith(_SUFFIXES)]
    usual = [path for path in usual if path.name.casefold() != "labelmap.txt"]  # CVAT's, of another form
    notes = [folder / stems["notes"]] if stems.get("notes", "").casefold() == "notes.json" else []
    documents = [path for path in place.having(".yaml", ".yml") if re.search(rb"(?m)^\s*[\"']?names[\"']?\s*:", head(path, 1 << 16))]
    found = [*listed, *(own if len(own) == 1 else []), *usual, *notes, *(documents if len(documents) == 1 else [])]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def names_note(path: Path | None) -> tuple[str, ...]:
    """Return a line that says which file the class names come from; nothing without a file."""
    return () if path is None else (f"class names are those of {path}",)


def names_in(path: Path, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the class names in a file of any of the formats, in the order of their numbers; none where it is a document of something else.

    leave_out: lines that name no class. Raises InputError where the file cannot be read, or is no list of names although it is called so.
    """
    try:
        text = decoded(read_bytes(str(path), _MOST))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of class names: {shown(str(error))}") from None
    suffix = path.suffix.lower()
    if suffix == ".json":
        found = _names_in_document(_json(text))
    elif suffix in (".yaml", ".yml") or text.lstrip()[:1] in ("[", "{"):
        found = _names_in_document(_yaml(text))
    elif suffix == ".pbtxt":
        found = _names_in_label_map(text)
    elif suffix == ".csv":
        found = _names_in_table(text)
    else:
        return _names_in_lines(path, text, leave_out)
    if any(not one.isprintable() for one in found):
        return ()
    if not found and path.stem.casefold() in ("classes", "class_names", "names"):
        raise InputError(f"{path}: not a list of class names: expected names, or names by their numbers from 0, found {shown(text[:200])}")
    return found


def _names_in_lines(path: Path, text: str, leave_out: Sequence[str]) -> tuple[str, ...]:
    """Return the names in a text of a name per line, with or without numbers and quotes, or of one line with commas.

    Raises InputError where the text is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if line not in leave_out and not line.startswith("# ")]
    if any("\0" in line for line in lines):
        raise InputError(f"{path}: not a list of class names")
    if len(lines) == 1 and "," in lines[0]:
        lines = [part.strip() for part in lines[0].split(",") if part.strip()]
    quoted = [re.fullmatch(r"""(["'])(.+)\1,?""", line) for line in lines]
    if all(quoted):
        lines = [match[2] for match in quoted if match]
    return _unnumbered(lines) or tuple(lines)


def _unnumbered(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the names of lines that all have a number before or behind them, by the numbers, which must be all from 0; else nothing."""
    for pattern, number, text in ((r"(\d{1,6})\s*[:;,=\t ]\s*(\S.*)", 1, 2), (r"(.*\S)\s*[:;,=\t]\s*(\d{1,6})", 2, 1)):
        found = [re.fullmatch(pattern, line, re.ASCII) for line in lines]
        if found and all(found):
            names = _by_number([(match[number], match[text]) for match in found if match])
            if len(set(names)) == len(lines):  # "0 degrees" and "1 degrees" are names themselves
                return names
    return ()


def _by_number(pairs: Sequence[tuple[Any, Any]], first: int = 0) -> tuple[str, ...]:
    """Return the names of pairs (number, name) in the order of their numbers; nothing unless those are all from `first`, each once."""
    numbered = {whole(number): name(text) for number, text in pairs}
    names = [numbered.get(number) for number in range(first, first + len(pairs))]
    return tuple(one for one in names if one) if all(names) else ()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text[: 2**19], yaml.BaseLoader)  # this loader makes nothing but text, lists and mappings
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):  # PyYAML raises OverflowError for "\\UFFFFFFFF"
        return None


def _names_in_document(value: Any) -> tuple[str, ...]:
    """Return the class names in parsed JSON or YAML: a list, entries with id and name, or a mapping from numbers to names or back; none otherwise."""
    if isinstance(value, Mapping):
        inner = next((value[key] for key in _KEYS if isinstance(value.get(key), list | dict)), None)
        if inner is not None:
            value = inner
    if isinstance(value, Mapping):
        return _by_number(list(value.items())) or _by_number([(number, text) for text, number in value.items()])
    if not isinstance(value, list) or not value:
        return ()
    if all(isinstance(entry, Mapping) for entry in value):
        texts = [next((entry[key] for key in ("name", "title", "label") if key in entry), None) for entry in value]
        numbers = [next((entry[key] for key in ("id", "index", "class_id") if key in entry), place) for place, entry in enumerate(value)]
        return _by_number(list(zip(numbers, texts, strict=True)))
    return _by_number(list(enumerate(value)))


def _names_in_label_map(text: str) -> tuple[str, ...]:
    """Return the names in a label map of TensorFlow's object detection, `item { id: 1 name: 'cat' }`, whose numbers count from 1."""
    pairs = []
    for item in re.findall(r"item\s*\{([^{}]*)\}", text):
        number = re.search(r"\bid\s*:\s*(\d+)", item)
        names = {key: written for key, _, written in re.findall(r"\b(display_name|name)\s*:\s*([\"'])(.*?)\2", item)}
        pairs.append((number[1] if number else None, names.get("display_name", names.get("name"))))
    return _by_number(pairs, 1) or _by_number(pairs)


def _names_in_table(text: str) -> tuple[str, ...]:
    """Return the names in a table with a header, or without one, of a column of names, with or without their numbers."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(map(str.strip, row))]
    except csv.Error:
        return ()
    for body in (rows, rows[1:]):
        if body and all(len(row) == 2 for row in body):
            found = _by_number([(a, b) for a, b in body]) or _by_number([(b, a) for a, b in body])
            if found:
                return found
    headed = bool(rows) and rows[0][0].casefold() in ("name", "names", "class", "classes", "label", "labels", "category", "class_name")
    single = rows[1:] if headed else rows
    return tuple(row[0] for row in single) if single and all(len(row) == 1 for row in single) else ()
