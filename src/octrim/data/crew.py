"""File work shared among processes.

Neither `fork` (unsafe beside the threads of OpenCV and Paddle) nor multiprocessing's `spawn` (runs the user's script again, which ends badly
without a `__main__` guard): plain child processes that take JSON and give arrays.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from octrim.data.labelfiles import voc_labels, yolo_labels
from octrim.data.probe import picture_facts

Arrays = dict[str, np.ndarray]
TASKS: dict[str, Callable[[Sequence[str]], Arrays]] = {"pictures": picture_facts, "yolo": yolo_labels, "voc": voc_labels}
COST = {"pictures": 50e-6, "yolo": 10e-6, "voc": 300e-6}  # seconds per file, roughly; only decides how many processes are worth starting
CHUNK = 1000  # files; the same for any number of workers


def run_jobs(jobs: Sequence[tuple[str, list[str]]], workers: int | None, advance: Callable[[int], None]) -> list[Arrays]:
    """The results of (task, paths), in their order. workers: processes; None takes as many as pay, 1 works here. advance: told of files done."""
    if workers is None:
        seconds = sum(COST[task] * len(paths) for task, paths in jobs)
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(min(processors, int(seconds / 0.5)), 1)
    workers = min(workers, len(jobs))
    if workers < 2:
        results = []
        for task, paths in jobs:
            results.append(TASKS[task](paths))
            advance(len(paths))
        return results
    return _shared(jobs, workers, advance)


def _shared(jobs: Sequence[tuple[str, list[str]]], workers: int, advance: Callable[[int], None]) -> list[Arrays]:
    found: dict[int, Arrays] = {}
    waiting = iter(range(len(jobs)))
    lock = threading.Lock()
    stopped = threading.Event()

    def drive() -> None:
        """One thread per process: it hands out jobs and waits for the results."""
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(_child())
            while not stopped.is_set():
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                with contextlib.suppress(OSError, ValueError, EOFError):  # a child that died: what it leaves is done below
                    if process is None or process.stdin is None or process.stdout is None:
                        return
                    send(process.stdin, json.dumps(jobs[number]).encode())
                    with np.load(io.BytesIO(receive(process.stdout)), allow_pickle=False) as arrays:
                        found[number] = dict(arrays)
                if number not in found:
                    return
                with lock:
                    advance(len(jobs[number][1]))

    threads = [threading.Thread(target=drive, daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stopped.set()
    for number, (task, paths) in enumerate(jobs):
        if number not in found:
            found[number] = TASKS[task](paths)
            advance(len(paths))
    return [found[number] for number in range(len(jobs))]


@contextlib.contextmanager
def _child() -> Iterator[subprocess.Popen[bytes] | None]:
    try:
        process = start_child(__name__)
    except OSError:
        yield None
        return
    try:
        yield process
    finally:
        end_child(process)


def start_child(module: str, keep: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A process that runs the module's `serve()`, with pipes to it. keep: open descriptors that it gets under the same numbers.

    Raises OSError where it cannot be started.
    """
    # Isolated, then with our own module path: the child must not import what lies about in the working directory.
    code = "import importlib, sys; sys.path[:] = sys.argv[2:]; importlib.import_module(sys.argv[1]).serve()"
    command = [sys.executable, "-I", "-c", code, module, *sys.path]
    # A session of its own: Ctrl-C is the parent's to handle, and the child ends when the pipe does.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, pass_fds=keep)


def end_child(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def child_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The child's side: where messages come in, and where they go out."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the results
    return sys.stdin.buffer, output


def serve() -> None:
    """The child's side: a job in, its arrays out, until the parent closes the pipe."""
    source, output = child_pipes()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task, paths = json.loads(receive(source))
            buffer = io.BytesIO()
            results: dict[str, Any] = {**TASKS[task](paths)}
            np.savez(buffer, **results)
            send(output, buffer.getvalue())


def send(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """One message. Raises EOFError where the other side is gone."""
    head = stream.read(8)
    data = stream.read(int.from_bytes(head, "little"))
    if len(head) < 8 or len(data) < int.from_bytes(head, "little"):
        raise EOFError
    return data
