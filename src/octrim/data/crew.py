"""Shares work on many files among child processes that take JSON and return arrays.

The children are plain processes. `fork` is unsafe beside the threads of OpenCV and Paddle, and multiprocessing's `spawn` runs the user's script
again, which ends badly without a `__main__` guard.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from octrim.data.labelmeshapes import labelme_labels
from octrim.data.probe import picture_facts, picture_hashes
from octrim.data.superviselyobjects import supervisely_labels
from octrim.data.vocobjects import voc_labels
from octrim.data.yolorows import yolo_labels
from octrim.machine import usable_cores

Arrays = dict[str, np.ndarray]
TASKS: dict[str, Callable[..., Arrays]] = {
    "pictures": picture_facts,
    "hashes": picture_hashes,
    "yolo": yolo_labels,
    "voc": voc_labels,
    "labelme": labelme_labels,
    "supervisely": supervisely_labels,
}
COST = {"pictures": 50e-6, "hashes": 200e-6, "yolo": 10e-6, "voc": 300e-6, "labelme": 300e-6, "supervisely": 300e-6}
"""Rough seconds that each task takes per file; they only decide how many processes are worth starting."""
CHUNK = 1000  # files per job; the same for any number of workers


def run_task(task: str, paths: Sequence[str]) -> Arrays:
    """Run a task on files and return its arrays. task: a key of TASKS, followed by a colon and an argument where the task takes one."""
    name, _, argument = task.partition(":")
    return TASKS[name](paths, argument) if argument else TASKS[name](paths)


def run_jobs(jobs: Sequence[tuple[str, list[str]]], workers: int | None, advance: Callable[[int], None]) -> list[Arrays]:
    """Run jobs (task, paths) and return their arrays in the order of the jobs.

    workers: number of processes; None takes as many as pay, 1 works in this process. advance: called with the number of files of each job done.
    """
    if workers is None:
        seconds = sum(COST[task.partition(":")[0]] * len(paths) for task, paths in jobs)
        workers = max(min(usable_cores(), int(seconds / 0.5)), 1)
    workers = min(workers, len(jobs))
    if workers < 2:
        results = []
        for task, paths in jobs:
            results.append(run_task(task, paths))
            advance(len(paths))
        return results
    return _shared(jobs, workers, advance)


def _shared(jobs: Sequence[tuple[str, list[str]]], workers: int, advance: Callable[[int], None]) -> list[Arrays]:
    found: dict[int, Arrays] = {}

    def take(number: int, answer: bytes) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError), np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            found[number] = dict(arrays)
            advance(len(jobs[number][1]))

    hand_out(__name__, [json.dumps(job).encode() for job in jobs], workers, take)
    for number, (task, paths) in enumerate(jobs):
        if number not in found:
            found[number] = run_task(task, paths)
            advance(len(paths))
    return [found[number] for number in range(len(jobs))]


def hand_out(module: str, messages: Sequence[bytes], workers: int, take: Callable[[int, bytes], None], greeting: bytes | None = None) -> None:
    """Hand messages out to child processes that run the module's `serve()`, one at a time each, after the greeting that each gets first.

    take: called with the number of a message and its answer, one at a time and in any order; what it raises ends the work and is raised here.
    Messages of children that could not be started, or died, stay without an answer: the caller does that work. No child outlives the call.
    """
    waiting = iter(range(len(messages)))
    lock = threading.Lock()
    errors: list[BaseException] = []
    children: list[subprocess.Popen[bytes]] = []

    def drive(child: subprocess.Popen[bytes]) -> None:
        """Hand messages to one child and wait for their answers; each child has a thread that runs this."""
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(OSError, ValueError, EOFError):
            if greeting is not None:
                send(child.stdin, greeting)
            while not errors:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                send(child.stdin, messages[number])
                answer = receive(child.stdout)
                with lock:
                    try:
                        take(number, answer)
                    except BaseException as error:
                        errors.append(error)

    threads: list[threading.Thread] = []
    try:
        for _ in range(workers):
            with contextlib.suppress(OSError):
                children.append(start_child(module))
        for child in children:
            threads.append(threading.Thread(target=drive, args=(child,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
    finally:
        for child in children:
            child.kill()  # after an interrupt children may still run; their end closes the pipes that the threads wait for
        for thread in threads:
            thread.join()
        for child in children:
            end_child(child)
    if errors:
        raise errors[0]


def start_child(module: str, keep: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a process that runs the module's `serve()`, with pipes to it. keep: open descriptors that it inherits under the same numbers.

    Raises OSError where the process cannot be started.
    """
    # The child is isolated and then gets our own module path: it must not import what lies in the working directory.
    code = "import importlib, sys; sys.path[:] = sys.argv[2:]; importlib.import_module(sys.argv[1]).serve()"
    command = [sys.executable, "-I", "-c", code, module, *sys.path]
    # The child has a session of its own: the parent handles Ctrl-C, and the child ends when its pipe does.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, pass_fds=keep)


def end_child(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def child_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return the streams of a child process: the one that messages come in by, and the one that answers go out by."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # text that a library prints must not end up among the results
    return sys.stdin.buffer, output


def serve() -> None:
    """Run jobs in a child process: read a job, send its arrays, until the parent closes the pipe."""
    source, output = child_pipes()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task, paths = json.loads(receive(source))
            buffer = io.BytesIO()
            results: dict[str, Any] = {**run_task(task, paths)}
            np.savez(buffer, **results)
            send(output, buffer.getvalue())


def send(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Read one message that `send` wrote. Raises EOFError where the other side is gone."""
    head = stream.read(8)
    data = stream.read(int.from_bytes(head, "little"))
    if len(head) < 8 or len(data) < int.from_bytes(head, "little"):
        raise EOFError
    return data
