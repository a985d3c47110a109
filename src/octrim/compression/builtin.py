"""The built-in example, Pong: its pictures are the data of a compression without --data, and both networks play the game in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octrim.compression.job import Job, emptied, finished
from octrim.compression.options import Compression
from octrim.compression.presets import Preset
from octrim.deploy.export import export
from octrim.errors import InputError, shown
from octrim.pong.dataset import make_dataset
from octrim.pong.match import prepared, show_match, write_match
from octrim.pong.options import MatchOptions
from octrim.pong.renderer import CLASSES
from octrim.progress import progress_bar
from octrim.runs import new_run, wide_console
from octrim.shipped import FILM
from octrim.stages import BENCH, FINETUNE, MATCH, TRAIN

__all__ = ["CLASSES", "check_classes", "invitation", "make_pictures", "playing", "with_data"]

PICTURES = 400
SIDE = 256

_OPPONENT = "computer:medium"
_POINTS = 3  # points of a game: games are short, because many games say more than long ones
_LATEST_MS = 10_000.0  # largest latency in milliseconds with which a player can still play


def with_data(config: Compression) -> Compression:
    """The options of a compression without data, with what they lack filled in: Pong's pictures, SIDE pixels wide unless --imgsz gives another width,
    and a fresh yolov5n where no network is named. The pictures lie in the folder of the runs; runs with the same size and seed share them.
    """
    if config.imgsz is not None and len(set(config.imgsz)) != 1:
        raise InputError(f"imgsz is {config.imgsz}; training pictures are square, give one side")
    side = SIDE if config.imgsz is None else config.imgsz[0]
    path = Path(config.project or "runs/compress") / f"pong-{PICTURES}-{side}-{config.seed}" / "data.yaml"
    cfg = "yolov5n" if config.weights is None and config.cfg is None else config.cfg
    return replace(config, data=str(path), cfg=cfg, imgsz=(side,), preset=config.preset or "demo")


def make_pictures(config: Compression) -> None:
    """Make the pictures that `with_data` names, unless they exist. Raises InputError where their folder cannot be written to."""
    assert config.data is not None and config.imgsz is not None  # with_data has set both
    path, (side,) = Path(config.data), config.imgsz
    if not path.is_file():
        wide_console().print(f"no --data: making {PICTURES} labelled pictures of Pong, {side} px")
        with progress_bar("pong data", PICTURES) as bar:
            make_dataset(path.parent, PICTURES, side, config.seed, config.workers or None, bar.advance)
        wide_console().print(f"some of them: {path.with_name('contact.jpg')}", soft_wrap=True)


def check_classes(config: Compression, preset: Preset, names: Sequence[str]) -> None:
    """Raise InputError where networks with the classes `names` cannot play."""
    if set(names) != set(CLASSES):
        raise InputError(f"match_games is {preset.match_games}, but {config.data} has the classes {shown(names)}, not {' and '.join(CLASSES)}")


def page(job: Job) -> None:
    """Write a page that plays a recorded game and shows what the last network sees of it, in a browser; a line says why not, where it cannot be."""
    folder = job.folder(MATCH) / "web"
    try:
        export(job.network(FINETUNE), folder, "web", example=FILM)
    except (InputError, ImportError) as error:
        job.run.print(f"no page for a browser: {error}")
        return
    job.run.print(f"a page that plays a recorded game in a browser: {folder / 'index.html'}")


def invitation(weights: Path) -> str:
    """A line that tells how to play against a network."""
    return f"play against it: octrim pong play --right vision:{weights}"


def playing(job: Job, folder: Path) -> dict[str, Any]:
    """Let the first and the last network each play Pong against the computer; each sees a frame with the delay that the bench measured for it."""
    emptied(folder)
    bench, config, games = (finished(job.run.path, BENCH) or {})["bench"], job.start.config, job.start.preset.match_games
    found = {}
    for stage in (TRAIN, FINETUNE):
        label = stage.network
        latency = min(bench[label]["total_p50_ms"], _LATEST_MS)
        job.run.print(f"{label} network against {_OPPONENT}: {games} games to {_POINTS} points, {latency:.1f} ms late")
        options = MatchOptions(
            left=f"vision:{job.weights(stage)}",
            right=_OPPONENT,
            games=games,
            points=_POINTS,
            seed=config.seed,
            latency_ms=latency,
            imgsz=(job.start.base.image_size,),
            project=str(folder),
            name=label,
            workers=config.workers or None,
        )
        with prepared(options) as match:
            run = new_run(options)
            report = match.play(run.console)
        write_match(report, run.path)
        show_match(report, run)
        found[label] = {"games": report["games"], "wins": report["wins"]["left"], "interval": report["win_rate"]["interval95"]}
        found[label] |= {"points": report["points"], "latency_ms": latency, "ball_recall": report["vision"]["left"]["ball_recall"]}
    page(job)
    return {"match": {"opponent": _OPPONENT, **found}}
