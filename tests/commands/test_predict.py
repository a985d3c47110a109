"""`octrim predict` as users type it: what it leaves, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.cli import main
from octrim.data import streams
from octrim.data.scenes import drawn_scene
from tests.commands.running import failed
from tests.data.test_pictures import make_video, write
from tests.data.test_sources import dropping, server


@pytest.mark.slow
def test_predict_on_pictures(folder: Path) -> None:
    assert main(["predict", "--weights", "small.safetensors", "--source", "pictures", "--save-txt", "--save-conf", "--save-json", "--save-crop"]) == 0
    run = folder / "runs/predict/exp"
    results = json.loads((run / "predictions.json").read_text())
    for index in range(3):
        assert cv2.imread(str(run / f"{index}.png")).shape == (60, 90, 3)
        lines = [line.split() for line in (run / f"labels/{index}.txt").read_text().splitlines()]
        mine = [entry for entry in results if entry["image_id"] == str(index)]
        assert len(lines) == len(mine) > 0
        for (label, cx, cy, w, h, confidence), entry in zip(lines, mine, strict=True):
            x, y, width, height = entry["bbox"]
            assert int(label) == entry["category_id"]
            expected = [(x + width / 2) / 90, (y + height / 2) / 60, width / 90, height / 60]
            np.testing.assert_allclose([float(value) for value in (cx, cy, w, h)], expected, atol=3e-4)
            assert float(confidence) == pytest.approx(entry["score"], abs=1e-4)
    crops = list((run / "crops").rglob("*.jpg"))
    assert 0 < len(crops) <= len(results)
    assert all(path.parent.parent == run / "crops" for path in crops)  # the class b/c is one folder
    assert main(["predict", "--weights", "small.safetensors", "--source", "pictures/0.png", "--classes", "1", "--save-json", "--nosave"]) == 0
    run = folder / "runs/predict/exp2"
    assert {entry["category_id"] for entry in json.loads((run / "predictions.json").read_text())} <= {1}
    assert not list(run.glob("*.png"))


def test_names_that_collide_lose_nothing(folder: Path) -> None:
    (folder / "same").mkdir()
    for index, name in enumerate(("bus-2.png", "bus.jpg", "bus.png")):
        write(folder / "same" / name, drawn_scene(index, 60, 90))
    assert main(["predict", "--weights", "small.safetensors", "--source", "same", "--save-txt", "--save-json", "--save-crop"]) == 0
    run = folder / "runs/predict/exp"
    results = json.loads((run / "predictions.json").read_text())
    assert len(list((run / "labels").iterdir())) == len({entry["image_id"] for entry in results}) == 3
    assert sum(len(path.read_text().splitlines()) for path in (run / "labels").iterdir()) == len(results)
    drawn = [entry for entry in results if round(entry["bbox"][2]) and round(entry["bbox"][3])]
    assert abs(len(list((run / "crops").rglob("*.jpg"))) - len(drawn)) <= len(results) - len(drawn) + 2


@pytest.mark.slow
def test_names_are_not_markup(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a[bold]x[").mkdir()
    write(folder / "a[bold]x[/y].png", drawn_scene(0, 60, 90))
    assert main(["predict", "--weights", "small.safetensors", "--source", "a[bold]x[/y].png"]) == 0
    assert "a[bold]x[/y].png: " in capsys.readouterr().out
    assert main(["prune", "--weights", "small.safetensors", "--exclude", "model.[0-1]", "--dry-run"]) == 0
    assert "excluded by model.[0-1]" in (folder / "runs/prune/exp/plan.txt").read_text()


def test_predict_on_a_video(folder: Path) -> None:
    make_video(folder / "a.avi", 9)
    assert main(["predict", "--weights", "small.safetensors", "--source", "a.avi", "--save-txt"]) == 0
    run = folder / "runs/predict/exp"
    capture = cv2.VideoCapture(str(run / "a.mp4"))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (9, 25)
    assert len(list((run / "labels").iterdir())) == 9
    assert not list(run.glob(".*"))  # no temporary file is left


def test_predict_on_a_folder_of_videos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "videos").mkdir()
    for name, count in (("a.avi", 3), ("b.avi", 5)):
        make_video(folder / "videos" / name, count)
    write(folder / "videos/a.png", drawn_scene(0, 60, 90))
    options = ["--hide-labels", "--line-thickness", "2", "--vid-stride", "2"]
    assert main(["predict", "--weights", "small.safetensors", "--source", "videos", "--save-txt", *options]) == 0
    run = folder / "runs/predict/exp"
    assert {path.name for path in run.glob("*.mp4")} == {"a-2.mp4", "b.mp4"}  # a.png was there before a.avi
    assert [cv2.VideoCapture(str(run / name)).get(cv2.CAP_PROP_FRAME_COUNT) for name in ("a-2.mp4", "b.mp4")] == [2, 3]
    assert {path.stem for path in (run / "labels").iterdir()} == {"a", "a-2_0", "a-2_2", "b_0", "b_2", "b_4"}
    said = capsys.readouterr().out
    assert "videos/a.avi: 2 frames" in said and "videos/b.avi: 3 frames" in said


def test_predict_on_a_stream_that_does_not_come_back(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.001)
    with server(dropping([[10, 20, 30, 40], [50, 60, 70]], {})) as address:
        error = failed(capsys, "predict", "--weights", "small.safetensors", "--source", f"{address}/live.mjpg", "--retries", "2", "--save-txt")
    run = folder / "runs/predict/exp"
    assert "live.mjpg: lost after 7 frames, and not there again at any of 2 attempts (--retries 0 ends without an error); " in error
    assert f"the 7 frames before are in {Path('runs/predict/exp')}" in error
    assert len(list((run / "labels").iterdir())) == 7
    assert cv2.VideoCapture(str(run / "live.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert (run / "log.txt").read_text().count("trying again in") == 3


def test_predict_keeps_what_it_has_when_a_picture_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures/1.png").write_bytes(b"broken")
    error = failed(capsys, "predict", "--weights", "small.safetensors", "--source", "pictures", "--save-txt")
    assert "1 of 3 pictures could not be read: pictures/1.png: not a readable picture" in error
    assert {path.name for path in (folder / "runs/predict/exp/labels").iterdir()} == {"0.txt", "2.txt"}


def test_a_picture_that_its_format_cannot_hold_does_not_stop_the_others(folder: Path) -> None:
    (folder / "wide").mkdir()
    data = cv2.imencode(".jpg", np.zeros((32, 20_000, 3), np.uint8))[1].tobytes()  # a JPEG under another name, wider than any WebP
    (folder / "wide/a.webp").write_bytes(data)
    write(folder / "wide/b.png", drawn_scene(0, 60, 90))
    assert main(["predict", "--weights", "small.safetensors", "--source", "wide"]) == 0
    run = folder / "runs/predict/exp"
    assert (run / "b.png").is_file()
    assert cv2.imread(str(run / "a.png")).shape == (32, 20_000, 3)
    assert not (run / "a.webp").exists()
    assert "a.webp: OpenCV cannot write 20000x32 pixels in this format; written as a.png" in (run / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--source", "none.jpg"], "none.jpg: no such file or folder"),
        (["--source", "empty.jpg"], "empty.jpg: the file is empty"),
        (["--source", "text.jpg"], "text.jpg: not a readable picture"),
        (["--source", "text.mp4"], "text.mp4: not a readable video"),
        (["--source", "pictures", "--conf", "2"], "conf is 2"),
        (["--source", "pictures", "--classes", "3"], "class 3 was asked for; this network has classes 0 to 2"),
        (["--source", "pictures", "--max-det", "0"], "--max-det is 0"),
        (["--source", "pictures", "--device", "0", "--runtime", "openvino"], "openvino runs on processors, and device is gpu"),
        (["--source", ""], "--source is empty, expected a picture"),
        (["source="], "source is empty, expected a picture"),
        (["--source", "97"], "camera 97: cannot be opened"),
        (["--source", "²"], "²: no such file or folder"),
        (["--source", "pictures", "--threads", "-3"], "threads is -3"),
        (["--source", "broken"], "2 of 2 pictures could not be read"),
    ],
)
def test_predict_refuses(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    (folder / "broken").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / "broken" / name).write_text("no picture")
    assert told in failed(capsys, "predict", "--weights", "small.safetensors", *arguments)
    assert not (folder / "runs").exists()
