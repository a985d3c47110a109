"""The sounds by their numbers: pitch, side, loudness, no clicks; and a game without a sound device."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from octrim.pong.sound import LONGEST_RISE, LOUDNESS, RATE, TONES, Speaker, sound


def pitch(samples: np.ndarray) -> float:
    """The strongest frequency, Hz; a tone of 35 ms is resolved by zeros behind it."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float).sum(axis=1), 1 << 17))
    return float(spectrum.argmax() * RATE / (1 << 17))


@pytest.mark.parametrize("kind", TONES)
def test_every_sound_is_stereo_quiet_and_without_clicks(kind: str) -> None:
    samples = sound(kind)
    assert samples.dtype == np.int16
    assert samples.shape == (sum(round(RATE * seconds) for _, seconds in TONES[kind]), 2)
    loudest = LOUDNESS * 32767
    assert 0.5 * loudest < np.abs(samples).max() <= loudest
    assert abs(int(samples[0, 0])) < 0.01 * loudest
    assert abs(int(samples[-1, 0])) < 0.02 * loudest


@pytest.mark.parametrize("rally", [0, 1, 7, 12, LONGEST_RISE])
def test_each_hit_is_a_semitone_higher(rally: int) -> None:
    for kind in ("wall", "paddle"):
        frequency = TONES[kind][0][0] * 2 ** (rally / 12)
        assert pitch(sound(kind, rally)) == pytest.approx(frequency, rel=0.02)


def test_the_rise_ends_and_other_sounds_do_not_rise() -> None:
    assert np.array_equal(sound("paddle", 1000), sound("paddle", LONGEST_RISE))
    assert np.array_equal(sound("serve", 9), sound("serve", 0))


@pytest.mark.parametrize("pan", [-1, -0.5, 0, 0.5, 1])
def test_the_side_is_heard_and_the_power_is_constant(pan: float) -> None:
    left, right = (sound("paddle", pan=pan).astype(float) ** 2).sum(axis=0)
    middle = (sound("paddle").astype(float) ** 2).sum()
    assert left + right == pytest.approx(middle, rel=1e-3)
    # Constant power: the ratio of the amplitudes is the tangent of an angle that goes from 0 to 90 degrees.
    assert np.sqrt(right / (left + right)) == pytest.approx(np.sin((pan + 1) * np.pi / 4), abs=1e-3)


def test_pans_beyond_the_sides_are_the_sides() -> None:
    assert np.array_equal(sound("wall", pan=7), sound("wall", pan=1))
    assert not sound("wall", pan=-7)[:, 1].any()


def program(lines: str, driver: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("pygame")
    environment = {"SDL_AUDIODRIVER": driver, "PYGAME_HIDE_SUPPORT_PROMPT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)


def test_a_missing_device_is_no_error_and_says_nothing() -> None:
    lines = "from octrim.pong.sound import Speaker; s = Speaker(); s.play('wall'); s.play('over'); print(s.open()); s.close()"
    done = program(lines, "nosuch")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")


def test_a_device_plays() -> None:
    lines = (
        "import pygame, time; from octrim.pong.sound import Speaker; s = Speaker(); s.play('over', 3, -1);"
        "print(s.open(), pygame.mixer.get_busy(), pygame.mixer.get_init()); s.close(); print(pygame.mixer.get_init())"
    )
    done = program(lines, "dummy")
    assert (done.returncode, done.stdout.split("\n")[:2], done.stderr) == (0, ["True True (44100, -16, 2)", "None"], "")


def test_a_muted_speaker_opens_nothing() -> None:
    speaker = Speaker(muted=True)
    speaker.play("wall")
    assert speaker.mixer is None
    assert not speaker.broken
