"""On the machine that runs a detector there is no Paddle: predict, val and bench of every deployable, and the building of an engine, without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from octrim.data.scenes import drawn_scene
from octrim.targets.onnx.graph import onnx_model
from tests.data.test_pictures import write
from tests.deploy.test_formats import labelled, made
from tests.targets.tensorrt_standin import VERSIONS

ROOT = Path(__file__).parents[2]

PROGRAM = """
import contextlib, importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "paddle":
            raise ImportError(f"{name} is refused here")

sys.meta_path.insert(0, Refuse())
version, *arguments = sys.argv[1:]
context = contextlib.nullcontext()
if version:
    from tests.targets.tensorrt_standin import installed
    context = installed(version)
with context:
    from octrim.cli import main
    for command in "\\n".join(arguments).split("\\n;\\n"):
        if code := main(command.split("\\n")):
            sys.exit(code)
sys.exit(3 * ("paddle" in sys.modules))
"""


def run(folder: Path, version: str, *commands: list[str]) -> str:
    """Several commands in one process. version: of the TensorRT that is installed there, or nothing."""
    arguments = [argument for command in commands for argument in (*command, ";")][:-1]
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder), "PATH": ""}
    program = [sys.executable, "-c", PROGRAM, version, *arguments]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import openvino as ov

    from octrim.targets.openvino.graph import openvino_model

    folder = tmp_path_factory.mktemp("device")
    model = made()
    model.save(folder / "small.safetensors")
    (folder / "model.onnx").write_bytes(onnx_model(model, 64, 64, None).SerializeToString())
    ov.save_model(openvino_model(model, 64, 64, None), folder / "openvino/model.xml")
    labelled(folder, model)
    write(folder / "a.png", drawn_scene(7, 60, 90))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["model.onnx", "openvino", "small.safetensors", *VERSIONS])
def test_commands(folder: Path, weights: str) -> None:
    place = ["--project", f"runs/{weights}", "--name"]
    version, name, commands = "", weights, []
    if weights in VERSIONS:
        version, name = weights, f"runs/{weights}/export/model.engine"
        options = ["--format", "tensorrt", "--dynamic", "--batch", "4"]
        commands.append(["export", "--weights", "small.safetensors", *options, *place, "export"])
    common = ["--weights", name, "--imgsz", "64", *place]
    commands.append(["predict", *common, "predict", "--source", "a.png", "--save-json"])
    commands.append(["val", *common, "val", "--data", "data/data.yaml", "--batch", "4", "--bootstrap", "0"])
    commands.append(["bench", *common, "bench", "--iterations", "2", "--warmup", "0"])
    told = run(folder, version, *commands)
    assert ("compared with ONNX Runtime" in told) == bool(version)
    files = {
        kind: json.loads((folder / f"runs/{weights}" / kind).read_text())
        for kind in ("predict/predictions.json", "val/metrics.json", "bench/bench.json")
    }
    assert files["predict/predictions.json"]
    # The labels are the model's own boxes; a model file sees its pictures with a rim, which deployables of fixed size do not.
    assert files["val/metrics.json"]["mAP50"] > (0.2 if name == "small.safetensors" else 0.7)
    assert files["bench/bench.json"]["networks"][0]["network_p50_ms"] > 0
