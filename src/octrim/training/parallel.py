"""Training of one network by several processes: each works on its part of every batch, and gradients are combined over the processes.

`--devices N` starts processes on this machine; `python -m paddle.distributed.launch` starts them on several machines. CPUs communicate through gloo,
GPUs through NCCL.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octrim.errors import shown
from octrim.machine import quiet_stderr, usable_cores


@dataclass(frozen=True)
class World:
    """This process among those that train together. rank: number of this process, of `size`; number 0 writes the files."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Any) -> Any:
        """The sum of a tensor over the processes, bit by bit the same in each."""
        if self.size == 1:
            return tensor
        with _together(self.size) as distributed:
            tensor = tensor.clone()
            distributed.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Any) -> Any:
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def average_in_place(self, tensor: Any) -> None:
        """Replace a tensor's values by their mean over the processes."""
        if self.size > 1:
            tensor.copy_(self.mean(tensor), True)

    def mean_of(self, values: Sequence[float]) -> list[float]:
        """Means of a few numbers over the processes, computed in float64."""
        if self.size == 1:
            return list(values)
        from octrim.backends.paddle import paddle

        return self.mean(paddle.to_tensor(np.asarray(values, np.float64))).numpy().tolist()

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process; the same answer in all."""
        return flag if self.size == 1 else bool(np.concatenate(self.gather(np.asarray([[flag]], np.float32))).any())

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Arrays of all processes, by rank, in every process. array: float32 `[n, columns]`; n may differ between processes."""
        if self.size == 1:
            return [array]
        from octrim.backends.paddle import paddle

        counts: list[Any] = []
        parts: list[Any] = []
        with _together(self.size) as distributed:
            distributed.all_gather(counts, paddle.to_tensor(np.asarray([len(array)], np.int64)))
            lengths = [count.numpy().item() for count in counts]
            padded = np.zeros((max(*lengths, 1), array.shape[1]), np.float32)
            padded[: len(array)] = array
            distributed.all_gather(parts, paddle.to_tensor(padded))
        return [part.numpy()[:length] for part, length in zip(parts, lengths, strict=True)]


_PARTNER_ENDED = 3  # exit code of a process that ends only because another one did

_meetings = itertools.count(1)


@contextlib.contextmanager
def _together(size: int) -> Iterator[Any]:
    """Paddle's collectives, once all processes have come here: gloo gives up after 30 seconds, and evaluating or saving may take longer."""
    from octrim.backends.paddle import paddle

    try:
        store = paddle.base.core.create_or_get_global_tcp_store()
        wanted = next(_meetings) * size
        arrived, pause = store.add("octrim", 1), 0.0005
        while arrived < wanted:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
            arrived = store.add("octrim", 0)
        yield paddle.distributed
    except RuntimeError as error:
        print(f"another process of this training has ended ({shown(str(error))})", file=sys.stderr)
        raise SystemExit(_PARTNER_ENDED) from None


def world(device: str) -> World:
    """This process's place among the processes that a launcher has started; a world of one process without a launcher. device: cpu or gpu."""
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if size == 1:
        return World()
    if _PARENT in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[_PARENT]),), daemon=True).start()
    from octrim.backends.paddle import paddle

    if device == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    if not paddle.distributed.is_initialized():
        with quiet_stderr():
            paddle.distributed.init_parallel_env()
    return World(paddle.distributed.get_rank(), size)


_PARENT = "OCTRIM_PARENT"


def _end_with(parent: int) -> None:
    """End this process when its launcher, the process `parent`, was killed: nobody would end it otherwise, and its partners may wait for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def launch(arguments: Sequence[str], devices: int) -> int:
    """Run `octrim ARGUMENTS` in `devices` processes on this machine; returns 0, or the exit code of the first process that fails.

    Only process 0 prints results. When one process fails, or this process is told to stop, the others are stopped.
    """
    ports = _free_ports(devices)
    processes: list[subprocess.Popen[Any]] = []
    said = [tempfile.TemporaryFile() for _ in ports]  # noqa: SIM115 (closed below)

    def forward(number: int, _frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank, port in enumerate(ports):
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(usable_cores() // devices, 1)),
                "PADDLE_TRAINER_ID": str(rank),
                "PADDLE_TRAINERS_NUM": str(devices),
                "PADDLE_TRAINER_ENDPOINTS": ",".join(f"127.0.0.1:{port}" for port in ports),
                "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{port}",
                "FLAGS_selected_gpus": str(rank),
                _PARENT: str(os.getpid()),
            }
            # Each process gets a session of its own, so that Ctrl-C reaches only this process, which passes it on.
            command = [sys.executable, "-m", "octrim", *arguments]
            streams: Any = {"stdin": subprocess.DEVNULL} | ({"stdout": subprocess.DEVNULL, "stderr": said[rank]} if rank else {})
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True, **streams))
        while not any(codes := [process.poll() for process in processes]) and None in codes:
            time.sleep(0.2)
        if not any(codes):
            return 0
        # Processes that wait for a failed one would wait for ever; those that were told to stop (130) get time for a checkpoint.
        deadline = time.monotonic() + (20 if 130 in codes else 5)
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.2)
        codes = [process.poll() for process in processes]
        guilty = [rank for rank, code in enumerate(codes) if code not in (None, 0, _PARTNER_ENDED)]
        if not guilty:
            return _PARTNER_ENDED
        code = codes[guilty[0]] or 0
        if guilty[0]:  # process 0 has printed its errors itself
            said[guilty[0]].seek(0)
            sys.stderr.write(said[guilty[0]].read().decode("utf-8", "replace"))
        if code < 0:
            print(f"octrim: process {guilty[0]} of the training was ended by signal {-code}", file=sys.stderr)
        return code if code > 0 else 1
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for file in said:
            file.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
