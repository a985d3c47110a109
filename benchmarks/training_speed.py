"""Training steps per second of this network in Paddle, as OcTrim runs it and by Paddle's own ops, and in PyTorch.

    python benchmarks/training_speed.py --peer PYTHON [--cfg yolov5n --side 320 --batch 16 --rounds 7]
    python benchmarks/training_speed.py --peer PYTHON --data D
    python benchmarks/training_speed.py --profile

Forward and backward pass in training mode; the loss is the mean of the squares of the heads. With `--data`, all of training: whole epochs from the
same loader, assignment, the same loss, clipping, SGD and moving average in every step. `--peer` is the Python of an environment with PyTorch and
OcTrim. Every candidate is a process of its own that waits for its turn, so that a busy machine hits all alike: compare ratios.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count
from time import perf_counter, process_time
from typing import Any

import numpy as np

from octrim.data.dataset import Dataset
from octrim.data.loader import Loader, TrainingBatch
from octrim.data.open import open_dataset
from octrim.machine import usable_cores
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.network.rows import BATCH_NORM_EPS, Row, walk
from octrim.targets.session import float_batch
from octrim.training.assign import assign
from octrim.training.hyper import Hyperparameters


def torch_network(model: Model, layout) -> tuple[Callable, dict]:
    """The table in PyTorch: heads from images, and the tensors by name."""
    import torch
    import torch.nn.functional as F

    from torch_walk import TorchOps

    torch.set_num_threads(usable_cores())
    tensors = {}
    for name, values in model.tensors.items():
        tensor = torch.from_numpy(values.copy())
        tensors[name] = (tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor).requires_grad_(".running_" not in name)

    class BatchNormOps(TorchOps):
        def conv(self, row: Row, x):
            x = F.conv2d(x, tensors[row.weight_name], tensors.get(f"{row.name}.bias"), row.stride, row.padding, 1, row.groups)
            if row.norm:
                mean, variance, weight, bias = (tensors[f"{row.name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
                x = F.batch_norm(x, mean, variance, weight, bias, True, 0.03, BATCH_NORM_EPS)
            return F.silu(x) if row.activation else x

    return lambda images: walk(model.network, BatchNormOps(), images), tensors


def torch_step(cfg: str, shape: tuple[int, ...], channels_last: bool) -> Callable[[], None]:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network, tensors = torch_network(fresh_model(cfg, classes=3), layout)
    images = torch.from_numpy(pictures(shape)).to(memory_format=layout)

    def step() -> None:
        torch.stack([(head * head).mean() for head in network(images)]).sum().backward()
        for tensor in tensors.values():
            tensor.grad = None

    return step


def torch_training(dataset: Dataset, cfg: str, side: int, channels_last: bool) -> Callable[[TrainingBatch], None]:
    """A step of training in PyTorch: loss by the same formulas and the same assignment, clipping, SGD, moving average."""
    import torch
    import torch.nn.functional as F

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = fresh_model(cfg, classes=len(dataset.names))
    network, tensors = torch_network(model, layout)
    hyper, classes = Hyperparameters(), model.network.classes
    anchors = [np.asarray(level, np.float32) / stride for level, stride in zip(model.network.anchors, model.network.strides, strict=True)]
    parameters = [tensor for tensor in tensors.values() if tensor.requires_grad]
    decayed = [tensor for tensor in parameters if tensor.ndim == 4]
    others = [tensor for tensor in parameters if tensor.ndim != 4]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": 5e-4}, {"params": others}], lr=0.01, momentum=0.937, nesterov=True)
    average = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def ciou(a, b):
        (x1, y1, w1, h1), (x2, y2, w2, h2) = a.T, b.T
        across = torch.maximum(x1 + w1 / 2, x2 + w2 / 2) - torch.minimum(x1 - w1 / 2, x2 - w2 / 2)
        down = torch.maximum(y1 + h1 / 2, y2 + h2 / 2) - torch.minimum(y1 - h1 / 2, y2 - h2 / 2)
        overlap = F.relu(w1 + w2 - across) * F.relu(h1 + h2 - down)
        iou = overlap / (w1 * h1 + w2 * h2 - overlap + 1e-7)
        v = (4 / math.pi**2) * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
        alpha = (v / (v - iou + 1 + 1e-7)).detach()
        return iou - ((x2 - x1) ** 2 + (y2 - y1) ** 2) / (across**2 + down**2 + 1e-7) - alpha * v

    def loss(heads, targets):
        shapes = [tuple(head.shape[2:]) for head in heads]
        total = torch.zeros([])
        for logits, level, size, balance in zip(heads, assign(targets, shapes, anchors), anchors, (4.0, 1.0, 0.4), strict=True):
            logits = logits.reshape(len(logits), 3, 5 + classes, *logits.shape[2:])
            wanted = torch.zeros_like(logits[:, :, 4])
            if len(level):
                where = [torch.from_numpy(part) for part in (level.image, level.anchor, level.row, level.column)]
                found = logits.permute(0, 1, 3, 4, 2)[tuple(where)]
                boxes = torch.cat([found[:, :2].sigmoid() * 2 - 0.5, (found[:, 2:4].sigmoid() * 2) ** 2 * torch.from_numpy(size[level.anchor])], 1)
                overlap = ciou(boxes, torch.from_numpy(level.boxes))
                total = total + (1 - overlap).mean() * hyper.box
                wanted[tuple(where)] = overlap.detach().clamp(0)
                truth = F.one_hot(torch.from_numpy(level.label), classes).float()
                total = total + F.binary_cross_entropy_with_logits(found[:, 5:], truth) * hyper.cls * classes / 80
            total = total + balance * F.binary_cross_entropy_with_logits(logits[:, :, 4], wanted) * hyper.obj * (side / 640) ** 2
        return total * len(heads[0])

    def step(batch: TrainingBatch) -> None:
        images = torch.from_numpy(float_batch(batch.images)).to(memory_format=layout)
        loss(network(images), batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, tensor in tensors.items():
                average[name].mul_(0.999).add_(tensor, alpha=0.001)

    return step


def paddle_training(dataset: Dataset, cfg: str, side: int, compiled: bool) -> Callable[[TrainingBatch], None]:
    from octrim.backends.paddle import PaddleNetwork, paddle
    from octrim.training.loss import DetectionLoss
    from octrim.training.optimizer import MovingAverage, Optimizer, Weights
    from octrim.training.schedule import Settings

    network = PaddleNetwork(fresh_model(cfg, classes=len(dataset.names)))
    network.train()
    network.compiled = compiled
    weights, loss = Weights(network), DetectionLoss(network.network, Hyperparameters(), side)
    optimizer, average = Optimizer.create(weights, "SGD", 5e-4), MovingAverage(weights.values())

    def step(batch: TrainingBatch) -> None:
        loss(network(paddle.to_tensor(float_batch(batch.images))), batch.targets).total.backward()
        optimizer.step(weights.parameters.gradient(), Settings(0.01, 0.01, 0.937, 1))
        average.update(weights.vector)

    return step


def paddle_step(cfg: str, shape: tuple[int, ...], compiled: bool) -> Callable[[], None]:
    from octrim.backends.paddle import PaddleNetwork, paddle

    layer = PaddleNetwork(fresh_model(cfg, classes=3))
    layer.train()
    layer.compiled = compiled
    images = paddle.to_tensor(pictures(shape))

    def step() -> None:
        paddle.add_n([(head * head).mean() for head in layer(images)]).backward()
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


TRAININGS: dict[str, Callable[[Dataset, str, int], Callable[[TrainingBatch], None]]] = {
    "OcTrim": lambda dataset, cfg, side: paddle_training(dataset, cfg, side, True),
    "Paddle's own ops": lambda dataset, cfg, side: paddle_training(dataset, cfg, side, False),
    "PyTorch": lambda dataset, cfg, side: torch_training(dataset, cfg, side, False),
    "PyTorch, channels last": lambda dataset, cfg, side: torch_training(dataset, cfg, side, True),
}


def epochs(name: str, cfg: str, shape: tuple[int, ...], data: str) -> Callable[[], None]:
    """A callable that trains for an epoch."""
    dataset = open_dataset(data, "train")
    step = TRAININGS[name](dataset, cfg, shape[2])
    loader = Loader(dataset, shape[2], shape[0], Hyperparameters().augmentation, 0, None, "ram")
    numbers = count()

    def epoch() -> None:
        for batch in loader.epoch(next(numbers)):
            step(batch)

    return epoch


def serve(name: str, cfg: str, shape: tuple[int, ...], data: str | None) -> None:
    """One step, or epoch of training, per line read; answers its seconds on the clock and of processor."""
    step = CANDIDATES[name](cfg, shape) if data is None else epochs(name, cfg, shape, data)
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
        command += ["--data", options.data] if options.data else []
        servers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while "ready" not in (line := servers[name].stdout.readline()):  # one after the other, so that warming up disturbs nobody
            if not line:
                sys.exit(f"{name} did not start: {' '.join(command)}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    images = options.batch
    if options.data:
        images = len(open_dataset(options.data, "train"))
    for _ in range(options.rounds):
        for name, server in servers.items():
            burst = []
            # Of steps, the first finds the caches full of someone else's maps; an epoch is long enough.
            for _ in range(1 if options.data else 3):
                server.stdin.write("\n")
                server.stdin.flush()
                burst.append(tuple(map(float, server.stdout.readline().split())))
            times[name] += burst[not options.data :]
    for server in servers.values():
        server.stdin.close()
        server.wait()
    print(f"{options.cfg}, batch {options.batch}, {options.side} px, {usable_cores()} cores, medians of {len(times['OcTrim'])}\n")
    print(f"{'':24}  images/s   best   processor ms/image   images/s of OcTrim / this (median of pairs)")
    ours = np.asarray(times["OcTrim"])
    for name, values in times.items():
        found = np.asarray(values)
        clock, used = np.median(found, 0)
        ratio, batch = np.median(found[:, 0] / ours[:, 0]), images
        print(f"{name:24}  {batch / clock:8.1f} {batch / found[:, 0].min():6.1f}   {1000 * used / batch:8.1f}             {ratio:.2f}")


def profile(options: argparse.Namespace) -> None:
    """Milliseconds per image and kind of operation, oneDNN's name of its code in brackets."""
    from octrim.backends.onednn import library as onednn
    from octrim.backends.onednn import memory_plan

    spent: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()

    def timed(run: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(step: Any) -> None:
            start = perf_counter()
            run(step)
            name = f"{step.kind} ({step.operation.implementation})" if isinstance(step, onednn.PrimitiveCall) else step.kind
            spent[name] += perf_counter() - start
            calls[name] += 1

        return call

    step = paddle_step(options.cfg, (options.batch, 3, options.side, options.side), True)
    step()
    for kind in (onednn.PrimitiveCall, memory_plan.NumpyStep):
        setattr(kind, "__call__", timed(kind.__call__))  # noqa: B010 (a type checker refuses the assignment)
    start = perf_counter()
    for _ in range(options.rounds):
        step()
    images = options.rounds * options.batch / 1000
    print(f"{(perf_counter() - start) / images:6.2f} ms per image, of which")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{seconds / images:6.2f}   {calls[name] // options.rounds:4} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", default="yolov5n")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", metavar="PYTHON", help="Python of an environment with PyTorch and OcTrim")
    parser.add_argument("--data", metavar="D", help="train on this data set instead")
    parser.add_argument("--profile", action="store_true", help="time per kind of operation")
    parser.add_argument("--serve", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.cfg, tuple(options.shape), options.data)
    elif options.profile:
        profile(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
