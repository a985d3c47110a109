"""Training steps per second of this network in Paddle, as OcTrim runs it and by Paddle's own ops, and in PyTorch.

    python benchmarks/training_speed.py --peer PYTHON [--cfg yolov5n --side 320 --batch 16 --rounds 7]
    python benchmarks/training_speed.py --profile

Forward and backward pass in training mode; the loss is the mean of the squares of the heads. `--peer` is the Python of an environment with PyTorch
and OcTrim. Every candidate is a process of its own that waits for its turn, so that a busy machine hits all alike: compare ratios.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from time import perf_counter, process_time

import numpy as np

from octrim.backends.session import usable_cores
from octrim.network.initialize import fresh_model
from octrim.network.rows import BATCH_NORM_EPS, Row, walk


def torch_step(cfg: str, shape: tuple[int, ...], channels_last: bool) -> Callable[[], None]:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(usable_cores())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = fresh_model(cfg, classes=3)
    tensors = {}
    for name, values in model.tensors.items():
        tensor = torch.from_numpy(values.copy())
        tensors[name] = (tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor).requires_grad_(".running_" not in name)

    class TorchOps:
        def conv(self, row: Row, x):
            x = F.conv2d(x, tensors[row.weight_name], tensors.get(f"{row.name}.bias"), row.stride, row.padding, 1, row.groups)
            if row.norm:
                mean, variance, weight, bias = (tensors[f"{row.name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
                x = F.batch_norm(x, mean, variance, weight, bias, True, 0.03, BATCH_NORM_EPS)
            return F.silu(x) if row.activation else x

        def add(self, row, a, b):
            return a + b

        def concat(self, row, xs):
            return torch.cat(list(xs), 1)

        def maxpool(self, row, x):
            return F.max_pool2d(x, row.kernel, row.stride, row.padding)

        def upsample(self, row, x):
            return F.interpolate(x, scale_factor=row.stride, mode="nearest")

        def detect(self, row, heads):
            return list(heads)

    images = torch.from_numpy(pictures(shape)).to(memory_format=layout)

    def step() -> None:
        sum((head * head).mean() for head in walk(model.network, TorchOps(), images)).backward()
        for tensor in tensors.values():
            tensor.grad = None

    return step


def paddle_step(cfg: str, shape: tuple[int, ...], compiled: bool) -> Callable[[], None]:
    from octrim.backends.paddle import PaddleNetwork, paddle

    layer = PaddleNetwork(fresh_model(cfg, classes=3))
    layer.train()
    layer.compiled = compiled
    images = paddle.to_tensor(pictures(shape))

    def step() -> None:
        sum((head * head).mean() for head in layer(images)).backward()
        layer.clear_gradients()

    return step


def pictures(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


CANDIDATES: dict[str, Callable[[str, tuple[int, ...]], Callable[[], None]]] = {
    "OcTrim": lambda cfg, shape: paddle_step(cfg, shape, True),
    "Paddle's own ops": lambda cfg, shape: paddle_step(cfg, shape, False),
    "PyTorch": lambda cfg, shape: torch_step(cfg, shape, False),
    "PyTorch, channels last": lambda cfg, shape: torch_step(cfg, shape, True),
}


def serve(name: str, cfg: str, shape: tuple[int, ...]) -> None:
    """One step per line read; answers its seconds on the clock and of processor."""
    step = CANDIDATES[name](cfg, shape)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start, used = perf_counter(), process_time()
        step()
        print(perf_counter() - start, process_time() - used, flush=True)


def compare(options: argparse.Namespace) -> None:
    shape = [str(number) for number in (options.batch, 3, options.side, options.side)]
    servers = {}
    for name in CANDIDATES:
        if "PyTorch" in name and not options.peer:
            continue
        python = options.peer if "PyTorch" in name else sys.executable
        command = [python, __file__, "--serve", name, "--cfg", options.cfg, "--shape", *shape]
        servers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while "ready" not in (line := servers[name].stdout.readline()):  # one after the other, so that warming up disturbs nobody
            if not line:
                sys.exit(f"{name} did not start: {' '.join(command)}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, server in servers.items():
            burst = []
            for _ in range(3):
                server.stdin.write("\n")
                server.stdin.flush()
                burst.append(tuple(map(float, server.stdout.readline().split())))
            times[name] += burst[1:]  # the first finds the caches full of someone else's maps
    for server in servers.values():
        server.stdin.close()
        server.wait()
    print(f"{options.cfg}, batch {options.batch}, {options.side} px, {usable_cores()} cores, medians of {2 * options.rounds}\n")
    print(f"{'':24}  images/s   best   processor ms/image   images/s of OcTrim / this (median of pairs)")
    ours = np.asarray(times["OcTrim"])
    for name, values in times.items():
        found = np.asarray(values)
        clock, used = np.median(found, 0)
        ratio, batch = np.median(found[:, 0] / ours[:, 0]), options.batch
        print(f"{name:24}  {batch / clock:8.1f} {batch / found[:, 0].min():6.1f}   {1000 * used / batch:8.1f}             {ratio:.2f}")


def profile(options: argparse.Namespace) -> None:
    """Milliseconds per image and kind of operation, oneDNN's name of its code in brackets."""
    from octrim.backends import memory_plan, onednn

    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def timed(run: Callable[[object], None]) -> Callable[[object], None]:
        def call(step) -> None:
            start = perf_counter()
            run(step)
            name = f"{step.kind} ({step.operation.implementation})" if isinstance(step, onednn.Step) else step.kind
            spent[name] += perf_counter() - start
            calls[name] += 1

        return call

    step = paddle_step(options.cfg, (options.batch, 3, options.side, options.side), True)
    step()
    for kind in (onednn.Step, memory_plan.Work):
        kind.__call__ = timed(kind.__call__)
    start = perf_counter()
    for _ in range(options.rounds):
        step()
    images = options.rounds * options.batch / 1000
    print(f"{(perf_counter() - start) / images:6.2f} ms per image, of which")
    for name, seconds in spent.most_common():
        print(f"{seconds / images:6.2f}   {calls[name] // options.rounds:4} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default="yolov5n")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", metavar="PYTHON", help="Python of an environment with PyTorch and OcTrim")
    parser.add_argument("--profile", action="store_true", help="time per kind of operation")
    parser.add_argument("--serve", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.cfg, tuple(options.shape))
    elif options.profile:
        profile(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
