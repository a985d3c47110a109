"""A reader of files that users bring: a whole file of its kind, damage for it, and what must hold of what it accepts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from tests.fuzz.mutations import flipped
from tests.networks import TINY, lively_model


def tiny_model(folder: Path) -> Model:
    (folder / "tiny.yaml").write_text(TINY)
    return lively_model(yolov5_network(folder / "tiny.yaml"))


class Reader:
    """One reader. `folder` is its own and stays over all inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, dice: random.Random | None) -> None:
        """Damage a whole file and read it; without dice, the whole one. Raises InputError where it is refused, AssertionError where what was
        accepted breaks its contract."""
        raise NotImplementedError


class BytesReader(Reader):
    """Of one file: whole ones to choose from, one damage, one function that reads it."""

    name = ""

    def whole(self) -> Sequence[bytes]:
        raise NotImplementedError

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.files = self.whole()
        self.path = folder / self.name

    def damaged(self, dice: random.Random, data: bytes) -> bytes:
        return flipped(dice, data)

    def open(self, path: Path) -> None:
        raise NotImplementedError

    def read(self, dice: random.Random | None) -> None:
        data = dice.choice(self.files) if dice else self.files[0]
        self.path.write_bytes(self.damaged(dice, data) if dice else data)
        self.open(self.path)


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")
