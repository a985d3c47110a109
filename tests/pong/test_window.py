"""The window: with SDL's dummy display and events made here, and on a real X display (Xvfb) with keys that xdotool presses."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.pong.commands import PongPlay
from octrim.pong.keys import ACTIONS, bindings
from octrim.pong.physics import LEFT, RIGHT, STEP, Game
from octrim.pong.players import DECISION
from octrim.pong.renderer import CLASSES, CLASSIC, render
from octrim.pong.vision import VisionPlayer
from octrim.pong.window import FASTEST, LONGEST, SLOWEST, Window, play

pygame = pytest.importorskip("pygame", reason="the window needs pygame-ce (extra pong)")

from octrim.pong.overlay import WHITE  # noqa: E402 (imports pygame)

FRAME = 1 / 60
TWO = PongPlay(right="human", mute=True, width=320, height=240)
MACHINES = replace(TWO, left="computer:hard", right="computer:easy")


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")


@pytest.fixture
def opened() -> Iterator[Callable[[PongPlay], Window]]:
    windows: list[Window] = []

    def make(config: PongPlay) -> Window:
        windows.append(Window(config))
        windows[-1].open()
        return windows[-1]

    yield make
    for window in windows:
        window.close()


def press(window: Window, *keys: str, kind: int | None = None) -> None:
    for key in keys:
        window.handle(pygame.event.Event(pygame.KEYDOWN if kind is None else kind, key=ord(key), unicode=key))


def release(window: Window, *keys: str) -> None:
    press(window, *keys, kind=pygame.KEYUP)


def run(window: Window, seconds: float) -> None:
    for _ in range(round(seconds / FRAME)):
        window.score(window.update(FRAME))


def heights(window: Window) -> tuple[float, float]:
    left, right = window.game.paddles
    return left.y, right.y


# Keys


def test_held_keys_move_their_paddles_both_at_once(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    way = 0.2 * window.game.rules.paddle_speed
    late = DECISION * window.game.rules.paddle_speed  # a key takes effect at the next of 60 moves a second
    for held, (left, right) in {"q": (-1, 0), "ap": (1, -1), "l": (0, 1), "ql": (-1, 1)}.items():
        window.restart()
        press(window, *held)
        run(window, 0.2)
        assert heights(window) == (pytest.approx(0.5 + left * way, abs=late), pytest.approx(0.5 + right * way, abs=late)), held
        release(window, *held)
        run(window, DECISION)
        still = heights(window)
        run(window, 0.2)
        assert heights(window) == still, held


def test_both_keys_of_a_player_hold_the_paddle(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    press(window, "q", "a")
    run(window, 0.2)
    assert heights(window) == (0.5, 0.5)
    release(window, "a")
    run(window, 0.2)
    assert heights(window)[LEFT] < 0.3


def test_keys_can_be_moved(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(TWO, keys="WZéx"))
    press(window, "z", "x", "q", "l")
    run(window, 0.1)
    assert window.moves == (1, 1)
    release(window, "z")
    press(window, "w", "é")
    run(window, 0.1)
    assert window.moves == (-1, 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("qap", "expected 4 characters"),
        ("qaplx", "expected 4 characters"),
        ("qa\tl", "expected 4 characters"),
        ("qaql", "q would move two things"),
        ("qaQl", "q would move two things"),
        ("qsPl", r"S is taken \(spin\)"),
        ("q pl", r"Space is taken \(pause\)"),
        ("+apl", r"\+ is taken \(faster\)"),
    ],
)
def test_keys_that_collide(keys: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Window(replace(TWO, keys=keys))


def test_no_default_key_is_taken() -> None:
    assert set(bindings(PongPlay().keys)) == set(map(ord, "qapl"))
    assert not set("qapl") & set(ACTIONS)


def test_a_key_released_elsewhere_is_released(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    press(window, "q", "l")
    run(window, 0.1)
    assert window.moves == (-1, 1)
    window.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    run(window, 0.1)
    assert window.moves == (0, 0)


def test_keys_do_not_move_computers(opened: Callable[[PongPlay], Window]) -> None:
    window, other = opened(MACHINES), Window(MACHINES)
    press(window, "q", "l")
    run(window, 1)
    run(other, 1)
    assert window.game.scene() == other.game.scene()


def test_speed_spin_and_gravity(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(TWO, speed=1.0))
    base = window.game.rules
    for key, speed in {"+": 1.1, "=": 1.2, "-": 1.1}.items():
        press(window, key)
        assert window.game.rules.paddle_speed == pytest.approx(speed * base.paddle_speed)
        assert window.game.rules.max_speed == pytest.approx(speed * base.max_speed)
    for key, limit in {"-": SLOWEST, "+": FASTEST}.items():
        press(window, *(key * 40))
        assert window.config.speed == limit
    assert base.gravity == 0
    assert base.spin
    press(window, "g", "s")
    assert window.game.rules.gravity > 0
    assert not window.game.rules.spin
    press(window, "g", "s")
    assert window.game.rules == replace(TWO, speed=FASTEST).rules()


def test_a_speed_beyond_the_keys_is_kept_by_them(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(TWO, speed=8.0))
    press(window, "+")
    assert window.config.speed == 8
    press(window, "-")
    assert window.config.speed == 7.9


def test_plus_and_minus_by_what_they_type(opened: Callable[[PongPlay], Window]) -> None:
    """On the keypad and on other keyboards they are other keys."""
    window = opened(TWO)
    window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_KP_PLUS, unicode="+"))
    assert window.config.speed == 1.1
    window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_KP_MINUS, unicode="-"))
    assert window.config.speed == 1
    window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_F1, unicode=""))  # a key that does nothing


def test_mute(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(MACHINES, mute=True))
    run(window, 2)
    assert window.speaker.mixer is None
    press(window, "m")
    run(window, 4)
    assert pygame.mixer.get_init()
    assert window.notice == "sound on"
    press(window, "m")
    assert window.speaker.muted


# Time


def test_the_frame_rate_does_not_change_the_game() -> None:
    scenes = []
    for times in ([FRAME] * 300, [1 / 144] * 720, [0.09, 0.01] * 50):
        window = Window(MACHINES)
        for elapsed in times:
            window.update(elapsed)
        while window.steps < 1200:  # what rounding has kept back
            window.update(STEP / 2)
        assert window.steps == 1200
        scenes.append(window.game.scene())
    assert scenes[0] == scenes[1] == scenes[2]
    assert scenes[0].rally > 0 or scenes[0].score != (0, 0)


def test_a_slow_frame_is_not_caught_up() -> None:
    window = Window(MACHINES)
    window.update(3600.0)
    assert window.game.time == pytest.approx(LONGEST)
    window.update(0)
    assert window.game.time == pytest.approx(LONGEST)


def test_pause(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    run(window, 1.5)
    assert window.game.phase == "play"
    before = window.game.scene()
    press(window, " ")
    press(window, "q")
    run(window, 60)
    assert window.game.scene() == before
    press(window, " ")
    run(window, 0.1)
    assert window.game.time == pytest.approx(before.time + 0.1, abs=STEP)  # not the minute
    assert heights(window)[LEFT] < before.paddles[LEFT].y  # the key is still down


def test_a_game_to_eleven_ends_and_another_one_begins(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(TWO, right="computer:perfect", speed=4.0))
    press(window, "a")
    kinds = []
    for _ in range(60 * 60):
        kinds += [event.kind for event in window.update(FRAME)]
        if window.game.phase == "over":
            break
    assert window.game.winner == RIGHT
    assert window.game.score == (0, 11)
    assert kinds.count("point") == 11
    assert kinds[-1] == "over"
    window.show()
    over = window.game.scene()
    press(window, " ")
    run(window, 2)
    assert window.game.scene() == over
    assert not window.paused
    press(window, "r")
    assert window.game.score == (0, 0)
    run(window, 0.5)
    assert window.game.phase == "serve"
    assert heights(window)[LEFT] > 0.8  # a key that was held stays held
    assert not window.done
    press(window, "\x1b")
    assert window.done


def test_every_game_has_other_serves(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    serves = set()
    for _ in range(5):
        run(window, 1.1)
        serves.add(window.game.ball.vy)
        press(window, "r")
    assert len(serves) == 5


# Pictures


def shown(window: Window) -> np.ndarray:
    """RGB, [height, width, 3]."""
    assert window.screen is not None
    window.show()
    return pygame.surfarray.array3d(window.screen).swapaxes(0, 1)


def near(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return (np.abs(image.astype(np.int16) - np.int16(colour)) <= tolerance).all(axis=2)


@pytest.mark.parametrize(("size", "field"), [((320, 240), (0, 0, 320, 240)), ((500, 240), (90, 0, 320, 240)), ((320, 400), (0, 80, 320, 240))])
def test_the_field_keeps_its_aspect(opened: Callable[[PongPlay], Window], size: tuple[int, int], field: tuple[int, int, int, int]) -> None:
    window = opened(replace(TWO, width=size[0], height=size[1]))
    window.help_until = 0.0
    left, top, width, height = window.field()
    assert (left, top, width, height) == field
    image = shown(window)
    part = image[top : top + height, left : left + width]
    same = (part == render(window.game.scene(), width, height).image).all(axis=2)
    assert same[:-20].all()  # below are the players' names
    bars = image.copy()
    bars[top : top + height, left : left + width] = 0
    assert not bars.any()


def test_a_window_of_any_size_is_drawn(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(MACHINES)
    for size in ((64, 1), (1, 64), (7, 5), (2000, 300)):
        window.screen = pygame.Surface(size)
        window.show()


def test_help_notices_and_messages_are_seen(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(TWO)
    start = shown(window)
    press(window, "h")
    bare = shown(window)
    changed = np.flatnonzero((start != bare).any(axis=(1, 2))) / 240
    assert 0.75 < changed.min() < changed.max() < 0.95
    press(window, "g")
    assert (shown(window) != bare).any()
    window.update(10)
    press(window, " ")
    paused = shown(window)
    assert paused.mean() < 0.7 * bare.mean()
    assert near(paused, WHITE, 60).sum() > 30


def test_what_vision_players_see_is_drawn(opened: Callable[[PongPlay], Window]) -> None:
    window = opened(replace(TWO, width=960, height=720))
    box = np.array([[100, 60, 110, 70], [0, 0, 3, 30]], np.float32)

    def detect(image: np.ndarray) -> Detections:
        return Detections(box, np.array([0.5, 0.9], np.float32), np.array([1, 0]), ("paddle", "ball"), "", 240, 320, None, {"network": 7.0})

    eye = SimpleNamespace(height=240, width=320, info=SimpleNamespace(names=("paddle", "ball")), detect=detect)
    window.players = (window.players[0], VisionPlayer(RIGHT, eye, latency=0.012))
    before = shown(window)
    window.update(2 * FRAME)
    seer = window.players[1]
    assert isinstance(seer, VisionPlayer)
    assert seer.sighting is not None
    after = shown(window)
    assert CLASSES[seer.sighting.classes[0]] == "ball"
    new = near(after, CLASSIC.right) & ~near(before, CLASSIC.right)
    # 3 pixels of the window for one of the player's; a frame of 2 pixels lies 2 pixels around the box, and the label over it.
    frame = np.zeros_like(new)
    frame[176:214, 296:334] = True
    frame[178:212, 298:332] = False
    assert np.array_equal(new[176:230, 290:360], frame[176:230, 290:360])
    assert new[150:176, 296:360].any()
    assert new[690:, 700:].any()  # the latency


def test_a_live_player_that_fails_says_so() -> None:
    def detect(image: np.ndarray) -> Detections:
        raise InputError("the network is gone")

    eye = SimpleNamespace(height=240, width=320, info=SimpleNamespace(names=CLASSES), detect=detect)
    window = Window(MACHINES)
    with pytest.raises(InputError, match="the network is gone"):
        window.players = (VisionPlayer(LEFT, eye, live=True), window.players[1])


# The command


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
        play(PongPlay(**{**asdict(TWO), **change}))
    assert not pygame.display.get_init()


def test_a_missing_pygame_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(InputError, match=r"the window needs pygame-ce: pip install 'octrim\[pong\]'"):
        play(TWO)


PROGRAM = """
import sys
from octrim.errors import InputError
from octrim.pong.commands import PongPlay
try:
    PongPlay(**eval(sys.argv[1])).run()
except InputError as error:
    sys.exit(str(error))
"""


def command(config: PongPlay) -> list[str]:
    return [sys.executable, "-c", PROGRAM, repr(asdict(config))]


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
