"""Command lines as YOLOv5's users type them, rewritten as OcTrim's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from octrim.errors import InputError
from octrim.yolov5_flags import FLAGS, Flag, Typed


def refuse_script(name: str) -> None:
    """Raise InputError for scripts of YOLOv5 whose work OcTrim does in another way or not at all."""
    if re.fullmatch(r"(segment|classify)/\w+(\.py)?", name):
        raise InputError(f"{name}: OcTrim has detectors only, no segmentation and no classification")
    if name in ("hubconf", "hubconf.py"):
        raise InputError(f"{name}: from Python it is octrim.load(FILE) or octrim.Detector(FILE)")


def rewritten(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of one command with YOLOv5's options replaced by OcTrim's. A second call on the result changes nothing more.

    An option without effect is reported on standard error. Raises InputError, which tells OcTrim's way, for options that OcTrim does not have.
    """
    flags = {flag.name: flag for flag in FLAGS.get(command, ())}
    result: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        name, equals, inline = argument.partition("=")
        # `device=0` is an option, too, unless it is the value of the option before it (`--source device=0.jpg`).
        option = name.startswith("--") or (equals != "" and (position == 0 or not arguments[position - 1].startswith("--")))
        flag = flags.get(name.removeprefix("--").replace("_", "-")) if option else None
        position += 1
        if flag is None:
            result.append(argument)
            continue
        values = [inline] if equals else []
        while not equals and len(values) < flag.most and position < len(arguments) and _is_value(arguments[position], flag, len(values)):
            values.append(arguments[position])
            position += 1
        result += flag.rewrite(Typed(command, name, tuple(values), arguments))
    return result


def _is_value(argument: str, flag: Flag, before: int) -> bool:
    """Whether an argument is a value of the option in front of it. before: number of values between. Options are none, nor is a later `key=value`."""
    if flag.words:
        return argument in flag.words
    if argument.startswith("-"):
        return re.fullmatch(r"-\d+(\.\d*)?", argument) is not None
    return before == 0 or re.match(r"[A-Za-z][\w-]*=", argument) is None


def one_format_each(command: str, arguments: list[str]) -> list[list[str]]:
    """One command line per value of `octrim export --format`, which takes only one; for other commands the arguments unchanged."""
    if command != "export" or "--format" not in arguments:
        return [arguments]
    start = arguments.index("--format") + 1
    end = start
    while end < len(arguments) and not arguments[end].startswith("-"):
        end += 1
    return [[*arguments[:start], value, *arguments[end:]] for value in arguments[start:end]] or [arguments]
