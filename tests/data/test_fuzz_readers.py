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

from octrim.data import labelfiles, probe, voc
from octrim.data.dataset import Dataset
from octrim.data.open import open_dataset
from octrim.errors import InputError
from octrim.evaluate.curves import save_confusion
from octrim.evaluate.val import write_predictions
from tests.data.making import picture, problems, text

DAMAGED = "picture is damaged, truncated or of an unknown format, left out"
MISSING = "picture is missing, left out"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that waits for a pipe or a device fails after 30 seconds instead of never."""

    def stop(*_: object) -> None:
        pytest.fail("hangs")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 30)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def checked(data: Path, names: tuple[str, ...] = ()) -> Dataset | InputError:
    """What `open_dataset` makes of it, cold and from the cache: both must be the same, and keep the contract."""
    first, second = outcome(data, names), outcome(data, names)
    assert type(first) is type(second)
    if isinstance(first, InputError) or isinstance(second, InputError):
        assert str(first) == str(second)
        assert str(first).isprintable()
        assert 0 < len(str(first)) <= 600
        assert os.sep in str(first)
        return first
    for dataset in (first, second):
        hold_invariants(dataset)
    for name in ("names", "paths", "picture_ids", "category_ids", "report"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("sizes", "boxes", "labels", "crowd", "starts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    return first


def outcome(data: Path, names: tuple[str, ...]) -> Dataset | InputError:
    try:
        return open_dataset(data, "val", names)
    except InputError as error:
        return error


def hold_invariants(dataset: Dataset) -> None:
    count = len(dataset.boxes)
    assert len(dataset) == len(dataset.sizes) == len(dataset.picture_ids) > 0
    assert (dataset.sizes > 0).all()
    assert (int(dataset.starts[0]), int(dataset.starts[-1]), len(dataset.starts)) == (0, count, len(dataset) + 1)
    assert (np.diff(dataset.starts) >= 0).all()
    assert np.isfinite(dataset.boxes).all()
    limits = np.tile(dataset.sizes[np.repeat(np.arange(len(dataset)), np.diff(dataset.starts))][:, ::-1], 2)
    assert ((dataset.boxes >= 0) & (dataset.boxes <= limits)).all()
    assert (dataset.boxes[:, 2:] > dataset.boxes[:, :2]).all()
    assert ((dataset.labels >= 0) & (dataset.labels < len(dataset.names))).all()
    assert len(dataset.labels) == len(dataset.crowd) == count
    assert all(type(key) in (int, str) for key in dataset.picture_ids)
    assert all(type(key) is int for key in dataset.category_ids)
    lines = dataset.report.lines()
    assert len(lines) == len(dataset.report.counts)
    assert all(line.isprintable() for line in lines)


def yolo(root: Path, label: str | bytes = "0 .5 .5 .2 .2\n") -> Path:
    for stem in ("good", "x"):
        picture(root / "images" / "val" / f"{stem}.png")
        text(root / "labels" / "val" / f"{stem}.txt", "1 .5 .5 .2 .2\n" if stem == "good" else label)
    return root


def coco(root: Path, document: str | bytes) -> Path:
    picture(root / "val" / "a.png")
    return text(root / "annotations" / "val.json", document)


def images(*files: str) -> str:
    """A COCO file of a.png and these pictures, with a box on the first."""
    entries = [{"id": number, "file_name": name} for number, name in enumerate(("a.png", *files))]
    box = {"id": 1, "image_id": 0, "category_id": 5, "bbox": [1, 2, 30, 20]}
    return json.dumps({"images": entries, "annotations": [box], "categories": [{"id": 5, "name": "x"}]})


def voc_set(root: Path, xml: str | bytes) -> Path:
    for stem in ("good", "x"):
        picture(root / "JPEGImages" / f"{stem}.png")
        box = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
        whole = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        text(root / "Annotations" / f"{stem}.xml", whole if stem == "good" else xml)
    text(root / "ImageSets" / "Main" / "val.txt", "good\nx\n")
    return root


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
        "path: ~nosuchuser/x\nval: images/val\n",
        "path: " + "x" * 5000 + "\nval: images/val\n",
        "val: " + "x" * 5000,
        'val: "a\\0b"\n',
        'val: "\\uD800"\n',
        'path: "\\uD800"\nval: images/val\n',
        "val: /dev/zero\n",
        "val: images/val\nx: " + "{a: " * 100_000,
        "val: images/val\nx: '" + "x" * 2**19 + "'\n",
        "val: images/val\n".encode("utf-16"),
    ],
)
def test_hostile_data_yaml(tmp_path: Path, content: str | bytes) -> None:
    found = checked(text(yolo(tmp_path) / "data.yaml", content))
    assert isinstance(found, InputError)
    assert str(found).startswith((f"{tmp_path}/data.yaml: ", "/dev/zero: "))


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
    (tmp_path / "big.png").write_bytes(probe.PNG + head + chunk(b"IDAT", pixels, 2**31 - 1) + end + b"x")
    (tmp_path / "whole.png").write_bytes(probe.PNG + head + chunk(b"IDAT", pixels) + end + b"x")  # the x: only decoding can tell
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
    assert labelfiles.yolo_labels([str(tmp_path / "labels" / "val" / "x.txt")])["state"].tolist() == [labelfiles.UNREADABLE]
    found = checked(tmp_path)
    assert isinstance(found, Dataset)
    assert (len(found), problems(found)) == (1, {DAMAGED: 1, "label file cannot be read, picture left out": 1})


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


# The fuzz: text of each format with numbers, words and bytes replaced, cut, repeated and moved.

TOKENS = (
    *("NaN", "inf", "-Infinity", "1e999", "1e308", "-1e308", "1e-320", "9" * 30, "9" * 5000, "-1", "-0.0", "0", "0.99999999", "65535", "1_0"),
    *("9223372036854775808", "true", "null", '""', "[]", "{}", "[[1,2,3,4]]", '{"a":1}', '"\\ud800"', "\udcff", "\x00", "\ufeff", "\u2028", "\x85"),
    *("\x1b[31m", "١", "💥", "A" * 3000, "../..", "/dev/zero", "&a;", "<!DOCTYPE a>", "</object>", "<object>" * 50, "[" * 50, "\r", "\r\n", "\t"),
)
WHOLE = (b"", b" ", b"\n", b"\0" * 100, b"[" * 100_000, b'{"a":' * 100_000, b"<a>" * 100_000, b"1 " * 9999)


def mutated(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.01:
        return dice.choice(WHOLE)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        start = dice.randrange(len(data) + 1)
        stop = start + dice.choice((1, 1, 2, 5, 20, 80))
        token = dice.choice(TOKENS).encode("utf-8", "surrogateescape")
        numbers = list(re.finditer(rb"-?\d+\.?\d*", data))
        kind = dice.randrange(9)
        if kind < 3 and numbers:
            spot = dice.choice(numbers)
            data = data[: spot.start()] + token + data[spot.end() :]
        elif kind == 3:
            data = data[:start] + token + data[start:]
        elif kind == 4:
            data = data[:start] + data[stop:]
        elif kind == 5:
            data = data[:stop] + data[start:stop] * dice.choice((1, 1, 30)) + data[stop:]
        elif kind == 6:
            data = data[:start] + bytes(byte ^ 1 << dice.randrange(8) for byte in data[start : start + 1]) + data[start + 1 :]
        elif kind == 7:
            data = dice.choice((data[:start], b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.decode("latin-1").encode("utf-16")))
        else:
            data = data[:start] + dice.randbytes(dice.choice((1, 4, 30))) + data[stop:]
    return data


ROWS = b"0 0.5 0.5 0.2 0.2\n1 0.25 0.75 0.1 0.3\n0 0.1 0.1 0.2 0.2\n"
OBJECT = b"<object><name>%s</name><difficult>0</difficult><bndbox><xmin>%d</xmin><ymin>2</ymin><xmax>%d</xmax><ymax>40</ymax></bndbox></object>\n"
XML = b'<?xml version="1.0"?>\n<annotation>\n' + OBJECT % (b"cat", 5, 50) + OBJECT % (b"dog", 30, 90) + b"</annotation>\n"
JSON = b"""{"images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 50}, {"id": "x", "file_name": "b.png"}],
"annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [1.5, 2, 30, 20], "iscrowd": 0},
{"id": 2, "image_id": "x", "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1}, {"id": 3, "image_id": 7, "category_id": 1, "bbox": [5, 5, 9, 9]}
], "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}]}"""


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
