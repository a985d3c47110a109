"""Networks, pictures and the float64 reference for the tests of the C target, and builds that ctypes cannot load."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps, decode
from octrim.network.layout import VARIANTS
from octrim.network.model import Model
from octrim.network.rows import Network, Row, walk
from octrim.targets.c.program import Program, entry
from tests.networks import lively_model, variant

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
    return decode(model.network, reference_logits(model, batch))


def reference_logits(model: Model, batch: np.ndarray) -> list[np.ndarray]:
    """Logits per level in float64, `[batch, anchors x (5 + classes), height, width]`."""
    return walk(model.network, NumpyOps(model, np.float64), batch.transpose(0, 3, 1, 2) / 255.0)


def assert_within(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Scores within `tolerance`; coordinates within `tolerance` of themselves and a hundredth of a pixel."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[..., 4:], expected[..., 4:], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found[..., :4], expected[..., :4], rtol=tolerance, atol=100 * tolerance)


PUBLISHED = [*(name for name in VARIANTS if name[6] in "ns"), "yolov5s-ghost", "yolov5-bifpn"]
"""Published layouts that a new target is held to."""

Logits = Callable[[Model, np.ndarray], Sequence[np.ndarray]]
"""What a target makes of a model and one picture: logits per level, with or without a dimension for the picture."""


def assert_published_logits(name: str, logits: Logits) -> None:
    """Logits, whose magnitude in these networks is 10 to 100: a box is an exponential function of them."""
    model = calm(variant(name))
    batch = picture(2 * model.network.stride, 3 * model.network.stride)
    for one, other in zip(logits(model, batch), reference_logits(model, batch), strict=True):
        assert one.shape[-3:] == other.shape[1:]
        np.testing.assert_allclose(one.reshape(other.shape), other, rtol=1e-4, atol=1e-4 * max(1, float(np.abs(other).max())))


def assert_activation(activation: str | None, logits: Logits) -> None:
    """Grouped and dense, with logits that carry the sign and the size of what the activation gives."""
    rows = (Row("a", "conv", ("images",), 6, 3, 2, 1, bias=True, activation=activation), Row("b", "conv", ("a",), 6, 3, 1, 1, 3, bias=True))
    model = lively_model(one_level(*rows, last="b", cell=2))
    batch = picture(16, 24)
    (found,), (expected,) = logits(model, batch), reference_logits(model, batch)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


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
