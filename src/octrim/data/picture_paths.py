"""Chooses pictures to calibrate or repair on, from whatever users name: a picture, a folder, a glob, or a data set."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from octrim.data.open import open_dataset
from octrim.data.sources import open_source
from octrim.errors import InputError


def picture_paths(data: str, count: int, seed: int, **reading: Any) -> list[str]:
    """Return the paths of at most `count` pictures, drawn by `seed`, from a picture, folder or glob, or from a data set's training part.

    reading: keyword arguments for `open_dataset`. Raises InputError where there are no pictures.
    """
    if count < 1:
        raise InputError(f"pictures is {count}, expected 1 or more")
    source = None
    # `open_source` takes any file for a picture, and in a data set's folder it would find only what lies beside data.yaml, such as example sheets.
    if Path(data).suffix.lower() not in (".yaml", ".yml", ".json") and not Path(data, "data.yaml").is_file():
        with contextlib.suppress(InputError):
            source = open_source(data)
    if source is None:
        paths = list(open_dataset(data, "train", **reading).paths)
    else:
        if source.video is not None:
            raise InputError(f"{data}: expected pictures or a data set")
        paths = [str(path) for path in source.pictures]
    chosen = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[index] for index in sorted(chosen)]
