"""`octrim pong play`: the game in a window. pygame is imported when the window opens, and only then."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING

from octrim.errors import InputError
from octrim.machine import quiet_stderr
from octrim.pong.keys import ACTIONS, bindings, help_lines
from octrim.pong.options import PlayOptions
from octrim.pong.physics import RIGHT, STEP, Event, Game
from octrim.pong.players import STEPS_PER_MOVE, Keyboard
from octrim.pong.recording import Recording
from octrim.pong.renderer import field_view, render
from octrim.pong.sides import NAMES, game_seed, player
from octrim.pong.sound import Speaker
from octrim.pong.vision import VisionPlayer

if TYPE_CHECKING:
    import numpy as np
    import pygame

    from octrim.pong.overlay import Overlay

FPS = 60
LONGEST = 0.1  # most seconds that are caught up after a late frame: a machine that was asleep does not play on for hours
HELP = 6.0  # seconds for which the keys are shown at the start
NOTICE = 1.5  # seconds for which a change is shown
CODA = 3.0  # seconds of a recording after the end of a game
SLOWEST, FASTEST = 0.4, 3.0  # range of speeds that the keys - and + reach


def play(config: PlayOptions) -> None:
    """Open a window and play until it is closed.

    Raises InputError for options that make no game, where pygame is missing, and where there is no display.
    """
    window = Window(config)
    try:
        window.open()
        import pygame

        clock = pygame.time.Clock()
        before = perf_counter()
        while not window.done:
            for event in pygame.event.get():
                window.handle(event)
            now = perf_counter()
            events = window.update(now - before)
            before = now
            window.score(events)
            window.show()
            clock.tick(FPS)
    finally:
        window.close()
    if window.recording is not None:
        print(f"{config.record}: {window.recording.frames / FPS:.1f} s")


class Window:
    """State of the game in its window between two turns of the loop in `play`.

    config: the options that were asked for; keys change speed, spin and gravity in it.
    """

    def __init__(self, config: PlayOptions) -> None:
        self.keys = bindings(config.keys)
        self.config = config
        self.specs = (config.left, config.right)
        self.games = 0
        self.game = Game(config.rules(), game_seed(config.seed, 0, 0))
        self.players = tuple(player(spec, side, config) for side, spec in enumerate(self.specs))
        self.speaker = Speaker(config.mute)
        self.recording: Recording | None = None
        self.overlay: Overlay | None = None
        self.screen: pygame.Surface | None = None
        self.done = self.paused = False
        self.moves = (0.0, 0.0)
        self.steps = 0  # number of steps since the window opened
        self.filmed = 0  # number of these steps that the recording shows
        self.owed = 0.0  # seconds that have passed and are not yet played
        self.time = 0.0  # seconds since the window opened, with pauses
        self.coda = CODA  # seconds that the recording still goes on once the game is over
        self.help_until = HELP
        self.notice, self.notice_until = "", 0.0

    def open(self) -> None:
        """Open the window, the sound device and the recording, in this order, so that a missing display is told before a file is made.

        Raises InputError where pygame is missing, where there is no display, and where the recording cannot be made.
        """
        pygame = load_pygame()
        try:
            with quiet_stderr():  # Wayland's library writes what it looked for to stderr
                pygame.display.init()
            if pygame.display.get_driver() == "offscreen" and os.environ.get("SDL_VIDEODRIVER") != "offscreen":
                raise InputError("no display to open a window on (DISPLAY or WAYLAND_DISPLAY names it)")  # SDL would play where nobody sees it
            if pygame.display.get_driver() == "x11":  # draw straight to X: through OpenGL in software a frame takes three times as long
                os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
            pygame.display.set_icon(picture(render(self.game.scene(), 64, 64).image))
            self.screen = pygame.display.set_mode((self.config.width, self.config.height), pygame.RESIZABLE)
        except pygame.error as error:
            raise InputError(f"no display to open a window on: {error}") from None
        pygame.font.init()
        pygame.display.set_caption("Pong")
        from octrim.pong.overlay import Overlay

        self.overlay = Overlay()
        if not self.speaker.muted:
            self.speaker.open()
        if self.config.record is not None:
            _, _, width, height = self.field()
            self.recording = Recording(self.config.record, width, height)

    def close(self) -> None:
        pygame = load_pygame()
        self.speaker.close()
        pygame.quit()
        for one in self.players:
            if isinstance(one, VisionPlayer):
                one.close()
        if self.recording is not None:
            self.recording.close()

    def handle(self, event: pygame.event.Event) -> None:
        """Handle an event: keys that go down or up, the window's button for closing, the loss of the keyboard."""
        import pygame

        if event.type == pygame.QUIT:
            self.done = True
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.release()  # no event tells of keys that are released while another window has the keyboard
        elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
            if event.key in self.keys:
                side, direction = self.keys[event.key]
                keyboard = self.players[side]
                if isinstance(keyboard, Keyboard):
                    (keyboard.press if event.type == pygame.KEYDOWN else keyboard.release)(direction)
            elif event.type == pygame.KEYDOWN:
                typed = getattr(event, "unicode", "")  # the keys of + and - differ between keyboard layouts
                if typed not in ("+", "-"):
                    typed = chr(event.key) if event.key < 0x110000 else ""
                self.act(ACTIONS.get(typed))

    def act(self, action: str | None) -> None:
        """Do what a key that moves no paddle stands for. action: one of `keys.ACTIONS`' values; None does nothing."""
        config = self.config
        if action == "quit":
            self.done = True
        elif action == "pause":
            self.paused = not self.paused and self.game.phase != "over"
        elif action == "restart":
            self.restart()
        elif action in ("faster", "slower"):
            speed = round(config.speed + (0.1 if action == "faster" else -0.1), 2)
            self.config = replace(config, speed=min(max(speed, min(SLOWEST, config.speed)), max(FASTEST, config.speed)))
            self.tell(f"speed {self.config.speed:g}")
        elif action == "spin":
            self.config = replace(config, spin=not config.spin)
            self.tell(f"spin {'on' if self.config.spin else 'off'}")
        elif action == "gravity":
            self.config = replace(config, gravity=not config.gravity)
            self.tell(f"gravity {'on' if self.config.gravity else 'off'}")
        elif action == "mute":
            self.speaker.muted = not self.speaker.muted
            if self.speaker.muted:
                self.tell("sound off")
            else:
                self.tell("sound on" if self.speaker.open() else "there is no sound device")
        elif action == "help":
            self.help_until = 0.0 if self.time < self.help_until else float("inf")
        if self.config != config:
            self.game.rules = self.config.rules()

    def tell(self, notice: str) -> None:
        self.notice, self.notice_until = notice, self.time + NOTICE

    def release(self) -> None:
        """Release all keys of players at the keyboard."""
        for one in self.players:
            if isinstance(one, Keyboard):
                one.release("up")
                one.release("down")

    def restart(self) -> None:
        """Begin a new game with the present settings, and with other serves than in the last one."""
        self.games += 1
        self.game = Game(self.config.rules(), game_seed(self.config.seed, self.games, 0))
        for one in self.players:
            if not isinstance(one, Keyboard):  # a key that is held stays held
                one.reset()
        self.paused, self.coda, self.moves = False, CODA, (0.0, 0.0)

    def update(self, elapsed: float) -> list[Event]:
        """Play the seconds that have passed, in steps of `STEP`, and return what happened. elapsed: seconds since the last call."""
        self.time += elapsed
        if self.paused:
            return []
        self.owed = min(self.owed + elapsed, LONGEST)
        events: list[Event] = []
        while self.owed >= STEP:
            if self.steps % STEPS_PER_MOVE == 0 and self.game.phase != "over":
                scene = self.game.scene()
                left, right = (one.move(scene) for one in self.players)
                self.moves = (left, right)
            events += self.game.step(self.moves)
            self.steps += 1
            self.filmed += self.coda > 0
            self.coda -= STEP if self.game.phase == "over" else 0
            self.owed -= STEP
        return events

    def score(self, events: list[Event]) -> None:
        """Play the sounds of what has happened."""
        for event in events:
            if event.kind == "wall":
                pan = 2 * self.game.ball.x / self.game.rules.width - 1
            elif event.side is None:
                pan = 0.0
            else:
                pan = 1.0 if (event.side == RIGHT) != (event.kind == "point") else -1.0  # a point is made on the other side
            self.speaker.play(event.kind, self.game.rally, pan)

    def field(self) -> tuple[int, int, int, int]:
        """Place of the field in the window, as large as it fits: left, top, width, height in pixels."""
        assert self.screen is not None
        width, height = self.screen.get_size()
        aspect = self.game.rules.width
        wide, high = max(min(width, round(height * aspect)), 1), max(min(height, round(width / aspect)), 1)
        return (width - wide) // 2, (height - high) // 2, wide, high

    def show(self) -> None:
        """Show the field with texts and boxes for people drawn over it, and add this picture to the recording, if there is one."""
        import pygame

        assert self.screen is not None
        left, top, width, height = self.field()
        image = render(self.game.scene(), width, height).image
        canvas = picture(image)
        self.annotate(canvas)
        self.screen.fill((0, 0, 0))
        self.screen.blit(canvas, (left, top))
        pygame.display.flip()
        if self.recording is not None:
            self.recording.add(image, self.filmed * STEP)

    def annotate(self, canvas: pygame.Surface) -> None:
        """Draw over the field what vision players saw, who plays, and messages."""
        assert self.overlay is not None
        overlay, game = self.overlay, self.game
        for side, (spec, one) in enumerate(zip(self.specs, self.players, strict=True)):
            name = spec
            if isinstance(one, Keyboard):
                name = " ".join(self.config.keys[2 * side : 2 * side + 2].upper())
            elif isinstance(one, VisionPlayer):
                name = f"vision:{Path(spec.partition(':')[2]).name}"
                if one.sighting is not None:
                    name += f"  {one.sighting.latency_ms:.0f} ms"
                    seen, shown = field_view(game.rules, one.width, one.height), field_view(game.rules, *canvas.get_size())
                    boxes = [shown.to_pixels(seen.to_field((x1, y1, x2, y2))) for x1, y1, x2, y2 in one.sighting.boxes.tolist()]
                    overlay.sighting(canvas, one.sighting, boxes, side)
            overlay.player(canvas, name, side)
        if self.time < self.help_until:
            overlay.help(canvas, help_lines(self.players, self.config.keys))
        if game.winner is not None:
            overlay.message(canvas, f"{NAMES[game.winner]} wins  {game.score[0]} : {game.score[1]}", "R plays again, Esc quits")
        elif self.paused:
            overlay.message(canvas, "paused", "Space goes on")
        if self.time < self.notice_until:
            overlay.notice(canvas, self.notice)


def picture(image: np.ndarray) -> pygame.Surface:
    """A surface that shares the memory of a picture (uint8 RGB `[height, width, 3]`): what is drawn on it is in the array too."""
    import pygame

    return pygame.image.frombuffer(image.data, (image.shape[1], image.shape[0]), "RGB")


def load_pygame() -> ModuleType:
    """Import pygame and return it. Raises InputError where it is not installed."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise InputError("the window needs pygame-ce: pip install 'octrim[pong]'") from None
    return pygame
