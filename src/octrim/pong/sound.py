"""Sounds of the game, computed when they are needed: short tones, higher the longer the rally, from the side where the event happens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from octrim.machine import quiet_stderr

RATE = 44_100  # samples per second
LOUDNESS = 0.25  # share of full scale
LONGEST_RISE = 24  # largest rise in semitones: tones more than two octaves above the first hit would be shrill

# Tones of each kind of event, one after the other, as pairs of Hz and seconds. Those of RISING rise with the rally.
RISING = {"wall": [(220.0, 0.035)], "paddle": [(440.0, 0.05)], "edge": [(330.0, 0.03), (587.3, 0.03)]}
TONES = {
    **RISING,
    "serve": [(523.3, 0.08)],
    "point": [(392.0, 0.09), (261.6, 0.16)],
    "draw": [(392.0, 0.09), (392.0, 0.12)],
    "over": [(523.3, 0.11), (659.3, 0.11), (784.0, 0.11), (1046.5, 0.3)],
}


def sound(kind: str, rally: int = 0, pan: float = 0.0) -> np.ndarray:
    """Samples of an event: int16 `[samples, 2]` (left, right) at `RATE`.

    kind: one of `TONES`. rally: paddle hits so far; each is a semitone. pan: -1 (left) to 1 (right), of constant power.
    """
    rise = 2 ** (min(rally, LONGEST_RISE) / 12) if kind in RISING else 1.0
    mono = np.concatenate([_tone(frequency * rise, seconds, square=kind in RISING) for frequency, seconds in TONES[kind]])
    angle = (min(max(pan, -1.0), 1.0) + 1) * math.pi / 4
    stereo = mono[:, None] * (math.cos(angle), math.sin(angle))
    return np.round(stereo * LOUDNESS * 32767).astype(np.int16)


def _tone(frequency: float, seconds: float, square: bool) -> np.ndarray:
    """A tone that starts and ends in silence, so that it does not click: float64 in -1..1."""
    time = np.arange(round(RATE * seconds)) / RATE
    wave = np.sin(2 * math.pi * frequency * time)
    if square:
        wave = np.tanh(4 * wave)  # a square wave with round corners, because sharp ones alias
    return wave * np.minimum(time / 0.002, 1) * (1 - time / seconds) ** 0.7


class Speaker:
    """The sound device, opened for the first sound. Without a device, or after its failure, `play` does nothing."""

    def __init__(self, muted: bool = False) -> None:
        self.muted = muted
        self.mixer: Any = None
        self.broken = False

    def play(self, kind: str, rally: int = 0, pan: float = 0.0) -> None:
        """Play the sound of an event, unless muted or without a device. kind, rally, pan: arguments of `sound`."""
        if self.muted or not self.open():
            return
        import pygame

        try:
            pygame.sndarray.make_sound(sound(kind, rally, pan)).play()
        except pygame.error:  # the device was pulled out
            self.broken = True

    def open(self) -> bool:
        """Open the device if it is not open, and return whether there is one. The first call takes a moment: do not make it in a rally."""
        if self.mixer is None and not self.broken:
            import pygame

            try:
                with quiet_stderr():  # ALSA writes what it looked for to stderr
                    # With a buffer of 512 samples (12 ms) a hit is heard when it is seen. allowedchanges=0: SDL converts to the device's format.
                    pygame.mixer.init(RATE, -16, 2, 512, allowedchanges=0)
                self.mixer = pygame.mixer
            except (pygame.error, NotImplementedError):  # the latter where pygame was built without a mixer
                self.broken = True
        return self.mixer is not None and not self.broken

    def close(self) -> None:
        if self.mixer is not None:
            self.mixer.quit()
            self.mixer = None
