"""Which engine runs a small network fastest? C beside OpenVINO, ONNX Runtime, ncnn and MNN, interleaved on one machine.

    pip install '.[cpu,engines]'
    python -m benchmarks.engines [--cuts 1 1/2 1/4 1/8 1/8a1] [--sizes 320 640] [--threads 1 2] [--seconds 20] [--pause 20] [--weights W]

Batch 1, decoding included. 1/8a1 is the cut to 1/8 in multiples of 1. Every engine has a process of its own, stopped while others
run, since some engines' threads never rest; OpenVINO limited to AVX2, which is a setting of the process, takes part. Bursts of 10 ms in random order,
the first two runs of a burst not timed; with --pause every run comes after a sleep of so many milliseconds, as from a camera. Milliseconds: minimum,
median; and the median of OpenVINO in fp32 with equally many threads divided by the median.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from octrim.errors import InputError
from octrim.network.cost import network_cost
from octrim.network.initialize import fresh_model
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.pruning.cut import prune
from octrim.pruning.plan import plan
from octrim.targets.onnx.graph import onnx_model
from octrim.targets.opening import open_session

Run = Callable[[np.ndarray], object]

AVX2 = "OpenVINO AVX2"
"""OpenVINO in fp32, told to use no more than AVX2: vectors of 8 lanes instead of 16."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="model file (default: yolov5n for 3 classes with random weights that keep signals alive)")
    parser.add_argument("--cuts", nargs="+", default=["1", "1/2", "1/4", "1/8", "1/8a1"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[320, 640])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20, help="for each cut and size")
    parser.add_argument("--pause", type=float, default=0, help="milliseconds of sleep before every run")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    options = parser.parse_args()
    model = load(options.weights) if options.weights else lively()
    for cut in options.cuts:
        keep, _, align = cut.partition("a")
        small = model if keep == "1" else prune(model, plan(model, keep=keep, align=int(align or 8)))
        for size in options.sizes:
            field = contestants(small, size, options.threads, options.engines)
            times = interleaved(field, options.seconds, options.pause)
            for one in field.values():
                one.close()
            show(f"{cut}, {size} px, {network_cost(small.network, size).macs / 1e6:.0f} M MACs", times)


def lively() -> Model:
    """yolov5n with weights under which signals neither die nor explode; none of the engines' times depends on more."""
    model = fresh_model("yolov5n", classes=3)
    generator = np.random.default_rng(1)
    tensors = {}
    for name, tensor in model.tensors.items():
        spread = 1.5 / np.sqrt(tensor[0].size) if tensor.ndim > 1 else 0.3
        values = (
            generator.uniform(0.5, 1.5, tensor.shape) if name.endswith(("bn.weight", "running_var")) else generator.normal(0, spread, tensor.shape)
        )
        tensors[name] = values.astype(np.float32)
    return replace(model, tensors=tensors)


def picture(size: int) -> np.ndarray:
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (1, size // 8, size // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + generator.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def _mnn(model: Model, size: int, threads: int, folder: Path) -> Run:
    """MNN's own conversion of our ONNX file, decoding in the graph."""
    import subprocess
    import sys

    from MNN import expr, nn

    (folder / "model.onnx").write_bytes(onnx_model(model, size, size, 1).SerializeToString())
    convert = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", "model.mnn", "--bizCode", "MNN"]
    subprocess.run(convert, cwd=folder, check=True, capture_output=True)
    options = ({"backend": "CPU", "numThread": threads, "precision": "high"},)
    runtime = nn.create_runtime_manager(options)  # pyright: ignore[reportAttributeAccessIssue] (MNN has no types)
    net = nn.load_module_from_file(str(folder / "model.mnn"), ["images"], ["output0"], runtime_manager=runtime)

    def run(batch: np.ndarray) -> np.ndarray:
        pixels = np.multiply(batch.transpose(0, 3, 1, 2), np.float32(1 / 255), dtype=np.float32, order="C")
        images = expr.const(pixels, list(pixels.shape), expr.NCHW)  # pyright: ignore[reportAttributeAccessIssue]
        return np.array(net.onForward([images])[0].read())

    return run


def _session(runtime: str, precision: str) -> Callable[[Model, int, int, Path], Run]:
    return lambda model, size, threads, folder: open_session(model, runtime, precision, threads)


ENGINES: dict[str, Callable[[Model, int, int, Path], Run]] = {
    "C": _session("c", "fp32"),
    "OpenVINO fp32": _session("openvino", "fp32"),
    AVX2: _session("openvino", "fp32"),
    "OpenVINO bf16": _session("openvino", "bf16"),
    "ONNX Runtime": _session("onnxruntime", "fp32"),
    "LiteRT": _session("litert", "fp32"),
    "ncnn": _session("ncnn", "fp32"),
    "MNN": _mnn,
}


class Contestant:
    """An engine with a number of threads in a process of its own, which is started here and can be asked for bursts after `ready`."""

    def __init__(self, name: str, model: Model, size: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        environment = {"ONEDNN_MAX_CPU_ISA": "AVX2"} if name == AVX2 else {}
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, model, size, threads, environment), daemon=True)
        self.process.start()
        theirs.close()

    def ready(self) -> str:
        """Waits for the first run. Returns why there is none, or nothing."""
        try:
            reason = self.pipe.recv()
        except EOFError:
            reason = "its process ended"
        if not reason:
            self._signal(signal.SIGSTOP)
        return reason

    def burst(self, pause: float) -> list[float]:
        """Milliseconds of the runs of one burst. Between bursts the process is stopped: some engines' threads never rest."""
        self._signal(signal.SIGCONT)
        self.pipe.send(pause)
        times = self.pipe.recv()
        self._signal(signal.SIGSTOP)
        return times

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.join()

    def _signal(self, number: int) -> None:
        if self.process.pid:
            os.kill(self.process.pid, number)


def _serve(pipe: Connection, name: str, model: Model, size: int, threads: int, environment: dict[str, str]) -> None:
    """What the process of a contestant does: bursts, as they are asked for."""
    os.environ.update(environment)
    batch = picture(size)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = ENGINES[name](model, size, threads, Path(folder))
            run(batch)
        except (ImportError, InputError, RuntimeError) as error:
            pipe.send(" ".join(str(error).split())[:100] or type(error).__name__)
            return
        pipe.send("")
        with contextlib.suppress(EOFError):
            while True:
                pipe.send(_burst(run, batch, pipe.recv()))


def _burst(run: Run, batch: np.ndarray, pause: float, seconds: float = 0.01) -> list[float]:
    times: list[float] = []
    if not pause:
        run(batch)
        run(batch)
    stop = time.perf_counter() + seconds
    while True:
        time.sleep(pause / 1000)
        start = time.perf_counter()
        run(batch)
        times.append(1000 * (time.perf_counter() - start))
        if pause or time.perf_counter() > stop:
            return times


def contestants(model: Model, size: int, threads: list[int], engines: list[str]) -> dict[tuple[str, int], Contestant]:
    """Contestants by engine and number of threads; an engine that is not installed, or cannot, says so and is left out."""
    field = {(name, count): Contestant(name, model, size, count) for name in engines for count in threads}
    for (name, count), one in list(field.items()):
        if reason := one.ready():
            print(f"{name}, {count} threads: left out ({reason})")
            field.pop((name, count)).close()
    return field


def interleaved(field: dict[tuple[str, int], Contestant], seconds: float, pause: float) -> dict[tuple[str, int], np.ndarray]:
    """Milliseconds of every run, contestants taking turns in random order."""
    times: dict[tuple[str, int], list[float]] = {key: [] for key in field}
    end, order = time.perf_counter() + seconds, list(field)
    while time.perf_counter() < end:
        random.shuffle(order)
        for key in order:
            times[key] += field[key].burst(pause)
    return {key: np.asarray(values) for key, values in times.items()}


def show(what: str, times: dict[tuple[str, int], np.ndarray]) -> None:
    print(f"\n{what}")
    for (name, threads), values in times.items():
        yardstick = times.get(("OpenVINO fp32", threads))
        ratio = "" if yardstick is None else f"   x{np.median(yardstick) / np.median(values):.2f}"
        print(f"  {name:14} {threads} thread{'s' * (threads > 1):1}  min {values.min():8.3f}  median {np.median(values):8.3f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
