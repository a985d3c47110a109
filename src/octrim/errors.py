"""The one exception that OcTrim raises for input it cannot use."""

from __future__ import annotations

import reprlib


class InputError(ValueError):
    """Bad input, told in one line: which file, which line or tensor, what was found, what was expected.

    The command line prints it on standard error and exits with 2; a program can catch it as a `ValueError`.
    Whatever a hostile file put into the message, it stays one line of at most 600 printable characters.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message[:2000].split())
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
        super().__init__(line if len(line) <= 600 else f"{line[:597]}...")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 6
_short.maxlevel = 3


def said(error: BaseException) -> str:
    """What a library's error says, without the places in its sources that stand in front: the last line of its text, at most 200 characters."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    last = next((line for line in reversed(lines) if line), type(error).__name__)
    return last if len(last) <= 200 else f"...{last[-197:]}"


def shown(value: object) -> str:
    """`repr(value)` cut to a length that fits an error line; hostile files nest and repeat without end."""
    try:
        text = _short.repr(value)
    except ValueError:  # Python refuses to print an integer with very many digits
        text = f"a {type(value).__name__}"
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """How many there are, for people: `1 round`, `2 rounds`. plural: the noun's, where that is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
