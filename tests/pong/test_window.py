"""The window: with SDL's dummy display and events made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from octrim.commands.pong import PongPlay
from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.pong.keys import ACTIONS, bindings
from octrim.pong.physics import LEFT, RIGHT, STEP
from octrim.pong.players import DECISION
from octrim.pong.renderer import CLASSES, CLASSIC, render
from octrim.pong.vision import VisionPlayer
from octrim.pong.window import FASTEST, LONGEST, SLOWEST, Window
from tests.pong.windows import MACHINES, TWO, near

pygame = pytest.importorskip("pygame", reason="the window needs pygame-ce (extra pong)")

from octrim.pong.overlay import WHITE  # noqa: E402 (imports pygame)

FRAME = 1 / 60


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
