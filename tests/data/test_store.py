"""The pictures kept for training: the same bytes however they are kept, and never stale ones."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data import store as module
from octrim.data.dataset import Dataset
from octrim.data.pictures import letterbox, read_picture
from octrim.data.scenes import drawn_scene
from octrim.data.store import Store, anonymous_file
from octrim.errors import InputError
from tests.data.test_samples import trainable

SIZES = [(30, 64), (64, 20), (100, 100), (7, 9), (64, 64), (640, 4)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = trainable(tmp_path / "images", SIZES)
    for number, (path, (height, width)) in enumerate(zip(made.paths, SIZES, strict=True)):
        cv2.imwrite(path, drawn_scene(number, height, width))
    return made


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that were read from their files."""
    names: list[str] = []

    def watched(path: str) -> np.ndarray:
        names.append(Path(path).stem)
        return read_picture(path)

    monkeypatch.setattr(module, "read_picture", watched)
    return names


def everything(store: Store) -> list[bytes]:
    images = [store.read(index) for index in range(len(SIZES))]
    assert [image.shape[:2] for image in images] == [tuple(shape) for shape in store.shapes.tolist()]
    return [image.tobytes() for image in images]


def test_sizes_are_those_of_the_letterbox(dataset: Dataset) -> None:
    store = Store(dataset, 64, "none")
    assert store.shapes.tolist() == [[30, 64], [64, 20], [64, 64], [50, 64], [64, 64], [64, 1]]
    for index, path in enumerate(dataset.paths):
        fitted, box = letterbox(read_picture(path), 64, 64)
        height, width = store.shapes[index]
        np.testing.assert_array_equal(store.read(index), fitted[box.top : box.top + height, box.left : box.left + width])
    np.testing.assert_array_equal(store.read(4), read_picture(dataset.paths[4]))  # not resized


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_modes_are_equal_bit_for_bit(dataset: Dataset, mode: str, decoded: list[str]) -> None:
    expected = everything(Store(dataset, 64, "none"))
    decoded.clear()
    store = Store(dataset, 64, mode)
    assert store.mode == mode
    assert everything(store) == expected  # decoded now
    assert everything(store) == expected  # from the store
    assert decoded == [f"{number:03}" for number in range(len(SIZES))]
    assert everything(Store.shared(dataset, 64, store.mode, store.descriptor)) == expected  # as another process sees it
    assert len(decoded) == len(SIZES)
    store.close()


def test_what_one_process_adds_the_others_see(dataset: Dataset, decoded: list[str]) -> None:
    store = Store(dataset, 64, "ram")
    other = Store.shared(dataset, 64, store.mode, store.descriptor)
    np.testing.assert_array_equal(other.read(3), store.read(3))
    np.testing.assert_array_equal(store.read(2), other.read(2))
    assert decoded == ["003", "002"]


def test_a_second_run_decodes_only_what_has_changed(dataset: Dataset, decoded: list[str], cache: Path) -> None:
    everything(Store(dataset, 64, "disk"))
    decoded.clear()
    everything(Store(dataset, 64, "disk"))
    assert decoded == []
    changed = Path(dataset.paths[2])
    cv2.imwrite(str(changed), drawn_scene(9, 100, 100))
    os.utime(dataset.paths[4], ns=(0, 12345))
    Path(dataset.paths[1]).unlink()
    store = Store(dataset, 64, "disk")
    np.testing.assert_array_equal(store.read(2), cv2.resize(read_picture(changed), (64, 64)))
    store.read(4)
    with pytest.raises(InputError, match=r"001\.png: No such file"):
        store.read(1)
    assert decoded == ["002", "004", "001"]
    assert len(list(cache.iterdir())) == 1


def test_another_side_or_other_pictures(dataset: Dataset, decoded: list[str], cache: Path) -> None:
    everything(Store(dataset, 64, "disk"))
    decoded.clear()
    everything(Store(dataset, 32, "disk"))
    assert len(decoded) == len(SIZES)
    assert len(list(cache.iterdir())) == 2
    fewer = trainable(Path(dataset.paths[0]).parent, SIZES[:3])  # the same folder: its file is replaced, not added to
    before = {path.stat().st_ino for path in cache.iterdir()}
    Store(fewer, 64, "disk").read(0)
    after = {path.stat().st_ino for path in cache.iterdir()}
    assert len(after) == 2
    assert len(after - before) == 1


def test_pictures_are_told_apart_by_more_than_their_stamps(tmp_path: Path, decoded: list[str]) -> None:
    dataset = trainable(tmp_path / "images", [(64, 64)] * 2)
    paths = [str(Path(path).with_suffix(".bmp")) for path in dataset.paths]
    for number, path in enumerate(paths):
        cv2.imwrite(path, drawn_scene(number, 64, 64))
        os.utime(path, ns=(0, 12345))
    forwards = Store(dataclasses.replace(dataset, paths=tuple(paths)), 64, "disk")
    images = [forwards.read(0).copy(), forwards.read(1).copy()]
    backwards = Store(dataclasses.replace(dataset, paths=tuple(paths[::-1])), 64, "disk")
    np.testing.assert_array_equal(backwards.read(1), images[0])
    np.testing.assert_array_equal(backwards.read(0), images[1])


@pytest.mark.slow
def test_every_damaged_byte_is_noticed(dataset: Dataset, cache: Path) -> None:
    expected = everything(Store(dataset, 64, "disk"))
    path = next(cache.iterdir())
    whole = path.read_bytes()
    places = [*range(0, 40), *range(4096, 4096 + 8 * len(SIZES)), *range(8192, len(whole), 97)]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert everything(Store(dataset, 64, "disk")) == expected
    path.write_bytes(whole[:-1])
    assert everything(Store(dataset, 64, "disk")) == expected


def test_a_write_that_was_interrupted(dataset: Dataset) -> None:
    """The checksum is written after the picture; on a disk without power they may arrive the other way round."""
    store = Store(dataset, 64, "disk")
    expected = everything(store)
    start = store._start + int(store._offsets[2])
    os.pwrite(store.descriptor, bytes(100), start)
    assert everything(Store(dataset, 64, "disk")) == expected


def test_auto(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    pixels = sum(height * width for height, width in Store(dataset, 64, "none").shapes.tolist())
    size = 8192 + 3 * pixels  # a page of head, one of table
    monkeypatch.setattr(module, "free_memory", lambda: 10 * size)
    assert Store(dataset, 64).mode == "ram"
    monkeypatch.setattr(module, "free_memory", lambda: 10 * size - 1)
    assert Store(dataset, 64).mode == "none"
    assert capfd.readouterr().err == ""
    with pytest.raises(InputError, match="cache is 'Ram', expected one of auto, ram, disk, none"):
        Store(dataset, 64, "Ram")


def test_a_system_that_does_not_say_what_is_free(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert [Store(dataset, 64, cache).mode for cache in ("auto", "ram")] == ["none", "ram"]
    assert capfd.readouterr().err == ""


def test_no_room_in_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 1000)
    store = Store(dataset, 64, "ram")
    assert store.mode == "none"
    assert capfd.readouterr().err == "octrim: warning: pictures are not kept in memory: they take 0.0 GiB, and 0.0 GiB are free\n"
    assert len(everything(store)) == len(SIZES)


def test_no_room_on_disk(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cache: Path) -> None:
    def full(*rest: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    store = Store(dataset, 64, "disk")
    assert store.mode == "none"
    told = capfd.readouterr().err
    assert told.startswith(f"octrim: warning: pictures are not kept in the cache on disk: [Errno 28] No space left on device: '{cache}/pictures-")
    assert told.count("\n") == 1
    assert len(everything(store)) == len(SIZES)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()


def test_a_cache_folder_that_cannot_be(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Store(dataset, 64, "disk").mode == "none"
    assert capfd.readouterr().err.count("\n") == 1


def test_room_that_ends_later(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As in a file without reserved space, on a system that has no `posix_fallocate`."""
    expected = everything(Store(dataset, 64, "none"))
    store = Store(dataset, 64, "disk")
    store.read(0)

    def full(*rest: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert everything(store) == expected
    assert everything(store) == expected
    assert capfd.readouterr().err == "octrim: warning: no more pictures are kept in the disk cache: No space left on device\n"


def test_memory_has_no_name_and_goes(dataset: Dataset) -> None:
    before, open_before = set(Path("/dev/shm").glob("*")), len(list(Path("/proc/self/fd").glob("*")))  # nothing, where there are none
    store = Store(dataset, 64, "ram")
    everything(store)
    assert not {path for path in set(Path("/dev/shm").glob("*")) - before if "octrim" in path.name}
    store.close()
    store.close()
    assert len(list(Path("/proc/self/fd").glob("*"))) == open_before


def test_where_files_in_memory_are_not_to_be_had(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = anonymous_file(5000)
    assert os.fstat(descriptor).st_size == 5000
    assert os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)
    store = Store(dataset, 64, "ram")
    assert store.mode == "ram"
    assert everything(store) == everything(Store(dataset, 64, "none"))


def test_memory_that_is_not_to_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `ulimit -f`: the line that the user reads must say what was too large."""

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    open_before = len(list(Path("/proc/self/fd").glob("*")))
    monkeypatch.setattr(os, "truncate", refuse)
    with pytest.raises(OSError, match="File too large: '3.0 MiB of memory that processes share'"):
        anonymous_file(3 << 20)
    assert len(list(Path("/proc/self/fd").glob("*"))) == open_before
