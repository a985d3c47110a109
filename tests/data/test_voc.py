"""Pascal VOC data sets, with everything that can be broken in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from octrim.data.open import open_dataset
from octrim.errors import InputError
from tests.data.making import picture, problems, real, text
from tests.data.tools import BOXES, ENCODINGS, cvat_voc, labelimg_voc, photo, xml


def voc(root: Path, objects: str, split: str = "val", stem: str = "a", suffix: str = ".jpg") -> Path:
    picture(root / "JPEGImages" / f"{stem}{suffix}")
    text(root / "Annotations" / f"{stem}.xml", f"<annotation><filename>x.jpg</filename>{objects}</annotation>")
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    text(listed, (listed.read_text() if listed.exists() else "") + f"{stem}\n")
    return root


def item(name: str, *box: object) -> str:
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>0</difficult><bndbox>{sides}</bndbox></object>"


def test_voc_by_hand(tmp_path: Path) -> None:
    voc(tmp_path, item("cat", 1, 1, 100, 50) + item("ant", 11, 21, 20, 30), suffix=".png")
    voc(tmp_path, item("bee", 1, 1, 2, 2), "train", "b")
    found = open_dataset(tmp_path)
    assert found.names == open_dataset(tmp_path, "train").names == ("ant", "bee", "cat")
    assert found.boxes.tolist() == [[0, 0, 100, 50], [10, 20, 20, 30]]
    assert (found.labels.tolist(), found.picture_ids, problems(found)) == ([2, 0], ("a",), {})
    assert open_dataset(tmp_path, names=["cat", "ant"]).labels.tolist() == [0, 1]
    text(tmp_path / "label_list.txt", "ant\ncat\n")
    assert open_dataset(tmp_path).labels.tolist() == [1, 0]
    assert problems(open_dataset(tmp_path, "train")) == {"class that is not among the names, dropped": 1}
    with pytest.raises(InputError, match=r"there is no test.txt; it has train, val"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (item("a", 20, 1, 10, 5), "box without area (xmin >= xmax or ymin >= ymax), dropped"),
        (item("a", 1, 5, 10, 5), "box without area (xmin >= xmax or ymin >= ymax), dropped"),
        (item("a", 1, "x", 10, 5), "label row with a value that is not a finite number, dropped"),
        (item("a", 1, "nan", 10, 5), "label row with a value that is not a finite number, dropped"),
        (item("", 1, 1, 10, 5), "object without a name or a box, dropped"),
        ("<object><name>a</name></object>", "object without a name or a box, dropped"),
        (item("a", 150, 1, 160, 5), "box outside the picture, dropped"),
        (item("b", 1, 1, 10, 5), "box that repeats another of the same picture, dropped"),
    ],
)
def test_voc_bad_objects(tmp_path: Path, bad: str, problem: str) -> None:
    found = open_dataset(voc(tmp_path, item("b", 1, 1, 10, 5) + bad))
    assert found.boxes.tolist() == [[0, 0, 10, 5]]
    assert problems(found) == {problem: 1}
    assert found.report.examples[problem][0].startswith(f"{tmp_path}/Annotations/a.xml: object 2")


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize("content", [BOMB, BOMB.encode("utf-16"), "<annotation>", "", b"\xff\x00", '<?xml version="1.0" encoding="no"?><a/>'])
def test_voc_damaged_and_hostile_xml(tmp_path: Path, content: str | bytes) -> None:
    voc(tmp_path, item("b", 1, 1, 10, 5), stem="b")
    voc(tmp_path, "")
    text(tmp_path / "Annotations" / "a.xml", content)
    found = open_dataset(tmp_path)
    assert (found.picture_ids, found.names) == (("b",), ("b",))
    assert problems(found) == {"annotation file is damaged or declares entities, picture left out": 1}


def test_voc_what_is_missing(tmp_path: Path) -> None:
    for stem in "abc":
        voc(tmp_path, item("x", 1, 1, 10, 5), stem=stem)
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "Annotations" / "b.xml").unlink()
    found = open_dataset(tmp_path)
    assert (found.picture_ids, found.starts.tolist()) == (("b", "c"), [0, 0, 1])
    assert problems(found) == {
        "annotation file without a picture, ignored": 1,
        "annotation file is missing, picture taken as background": 1,
        "picture is missing, left out": 1,
    }


def test_bccd_as_it_is_read_only(tmp_path: Path) -> None:
    train, val = (open_dataset(real("bccd"), split) for split in ("train", "val"))
    assert (len(train), len(val), train.names, val.names) == (205, 87, ("Platelets", "RBC", "WBC"), ("Platelets", "RBC", "WBC"))
    assert [sum(problems(dataset).values()) for dataset in (train, val)] == [1, 1]
    assert (train.boxes[:, 2:] > train.boxes[:, :2]).all() and (train.boxes <= np.asarray([640, 480] * 2)).all()
    shutil.copytree(real("bccd") / "Annotations", tmp_path / "Annotations")
    shutil.copytree(real("bccd") / "ImageSets", tmp_path / "ImageSets")
    (tmp_path / "JPEGImages").symlink_to(real("bccd") / "JPEGImages")
    linked = open_dataset(tmp_path, "val")
    np.testing.assert_array_equal(linked.boxes, val.boxes)


def test_voc_difficult_objects_are_ignored_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    labelimg_voc(tmp_path)
    for path in tmp_path.glob("*.xml"):
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    found = open_dataset(tmp_path, "train", val_share=0)
    assert found.crowd.tolist() == [True, False] * 6
    (remark,) = found.report.counts
    assert (found.report.counts[remark], found.report.problems) == (6, 0)
    assert "difficult" in remark
    kept = open_dataset(tmp_path, "train", val_share=0, keep_difficult=True)
    assert (kept.crowd.any(), kept.report.counts) == (False, {})
    np.testing.assert_array_equal(kept.boxes, found.boxes)


def test_voc_outlines_without_a_box(tmp_path: Path) -> None:
    """Roboflow's x1 y1 x2 y2, labelme's points and roLabelImg's turned boxes."""
    corners = "<polygon><x1>11</x1><y1>6</y1><x2>40</x2><y2>6</y2><x3>40</x3><y3>25</y3></polygon>"
    points = "<polygon><pt><x>11</x><y>6</y></pt><pt><x>40</x><y>6</y></pt><pt><x>40</x><y>25</y></pt></polygon>"
    turned = "<robndbox><cx>50</cx><cy>25</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>"
    photo(tmp_path / "a.jpg")
    objects = "".join(f"<object><name>{name}</name>{shape}</object>" for name, shape in (("a", corners), ("b", points), ("c", turned)))
    text(tmp_path / "a.xml", f"<annotation>{objects}</annotation>")
    found = open_dataset(tmp_path, "val")
    np.testing.assert_allclose(found.boxes, [[10, 5, 40, 25], [10, 5, 40, 25], [44, 14, 55, 35]], atol=1e-4)
    assert problems(found) == {"polygon or mask, taken as the box around it": 3}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_voc_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    names = {"big5": "紅綠", "shift_jis": "赤い", "euc-kr": "빨강", "iso-8859-1": "grün", "windows-1252": "grün"}.get(encoding, "红绿")
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(BOXES[:1], [names], declared=f'<?xml version="1.0" encoding="{encoding}"?>\n').encode(encoding))
    assert open_dataset(tmp_path, "val").names == (names,)


def test_voc_in_gbk_that_does_not_say_so(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    for declared in ("", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8"?>', '<?xml version="1.0" encoding="ANSI"?>'):
        text(tmp_path / "a.xml", xml(BOXES[:1], ["红绿灯"], declared=declared).encode("gbk"))
        assert open_dataset(tmp_path, "val").names == ("红绿灯",)


@pytest.mark.parametrize("name", ["Käfer rot", "grün", "señal", "piéton à vélo"])
def test_voc_and_names_in_latin_that_do_not_say_so(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(BOXES[:1], [name]).encode("latin-1"))
    assert open_dataset(tmp_path, "val").names == (name,)
    text(tmp_path / "classes.txt", f"dog\n{name}\n".encode("latin-1"))
    assert open_dataset(tmp_path, "val").names == ("dog", name)


@pytest.mark.parametrize(
    "declared",
    ["<!DOCTYPE annotation>", '<?xml version="1.0"?>\n<!DOCTYPE annotation >\n'],
)
def test_voc_with_a_document_type_that_declares_nothing(tmp_path: Path, declared: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(declared=declared))
    assert open_dataset(tmp_path, "val").names == ("cat", "emu")


@pytest.mark.parametrize("declared", ['<!DOCTYPE a [<!ENTITY x "y">]>', "<!DOCTYPE a>" * 2, '<!DOCTYPE a SYSTEM "b" [<!ATTLIST a b CDATA "c">]>'])
def test_voc_with_a_document_type_that_declares_is_refused(tmp_path: Path, declared: str) -> None:
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.xml", xml(declared=declared))
    with pytest.raises(InputError, match="damaged or declares entities"):
        open_dataset(tmp_path, "val")


def test_names_of_cvats_labelmap(tmp_path: Path) -> None:
    """All labels of the task in its order, also those that no picture has; the background is no class."""
    cvat_voc(tmp_path)
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:::\nemu:1,2,3::\ncat:128,0,0:head,foot:\ndog:::\n")
    found = open_dataset(tmp_path, "train")
    assert found.names == ("emu", "cat", "dog")
    assert found.labels[:2].tolist() == [1, 0]
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nemu:1,2,3::\n")
    assert open_dataset(tmp_path, "val").names == ("emu", "cat")


def test_voc_of_fiftyone(tmp_path: Path) -> None:
    photo(tmp_path / "data" / "a.jpg")
    text(tmp_path / "labels" / "a.xml", xml())
    assert (open_dataset(tmp_path, "val").names, len(open_dataset(tmp_path, "val").boxes)) == (("cat", "emu"), 2)
