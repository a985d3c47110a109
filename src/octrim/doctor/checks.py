"""Checks of `octrim doctor`: which parts of OcTrim work on this machine, and what to do about those that do not.

Libraries are tried in separate processes, because a library whose instructions this processor lacks ends the process that imports it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from octrim.doctor.trials import SYSTEM_LIBRARIES, Finding, trials
from octrim.errors import InputError
from octrim.machine import cache_folder
from octrim.targets.table import live_targets

_TIMEOUT = 60  # seconds for one trial; importing Paddle takes ten on a busy machine


def verdict(found: list[Finding]) -> None:
    """Raise InputError where a part does not work that running networks needs: this Python, the libraries, a runtime, a folder to write to."""
    wrong = [check for check in found if check.what in ("Python", "libraries", "this folder") and check.state != "works"]
    programs = [target.program for target in live_targets().values()]
    runtimes = [check for check in found if check.what in programs]
    if not any(check.state == "works" for check in runtimes):
        wrong += runtimes
    if wrong:
        raise InputError("networks cannot be run here: " + "; ".join(f"{check.what}: {check.found}, {check.advice}".rstrip(", ") for check in wrong))


def checks() -> list[Finding]:
    """All checks of `octrim doctor`, in the order of its table."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_started(name)) for name in trials()]
        found = [_python(), *_folders(), _libgomp()]
        for finished in started:
            found += finished()
    return found


def _python() -> Finding:
    supported = (3, 10) <= sys.version_info[:2] < (3, 14)
    advice = "" if supported else "use Python 3.10 to 3.13"
    return Finding("Python", "works" if supported else "fails", f"{platform.python_version()}, {platform.platform()}", advice)


def _folders() -> Iterator[Finding]:
    for what, folder, advice in (
        ("this folder", Path.cwd(), "runs are written below it; go to a folder of yours, or give --project"),
        ("cache folder", cache_folder(), "data sets are read anew every time; XDG_CACHE_HOME names another place"),
        ("temporary folder", Path(tempfile.gettempdir()), "TMPDIR names another place"),
    ):
        there = next((place for place in (folder, *folder.parents) if place.exists()), Path.cwd())
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"octrim")
            free = shutil.disk_usage(there).free / 2**30
            yield Finding(
                what, "works", f"{folder}, {free:.1f} GiB free", "" if free > 1 else "little room: a run of compress writes 100 MB and more"
            )
        except OSError as error:
            yield Finding(what, "fails", f"{folder}: {error.strerror or error}", advice)


def _libgomp() -> Finding:
    if sys.platform != "linux":
        return Finding("libgomp", "works", "not needed here")
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError as error:
        return Finding(
            "libgomp", "missing", str(error), f"PaddlePaddle needs it: apt-get install {SYSTEM_LIBRARIES['libgomp.so.1']}, or dnf install libgomp"
        )
    return Finding("libgomp", "works", "libgomp.so.1")


@contextlib.contextmanager
def _started(name: str) -> Iterator[Callable[[], list[Finding]]]:
    """Start a trial. The block gets a function that waits for it and returns its checks; the last one tells how the trial ended if it failed."""
    # The trial's Python is isolated and gets this process's module path, so that it imports nothing from the working directory.
    code = "import sys; sys.path[:] = sys.argv[2:]; from octrim.doctor.trials import attempt; attempt(sys.argv[1])"
    command = [sys.executable, "-I", "-c", code, name, *sys.path]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True)

        def wait() -> list[Finding]:
            try:
                out = process.communicate(timeout=_TIMEOUT)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                out = process.communicate()[0]
                return [*_told(out), Finding(name, "fails", f"does not answer within {_TIMEOUT} seconds")]
            if process.returncode:
                said.seek(0)
                return [*_told(out), Finding(name, "fails", _ending(process.returncode, said.read().decode("utf-8", "replace")))]
            return _told(out)

        try:
            yield wait
        finally:
            process.kill()
            process.wait()


def _told(out: str) -> list[Finding]:
    """The checks in the output of a trial. Libraries may print anything between the lines of checks."""
    return [Finding(*json.loads(line.partition(" ")[2])) for line in out.splitlines() if line.startswith("octrim-check ")]


def _ending(code: int, said: str) -> str:
    if code < 0:
        reasons = {-signal.SIGILL: "it has instructions that this processor lacks", -signal.SIGKILL: "out of memory, most likely"}
        return f"the process was ended by {signal.Signals(-code).name}: {reasons.get(code, 'a crash')}"
    return str(InputError((said.strip().splitlines() or [f"ended with status {code}"])[-1]))
