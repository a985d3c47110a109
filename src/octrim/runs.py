"""Run folders: `runs/<command>/exp`, `exp2`, .., each with the resolved configuration and a log beside the results."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import shlex
import shutil
import sys
import typing
import weakref
from collections.abc import Collection
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import yaml
from rich.console import Console

from octrim.atomic import append_text, write_text
from octrim.errors import InputError
from octrim.options import from_stored, in_todays_words
from octrim.plain_yaml import parse, read_text

try:
    import fcntl
except ImportError:  # Windows: two processes may get into each other's way there
    fcntl = None

T = TypeVar("T")

_LOG = "log.txt"

_PATIENCE = 3.0
"""Seconds to wait for a killed process to let go of its run."""


def typed(*words: object) -> str:
    """A command of octrim as it is typed into a shell, where words with spaces stand in quotes."""
    return shlex.join(["octrim", *map(str, words)])


def wide_console() -> Console:
    """Console on standard output; 150 columns wide where that is no terminal, so that lines in files and pipes do not wrap at 80."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150, markup=False, highlight=False)


def plain_text(*items: Any, wrap: bool = True) -> str:
    """What a console of 150 columns shows for texts and tables, as text. wrap: whether longer lines are broken."""
    text = io.StringIO()
    Console(file=text, width=150, markup=False, highlight=False).print(*items, soft_wrap=not wrap)
    return text.getvalue()


class _Claim:
    """A lock on a run's log, which the operating system gives back when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where another process works on the run in `folder`."""
        self.file = (folder / _LOG).open("a")
        for left in range(round(_PATIENCE / 0.1), -1, -1):
            try:
                if fcntl is not None:
                    fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not left:
                    self.file.close()
                    raise InputError(f"{folder}: another process is working on this run") from None
                sleep(0.1)
            except OSError:  # a file system without locks
                return

    def __del__(self) -> None:
        self.file.close()


_claims: weakref.WeakValueDictionary[Path, _Claim] = weakref.WeakValueDictionary()
"""What this process works on, because a run may be opened again where it is in hand."""


def _claimed(folder: Path) -> _Claim:
    """The lock on a run's folder. Raises InputError where another process has it."""
    key = folder.resolve()
    claim = _claims.get(key)
    if claim is None:
        claim = _claims[key] = _Claim(folder)
    return claim


class Run:
    """A run's folder, on which no other process works in the meantime. Texts printed through it appear on standard output and in its `log.txt`."""

    def __init__(self, path: Path, config: Any = None) -> None:
        """Raises InputError where another process works on the run."""
        self.path = path
        self.console = wide_console()
        self._claim = _claimed(path)
        if config is not None:  # None for a run that goes on
            keep_config(path, config)
            (path / _LOG).write_text("", "utf-8")

    def print(self, *items: Any) -> None:
        # Text is never wrapped: programs read paths from it.
        wrap = not isinstance(items[0], str)
        self.console.print(*items, soft_wrap=not wrap)
        append_text(self.path / _LOG, plain_text(*items, wrap=wrap))


def keep_config(folder: Path, config: Any) -> None:
    """Write the options and the name of their command into `config.yaml`."""
    content = {"command": config.command, **_plain(dataclasses.asdict(config))}
    write_text(folder / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def new_run(config: Any) -> Run:
    """Make the folder of a new run: `--project/--name`, `runs/<command>/exp` by default, with a number where it exists already.

    Raises InputError where the folder cannot be made, or another process works in it.
    """
    project = Path(config.project or f"runs/{config.command.replace(' ', '-')}")
    check_name(config.name)
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


def check_name(name: str) -> None:
    """Raise InputError for a name that a run's folder cannot have."""
    if not name or Path(name).name != name or name == ".." or "\0" in name:
        raise InputError(f"name is {name!r}, expected the name of a folder")


def require_space(folder: str | Path, needed: int) -> None:
    """Raise InputError where the disk of a folder, which need not exist yet, has fewer than `needed` bytes left."""
    folder = Path(folder).absolute()
    there = next((part for part in (folder, *folder.parents) if part.is_dir()), None)
    with contextlib.suppress(OSError):
        if there is not None and (free := shutil.disk_usage(there).free) < needed:
            raise InputError(f"{folder}: {free / 1e6:,.0f} MB are free on this disk, and the run needs about {needed / 1e6:,.0f} MB")


def open_run(path: str | Path) -> Run:
    """The run in an existing folder. Raises InputError where there is none, and where another process works on it."""
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: not the folder of a run (no config.yaml)")
    return Run(path)


def _plain(value: Any) -> Any:
    """The value with tuples as lists, because YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def stored_config(config: T, folder: str | Path, free: Collection[str] = ()) -> T:
    """The stored configuration of the run in `folder`, which `config` asks for by `resume`. free: names of fields that may be given besides.

    Raises InputError where another field is given, and for a config.yaml that is missing, damaged, or another command's.
    """
    defaults = type(config)()
    command: str = typing.cast(Any, config).command
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, config))]
    changed = {name: getattr(config, name) for name in fields if getattr(config, name) != getattr(defaults, name)}
    given = [name for name in changed if name not in (*free, "resume")]
    if given:
        raise InputError(f"--resume goes on as the run began; leave out --{given[0].replace('_', '-')}")
    path = open_run(folder).path / "config.yaml"
    content, _ = parse(read_text(path), str(path))
    if isinstance(content, dict) and "command" not in content:  # a run of version 0.1, which had neither of these two options
        content = {name: value for name, value in (("val_share", 0.0), ("keep_difficult", True)) if name in fields} | content
    # Version 0.1 did not write which command made the run.
    made_by = content.pop("command", command) if isinstance(content, dict) else command
    if not isinstance(content, dict) or made_by != command or not set(in_todays_words(type(config), content)) <= set(fields):
        found = f"; it is one of octrim {made_by}" if isinstance(made_by, str) and made_by != command else ""
        raise InputError(f"{path}: not the configuration of an octrim {command} run{found}")
    return dataclasses.replace(typing.cast(Any, from_stored(type(config), content, str(path))), **changed)
