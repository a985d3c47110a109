"""What `--source` can name besides pictures and folders: several videos, lists, addresses, and a stream that drops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data import streams
from octrim.data.scenes import drawn_scene
from octrim.data.sources import open_source
from octrim.data.streams import Frame
from octrim.errors import InputError
from tests.data.rtsp import rtsp_server
from tests.data.test_pictures import make_video, write


def jpeg(level: int) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a web server on this machine that answers with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def dropping(parts: list[list[int]], refused: dict[int, int]) -> Callable[[BaseHTTPRequestHandler], None]:
    """A stream of JPEGs that ends after each part, and goes on with the next one at the next connection.

    refused: how many connections are turned away before a part.
    """
    state = {"part": 0}
    left = dict(refused)
    lock = threading.Lock()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            part = state["part"]
            if part >= len(parts) or left.get(part, 0):
                left[part] = left.get(part, 0) - 1
                handler.send_error(503)
                return
            state["part"] += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for level in parts[part]:
            data = jpeg(level)
            handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
        handler.wfile.write(b"--frame\r\n")

    return answer


PARTS = [[10, 20, 30, 40], [50, 60, 70, 80, 90], [100, 110, 120]]


def levels(frames: list[Frame]) -> list[int]:
    return [round(float(frame.image.mean()) / 10) * 10 for frame in frames if frame.image is not None]


def test_a_stream_that_drops_twice_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PAUSE", 0.01)
    pauses: list[float] = []
    monkeypatch.setattr(streams.time, "sleep", pauses.append)
    said: list[str] = []
    with server(dropping(PARTS, {1: 2})) as address:
        frames = list(open_source(f"{address}/live.mjpg", retries=3, report=said.append))
    assert levels(frames) == [level for part in PARTS for level in part]
    assert [frame.index for frame in frames] == [*range(12), 12]
    last = frames[-1]
    assert last.image is None and "lost after 12 frames, and not there again at any of 3 attempts" in (last.error or "")
    # the first loss takes three attempts, with growing pauses; then the count starts anew
    assert pauses == [0.01, 0.02, 0.04, 0.01, 0.01, 0.02, 0.04]
    stream = f"{address}/live.mjpg"
    assert said[:6] == [
        *(f"{stream}: lost after 4 frames; trying again in {pause} s ({attempt} of 3)" for attempt, pause in enumerate((0.01, 0.02, 0.04), 1)),
        f"{stream}: is there again",
        f"{stream}: lost after 9 frames; trying again in 0.01 s (1 of 3)",
        f"{stream}: is there again",
    ]


def test_without_retries_a_stream_ends_and_says_so() -> None:
    said: list[str] = []
    with server(dropping(PARTS, {})) as address:
        frames = list(open_source(f"{address.replace('//', '//user:secret@')}/live", retries=0, report=said.append))
    assert levels(frames) == PARTS[0]
    assert len(said) == 1 and said[0].endswith("/live: ended after 4 frames") and "secret" not in said[0]


def test_a_stream_that_never_opens_is_an_error() -> None:
    with server(dropping([], {})) as address, pytest.raises(InputError, match=r"/live: not there, or no video or stream"):
        open_source(f"{address}/live", retries=3)


def test_an_rtsp_stream_that_drops_twice_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera's own protocol: MPEG-4 in RTP, after the handshake of RTSP."""
    monkeypatch.setattr(streams.time, "sleep", lambda seconds: None)
    images = [drawn_scene(number, 96, 128) for number in range(5)]
    said: list[str] = []
    with rtsp_server(images, [3, 5, 2]) as address:
        source = open_source(address, retries=2, report=said.append)
        assert source.total is None
        frames = list(source)
    assert [frame.index for frame in frames] == [*range(10), 10]
    for frame, truth in zip(frames, [*images[:3], *images, *images[:2]], strict=False):
        assert frame.image is not None
        assert float(np.abs(frame.image.astype(np.float64) - truth).mean()) < 15  # an encoder of a low rate
    assert "lost after 10 frames, and not there again at any of 2 attempts (--retries 0 ends without an error)" in (frames[-1].error or "")
    assert sum(line.endswith("is there again") for line in said) == 2


def test_a_video_without_a_readable_frame(tmp_path: Path) -> None:
    """Its header is whole and its frames are gone."""
    data = bytearray(make_video(tmp_path / "a.avi", 3).read_bytes())
    start = data.index(b"movi") + 4
    data[start : data.index(b"idx1")] = bytes(data.index(b"idx1") - start)
    (tmp_path / "a.avi").write_bytes(bytes(data))
    try:
        frames = list(open_source(tmp_path / "a.avi"))
    except InputError as error:  # some builds of FFmpeg do not open it at all
        assert "not a readable video" in str(error)
        return
    assert [frame.error for frame in frames] == [f"{tmp_path / 'a.avi'}: a video without a single readable frame"]


def test_every_second_frame(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / "a.avi", 11), stride=2)
    frames = list(source)
    assert ([frame.index for frame in frames], source.total, source.fps) == ([0, 2, 4, 6, 8, 10], 6, 12.5)
    with pytest.raises(InputError, match="expected 1 or more"):
        open_source(tmp_path / "a.avi", stride=0)


def test_folders_and_globs_of_videos(tmp_path: Path) -> None:
    for name, count in (("b.avi", 3), ("a.avi", 2)):
        make_video(tmp_path / name, count)
    write(tmp_path / "z.png", drawn_scene(0, 20, 30))
    (tmp_path / "._z.png").write_bytes(b"what macOS keeps of z.png")
    (tmp_path / "broken.avi").write_bytes(b"no video")
    frames = list(open_source(tmp_path))
    names = [(Path(frame.source).name, frame.index) for frame in frames if frame.error is None]
    assert names == [("z.png", None), ("a.avi", 0), ("a.avi", 1), ("b.avi", 0), ("b.avi", 1), ("b.avi", 2)]
    assert [frame.error for frame in frames if frame.error] == [f"{tmp_path / 'broken.avi'}: not a readable video"]
    assert [Path(frame.source).name for frame in open_source(str(tmp_path / "?.avi"))] == ["a.avi"] * 2 + ["b.avi"] * 3
    assert open_source(tmp_path).pictures == (tmp_path / "z.png",)


def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos/a.avi", 2)
    make_video(tmp_path / "videos/b.avi", 4)
    write(tmp_path / "one.png", drawn_scene(0, 20, 30))
    (tmp_path / "list.txt").write_text("# what to look at\none.png\n\nvideos/a.avi\nvideos/b.avi\n")
    monkeypatch.chdir(tmp_path.parent)  # names are looked for beside the list, too
    found = [(Path(frame.source).name, frame.index) for frame in open_source(tmp_path / "list.txt")]
    assert found == [("one.png", None), ("a.avi", 0), ("a.avi", 1), *(("b.avi", index) for index in range(4))]
    (tmp_path / "both.streams").write_text("videos/a.avi\nvideos/b.avi\n")
    found = [(Path(frame.source).name, frame.index) for frame in open_source(tmp_path / "both.streams")]
    assert found == [("a.avi", 0), ("b.avi", 0), ("a.avi", 1), ("b.avi", 1), ("b.avi", 2), ("b.avi", 3)]
    for text, told in (("", "lists nothing"), ("none.jpg", "none.jpg: no such file"), ("a\0b", "not a text file"), ("\udcff", "no such file")):
        (tmp_path / "list.txt").write_text(text, "utf-8", "surrogateescape")
        with pytest.raises(InputError, match=told):
            open_source(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        ("照片\\猫 1.png", "gbk"),
        ('"照片/猫 1.png"', "utf-8"),
        ("照片/猫 1.png", "utf-16"),
        ("%E7%85%A7%E7%89%87/%E7%8C%AB%201.png", "ascii"),
        ("C:%s\\照片\\猫 1.png", "utf-8-sig"),
    ],
)
def test_lists_written_elsewhere(tmp_path: Path, line: str, encoding: str) -> None:
    """As the lists of data sets are: Windows' slashes and drives, quotes, escapes, other encodings than UTF-8."""
    (tmp_path / "照片").mkdir()
    write(tmp_path / "照片" / "猫 1.png", drawn_scene(0, 20, 30))
    folder = str(tmp_path).replace("/", "\\")
    (tmp_path / "list.txt").write_bytes(f"{line % folder if '%s' in line else line}\r\n".encode(encoding))
    (frame,) = open_source(tmp_path / "list.txt")
    assert frame.error is None
    assert Path(frame.source) == tmp_path / "照片" / "猫 1.png"


def test_a_source_in_another_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But nothing is looked for elsewhere than where it is named."""
    (tmp_path / "my pictures").mkdir()
    write(tmp_path / "my pictures" / "a.png", drawn_scene(0, 20, 30))
    monkeypatch.chdir(tmp_path)
    for source in ("my%20pictures\\a.png", "'my pictures/a.png'", "my pictures\\"):
        assert [Path(part).name for part in map(str, open_source(source).parts)] == ["a.png"]
    for source in ("gone/my pictures/a.png", "C:\\gone\\my pictures\\a.png"):
        with pytest.raises(InputError, match="no such file or folder"):
            open_source(source)


def test_a_picture_from_the_web() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if not handler.path.startswith("/a.jpg"):
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(jpeg(70))

    with server(answer) as address:
        frames = list(open_source(f"{address}/a.jpg?size=large"))
        assert levels(frames) == [70] and frames[0].source == f"{address}/a.jpg?size=large"
        assert [frame.error for frame in open_source(f"{address}/b.jpg")] == [f"{address}/b.jpg: the server answers 404 (Not Found)"]
    [frame] = open_source(f"{address}/a.jpg")  # nobody is there any more
    assert frame.image is None and "cannot be fetched" in (frame.error or "")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("screen", "screen: OcTrim does not read screens; record it"),
        ("screen 0 100 100 512 256", "screen: OcTrim does not read screens; record it"),
        ("https://youtu.be/LNwODJXcvt4", "a page of YouTube, not a video; give what `yt-dlp -g"),
        ("https://www.youtube.com/watch?v=LNwODJXcvt4", "a page of YouTube"),
    ],
)
def test_sources_that_are_answered_with_another_way(source: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_source(source)


def test_addresses_of_files_here_are_files(tmp_path: Path) -> None:
    photo = tmp_path / "a b.png"
    cv2.imwrite(str(photo), np.zeros((4, 6, 3), np.uint8))
    assert open_source(photo.as_uri()).parts == (str(photo),)
    with pytest.raises(InputError, match="no such file"):
        open_source("file:///no/such/picture.png")
