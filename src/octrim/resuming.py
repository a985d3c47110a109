"""Resuming of runs: paths are kept absolute, so that a run can be resumed from any folder, and inputs that were moved may be named anew."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from octrim.errors import InputError
from octrim.runs import keep_config, stored_config
from octrim.shipped import is_shipped

T = TypeVar("T")

_PATHS = ("weights", "cfg", "student", "data", "unlabelled", "hyp", "teacher", "keep_map", "latency_table", "project")
"""Options that may name a file or a folder, or several."""

_NAMES = ("cfg", "student", "hyp")
"""Options that may be a name instead of a path: a published layout, a recipe."""


def absolute(config: T) -> T:
    """The options with absolute paths. Values that name no existing file stay as they are, such as the name of a layout or a recipe."""
    options: Any = config
    found: dict[str, Any] = {name: _absolute(name, value) for name, value in _paths_of(options).items()}
    found |= {name: tuple(_absolute(name, value) for value in values) for name, values in _lists_of(options).items()}
    return dataclasses.replace(options, **found)


@dataclass(frozen=True)
class Resumed:
    """A resumed run. began: its options when it began; config: its options from now on, with those that were given anew."""

    folder: Path
    began: Any
    config: Any

    def require(self, *names: str) -> None:
        """Raise InputError where a file or folder that one of the options `names` names does not exist."""
        for name in names:
            values = getattr(self.config, name)
            for value in values if isinstance(values, tuple) else (values,):
                if value is not None and (name not in _NAMES or os.path.isabs(value)) and not _is_there(name, value):  # noqa: PTH117
                    raise InputError(f"{value}: no such file or folder; {self.folder} reads it: give --{name.replace('_', '-')} where it lies now")

    def keep(self) -> None:
        """Write paths that were given anew into the run's config.yaml, so that the next resume need not name them again."""
        paths = {**_paths_of(self.config), **_lists_of(self.config)}
        moved: dict[str, Any] = {name: value for name, value in paths.items() if value != getattr(self.began, name)}
        if moved:
            keep_config(self.folder, dataclasses.replace(self.began, resume=None, **moved))


def run_to_resume(config: Any, free: Collection[str]) -> Resumed:
    """The run that `config.resume` names. free: options that may be given anew. Raises InputError as `stored_config` does."""
    folder = Path(config.resume)
    stored_config(config, folder, free)  # refuses options that must not be given with --resume
    defaults = type(config)()
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    given = {name: value for name, value in given.items() if value != getattr(defaults, name)}
    began = _from_its_folder(stored_config(dataclasses.replace(defaults, resume=config.resume), folder), folder)
    return Resumed(folder, began, absolute(dataclasses.replace(began, **given)))


def _paths_of(config: Any) -> dict[str, str]:
    return {name: value for name in _PATHS if isinstance(value := getattr(config, name, None), str)}


def _lists_of(config: Any) -> dict[str, tuple[str, ...]]:
    return {name: value for name in _PATHS if isinstance(value := getattr(config, name, None), tuple)}


def _absolute(name: str, value: str) -> str:
    if not _may_be_a_file(name, value) or _is_a_name(name, value):
        return value
    path = os.path.abspath(os.path.expanduser(value) if name == "data" else value)  # noqa: PTH100, PTH111 (follows no links, refuses no names)
    return path if name == "project" or _is_there(name, path) else value


def _is_a_name(name: str, value: str) -> bool:
    """Whether an option's value names a network that comes with OcTrim."""
    return name in ("weights", "teacher") and is_shipped(value)


def _may_be_a_file(name: str, value: str) -> bool:
    """Whether an option's value may name a file; a recipe must end in .yaml or .yml for it, so that low, med and high never mean files."""
    return name != "hyp" or Path(value).suffix.lower() in (".yaml", ".yml")


def _is_there(name: str, path: str) -> bool:
    """Whether the path that an option names exists: for a layout or a recipe as a file, else as a file or a folder. A glob always counts as there."""
    if (name == "unlabelled" and glob.has_magic(path)) or _is_a_name(name, path):
        return True
    return os.path.isfile(path) if name in _NAMES else os.path.exists(path)  # noqa: PTH110, PTH113 (these raise nothing, whatever the name)


def _from_its_folder(config: Any, folder: Path) -> Any:
    """The options of a run of OcTrim 0.1 with absolute paths. Such a run kept paths relative to the folder where it was begun, which is found from
    the run's own folder."""
    project = Path(config.project or f"runs/{config.command}")
    parents, parts = folder.resolve().parents, project.parts
    if project.is_absolute() or ".." in parts or len(parents) <= len(parts) or parents[0].parts[len(parents[0].parts) - len(parts) :] != parts:
        return config
    home = parents[len(parts)]
    found: dict[str, str] = {}
    for name, value in _paths_of(config).items():
        path = os.path.abspath(home / value)  # noqa: PTH100 (follows no links)
        lost = name not in _NAMES and not _is_there(name, value)
        if _may_be_a_file(name, value) and (lost or _is_there(name, path)):
            found[name] = path
    return dataclasses.replace(config, **found)
