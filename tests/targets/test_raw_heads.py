"""Exports without decoding: boxes made from the JSON file alone are those of the network, and Arm's compiler takes the int8 file."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from octrim.data.scenes import drawn_scene
from octrim.deploy.export import export
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from tests.networks import variant
from tests.targets.c.material import calm, picture, reference

pytestmark = pytest.mark.slow

SIZE = (64, 96)

OPERATORS = {"Conv", "Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}
"""What is left of the ONNX file without decoding."""


@pytest.fixture(scope="module")
def small() -> Model:
    model = variant("yolov5n")
    model = calm(prune(model, plan(model, keep="1/8", align=8)))
    return quantize(model, [drawn_scene(seed, *SIZE) for seed in range(2)], imgsz=SIZE)


def boxes_of(described: dict[str, Any], outputs: dict[str, np.ndarray]) -> np.ndarray:
    """Boxes `[n, 5 + classes]` as the sentences of the JSON file say, one by one."""
    boxes = []
    for level in described["outputs"]:
        values = outputs[level["name"]][0]
        assert list(outputs[level["name"]].shape) == level["shape"]
        if level["type"] == "int8":
            values = (values.astype(float) - level["zero_point"]) * level["scale"]
        rows = values if described["layout"] == "NHWC" else values.transpose(1, 2, 0)
        count = 5 + len(described["names"])
        for a, anchor in enumerate(level["anchors"]):
            for row, column in np.ndindex(rows.shape[:2]):
                s = 1 / (1 + np.exp(-rows[row, column, a * count : (a + 1) * count].astype(float)))
                centre = [(2 * s[0] - 0.5 + column) * level["stride"], (2 * s[1] - 0.5 + row) * level["stride"]]
                boxes.append([*centre, (2 * s[2]) ** 2 * anchor[0], (2 * s[3]) ** 2 * anchor[1], *s[4:]])
    return np.asarray(boxes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_onnx(small: Model, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "m.onnx"
    report = export(small, path, "onnx", precision, SIZE, raw_heads=True)
    assert report.not_compared is None and sorted(report.sha256) == ["m.onnx", "m.onnx.json"]
    described = json.loads(path.with_name("m.onnx.json").read_text())
    assert (described["names"], described["layout"], described["precision"]) == (list(small.names), "NCHW", precision)
    batch = picture(*SIZE)
    images = (batch.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    assert described["input"] == {"name": "images", "shape": list(images.shape), "type": "float32", "values": "RGB, 0 to 1"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {node.op_type for node in _onnx(path)} <= OPERATORS
    names = [one.name for one in session.get_outputs()]
    found = boxes_of(described, dict(zip(names, session.run(names, {"images": images}), strict=True)))
    if precision == "fp32":
        np.testing.assert_allclose(found, reference(small, batch)[0], rtol=1e-4, atol=1e-3)
    opened = open_session(path, threads=1)
    assert (opened.info.names, opened.info.size, opened.info.precision) == (small.names, SIZE, precision)
    np.testing.assert_allclose(found, opened(batch)[0], rtol=1e-4, atol=1e-3)


def _onnx(path: Path) -> Any:
    import onnx

    return onnx.load(path).graph.node


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_litert(small: Model, tmp_path: Path, precision: str) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed (extra octrim[litert])")
    path = tmp_path / "m.tflite"
    export(small, path, "litert", precision, SIZE, raw_heads=True)
    described = json.loads(path.with_name("m.tflite.json").read_text())
    assert (described["layout"], described["precision"]) == ("NHWC", precision)
    runner = interpreter.Interpreter(model_path=str(path)).get_signature_runner()
    batch = picture(*SIZE)
    images = (batch.astype(int) - 128).astype(np.int8) if precision == "int8" else (batch / np.float32(255)).astype(np.float32)
    assert described["input"]["shape"] == list(images.shape) and described["input"]["type"] == images.dtype.name
    found = boxes_of(described, runner(images=images))
    if precision == "fp32":
        np.testing.assert_allclose(found, reference(small, batch)[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found, open_session(path, threads=1)(batch)[0], rtol=1e-4, atol=1e-3)


def test_targets_that_always_decode(small: Model, tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        if not target.raw_heads:
            with pytest.raises(InputError, match=f"{name} always decodes; raw heads are for onnx, litert"):
                export(small, tmp_path / f"made{target.ending}", name, imgsz=SIZE, raw_heads=True)
    assert not list(tmp_path.iterdir())


def test_metadata_that_does_not_fit_its_outputs(small: Model, tmp_path: Path) -> None:
    """A decoded file that says it gives logits."""
    import onnx

    from octrim.targets.onnx.graph import onnx_model

    made = onnx_model(small, *SIZE)
    made.metadata_props.append(onnx.StringStringEntryProto(key="outputs", value="logits"))
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(InputError, match="its outputs are not those of a network's levels"):
        open_session(path)


@pytest.mark.skipif(find_spec("ai_edge_litert") is None or find_spec("ethosu") is None, reason="LiteRT and ethos-u-vela are not installed")
def test_vela_puts_everything_on_an_ethos_u(small: Model, tmp_path: Path) -> None:
    """The network cut to 1/8 at 160 pixels on Ethos-U55-128: every operator, and cycles and memory in a plausible range."""
    model = quantize(small, [drawn_scene(0, 160, 160)], imgsz=160)
    export(model, tmp_path / "m.tflite", "litert", "int8", 160, raw_heads=True)
    run = "from ethosu.vela.vela import main; main()"
    command = [sys.executable, "-c", run, "--accelerator-config", "ethos-u55-128", "--output-dir", str(tmp_path), "m.tflite"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CPU operators = 0 (0.0%)" in done.stdout
    (summary,) = tmp_path.glob("m_summary_*.csv")
    with summary.open() as lines:
        (row,) = csv.DictReader(lines)
    memory = f"{row['sram_memory_used']} KiB SRAM, {row['off_chip_flash_memory_used']} KiB flash"
    print(f"Ethos-U55-128: {float(row['cycles_total']):,.0f} cycles, {memory}")
    assert 10_000_000 < float(row["nn_macs"]) < 12_000_000
    assert float(row["nn_macs"]) / 128 < float(row["cycles_total"]) < 1_500_000
    assert float(row["sram_memory_used"]) < 256
