"""The exported folder: what the files hold, as a C programmer would compile and use them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from octrim.data.scenes import drawn_scene
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.c.compiler import has_compiler
from octrim.targets.c.folder import write_folder
from octrim.targets.c.session import CFolderSession, CSession
from octrim.targets.c.source import comment, quoted
from tests.networks import lively_model
from tests.targets.c.material import assert_close, calm, compiler_or_skip, picture, reference

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_compiler(), reason="no C compiler")]

STRICT = ["-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]


@pytest.fixture(scope="module")
def small() -> Model:
    model = calm(lively_model(yolov5_network("yolov5n", 3)))
    return prune(model, plan(model, keep="1/8", align=8))


@pytest.fixture(scope="module")
def folder(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("c")
    write_folder(small, path, 64, 96)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A network whose weights stand in a file of their own."""
    model = calm(lively_model(yolov5_network("yolov5n", 3)))
    path = tmp_path_factory.mktemp("large")
    write_folder(model, path, 64, 64)
    return model, path


def compiled(folder: Path, *arguments: str, compiler: str = "cc") -> None:
    done = subprocess.run([compiler_or_skip(compiler), *STRICT, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]


def test_the_files(folder: Path, large: tuple[Model, Path]) -> None:
    names = {"detector.h", "detector.c", "detector.json", "example.c", "Makefile", "README.md"}
    assert {path.name for path in folder.iterdir()} >= names
    assert not (folder / "weights.bin").exists()
    assert (large[1] / "weights.bin").stat().st_size > 2_000_000
    source = (folder / "detector.c").read_text("ascii")
    assert '#include "' not in source.replace('#include "detector.h"', "")
    assert "@" not in source and "@" not in (folder / "README.md").read_text() and "@" not in (folder / "detector.h").read_text()
    assert max(map(len, (folder / "README.md").read_text().splitlines())) < 400
    assert "/* model.0: stem 6x6, 3 -> 8, stride 2, silu */" in source
    assert "weights.bin` |" not in (folder / "README.md").read_text() and "weights.bin` |" in (large[1] / "README.md").read_text()


def test_a_detector_finds_the_same_boxes_in_every_way_of_running(small: Model, folder: Path) -> None:
    """From Python: the model in C and the exported folder, beside NumPy."""
    scene = drawn_scene(3)
    ways: list[tuple[Model | Path, str | None]] = [(small, "numpy"), (small, "c"), (folder, None)]
    found = [Detector(weights, (64, 96), conf=0.01, runtime=runtime).predict(scene)[0] for weights, runtime in ways]
    expected = found[0]
    assert len(expected) > 0
    for one in found[1:]:
        assert one.class_id.tolist() == expected.class_id.tolist()
        np.testing.assert_allclose(one.confidence, expected.confidence, rtol=0, atol=2e-4)
        np.testing.assert_allclose(one.xyxy, expected.xyxy, rtol=0, atol=0.1)


def test_two_exports_are_the_same_bytes(small: Model, folder: Path, tmp_path: Path) -> None:
    write_folder(small, tmp_path, 64, 96)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_an_export_of_other_weights_differs_in_its_weights_only(small: Model, folder: Path, tmp_path: Path) -> None:
    """Nothing but numbers: the tables of weights, and their checksum."""
    changed = replace(small, tensors={name: tensor * np.float32(1.25) for name, tensor in small.tensors.items()})
    write_folder(changed, tmp_path, 64, 96)

    def bare(path: Path) -> str:
        text = re.sub(r"compiled_weights\[\] = \{.*?\};", "", (path / "detector.c").read_text(), flags=re.DOTALL)
        return re.sub(r"WEIGHTS_CHECKSUM 0x\w+", "", text)

    assert bare(tmp_path) == bare(folder)


WARNED = {"native": ["-O1", "-march=native"], "plain": ["-O1"], "alone": ["-O0", "-DOCTRIM_NO_THREADS"], "bare": ["-O0", "-DOCTRIM_FREESTANDING"]}
"""Ways to compile detector.c. Warnings that need to know how values flow come with -O1; the others differ in what is left out of the code."""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("way", WARNED)
def test_no_warning(folder: Path, tmp_path: Path, compiler: str, way: str) -> None:
    compiled(folder, *WARNED[way], "-c", "-o", str(tmp_path / "detector.o"), "detector.c", compiler=compiler)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning_where_weights_overflowed(small: Model, tmp_path: Path, compiler: str) -> None:
    """What is no number is no literal of C."""
    last = f"{sorted(small.network.heads)[0]}.bias"
    bias = small.tensors[last].copy()
    bias[:3] = (np.inf, -np.inf, np.nan)
    write_folder(replace(small, tensors={**small.tensors, last: bias}), tmp_path, 64, 96)
    text = (tmp_path / "detector.c").read_text()
    assert all(f" {value}," in text for value in ("1.0f / 0.0f", "-1.0f / 0.0f", "0.0f / 0.0f"))
    compiled(tmp_path, "-O0", "-c", "-o", str(tmp_path / "detector.o"), "detector.c", compiler=compiler)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning_in_the_example(folder: Path, tmp_path: Path, compiler: str) -> None:
    compiled(folder, "-O1", "-c", "-o", str(tmp_path / "example.o"), "example.c", compiler=compiler)


def test_a_program_in_cpp(folder: Path, tmp_path: Path) -> None:
    """detector.c is compiled as C, and a C++ program that includes detector.h links with it."""
    (tmp_path / "main.cpp").write_text(
        '#include "detector.h"\nint main() { detector *d; return detector_open(nullptr, &d) || !detector_names[0]; }\n'
    )
    compiled(folder, "-O1", "-c", "-o", str(tmp_path / "detector.o"), "detector.c")
    command = [compiler_or_skip("g++"), "-Wall", "-Werror", "-I", str(folder), "-pthread", "-o", "program", "main.cpp", "detector.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["./program"], cwd=tmp_path, check=True)


def test_the_session_of_a_folder(small: Model, folder: Path) -> None:
    session = CFolderSession(folder, "fp32", 2)
    batch = np.concatenate([picture(64, 96, seed) for seed in range(3)])
    found = session(batch)
    assert_close(found, reference(small, batch))
    assert np.array_equal(found, CSession(small, "fp32", 1)(batch))
    assert (session.info.names, session.info.size, session.info.stride) == (small.names, (64, 96), 32)
    assert session.info.network == small.network
    session.close()


def test_the_session_of_a_folder_with_a_weights_file(large: tuple[Model, Path]) -> None:
    model, path = large
    batch = picture(64, 64)
    assert_close(CFolderSession(path, "fp32", 1)(batch), reference(model, batch))


@pytest.fixture(scope="module")
def example(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as its Makefile builds it, of a network that finds things."""
    path = tmp_path_factory.mktemp("example")
    write_folder(small, path, 64, 96)
    subprocess.run(["make", "example", "FLAGS=-O1"], cwd=path, check=True, capture_output=True) if shutil.which("make") else compiled(
        path, "-O1", "-o", "example", "example.c", "detector.c"
    )
    return path


@pytest.mark.parametrize("voting", [False, True])
def test_the_example_finds_what_octrim_finds(small: Model, example: Path, tmp_path: Path, voting: bool) -> None:
    """Letterbox and suppression in C against OcTrim's, on a picture that is wider, and one that is higher than the network's."""
    from octrim.data.pictures import letterbox
    from octrim.evaluate.nms import non_max_suppression

    for height, width in ((90, 300), (200, 90), (64, 96)):
        image = cv2.GaussianBlur(drawn_scene(5, height, width), (0, 0), 2)
        ppm = tmp_path / "a.ppm"
        ppm.write_bytes(b"P6\n# a comment\n%d %d\n255\n" % (width, height) + cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes())
        fitted, box = letterbox(image, 64, 96)
        predictions = reference(small, cv2.cvtColor(fitted, cv2.COLOR_BGR2RGB)[None])[0].astype(np.float32)
        confidence = float(np.sort((predictions[:, 5:] * predictions[:, 4:5]).max(1))[-40])
        expected = non_max_suppression(predictions, confidence, 0.45, score_voting=voting)
        assert len(expected) >= 3
        command = [str(example / "example"), str(ppm), f"{confidence:.6f}", *["1", "vote"] * voting]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        corners = box.to_picture(expected[:, :4], height, width)
        found = [(line.split()[0], *map(float, line.split()[1:])) for line in lines]
        matched = 0
        for (confidence, label), xyxy in zip(expected[:, 4:].tolist(), corners.tolist(), strict=True):
            near = [f for f in found if f[0] == small.names[int(label)] and np.abs(np.subtract(f[2:], xyxy)).max() < 0.05 * max(height, width)]
            matched += any(abs(f[1] - confidence) < 0.05 for f in near)
        assert matched >= 0.8 * len(expected) and len(found) <= 1.25 * len(expected)


def test_the_examples_options_may_be_left_out(example: Path, tmp_path: Path) -> None:
    ppm = tmp_path / "a.ppm"
    image = cv2.GaussianBlur(drawn_scene(5, 90, 300), (0, 0), 2)
    ppm.write_bytes(b"P6 300 90 255\n" + image.tobytes())

    def found(*options: str) -> str:
        return subprocess.run([str(example / "example"), str(ppm), *options], check=True, capture_output=True, text=True).stdout

    plain, voted = found("0.0001"), found("0.0001", "1", "vote")
    assert plain and plain != voted
    assert found("0.0001", "1") == found("0.0001", "2") == plain
    assert found("0.0001", "vote") == voted
    assert found("vote") == found("0.25", "1", "vote") and found() == found("0.25")


def test_the_example_refuses(example: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 10 10 255\nshort")
    (tmp_path / "b.ppm").write_bytes(b"P6 10 10 255\n" + bytes(300))
    wrong = ["0.25 1 votes", "0.25 votes", "25", "-0.1", "nan", "0.25x", "0.25 0", "0.25 1.5", "0.25 1 vote 1"]
    for arguments in ([], ["none.ppm"], ["a.ppm"], *(["b.ppm", *options.split()] for options in wrong)):
        done = subprocess.run([str(example / "example"), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, arguments
        assert ("usage:" in done.stderr) == (len(arguments) != 1)


PROGRAM = """
#define OCTRIM_NAME faces
#include "faces/detector.h"
#undef OCTRIM_NAME
#define OCTRIM_NAME plates
#include "plates/detector.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    static uint8_t picture[64 * 96 * 3];
    static float one[faces_boxes * faces_values], other[plates_boxes * plates_values], again[faces_boxes * faces_values];
    for (int i = 0; i < 64 * 96 * 3; i++) picture[i] = (uint8_t)(i * 7);
    size_t bytes = faces_memory(2);
    char *memory = malloc(bytes + 1);
    faces_options options = {0};
    options.threads = 2;
    options.memory = memory + 1;
    options.memory_bytes = bytes - 1;
    faces *a, *b;
    plates *c;
    plates_options file = {0};
    file.weights_path = "plates/weights.bin";
    if (faces_open(&options, &a) != faces_small_memory) return 1;
    options.memory_bytes = bytes;
    if (faces_open(&options, &a) || faces_open(NULL, &b) || plates_open(&file, &c)) return 2;
    faces_run(a, picture, one);
    plates_run(c, picture, other);
    faces_run(b, picture, again);
    if (memcmp(one, again, sizeof one)) return 3;
    options.threads = 65;
    faces *d;
    if (faces_open(&options, &d) != faces_bad_threads) return 4;
    file.weights_path = NULL;
    plates *e;
    int error = plates_open(&file, &e);
    if (error != plates_weights_missing || e) return 5;
    puts(plates_message(error));
    static _Alignas(8) char contents[8000000];
    FILE *stream = fopen("plates/weights.bin", "rb");
    file.weights = contents + 4; /* a multiple of 4, and of nothing more */
    file.weights_bytes = fread(contents + 4, 1, sizeof contents - 4, stream);
    fclose(stream);
    static float same[plates_boxes * plates_values];
    if (plates_open(&file, &e)) return 6;
    plates_run(e, picture, same);
    if (memcmp(same, other, sizeof other)) return 7;
    plates_close(e);
    faces_close(a);
    faces_close(b);
    faces_close(NULL);
    plates_close(c);
    free(memory);
    fwrite(one, 1, sizeof one, fopen("one", "wb"));
    fwrite(other, 1, sizeof other, fopen("other", "wb"));
    return 0;
}
"""


@pytest.mark.slow
def test_two_networks_in_one_program(small: Model, folder: Path, large: tuple[Model, Path], tmp_path: Path) -> None:
    """Several instances, memory of the caller's at an odd address, and errors; run under AddressSanitizer where the compiler has it."""
    shutil.copytree(folder, tmp_path / "faces")
    shutil.copytree(large[1], tmp_path / "plates")
    (tmp_path / "main.c").write_text(PROGRAM)
    for name in ("faces", "plates"):
        compiled(
            tmp_path,
            "-O0",
            "-g1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            f"-DOCTRIM_NAME={name}",
            "-c",
            "-o",
            f"{name}.o",
            f"{name}/detector.c",
        )
    compiled(tmp_path, "-O1", "-fsanitize=address,undefined", "-o", "main", "main.c", "faces.o", "plates.o")
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    assert (done.returncode, done.stdout) == (0, "weights.bin: no such file\n"), done.stderr[:2000]
    pixels = (np.arange(64 * 96 * 3) * 7 % 256).astype(np.uint8)
    found = np.fromfile(tmp_path / "one", np.float32).reshape(1, -1, 8)
    assert_close(found, reference(small, pixels.reshape(1, 64, 96, 3)))
    other = np.fromfile(tmp_path / "other", np.float32).reshape(1, -1, 8)
    assert_close(other, reference(large[0], pixels[: 64 * 64 * 3].reshape(1, 64, 64, 3)))


def test_damaged_folders(large: tuple[Model, Path], folder: Path, tmp_path: Path) -> None:
    """Each in one line that names what is wrong."""

    def told(change: str) -> str:
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        shutil.copytree(large[1], tmp_path / "c")
        weights = tmp_path / "c" / "weights.bin"
        if change == "missing":
            weights.unlink()
        elif change == "truncated":
            weights.write_bytes(weights.read_bytes()[:-4])
        elif change == "short":
            weights.write_bytes(b"OCT")
        elif change == "damaged":
            data = bytearray(weights.read_bytes())
            data[1000] ^= 1
            weights.write_bytes(data)
        elif change == "foreign":
            other = lively_model(yolov5_network("yolov5n", 3), seed=5)
            write_folder(other, tmp_path, 64, 64)
            shutil.copy(tmp_path / "weights.bin", weights)
        elif change == "source":
            shutil.copy(folder / "detector.c", tmp_path / "c" / "detector.c")
        elif change == "header":
            (tmp_path / "c" / "detector.json").write_text('{"format": "octrim c"')
        elif change == "no source":
            (tmp_path / "c" / "detector.c").unlink()
        with pytest.raises(InputError) as caught:
            CFolderSession(tmp_path / "c", "fp32", 1)
        return str(caught.value)

    assert "weights.bin: no such file" in told("missing")
    assert "weights.bin: it ends early or is damaged" in told("truncated")
    assert "weights.bin: it ends early or is damaged" in told("short")
    assert "weights.bin: it ends early or is damaged" in told("damaged")
    assert "weights.bin: it is not of this export" in told("foreign")
    assert "detector.c: it is not what its detector.json describes" in told("source")
    assert "detector.json: it is damaged" in told("header")
    assert "detector.c: no such file" in told("no source")


def test_names_cannot_leave_their_place(small: Model, tmp_path: Path) -> None:
    """Class names are text from a file: in C they stand in string literals and comments."""
    names = ('a"; int x; //', "*/ int y; /*", "größe ??/ @width@ @home@")
    write_folder(replace(small, names=names), tmp_path, 64, 64)
    compiled(tmp_path, "-O0", "-c", "-o", "detector.o", "detector.c")
    assert quoted('a"?\\ü') == '"a\\042\\077\\134\\303\\274"'
    assert comment("*/ /* a\nb") == "* / / * a?b"
