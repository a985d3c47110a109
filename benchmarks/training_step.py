"""Milliseconds of a training step by its parts, of one command or side by side: two checkouts, or one command with other options.

    python benchmarks/training_step.py -- finetune --data D --weights W --teacher T --batch 4 --nominal-batch 4 --optimizer Muon --imgsz 320
    python benchmarks/training_step.py --candidate ../before --candidate . --candidate ". --teacher-precision bf16" -- finetune ...

Every candidate is a process of its own that trains with the given command until its turn is over, and then waits for its next one, so that a busy
machine hits all alike: compare ratios, or processor time, which other programs hardly change. Threads are those of OMP_NUM_THREADS; `taskset -c 1` in
front keeps everything on one core. The time of a part is without that of the parts inside it. "waiting for pictures" is what the loader's processes
did not manage to do meanwhile; on one core that is most of their work, which is not in the processor time. Runs go to a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

# Parts by the functions that they begin and end with, as `module:name`; what a checkout does not have is left out.
PARTS = {
    "pictures to a tensor": ("octrim.training.fit:_images",),
    "student: forward": ("octrim.training.fit:_forward",),
    "student: backward": ("octrim.backends.onednn.runs:TrainingPass.backward",),
    "teacher": ("octrim.training.teacher:Teacher.__call__",),
    "loss against labels": ("octrim.training.loss:DetectionLoss.__call__",),
    "loss against the teacher": ("octrim.training.distillation:Distillation.__call__",),
    "losses: backward, gradient as a vector": ("octrim.training.learner:Learner.add",),
    "optimizer": ("octrim.training.learner:Learner.step",),
    "optimizer: orthogonal steps": ("octrim.training.orthogonal:Orthogonal.steps",),
    "moving average": ("octrim.training.learner:Learner.follow",),
    "penalty, cuts": ("octrim.training.shrinking:Shrinking.penalise", "octrim.training.shrinking:Shrinking.cut"),
    "progress": ("octrim.training.record:Record.batch",),
}
WAITING, REST, WHOLE = "waiting for pictures", "everything else", "whole step"
WARM_UP = 12  # steps that compile, and fill the loader


Times = np.ndarray  # seconds on the clock, and of processor in this process


def now() -> Times:
    return np.asarray([perf_counter(), process_time()])


class Clock:
    """Seconds by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, Times] = defaultdict(lambda: np.zeros(2))
        self._running: list[str] = []
        self._inside: list[Times] = []  # seconds of the parts within each part that is running

    def timed(self, part: str, function: Callable[..., Any], within: str = "") -> Callable[..., Any]:
        """The function, whose time counts for `part` wherever it is called; or only where the part `within` calls it."""

        def call(*arguments: Any, **named: Any) -> Any:
            if within and self._running[-1:] != [within]:
                return function(*arguments, **named)
            start = now()
            self._running.append(part)
            self._inside.append(np.zeros(2))
            try:
                return function(*arguments, **named)
            finally:
                self._running.pop()
                taken = now() - start
                self.seconds[part] += taken - self._inside.pop()
                if self._inside:
                    self._inside[-1] += taken

        return call


def install(clock: Clock, after_step: Callable[[], None]) -> None:
    """Let the functions of all parts tell the clock, and every end of a step call `after_step`."""
    for part, places in PARTS.items():
        for place in places:
            module, _, path = place.partition(":")
            try:
                owner: Any = importlib.import_module(module)
            except ModuleNotFoundError:
                continue
            *owners, name = path.split(".")
            for one in owners:
                owner = getattr(owner, one, None)
            if hasattr(owner, name):
                setattr(owner, name, clock.timed(part, getattr(owner, name)))
    from octrim.backends.paddle import PaddleNetwork
    from octrim.data.loader import Loader
    from octrim.training.record import Record

    # Until there was a class for it, the teacher was a network like any other.
    PaddleNetwork.__call__ = clock.timed("teacher", PaddleNetwork.__call__, within="loss against the teacher")  # type: ignore[method-assign]
    deliver, told = Loader._deliver, Record.batch

    def batches(*arguments: Any) -> Iterator[Any]:
        source = deliver(*arguments)
        following = clock.timed(WAITING, lambda: next(source, None))
        while (batch := following()) is not None:
            yield batch

    def batch(*arguments: Any) -> None:
        told(*arguments)
        after_step()

    Loader._deliver, Record.batch = batches, batch  # type: ignore[method-assign]


def serve(command: list[str], steps: int) -> None:
    """Train, and after every `steps` steps answer a line with their milliseconds by part and wait for a line from the parent."""
    from octrim.cli import main

    clock, answers = Clock(), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    left, started = WARM_UP, now()

    def after_step() -> None:
        nonlocal left, started
        left -= 1
        if left:
            return
        whole = now() - started
        found = {**clock.seconds, WHOLE: whole, REST: whole - sum(clock.seconds.values())}
        answers.write(json.dumps({part: (seconds / steps * 1000).tolist() for part, seconds in found.items()}) + "\n")
        if not sys.stdin.readline():
            os._exit(0)
        clock.seconds.clear()
        left, started = steps, now()

    install(clock, after_step)
    sys.exit(main(command))


class Candidate:
    """A training that waits for its turns."""

    def __init__(self, checkout: str, command: list[str], steps: int, folder: str) -> None:
        whole = [*command, "--noval", "--epochs", "100000", "--patience", "0", "--project", folder]
        # Only the package is of the checkout: this file may be newer.
        environment = {**os.environ, "PYTHONPATH": str(Path(checkout).resolve() / "src")}
        arguments = [sys.executable, __file__, "--serve", "--steps", str(steps), "--", *whole]
        self._log = Path(f"{folder}.log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.rounds: list[dict[str, list[float]]] = []
        self._answer()

    def _answer(self) -> dict[str, list[float]]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a training ended early:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)

    def turn(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.rounds.append(self._answer())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def table(candidates: dict[str, Candidate]) -> None:
    """Print medians over the rounds, on the clock and of processor time."""
    print(f"{'milliseconds of a step, medians':40}" + "".join(f"{name:>24}" for name in candidates))
    print(" " * 40 + "      clock   processor " * len(candidates))
    for part in (WAITING, *PARTS, REST, WHOLE):
        print(f"{part:40}", end="")
        for candidate in candidates.values():
            clock, processor = np.median([found.get(part, (0.0, 0.0)) for found in candidate.rounds], axis=0)
            print(f"{clock:11.2f} {processor:11.2f} ", end="")
        print()
    first, *others = candidates.values()
    for name, other in zip(list(candidates)[1:], others, strict=True):
        ratios = np.median([np.divide(b[WHOLE], a[WHOLE]) for a, b in zip(first.rounds, other.rounds, strict=True)], axis=0)
        print(f"{name}: {ratios[0]:.3f} of the first one's time on the clock, {ratios[1]:.3f} of its processor time (medians of pairs)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = "checkout whose src is timed, and further options of the command; may be given again (default: this checkout)"
    parser.add_argument("--candidate", action="append", metavar="'DIR [OPTIONS]'", help=what)
    parser.add_argument("--steps", type=int, default=25, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every candidate")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="+", help="a training command and its options, behind --")
    options = parser.parse_args()
    if options.serve:
        serve(options.command, options.steps)
        return
    candidates: dict[str, Candidate] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.candidate or [str(Path(__file__).parents[1])]:
            checkout, *more = shlex.split(name)
            candidates[name[-23:]] = Candidate(checkout, options.command + more, options.steps, f"{folder}/{len(candidates)}")
        for _ in range(options.rounds):
            for candidate in candidates.values():
                candidate.turn()
        for candidate in candidates.values():
            candidate.end()
    table(candidates)


if __name__ == "__main__":
    main()
