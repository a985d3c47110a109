"""The help of commands: each option's docstring as one paragraph, what a command is about first, what it shares with others last."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NoReturn

import tyro
from docstring_parser import parse_from_object
from tyro.conf import arg

_FIRST = ("weights", "data", "source", "cfg")
"""Options that stand first where a command has them: what it reads."""


def show_help(commands: Mapping[str, Any], program: str, description: str, command: str | None) -> NoReturn:
    """Print the help of one of the commands, or the list of all where `command` is None, and end with SystemExit(0)."""
    shown = {name: _as_shown(kind) if name == command else kind for name, kind in commands.items()}
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in shown.items())
    tyro.cli(
        tyro.conf.OmitSubcommandPrefixes[tyro.conf.FlagCreatePairsOff[typing.Union[kinds]]],  # type: ignore[valid-type] # noqa: UP007 (built at run time)
        prog=program,
        description=description,
        args=[*([] if command is None else [command]), "--help"],
    )
    raise AssertionError("unreachable: the help ends with SystemExit")


def _as_shown(kind: Any) -> Any:
    """A dataclass with the options of a command in the order in which they are shown, and their texts without the source's line breaks."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), _texts(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: list[tuple[str, Any, Any]] = []
    for name in _in_order(kind, fields):
        default = fields[name].default
        value = dataclasses.field() if default is dataclasses.MISSING else dataclasses.field(default=default)
        values.append((name, Annotated[hints[name], arg(help=texts.get(name))], value))
    made = dataclasses.make_dataclass(kind.__name__, values, frozen=True)
    made.__doc__ = kind.__doc__
    return made


def _in_order(kind: Any, fields: Iterable[str]) -> list[str]:
    """Names of the fields: those without a default, what the command reads, then its own before those of the classes that it inherits from."""
    of_class = [name for one in kind.__mro__ for name in inspect.get_annotations(one)]
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    known = set(fields)
    return [name for name in dict.fromkeys((*needed, *_FIRST, *of_class)) if name in known]


def _texts(kind: Any) -> dict[str, str]:
    """The docstring of each field, its own class's where several have one, as one paragraph."""
    found: dict[str, str] = {}
    for one in kind.__mro__:
        if dataclasses.is_dataclass(one):
            for option in parse_from_object(one).params:
                found.setdefault(option.arg_name, " ".join((option.description or "").split()))
    return found
