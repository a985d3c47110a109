"""Exported pages: WebAssembly in Node and in Chromium finds what Python finds, in pictures, videos and a camera that is a file."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from octrim.cli import main
from octrim.data.pictures import network_input
from octrim.data.scenes import drawn_scene
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.evaluate.detections import Detections
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.shipped import film_of
from octrim.targets.opening import open_session
from octrim.targets.web.compiler import clang
from octrim.targets.web.folder import PAGE, check_size, write_folder
from octrim.targets.web.session import node
from tests.chromium import FOUND, Page, chromium
from tests.networks import lively_model
from tests.targets.c.material import assert_close, calm, picture, reference

HEIGHT, WIDTH = 96, 128


def _has_clang() -> bool:
    try:
        clang()
    except InputError:
        return False
    return True


needs_clang = pytest.mark.skipif(not _has_clang(), reason="no clang with lld on this machine")
needs_node = pytest.mark.skipif(node() is None, reason="no Node on this machine")
needs_chromium = pytest.mark.skipif(FOUND is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def model() -> Model:
    whole = calm(lively_model(yolov5_network("yolov5n", 3)))
    small = prune(whole, plan(whole, keep="1/8", align=8))
    return Model(small.network, small.tensors, ("a </script><b>", 'ü "quoted"', "c"), small.image_size)


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "web"
    path.mkdir()
    write_folder(model, path, HEIGHT, WIDTH, film_of("pong"))
    return path


@pytest.fixture(scope="module")
def detector(model: Model) -> Detector:
    """What every way of running is compared with."""
    found = Detector(model, (HEIGHT, WIDTH), conf=0.25, runtime="numpy")
    found.rectangular = False  # a page pads to its whole size
    return found


# Without a browser ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_clang
def test_the_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"index.html", "detector.wasm", "detector.js", "web.json", "README.md"}
    text = (folder / "index.html").read_text("utf-8")
    assert "a &lt;/script&gt;&lt;b&gt;" in text and text.count("</script>") == 2
    assert "http" not in text.split('id="data"')[0].replace("http-equiv", "")  # nothing to load
    assert "weights" not in (folder / "README.md").read_text().split("```js")[1]


@pytest.mark.slow
@needs_clang
@needs_node
def test_node_computes_what_the_reference_does(model: Model, folder: Path) -> None:
    session = open_session(folder)
    batch = np.concatenate([picture(HEIGHT, WIDTH, seed) for seed in range(3)])
    assert_close(session(batch), reference(model, batch))
    assert (session.info.names, session.info.size, session.info.network) == (model.names, (HEIGHT, WIDTH), model.network)
    session.close()
    with pytest.raises(InputError, match="session is closed"):
        session(batch)
    with pytest.raises(InputError, match="one thread"):
        open_session(folder, threads=2)


FIT = """
import fs from "node:fs";
import { Detector } from "./detector.js";
const detector = await Detector.open(fs.readFileSync(process.argv[2]));
const sizes = JSON.parse(fs.readFileSync("sizes.json")), bytes = new Uint8Array(fs.readFileSync("pictures"));
let at = 0;
const out = sizes.map(([height, width]) => {
  detector.fit({ width, height, data: bytes.subarray(at, (at += 4 * width * height)) });
  return Buffer.from(detector.input);
});
fs.writeFileSync("fitted", Buffer.concat(out));
fs.writeFileSync("names.json", JSON.stringify(detector.names));
"""


@pytest.mark.slow
@needs_clang
@needs_node
def test_pictures_are_fitted_in_as_in_python_bit_by_bit(model: Model, folder: Path, tmp_path: Path) -> None:
    """Noise of all sizes: smaller, larger, the same, halves of pixels, one row, one column."""
    generator = np.random.default_rng(0)
    sizes = [(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH), (1, 500), (500, 1), (333, 640), (37, 53), (1, 1), (480, 640), (97, 129), (720, 1280)]
    sizes += [(int(height), int(width)) for height, width in generator.integers(2, 300, (30, 2))]
    images = [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    (tmp_path / "pictures").write_bytes(b"".join(cv2.cvtColor(image, cv2.COLOR_BGR2RGBA).tobytes() for image in images))
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    (tmp_path / "fit.mjs").write_text(FIT)
    shutil.copy(PAGE / "detector.js", tmp_path)
    shutil.copy(PAGE / "package.json", tmp_path)
    subprocess.run([node() or "", "fit.mjs", str(folder / "detector.wasm")], cwd=tmp_path, check=True)
    fitted = np.frombuffer((tmp_path / "fitted").read_bytes(), np.uint8).reshape(len(images), HEIGHT, WIDTH, 3)
    for size, image, found in zip(sizes, images, fitted, strict=True):
        assert np.array_equal(found, network_input(image, HEIGHT, WIDTH)[0]), size
    assert tuple(json.loads((tmp_path / "names.json").read_text())) == model.names


@pytest.mark.slow
@needs_clang
@needs_node
def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    for name, content, told in (
        ("detector.wasm", b"damaged", "it is not what its web.json describes"),
        ("detector.wasm", None, "no such file"),
        ("web.json", b"{", "it is damaged"),
    ):
        copy = tmp_path / f"{name}{told[:5]}"
        shutil.copytree(folder, copy)
        (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
        with pytest.raises(InputError, match=told):
            open_session(copy)


def test_without_a_compiler(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, before anything takes time; and nothing is left."""
    model.save(tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["export", "--weights", "small.safetensors", "--format", "web", "--imgsz", "64"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "clang" in error and "apt install clang lld" in error
    assert not (tmp_path / "runs").exists()


def test_networks_that_no_page_carries() -> None:
    large = SimpleNamespace(tensors={"a": np.broadcast_to(np.float32(0), (26_000_000,))})
    with pytest.raises(InputError, match="100 MB of weights, and this network has 104 MB"):
        check_size(large)  # type: ignore[arg-type]


# In Chromium ---------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of one picture, as Chromium's stand-in for a camera reads it."""
    path = tmp_path_factory.mktemp("camera") / "camera.y4m"
    image = drawn_scene(7, 240, 320)
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).tobytes()
    path.write_bytes(b"YUV4MPEG2 W320 H240 F20:1 Ip A1:1 C420mpeg2\n" + 3 * (b"FRAME\n" + planes))
    return path


@pytest.fixture(scope="module")
def page(camera_file: Path) -> Iterator[Page]:
    camera = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera_file}")
    with chromium(*camera) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where a static server has the folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _loaded(page: Page) -> list[str]:
    """Addresses that the page asked for; a film that it carries is a blob of its own."""
    return [url for url in page.requests() if not url.startswith("blob:")]


def _agrees(found: list[dict[str, Any]], expected: Detections) -> None:
    """The same objects; of two with nearly the same confidence either may come first."""
    assert len(found) == len(expected)
    if not found:
        return
    names = ("x1", "y1", "x2", "y2", "confidence", "label")
    ours = np.array([[one[name] for name in names] for one in found])
    theirs = np.column_stack([expected.xyxy, expected.confidence, expected.class_id])
    apart = (np.abs(ours[:, None] - theirs[None]) / (0.05, 0.05, 0.05, 0.05, 2e-5, 0.5)).max(2)
    assert (apart.argmin(1)[apart.argmin(0)] == np.arange(len(found))).all()  # each has one of its own
    assert apart.min(0).max() < 1
    assert all(one["name"] == expected.names[one["label"]] for one in found)
    assert (np.diff(ours[:, 4]) <= 0).all()


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_a_picture_in_the_page(folder: Path, page: Page, detector: Detector, tmp_path: Path) -> None:
    """Opened as a file, without any server: the boxes are Python's, for several confidences."""
    image = cv2.GaussianBlur(drawn_scene(5, 240, 330), (0, 0), 2)
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    page.open(folder / "index.html", 1280)
    page.until("octrim.frames > 3")  # the example plays
    page.choose("#file", tmp_path / "picture.png")
    page.until("octrim.image?.width === 330 && document.getElementById('network').textContent !== '–'")
    _agrees(page.value("octrim.found"), detector.detect(image))
    for confidence in (0.02, 0.35):
        page.value(f"(() => {{ const one = document.getElementById('confidence'); one.value = {confidence}; one.oninput(); }})()")
        detector.options["conf"] = confidence
        _agrees(page.value("octrim.found"), detector.detect(image))
    detector.options |= {"conf": 0.02, "score_voting": True}
    _agrees(page.value("octrim.detector.objects(0.02, 0.45, true)"), detector.detect(image))
    detector.options |= {"conf": 0.25, "score_voting": False}
    assert _loaded(page) == [(folder / "index.html").as_uri()] and page.complaints() == []


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_a_camera(address: str, page: Page, detector: Detector, camera_file: Path) -> None:
    """From a static server: frames arrive one after the other, they are those of the camera, and their boxes are Python's."""
    page.open(address, 390, touch=True)
    page.value("document.getElementById('camera').click()")
    page.until("octrim.image?.width === 320 && octrim.frames > 5 && octrim.image.data[0] >= 0")
    page.value("document.getElementById('pause').click()")
    frame = page.value(
        "new Promise(done => setTimeout(() => { const now = octrim.image; let text = ''; "
        "for (const byte of now.data) text += String.fromCharCode(byte); done([now.height, now.width, btoa(text), octrim.found]) }, 300))"
    )
    height, width, text, found = frame
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
    image = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR)
    _agrees(found, detector.detect(image))
    planes = np.frombuffer(camera_file.read_bytes().split(b"FRAME\n")[1], np.uint8).reshape(360, 320)
    filmed = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    assert np.abs(image.astype(int) - filmed).mean() < 8
    assert _loaded(page) == [address] and page.complaints() == []
    shown = page.value("[...document.querySelectorAll('#pause, #example, #network')].map(one => [one.hidden, one.textContent])")
    assert shown[0] == [False, "Go on"] or shown[2][0] is False


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_files_that_the_browser_cannot_read(folder: Path, page: Page, tmp_path: Path) -> None:
    page.open(folder / "index.html", 800)
    page.until("octrim.frames > 0")
    for name in ("broken.png", "broken.webm"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        page.choose("#file", tmp_path / name)
        told = page.until("!document.getElementById('problem').hidden && document.getElementById('problem').textContent")
        assert told.startswith(f"{name}: this browser cannot")
        assert page.value("document.getElementById('pause').hidden") is (name == "broken.webm")
        assert "Reading" not in page.value("document.getElementById('summary').textContent")
        page.value("document.getElementById('problem').hidden = true")


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_large_and_transparent_pictures(folder: Path, page: Page, detector: Detector, tmp_path: Path) -> None:
    """A picture of 48 million pixels is looked at smaller; what is transparent is black; what is chosen last stays, however long the others take."""
    page.open(folder / "index.html", 390, touch=True)
    page.until("octrim.frames > 0")
    large = cv2.resize(drawn_scene(5, 240, 320), (8000, 6000), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    page.choose("#file", tmp_path / "large.jpg")
    page.until("document.getElementById('summary').textContent !== 'Reading large.jpg …' && octrim.image?.width > 400")
    width, height = page.value("[octrim.image.width, octrim.image.height]")
    assert 15e6 < width * height <= 16.01e6 and abs(width / height - 4 / 3) < 0.001
    assert len(page.value("octrim.found")) == len(detector.detect(large))

    clear = np.dstack([drawn_scene(6, 120, 160), np.full((120, 160), 255, np.uint8)])
    clear[:60, :, 3] = 0
    cv2.imwrite(str(tmp_path / "clear.png"), clear)
    page.choose("#file", tmp_path / "large.jpg")
    page.choose("#file", tmp_path / "clear.png")
    page.until("octrim.image?.width === 160")
    pixels = np.array(page.value("[...octrim.image.data]")).reshape(120, 160, 4)
    clear[:60, :, :3] = 0
    assert (pixels[:, :, 2::-1] == clear[:, :, :3]).all()
    page.value("new Promise(done => setTimeout(done, 1500))")
    assert page.value("octrim.image.width") == 160 and page.complaints() == []
    assert page.value("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_no_camera(address: str, tmp_path: Path) -> None:
    """One line, nothing to pause, and the page goes on with the next picture."""
    with chromium("--use-fake-device-for-media-stream") as page:
        page.call("Browser.setPermission", permission={"name": "camera"}, setting="denied")
        page.open(address, 390, touch=True)
        page.until("octrim.frames > 0")
        page.value("document.getElementById('camera').click()")
        told = page.until("!document.getElementById('problem').hidden && document.getElementById('problem').textContent")
        assert told == "No camera: it is not allowed on this page. The browser's settings can allow it."
        assert page.value("[document.getElementById('pause').hidden, document.getElementById('view').hidden]") == [True, False]
        cv2.imwrite(str(tmp_path / "next.png"), drawn_scene(5, 50, 70))
        page.choose("#file", tmp_path / "next.png")
        page.until("octrim.image?.width === 70 && document.getElementById('problem').hidden")
        assert page.complaints() == []


@pytest.mark.slow
@needs_clang
@needs_chromium
def test_the_page_on_a_desk_and_on_a_phone(folder: Path, page: Page) -> None:
    for width, dark in ((390, False), (390, True), (1280, False)):
        page.open(folder / "index.html", width, dark=dark, touch=width < 500)
        page.until("octrim.frames > 2")
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels are not enough"
        small = page.value(
            "[...document.querySelectorAll('button:not([hidden]), .button')].filter(one => one.getBoundingClientRect().height < 44).length"
        )
        assert small == 0, "what a finger touches is smaller than 44 pixels"
        assert page.value("document.getElementById('view').getBoundingClientRect().right <= innerWidth")
        assert page.complaints() == []
