"""Where networks run: `device` of sessions, of `Detector` and of the commands."""

from __future__ import annotations

import pytest

from octrim.detector import Detector
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.targets.opening import open_session
from tests.networks import lively_model


@pytest.fixture(scope="module")
def model() -> Model:
    return lively_model(yolov5_network("yolov5n", 1))


def test_an_engine_runs_on_a_gpu_and_nothing_else_of_what_is_exported_does(model: Model) -> None:
    with pytest.raises(InputError, match=r"a.engine: an engine runs on GPUs, and device is cpu"):
        open_session("a.engine", device="cpu")
    for path in ("a.onnx", "a.xml"):
        with pytest.raises(
            InputError, match=rf"{path}: .* runs on processors, and device is gpu; a GPU runs engines \(octrim export --format tensorrt\)"
        ):
            open_session(path, device="gpu")
    for runtime in ("openvino", "onnxruntime", "numpy"):
        with pytest.raises(InputError, match=f"{runtime} runs on processors, and device is gpu; a GPU runs engines"):
            open_session(model, runtime, device="gpu")
    with pytest.raises(InputError, match=r"device is '0', expected auto, cpu or gpu"):
        open_session(model, device="0")


def test_a_model_on_a_gpu_runs_in_paddle(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """As users of YOLOv5 mean `--device 0`; this machine's Paddle is told of a GPU that it does not have."""
    backend = pytest.importorskip("octrim.backends.paddle", exc_type=ImportError)
    chosen: list[str] = []
    monkeypatch.setattr(backend.paddle, "set_device", chosen.append)
    if not backend.gpus():
        with pytest.raises(InputError, match=r"device is gpu; this Paddle has none \(pip install paddlepaddle-gpu"):
            Detector(model, device="gpu")
    monkeypatch.setattr(backend, "gpus", lambda: 1)
    assert Detector(model, device="gpu").info.runtime == "paddle"
    assert open_session(model, "paddle", device="gpu").info.runtime == "paddle"
    assert chosen == ["gpu", "gpu"]
    assert open_session(model, "paddle", device="cpu").info.runtime == "paddle"
    assert chosen == ["gpu", "gpu", "cpu"]
    assert open_session(model, "paddle").info.runtime == "paddle"
    assert chosen == ["gpu", "gpu", "cpu"]


def test_cpu_leaves_the_default_runtime(model: Model) -> None:
    assert open_session(model, device="cpu").info.runtime == "openvino"
