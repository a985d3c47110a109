"""Classes, pictures and frames that share a name keep apart in what is written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data.open import open_dataset
from octrim.data.streams import Frame
from octrim.evaluate.classes import distinct_names
from octrim.evaluate.detections import Detections
from octrim.evaluate.evaluation import measure
from octrim.evaluate.output import Output, Wanted
from tests.evaluate.material import dataset, found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "b"), ("a", "b")),
        (("a", "b", "a"), ("a (class 0)", "b", "a (class 2)")),
        (("a", "a", "a (class 0)"), ("a (class 0) (class 0)", "a (class 1)", "a (class 0)")),
        ((), ()),
    ],
)
def test_distinct_names(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert distinct_names(names) == expected


def test_two_classes_of_one_name_are_both_in_the_metrics() -> None:
    truth = dataset([[((0, 0, 20, 20), 0, False), ((50, 50, 80, 80), 1, False)]], ("cat", "cat"))
    result = measure(truth, [found(((0, 0, 20, 20), 0.9, 0))], bootstrap=0)
    per_class = result.to_json()["per_class"]
    assert {name: (row["objects"], row["recall"]) for name, row in per_class.items()} == {"cat (class 0)": (1, 1.0), "cat (class 1)": (1, 0.0)}


def test_pictures_of_one_stem_have_ids_of_their_own(tmp_path: Path) -> None:
    for folder, name in (("a", "1.png"), ("b", "1.png"), ("b", "2.png")):
        (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / folder / name), np.zeros((32, 32, 3), np.uint8))
        label = tmp_path / "labels" / folder / name.replace("png", "txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [thing]\n")
    ids = open_dataset(tmp_path / "data.yaml", "val").picture_ids
    assert len(set(ids)) == 3 and ids[2] == "2"
    assert [Path(str(name)).parts[-2:] for name in ids[:2]] == [("a", "1.png"), ("b", "1.png")]


def test_names_with_question_marks_stay_whole(tmp_path: Path) -> None:
    """Of an address what follows a question mark is a query, and no part of the name."""
    image = np.zeros((32, 32, 3), np.uint8)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("thing",), "x", 32, 32)
    output = Output(Wanted(media=False, labels=True), tmp_path)
    for source in ("what?1.jpg", "what?2.jpg", "http://camera/shot.jpg?time=7"):
        output.write(Frame(source, image), nothing)
    output.close()
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"what?1.txt", "what?2.txt", "shot.txt"}


def test_frames_and_pictures_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    """The fourth frame of clip.mp4 is called as the picture clip_3.png, and a file system may take A.png for a.png."""
    image = np.zeros((32, 32, 3), np.uint8)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("thing",), "x", 32, 32)
    output = Output(Wanted(media=False, labels=True), tmp_path)
    for frame in (Frame("clip_3.png", image), Frame("clip.mp4", image, 3), Frame("x/A.png", image), Frame("y/a.png", image)):
        output.write(frame, nothing)
    output.close()
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["A.txt", "a-2.txt", "clip_3-2.txt", "clip_3.txt"]
