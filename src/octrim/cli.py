"""The command line: it reads the arguments, runs a command and returns an exit code. `octrim.commands` has the commands and their options."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import re
import select
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from octrim.commands import COMMANDS
from octrim.commands.pong import PONG, Pong
from octrim.errors import InputError, shown
from octrim.options import Option, options_of
from octrim.yolov5_commands import one_format_each, refuse_script, rewritten
from octrim.yolov5_flags import SCRIPTS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 on success, 2 for bad input (one line on standard error), 130 when interrupted.

    Raises BrokenPipeError where standard output has no reader any more.
    """
    for stream in (sys.stdout, sys.stderr):  # no text may fail to print: file names and pipes need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands, name, rest = _commands(arguments)
    name = " ".join([name, *(rest[:1] if rest and rest[0] in commands else [])]).removeprefix("octrim").strip()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # Matplotlib warns in several lines where it cannot write into the user's home
    with _interruptions() as interrupted:
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            pass
        except InputError as error:
            if not interrupted:
                return _fail(name, _as_typed(str(error), arguments))
        except OSError as error:  # a full disk, a folder without permission
            if _reader_gone(error):
                raise
            if not interrupted:
                where = f"{error.filename}: " if error.filename else ""
                return _fail(name, str(InputError(f"{where}{error.strerror or error}")))
        except MemoryError:
            return _fail(name, "out of memory")
        except Exception:
            if not interrupted:
                raise
    print(f"octrim {name}: interrupted", file=sys.stderr)
    return 130


def _run(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for, until all of its output is written. Returns the exit code. Raises InputError, and OSError as files do."""
    code: str | int | None = 0
    try:
        if list(arguments) in (["--version"], ["-V"]):
            from importlib.metadata import version

            print(f"octrim {version('octrim')}")
        else:
            for config in parsed(arguments):
                config.run()
    except SystemExit as error:  # tyro exits with 0 after --help
        code = error.code
    sys.stdout.flush()
    return code if isinstance(code, int) else 2


def _reader_gone(error: OSError) -> bool:
    """Whether it is standard output's pipe that broke, because its reader, such as `head`, has gone."""
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that is no longer empty after Ctrl-C. It is needed because libraries turn KeyboardInterrupt into errors of their own."""
    interrupted: list[int] = []

    def note(number: int, frame: Any) -> None:
        interrupted.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted  # signals are left alone outside the main thread, and where another handler is in place
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(name: str, message: str) -> int:
    print(f"octrim {name}".strip() + ": error: " + message, file=sys.stderr)
    return 2


def _as_typed(message: str, arguments: Sequence[str]) -> str:
    """The message with an option's Python name at its start replaced by the spelling that the user typed."""
    commands, _, rest = _commands(arguments)
    name = re.match(r"[a-z]\w*(?= is | has |: )", message)
    option = options_of(commands[rest[0]]).get(name[0]) if name and rest and rest[0] in commands else None
    if name is None or option is None:
        return message
    typed = [token.partition("=")[0] for token in rest if token.partition("=")[0].removeprefix("--").replace("_", "-") in option.names]
    return typed[-1] + message[name.end() :] if typed else message


def parse(arguments: Sequence[str]) -> Any:
    """The command's dataclass with the values of its arguments. Raises InputError for wrong arguments, and SystemExit(0) after printing the help."""
    return parsed(arguments)[0]


def parsed(arguments: Sequence[str]) -> list[Any]:
    """The commands that one line asks for: one, but where YOLOv5's `--include` names several formats to export. Raises as `parse`."""
    commands, program, rest = _commands(arguments)
    if any(token in ("-h", "--help") for token in rest):
        _help(commands, program, rest)
    listed = ", ".join(commands)
    if not rest:
        raise InputError(f"a command is missing; there are {listed}")
    if rest[0] not in commands:
        refuse_script(rest[0])
        raise InputError(f"there is no command {shown(rest[0])}{_meant(rest[0], commands)}; there are {listed}")
    lines = one_format_each(rest[0], rewritten(rest[0], rest[1:]))
    return [read_options(commands[rest[0]], line, f"{program} {rest[0]}") for line in lines]


def _commands(arguments: Sequence[str]) -> tuple[Mapping[str, Any], str, list[str]]:
    """The commands to choose from, the program's name, and the arguments left: `octrim pong` has commands of its own."""
    if list(arguments[:1]) == ["pong"]:
        return PONG, "octrim pong", list(arguments[1:])
    return {**COMMANDS, "pong": Pong}, "octrim", [*(SCRIPTS.get(name, name) for name in arguments[:1]), *arguments[1:]]


def _help(commands: Mapping[str, Any], program: str, arguments: list[str]) -> NoReturn:
    """Print the help of a command, or the list of commands, and end with SystemExit(0)."""
    from octrim.help import show_help

    description = Pong.__doc__ if commands is PONG else "Make a YOLOv5 detector small enough for the edge."
    show_help(commands, program, description or "", arguments[0] if arguments[0] in commands else None)


def read_options(kind: Any, arguments: Sequence[str], program: str) -> Any:
    """A command's dataclass from `--name value`, `--name=value`, `--flag` and `name=value`; options that are not named keep their defaults.

    Raises InputError that names the option as it was typed.
    """
    spelt = {name: option for option in options_of(kind).values() for name in option.names}
    given: dict[str, Given] = {}
    positional = next((option for option in spelt.values() if option.default is dataclasses.MISSING), None)
    last: Given | None = None  # option to which the next values belong
    for token in arguments:
        awaited = last is not None and not last.option.flag and not last.texts
        assignment = None if awaited else re.fullmatch(r"([A-Za-z][\w-]*)=(.*)", token, re.DOTALL)
        if token.startswith("--"):
            name, equals, text = token.partition("=")
            option = spelt.get(name[2:].replace("_", "-"))
            if option is None:
                raise InputError(f"there is no option {name}{_meant(name, [f'--{known}' for known in spelt])}; {program} --help lists them")
            last = Given(option, name, [text] if equals else [])
        elif assignment is not None and assignment[1].replace("_", "-") in spelt:
            last = Given(spelt[assignment[1].replace("_", "-")], assignment[1], [assignment[2]])
        elif last is not None and not last.option.flag and (last.option.many or not last.texts):
            last.texts.append(token)
        elif positional is not None and positional.name not in given:
            last = Given(positional, positional.name, [token])
        else:
            raise InputError(f"{shown(token)} belongs to no option; {program} --help lists them")
        given[last.option.name] = last
    if positional is not None and positional.name not in given:
        raise InputError(f"{positional.name.upper()} is missing; see {program} --help")
    return kind(**{name: one.value() for name, one in given.items()})


@dataclass
class Given:
    """An option as it was typed: its spelling, and the words that belong to it."""

    option: Option
    spelling: str
    texts: list[str]

    def value(self) -> Any:
        """The option's value that the words mean. Raises InputError for words that are no value of the option."""
        if not self.option.flag or self.texts:
            return self.option.from_text(self.texts, self.spelling)
        return True


def _meant(typed: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most similar to the typed one; empty where none is."""
    from difflib import get_close_matches

    found = get_close_matches(typed, list(known), n=1, cutoff=0.7)
    return f" (did you mean {found[0]}?)" if found else ""


if __name__ == "__main__":
    sys.exit(main())
