"""Labelled pictures of simulated games, as a YOLO data set.

Three quarters of the games are drawn in random looks, the others as the window draws them, which is where a detector will play. Pictures of one
game are all in the same split. Every game and every picture has a random generator of its own, made of the seed and its number, so that the files
do not depend on how many processes make them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from octrim.data.crew import child_pipes, hand_out, receive, send
from octrim.data.sheet import in_rows, labelled_tile, to_jpeg
from octrim.errors import InputError, shown
from octrim.machine import usable_cores
from octrim.pong.physics import GRAVITY, STEP, Game, Rules, Scene
from octrim.pong.players import LEVELS, STEPS_PER_MOVE, Computer
from octrim.pong.renderer import CLASSES, CLASSIC, Picture, random_look, render

SPLITS = ("train", "val", "test")
SHARE = 0.1  # share of the pictures in val, and as large a share in test
PER_GAME = 4  # pictures of one game; more of them would be too much alike
CLASSIC_GAMES = 4  # one game in this many is drawn as the window draws it
CLASSIC_SIZES = (1, 1, 1.5, 2, 3)  # factors of the longer side: windows are larger than what a network sees of them
SHAPES = (4 / 3, 4 / 3, 16 / 9, 3 / 2, 5 / 4, 1.0)  # width over height of a picture
QUALITY = 95  # JPEG quality


@dataclass(frozen=True)
class PictureJob:
    """Pictures of one game that are to be made.

    folder: where the data set is written. split: index into SPLITS. number: number of the game within its split. first: number of the game's
    first picture within the data set. count: how many pictures the game gives.
    """

    folder: str
    seed: int
    imgsz: int
    split: int
    number: int
    first: int
    count: int


def make_dataset(
    out: str | Path,
    images: int = 800,
    imgsz: int = 320,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write `out` with images/, labels/ (each with train, val and test), data.yaml and contact.jpg, whole or not at all; returns `out`.

    images: number of pictures in all splits together, 10 or more. imgsz: longer side of the pictures in pixels, 64 to 4096; pictures in the
    window's look are up to three times as long. seed: 0 to 2**63; with images and imgsz it determines all files. workers: number of processes,
    by default one per processor. progress: called with the number of pictures that have been added since its last call. Pictures in random
    looks are JPEG files of quality 95 (noise does not compress without loss), those in the window's look PNG. Raises InputError for values
    outside these ranges, and where `out` is not empty or cannot be made.
    """
    for name, value, least, most in (
        ("images", images, 10, 10**7),
        ("imgsz", imgsz, 64, 4096),
        ("seed", seed, 0, 2**63),
        ("workers", workers, 1, 1024),
    ):
        if (value is not None or name != "workers") and (type(value) is not int or not least <= value <= most):
            raise InputError(f"{name} is {shown(value)}, expected {least} to {most}")
    out = Path(os.path.abspath(Path(out).expanduser()))  # noqa: PTH100 (keeps symbolic links)
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is {'not empty' if out.is_dir() else 'a file'}, expected a new folder")
    with _new_folder(out) as folder:
        for kind in ("images", "labels"):
            for split in SPLITS:
                (folder / kind / split).mkdir(parents=True)
        _share_out(_jobs(str(folder), images, imgsz, seed), workers, progress)
        (folder / "contact.jpg").write_bytes(_sheet(imgsz, seed, images))
        document = {**{split: f"images/{split}" for split in SPLITS}, "names": dict(enumerate(CLASSES))}
        (folder / "data.yaml").write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")  # written last: without this file there is no data set
    return out


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends well, and vanishes when it does not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}") from None
    try:
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)  # mkdtemp makes folders that only their owner can read
        try:
            with contextlib.suppress(FileNotFoundError):
                out.rmdir()
            folder.rename(out)
        except OSError as error:
            raise InputError(f"{out}: cannot be made: {error.strerror}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _jobs(folder: str, images: int, imgsz: int, seed: int) -> list[PictureJob]:
    held = max(round(SHARE * images), 1)
    jobs, first = [], 0
    for split, total in enumerate((images - 2 * held, held, held)):
        for number, start in enumerate(range(0, total, PER_GAME)):
            jobs.append(PictureJob(folder, seed, imgsz, split, number, first + start, min(PER_GAME, total - start)))
        first += total
    return jobs


def _share_out(jobs: Sequence[PictureJob], workers: int | None, progress: Callable[[int], None]) -> None:
    """Do the jobs, in child processes where there are several workers. Jobs that children leave undone, for whatever reason, are done in this one."""
    workers = min(workers or usable_cores(), -(-len(jobs) // 10))  # a process takes longer to start than a few games
    done = set[int]()

    def take(number: int, answer: bytes) -> None:
        done.add(number)
        progress(jobs[number].count)

    if workers > 1:
        hand_out(__name__, [json.dumps(vars(job)).encode() for job in jobs], workers, take)
    for number, job in enumerate(jobs):
        if number not in done:
            _write(job)
            progress(job.count)


def serve() -> None:
    """Serve jobs in a child process: read a job, do it, answer with a word, until the parent closes the pipe."""
    cv2.setNumThreads(1)
    source, output = child_pipes()
    with contextlib.suppress(EOFError, OSError):  # the parent does the job again, and reports a full disk
        while True:
            _write(PictureJob(**json.loads(receive(source))))
            send(output, b"done")


def _write(job: PictureJob) -> None:
    for place, (picture, classic) in enumerate(pictures(job.seed, job.imgsz, job.split, job.number, job.count)):
        height, width = picture.image.shape[:2]
        xyxy = picture.boxes.astype(np.float64) / (width, height, width, height)
        rows = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], 1)
        lines = [f"{label} " + " ".join(f"{value:.7f}" for value in row) + "\n" for label, row in zip(picture.classes, rows, strict=True)]
        suffix, options = (".png", [cv2.IMWRITE_PNG_COMPRESSION, 9]) if classic else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        folder, split, name = Path(job.folder), SPLITS[job.split], f"{job.first + place:06d}"
        (folder / "images" / split / f"{name}{suffix}").write_bytes(cv2.imencode(suffix, _bgr(picture.image), options)[1].tobytes())
        (folder / "labels" / split / f"{name}.txt").write_text("".join(lines), "ascii")


def pictures(seed: int, imgsz: int, split: int, number: int, count: int) -> Iterator[tuple[Picture, bool]]:
    """Pictures of one game, each with whether it has the window's look.

    split: index into SPLITS. number: number of the game within its split. count: how many pictures to take of it.
    """
    classic = number % CLASSIC_GAMES == CLASSIC_GAMES - 1
    scenes = _played(np.random.default_rng((seed, split, number)), classic)
    for place in range(count):
        generator = np.random.default_rng((seed, split, number, place))
        long = round(imgsz * generator.choice(CLASSIC_SIZES)) if classic else imgsz
        shape = float(generator.choice(SHAPES))
        width, height = (long, round(long / shape)) if shape >= 1 else (round(long * shape), long)
        yield render(next(scenes), width, height, CLASSIC if classic else random_look(generator)), classic


def _played(generator: np.random.Generator, classic: bool) -> Iterator[Scene]:
    """Scenes of games of computer against computer, far enough apart to differ.

    The numbers on the screen are drawn at random: real ones would be small in most scenes.
    """
    rules = _rules(generator, classic)
    while True:
        game = Game(rules, int(generator.integers(2**31)))
        players = [Computer(side, str(generator.choice(list(LEVELS))), int(generator.integers(2**31))) for side in range(2)]
        while True:
            for _ in range(int(generator.uniform(0.5, 3) / STEP / STEPS_PER_MOVE)):
                scene = game.scene()
                game.step((players[0].move(scene), players[1].move(scene)), STEPS_PER_MOVE * STEP)
            left, right, rally = generator.integers(0, (12, 12, 40)).tolist()
            scene = game.scene()
            yield replace(scene, score=(left, right), rally=rally if scene.phase == "play" else scene.rally)
            if game.phase == "over":
                break


def _rules(generator: np.random.Generator, classic: bool) -> Rules:
    """Random rules of a game: sizes as in the window where the game is to look like it (`classic`), random sizes otherwise."""
    uniform = generator.uniform
    how: dict[str, Any] = {
        "spin": bool(generator.random() < 0.7),
        "gravity": GRAVITY if generator.random() < 0.3 else 0.0,
        "points": 2,  # so that some pictures are of a game that is over, without a ball
        "serve_delay": 0.3,
        "serve_speed": float(uniform(0.7, 1.6)),
    }
    speed = float(uniform(0.6, 1.5))
    if not classic:
        how |= {"ball_radius": float(uniform(0.015, 0.03)), "paddle_width": float(uniform(0.018, 0.04)), "paddle_height": float(uniform(0.1, 0.3))}
        how |= {"paddle_inset": float(uniform(0.01, 0.09)), "width": float(generator.choice((4 / 3, uniform(1.1, 1.8))))}
    return Rules(**how).faster(speed)


def _sheet(imgsz: int, seed: int, images: int) -> bytes:
    """A contact sheet, as the bytes of a JPEG file: the first pictures of up to 24 games, with their labels."""
    games = min(24, -(-(images - 2 * max(round(SHARE * images), 1)) // PER_GAME))
    tiles = []
    for number in range(games):
        picture, _ = next(pictures(seed, imgsz, 0, number, 1))
        texts = [CLASSES[label] for label in picture.classes]
        tiles.append(labelled_tile(_bgr(picture.image), picture.boxes, picture.classes, texts, height=240, width=320))
    return to_jpeg(in_rows(tiles, 4))


def _bgr(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
