"""`octrim doctor`: what it finds here, and what it says of machines that lack something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from octrim.backends.numpy import NumpyOps, decode
from octrim.cli import main
from octrim.doctor import checks as doctor
from octrim.doctor import trials
from octrim.doctor.checks import verdict
from octrim.doctor.trials import Finding, _target, deviation, package_for, pictures, small_model
from octrim.errors import InputError
from octrim.network.rows import INPUTS, walk
from octrim.targets.session import float_batch
from octrim.targets.table import TARGETS

ESSENTIAL = ("Python", "libraries", "this folder", "OpenVINO", "ONNX Runtime")


def states(**changed: str) -> list[Finding]:
    return [Finding(what, changed.get(what.replace(" ", "_"), "works"), "found", "advice") for what in ESSENTIAL]


@pytest.mark.slow
def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run here, so networks do; and a file of a library's name in the working directory is nobody's business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the working directory')")
    assert main(["doctor", "--json"]) == 0
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert set(found) == {*ESSENTIAL, "cache folder", "temporary folder", "libgomp", "processor", "memory", *found}
    for what in ESSENTIAL:
        assert found[what]["state"] == "works", found[what]
    assert f"numpy {np.__version__}" in found["libraries"]["found"]
    assert str(tmp_path) in found["this folder"]["found"]
    for what in ("PaddlePaddle", "TensorRT", "pygame"):
        assert found[what]["state"] in ("works", "missing"), found[what]
        assert found[what]["state"] == "works" or "pip install" in found[what]["advice"]
    assert found["training"]["state"] == "works" if found["PaddlePaddle"]["state"] == "works" else "training" not in found


def test_the_small_network_has_every_op_and_something_to_say() -> None:
    model = small_model()
    assert {row.op for row in model.network.rows} == set(INPUTS)
    found = decode(model.network, walk(model.network, NumpyOps(model), float_batch(pictures())))
    assert found.shape == (1, 192, 7)
    assert found.std(axis=1).min() > 1e-4  # boxes differ: a runtime that ignores its input would be noticed
    assert deviation(found, found) == 0
    assert deviation(found * 1.01, found) == pytest.approx(0.01, rel=1e-4)
    for bad in (np.nan, np.inf):  # in whichever part of the output: the larger of two deviations must not lose it
        damaged = np.where(np.arange(found.size).reshape(found.shape) == found.size - 1, np.float32(bad), found)
        assert deviation(damaged, found) == np.inf
        assert deviation(found, damaged) == np.inf


def test_a_runtime_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from octrim.targets.openvino import session as openvino_session

    run = openvino_session.OpenvinoSession.__call__
    for change in (lambda out: out * 1.01, lambda out: out * np.nan):
        monkeypatch.setattr(openvino_session.OpenvinoSession, "__call__", lambda self, batch, change=change: change(run(self, batch)))
        (check,) = _target(TARGETS["openvino"])
        assert check.state == "fails"
        assert "more than" in check.found
        assert "--runtime" in check.advice


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"OpenVINO": "fails"}, None),
        ({"ONNX_Runtime": "missing"}, None),
        ({"OpenVINO": "fails", "ONNX_Runtime": "missing"}, "networks cannot be run here: OpenVINO: found, advice; ONNX Runtime: found, advice"),
        ({"Python": "fails"}, "networks cannot be run here: Python: found, advice"),
        ({"libraries": "fails"}, "libraries: found"),
        ({"this_folder": "fails"}, "this folder: found"),
    ],
)
def test_what_is_essential(changed: dict[str, str], told: str | None) -> None:
    if told is None:
        verdict([*states(**changed), Finding("PaddlePaddle", "missing", ""), Finding("training", "fails", "")])
    else:
        with pytest.raises(InputError, match=told):
            verdict(states(**changed))


@pytest.mark.slow
def test_missing_and_broken_libraries(tmp_path: Path) -> None:
    """As on a machine without Paddle, ncnn, LiteRT and C compiler, with a broken OpenVINO, and with an ONNX Runtime that ends its process."""
    for name in ("paddle", "ncnn", "ai_edge_litert"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\")")
    (tmp_path / "openvino.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file: No such file or directory')")
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nprint('hello', flush=True)\nos.kill(os.getpid(), signal.SIGILL)")
    program = "import sys; from octrim.cli import main; sys.exit(main(['doctor', '--json']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(trials.__file__).parents[2])]), "CC": "none"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = {check["what"]: check for check in json.loads(done.stdout)}
    assert found["PaddlePaddle"]["state"] == "missing"
    assert "training is not available" in found["PaddlePaddle"]["advice"]
    for what, advice in (("ncnn", "pip install 'octrim[ncnn]'"), ("LiteRT", "pip install 'octrim[litert]'")):
        assert (found[what]["state"], found[what]["advice"]) == ("missing", advice)
    assert found["OpenVINO"]["state"] == "fails"
    assert found["OpenVINO"]["advice"] == "apt-get install libgomp1"
    assert found["ONNX Runtime"]["found"] == "the process was ended by SIGILL: it has instructions that this processor lacks"
    assert done.returncode == 2
    assert done.stderr.startswith("octrim doctor: error: networks cannot be run here: ")
    assert all(f"{what}: " in done.stderr for what in ("ONNX Runtime", "OpenVINO", "C"))
    assert done.stderr.count("\n") == 1


def test_a_library_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT", 0.01)
    with doctor._started("libraries") as wait:
        assert wait() == [Finding("libraries", "fails", "does not answer within 0.01 seconds")]


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.chdir(tmp_path)
    assert [check.state for check in doctor._folders()] == ["works"] * 3
    assert not (tmp_path / "not").exists()
    if Path("/sys/kernel").is_dir():
        monkeypatch.chdir("/sys/kernel")
        here, *_ = doctor._folders()
        assert here.state == "fails"
        assert here.found.startswith("/sys/kernel: ")


def test_system_libraries() -> None:
    assert package_for("libGL.so.1: cannot open shared object file") == "apt-get install libgl1"
    assert package_for("something else") == ""
