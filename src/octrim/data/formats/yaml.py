"""Reads data.yaml, in which YOLO's tools (YOLOv5, Ultralytics, Roboflow, CVAT's "Ultralytics YOLO" and others) name pictures and classes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from octrim.data.dataset import Dataset
from octrim.data.formats.apart import read_listed
from octrim.data.formats.names import class_names, names_in, names_note
from octrim.data.formats.place import SPLIT_WORDS, SPLITS, Format, Found, Missed, Place, Request
from octrim.data.labelfiles import read_bytes, read_lines
from octrim.data.paths import Locator, exists, find_place
from octrim.data.pictures import SUFFIXES, is_picture
from octrim.data.texts import decoded
from octrim.data.values import whole
from octrim.data.yolo import Listing, listed, walk_pictures
from octrim.errors import InputError, shown

_MOST_YAML = 2**19  # bytes of a data.yaml: the 21,000 names of ImageNet fit; PyYAML takes five seconds for most texts of this length, up to twenty
_PARENTS = 2  # folders above the file that its paths may be relative to

_KEYS = ("path", *SPLITS, *SPLIT_WORDS, "names", "nc", "kpt_shape")


class DataYaml(Format):
    def find(self, place: Place) -> Found | Missed:
        files = [path for suffix in (".yaml", ".yml") for path in place.having(suffix) if is_data_yaml(path)]
        if len(files) > 1:
            return Missed(f"there are several ({', '.join(path.name for path in files)}); name one of the files", near=True)
        return yaml_parts(files[0]) if files else Missed("no file *.yaml that names train, val or test")


def is_data_yaml(path: Path) -> bool:
    try:
        return bool(_splits(load_yaml(path)))
    except InputError:
        return False


def yaml_parts(path: Path) -> Found:
    """Return the parts that a data.yaml names. Raises InputError where the file is no data.yaml."""
    document = load_yaml(path)
    splits = _splits(document)
    if not splits:
        return Found({}, f"{path}: there is no split {{split}}; expected train, val or test")
    parts = {split: partial(_read, path, document, split, key) for split, key in splits.items()}
    return Found(parts, f"{path}: there is no split {{split}}; it has {{there}}")


def _splits(document: dict[str, Any]) -> dict[str, str]:
    """Return the splits that a data.yaml names, with the keys that it uses for them."""
    found = {split: split for split in SPLITS if not _is_nothing(document.get(split))}
    return found | {split: key for key, split in SPLIT_WORDS.items() if split not in found and not _is_nothing(document.get(key))}


def _read(path: Path, document: dict[str, Any], split: str, key: str, request: Request) -> Dataset:
    return read_listed(path, list_yaml(path, document, split, key), request)


def load_yaml(path: Path) -> dict[str, Any]:
    """Load a data.yaml with every scalar as text, so that class names such as `no` and `1e3` stay what they are.

    Raises InputError where the file cannot be read, is too large, or is no YAML mapping.
    """
    try:
        data = read_bytes(str(path), _MOST_YAML + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(data) > _MOST_YAML:
        raise InputError(f"{path}: more than {_MOST_YAML} bytes; no data.yaml needs that")
    try:
        document = _in_small_letters(_mapping(decoded(data)))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # PyYAML raises OverflowError for "\\UFFFFFFFF"
        raise InputError(f"{path}: not readable as YAML: {_reason(error)}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping with train, val and names, found {shown(document)}")
    return document


def _mapping(text: str) -> Any:
    """Parse YAML text. In Windows' paths in double quotes, backslashes are kept, which YAML would take for escapes."""
    lines = [_with_backslashes(line) for line in text.splitlines(keepends=True)] if "\\" in text else [text]
    return yaml.load("".join(lines), yaml.BaseLoader)  # this loader makes nothing but text, lists and mappings


def _in_small_letters(document: Any) -> Any:
    """Return a data.yaml with its own keys in small letters, such as `train` for `Train`, where it does not have them so already.

    Mappings are left alone, but for names: `TRAIN:` with options below is of another tool's configuration.
    """
    if not isinstance(document, dict):
        return document
    small = {key: key.lower() for key, value in document.items() if isinstance(key, str) and (key.lower() == "names" or not isinstance(value, dict))}
    own = {key: name for key, name in small.items() if name in _KEYS and name not in document}
    return {own.get(key, key): value for key, value in document.items()}


def _with_backslashes(line: str) -> str:
    """Return a line of YAML with the backslashes doubled that stand in the paths of a split, or in text that begins with a drive."""
    own = re.match(rf"[ \t]*(?:{'|'.join(('path', *SPLITS, *SPLIT_WORDS))})[ \t]*:", line, re.IGNORECASE) is not None
    quoted = r'"[^"\n]*"' if own else r'"[A-Za-z]:\\[^"\n]*"'
    return re.sub(quoted, lambda found: re.sub(r"\\+", r"\\\\", found[0]), line)


def _reason(error: Exception) -> str:
    """Return the line and the fault of a text that is no YAML, for an error message."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return shown(str(error)) if mark is None or not problem else f"line {mark.line + 1}: {shown(problem)[1:-1]}"


def list_yaml(path: Path, document: dict[str, Any], split: str, key: str) -> Listing:
    """Return the listing of a split's pictures as a data.yaml names them. Raises InputError for entries that are missing or contradict each other."""
    names = _names(path, document.get("names"))
    classes = _class_count(path, document.get("nc"))
    root, notes = _root(path, document.get("path", ""))
    source = None
    if not names:
        names, source = class_names([path.parent, root])
        notes += names_note(source)
    if names and classes not in (None, len(names)):
        raise InputError(f"{path}: nc is {classes}, but there are {len(names)} names{'' if source is None else f' in {source}'}")
    entries = document[key] if isinstance(document[key], list) else [document[key]]
    pictures: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise InputError(f"{path}: {split}: {shown(entry)} is not a path")
        place = _found_entry(path, split, entry, root)
        if place.note:
            notes.append(place.note)
        found, note = _pictures_of(place.path, root, path.parent, split)
        pictures += found
        notes += note
    return listed(pictures, names, classes, tuple(dict.fromkeys(notes)), _pose(document.get("kpt_shape")))


def _class_count(path: Path, value: Any) -> int | None:
    if _is_nothing(value):
        return None
    classes = whole(value)
    if classes is None or not 1 <= classes <= 65536:
        raise InputError(f"{path}: nc is {shown(value)}, expected the number of classes")
    return classes


def _pose(shape: Any) -> int:
    """Return how many values a row of Ultralytics' poses has, by its `kpt_shape`, [points, 2 or 3]; 0 where that is not given."""
    if not isinstance(shape, list) or len(shape) != 2:
        return 0
    points, values = whole(shape[0]), whole(shape[1])
    return 5 + points * values if points and values in (2, 3) and 0 < points < 1000 else 0


def _root(path: Path, home: Any) -> tuple[Path, list[str]]:
    """Return the folder that a data.yaml's paths are relative to, and a note where that is not the folder that the file names."""
    if not isinstance(home, str):
        raise InputError(f"{path}: path is {shown(home)}, expected a folder")
    folder = path.parent
    if _is_nothing(home):
        return folder, []
    root = Path(os.path.abspath(folder / os.path.expanduser(home)))  # noqa: PTH100, PTH111 (keeps symbolic links)
    if os.path.isdir(root):  # noqa: PTH112 (which raises nothing, whatever the name)
        return root, []
    found = find_place(home, _bases(folder, folder), os.path.isdir)
    if found is None:
        return folder, [f"{path}: path is {shown(home)[1:-1]}, which is not here; its pictures are looked for beside the file"]
    return Path(os.path.abspath(found)), [f"{path}: path is {shown(home)[1:-1]}, found as {found}"]  # noqa: PTH100


def _bases(root: Path, folder: Path) -> list[str]:
    """Return the folders that paths may be relative to: the data set's, the file's, two above it, and the working folder."""
    above = list(folder.parents)[:_PARENTS]
    return [str(one) for one in dict.fromkeys((root, folder, *above, Path(os.path.abspath("."))))]  # noqa: PTH100


def _is_nothing(value: Any) -> bool:
    return value in (None, "", "null", "~", []) or (isinstance(value, str) and not value.strip())


def _names(path: Path, value: Any) -> tuple[str, ...]:
    """Return the class names of a data.yaml's `names`: a list, a mapping of numbers to names, text of either, names between commas, or a file's name.

    Raises InputError for everything else.
    """
    if _is_nothing(value):
        return ()
    if isinstance(value, str):
        if whole(value) is not None:
            raise InputError(f"{path}: names is {shown(value)}, expected a list of names; the number of classes is nc")
        value = _names_in_text(path, value)
    if isinstance(value, dict):
        numbered = {whole(key): name for key, name in value.items()}
        if len(numbered) < len(value) or any(number not in numbered for number in range(len(value))):
            raise InputError(f"{path}: the numbers of the names are {shown(list(value))}, expected 0 to {len(value) - 1}")
        value = [numbered[number] for number in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: names is {shown(value)}, expected a list of names, or a mapping of numbers to names")
    return tuple(value)


def _names_in_text(path: Path, text: str) -> Any:
    file = path.parent / text.strip()
    if text.strip().endswith((".txt", ".names", ".yaml", ".yml", ".json", ".pbtxt", ".csv")) and exists(str(file)):
        return list(names_in(file))
    if text.strip()[:1] in ("[", "{"):
        try:
            return yaml.load(text, yaml.BaseLoader)  # this loader makes nothing but text, lists and mappings
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
            return text.strip()
    return [name.strip() for name in text.split(",") if name.strip()]


class _Entry:
    """The path of an entry of a data.yaml, and a note where that is not the path that the file gives."""

    def __init__(self, path: str, note: str = "") -> None:
        self.path, self.note = Path(os.path.abspath(path)), note  # noqa: PTH100


def _found_entry(path: Path, split: str, entry: str, root: Path) -> _Entry:
    # Exports of Roboflow name ../train/images, relative to a folder that they do not have: they mean one `..` less.
    tries = [root / entry, path.parent / entry, *([root / entry[3:]] if entry.startswith("../") else [])]
    for place in tries:
        if exists(str(place)):
            return _Entry(str(place))
    found = find_place(entry, _bases(root, path.parent))
    if found is None:
        without = "; without that line the training part is divided" if split == "val" else ""
        raise InputError(f"{path}: {split} is {entry}, and there is no {tries[0]}{without}")
    return _Entry(found, f"{path}: {split} is {entry}, found as {found}")


def _pictures_of(place: Path, root: Path, folder: Path, split: str) -> tuple[list[str], Sequence[str]]:
    """Return the pictures of an entry, which is a folder, a picture or a list file, and notes on how they were found.

    A list file names pictures relative to its own folder or to the data set's root.
    """
    if place.is_dir():
        return walk_pictures(place), ()
    if place.suffix.lower() in SUFFIXES:
        return [str(place)], ()
    return pictures_in_list(place, [place.parent, root, *map(Path, _bases(root, folder))], split, [place.parent, root])


def pictures_in_list(place: Path, bases: Sequence[Path], split: str, trees: Sequence[Path]) -> tuple[list[str], Sequence[str]]:
    """Return the pictures that a list file names, one a line, and notes on those that were found elsewhere.

    bases: folders that the names may be relative to. trees: folders of the data set, searched for pictures by name.
    Raises InputError where the file cannot be read or is no list.
    """
    try:
        lines = read_lines(str(place))
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}") from None
    written = [line for line in map(str.strip, lines) if line]
    if any("\0" in line for line in written):
        raise InputError(f"{place}: not a list of pictures")
    usual = [str(base) for base in dict.fromkeys(bases)][:2]
    usual = usual if len(usual) > 1 else usual * 2

    def plain(line: str) -> tuple[str, bool]:
        path = os.path.join(usual[0], line)  # noqa: PTH118
        known = exists(path)
        if not known and exists(other := os.path.join(usual[1], line)):  # noqa: PTH118
            usual.reverse()  # the next picture is likely in the same folder
            path, known = other, True
        return (os.path.normpath(path) if "./" in path else path), known

    everywhere = [str(base) for base in dict.fromkeys(bases)]
    located = Locator(everywhere, [str(tree) for tree in dict.fromkeys(trees)], split, is_picture).locate(written, plain)
    return located.paths, located.note(str(place))
