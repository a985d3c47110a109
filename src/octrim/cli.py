"""The command line: arguments in, an exit code out. What the commands and their options are stands in `octrim.commands`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import re
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

from octrim.commands import COMMANDS
from octrim.commands.pong import PONG, Pong
from octrim.errors import InputError

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 for bad input (one line on standard error), 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):  # file names and pipes need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version

        print(f"octrim {version('octrim')}")
        return 0
    commands, name, rest = _commands(arguments)
    name = " ".join([name, *(rest[:1] if rest and rest[0] in commands else [])]).removeprefix("octrim").strip()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it cannot write into the user's home, in several lines
    with _interruptions() as interrupted:
        try:
            parse(arguments).run()
        except SystemExit as error:  # tyro: 0 after --help
            return error.code if isinstance(error.code, int) else 2
        except KeyboardInterrupt:
            pass
        except InputError as error:
            if not interrupted:
                return _fail(name, str(error))
        except OSError as error:  # a full disk, a folder without permission
            if not interrupted:
                where = f"{error.filename}: " if error.filename else ""
                return _fail(name, str(InputError(f"{where}{error.strerror or error}")))
        except MemoryError:
            return _fail(name, "out of memory")
        except Exception:
            if not interrupted:
                raise
        else:
            return 0
    print(f"octrim {name}: interrupted", file=sys.stderr)
    return 130


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that Ctrl-C fills. Libraries turn KeyboardInterrupt into errors of their own: an import fails, a graph cannot be built."""
    interrupted: list[int] = []

    def note(number: int, frame: Any) -> None:
        interrupted.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted  # somebody else handles it
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(name: str, message: str) -> int:
    print(f"octrim {name}".strip() + ": error: " + message, file=sys.stderr)
    return 2


def parse(arguments: Sequence[str]) -> Any:
    """The command's dataclass from its arguments. Raises InputError in one line where tyro would print a box."""
    commands, program, arguments = _commands(arguments)
    if arguments and arguments[0] in commands:
        arguments[1:] = _assignments(commands[arguments[0]], arguments[1:])
    kinds = tuple(Annotated[command, tyro.conf.subcommand(name)] for name, command in commands.items())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                tyro.conf.OmitSubcommandPrefixes[tyro.conf.FlagCreatePairsOff[typing.Union[kinds]]],  # type: ignore[valid-type] # noqa: UP007 (built at run time)
                prog=program,
                description=Pong.__doc__ if commands is PONG else "Make a YOLOv5 detector small enough for the edge.",
                args=arguments,
            )
    except SystemExit as error:
        if not error.code:
            raise
        raise InputError(_one_line(printed.getvalue())) from None


def _commands(arguments: Sequence[str]) -> tuple[Mapping[str, Any], str, list[str]]:
    """The commands to choose from, the program's name, and the arguments left: `octrim pong` has commands of its own."""
    if list(arguments[:1]) == ["pong"]:
        return PONG, "octrim pong", list(arguments[1:])
    return {**COMMANDS, "pong": Pong}, "octrim", list(arguments)


def _one_line(box: str) -> str:
    """The message inside tyro's box: the lines between its title and its rule, without the frame."""
    lines = [line.strip().strip("│").strip() for line in box.splitlines()]
    message = []
    for line in lines:
        if line.startswith("╭") or not line:
            continue
        if line.startswith(("─", "╰")):
            break
        message.append(line)
    return " ".join(message) or "the arguments make no sense; see --help"


def _assignments(command: Any, arguments: list[str]) -> list[str]:
    """`key=value` as `--key value`, for fields of the command, and never where an option's value stands."""
    fields = _field_names(command)
    result: list[str] = []
    for token in arguments:
        match = re.fullmatch(r"([A-Za-z][\w-]*)=(.*)", token, re.DOTALL)
        field = fields.get(match[1].replace("_", "-")) if match else None
        before = result[-1] if result else ""
        awaited = before.startswith("--") and "=" not in before and not _is_flag(fields.get(before[2:].replace("_", "-")))
        if match is None or field is None or awaited:
            result.append(token)
        elif _is_flag(field):
            if match[2].lower() not in _SWITCH:
                raise InputError(f"{token}: expected {field.name}=True or {field.name}=False")
            result += [f"--{field.name.replace('_', '-')}"] * _SWITCH[match[2].lower()]
        else:
            # Several numbers may stand in one value, as `imgsz=480,640` or `classes=[0, 2]`; text is taken as it is.
            values = re.findall(r"[^,\s]+", match[2].strip("[]() ")) if field.name in ("imgsz", "classes") else [match[2]]
            result += [f"--{field.name.replace('_', '-')}", *values]
    return result


def _field_names(command: Any) -> dict[str, dataclasses.Field[Any]]:
    """The command's fields by every spelling of their names (dashes for underscores)."""
    hints = typing.get_type_hints(command, include_extras=True)
    names: dict[str, dataclasses.Field[Any]] = {}
    for field in dataclasses.fields(command):
        names[field.name.replace("_", "-")] = field
        for extra in getattr(hints[field.name], "__metadata__", ()):
            names |= {alias.lstrip("-"): field for alias in getattr(extra, "aliases", None) or ()}
    return names


def _is_flag(field: dataclasses.Field[Any] | None) -> bool:
    """Flags are False unless given: they take no value."""
    return field is not None and field.default is False


if __name__ == "__main__":
    sys.exit(main())
