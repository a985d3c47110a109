"""One session in several threads: every answer is that of the picture that was asked about, in every runtime."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from octrim import machine
from octrim.deploy.export import export
from octrim.detector import Detector
from octrim.errors import InputError
from octrim.network.model import Model
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets import session as module
from octrim.targets.c.compiler import has_compiler
from octrim.targets.opening import open_session
from octrim.targets.session import PerShape
from tests.networks import lively_model
from tests.targets.tensorrt_standin import VERSIONS, installed

SIDE = 64
RUNS = ["openvino", "onnxruntime", "paddle", "numpy", "model.onnx in onnxruntime", "model.onnx in openvino", "ir", "inference", "model.engine"]
RUNS += ["c", "code"] if has_compiler() else []


@pytest.fixture(scope="module")
def model() -> Model:
    whole = lively_model(yolov5_network("yolov5n", 3))
    return prune(whole, plan(whole, keep="1/8", align=8))


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every kind of deployable, and a stand-in for TensorRT that stays."""
    path = tmp_path_factory.mktemp("deployables")
    with installed(VERSIONS[-1]):
        for name, format in (("model.onnx", "onnx"), ("ir", "openvino"), ("inference", "paddle"), ("model.engine", "tensorrt"), ("code", "c")):
            export(model, path / name, format, imgsz=SIDE)
        yield path


def opened(run: str, model: Model, folder: Path, threads: int | None = None) -> Any:
    name, _, runtime = run.partition(" in ")
    if not (folder / name).exists():
        return open_session(model, run, threads=threads if run != "numpy" else None)
    return open_session(folder / name, runtime or None, threads=threads if name != "model.engine" else None)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_an_empty_batch_has_no_predictions(run: str, model: Model, folder: Path) -> None:
    session = opened(run, model, folder)
    empty = np.zeros((0, SIDE, SIDE, 3), np.uint8)
    if session.info.batch is not None or session.info.batches is not None:
        with pytest.raises(InputError, match="this .* graph takes batches of 1.*; found 0"):
            session(empty)
    else:
        assert session(empty).shape == (0, *open_session(model, "numpy")(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape[1:])
    session.close()


def at_once(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What `function(0)`, .. return, called in a thread each, all begun at the same moment."""
    gate = threading.Barrier(count)

    def begun(number: int) -> Any:
        gate.wait()
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begun, range(count)))


def pictures(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A batch of one. Pictures of different seeds have little in common: blocks of four pixels in random colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
    return blocks.repeat(4, 0).repeat(4, 1)[None]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("run", RUNS)
def test_every_thread_gets_its_own_answers(run: str, threads: int, model: Model, folder: Path) -> None:
    session = opened(run, model, folder)
    expected = [session(pictures(seed)) for seed in range(threads)]
    assert min(np.abs(one - other).max() for index, one in enumerate(expected) for other in expected[:index]) > 1e-2
    calls = {"numpy": 5, "model.engine": 5, "inference": 10}.get(run, 40)  # fewer where a call is slow, or waits long for its turn
    found = at_once(threads, lambda number: [session(pictures(number)) for _ in range(calls)])
    for answers, wanted in zip(found, expected, strict=True):
        for answer in answers:
            np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_session_that_is_closed_says_so(run: str, model: Model, folder: Path) -> None:
    """Closed while other threads use it, it gives the answer of the picture that was asked about or none, and never one after that."""
    session = opened(run, model, folder)
    expected = session(pictures(0))

    def used(number: int) -> list[Any]:
        if number == 0:
            return session.close()
        answers = []
        with pytest.raises(InputError, match="session is closed"):
            while True:
                answers.append(session(pictures(0)))
        return answers

    for answer in (answer for answers in at_once(3, used)[1:] for answer in answers):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)
    session.close()
    with pytest.raises(InputError, match="session is closed"):
        session(pictures(0))
    with pytest.raises(InputError, match="session is closed"):
        session.prepare(1, SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["openvino", "onnxruntime", *(["c"] if has_compiler() else [])])
def test_shapes_come_and_go_while_others_run(run: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread has pictures of two shapes, and fewer shapes are kept than there are."""
    monkeypatch.setattr(module, "_SHAPES_KEPT", 2)
    session = open_session(model, run)
    sizes = [(64, 64 + 32 * number) for number in range(4)]
    batches = [[pictures(number, *sizes[number]), pictures(number, *sizes[number][::-1])] for number in range(4)]
    expected = [[session(batch) for batch in own] for own in batches]
    found = at_once(4, lambda number: [[session(batch) for batch in batches[number]] for _ in range(2)])
    for answers, wanted in zip(found, expected, strict=True):
        for rounds in answers:
            for answer, one in zip(rounds, wanted, strict=True):
                np.testing.assert_allclose(answer, one, rtol=1e-5, atol=1e-5)


def test_a_shape_is_compiled_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads that come with the same new shape wait for one compilation."""
    session = open_session(model, "openvino")
    built: list[tuple[int, int, int]] = []
    kept = next(value for value in vars(session).values() if isinstance(value, PerShape))
    build = kept.build

    def counted(*shape: int) -> Any:
        built.append(shape)
        return build(*shape)

    monkeypatch.setattr(kept, "build", counted)
    at_once(8, lambda _: session.prepare(1, SIDE, SIDE))
    assert built == [(1, SIDE, SIDE)]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 8])
def test_one_detector(threads: int, model: Model) -> None:
    """Pictures of different shapes: letterboxes, sessions and suppression of one thread stay apart from those of the others."""
    detector = Detector(model, imgsz=128, conf=0.01)
    images = [np.random.default_rng(seed).integers(0, 256, (60 + 20 * seed, 200 - 15 * seed, 3)).astype(np.uint8) for seed in range(threads)]
    expected = [detector.detect(image) for image in images]
    assert all(len(one.confidence) for one in expected)
    for answers, wanted in zip(at_once(threads, lambda number: [detector.detect(images[number]) for _ in range(10)]), expected, strict=True):
        for answer in answers:
            assert (answer.height, answer.width) == (wanted.height, wanted.width)
            np.testing.assert_allclose(answer.xyxy, wanted.xyxy, atol=1e-3)
            np.testing.assert_allclose(answer.confidence, wanted.confidence, atol=1e-5)


def test_the_number_of_paddles_threads_is_that_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle's number of threads is the process's: whoever is in a block finds the number that the block asked for, until its end."""
    backend = pytest.importorskip("octrim.backends.paddle", exc_type=ImportError)
    started = backend._THREADS
    now = [started]
    core = SimpleNamespace(set_num_threads=now.append)
    monkeypatch.setattr(backend.paddle.base, "core", core)

    def inside(number: int) -> None:
        for _ in range(20):
            with backend.processor_threads(number + 1):
                time.sleep(1e-4)
                assert now[-1] == number + 1
                with backend.processor_threads(None):
                    assert now[-1] == started
                assert now[-1] == number + 1  # not what Paddle started with

    at_once(8, inside)
    assert now[-1] == started


@pytest.mark.slow
def test_paddle_sessions_of_different_numbers_of_threads(model: Model, folder: Path) -> None:
    """Of both kinds, in four threads: each gives the same bits as alone."""
    sessions = [opened(run, model, folder, threads) for run in ("paddle", "inference") for threads in (1, 2)]
    expected = [session(pictures(number)) for number, session in enumerate(sessions)]
    found = at_once(4, lambda number: [sessions[number](pictures(number)) for _ in range(20)])
    for answers, wanted in zip(found, expected, strict=True):
        for answer in answers:
            np.testing.assert_array_equal(answer, wanted)


@pytest.mark.parametrize("quota", [1.0, 0.4])
def test_runtimes_are_told_of_a_quota(quota: float, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count cores themselves, but know no quota: in a container of one core they would start as many threads as the machine has cores."""
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    compiled = vars(open_session(model, "openvino"))["requests"](1, SIDE, SIDE).get_compiled_model()
    session = vars(open_session(model, "onnxruntime"))["sessions"](1, SIDE, SIDE)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert session.get_session_options().intra_op_num_threads == 1


def test_runtimes_count_cores_themselves_without_a_quota(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: math.inf)
    session = vars(open_session(model, "onnxruntime"))["sessions"](1, SIDE, SIDE)
    assert session.get_session_options().intra_op_num_threads == 0
