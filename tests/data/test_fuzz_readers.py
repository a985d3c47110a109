"""The readers against hostile files: a data set that holds to its invariants, or one line that names the file; the same from the cache."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from octrim.data import labelfiles, png, probe, yolorows
from octrim.data.dataset import Dataset
from octrim.data.formats import voc
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.evaluate.curves import save_confusion
from octrim.evaluate.result_files import write_predictions
from tests.data.holding import JSON, ROWS, XML, checked, coco, voc_set, yolo
from tests.data.making import problems, text
from tests.fuzz.mutations import mutated

DAMAGED = "picture is damaged, truncated or of an unknown format, left out"
MISSING = "picture is missing, left out"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that waits for a pipe or a device fails after two minutes instead of never."""

    def stop(*_: object) -> None:
        pytest.fail("hangs")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 120)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def images(*files: str) -> str:
    """A COCO file of a.png and these pictures, with a box on the first."""
    entries = [{"id": number, "file_name": name} for number, name in enumerate(("a.png", *files))]
    box = {"id": 1, "image_id": 0, "category_id": 5, "bbox": [1, 2, 30, 20]}
    return json.dumps({"images": entries, "annotations": [box], "categories": [{"id": 5, "name": "x"}]})


PLACES = ("images/val/x.png", "labels/val/x.txt", "list.txt", "data.yaml", "other.yaml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "folder", "link to itself", "link to nothing"])
def test_no_file_where_one_belongs(tmp_path: Path, place: str, kind: str) -> None:
    """Pipes that nobody writes to, and devices without an end."""
    text(yolo(tmp_path) / "data.yaml", "val: [images/val, list.txt]\nnames: [a, b]\n")
    text(tmp_path / "list.txt", "images/val/good.png\nimages/val/x.png\n")
    (tmp_path / place).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(tmp_path / place)
    elif kind == "folder":
        (tmp_path / place).mkdir()
    else:
        (tmp_path / place).symlink_to(kind if kind == "/dev/zero" else Path(place).name if kind == "link to itself" else "nowhere")
    found = checked(tmp_path / "data.yaml")
    if place in ("list.txt", "data.yaml") and (place, kind) != ("list.txt", "folder"):
        assert isinstance(found, InputError)
        assert str(tmp_path) in str(found)
    else:
        assert isinstance(found, Dataset)
    checked(tmp_path)  # which looks at every yaml


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_no_file_where_coco_and_voc_expect_one(tmp_path: Path) -> None:
    data = coco(tmp_path / "coco", images("pipe.png", "/dev/zero", "..", "a.png/x"))
    os.mkfifo(tmp_path / "coco" / "val" / "pipe.png")
    os.mkfifo(tmp_path / "coco" / "annotations" / "captions.json")
    found = checked(data)
    assert isinstance(found, Dataset)
    assert (len(found), problems(found)) == (1, {DAMAGED: 4})
    assert isinstance(checked(tmp_path / "coco"), Dataset)
    for place in ("Annotations/x.xml", "ImageSets/Main/val.txt"):
        voc_set(tmp_path / place, "<a/>")
        (tmp_path / place / place).unlink()
        os.mkfifo(tmp_path / place / place)
        assert isinstance(checked(tmp_path / place), InputError if "val" in place else Dataset)


@pytest.mark.parametrize(
    "content",
    [
        'val: images/val\nx: "\\UFFFFFFFF"\n',  # PyYAML: OverflowError
        "val: images/val\nnc: " + "9" * 5000,  # more digits than Python converts
        "val: " + "x" * 5000,
        'val: "a\\0b"\n',
        'val: "\\uD800"\n',
        "val: /dev/zero\n",
        "val: images/val\nx: " + "{a: " * 100_000,
        "val: images/val\nx: '" + "x" * 2**19 + "'\n",
        "val: [images/val\n".encode("utf-16"),
    ],
)
def test_hostile_data_yaml(tmp_path: Path, content: str | bytes) -> None:
    found = checked(text(yolo(tmp_path) / "data.yaml", content))
    assert isinstance(found, InputError)
    assert str(found).startswith((f"{tmp_path}/data.yaml: ", "/dev/zero: "))


@pytest.mark.parametrize("path", ["~nosuchuser/x", "x" * 5000, '"\\uD800"', '"a\\nb"', "C:\\\\ds"])
def test_a_path_that_is_not_here_is_told_and_pictures_are_looked_for_beside_the_file(tmp_path: Path, path: str) -> None:
    found = checked(text(yolo(tmp_path) / "data.yaml", f"path: {path}\nval: images/val\n"))
    assert isinstance(found, Dataset)
    assert len(found) == 2
    assert any("which is not here; its pictures are looked for beside the file" in note and note.isprintable() for note in found.notes)


@pytest.mark.parametrize("data", ["\0", "\ud800", "x" * 400, "~nosuchuser/x", "/dev/null"])
def test_data_that_no_file_can_be(data: str) -> None:
    with pytest.raises(InputError, match="no such file or folder|no data set found"):
        open_dataset(data)


@pytest.mark.parametrize("split", ["", "\0", "\ud800", "x" * 5000, "../x", "[*"])
def test_splits_that_cannot_be(tmp_path: Path, split: str) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        open_dataset(voc_set(tmp_path, "<a/>"), split)


def test_folder_that_must_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(voc.os, "listdir", refuse)  # as root may list everything
    with pytest.raises(InputError, match="JPEGImages: Permission denied"):
        open_dataset(voc_set(tmp_path, "<a/>"))


def test_report_stays_on_one_line(tmp_path: Path) -> None:
    """Whatever names files give to pictures: line ends, escapes, bytes that are no text, half surrogate pairs, megabytes."""
    data = coco(tmp_path, images("a\nb.png", "\x1b[2J.png", "\ud800.png", "x" * 10**6))
    found = checked(data)
    assert isinstance(found, Dataset)
    assert problems(found) == {MISSING: 3, DAMAGED: 1}  # that last name is too long to look for
    assert [place.rpartition("/")[2] for place in found.report.examples[MISSING]] == ["a\\nb.png", "\\x1b[2J.png", "\\ud800.png"]
    assert len(found.report.examples[DAMAGED][0]) < 1000
    text(yolo(tmp_path / "yolo") / "data.yaml", "val: list.txt\n")
    text(tmp_path / "yolo" / "list.txt", b"images/val/good.png\nimages/val/\xff.png\n")
    found = checked(tmp_path / "yolo" / "data.yaml")
    assert isinstance(found, Dataset)
    assert found.report.examples == {MISSING: [f"{tmp_path}/yolo/images/val/\\udcff.png"]}


def test_coco_true_is_no_id(tmp_path: Path) -> None:
    """Python holds true for 1, and would give picture 1 the boxes of picture true."""
    document = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": True, "file_name": "b.png"}],
        "annotations": [{"id": 1, "image_id": image, "category_id": kind, "bbox": [1, 2, 3, 4]} for image, kind in ((True, 1), (1, True))],
        "categories": [{"id": 1, "name": "x"}],
    }
    found = checked(coco(tmp_path, json.dumps(document)))
    assert isinstance(found, Dataset)
    assert (found.picture_ids, len(found.boxes)) == ((1,), 0)
    assert problems(found) == {
        "image entry without an id and a file name, left out": 1,
        "annotation of an image that is not in the file, dropped": 1,
        "annotation of a category that is not in the file, dropped": 1,
    }


def test_coco_in_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert isinstance(checked(coco(tmp_path, images().encode(encoding))), Dataset)
    found = checked(coco(tmp_path, b"\xff" + images().encode()))
    assert "annotations/val.json: not readable as JSON" in str(found)


@pytest.mark.parametrize(
    "dtd",
    [
        '[<!ENTITY a SYSTEM "file:///dev/zero">]',
        'SYSTEM "file:///dev/zero"',
        "[<!ATTLIST b " + " ".join(f'c{number} CDATA "{"y" * 100}"' for number in range(1000)) + ">]",  # 800 MiB, with the elements below
    ],
)
def test_voc_that_declares_anything(tmp_path: Path, dtd: str) -> None:
    found = checked(voc_set(tmp_path, f"<!DOCTYPE annotation {dtd}><annotation>{'<b/>' * 5000}</annotation>"))
    assert isinstance(found, Dataset)
    assert problems(found) == {"annotation file is damaged or declares entities, picture left out": 1}


def test_voc_nested_a_hundred_thousand_times(tmp_path: Path) -> None:
    found = checked(voc_set(tmp_path, "<object>" * 100_000 + "</object>" * 100_000))
    assert isinstance(found, Dataset)
    assert problems(found) == {"object without a name or a box, dropped": 100_000}


def test_png_that_asks_for_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV takes four gigabytes for a chunk that says it has two."""

    def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
        return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, end = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)), chunk(b"IEND", b"")
    pixels = zlib.compress(b"\0" * 15)
    (tmp_path / "big.png").write_bytes(png.START + head + chunk(b"IDAT", pixels, 2**31 - 1) + end + b"x")
    (tmp_path / "whole.png").write_bytes(png.START + head + chunk(b"IDAT", pixels) + end + b"x")  # the x: only decoding can tell
    paths = [str(tmp_path / "big.png"), str(tmp_path / "whole.png")]
    assert probe.picture_facts(paths[1:])["size"].tolist() == [[3, 4]]
    monkeypatch.setattr("octrim.data.pictures.cv2.imdecode", lambda *data: pytest.fail("decoded"))
    assert probe.picture_facts(paths[:1])["problem"].tolist() == [3]


def test_files_without_end(tmp_path: Path) -> None:
    """Sparse files: no bytes on disk, 20 GB to read."""
    yolo(tmp_path)
    for place in ("images/val/x.png", "labels/val/x.txt"):
        with (tmp_path / place).open("r+b") as file:
            file.truncate(20 * 2**30)
    assert probe.picture_facts([str(tmp_path / "images" / "val" / "x.png")])["problem"].tolist() == [3]
    assert yolorows.yolo_labels([str(tmp_path / "labels" / "val" / "x.txt")])["state"].tolist() == [labelfiles.UNREADABLE]
    found = checked(tmp_path)
    assert isinstance(found, Dataset)
    assert (len(found), problems(found)) == (1, {DAMAGED: 1, "label file cannot be read, picture left out": 1})


@pytest.mark.slow
def test_ten_megabytes_on_a_line(tmp_path: Path) -> None:
    """Only rows of five values are worth reading as numbers."""
    for line in (b"0 " * 5_000_000, b"\xff " * 5_000_000, b"9" * 10**7):
        found = checked(yolo(tmp_path, line + b"\n0 .5 .5 .2 .2"))
        assert isinstance(found, Dataset)
        assert problems(found) == {"label row without exactly five values, dropped": 1}
        assert len(found.boxes) == 2


def test_nothing_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even the empty line that Rich's progress bar prints in the end, where it was never shown."""
    open_dataset(yolo(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user is in no list: no cache, and no folder named ~."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", os.fspath)
    monkeypatch.chdir(tmp_path)
    assert isinstance(checked(yolo(tmp_path / "data")), Dataset)
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208


def test_hostile_names_can_be_written_and_drawn(tmp_path: Path) -> None:
    document = json.loads(images())
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = "\ud800\n"
    document["categories"][0]["name"] = "\udfff $x$\n\x1b[0m"
    found = open_dataset(coco(tmp_path, json.dumps(document)))
    write_predictions(tmp_path / "predictions.json", found, [np.asarray([[1, 2, 3, 4, 0.5, 0]], np.float32)])
    assert json.loads((tmp_path / "predictions.json").read_text())[0]["image_id"] == "\ud800\n"
    save_confusion(np.ones((2, 2), int), found.names, tmp_path / "confusion.png")


@pytest.mark.slow
@pytest.mark.parametrize(("make", "whole"), [(yolo, ROWS), (voc_set, XML), (coco, JSON)], ids=["yolo", "voc", "coco"])
def test_mutated(tmp_path: Path, make: Callable[[Path, bytes], Path], whole: bytes) -> None:
    dice = random.Random(5)
    unscathed = checked(make(tmp_path, whole), ("cat", "dog"))
    assert isinstance(unscathed, Dataset)
    found = [checked(make(tmp_path, mutated(dice, whole)), ("cat", "dog")) for _ in range(200)]
    reported = [result for result in found if isinstance(result, Dataset) and result.report.counts]
    refused = [result for result in found if isinstance(result, InputError)]
    # Neither swallowed nor refused altogether. One label file among two never stops a data set from being read.
    assert len(reported) > 40
    assert (len(refused) > 20) == (make is coco)
