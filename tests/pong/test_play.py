"""The command that opens the window: recordings, options that make no game, no pygame, no display."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.commands.pong import PongPlay
from octrim.errors import InputError
from octrim.options import from_python
from octrim.pong.renderer import CLASSIC
from octrim.pong.window import Window, play
from tests.pong.windows import MACHINES, TWO, command, near

pygame = pytest.importorskip("pygame", reason="the window needs pygame-ce (extra pong)")


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")


@pytest.mark.slow
def test_play_until_escape_and_record_what_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "game.mp4"

    def type_keys() -> None:
        while not (pygame.display.get_init() and pygame.display.get_surface()):
            time.sleep(0.01)
        for key in "q h":
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ord(key), unicode=key))
            time.sleep(0.4)
        pygame.event.post(pygame.event.Event(pygame.QUIT))

    hand = threading.Thread(target=type_keys)
    hand.start()
    play(replace(TWO, record=str(path)))
    hand.join()
    assert not pygame.get_init()
    assert not pygame.display.get_init()
    capture = cv2.VideoCapture(str(path))
    frames = [capture.read()[1][..., ::-1] for _ in range(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))]
    assert capsys.readouterr().out == f"{path}: {len(frames) / 60:.1f} s\n"
    assert 12 <= len(frames) <= 40  # the first .4 s: then came Space
    ys = [float(np.nonzero(near(frame[:, :40], CLASSIC.left, 60))[0].mean()) / 240 for frame in frames]
    assert ys[0] == pytest.approx(0.5, abs=0.05)
    assert ys[-1] < 0.3


def test_an_interrupted_recording_keeps_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "game.mp4"
    shows = 0
    show = Window.show

    def interrupted(window: Window) -> None:
        nonlocal shows
        shows += 1
        if shows > 20:
            raise KeyboardInterrupt
        show(window)

    monkeypatch.setattr(Window, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play(replace(MACHINES, record=str(path)))
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) >= 5
    assert not pygame.display.get_init()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 10}, "width is 10, expected 64 to 8192"),
        ({"height": 100000}, "height is 100000"),
        ({"speed": 99.0}, "speed is 99"),
        ({"points": 0}, "points is 0"),
        ({"record": "a.avi"}, "a.avi: recordings are MP4"),
        ({"left": "goldfish"}, "goldfish"),
        ({"right": "computer:best"}, "best"),
    ],
)
def test_options_that_make_no_game(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        play(from_python(PongPlay, {**asdict(TWO), **change}))
    assert not pygame.display.get_init()


def test_a_missing_pygame_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(InputError, match=r"the window needs pygame-ce: pip install 'octrim\[pong\]'"):
        play(TWO)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
@pytest.mark.parametrize("display", [{}, {"DISPLAY": ":4321", "SDL_VIDEODRIVER": "x11"}])
def test_no_display(display: dict[str, str]) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | display
    done = subprocess.run(command(TWO), env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("no display to open a window on")
    assert done.stderr.count("\n") == 1
