"""Engines, caches and loggers of the stand-in for TensorRT, and its CUDA runtime."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.targets.tensorrt_standin import VERSIONS, Installed, installed
from tests.targets.tensorrt_standin.draft import Draft, ones

TEN, ELEVEN = VERSIONS


# Bytes, caches, loggers.


def test_an_engine_is_read_by_its_own_version_only_and_whole(fake: Installed) -> None:
    draft = Draft(fake)
    serialized = draft.build(draft.net.add_identity(draft.x).get_output(0))
    assert serialized.nbytes == len(bytes(serialized))
    runtime = fake.trt.Runtime(draft.logger)
    engine = runtime.deserialize_cuda_engine(serialized_engine=serialized)
    assert bytes(engine.serialize()) == bytes(serialized)
    assert [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)] == ["images", "out0"]
    assert engine.get_tensor_mode("images") == fake.trt.TensorIOMode.INPUT
    assert engine.get_tensor_mode("out0") == fake.trt.TensorIOMode.OUTPUT
    assert engine.get_tensor_shape("out0") == (1, 4, 6, 6)
    assert engine.get_tensor_dtype("out0") == fake.trt.float32
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("images", 0)] == [(1, 4, 6, 6)] * 3
    with pytest.raises(ValueError, match=r"no tensor 'image'; there are images, out0"):
        engine.get_tensor_shape("image")
    data = bytes(serialized)
    for broken in (data[:-1], data[:20], b"", data[:60] + b"!" + data[61:]):
        assert runtime.deserialize_cuda_engine(broken) is None
        assert "no engine, or not a whole one" in fake.errors.pop()
    with installed(ELEVEN if fake.trt.__version__ == TEN else TEN) as other:
        assert other.trt.Runtime(other.trt.Logger()).deserialize_cuda_engine(data) is None
        assert other.errors == [f"the engine was built by TensorRT {fake.trt.__version__}, this is {other.trt.__version__}"]


def test_a_timing_cache_is_for_its_version_and_must_outlive_the_build(fake: Installed) -> None:
    draft = Draft(fake)
    cache = draft.config.create_timing_cache(b"")
    assert draft.config.set_timing_cache(cache, ignore_mismatch=False)
    assert draft.build(draft.net.add_identity(draft.x).get_output(0))
    content = bytes(draft.config.get_timing_cache().serialize())
    assert b"IDENTITY" in content
    assert draft.config.create_timing_cache(b"damaged") is None
    foreign = draft.config.create_timing_cache(content.replace(fake.trt.__version__.encode(), b"9.0.0"))
    assert not draft.config.set_timing_cache(foreign, ignore_mismatch=False)
    del cache
    assert draft.builder.build_serialized_network(draft.net, draft.config) is None
    assert fake.errors == ["the timing cache was freed before the build; keep a reference to it"]


def test_loggers_and_monitors_of_ones_own(fake: Installed) -> None:
    seen = []

    class Logger(fake.trt.ILogger):
        def __init__(self) -> None:
            fake.trt.ILogger.__init__(self)
            self.mine = seen

        def log(self, severity: Any, msg: str) -> None:
            self.mine.append((severity.name, msg))

    class Monitor(fake.trt.IProgressMonitor):
        def __init__(self) -> None:
            fake.trt.IProgressMonitor.__init__(self)
            self.open: list[str] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open.append(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phase_name != "Tactic Selection"

        def phase_finish(self, phase_name: str) -> None:
            assert self.open.pop() == phase_name

    class Forgetful(fake.trt.ILogger):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"__init__ of ILogger was not called by Forgetful"):
        fake.trt.Builder(Forgetful())
    draft = Draft(fake)
    builder = fake.trt.Builder(Logger())
    draft.config.progress_monitor = Monitor()
    draft.net.mark_output(draft.net.add_identity(draft.x).get_output(0))
    assert builder.build_serialized_network(draft.net, draft.config) is None
    assert seen == [("ERROR", "the build was stopped by the progress monitor")]


def test_weights_by_pointer(fake: Installed) -> None:
    array = ones(3) * 2
    weights = fake.trt.Weights(fake.trt.float32, array.ctypes.data, 3)
    assert (len(weights), weights.nbytes, weights.dtype) == (3, 12, fake.trt.float32)
    np.testing.assert_array_equal(weights.numpy(), [2, 2, 2])
    assert fake.trt.Weights(fake.trt.float16).size == 0
    with pytest.raises(TypeError, match="count"):
        fake.trt.Weights(fake.trt.float32, array.ctypes.data)


# The CUDA runtime.


class Gpu:
    """A session as one writes it by hand: y = x + 1 for batches of 1 to 2."""

    def __init__(self, fake: Installed) -> None:
        draft = Draft(fake, (-1, 3))
        profile = draft.builder.create_optimization_profile()
        profile.set_shape("images", (1, 3), (1, 3), (2, 3))
        draft.config.add_optimization_profile(profile)
        data = draft.build(draft.elementwise(draft.x, draft.constant(ones(1, 3))))
        self.fake, self.cuda = fake, fake.cudart
        self.engine = fake.trt.Runtime(draft.logger).deserialize_cuda_engine(data)
        self.context = self.engine.create_execution_context()
        self.stream = self("StreamCreateWithFlags", self.cuda.cudaStreamNonBlocking)
        self.host, self.device = [], []
        for name in ("images", "out0"):
            self.host.append(self("HostAlloc", 24, self.cuda.cudaHostAllocDefault))
            self.device.append(self("Malloc", 24))
            assert self.context.set_tensor_address(name, int(self.device[-1]))

    def __call__(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self.cuda, f"cuda{name}")(*arguments)
        assert error == self.cuda.cudaError_t.cudaSuccess, error
        return results[0] if results else None

    def array(self, index: int, count: int) -> np.ndarray:
        return np.ctypeslib.as_array((ctypes.c_float * (3 * count)).from_address(self.host[index])).reshape(count, 3)

    def enqueue(self, count: int) -> bool:
        kinds = self.cuda.cudaMemcpyKind
        self("MemcpyAsync", self.device[0], self.host[0], 12 * count, kinds.cudaMemcpyHostToDevice, self.stream)
        done = self.context.execute_async_v3(int(self.stream))
        if done:
            self("MemcpyAsync", self.host[1], self.device[1], 12 * count, kinds.cudaMemcpyDeviceToHost, self.stream)
        return done

    def close(self) -> None:
        for host, device in zip(self.host, self.device, strict=True):
            self("FreeHost", host)
            self("Free", device)
        self("StreamDestroy", self.stream)


def test_a_session_computes_only_once_the_stream_is_waited_for(fake: Installed) -> None:
    gpu = Gpu(fake)
    assert gpu.context.get_tensor_shape("out0") == (-1, 3)
    assert gpu.context.infer_shapes() == ["images"]
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert "no shape was set for images" in fake.errors.pop()
    assert not gpu.context.set_input_shape("images", (3, 3))
    assert "is outside of its profile, [1, 3] to [2, 3]" in fake.errors.pop()
    for count in (1, 2):
        assert gpu.context.set_input_shape("images", (count, 3))
        assert gpu.context.get_tensor_shape("out0") == (count, 3)
        gpu.array(0, count)[...] = np.arange(3 * count).reshape(count, 3)
        assert gpu.enqueue(count)
        assert not (gpu.array(1, count) == gpu.array(0, count) + 1).all()
        gpu("StreamSynchronize", gpu.stream)
        np.testing.assert_array_equal(gpu.array(1, count), gpu.array(0, count) + 1)
    assert fake.device.live == {"device": 2, "host": 2, "streams": 1}
    gpu.close()
    assert not fake.device.live
    assert not fake.errors


def test_a_captured_graph_runs_on_every_launch_and_on_no_other_occasion(fake: Installed) -> None:
    gpu = Gpu(fake)
    mode = fake.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert gpu.context.set_input_shape("images", (1, 3))
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert not gpu.enqueue(1)
    assert "captured before a plain execution" in fake.errors.pop()
    error, graph = fake.cudart.cudaStreamEndCapture(gpu.stream)
    assert (error.name, graph) == ("cudaErrorStreamCaptureInvalidated", None)
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)
    gpu.array(1, 1)[...] = 0
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert gpu.enqueue(1)
    assert fake.cudart.cudaStreamSynchronize(gpu.stream)[0].name == "cudaErrorStreamCaptureUnsupported"  # and that breaks the capture
    assert fake.cudart.cudaStreamEndCapture(gpu.stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    gpu("StreamBeginCapture", gpu.stream, mode)
    assert gpu.enqueue(1)
    graph = gpu("StreamEndCapture", gpu.stream)
    executable = gpu("GraphInstantiate", graph, 0)
    gpu("GraphDestroy", graph)
    gpu("StreamSynchronize", gpu.stream)
    assert not gpu.array(1, 1).any()
    for value in (3, 4):
        gpu.array(0, 1)[...] = value
        gpu("GraphLaunch", executable, gpu.stream)
        gpu("StreamSynchronize", gpu.stream)
        np.testing.assert_array_equal(gpu.array(1, 1), value + ones(1, 3))
    assert fake.device.live == {"device": 2, "host": 2, "streams": 1, "executables": 1}
    gpu("GraphExecDestroy", executable)


def test_a_capture_can_be_made_to_fail(fake: Installed) -> None:
    gpu = Gpu(fake)
    assert gpu.context.set_input_shape("images", (1, 3))
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)
    fake.device.fail_capture = True
    gpu("StreamBeginCapture", gpu.stream, fake.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert fake.cudart.cudaStreamEndCapture(gpu.stream)[0].name == "cudaErrorStreamCaptureInvalidated"
    assert gpu.enqueue(1)
    gpu("StreamSynchronize", gpu.stream)


def test_wrong_calls_of_the_cuda_runtime(fake: Installed) -> None:
    gpu, cuda = Gpu(fake), fake.cudart
    kinds = cuda.cudaMemcpyKind
    with pytest.raises(TypeError, match="kind is 1, expected cudaMemcpyKind"):
        cuda.cudaMemcpyAsync(gpu.device[0], gpu.host[0], 12, 1, gpu.stream)
    with pytest.raises(TypeError, match="size is 12.0, expected int"):
        cuda.cudaMalloc(12.0)
    with pytest.raises(TypeError, match=r"cudaMalloc\(size: 'int'\): too many|too many positional"):
        cuda.cudaMalloc(12, 0)
    with pytest.raises(AttributeError):
        _ = cuda.cudaMemcopy
    pageable = ones(3)
    wrong = [
        (gpu.device[0], pageable.ctypes.data, 12, kinds.cudaMemcpyHostToDevice),
        (gpu.device[0], gpu.host[0], 25, kinds.cudaMemcpyHostToDevice),
        (gpu.host[0], gpu.device[0], 12, kinds.cudaMemcpyHostToDevice),
    ]
    for arguments in wrong:
        assert cuda.cudaMemcpyAsync(*arguments, gpu.stream) == (cuda.cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaFree(gpu.host[0]) == (cuda.cudaError_t.cudaErrorInvalidValue,)
    assert cuda.cudaMalloc(1 << 60) == (cuda.cudaError_t.cudaErrorMemoryAllocation, None)
    gpu.context.set_input_shape("images", (1, 3))
    gpu.context.set_tensor_address("out0", int(gpu.host[1]))
    assert not gpu.context.execute_async_v3(int(gpu.stream))
    assert "the address of out0 is not that of [1, 3] float32 in device memory" in fake.errors.pop()
    with pytest.raises(TypeError, match="memory is 0.5"):
        gpu.context.set_tensor_address("out0", 0.5)


def test_machines_without_a_driver_or_a_gpu(fake: Installed) -> None:
    cuda = fake.cudart
    assert cuda.cudaGetDeviceCount() == (cuda.cudaError_t.cudaSuccess, 1)
    fake.device.driver_missing = True
    error, count = cuda.cudaGetDeviceCount()
    assert (error, count) == (cuda.cudaError_t.cudaErrorInsufficientDriver, None)
    assert cuda.cudaGetErrorName(error) == (cuda.cudaError_t.cudaSuccess, b"cudaErrorInsufficientDriver")
    assert cuda.cudaRuntimeGetVersion()[0] == cuda.cudaError_t.cudaSuccess
    fake.device.driver_missing, fake.device.count = False, 0
    assert cuda.cudaGetDeviceCount()[0] == cuda.cudaError_t.cudaErrorNoDevice


def test_the_modules_are_there_for_as_long_as_the_context_lasts() -> None:
    seen = []
    for version in VERSIONS:
        with installed(version) as fake:
            import tensorrt  # pyright: ignore[reportMissingImports]
            from cuda.bindings import runtime  # pyright: ignore[reportMissingImports]

            assert (tensorrt, runtime) == (fake.trt, fake.cudart)
            assert tensorrt.__version__ == version
            seen.append(int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        with pytest.raises(ImportError):
            import tensorrt  # pyright: ignore[reportMissingImports]
    assert seen == [1, 0]


def test_the_versions_are_ascending() -> None:
    assert all(int(a.partition(".")[0]) < int(b.partition(".")[0]) for a, b in pairwise(VERSIONS))
