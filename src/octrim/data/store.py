"""Keeps the pictures that training reads again and again, decoded and resized once, where memory or disk allow it.

The store is one file, mapped by all processes of a run: a table of checksums, then the pictures one behind the other. A process that needs a
missing picture decodes it and puts it in. No process waits for another: two that put in the same picture write the same bytes, and a picture
counts only when its checksum is right, whatever was interrupted. In memory the file has no name, and ends with the last process that holds it,
however that ends. On disk it lies beside the index (see `index`); a picture there holds while the size and mtime of its file are the same.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sys
import tempfile
import zlib
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np

from octrim.atomic import named, replacing
from octrim.data.dataset import Dataset
from octrim.data.pictures import read_picture
from octrim.errors import InputError, shown
from octrim.machine import cache_folder, free_memory

CACHES = ("auto", "ram", "disk", "none")
AUTO_SHARE = 0.1  # share of the free memory that "auto" may take without asking
_RAM_SHARE = 0.8  # share of the free memory that "ram" may take: the network needs some as well
_VERSION = 1  # version of the file's format, and of how pictures are decoded and resized
_HEAD = 4096  # bytes before the table
_PRESENT = 1 << 32  # added to a picture's checksum, so that 0 means that there is no picture


class Store:
    """Store of the pictures of a data set, resized so that their longer side has `side` pixels, aspect kept.

    cache: "ram", "disk", "none", or "auto", which is "ram" where the whole set fits into a tenth of the free memory and "none" otherwise.
    A store that does not fit becomes "none" with a line on standard error; `mode` says which it is. The pictures are the same in every mode.
    Where the system does not tell how much memory is free, "auto" is "none", and "ram" is taken without a check.
    copies: number of stores that processes which do not share one make on this machine. Raises InputError for any other `cache`.
    """

    def __init__(self, dataset: Dataset, side: int, cache: str = "auto", copies: int = 1) -> None:
        if cache not in CACHES:
            raise InputError(f"cache is {shown(cache)}, expected one of {', '.join(CACHES)}")
        self._lay_out(dataset, side)
        size = self._start + int(self._offsets[-1])
        if cache == "auto":
            cache = "ram" if size * copies <= AUTO_SHARE * (free_memory() or 0) else "none"
        if not hasattr(os, "pwrite"):  # Windows has none, so nothing is kept there
            cache = "none"
        try:
            free = free_memory() if cache == "ram" else None
            if free is not None and size * copies > _RAM_SHARE * free:
                raise OSError(f"they take {size * copies / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free")
            descriptor = -1
            if cache == "ram":
                descriptor = anonymous_file(size)
            elif cache == "disk":
                descriptor = self._disk_file(size)
            self._attach(cache, descriptor)
        except (OSError, ValueError) as error:
            warn(f"pictures are not kept in {'memory' if cache == 'ram' else 'the cache on disk'}: {error}")
            self._attach("none", -1)

    @classmethod
    def shared(cls, dataset: Dataset, side: int, mode: str, descriptor: int) -> Store:
        """Attach to a store in another process, given its `mode` and `descriptor`."""
        store = cls.__new__(cls)
        store._lay_out(dataset, side)
        store._attach(mode, descriptor)
        return store

    def read(self, index: int) -> np.ndarray:
        """Return picture `index`, uint8 BGR `[height, width, 3]`, which must not be written to.

        Raises InputError where the picture cannot be read, or no longer has the size that it had when it was indexed.
        """
        if self._bytes is None:
            return self._decoded(index)
        if not self._checked[index] and not self._holds(index):
            stamp = self._stamp(index)
            image = self._decoded(index)
            try:
                self._put(index, stamp, image)
            except OSError as error:  # no room: from now on this process decodes every picture anew
                warn(f"no more pictures are kept in the {self.mode} cache: {error.strerror}")
                self._bytes = None
            return image
        return self._slice(index).reshape(*self.shapes[index], 3)

    def close(self) -> None:
        """Give up the file; a file in memory vanishes as soon as no picture of it is in use and no other process holds it."""
        self._bytes = self._table = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _lay_out(self, dataset: Dataset, side: int) -> None:
        sizes = dataset.sizes.astype(np.float64)
        # Sizes are rounded as `pictures.letterbox` rounds them, which then has nothing to resize.
        self.shapes = np.rint(sizes * (side / sizes.max(1, keepdims=True))).astype(np.int64).clip(1)
        self._dataset = dataset
        self._side = side
        self._offsets = np.concatenate([[0], self.shapes.prod(1).cumsum() * 3])
        self._start = -(-(_HEAD + 8 * len(dataset)) // _HEAD) * _HEAD
        self._checked = np.zeros(len(dataset), np.bool_)  # pictures whose checksums this process has found right

    def _attach(self, mode: str, descriptor: int) -> None:
        self.mode = mode
        self.descriptor = descriptor
        self._bytes = self._table = None
        if descriptor >= 0:
            mapped = mmap.mmap(descriptor, self._start + int(self._offsets[-1]), prot=mmap.PROT_READ)
            self._bytes = np.frombuffer(mapped, np.uint8)
            self._table = self._bytes[_HEAD : _HEAD + 8 * len(self._dataset)].view(np.int64)  # the pictures' checksums

    def _decoded(self, index: int) -> np.ndarray:
        path = self._dataset.paths[index]
        image = read_picture(path)
        indexed = self._dataset.sizes[index].tolist()
        if list(image.shape[:2]) != indexed:  # the boxes would be in the wrong places
            raise InputError(f"{path}: is {image.shape[0]}x{image.shape[1]} pixels, was {indexed[0]}x{indexed[1]} when it was indexed")
        height, width = self.shapes[index].tolist()
        return image if [height, width] == indexed else cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)

    def _slice(self, index: int) -> np.ndarray:
        assert self._bytes is not None
        return self._bytes[self._start + self._offsets[index] : self._start + self._offsets[index + 1]]

    def _stamp(self, index: int) -> np.ndarray:
        """Return size and mtime of a picture's file; zeros where it is gone, and for a store in memory, which lasts no longer than the run."""
        if self.mode == "disk":
            with contextlib.suppress(OSError):
                status = os.stat(self._dataset.paths[index])  # noqa: PTH116 (once for every picture and process)
                return np.asarray((status.st_size, status.st_mtime_ns))
        return np.zeros(2, np.int64)

    def _holds(self, index: int) -> bool:
        assert self._table is not None
        check = int(self._table[index])
        self._checked[index] = check >= _PRESENT and check == _checksum(self._stamp(index), self._slice(index))
        return bool(self._checked[index])

    def _put(self, index: int, stamp: np.ndarray, image: np.ndarray) -> None:
        # `pwrite` raises an error when the disk is full, where writing to the mapping would end the process. The checksum is written last; if
        # it gets to the disk first and the machine then loses power, it does not fit the picture.
        data = np.ascontiguousarray(image).reshape(-1)
        _write(self.descriptor, data, self._start + int(self._offsets[index]))
        _write(self.descriptor, np.asarray([_checksum(stamp, data)]), _HEAD + 8 * index)

    def _disk_file(self, size: int) -> int:
        paths = self._dataset.paths
        root = os.path.commonpath([os.path.abspath(os.path.dirname(path)) for path in paths])  # noqa: PTH100, PTH120 (100,000 Path objects)
        folder = cache_folder()
        # A folder of pictures and a side have one file: when the set changes, it is replaced, instead of leaving gigabytes behind.
        path = folder / f"pictures-{_digest([root, self._side])}"
        head = _digest([_VERSION, cv2.__version__, self._side, paths, self.shapes.tolist()]).encode()
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            if os.fstat(descriptor).st_size == size and os.pread(descriptor, len(head), 0) == head:
                return descriptor
            os.close(descriptor)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            descriptor = os.open(temporary, os.O_RDWR)
            try:
                os.truncate(descriptor, size)
                if hasattr(os, "posix_fallocate"):  # macOS has none
                    os.posix_fallocate(descriptor, 0, size)  # a disk without enough room raises an error now
                os.pwrite(descriptor, head, 0)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor


def anonymous_file(size: int) -> int:
    """Return the descriptor of a new file of `size` bytes without a name, in memory if possible; it ends with the last process that has it open."""
    try:
        descriptor = os.memfd_create("octrim")  # unlike /dev/shm in containers, this is not limited to 64 MB
    except (AttributeError, OSError):  # the system is not Linux, or forbids it
        with tempfile.TemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
            descriptor = os.dup(file.fileno())
    try:
        with named(f"{size / 2**20:.1f} MiB of memory that processes share"):
            os.truncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def warn(line: str) -> None:
    print(f"octrim: warning: {line}", file=sys.stderr, flush=True)


def _checksum(stamp: np.ndarray, data: np.ndarray) -> int:
    return zlib.crc32(data.data, zlib.crc32(stamp.tobytes())) + _PRESENT


def _digest(key: object) -> str:
    return blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def _write(descriptor: int, data: np.ndarray, place: int) -> None:
    left = data.data.cast("B")
    while left:
        count = os.pwrite(descriptor, left, place)
        left, place = left[count:], place + count
