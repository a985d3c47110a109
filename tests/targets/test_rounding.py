"""Weights that do not fit float16: refused by every target that stores them in it, in one line, and nothing is left behind."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from octrim.cli import main
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.targets.opening import open_session
from octrim.targets.rounding import rounded
from octrim.targets.table import TARGETS
from tests.networks import variant

HALVES = [name for name, one in TARGETS.items() if "fp16" in one.precisions and name != "tensorrt"]
"""Targets that store float16; engines have a test of their own (test_tensorrt_build)."""

PACKAGES = {"ncnn": "ncnn", "litert": "ai_edge_litert"}


@pytest.fixture(scope="module")
def whole() -> Model:
    return replace(variant("yolov5n"), image_size=64)


def broken(model: Model, name: str, value: float) -> Model:
    tensor = model.tensors[name].copy()
    tensor.flat[3] = value
    return replace(model, tensors={**model.tensors, name: tensor})


def test_targets_that_store_float16() -> None:
    assert set(HALVES) == {"onnx", "openvino", "ncnn", "litert"}


@pytest.mark.parametrize("format", HALVES)
def test_a_weight_beyond_float16(
    format: str, whole: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if format in PACKAGES and find_spec(PACKAGES[format]) is None:
        pytest.skip(f"{PACKAGES[format]} is not installed")
    monkeypatch.chdir(tmp_path)
    broken(whole, "model.24.m.1.weight", -1e6).save("m.safetensors")
    assert main(["export", "--weights", "m.safetensors", "--format", format, "--precision", "fp16"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert "model.24.m.1: weight: -1e+06 does not fit float16, which ends at 65504 (with batch norm folded)" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors"]


@pytest.mark.parametrize("runtime", sorted(one.runtime for one in TARGETS.values() if "fp16" in one.live))
def test_a_session_without_a_file(runtime: str, whole: Model) -> None:
    target = next(one for one in TARGETS.values() if one.runtime == runtime)
    if target.name in PACKAGES and find_spec(PACKAGES[target.name]) is None:
        pytest.skip(f"{PACKAGES[target.name]} is not installed")
    model = broken(whole, "model.4.cv2.conv.weight", 1e9)
    with pytest.raises(InputError, match=r"^model\.4\.cv2: weight: .* does not fit float16"):
        open_session(model, runtime, "fp16")(np.zeros((1, 64, 64, 3), np.uint8))


def test_where_float16_ends() -> None:
    """The largest number is 65504; what is nearer to it than to the next power of two is rounded to it, half a step being the first that is not."""
    values = np.array([65504.0, -65519.99, 1e-9, 0.0])
    assert rounded("w", values, np.float16).tolist() == [65504.0, -65504.0, 0.0, 0.0]
    for worst, told in ((65520.0, "w: 65520"), (-7e4, "w: -70000"), (np.inf, "w: inf"), (np.nan, "w: nan")):
        with pytest.raises(InputError, match=f"^{re.escape(told)} does not fit float16, which ends at 65504"):
            rounded("w", np.array([1.0, worst]), np.float16)
    with pytest.raises(InputError, match=r"^w: 1e\+39 does not fit float32, which ends at 3\.40282e\+38"):
        rounded("w", np.array([1e39]), np.float32)
