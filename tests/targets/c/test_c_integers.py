"""C in integers alone: bit by bit beside NumPy's integers, each step beside what it means, and on Cortex-M in qemu beside this machine."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from octrim.backends.numpy import decode, sigmoid
from octrim.data.scenes import drawn_scene
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.c.compiler import built, has_compiler
from octrim.targets.c.folder import write_folder as write_floats
from octrim.targets.c.integers.folder import integer_files, write_folder
from octrim.targets.c.integers.lowering import IntegerMap, placed
from octrim.targets.c.integers.session import CompiledDetector, IntegerFolderSession, IntegerSession, number
from octrim.targets.integers import Quantization
from octrim.targets.opening import open_session
from tests.networks import lively_model, random_networks, variant
from tests.targets.c.integer_reference import logits_in_numpy
from tests.targets.c.material import calm, compiler_or_skip, one_level, picture, reference

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_compiler(), reason="no C compiler")]

STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
THRESHOLD, OVERLAP, MOST = 16384, 29491, 100


def int8(model: Model, height: int, width: int) -> Model:
    return quantize(model, [drawn_scene(seed, max(height, 32), max(width, 32)) for seed in range(2)], imgsz=(height, width))


@pytest.fixture(scope="module")
def small() -> Model:
    """yolov5n cut to 1/8, with ReLU, which microcontrollers like, and logits of a few units."""
    model = variant("yolov5n")
    model = calm(prune(model, plan(model, keep="1/8", align=8)))
    rows = tuple(replace(row, activation="relu") if row.activation == "silu" else row for row in model.network.rows)
    return int8(replace(model, network=Network(rows, model.network.anchors)), 96, 96)


@pytest.fixture(scope="module")
def unaligned() -> Model:
    """yolov5n cut to a fifth, to any counts of channels, with SiLU."""
    model = variant("yolov5n")
    return int8(calm(prune(model, plan(model, keep="1/5", align=1))), 64, 96)


@pytest.fixture(scope="module")
def separable() -> Model:
    """Depthwise convolutions: of the picture, into a concatenation, of signed and of positive numbers, odd counts, several windows and strides."""

    def depthwise(name: str, source: str, channels: int, kernel: int, stride: int, padding: int, activation: str) -> Row:
        return Row(name, "conv", (source,), channels, kernel, stride, padding, channels, norm=True, activation=activation)

    rows = (
        depthwise("a", "images", 3, 3, 2, 1, "silu"),
        Row("b", "conv", ("images",), 12, 3, 2, 1, norm=True, activation="relu"),
        depthwise("c", "b", 12, 3, 1, 1, "relu"),
        Row("d", "concat", ("b", "c", "a")),
        Row("e", "conv", ("d",), 23, bias=True, activation="hardswish"),
        depthwise("f", "e", 23, 5, 2, 2, "hardswish"),
        Row("g", "conv", ("f",), 40, norm=True, activation="relu6"),
        depthwise("h", "g", 40, 7, 1, 3, "silu"),
        depthwise("i", "h", 40, 2, 2, 0, "relu"),
        depthwise("j", "i", 40, 1, 1, 0, "hardswish"),
        Row("k", "conv", ("j",), 8, norm=True, activation="silu"),
        depthwise("l", "k", 8, 3, 1, 1, "relu"),
        Row("m", "add", ("k", "l")),
        depthwise("n", "m", 8, 4, 4, 0, "relu"),
    )
    return int8(calm(lively_model(one_level(*rows, last="n", cell=32))), 64, 96)


def detector(model: Model, height: int, width: int) -> CompiledDetector:
    files = integer_files(model, height, width)
    return CompiledDetector(files["detector.c"], files["detector.h"], model.network)


def assert_same_bits(model: Model, batch: np.ndarray) -> None:
    expected, worst = logits_in_numpy(model, batch)
    for one, other in zip(detector(model, *batch.shape[1:3]).logits(batch[0]), expected, strict=True):
        assert np.array_equal(one, other)
    assert max(worst.values()) <= 1e-3, worst


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(network=random_networks(), cells=st.tuples(st.integers(1, 5), st.integers(1, 9)))
def test_random_networks(network: Network, cells: tuple[int, int]) -> None:
    """Groups, residuals, pools, concatenations of a map with itself, every activation, down to one cell per level; bit by bit."""
    model = lively_model(network, seed=1)
    height, width = (count * network.stride for count in cells)
    try:
        model = int8(model, height, width)
    except InputError as error:
        assert "no convolution" in str(error)
        return
    assert_same_bits(model, np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8))


def test_a_cut_network(small: Model) -> None:
    assert_same_bits(small, picture(96, 64))


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (32, 352), (32, 2048)])  # the lines of the last one are too wide for some of them
def test_depthwise_convolutions(separable: Model, size: tuple[int, int]) -> None:
    assert_same_bits(separable, picture(*size))


@pytest.mark.parametrize("channels", [4, 5, 7])
def test_a_depthwise_convolution_of_rows_shorter_than_a_vector(channels: int) -> None:
    """Vectors are written beyond such a row, by more than the next row holds; the map behind it is read afterwards."""
    relu: dict[str, Any] = {"norm": True, "activation": "relu"}
    rows = (
        Row("x", "conv", ("images",), channels, 8, 8, 0, **relu),
        Row("a", "conv", ("x",), channels, **relu),
        Row("z", "conv", ("x",), channels, **relu),
        Row("b", "conv", ("a",), channels, 3, 1, 1, channels, **relu),
        Row("sum", "add", ("b", "a")),
        Row("all", "add", ("sum", "z")),
    )
    model = int8(calm(lively_model(one_level(*rows, last="all", cell=8))), 64, 32)
    assert_same_bits(model, np.random.default_rng(0).integers(0, 256, (1, 64, 8, 3), np.uint8))


def test_an_unaligned_cut_with_silu(unaligned: Model) -> None:
    model = unaligned
    batch = np.concatenate([picture(64, 96), picture(64, 96, seed=1)])
    session = IntegerSession(model)
    found, expected = session(batch)[..., 4:], reference(model, batch)[..., 4:]
    assert np.sqrt(np.square(found - expected).sum() / np.square(expected).sum()) < 0.05
    assert np.array_equal(session(batch[1:])[..., 4:], found[1:])
    assert_same_bits(model, batch[:1])


@given(spans=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=12))
def test_maps_that_live_at_the_same_time_do_not_overlap(spans: list[tuple[int, int, int]]) -> None:
    maps = [IntegerMap("m", size, 1, 1, Quantization(1.0), 0, first, first + length) for size, first, length in spans]
    total = placed(maps)
    for index, one in enumerate(maps):
        assert one.offset % 4 == 0 and one.offset + one.size <= total
        for other in maps[:index]:
            if one.first <= other.last and other.first <= one.last:
                assert one.offset + one.size <= other.offset or other.offset + other.size <= one.offset


# Boxes ---------------------------------------------------------------------------------------------------------------------------------------------

BOX = np.dtype([("x1", "<i2"), ("y1", "<i2"), ("x2", "<i2"), ("y2", "<i2"), ("score", "<u2"), ("label", "<u2")])


def boxes_here(model: Model, image: np.ndarray) -> np.ndarray:
    """Boxes of detector_run, compiled for this machine."""
    files = integer_files(model, *image.shape[:2])
    calls = ctypes.CDLL(str(built(files["detector.c"], (("detector.h", files["detector.h"]),))))
    memory, boxes = np.zeros(number(files["detector.h"], "memory"), np.uint8), np.zeros(MOST, BOX)
    arguments = [ctypes.c_void_p(one.ctypes.data) for one in (memory, image, boxes)]
    count = calls.detector_run(*arguments[:2], ctypes.c_uint16(THRESHOLD), ctypes.c_uint16(OVERLAP), arguments[2], MOST)
    return boxes[:count]


def boxes_by_hand(model: Model, image: np.ndarray) -> list[list[float]]:
    """x1, y1, x2, y2 in pixels, score, class, from the logits: the decoding in float, and suppression of all candidates in order."""
    network = model.network
    found: list[list[float]] = []
    for logits, anchors, stride in zip(logits_in_numpy(model, image[None])[0], network.anchors, network.strides, strict=True):
        for row, column in np.ndindex(logits.shape[:2]):
            for a, anchor in enumerate(anchors):
                steps = np.asarray([32.0] * 4 + [16.0] * (1 + network.classes))
                s = sigmoid(logits[row, column].reshape(len(anchors), -1)[a] / steps)
                label = int(s[5:].argmax())
                score = s[4] * s[5 + label]
                centre = ((2 * s[0] - 0.5 + column) * stride, (2 * s[1] - 0.5 + row) * stride)
                side = ((2 * s[2]) ** 2 * anchor[0], (2 * s[3]) ** 2 * anchor[1])
                if score * 65535 >= THRESHOLD:
                    corners = [c + sign * d / 2 for sign in (-1, 1) for c, d in zip(centre, side, strict=True)]
                    found.append([*corners, round(score, 4), label])
    found.sort(key=lambda box: -box[4])
    kept: list[list[float]] = []
    for box in found[:MOST]:
        if all(box[5] != other[5] or _iou(box, other) <= OVERLAP / 65536 for other in kept):
            kept.append(box)
    return kept


def _iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_boxes_are_those_of_the_formula(small: Model) -> None:
    image = picture(96, 96)[0]
    found, expected = boxes_here(small, image), boxes_by_hand(small, image)
    assert len(found) == len(expected) > 3
    for box, other in zip(found.tolist(), expected, strict=True):
        assert box[5] == other[5]
        np.testing.assert_allclose(np.asarray(box[:4]) / 16, other[:4], atol=0.15)
        assert box[4] / 65535 == pytest.approx(other[4], abs=2e-4)


def test_the_best_boxes_stay_when_there_is_little_room(small: Model) -> None:
    files = integer_files(small, 96, 96)
    calls = ctypes.CDLL(str(built(files["detector.c"], (("detector.h", files["detector.h"]),))))
    memory, image = np.zeros(number(files["detector.h"], "memory"), np.uint8), picture(96, 96)[0]
    pointers = [ctypes.c_void_p(one.ctypes.data) for one in (memory, image)]
    found = []
    for most in (0, 1, 1000):
        boxes = np.zeros(most + 1, BOX)
        count = calls.detector_run(*pointers, ctypes.c_uint16(THRESHOLD), ctypes.c_uint16(65535), ctypes.c_void_p(boxes.ctypes.data), most)
        assert count <= most and boxes[most].tolist() == (0,) * 6
        found.append(boxes[:count])
    assert found[1][0] == found[2][0]
    assert (np.diff(found[2]["score"].astype(int)) <= 0).all()


# Files ---------------------------------------------------------------------------------------------------------------------------------------------


def test_the_folder(small: Model, tmp_path: Path) -> None:
    write_folder(small, tmp_path, 64, 96)
    assert {path.name for path in tmp_path.iterdir()} == {"detector.h", "detector.c", "detector.json", "example.c", "README.md"}
    assert not any("@" in path.read_text("ascii") for path in tmp_path.iterdir() if path.suffix != ".json")
    batch = np.concatenate([picture(64, 96), picture(64, 96, seed=1)])
    session = open_session(tmp_path)
    assert isinstance(session, IntegerFolderSession)
    assert (session.info.names, session.info.size, session.info.precision) == (small.names, (64, 96), "int8")
    assert session.info.network == small.network
    assert np.array_equal(session(batch), open_session(small, "c", "int8")(batch))
    assert session(batch[:0]).shape == (0, 378, 8)
    with pytest.raises(InputError, match="fp16 was asked for"):
        open_session(tmp_path, precision="fp16")
    (tmp_path / "detector.c").write_text((tmp_path / "detector.c").read_text().replace("1", "2", 1))
    with pytest.raises(InputError, match="it is not what its detector.json describes"):
        open_session(tmp_path)
    (tmp_path / "detector.h").unlink()
    with pytest.raises(InputError, match=r"detector.h: no such file"):
        open_session(tmp_path)


def test_a_folder_of_before_there_were_steps_for_boxes(small: Model, tmp_path: Path) -> None:
    """All of its logits are sixteenths: a box's logits, which are read as twice as large as they are in a new folder, too."""
    write_folder(small, tmp_path, 64, 96)
    header = (tmp_path / "detector.h").read_text()
    old = "".join(line for line in header.splitlines(keepends=True) if "logit_steps) =" not in line)
    assert len(header.splitlines()) - len(old.splitlines()) == 2
    (tmp_path / "detector.h").write_text(old)
    described = json.loads((tmp_path / "detector.json").read_text())
    described["sha256"]["detector.h"] = sha256(old.encode()).hexdigest()
    (tmp_path / "detector.json").write_text(json.dumps(described))
    batch = picture(64, 96)
    heads = [head.transpose(2, 0, 1)[None] / 16.0 for head in logits_in_numpy(small, batch)[0]]
    np.testing.assert_allclose(open_session(tmp_path)(batch), decode(small.network, heads), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warning_and_the_example(small: Model, tmp_path: Path, compiler: str) -> None:
    write_folder(small, tmp_path, 96, 96)
    command = [compiler_or_skip(compiler), *STRICT, "-O2", "-o", "example", "example.c", "detector.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    image = picture(96, 96)[0]
    (tmp_path / "picture.ppm").write_bytes(b"P6 96 96 255\n" + image.tobytes())
    said = subprocess.run(["./example", "picture.ppm"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = boxes_here(small, image)
    assert len(said) == len(expected)
    assert said[0].startswith(f"{small.names[expected[0]['label']]} {expected[0]['score'] / 65535:.3f}  {expected[0]['x1'] / 16:.1f} ")


DRIVER = """
#include <stdio.h>
#include "detector.h"
static uint32_t memory[(detector_memory + 3) / 4];
static uint8_t pixels[detector_height * detector_width * 3];
static int8_t logits[detector_logits_count];
int main(void)
{
    if (fread(pixels, sizeof pixels, 1, stdin) != 1) return 1;
    for (int i = 0; i < 2; i++) detector_logits(memory, pixels, logits);
    return fwrite(logits, sizeof logits, 1, stdout) != 1;
}
"""

BUILDS = {
    "native": ("gcc", ["-O2", "-march=native"]),
    "clang": ("clang", ["-O2", "-march=native"]),
    "no-vbmi": ("gcc", ["-O2", "-march=native", "-mno-avx512vbmi"]),
    "avx2": ("gcc", ["-O2", "-march=x86-64-v3"]),
    "avx-vnni": ("gcc", ["-O2", "-march=x86-64-v3", "-mavxvnni"]),
    "plain": ("gcc", ["-O2"]),
    "sanitizers": ("gcc", ["-O1", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]),
    "max": ("aarch64-linux-gnu-gcc", ["-O2", "-march=armv8.2-a+dotprod", "-static"]),
    "cortex-a72": ("aarch64-linux-gnu-gcc", ["-O2", "-mcpu=cortex-a72", "-static"]),
}


@pytest.mark.parametrize("build", BUILDS)
def test_every_instruction_set_gives_the_same_integers(small: Model, unaligned: Model, separable: Model, tmp_path: Path, build: str) -> None:
    """Vectors of bytes of AVX-512 with and without VBMI, AVX-VNNI, AVX2 and 64-bit ARM with and without dot products, and plain loops; no warning.

    Computed are the cut network with ReLU, a cut to odd counts with SiLU, and one with depthwise convolutions.
    """
    compiler, flags = BUILDS[build]
    if build in ("avx2", "avx-vnni") and build.replace("-", "_") not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"no {build} here")
    runner = [compiler_or_skip("qemu-aarch64"), "-cpu", build] if compiler.startswith("aarch64") else []
    for name, model in (("small", small), ("unaligned", unaligned), ("separable", separable)):
        folder = tmp_path / name
        folder.mkdir()
        write_folder(model, folder, 64, 96)
        (folder / "driver.c").write_text(DRIVER)
        command = [compiler_or_skip(compiler), *STRICT, *flags, "-o", "driver", "driver.c", "detector.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:3000]
        batch = picture(64, 96)
        said = subprocess.run([*runner, "./driver"], cwd=folder, input=batch.tobytes(), capture_output=True, check=True).stdout
        expected = [head.ravel() for head in logits_in_numpy(model, batch)[0]]
        assert np.array_equal(np.frombuffer(said, np.int8), np.concatenate(expected))


PROGRAM = """
#define OCTRIM_NAME faces
#include "faces/detector.h"
#undef OCTRIM_NAME
#define OCTRIM_NAME plates
#include "plates/detector.h"
#undef OCTRIM_NAME
#include "floats/detector.h"
#include <stdio.h>
static uint32_t memory[(faces_memory + plates_memory + 3) / 4];
static uint8_t pixels[faces_height * faces_width * 3];
static int8_t one[faces_logits_count], other[plates_logits_count];
static float boxes[detector_boxes * detector_values];
int main(void)
{
    detector *d;
    faces_box box;
    if (fread(pixels, sizeof pixels, 1, stdin) != 1 || detector_open(NULL, &d)) return 1;
    faces_logits(memory, pixels, one);
    plates_logits(memory, pixels, other);
    detector_run(d, pixels, boxes);
    detector_close(d);
    if (faces_run(memory, pixels, 0, 65535, &box, 1) != 1) return 2;
    return fwrite(one, sizeof one, 1, stdout) != 1 || fwrite(other, sizeof other, 1, stdout) != 1;
}
"""


def test_two_networks_and_one_in_floats_in_one_program(small: Model, unaligned: Model, tmp_path: Path) -> None:
    for name, model in (("faces", small), ("plates", unaligned)):
        (tmp_path / name).mkdir()
        write_folder(model, tmp_path / name, 64, 96)
    (tmp_path / "floats").mkdir()
    write_floats(small, tmp_path / "floats", 64, 96)
    (tmp_path / "main.c").write_text(PROGRAM)
    for name, defined in (("faces", ["-DOCTRIM_NAME=faces"]), ("plates", ["-DOCTRIM_NAME=plates"]), ("floats", [])):
        subprocess.run(["cc", *STRICT, *defined, "-c", "-o", f"{name}.o", f"{name}/detector.c"], cwd=tmp_path, check=True)
    subprocess.run(["cc", *STRICT, "-pthread", "-o", "main", "main.c", "faces.o", "plates.o", "floats.o", "-lm"], cwd=tmp_path, check=True)
    batch = picture(64, 96)
    said = subprocess.run(["./main"], cwd=tmp_path, input=batch.tobytes(), capture_output=True, check=True).stdout
    expected = [head.ravel() for model in (small, unaligned) for head in logits_in_numpy(model, batch)[0]]
    assert np.array_equal(np.frombuffer(said, np.int8), np.concatenate(expected))


def test_constants_of_folders_of_both_ages() -> None:
    assert number("    detector_memory = 70,\n", "memory") == number("    OCTRIM_(memory) = 70,\n", "memory") == 70
    assert number("", "logit_steps", before=16) == 16
    with pytest.raises(InputError, match=r"detector\.h has no detector_width"):
        number("detector_height = 3", "width")


# Cortex-M ------------------------------------------------------------------------------------------------------------------------------------------

FIRMWARE = Path(__file__).parent / "cortex_m"


def run_on_cortex_m(model: Model, image: np.ndarray, folder: Path, processor: str, board: str) -> tuple[np.ndarray, dict[str, int]]:
    """Boxes that the firmware finds, and what it takes: bytes of flash and RAM without stack, bytes of stack, instructions."""
    for program, package in (("arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("qemu-system-arm", "qemu-system-arm")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here (Debian: apt install {package})")
    write_folder(model, folder, *image.shape[:2])
    (folder / "picture.h").write_text(f"static const unsigned char picture[] = {{{','.join(map(str, image.ravel().tolist()))}}};\n")
    flags = ["-std=c11", "-O3", f"-mcpu={processor}", "-mthumb", "-mfloat-abi=soft", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib"]
    command = ["arm-none-eabi-gcc", *flags, "-I", ".", "-T", f"{FIRMWARE}/board.ld", "-o", "it.elf", f"{FIRMWARE}/firmware.c", "detector.c", "-lgcc"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    symbols = subprocess.run(["arm-none-eabi-nm", "it.elf"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "__aeabi_f" not in symbols and "__aeabi_d" not in symbols  # functions that compute floats
    qemu = ["qemu-system-arm", "-M", board, "-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=0"]
    qemu += ["-semihosting-config", "enable=on,target=native", "-kernel", "it.elf"]
    said = subprocess.run(qemu, cwd=folder, capture_output=True, text=True, timeout=120, check=True).stderr.splitlines()  # where it prints
    text, data, bss = (int(one) for one in _size(folder).split()[:3])
    ticks, stack = (int(one) for one in said[0].split())
    boxes = np.asarray([tuple(map(int, line.split())) for line in said[1:]], BOX)
    return boxes, {"flash": text + data - image.size, "ram": data + bss, "stack": stack, "instructions": 40 * ticks}


def _size(folder: Path) -> str:
    return subprocess.run(["arm-none-eabi-size", "it.elf"], cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("processor", "board", "side"), [("cortex-m4", "mps2-an386", 96), ("cortex-m7", "mps2-an500", 160), ("cortex-m3", "mps2-an385", 128)]
)
def test_cortex_m_finds_the_boxes_of_this_machine(small: Model, tmp_path: Path, processor: str, board: str, side: int) -> None:
    """The same firmware without an operating system for processors with and without DSP instructions; the picture is not counted as flash."""
    image = picture(side, side)[0]
    boxes, takes = run_on_cortex_m(small, image, tmp_path, processor, board)
    print(processor, side, takes)
    expected = boxes_here(small, image)
    assert len(expected) > 3
    assert np.array_equal(boxes, expected)
    assert takes["flash"] < 100_000 and takes["ram"] < 90_000 and takes["stack"] < 2_000
    assert takes["instructions"] < 100_000_000
