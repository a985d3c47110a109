"""Keys of the window and what they do."""

from __future__ import annotations

from typing import Literal

from octrim.errors import InputError
from octrim.pong.physics import LEFT, RIGHT
from octrim.pong.players import Keyboard, Player
from octrim.pong.sides import NAMES

ACTIONS = {
    " ": "pause",
    "r": "restart",
    "+": "faster",
    "=": "faster",  # on many keyboards this is the key of + without Shift
    "-": "slower",
    "s": "spin",
    "g": "gravity",
    "m": "mute",
    "h": "help",
    "\x1b": "quit",
}

Direction = Literal["up", "down"]


def bindings(keys: str) -> dict[int, tuple[int, Direction]]:
    """Code points of the keys that move paddles, each with the paddle's side and its direction.

    keys: four characters: left up, left down, right up, right down. Raises InputError for any other number of characters, for characters that
    cannot be printed, for equal ones, and for those that ACTIONS takes.
    """
    letters = keys.lower()
    if len(letters) != 4 or not letters.isprintable():
        raise InputError(f"keys is {keys!r}, expected 4 characters: left up, left down, right up, right down")
    for place, letter in enumerate(letters):
        if letter in ACTIONS:
            raise InputError(f"keys is {keys!r}: {shown_key(letter)} is taken ({ACTIONS[letter]})")
        if letter in letters[:place]:
            raise InputError(f"keys is {keys!r}: {letter} would move two things")
    moves: tuple[tuple[int, Direction], ...] = ((LEFT, "up"), (LEFT, "down"), (RIGHT, "up"), (RIGHT, "down"))
    return dict(zip(map(ord, letters), moves, strict=True))


def shown_key(key: str) -> str:
    return "Space" if key == " " else key.upper()


def help_lines(players: tuple[Player, ...], keys: str) -> list[str]:
    """Lines of text that name the keys of the players who use a keyboard, and then all other keys."""
    hands = [
        f"{NAMES[side]}: {keys[2 * side].upper()} up, {keys[2 * side + 1].upper()} down"
        for side in (LEFT, RIGHT)
        if isinstance(players[side], Keyboard)
    ]
    rest = "Space pause    R restart    + \u2212 speed    S spin    G gravity    M sound    H help    Esc quit"
    return [*(["        ".join(hands)] if hands else []), rest]
