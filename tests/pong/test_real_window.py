"""The window on a real X display (Xvfb), with keys that xdotool presses."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.commands.pong import PongPlay
from octrim.pong.physics import Game
from octrim.pong.renderer import CLASSIC, render
from tests.pong.windows import command, near

pytest.importorskip("pygame", reason="the window needs pygame-ce (extra pong)")


# A real X display. Xvfb keeps its screen in a file, so what is shown can be read at any time without another program.


class Screen:
    """An X server of its own, and one game in it."""

    def __init__(self, folder: Path, config: PongPlay) -> None:
        self.file = folder / "Xvfb_screen0"
        read, write = os.pipe()
        options = ["-displayfd", str(write), "-screen", "0", "640x480x24", "-fbdir", str(folder), "-nolisten", "tcp"]
        self.server = subprocess.Popen(["Xvfb", *options], pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as pipe:
            display = pipe.readline().strip()
        if not display:
            self.server.wait()
            pytest.skip("Xvfb does not start here")
        self.environment = {**os.environ, "DISPLAY": f":{display}", "SDL_VIDEODRIVER": "x11", "SDL_AUDIODRIVER": "dummy"}
        self.game = subprocess.Popen(command(config), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def image(self) -> np.ndarray:
        """RGB. The file is an XWD: numbers of 4 bytes, most significant first, and the pixels, BGRX, after the colour map."""
        data = self.file.read_bytes()
        header = np.frombuffer(data, ">u4", 25)
        height, line = int(header[5]), int(header[12])
        pixels = np.frombuffer(data, np.uint8, height * line, int(header[0] + 12 * header[19]))
        return pixels.reshape(height, line // 4, 4)[:, : header[4], 2::-1]

    def tool(self, *words: str) -> str:
        return subprocess.run(["xdotool", *words], env=self.environment, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def paddle(self, colour: tuple[int, int, int]) -> tuple[float, float] | None:
        """x and y of the centre of what has the colour of a paddle and stands upright like one, in pixels of the screen."""
        _, _, boxes, centres = cv2.connectedComponentsWithStats(near(self.image(), colour, 6).astype(np.uint8))
        for box, centre in zip(boxes[1:], centres[1:], strict=True):
            if box[cv2.CC_STAT_HEIGHT] > 40 and box[cv2.CC_STAT_WIDTH] < 40:
                return float(centre[0]), float(centre[1])
        return None

    def left(self) -> float:
        found = self.paddle(CLASSIC.left)
        return found[1] if found else float("nan")

    def right(self) -> float:
        found = self.paddle(CLASSIC.right)
        return found[1] if found else float("nan")

    def close(self) -> None:
        for process in (self.game, self.server):
            process.kill()
            process.communicate()


@functools.cache
def drawn_scores() -> dict[tuple[int, int], np.ndarray]:
    scene = Game(PongPlay().rules()).scene()
    return {(left, right): render(replace(scene, score=(left, right)), 320, 240).image[10:44] for left in range(12) for right in range(12)}


def score(image: np.ndarray) -> tuple[int, int]:
    """The score in a picture of 320 x 240 pixels: the one whose digits resemble it most."""
    drawn = drawn_scores()
    return max(drawn, key=lambda pair: np.corrcoef(drawn[pair].ravel(), image[10:44].ravel())[0, 1])


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it took more than {seconds} s until {what}"
        time.sleep(0.04)


def comes_to_rest(value: Callable[[], float], what: str) -> None:
    """A key is some time on its way on a busy machine, and a ball before a paddle moves its visible middle by a pixel or so: wait for rest."""

    def rests() -> bool:
        before, end = value(), time.monotonic() + 0.3
        while time.monotonic() < end:
            if not abs(value() - before) < 4:
                return False
            time.sleep(0.04)
        return True

    eventually(rests, f"{what} rests")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Callable[[PongPlay], Screen]]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: real keys in a real window are not tried")
    screens: list[Screen] = []

    def make(config: PongPlay) -> Screen:
        folder = tmp_path / f"screen{len(screens)}"
        folder.mkdir()
        screens.append(Screen(folder, config))
        return screens[-1]

    yield make
    for one in screens:
        one.close()


def test_real_keys_in_a_real_window(screen: Callable[[PongPlay], Screen], tmp_path: Path) -> None:
    path = tmp_path / "game.mp4"
    real = screen(PongPlay(right="human", width=400, height=300, record=str(path), speed=0.7))
    eventually(lambda: real.left() == real.left() and real.right() == real.right(), "the window is there")
    start = (real.left(), real.right())

    real.tool("keydown", "q")
    eventually(lambda: real.left() < start[0] - 30, "q moves the left paddle up")
    real.tool("keyup", "q")
    comes_to_rest(real.left, "the left paddle")
    real.tool("keydown", "l")
    eventually(lambda: real.right() > start[1] + 30, "l moves the right paddle down")
    real.tool("keyup", "l")
    comes_to_rest(real.right, "the right paddle")
    upper, lower = real.left(), real.right()
    real.tool("keydown", "a", "keydown", "p")
    eventually(lambda: real.left() > upper + 30 and real.right() < lower - 30, "a and p move both at once")
    real.tool("keyup", "a", "keyup", "p")
    comes_to_rest(real.left, "the left paddle")
    comes_to_rest(real.right, "the right paddle")

    bright, low = float(real.image().mean()), real.left()
    real.tool("key", "space")
    eventually(lambda: real.image().mean() < 0.75 * bright, "a pause darkens the game")
    real.tool("keydown", "q")
    comes_to_rest(lambda: hash(real.image().tobytes()), "a paused game")
    before = float(np.nanmax([real.left(), 0]))
    assert before == 0  # dark: not the paddle's colour
    real.tool("key", "space")
    eventually(lambda: real.left() < low - 10, "the game goes on with the key still held")
    real.tool("keyup", "q")

    window = real.tool("getwindowfocus")
    assert real.tool("getwindowname", window) == "Pong"
    real.tool("windowsize", window, "600", "240")
    real.tool("windowmove", window, "0", "0")
    inset = 240 * (0.04 + 0.025 / 2)

    def fits() -> bool:
        found = real.paddle(CLASSIC.right)
        return found is not None and abs(found[0] - (140 + 320 - inset)) < 2

    eventually(fits, "the field has its aspect in a wide window")
    assert not real.image()[:, :139].any()  # a bar

    eventually(lambda: score(real.image()[:240, 140:460]) != (0, 0), "somebody has a point")
    real.tool("key", "r")
    eventually(lambda: score(real.image()[:240, 140:460]) == (0, 0), "the game has begun anew")
    real.tool("key", "Escape")
    out, err = real.game.communicate(timeout=20)
    assert (real.game.returncode, err) == (0, "")
    assert out.startswith(f"{path}: ")
    capture = cv2.VideoCapture(str(path))
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (400, 300)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) > 120


def test_a_real_game_ends_and_the_window_can_be_closed(screen: Callable[[PongPlay], Screen]) -> None:
    real = screen(PongPlay(left="human", right="computer:perfect", width=320, height=240, speed=8.0, points=2, mute=True))
    eventually(lambda: real.left() == real.left(), "the window is there")
    window = real.tool("getwindowfocus")
    real.tool("windowmove", window, "0", "0")
    real.tool("keydown", "a")

    bright = float(real.image().mean())
    eventually(lambda: real.image().mean() < 0.75 * bright, "a message darkens the game")
    assert score(real.image()[:240, :320]) == (0, 2)
    comes_to_rest(lambda: hash(real.image().tobytes()), "the picture")
    real.game.terminate()  # as a session's end does
    assert real.game.communicate(timeout=20) == ("", "")
    assert real.game.returncode == 0
