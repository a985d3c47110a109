"""A network without its coarsest level and some blocks goes through everything: a compression of Pong, int8, every target, playing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import octrim
from octrim.cli import main
from octrim.compression import builtin
from octrim.data.scenes import drawn_scene
from octrim.deploy.export import export
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.quantization.calibration import quantize
from octrim.targets.opening import open_session
from octrim.targets.table import TARGETS
from tests.networks import variant
from tests.targets.c.material import calm
from tests.targets.tensorrt_standin import VERSIONS, installed
from tests.targets.test_table import CASES, runnable

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unrendered")]

DROPPING = ["--levels", "8", "16", "--drop", "model.6.m.1", "model.8.m", "model.13.m.*"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compression of all stages: sparsity training, two cuts with a short fine-tuning between them, control, and games."""
    folder = tmp_path_factory.mktemp("two-levels")
    whole = variant("yolov5n")
    narrow = prune(whole, plan(whole, "1/4", align=8, criterion="random"))
    weights = folder / "narrow.safetensors"
    Model(narrow.network, narrow.tensors, narrow.names, 64).save(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "PICTURES", 20)
        epochs = ["--train-epochs", "1", "--sparsify-epochs", "1", "--finetune-epochs", "1", "--cut-steps", "2", "--step-epochs", "1"]
        few = [*epochs, "--keep", "1/2", "--align", "4", "--control", "--iterations-bench", "2", "--match-games", "1"]
        place = ["--project", str(folder), "--name", "run"]
        assert main(["compress", "--weights", str(weights), "--imgsz", "64", "--workers", "0", *few, *DROPPING, *place]) == 0
    return folder / "run"


def test_the_stages_of_a_compression(run: Path) -> None:
    original, small, control = (octrim.load(run / folder / "last.safetensors") for folder in ("1-train", "4-finetune", "control"))
    assert original.network.strides == (8, 16, 32)
    assert small.network.strides == control.network.strides == (8, 16)
    assert control.network == small.network
    content = json.loads((run / "3-prune/plan.json").read_text())
    assert content["dropped"]["shown"].startswith("level 32; ")
    assert content["channels"]["after"] == sum(row.channels for row in small.network.convs)
    again = json.loads((run / "3-prune/cut2/plan.json").read_text())
    assert "dropped" not in again  # the first cut has dropped the rows
    for report in json.loads((run / "5-export/export.json").read_text()).values():
        assert report["score_error"] < 1e-4
    summary = json.loads((run / "summary.json").read_text())
    assert {"original", "finetuned", "control"} <= set(summary["stages"])
    assert summary["stages"]["finetuned"]["macs"] == summary["stages"]["control"]["macs"]
    assert {"original", "finetuned"} <= set(summary["times"]["match"])
    assert "Dropped as a whole: level 32; " in (run / "report.html").read_text()


def test_quantize_val_and_predict(run: Path, tmp_path: Path) -> None:
    weights, data = str(run / "4-finetune/last.safetensors"), str(next(run.parent.glob("pong-*")) / "data.yaml")
    place = ["--project", str(tmp_path)]
    assert main(["quantize", "--weights", weights, "--data", data, "--pictures", "4", *place, "--name", "int8"]) == 0
    quantized = next((tmp_path / "int8").glob("*.safetensors"))
    for network in (weights, str(quantized)):
        name = Path(network).stem
        assert main(["val", "--weights", network, "--data", data, *place, "--name", f"val-{name}"]) == 0
        assert json.loads((tmp_path / f"val-{name}/metrics.json").read_text())["images"] > 0
    picture = next((Path(data).parent / "images").rglob("*.*"))
    assert main(["predict", "--weights", weights, "--source", str(picture), *place, "--name", "predict"]) == 0


@pytest.fixture(scope="module")
def quantized() -> Model:
    """A quarter of a yolov5n without its coarsest level and some blocks, with calm weights and int8 scales."""
    whole = variant("yolov5n")
    left = without_rows(whole, rows_to_drop(whole.network, ["model.6.m.1", "model.8.m", "model.13.m"], [8, 16]))
    half = prune(left, plan(left, "1/4", 8, "random"))
    return quantize(calm(half), [drawn_scene(seed, 64, 96) for seed in range(3)], imgsz=(64, 96))


@pytest.fixture
def stand_in() -> Iterator[None]:
    with installed(VERSIONS[-1]):
        yield


@pytest.mark.parametrize(("name", "precision"), [case for case in CASES if case[1] != "fp32"])
def test_every_target_in_half_precision_and_int8(name: str, precision: str, quantized: Model, tmp_path: Path, stand_in: None) -> None:
    """Against the reference; in float32 `tests/network/test_dropping.py` holds every target to it."""
    target = runnable(TARGETS[name])
    path = tmp_path / (f"made{target.ending}" if target.ending else name)
    report = export(quantized, path, name, precision, (64, 96))
    assert report.not_compared is None
    batch = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    session = open_session(path)
    try:
        assert session.info.network == quantized.network
        found, expected = session(batch), open_session(quantized, "numpy")(batch)
    finally:
        session.close()
    assert found.shape == expected.shape == (1, 3 * (8 * 12 + 4 * 6), 8)
    scores = np.abs(found - expected)[..., 4:]
    assert scores.max() < {"fp16": 2e-2, "int8": 1.0}[precision]
    assert np.sqrt((scores**2).sum() / (expected[..., 4:] ** 2).sum()) < {"fp16": 2e-2, "int8": 0.3}[precision]


def test_raw_heads(quantized: Model, tmp_path: Path) -> None:
    """Boxes that the sentences beside the file make of its outputs are those of the network: two levels, two strides, two lists of anchors."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from tests.targets.test_raw_heads import boxes_of

    path = tmp_path / "raw.onnx"
    export(quantized, path, "onnx", imgsz=(64, 96), raw_heads=True)
    described = json.loads(path.with_name("raw.onnx.json").read_text())
    assert [level["stride"] for level in described["outputs"]] == [8, 16]
    batch = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    images = (batch.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    found = boxes_of(described, dict(zip(names, session.run(names, {"images": images}), strict=True)))
    np.testing.assert_allclose(found, open_session(quantized, "numpy")(batch)[0], rtol=1e-4, atol=1e-3)
