"""Recordings: as many frames as the game has had sixtieths of a second, in the right colours, and no half files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.errors import InputError
from octrim.pong.recording import FPS, Recording

RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def frames(path: Path) -> list[np.ndarray]:
    """RGB."""
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == FPS
    result = []
    while (read := capture.read())[0]:
        result.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return result


def test_frames_follow_the_time_of_the_game(tmp_path: Path) -> None:
    path = tmp_path / "game.mp4"
    recording = Recording(path, 64, 48)
    times = [0, 1 / 60, 1 / 60, 1 / 60, 2 / 60, 10 / 60, 10.4 / 60, 11 / 60]  # a pause, a slow frame, and one too many
    for index, time in enumerate(times):
        recording.add(picture(BLUE if index == 5 else RED), time)
    assert recording.frames == 12
    assert not path.exists()
    recording.close()
    shown = frames(path)
    assert len(shown) == 12
    colours = [frame.mean(axis=(0, 1)) for frame in shown]
    for index, colour in enumerate(colours):
        assert np.abs(colour - (BLUE if 3 <= index <= 10 else RED)).max() < 25, (index, colour)
    assert [one.name for one in tmp_path.iterdir()] == ["game.mp4"]


def test_a_minute_has_as_many_frames_as_it_should(tmp_path: Path) -> None:
    """In steps of the game; sums of 1/240 are not exact."""
    recording = Recording(tmp_path / "a.mp4", 16, 16)
    image = picture(RED, 16, 16)
    for step in range(0, 60 * 240 + 1, 3):
        recording.add(image, step / 240)
    recording.close()
    assert recording.frames == 60 * FPS + 1


def test_a_resized_window_is_scaled_to_the_first_size(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", 64, 48)
    recording.add(picture(RED), 0)
    recording.add(picture(RED, 200, 150), 1 / 60)
    recording.close()
    assert [frame.shape for frame in frames(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2


def test_an_older_recording_is_replaced_only_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    recording = Recording(path, 64, 48)
    recording.add(picture(RED), 0.5)
    assert path.read_bytes() == b"older"
    recording.close()
    assert len(frames(path)) == 31


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.avi", r"a\.avi: recordings are MP4; expected a name that ends in \.mp4"), ("no/a.mp4", "there is no folder"), ("folder.mp4", "is a folder")],
)
def test_names_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=message):
        Recording(tmp_path / name, 64, 48)
    assert [one.name for one in tmp_path.iterdir()] == ["folder.mp4"]
