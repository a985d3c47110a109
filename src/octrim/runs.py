"""Run folders: `runs/<command>/exp`, `exp2`, .., each with the resolved configuration and a log beside the results."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import sys
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rich.console import Console

from octrim.atomic import append_text, write_text
from octrim.errors import InputError, shown
from octrim.plain_yaml import parse, read_text

T = TypeVar("T")


def wide_console() -> Console:
    """Standard output; 150 columns wide where it is no terminal, because files and pipes do not wrap at 80."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150, markup=False, highlight=False)


class Run:
    """A run's folder. What is printed through it appears on standard output and in `log.txt`."""

    def __init__(self, path: Path, config: Any = None) -> None:
        self.path = path
        self.console = wide_console()
        if config is not None:  # without one, the run goes on
            write_text(path / "config.yaml", yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True))
            (path / "log.txt").write_text("", "utf-8")

    def print(self, *items: Any) -> None:
        # Text is never wrapped: programs read paths from it.
        wrap = not isinstance(items[0], str)
        self.console.print(*items, soft_wrap=not wrap)
        text = io.StringIO()
        Console(file=text, width=150, markup=False, highlight=False).print(*items, soft_wrap=not wrap)
        append_text(self.path / "log.txt", text.getvalue())


def new_run(command: str, config: Any) -> Run:
    """Make the folder of a new run: `--project/--name`, `runs/<command>/exp` by default, numbered where it exists already.

    Raises InputError where it cannot be made.
    """
    project = Path(config.project or f"runs/{command}")
    if not config.name or Path(config.name).name != config.name:
        raise InputError(f"name is {config.name!r}, expected the name of a folder")
    try:
        for number in itertools.count(1):
            path = project / (config.name if number == 1 else f"{config.name}{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not (config.exist_ok and path.is_dir()):
                    continue
            return Run(path, config)
    except OSError as error:
        raise InputError(f"{error.filename or project}: cannot make the run folder: {error.strerror}") from None
    raise AssertionError("unreachable: count() does not end")


def open_run(path: str | Path) -> Run:
    """A run's folder to go on in. Raises InputError where there is none."""
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: not the folder of a run (no config.yaml)")
    return Run(path)


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def stored_config(config: T, folder: str | Path, free: Collection[str] = ()) -> T:
    """The configuration of the run to resume, which `config` asks for by nothing but `resume`. free: fields that may be given again.

    Raises InputError where another field is given, and for a config.yaml that is missing, damaged, or another command's.
    """
    defaults = type(config)()
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, config))]
    changed = {name: getattr(config, name) for name in fields if getattr(config, name) != getattr(defaults, name)}
    given = [name for name in changed if name not in (*free, "resume")]
    if given:
        raise InputError(f"--resume goes on as the run began; leave out --{given[0].replace('_', '-')}")
    path = open_run(folder).path / "config.yaml"
    content, _ = parse(read_text(path), str(path))
    if not isinstance(content, dict) or not set(content) <= set(fields):
        raise InputError(f"{path}: not the configuration of an octrim {typing.cast(Any, config).command} run")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    hints = typing.get_type_hints(type(config))
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise InputError(f"{path}: {name} is {shown(value)}")
    return type(config)(**{**values, **changed})


def from_python(kind: type[T], options: dict[str, Any]) -> T:
    """The configuration that options from Python ask for: paths and numbers in the types that its fields, and so config.yaml, have.

    Raises TypeError for unknown options, as a call does, and InputError for values that a field cannot hold.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in hints:
            raise TypeError(f"{_command(kind)}() got an unexpected keyword argument '{name}'; it takes {', '.join(hints)}")
        tuples = tuple in (typing.get_origin(hint) for hint in (hints[name], *typing.get_args(hints[name])))
        candidates = [value, *([str(value)] if isinstance(value, os.PathLike | int | float) and not isinstance(value, bool) else [])]
        candidates += [float(value)] if type(value) is int else []
        candidates += [tuple(value) if isinstance(value, list | tuple) else (value,)] if tuples else []
        values[name] = next((one for one in candidates if _fits(one, hints[name])), None)
        if values[name] is None and value is not None:
            raise InputError(f"{name} is {shown(value)}, which is not what {_command(kind)} takes")
    return kind(**values)


def _command(kind: Any) -> str:
    return kind.command


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from a file has a field's type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if parts:
        return any(_fits(value, part) for part in parts)
    return type(value) is hint
