"""Texts and boxes of vision players, which the window draws over a frame of the game. Imports pygame, so `window` imports this module late."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import pygame

from octrim.pong.looks import CLASSIC, Colour
from octrim.pong.renderer import CLASSES
from octrim.pong.shapes import Box

if TYPE_CHECKING:
    from octrim.pong.vision import Sighting

COLOURS = (CLASSIC.left, CLASSIC.right)  # colours of whatever belongs to the left and to the right player
WHITE, GREY, SHADE = (240, 243, 250), (150, 160, 185), (7, 9, 16)


class Overlay:
    """Draws on a surface that shows the field and nothing else; all sizes follow the surface's height."""

    def __init__(self) -> None:
        self._font = lru_cache(16)(partial(pygame.font.Font, None))
        self._drawn = lru_cache(64)(self._draw)

    def text(
        self, surface: pygame.Surface, line: str, x: float, y: float, size: float, colour: Colour = WHITE, anchor: float = 0.5, most: float = 0.98
    ) -> None:
        """Draw one line of text, vertically centred at y.

        x, y: shares of the surface's width and height. size: size of the font as a share of the surface's height; less where the line would be
        wider than the share `most` of the surface. anchor: 0 if x is the left end of the text, 1 if it is the right end, 0.5 if the middle.
        """
        width, height = surface.get_size()
        drawn = self._drawn(line, size * height, colour)
        if drawn.get_width() > most * width:
            drawn = self._drawn(line, size * height * most * width / drawn.get_width(), colour)
        surface.blit(drawn, (x * width - anchor * drawn.get_width(), y * height - drawn.get_height() / 2))

    def _draw(self, line: str, pixels: float, colour: Colour) -> pygame.Surface:
        return self._font(max(round(pixels), 8)).render(line, True, colour)

    def panel(self, surface: pygame.Surface, lines: Sequence[tuple[str, float, Colour]], y: float, veil: int = 130) -> None:
        """Draw lines (text, size, colour) one below the other, centred at y, on a dark stripe. veil: opacity of the stripe, 0 to 255."""
        width, height = surface.get_size()
        total = sum(1.25 * size for _, size, _ in lines) + 0.02
        stripe = pygame.Surface((width, round(total * height)), pygame.SRCALPHA)
        stripe.fill((*SHADE, veil))
        top = y - total / 2
        surface.blit(stripe, (0, top * height))
        top += 0.01
        for line, size, colour in lines:
            self.text(surface, line, 0.5, top + 1.25 * size / 2, size, colour)
            top += 1.25 * size

    def message(self, surface: pygame.Surface, line: str, below: str) -> None:
        """Draw a large line and a small one below it in the middle of the surface, over the darkened game."""
        veil = pygame.Surface(surface.get_size(), pygame.SRCALPHA)
        veil.fill((*SHADE, 150))
        surface.blit(veil, (0, 0))
        self.panel(surface, [(line, 0.1, WHITE), (below, 0.04, GREY)], 0.5, 0)

    def notice(self, surface: pygame.Surface, line: str) -> None:
        self.panel(surface, [(line, 0.05, WHITE)], 0.7)

    def help(self, surface: pygame.Surface, lines: Sequence[str]) -> None:
        self.panel(surface, [(line, 0.036, WHITE) for line in lines], 0.85)

    def player(self, surface: pygame.Surface, name: str, side: int) -> None:
        """Draw a player's name at the lower end of the player's side."""
        self.text(surface, name, 0.93 if side else 0.07, 0.975, 0.03, COLOURS[side], side, 0.4)  # a name may be a long file name

    def sighting(self, surface: pygame.Surface, seen: Sighting, boxes: Sequence[Box], side: int) -> None:
        """Draw a vision player's last sighting. boxes: the sighting's boxes on the surface, xyxy in pixels."""
        width, height = surface.get_size()
        line = max(round(height / 360), 1)
        for (x1, y1, x2, y2), label, confidence in zip(boxes, seen.classes.tolist(), seen.confidences.tolist(), strict=True):
            frame = pygame.Rect(round(x1), round(y1), round(x2) - round(x1), round(y2) - round(y1)).inflate(4 * line, 4 * line)
            pygame.draw.rect(surface, COLOURS[side], frame, line)
            drawn = self._drawn(f"{CLASSES[label]} {confidence:.2f}", 0.026 * height, COLOURS[side])
            top = frame.top - drawn.get_height() - line
            surface.blit(drawn, (min(max(frame.left, 0), width - drawn.get_width()), top if top >= 0 else frame.bottom + line))
