"""What comes with OcTrim: a network that plays Pong, and a film of a game. The network's name stands for its file wherever weights are named."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

FILM = _HERE / "pong.webm"
"""Ten seconds of a game of Pong, 320 x 240, 30 frames a second, two computer players."""

NETWORKS = ("pong",)
"""Names of networks that come with OcTrim: a file of such a name in the current folder comes first."""


def network_file(name: str | Path) -> Path:
    """The file of the weights that users name: that of a network that comes with OcTrim, or the path as it is."""
    return _shipped(name, ".safetensors") or Path(name)


def film_of(name: str | Path) -> Path | None:
    """The film that a network that comes with OcTrim can be shown; None for every other name."""
    return _shipped(name, ".webm")


def is_shipped(name: str | Path) -> bool:
    """Whether users mean a network that comes with OcTrim by this name."""
    return _shipped(name, ".safetensors") is not None


def _shipped(name: str | Path, ending: str) -> Path | None:
    if str(name) not in NETWORKS or Path(name).is_file():
        return None
    return _HERE / f"{name}{ending}"
