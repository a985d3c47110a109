"""Reads the zip archive that `torch.save` writes: one folder with a pickle and raw storages. Nothing in it is executed."""

from __future__ import annotations

import zipfile
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np

from octrim.errors import InputError, shown
from octrim.network.foreign import what_it_is
from octrim.network.pickles import StoredTensor


class Archive:
    """An open zip archive that `torch.save` wrote: one folder with `data.pkl` and raw storages under `data/`.

    Raises InputError where it has another structure.
    """

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.zip = zipfile.ZipFile(path)
        entries = self.zip.namelist()
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            self.zip.close()
            raise InputError("a zip archive without one data.pkl in a folder; torch.save writes one")
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{self.folder}code/") for name in entries):
            self.zip.close()
            raise InputError("this is a TorchScript export; OcTrim reads the checkpoint it was made from")
        self.entries = set(entries)
        self.last: tuple[str | None, bytes] = (None, b"")

    @cached_property
    def big_endian(self) -> bool:
        return f"{self.folder}byteorder" in self.entries and self.read("byteorder") == b"big"

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def read(self, record: str) -> bytes:
        try:
            entry = self.zip.getinfo(self.folder + record)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.file_size > self.size:
                raise InputError(f"record {record} is compressed or claims {entry.file_size} bytes; torch.save stores records as they are")
            return self.zip.read(entry)
        except KeyError:
            raise InputError(f"record {shown(record)} is missing") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError, OSError) as error:
            raise InputError(f"record {shown(record)} is damaged: {shown(str(error))}") from None

    def tensor(self, stored: StoredTensor, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return the values of a stored tensor as float32 in C order. name: the tensor's name in errors; shape: the shape that it must have.

        Raises InputError for another shape, and for a storage that is missing or damaged.
        """
        if shape is not None and stored.shape != shape:
            raise InputError(f"tensor {name} has shape {list(stored.shape)}; expected {list(shape)}")
        storage = stored.storage
        if storage.key != self.last[0]:  # a hostile file may put all its tensors into one large record
            self.last = (storage.key, self.read(f"data/{storage.key}"))
        raw = self.last[1]
        if len(raw) != storage.count * storage.dtype.itemsize:
            raise InputError(
                f"tensor {name}: storage {storage.key} has {len(raw)} bytes, expected {storage.count} values of {storage.dtype.itemsize}"
            )
        values = np.frombuffer(raw, storage.dtype.newbyteorder(">" if self.big_endian else "<"))
        strides = [stride * storage.dtype.itemsize for stride in stored.strides]
        view = np.lib.stride_tricks.as_strided(values[stored.offset :], stored.shape, strides, writeable=False)
        if storage.kind == "bf16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(all="ignore"):
            return np.array(view, np.float32, order="C", copy=True)  # a view would keep the whole record alive


def open_archive(path: Path) -> Archive:
    """Open the archive of a checkpoint. Raises InputError for every other kind of file, and says which kind it is."""
    foreign = what_it_is(path)
    if foreign is not None:
        raise InputError(foreign)
    try:
        return Archive(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a truncated or damaged zip archive: {shown(str(error))}; copy or download the file again") from None
