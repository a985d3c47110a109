"""The target `ncnn` against the reference in float64: random tables, published networks, files as ncnn and people read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings

from octrim.backends.numpy import decode
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.shipped import film_of
from octrim.targets.ncnn.folder import BIN, HEADER, PARAM, write_folder
from octrim.targets.ncnn.graph import ncnn_files
from octrim.targets.opening import open_session
from tests.networks import ACTIVATIONS, lively_model, random_networks, variant
from tests.targets.c.material import (
    PUBLISHED,
    assert_activation,
    assert_published_logits,
    assert_within,
    calm,
    one_level,
    picture,
    reference,
    reference_logits,
)

ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed (extra octrim[ncnn])")


def blobs(model: Model, batch: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Blobs of the first picture by name, as a program asks ncnn for them."""
    text, weights = ncnn_files(model, *batch.shape[1:3])
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param_mem(text) == 0
    net.load_model_mem(weights)
    run = net.create_extractor()
    pixels = ncnn.Mat.from_pixels(batch[0], ncnn.Mat.PixelType.PIXEL_RGB, batch.shape[2], batch.shape[1])
    pixels.substract_mean_normalize([], [1 / 255] * 3)
    run.input("images", pixels)
    return [np.array(run.extract(name)[1]) for name in names]


def logits(model: Model, batch: np.ndarray) -> list[np.ndarray]:
    return blobs(model, batch, list(model.network.rows[-1].inputs))


@pytest.mark.slow
@settings(max_examples=50)
@given(network=random_networks())
def test_random_networks(network: Network) -> None:
    model = calm(lively_model(network, seed=1))
    batch = picture(32, 64)
    assert_within(open_session(model, "ncnn", threads=1)(batch), reference(model, batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name: str) -> None:
    assert_published_logits(name, logits)


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "align"), [("1/8", 8), ("1/3", 1)])
def test_cut_networks(keep: str, align: int) -> None:
    model = variant("yolov5n")
    model = calm(prune(model, plan(model, keep=keep, align=align)))
    batch = np.concatenate([picture(96, 64), picture(96, 64, seed=1)])
    assert_within(open_session(model, "ncnn", threads=1)(batch), reference(model, batch))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str | None) -> None:
    assert_activation(activation, logits)


def test_logits_and_boxes_are_blobs_of_their_names() -> None:
    """What docs/ncnn.md tells a programmer: pixels in, logits by the names of Detect's rows, boxes as output0."""
    model = calm(variant("yolov5n"))
    batch = picture(64, 96)
    *heads, boxes = blobs(model, batch, ["model.24.m.0", "model.24.m.1", "model.24.m.2", "output0"])
    expected = reference_logits(model, batch)
    for one, other in zip(heads, expected, strict=True):
        np.testing.assert_allclose(one, other[0], rtol=1e-4, atol=1e-4)
    assert_within(boxes[None], decode(model.network, expected))


def test_no_blob_has_two_readers() -> None:
    """ncnn frees a blob behind its reader; a map that is added to itself and read again needs a copy for each."""
    rows = (
        Row("a", "conv", ("images",), 4, 3, 2, 1, bias=True, activation="silu"),
        Row("twice", "add", ("a", "a")),
        Row("all", "concat", ("a", "twice", "a", "twice")),
    )
    model = calm(lively_model(one_level(*rows, last="all", cell=2)))
    lines = ncnn_files(model, 16, 16)[0].splitlines()
    assert lines[0] == "7767517"
    layers = [line.split() for line in lines[2:]]
    read = [name for layer in layers for name in layer[4 : 4 + int(layer[2])]]
    made = [name for layer in layers for name in layer[4 + int(layer[2]) : 4 + int(layer[2]) + int(layer[3])]]
    assert lines[1] == f"{len(layers)} {len(made)}"
    assert len(set(read)) == len(read) and len(set(made)) == len(made)
    assert set(made) - set(read) == {"output0"}
    batch = picture(16, 16)
    assert_within(open_session(model, "ncnn", threads=1)(batch), reference(model, batch))


def test_names_longer_than_ncnn_reads() -> None:
    """Letters outside of ASCII take several bytes each, and ncnn's buffers hold 255."""
    long = "ä" * 200
    model = calm(lively_model(one_level(Row(long, "conv", ("images",), 4, 3, 2, 1, bias=True, activation="silu"), last=long, cell=2)))
    assert max(len(word.encode()) for word in ncnn_files(model, 16, 16)[0].split()) < 255
    batch = picture(16, 16)
    assert_within(open_session(model, "ncnn", threads=1)(batch), reference(model, batch))


# Folders -------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Model:
    model = variant("yolov5n")
    return calm(prune(model, plan(model, keep="1/8", align=8)))


@pytest.fixture(scope="module")
def folder(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ncnn")
    write_folder(small, path, 64, 96, "fp32")
    return path


def test_half_weights(small: Model, folder: Path, tmp_path: Path) -> None:
    write_folder(small, tmp_path, 64, 96, "fp16")
    assert (tmp_path / PARAM).read_bytes() == (folder / PARAM).read_bytes()
    assert (tmp_path / BIN).stat().st_size < 0.6 * (folder / BIN).stat().st_size
    batch = picture(64, 96)
    session = open_session(tmp_path)
    assert session.info.precision == "fp16"
    found, expected = session(batch), reference(small, batch)
    assert np.abs(found - expected)[..., 4:].max() < 5e-3
    assert not np.array_equal(found, open_session(folder)(batch))
    assert np.array_equal(open_session(small, "ncnn", "fp16")(batch), found)
    with pytest.raises(InputError, match="was exported in fp32; ncnn cannot run it in fp16"):
        open_session(folder, precision="fp16")


def test_the_header_says_what_lies_beside_it(small: Model, folder: Path) -> None:
    described = json.loads((folder / HEADER).read_text())
    assert described["input"] == {"blob": "images", "shape": [3, 64, 96], "values": "RGB, 0 to 1"}
    assert described["output"]["shape"] == [3 * (8 * 12 + 4 * 6 + 2 * 3), 8]
    assert [level["blob"] for level in described["logits"]] == ["model.24.m.0", "model.24.m.1", "model.24.m.2"]
    assert [level["shape"] for level in described["logits"]] == [[24, 8, 12], [24, 4, 6], [24, 2, 3]]
    assert [level["stride"] for level in described["logits"]] == [8, 16, 32]
    assert described["logits"][0]["anchors"] == [[10, 13], [16, 30], [33, 23]]
    for path in (folder, folder / PARAM):
        session = open_session(path)
        assert (session.info.names, session.info.size, session.info.network) == (small.names, (64, 96), small.network)
    batch = np.concatenate([picture(64, 96), picture(64, 96, seed=1)])
    assert_within(open_session(folder)(batch), reference(small, batch))
    assert open_session(folder)(batch[:0]).shape == (0, 378, 8)


def test_another_param_file_beside_an_export_is_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "ncnn")
    shutil.copyfile(folder / PARAM, tmp_path / "ncnn" / "mine.param")
    with pytest.raises(InputError, match=r"mine\.param: OcTrim opens model\.param"):
        open_session(tmp_path / "ncnn" / "mine.param")


def test_two_exports_are_the_same_bytes(small: Model, folder: Path, tmp_path: Path) -> None:
    write_folder(small, tmp_path, 64, 96, "fp32")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_damaged_folders_are_refused_before_ncnn_sees_them(folder: Path, tmp_path: Path) -> None:
    def damaged(name: str, content: bytes | None) -> Path:
        copy = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        return copy

    weights, header = (folder / BIN).read_bytes(), json.loads((folder / HEADER).read_text())
    cases = [
        (damaged(BIN, weights[:-4]), r"model.bin: it is not what its ncnn.json describes: changed, cut off, or of another export"),
        (damaged(PARAM, b"7767517\n1 1\nInput a 0 1 a\n"), r"model.param: it is not what its ncnn.json describes"),
        (damaged(BIN, None), r"model.bin: no such file"),
        (damaged(HEADER, None), r"ncnn.json: no such file"),
        (damaged(HEADER, b"{"), r"ncnn.json: it is damaged"),
        (damaged(HEADER, b"[]"), r"ncnn.json: it is damaged"),
        (damaged(HEADER, json.dumps({**header, "input": {"shape": [3, "x", 5]}}).encode()), r"ncnn.json: it is damaged"),
        (damaged(HEADER, json.dumps({**header, "octrim": "{}"}).encode()), r"its octrim metadata is damaged"),
    ]
    for path, told in cases:
        with pytest.raises(InputError, match=told):
            open_session(path)
    other = damaged(HEADER, json.dumps({**header, "input": {"shape": [3, 128, 128]}}).encode())
    with pytest.raises(InputError, match="ncnn cannot run it on pictures of 128x128"):
        open_session(other)(picture(128, 128))
    with pytest.raises(InputError, match="no such file"):
        open_session(tmp_path / "nothing.param")


# The program in docs/ncnn.md ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's program, compiled for the network that comes with OcTrim. The compiler finds ncnn by itself, or by CPATH and LIBRARY_PATH."""
    folder = tmp_path_factory.mktemp("program")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (folder / "none.cpp").write_text("#include <ncnn/net.h>\nint main() { ncnn::Net net; return net.opt.num_threads < 0; }\n")
    options = ["-std=c++17", "-O1", "-fopenmp"]
    if subprocess.run([compiler, *options, "none.cpp", "-lncnn"], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("ncnn's headers and library are not installed (libncnn-dev, or CPATH and LIBRARY_PATH name them)")
    page = (Path(__file__).parents[2] / "docs" / "ncnn.md").read_text("utf-8")
    found = re.search(r"```cpp\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (folder / "detect.cpp").write_text(found[1].replace("width = 320, height = 320", "width = 256, height = 256"))
    command = [compiler, *options, "-Wall", "-Wextra", "-Werror", "detect.cpp", "-lncnn", "-o", "detect"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "detect"


@pytest.mark.slow
def test_the_program_finds_the_boxes_that_python_finds(program: Path, tmp_path: Path) -> None:
    """In frames of a recorded game, whole and cut to other shapes, which are scaled down, scaled up and framed."""
    write_folder(load("pong"), tmp_path, 256, 256, "fp32")
    detector = Detector(tmp_path)
    video = cv2.VideoCapture(str(film_of("pong")))
    frames = [video.read()[1] for _ in range(120)][::20]
    compared = 0
    for image in (piece for frame in frames for piece in (frame, frame[:, :200], frame[40:200, 40:300])):
        cv2.imwrite(str(tmp_path / "picture.ppm"), image)
        expected = detector.detect(np.ascontiguousarray(image))
        done = subprocess.run([program, PARAM, BIN, "picture.ppm"], cwd=tmp_path, capture_output=True, text=True, check=True)
        ours = np.array([[float(value) for value in line.split()] for line in done.stdout.splitlines()]).reshape(-1, 6)
        ours[:, 2:] = ours[:, 2:].clip(0, [image.shape[1], image.shape[0]] * 2)  # the program does not end boxes where the picture ends
        theirs = np.column_stack([expected.class_id, expected.confidence, expected.xyxy])
        assert ours.shape == theirs.shape
        compared += len(theirs)
        assert (np.abs(ours - theirs) < (0.5, 2e-4, 0.02, 0.02, 0.02, 0.02)).all()
    assert compared > 20
    wrong = subprocess.run([program, PARAM, BIN, "none.ppm"], cwd=tmp_path, capture_output=True, check=False)
    assert wrong.returncode == 2
