"""Networks, pictures and the float64 reference for the tests of the C target, and builds that ctypes cannot load."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps, decode
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.targets.c.program import Program, entry

HERE = Path(__file__).parent
RUNTIME = Path(__file__).parents[3] / "src" / "octrim" / "targets" / "c" / "runtime"

SCORE, PIXEL = 2e-5, 0.02
"""How far float32 may be from float64: scores, and pixels of box coordinates."""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Uint8 `[1, height, width, 3]` with edges and noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (1, height // 8, width // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + generator.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def reference(model: Model, batch: np.ndarray) -> np.ndarray:
    """Predictions in float64."""
    heads = walk(model.network, NumpyOps(model, np.float64), batch.transpose(0, 3, 1, 2) / 255.0)
    return decode(model.network, heads)


def calm(model: Model) -> Model:
    """The model with logits of a few units, as trained networks have, so that no sigmoid hides an error."""
    heads = {f"{name}.weight" for name in model.network.heads}
    return replace(model, tensors={name: tensor / 10 if name in heads else tensor for name, tensor in model.tensors.items()})


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], rtol=0, atol=SCORE)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=0, atol=PIXEL)


def one_level(*rows: Row, last: str, cell: int) -> Network:
    """A network of these rows with one level of two anchors and two classes, whose cells have `cell` pixels. Row "images" stands before them."""
    head = Row("level", "conv", (last,), 2 * 7, bias=True)
    anchors = (((4.0 * cell, 5.0 * cell), (9.0 * cell, 7.5 * cell)),)
    return Network((Row("images", "image", channels=3), *rows, head, Row("detect", "detect", ("level",))), anchors)


def compiler_or_skip(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def built_driver(folder: Path, compiler: str, *flags: str) -> Path:
    """tests/targets/c/driver.c with the runtime, by any compiler."""
    made = folder / "driver"
    command = [compiler, "-std=c11", "-ffp-contract=off", f"-I{RUNTIME}", *flags, "-pthread", "-o", str(made), str(HERE / "driver.c")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return made


def driven(command: list[str], program: Program, batch: np.ndarray, folder: Path, threads: int = 1, instances: int = 1, runs: int = 1) -> np.ndarray:
    """Predictions of one picture by a driver."""
    tables = [np.array([entry(one) for one in part], np.int32).ravel() for part in (program.maps, program.steps, program.stages)]
    tables.append(program.taps)
    head = (program.height, program.width, program.boxes, program.values, program.arena, program.scratch, len(program.stages), program.bands)
    sizes = [*head, *(len(table) for table in tables), 0]
    words = np.concatenate([np.array(sizes, np.int32), *tables, program.weights.view(np.int32)])
    (folder / "program").write_bytes(words.tobytes())
    (folder / "picture").write_bytes(batch.tobytes())
    arguments = [str(folder / name) for name in ("program", "picture", "result")]
    done = subprocess.run([*command, *arguments, str(threads), str(instances), str(runs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.frombuffer((folder / "result").read_bytes(), np.float32).reshape(1, program.boxes, program.values)
