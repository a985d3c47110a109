"""The index of a data set: facts on its files, kept between runs. A fact holds while its file has not changed.

A picture's facts hold while its file's size and mtime are the same, a label file's rows while its contents have the same blake2b. The index lies in
`$XDG_CACHE_HOME/octrim` or `~/.cache/octrim`, a file per data set and split; an index that is damaged or cannot be written only costs time.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from octrim.atomic import replacing
from octrim.data.crew import CHUNK, Arrays, run_jobs
from octrim.data.labelfiles import MOST_BYTES, MOST_WITH_PICTURE, READ, file_digest, joined, read_bytes, taken, word_array, words_of
from octrim.machine import cache_folder
from octrim.progress import progress_bar

VERSION = 4  # version of the file's format and of the facts' meaning: raise it when reading changes


class Index:
    """The facts on the files of one split of a data set. No state of the index's own file raises an error."""

    def __init__(self, data: Path, split: str, workers: int | None = None) -> None:
        self._workers = workers
        self._key = json.dumps([VERSION, os.fspath(data.resolve()), split])
        self.path = cache_folder() / f"{blake2b(self._key.encode(), digest_size=16).hexdigest()}.npz"
        self._stored = self._load()
        self._changed = False

    def facts(self, pictures: list[str], labels: list[str], task: str) -> tuple[Arrays, Arrays]:
        """Return the facts on the pictures (arrays of `probe.picture_facts`) and the table of the label files (see `labelfiles`).

        task: the task of `crew.TASKS` that reads the label files. Only files that are new or have changed are read.
        """
        known = self._known_pictures(pictures, "pictures"), self._known_labels(labels, task)
        jobs = [*_jobs("pictures", pictures, known[0]), *_jobs(task, labels, known[1])]
        results = self._run(jobs)
        split = sum(name == "pictures" for name, _ in jobs)
        return self._merged("pictures", pictures, known[0], results[:split]), self._merged(task, labels, known[1], results[split:])

    def hashes(self, pictures: list[str]) -> np.ndarray:
        """Return a hash of each picture's bytes, uint64 `[n]`; 0 for pictures that cannot be read."""
        known = self._known_pictures(pictures, "hashes")
        return self._merged("hashes", pictures, known, self._run(_jobs("hashes", pictures, known)))["hash"]

    def _run(self, jobs: list[tuple[str, list[str]]]) -> list[Arrays]:
        with progress_bar("reading the data set", sum(len(files) for _, files in jobs), Console(stderr=True), after=2) as bar:
            return run_jobs(jobs, self._workers, bar.advance)

    def texts(self, name: str) -> list[str]:
        """Return the stored list of strings of this name; empty where there is none."""
        return words_of(self._stored[name]) if name in self._stored else []

    def arrays(self, prefix: str) -> Arrays:
        """Return the stored arrays whose names begin with `prefix`, by their names without it."""
        return {key.removeprefix(prefix): value for key, value in self._stored.items() if key.startswith(prefix)}

    def put(self, prefix: str, arrays: Arrays) -> None:
        """Store arrays under names that begin with `prefix`, in place of all that are stored under it."""
        self._stored = {key: value for key, value in self._stored.items() if not key.startswith(prefix)}
        self._stored |= {prefix + key: value for key, value in arrays.items()}
        self._changed = True

    def save(self) -> None:
        """Write the index's file where anything has changed; a file that cannot be written is given up silently."""
        if not self._changed or not self.path.is_absolute():
            return
        with contextlib.suppress(OSError):  # the disk may be full, or the folder not writable
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                arrays: dict[str, Any] = {**self._stored, "key": word_array([self._key]), "sum": _sum(self._stored)}
                np.savez(file, **arrays)

    def _load(self) -> Arrays:
        try:
            with warnings.catch_warnings(), np.load(self.path, allow_pickle=False) as file:
                warnings.simplefilter("ignore")  # NumPy warns of damaged headers that it can read all the same
                stored = dict(file)
            key, total = words_of(stored.pop("key")), stored.pop("sum")
            if key != [self._key] or not np.array_equal(total, _sum(stored)):
                return {}
        except Exception:  # a damaged zip, array header or JSON raises all kinds; then the files are read again
            return {}
        return stored

    def _places(self, task: str, paths: Sequence[str]) -> np.ndarray:
        """Return the place of each file's facts in the stored arrays, int64 `[n]`, -1 for files without stored facts."""
        stored = self.texts(f"{task}/paths")
        if stored == paths:
            return np.arange(len(paths))
        place = {path: index for index, path in enumerate(stored)}
        return np.asarray([place.get(path, -1) for path in paths], np.int64)

    def _known_pictures(self, paths: Sequence[str], task: str) -> np.ndarray:
        places = self._places(task, paths)
        if not (places >= 0).any():
            return places
        stamps: list[tuple[int, int]] = []
        for path in paths:
            try:
                status = os.stat(path)  # noqa: PTH116 (100,000 Path objects take their time)
            except (OSError, ValueError):  # ValueError: a name that no file can have
                stamps.append((-1, -1))
            else:
                stamps.append((status.st_size, status.st_mtime_ns))
        table = self.arrays(f"{task}/")
        # A picture that could not be read is tried again: permissions can change while size and mtime stay.
        same = (table["stamp"][places] == np.asarray(stamps)).all(1) & (table["problem"][places] == 0)
        return np.where(same, places, -1)

    def _known_labels(self, paths: Sequence[str], task: str) -> np.ndarray:
        places = self._places(task, paths)
        if not (places >= 0).any():
            return places
        table = self.arrays(f"{task}/")
        most = (MOST_WITH_PICTURE if task == "labelme" else MOST_BYTES) + 1
        digests, read = table["digest"].tobytes(), (table["state"] == READ).tolist()
        for index, (place, path) in enumerate(zip(places.tolist(), paths, strict=True)):
            if place < 0:
                continue
            try:
                same = read[place] and file_digest(read_bytes(path, most)) == digests[16 * place : 16 * place + 16]
            except OSError:
                same = False
            if not same:
                places[index] = -1
        return places

    def _merged(self, task: str, paths: Sequence[str], known: np.ndarray, results: list[Arrays]) -> Arrays:
        """Return the facts on files in the order of `paths`, and store them.

        known: places of the facts in the stored arrays, -1 for files that were read anew, whose facts are in `results` in turn.
        """
        if not len(paths):
            return {}
        stored = self.arrays(f"{task}/")
        if not results and len(known) == len(self.texts(f"{task}/paths")) and (known == np.arange(len(known))).all():
            return stored
        parts = [*([{key: value for key, value in stored.items() if key != "paths"}] if stored else []), *results]
        count = len(self.texts(f"{task}/paths"))
        order = known.copy()
        order[known < 0] = count + np.arange((known < 0).sum())
        if task in ("pictures", "hashes"):
            facts = {key: np.concatenate([part[key] for part in parts])[order] for key in parts[0]}
        else:
            facts = taken(joined(parts), order)
        self.put(f"{task}/", {**facts, "paths": word_array(paths)})
        return facts


def _jobs(task: str, files: list[str], known: np.ndarray) -> list[tuple[str, list[str]]]:
    """Return jobs (task, files) for the files without known facts, in chunks."""
    missing = np.flatnonzero(known < 0)
    return [(task, [files[index] for index in part]) for part in np.split(missing, range(CHUNK, len(missing), CHUNK)) if len(part)]


def _sum(arrays: Arrays) -> np.ndarray:
    """Return a digest of all stored arrays: without it, damaged facts would be noticed only where they are used."""
    digest = blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint8)
