"""How an engine is built: options, the cache of kernel times, progress, versions of TensorRT and none, the engine's header."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.folding import folded_conv
from octrim.network.rows import Network
from octrim.targets.tensorrt import layers as tensorrt_layers
from octrim.targets.tensorrt.build import build_engine, engine_header, import_tensorrt, version_of, weights_sha256
from tests.targets.int8_reference import with_scales
from tests.targets.tensorrt_networks import pictures, settled
from tests.targets.tensorrt_standin import VERSIONS, installed, program


@pytest.mark.slow
def test_timing_cache(trt: Any, tmp_path: Path) -> None:
    model, path = settled("yolov5n"), tmp_path / "kernels.cache"
    build_engine(model, 64, 64, timing_cache=path)
    first = path.read_bytes()
    assert first
    build_engine(model, 64, 64, timing_cache=path)
    assert path.read_bytes() == first
    for other in (b"damaged", first.replace(trt.__version__.encode(), b"10.0.1")):
        path.write_bytes(other)
        build_engine(model, 64, 64, timing_cache=path)
        assert path.read_bytes() == first
    with pytest.raises(InputError, match="its folder does not exist"):
        build_engine(model, 64, 64, timing_cache=tmp_path / "no" / "kernels.cache")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "bf16"}, "precision 'bf16' for TensorRT; expected one of fp32, fp16, int8"),
        ({"precision": "int8"}, "int8 needs scales: octrim quantize --weights .. first"),
        ({"height": 100}, "multiples of the stride 32; found 100x64"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": (2, 1, 4)}, "batch is (2, 1, 4)"),
        ({"pad_channels": 0}, "pad_channels is 0"),
        ({"level": 6}, "optimization level is 6"),
        ({"workspace": 0}, "workspace is 0"),
        ({"high_precision": "int8"}, "high_precision is 'int8', expected fp16 or fp32"),
    ],
)
def test_wrong_options(trt: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        build_engine(settled("yolov5n"), **({"height": 64, "width": 64} | options))


def test_weights_that_do_not_fit_float16(trt: Any) -> None:
    model = settled("yolov5n")
    for name, told in (("model.4.cv2.conv.weight", "model.4.cv2: weight: "), ("model.4.cv2.bn.bias", "model.4.cv2: bias: ")):
        tensor = model.tensors[name].copy()
        tensor.flat[3] = 1e6
        broken = replace(model, tensors={**model.tensors, name: tensor})
        build_engine(broken, 64, 64)
        with pytest.raises(InputError, match=f"^{re.escape(told)}.* does not fit float16"):
            build_engine(broken, 64, 64, "fp16")


def test_a_failed_build_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settled("yolov5n")
    with installed(VERSIONS[1]) as fake:
        with monkeypatch.context() as patch:
            patch.setattr(tensorrt_layers, "folded_conv", lambda model, row: (folded_conv(model, row)[0], np.zeros(5)))
            with pytest.raises(InputError, match=r"^TensorRT 11.4.0.106 cannot build the engine: model.0/conv .*bias of 5 values"):
                build_engine(model, 64, 64)
        assert len(fake.errors) == 1
        build_engine(model, 64, 64)
        monkeypatch.setitem(fake.trt.__dict__, "Builder", no_builder(fake.trt))
        with pytest.raises(InputError, match=r"^TensorRT 11.4.0.106 cannot start: CUDA initialization failure with error: 35"):
            build_engine(model, 64, 64)


def no_builder(trt: Any) -> Any:
    """As the bindings do without a driver."""

    def construct(log: Any) -> None:
        log.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure\nwith error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    return construct


def test_settings(trt: Any) -> None:
    settings = program(build_engine(settled("yolov5n"), 64, 64, workspace=1 << 20, level=1)).settings
    assert settings["flags"] == []  # TF32 is on by default
    assert (settings["memory"], settings["builder_optimization_level"]) == ({"WORKSPACE": 1 << 20}, 1)


def test_progress_and_its_end(trt: Any) -> None:
    said: list[tuple[str, int, int]] = []
    engine = build_engine(settled("yolov5n"), 64, 64, progress=lambda phase, done, total: said.append((phase, done, total)))
    assert engine == build_engine(settled("yolov5n"), 64, 64)
    assert said[0][1] == 0
    assert said[-1][1] == said[-1][2] > 0

    def interrupted(phase: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(settled("yolov5n"), 64, 64, progress=interrupted)
    assert trt._space.errors == ["the build was stopped by the progress monitor"]
    trt._space.errors.clear()


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.19"])
def test_old_tensorrt(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__=version))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"TensorRT {version} is too old; expected 10.3 or newer"):
        build_engine(settled("yolov5n"), 64, 64)


@pytest.mark.parametrize(
    ("name", "version", "recorded"),
    [("tensorrt", "10.3.0.26", "10.3.0.26"), ("tensorrt", "11.0", "11.0"), ("tensorrt_rtx_bindings", "1.7.1", "rtx 1.7.1")],
)
def test_tensorrt_that_is_new_enough(monkeypatch: pytest.MonkeyPatch, name: str, version: str, recorded: str) -> None:
    module = ModuleType(name)
    module.__dict__["__version__"] = version
    for key, value in ({"tensorrt": None} | {name: module}).items():
        monkeypatch.setitem(sys.modules, key, value)
    assert import_tensorrt() is module
    assert version_of(module) == recorded


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="TensorRT cannot be imported.*octrim"):
        build_engine(settled("yolov5n"), 64, 64)


def test_header(trt: Any) -> None:
    model = with_scales(settled("yolov5n"), pictures(1, 64, 64))
    header = json.loads(json.dumps(engine_header(model, 64, 96, "int8", (1, 2, 4), True, True, b"engine").to_json()))
    assert Network.from_json(header["table"], header["anchors"]) == model.network
    assert header["sha256"]["engine"] == hashlib.sha256(b"engine").hexdigest()
    assert (header["size"], header["batch"], header["input"], header["gpu"]) == ([64, 96], [1, 2, 4], "uint8", None)
    assert (header["tensorrt"], header["high_precision"]) == (trt.__version__, "fp16")
    assert (header["names"], header["strides"], header["lineage"]) == (list(model.names), [8, 16, 32], list(model.lineage))
    assert weights_sha256(replace(model, scales={})) != header["sha256"]["weights"] == weights_sha256(model)
