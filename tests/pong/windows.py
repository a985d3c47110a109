"""What the tests of the window share: games, the command as a program of its own, and where a picture has a colour."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import numpy as np

from octrim.commands.pong import PongPlay

TWO = PongPlay(right="human", mute=True, width=320, height=240)
MACHINES = replace(TWO, left="computer:hard", right="computer:easy")

PROGRAM = """
import sys
from octrim.errors import InputError
from octrim.commands.pong import PongPlay
try:
    PongPlay(**eval(sys.argv[1])).run()
except InputError as error:
    sys.exit(str(error))
"""


def command(config: PongPlay) -> list[str]:
    return [sys.executable, "-c", PROGRAM, repr(asdict(config))]


def near(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return (np.abs(image.astype(np.int16) - np.int16(colour)) <= tolerance).all(axis=2)
