"""Engines run in the stand-in, which has TensorRT's and CUDA's rules and the host's memory: numbers, memory, graphs, and what is refused."""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.targets.opening import open_session
from octrim.targets.tensorrt.build import build_engine, engine_header
from octrim.targets.tensorrt.cuda import Gpu, nvidia_smi
from octrim.targets.tensorrt.engine_file import header_path, read_engine, write_engine
from octrim.targets.tensorrt.header import EngineHeader
from octrim.targets.tensorrt.session import TensorrtFileSession, _Lane
from tests.networks import lively_model, three_levels
from tests.targets.tensorrt_standin import VERSIONS, Installed, installed

SIDES = (64, 96)
GPU = Gpu("Stand-in", "8.7", "12.9", "13.0")


@lru_cache(maxsize=1)
def small() -> Model:
    return lively_model(three_levels(3))


@lru_cache
def built(version: str, batch: Any, pixels: bool = True, decode: bool = True) -> tuple[bytes, EngineHeader]:
    with installed(version):
        engine = build_engine(small(), *SIDES, batch=batch, pixels=pixels, decode=decode)
        return engine, engine_header(small(), *SIDES, "fp32", batch, pixels, decode, engine, gpu=GPU)


def engine_file(folder: Path, version: str, batch: Any = (1, 2, 6), **options: bool) -> Path:
    path = folder / "model.engine"
    write_engine(path, *built(version, batch, **options))
    return path


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIDES, 3), np.uint8)


@lru_cache
def expected(count: int, seed: int = 0) -> np.ndarray:
    return open_session(small(), "onnxruntime")(pictures(count, seed))


def close_to(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.allclose(found[..., 4:], wanted[..., 4:], atol=1e-4) and np.allclose(found, wanted, 1e-4, 1e-2))


@pytest.fixture
def path(tmp_path: Path, fake: Installed) -> Path:
    return engine_file(tmp_path, fake.trt.__version__)


@pytest.mark.slow
def test_outputs_of_every_batch_size_in_any_order(path: Path, fake: Installed) -> None:
    with open_session(path) as session:
        assert (session.info.size, session.info.batch, session.info.batches, session.info.names) == (SIDES, None, (1, 6), small().names)
        assert session.info.network == small().network
        kept = []
        for seed, count in enumerate([1, 3, 1, 2, 3, 1]):
            found = session(pictures(count, seed))
            assert found.dtype == np.float32
            kept.append((found, expected(count, seed)))
        assert all(close_to(found, wanted) for found, wanted in kept)  # also after later calls: results are copies
        assert [session.execution(count) for count in (1, 2, 3)] == ["graph"] * 3
        graphs = session(pictures(2))
        session.graphs = False
        np.testing.assert_array_equal(session(pictures(2)), graphs)
        assert session.execution(2) == "enqueue"
    assert not fake.device.live
    assert not fake.errors


def test_one_plain_run_then_a_graph(path: Path, fake: Installed) -> None:
    session = open_session(path)
    fake.device.calls.clear()
    session.prepare(2, *SIDES)
    copies = ["cudaMemcpyAsync"] * 2
    plain = [*copies, "cudaStreamSynchronize"]
    capture = ["cudaStreamBeginCapture", *copies, "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy"]
    assert fake.device.calls == ["cudaHostAlloc", "cudaMalloc"] * 2 + plain + capture
    fake.device.calls.clear()
    session(pictures(2))
    session(pictures(2))
    assert fake.device.calls == ["cudaGraphLaunch", "cudaStreamSynchronize"] * 2


def test_a_capture_that_fails_is_no_failure(path: Path, fake: Installed) -> None:
    fake.device.fail_capture = True
    with open_session(path) as session:
        for seed in range(2):
            assert close_to(session(pictures(2, seed)), expected(2, seed))
        assert session.execution(2).startswith("enqueue: cuda")
        assert "cudaErrorStreamCaptureInvalidated" in session.execution(2)
        assert fake.device.calls.count("cudaStreamBeginCapture") == 1  # it is not tried again for every batch
        fake.device.fail_capture = False
        session(pictures(3))
        assert session.execution(3) == "graph"
    assert not fake.device.live


def test_tensorrt_that_refuses_to_be_captured(path: Path, fake: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = _Lane.enqueue, []

    def enqueue(lane: _Lane) -> None:
        calls.append(1)
        if len(calls) == 2:  # the first is the plain run, the second the capture
            raise InputError("not in a graph")
        right(lane)

    monkeypatch.setattr(_Lane, "enqueue", enqueue)
    with open_session(path) as session:
        assert close_to(session(pictures(2)), expected(2))
        assert session.execution(2) == "enqueue: not in a graph"
        assert "graphs" not in fake.device.live
    assert not fake.device.live


@pytest.mark.slow
def test_memory_is_given_back(path: Path, fake: Installed) -> None:
    session = open_session(path)
    for count in range(1, 7):
        assert close_to(session(pictures(count)), expected(count))
    live = fake.device.live
    assert live == {"device": 8, "host": 8, "streams": 1, "executables": 4}  # four batch sizes are kept
    session.close()
    session.close()
    assert not fake.device.live
    with pytest.raises(InputError, match="session is closed"):
        session(pictures(1))
    forgotten = open_session(path)
    forgotten(pictures(1))
    assert fake.device.live
    del forgotten
    gc.collect()
    assert not fake.device.live


@pytest.mark.parametrize("fits", [0, 1])
def test_out_of_memory_is_told_and_leaves_nothing(path: Path, fake: Installed, monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    """fits: 1 where there is room for the pictures, but not for the boxes."""
    with open_session(path) as session:
        session(pictures(1))
        before = fake.device.live
        asked: list[int] = []
        right = fake.cudart.cudaMalloc

        def allocate(size: int) -> tuple[Any, ...]:
            asked.append(size)
            return right(size if len(asked) <= fits else fake.device.capacity + 1)

        with monkeypatch.context() as patch:
            patch.setattr(fake.cudart, "cudaMalloc", allocate)
            with pytest.raises(InputError, match="cudaMalloc: .*cudaErrorMemoryAllocation"):
                session(pictures(3))
        assert fake.device.live == before
        assert close_to(session(pictures(1)), expected(1))


def test_threads_wait_for_each_other(path: Path, fake: Installed) -> None:
    wrong: list[int] = []
    with open_session(path) as session:

        def run(seed: int) -> None:
            wrong.extend(seed for _ in range(5) if not close_to(session(pictures(1 + seed, seed)), wanted[seed]))

        wanted = [expected(1 + seed, seed) for seed in range(3)]
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert not fake.device.live


def test_engines_of_one_batch_and_of_floats(tmp_path: Path, fake: Installed) -> None:
    session = open_session(engine_file(tmp_path, fake.trt.__version__, batch=2, pixels=False))
    assert session.info.batch == 2
    assert close_to(session(pictures(2)), expected(2))
    with pytest.raises(InputError, match="takes batches of 2; found 1"):
        session(pictures(1))


def test_batches_that_do_not_fit(path: Path) -> None:
    session = open_session(path)
    for batch, told in (
        (pictures(7), "batches of 1 to 6; found 7"),
        (np.zeros((1, 64, 64, 3), np.uint8), "takes pictures of 64x96; found 64x64"),
        (np.zeros((1, *SIDES, 3), np.float32), "uint8"),
    ):
        with pytest.raises(InputError, match=told):
            session(batch)
    with pytest.raises(InputError, match="1 to 6; found 9"):
        session.prepare(9, *SIDES)


def edited(path: Path, **changes: Any) -> None:
    content = json.loads(header_path(path).read_text())
    header_path(path).write_text(json.dumps({**content, **changes}))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no engine": (lambda path: path.unlink(), "no such file"),
    "no header": (lambda path: header_path(path).unlink(), "header file model.engine.json is missing"),
    "no JSON": (lambda path: header_path(path).write_text("{"), "model.engine.json: not JSON"),
    "no object": (lambda path: header_path(path).write_text("[]"), "no format number"),
    "newer": (lambda path: edited(path, format=99), "written by a newer OcTrim .format 99"),
    "no names": (lambda path: edited(path, names=None), "header is damaged"),
    "names of others": (lambda path: edited(path, names=["a"]), "1 names"),
    "names that are no text": (lambda path: edited(path, names=["a", "b", "c\n"]), "printable"),
    "no table": (lambda path: edited(path, table=[]), "network starts with"),
    "no size": (lambda path: edited(path, size=[64]), "header is damaged"),
    "no GPU": (lambda path: edited(path, gpu=None), "header is damaged"),
    "an absurd size": (lambda path: edited(path, size=[64, -1]), "size, batch, stride"),
    "batches that fall": (lambda path: edited(path, batch=[4, 2, 1]), "size, batch, stride"),
    "other TensorRT": (lambda path: edited(path, tensorrt="10.3.0"), "this is TensorRT 1.*, the engine was built with 10.3.0; build it here"),
    "other GPU": (lambda path: edited(path, gpu={"name": "Tesla T4", "capability": "7.5"}), "GPU is Stand-in .8.7., .* for Tesla T4 .compute"),
    "same GPU, other capability": (lambda path: edited(path, gpu={"name": "Stand-in", "capability": "8.6"}), "8.6"),
    "logits": (lambda path: edited(path, decode=False), "built without decoding"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "truncated"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "no digest": (lambda path: edited(path, sha256=None), "sha256 differs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_are_refused(path: Path, fake: Installed, what: str) -> None:
    damage, told = REFUSED[what]
    damage(path)
    with pytest.raises(InputError, match=told) as raised:
        open_session(path)
    assert str(path) in str(raised.value)
    assert not fake.device.live


def test_what_tensorrt_itself_cannot_read(tmp_path: Path, fake: Installed) -> None:
    import hashlib

    path = engine_file(tmp_path, fake.trt.__version__)
    path.write_bytes(b"no engine at all")
    edited(path, sha256={"engine": hashlib.sha256(b"no engine at all").hexdigest()})
    with pytest.raises(InputError, match="TensorRT cannot read it: .+"):
        open_session(path)
    assert not fake.device.live


def test_logits_under_a_header_that_says_boxes(tmp_path: Path, fake: Installed) -> None:
    path = engine_file(tmp_path, fake.trt.__version__, batch=1, decode=False)
    edited(path, decode=True)
    with pytest.raises(InputError, match="expected the tensors images and output0"):
        open_session(path)


def test_machines_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver, no GPU, no CUDA bindings, no TensorRT: one line each, that says what to do."""
    path = engine_file(tmp_path, VERSIONS[0])
    with installed(VERSIONS[0]) as fake:
        monkeypatch.setattr(fake.cudart, "cudaRuntimeGetVersion", lambda: (fake.cudart.cudaError_t.cudaSuccess, 13000))
        fake.device.driver_missing = True
        with pytest.raises(InputError, match="no NVIDIA driver here, or one older than CUDA 13.0 .*InsufficientDriver.*octrim.tensorrt-cu12."):
            open_session(path)
        fake.device.driver_missing = False
        fake.device.count = 0
        with pytest.raises(InputError, match="no NVIDIA GPU is visible .cudaErrorNoDevice"):
            open_session(path)
        with monkeypatch.context() as missing:  # undone before the stand-in goes, or it would come back
            missing.setitem(sys.modules, "cuda.bindings", None)
            missing.setitem(sys.modules, "cuda.bindings.runtime", None)
            with pytest.raises(InputError, match=r"CUDA bindings cannot be imported.*octrim\[tensorrt\]"):
                open_session(path)
            missing.setitem(sys.modules, "tensorrt", None)
            with pytest.raises(InputError, match=r"pip install 'octrim\[tensorrt\]'"):
                open_session(path)


def test_what_does_not_go_together(path: Path) -> None:
    for options, told in (
        ({"runtime": "openvino"}, "an engine runs in tensorrt, not in openvino"),
        ({"precision": "fp16"}, "was built in fp32; TensorRT cannot run it in fp16"),
    ):
        with pytest.raises(InputError, match=told):
            open_session(path, **options)
    with pytest.raises(InputError, match="octrim export --format tensorrt writes one"):
        open_session(small(), "tensorrt")


def test_a_header_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = engine_file(tmp_path, VERSIONS[0])
    assert read_engine(path) == built(VERSIONS[0], (1, 2, 6))[::-1]
    header = built(VERSIONS[0], (1, 2, 6))[1]
    assert EngineHeader.from_json(json.loads(json.dumps(header.to_json()))) == header


def test_header_and_engine_change_together(tmp_path: Path) -> None:
    """Between the two files of a new export the old header must not vouch for the new engine, nor the other way round."""
    path = engine_file(tmp_path, VERSIONS[0])
    engine, _ = built(VERSIONS[0], 1)
    header_path(path).unlink()
    path.write_bytes(engine)
    with pytest.raises(InputError, match="is missing"):
        TensorrtFileSession(path)


def test_predict_takes_an_engine(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from octrim.data.scenes import drawn_scene
    from tests.data.test_pictures import write

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.png", drawn_scene(0, 64, 96))  # the engine's size, so that a model file letterboxes it alike
    small().save("small.safetensors")
    for weights in ("model.engine", "small.safetensors"):
        assert main(["predict", "--weights", weights, "--source", "a.png", "--save-json", "--nosave", "--imgsz", "64", "96"]) == 0
    found, wanted = (json.loads(Path(f"runs/predict/{name}/predictions.json").read_text()) for name in ("exp", "exp2"))
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert (one["name"], one["score"]) == (other["name"], pytest.approx(other["score"], abs=1e-4))
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)
    assert main(["predict", "--weights", "model.engine", "--source", "a.png", "--imgsz", "128"]) == 2
    assert "was built for 64x96 pixels" in capsys.readouterr().err


def test_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi() == {}
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA T4, 550.54, 1590 MHz, 1590 MHz, 5000 MHz, 5001 MHz, [N/A]'\n")
    program.chmod(0o755)
    found = nvidia_smi()
    assert (found["driver"], found["sm_clock"]) == ("550.54", "1590 MHz")
    assert "power_limit" not in found
    program.write_text("#!/bin/sh\nexit 9\n")
    assert nvidia_smi() == {}
