"""The facts of a data set's files: the same from headers as from decoding, from one process as from many, from the cache as from disk."""

from __future__ import annotations

import dataclasses
import os
import stat
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from octrim.data import crew, index, probe
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.data.pictures import read_picture
from octrim.data.scenes import drawn_scene


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read because the cache did not know them."""
    names: list[str] = []

    def watched(jobs: list[tuple[str, list[str]]], *rest: object) -> list[crew.Arrays]:
        names.extend(Path(path).name for _, paths in jobs for path in paths)
        return crew.run_jobs(jobs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "run_jobs", watched)
    return names


def make(root: Path, count: int = 6) -> Path:
    """Pictures of several sizes with boxes, and one of each kind of trouble in every fifth label."""
    generator = np.random.default_rng(3)
    for kind in ("images", "labels"):
        (root / kind / "val").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(root / "images" / "val" / f"{number:04}.png"), np.zeros((20 + number % 7, 30, 3), np.uint8))
        rows = [f"{label} {x:.4f} .5 .2 .3" for label, x in zip(generator.integers(0, 3, 4), generator.uniform(0.1, 0.9, 4), strict=True)]
        if number % 5 == 4:
            rows.insert(1, ["0 .5", "x .5 .5 .2 .2", "9 .5 .5 .2 .2", rows[0]][number // 5 % 4])
        if number % 11 != 10:
            (root / "labels" / "val" / f"{number:04}.txt").write_text("\n".join(rows) + "\n")
    return root


def assert_same(first: Dataset, second: Dataset) -> None:
    for field in dataclasses.fields(Dataset):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name
    assert list(first.report.counts) == list(second.report.counts)


@pytest.mark.parametrize("orientation", [0, 1, 3, 5, 6, 8, 9])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_sizes_are_those_of_the_decoded_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(drawn_scene(1, 20, 40)).save(path, exif=exif)
    assert probe.picture_facts([str(path)])["size"].tolist() == [list(read_picture(path).shape[:2])]


def test_orientation_in_xmp_and_late_in_a_png(tmp_path: Path) -> None:
    """Pillow would heed the first, and has not seen the second."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(drawn_scene(1, 20, 40)).save(tmp_path / "a.jpg", xmp=xmp)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawn_scene(1, 20, 40)).save(tmp_path / "b.png", exif=exif)
    data = (tmp_path / "b.png").read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    (tmp_path / "b.png").write_bytes(data.replace(chunk, b"")[:-12] + chunk + data[-12:])
    for name in ("a.jpg", "b.png"):
        assert probe.picture_facts([str(tmp_path / name)])["size"].tolist() == [list(read_picture(tmp_path / name).shape[:2])]


def test_plain_pictures_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_decoded_size", lambda path: pytest.fail(f"decoded {path}"))
    for suffix in (".jpg", ".png"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), drawn_scene(1, 30, 50))
        assert probe.picture_facts([str(tmp_path / f"a{suffix}")])["size"].tolist() == [[30, 50]]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".gif"])
def test_broken_pictures(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    cv2.imwrite(str(whole), drawn_scene(3, 100, 150))
    data = whole.read_bytes()
    contents = {"cut": data[:-60], "half": data[: len(data) // 2], "start": data[:10], "text": b"hello", "tail": data + b"\0" * 5}
    paths = [tmp_path / f"{name}{suffix}" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    paths += [tmp_path / f"folder{suffix}", tmp_path / f"empty{suffix}", tmp_path / f"none{suffix}"]
    facts = probe.picture_facts([str(path) for path in paths])
    assert facts["problem"].tolist() == [3, 3, 3, 3, 0, 3, 2, 1]  # trailing zeros do no harm
    assert facts["size"][4].tolist() == [100, 150]


def test_a_second_run_reads_nothing(tmp_path: Path, read_files: list[str]) -> None:
    cold = open_dataset(make(tmp_path, 30), names=["a", "b", "c"])
    assert len(read_files) == 60
    read_files.clear()
    assert_same(open_dataset(tmp_path, names=["a", "b", "c"]), cold)
    assert read_files == ["0010.txt", "0021.txt"]  # which do not exist: an absence has no contents to go by
    assert len(cold.report.counts) == 4


def test_a_changed_label_of_the_same_size_and_time_is_noticed(tmp_path: Path, read_files: list[str]) -> None:
    before = open_dataset(make(tmp_path))
    path = tmp_path / "labels" / "val" / "0002.txt"
    times = path.stat()
    path.write_text(path.read_text().replace(".5 .2 .3", ".6 .2 .3", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    read_files.clear()
    after = open_dataset(tmp_path)
    assert read_files == ["0002.txt"]
    assert (before.boxes != after.boxes).any(1).nonzero()[0].tolist() == [8]
    np.testing.assert_allclose(after.boxes[8, [1, 3]] - before.boxes[8, [1, 3]], 2.2, atol=1e-5)


def test_files_that_come_go_and_change(tmp_path: Path, read_files: list[str]) -> None:
    open_dataset(make(tmp_path, 12))
    (tmp_path / "images" / "val" / "0003.png").unlink()
    (tmp_path / "labels" / "val" / "0003.txt").unlink()
    (tmp_path / "labels" / "val" / "0004.txt").unlink()
    cv2.imwrite(str(tmp_path / "images" / "val" / "0000a.png"), np.zeros((64, 99, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "images" / "val" / "0005.png"), np.zeros((77, 99, 3), np.uint8))
    (tmp_path / "images" / "val" / "0006.png").write_bytes(b"broken")
    read_files.clear()
    warm = open_dataset(tmp_path)
    assert sorted(read_files) == ["0000a.png", "0000a.txt", "0004.txt", "0005.png", "0006.png", "0010.txt"]
    for path in index.Index(tmp_path, "val").path.parent.iterdir():
        path.unlink()
    assert_same(warm, open_dataset(tmp_path))


def test_broken_files_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    refused = tmp_path / "images" / "val" / "0001.png"
    with monkeypatch.context() as patch:  # as without permission, which root would have
        patch.setattr(probe, "_header_size", lambda file: None if file.name == str(refused) else (20, 30))
        patch.setattr(probe, "_decoded_size", lambda path: (None, 0))
        assert len(open_dataset(tmp_path)) == 5
    assert len(open_dataset(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "another", "folder"])
def test_a_damaged_cache_is_ignored(tmp_path: Path, cache: Path, damage: str) -> None:
    whole = open_dataset(make(tmp_path))
    path = index.Index(tmp_path, "val").path
    data = path.read_bytes()
    assert path.parent == cache
    if damage == "another":
        open_dataset(tmp_path, "train")
        index.Index(tmp_path, "train").path.replace(path)
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 255
        path.write_bytes({"empty": b"", "cut": data[:-100], "flipped": bytes(flipped), "text": b"hello"}[damage])
    assert_same(open_dataset(tmp_path), whole)
    assert_same(open_dataset(tmp_path), whole)


def test_a_cache_with_a_header_of_python_2_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """NumPy warns where it must repair a header, as one flipped bit can make it: a comma becomes an L."""
    whole = open_dataset(make(tmp_path))
    path = index.Index(tmp_path, "val").path
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data.replace(b",), }", b"L), }", 1))
    assert_same(open_dataset(tmp_path), whole)
    assert [str(one.message) for one in recwarn] == []


@pytest.mark.slow
def test_every_damaged_byte_of_the_cache_is_survived(tmp_path: Path) -> None:
    whole = open_dataset(make(tmp_path, 2))
    path = index.Index(tmp_path, "val").path
    data = path.read_bytes()
    for place in range(0, len(data), 53):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        assert_same(open_dataset(tmp_path), whole)


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(open_dataset(make(tmp_path / "data"))) == 6


def test_data_is_only_read(tmp_path: Path) -> None:
    make(tmp_path)
    places = [tmp_path, *tmp_path.rglob("*")]
    before = {path: path.stat().st_mtime_ns for path in places}
    for path in places:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        assert len(open_dataset(tmp_path)) == 6
    finally:
        for path in places:
            path.chmod(stat.S_IRWXU)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "CHUNK", 7)
    make(tmp_path, 60)
    (tmp_path / "images" / "val" / "0030.png").write_bytes(b"broken")
    results = []
    for workers in (1, 2, 3):
        results.append(open_dataset(tmp_path, names=["a", "b", "c"], workers=workers))
        for path in cache.iterdir():
            path.unlink()
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])
    monkeypatch.setattr(index, "CHUNK", 1000)
    assert_same(results[0], open_dataset(tmp_path, names=["a", "b", "c"]))
    assert sum(results[0].report.counts.values()) > 10


def test_voc_names_do_not_depend_on_who_read_what(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for kind in ("Annotations", "JPEGImages"):
        (tmp_path / kind).mkdir()
    for number in range(20):
        cv2.imwrite(str(tmp_path / "JPEGImages" / f"{number}.jpg"), np.zeros((20, 30, 3), np.uint8))
        box = f"<bndbox><xmin>{number + 1}</xmin><ymin>1</ymin><xmax>30</xmax><ymax>9</ymax></bndbox>"
        (tmp_path / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><object><name>{'zyx'[number % 3]}{number % 2}</name>{box}</object></annotation>"
        )
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("".join(f"{number}\n" for number in range(3, 17)))
    monkeypatch.setattr(index, "CHUNK", 3)
    one = open_dataset(tmp_path, workers=1)
    assert one.names == ("x0", "x1", "y0", "y1", "z0", "z1")
    assert [one.names[label] for label in one.labels] == [f"{'zyx'[number % 3]}{number % 2}" for number in range(3, 17)]
    path = tmp_path / "Annotations" / "5.xml"
    path.write_text(path.read_text().replace("x1", "new"))
    changed = open_dataset(tmp_path)
    assert changed.names == ("new", "x0", "x1", "y0", "y1", "z0", "z1")
    for file in cache.iterdir():
        file.unlink()
    assert_same(changed, open_dataset(tmp_path, workers=2))


def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = open_dataset(make(tmp_path, 20), workers=1)
    index.Index(tmp_path, "val").path.unlink()
    monkeypatch.setattr(index, "CHUNK", 5)
    monkeypatch.setattr(crew.sys, "executable", "/bin/false")
    assert_same(open_dataset(tmp_path, workers=2), alone)
    monkeypatch.setattr(crew.sys, "executable", "/none")
    index.Index(tmp_path, "val").path.unlink()
    assert_same(open_dataset(tmp_path, workers=2), alone)


def test_duplicates_among_many_boxes(tmp_path: Path) -> None:
    """Against the plain way."""
    rows = np.random.default_rng(1).integers(1, 4, (400, 3)).tolist()
    lines = [f"{label} 0.{x} 0.{y} .1 .1" for label, x, y in rows]
    make(tmp_path, 1)
    (tmp_path / "labels" / "val" / "0000.txt").write_text("\n".join(lines))
    found = open_dataset(tmp_path)
    assert len(found.boxes) == len(set(lines))
    first = [lines.index(line) for line in dict.fromkeys(lines)]
    assert found.labels.tolist() == [rows[place][0] for place in first]
    assert sum(found.report.counts.values()) == 400 - len(first)
