"""Other machines, compilers and sanitizers: aarch64 in qemu, WebAssembly in Node, clang, AddressSanitizer, ThreadSanitizer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.c.folder import weights_checksum, weights_file, write_folder
from octrim.targets.c.program import Program, program
from tests.networks import lively_model
from tests.targets.c.material import assert_close, built_driver, calm, compiler_or_skip, driven, picture, reference
from tests.targets.c.test_c_exact import UNUSUAL

pytestmark = pytest.mark.slow

Case = tuple[Program, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def whole() -> Model:
    return calm(lively_model(yolov5_network("yolov5n", 3)))


@pytest.fixture(scope="module")
def cases(whole: Model) -> list[Case]:
    """Programs, pictures and what the reference finds: cut networks, and rows that are not in YOLOv5."""
    models = [(prune(whole, plan(whole, keep="1/8", align=align)), size) for align, size in ((8, (128, 160)), (1, (128, 64)))]
    models += [
        (calm(lively_model(UNUSUAL[name][0])), (32, 64)) for name in ("stride 4", "groups and stride", "pool without padding", "a sum read twice")
    ]
    made = []
    for model, size in models:
        batch = picture(*size)
        made.append((program(model, *size), batch, reference(model, batch)))
    return made


BUILDS = {
    "clang": ("clang", ["-O1", "-march=native"]),
    "avx2": ("cc", ["-O1", "-march=x86-64-v3"]),
    "sse2": ("cc", ["-O1"]),
    "no threads": ("cc", ["-O1", "-march=native", "-DOCTRIM_NO_THREADS"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_other_instruction_sets(name: str, cases: list[Case], tmp_path: Path) -> None:
    compiler, flags = BUILDS[name]
    if name in ("avx2", "sse2") and "x86_64" not in subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("not an x86-64")
    if name == "avx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX2 here")
    driver = built_driver(tmp_path, compiler_or_skip(compiler), *flags)
    for made, batch, expected in cases:
        assert_close(driven([str(driver)], made, batch, tmp_path, threads=2), expected)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers(sanitizer: str, cases: list[Case], tmp_path: Path) -> None:
    """Several threads in several instances at a time, several runs each."""
    driver = built_driver(tmp_path, compiler_or_skip("cc"), "-O0", "-g1", "-march=native", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    for made, batch, expected in cases:
        for threads, instances in ((1, 1), (3, 2)):
            assert_close(driven([str(driver)], made, batch, tmp_path, threads, instances, runs=4), expected)


@pytest.mark.slow
def test_aarch64_in_qemu(cases: list[Case], tmp_path: Path) -> None:
    qemu = compiler_or_skip("qemu-aarch64")
    driver = built_driver(tmp_path, compiler_or_skip("aarch64-linux-gnu-gcc"), "-O1", "-static")
    for made, batch, expected in cases:
        assert_close(driven([qemu, str(driver)], made, batch, tmp_path, threads=2, runs=2), expected)


NODE = """
const fs = require("fs");
const { instance } = await WebAssembly.instantiate(fs.readFileSync("detector.wasm"));
const c = instance.exports, sizes = JSON.parse(fs.readFileSync("sizes.json"));
let at = (c.__heap_base.value + 63) & ~63;
const room = bytes => { const here = at; at = (at + bytes + 63) & ~63; return here; };
const weights = fs.existsSync("weights.bin") ? fs.readFileSync("weights.bin") : Buffer.alloc(0);
const bytes = c.detector_memory(1);
const memory = room(bytes), file = room(weights.length), options = room(24), handle = room(4);
const picture = room(sizes.picture), boxes = room(sizes.boxes * 4);
c.memory.grow(Math.ceil(at / 65536));
const u8 = new Uint8Array(c.memory.buffer), u32 = new Uint32Array(c.memory.buffer);
u8.set(weights, file);
u8.set(fs.readFileSync("picture"), picture);
u32.set([1, memory, bytes, weights.length ? file : 0, weights.length, 0], options / 4);
const error = c.detector_open(options, handle);
if (error) throw new Error("detector_open: " + error);
c.detector_run(u32[handle / 4], picture, boxes);
fs.writeFileSync("result", u8.subarray(boxes, boxes + sizes.boxes * 4));
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["whole", "1/8"])
@pytest.mark.parametrize("flags", [["-msimd128"], []], ids=["simd", "plain"])
def test_webassembly_in_node(whole: Model, part: str, flags: list[str], tmp_path: Path) -> None:
    """By the compiler's line of the folder's README; whole with weights from a file, which the caller hands over."""
    clang, node, _ = compiler_or_skip("clang"), compiler_or_skip("node"), compiler_or_skip("wasm-ld")
    model = whole if part == "whole" else prune(whole, plan(whole, keep="1/8", align=8))
    write_folder(model, tmp_path, 64, 64)
    line = "--target=wasm32 -std=c11 -O1 -mbulk-memory -DOCTRIM_FREESTANDING -nostdlib -Wl,--no-entry -Wl,--export-dynamic"
    named = [f"-Wl,--export={name}" for name in ("__heap_base", *(f"detector_{name}" for name in ("memory", "open", "run")))]
    command = [clang, *line.split(), *named, *flags, "-o", "detector.wasm", "detector.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    batch = picture(64, 64)
    expected = reference(model, batch)
    (tmp_path / "picture").write_bytes(batch.tobytes())
    (tmp_path / "sizes.json").write_text(json.dumps({"picture": batch.size, "boxes": expected.size}))
    (tmp_path / "run.mjs").write_text('import { createRequire } from "module";\nconst require = createRequire(import.meta.url);\n' + NODE)
    done = subprocess.run([node, "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    assert_close(np.frombuffer((tmp_path / "result").read_bytes(), np.float32).reshape(expected.shape), expected)


def test_the_checksum_of_weights() -> None:
    """By hand: 1 * 1 + 2 * 3 + 3 * 5, modulo 2^64; and what stands before the weights in their file."""
    words = np.array([1, 2, 3], np.uint32).view(np.float32)
    assert weights_checksum(words) == 22
    largest = np.full(5, 2**32 - 1, np.uint32).view(np.float32)
    assert weights_checksum(largest) == (2**32 - 1) * 25 % 2**64
    made = type("", (), {"weights": words})()
    assert weights_file(made, 22) == b"OCTRIMW1" + (22).to_bytes(8, "little") + (3).to_bytes(8, "little") + words.tobytes()  # type: ignore[arg-type]
