"""Feature maps of many pictures, kept in a file instead of in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from octrim.errors import InputError
from octrim.machine import cache_folder


class Maps:
    """Batches of float32 arrays in the order in which they were added, in a file without a name in OcTrim's cache folder.

    The file goes when the object does, or when the process ends, however that happens. Iterating reads one batch at a time, as often as wanted.
    """

    def __init__(self) -> None:
        self._folder = cache_folder()
        self._shapes: list[tuple[int, ...]] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (lives as long as the object)
        except OSError as error:
            raise self._refused(error) from None

    def add(self, batch: np.ndarray) -> None:
        """Append a batch. Raises InputError where the disk has no room for it."""
        data = np.ascontiguousarray(batch, np.float32)
        try:
            left = data.reshape(-1).data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._refused(error) from None
        self._shapes.append(data.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        place = 0
        for shape in self._shapes:
            batch = np.empty(shape, np.float32)
            self._file.seek(place)
            left = batch.reshape(-1).data.cast("B")
            while left:
                left = left[self._file.readinto(left) or len(left) :]
            place += batch.nbytes
            yield batch

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"{self._folder}: cannot keep the feature maps of the pictures ({error.strerror or error}); fewer --pictures need less room, "
            "XDG_CACHE_HOME names another place"
        )
