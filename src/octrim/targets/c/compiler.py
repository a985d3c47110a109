"""The compiler of this machine, and the cache of what it made: a shared library is named after its source, its compiler and the processor."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from octrim.atomic import write_bytes
from octrim.errors import InputError, shown
from octrim.machine import cache_folder

_KNOWN = ("cc", "gcc", "clang")
_SECONDS = 600

# No contraction of a * b + c beyond what the code asks for: results are then those of the code, whatever is inlined where.
_FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")


def compiler() -> tuple[str, ...]:
    """Command and arguments of the C compiler: `CC`, else cc, gcc or clang. Raises InputError where there is none."""
    chosen = os.environ.get("CC", "")
    try:
        command = tuple(shlex.split(chosen))
    except ValueError as error:
        raise InputError(f"CC is {shown(chosen)}: {error}") from None
    if command:
        if shutil.which(command[0]) is None:
            raise InputError(f"CC is {shown(chosen)}: no such program")
        return command
    found = next((path for path in map(shutil.which, _KNOWN) if path), None)
    if found is None:
        raise InputError("the runtime c needs a C compiler, and there is none (looked for CC, cc, gcc, clang); Debian: apt install gcc")
    return (found,)


def version() -> str:
    """The compiler and the first line of what it says of itself. Raises InputError where there is none."""
    command = compiler()
    return f"{command[0]}: {(_version(command[0]).splitlines() or ['no version'])[0]}"


def has_compiler() -> bool:
    """Whether C can be compiled here."""
    try:
        compiler()
    except InputError:
        return False
    return True


def built(source: str, extra: tuple[tuple[str, str], ...] = ()) -> Path:
    """The shared library of a C source, from the cache or compiled now for this processor.

    extra: names and contents of files that the source includes. A cache that cannot be written costs the time of compiling once in every process.
    Raises InputError without a compiler, and with the first line of what a compiler says that fails.
    """
    command = (*compiler(), *_FLAGS, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native")
    key = sha256("\0".join([*command, _version(command[0]), _processor(), source, *(text for pair in extra for text in pair)]).encode()).hexdigest()
    path = cache_folder() / "c" / f"{key[:40]}.so"
    with _BUILDING:
        if path.is_file():
            return path
        if path not in _BUILT or not _BUILT[path].is_file():
            _BUILT[path] = _made(command, path, key, source, extra)
        return _BUILT[path]


_BUILDING = threading.Lock()  # threads that ask for the same library wait for one compilation

_BUILT: dict[Path, Path] = {}
"""Libraries that this process has compiled, by their places in the cache. A file is never written again: the process may have loaded it."""


def _made(command: tuple[str, ...], path: Path, key: str, source: str, extra: tuple[tuple[str, str], ...]) -> Path:
    """The shared library, compiled now: at `path` or, where that cannot be written, in a folder of this process."""
    with tempfile.TemporaryDirectory(prefix="octrim-c-") as folder:
        made = _compile(command, Path(folder), source, extra)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, made.read_bytes())
        except OSError as error:
            print(f"octrim: {error.filename or path}: {error.strerror}; what was compiled is used once and not kept", file=sys.stderr)
            return _for_this_process(made, key)
    return path


def _compile(command: tuple[str, ...], folder: Path, source: str, extra: tuple[tuple[str, str], ...]) -> Path:
    for name, text in (("octrim.c", source), *extra):
        (folder / name).write_text(text, "utf-8")
    return run_compiler([*command, "-o", "octrim.so", "octrim.c"], folder, "octrim.so", "compile the network's C code")


def run_compiler(command: Sequence[str], folder: Path, made: str, task: str) -> Path:
    """Run a compiler in `folder`, and return the path of the file `made` that it leaves there.

    task: what the compiler is to do, for messages ("compile the network's C code"). Raises InputError with the first error that the compiler names,
    or where it takes too long or leaves no such file.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{command[0]}: cannot {task}: {shown(str(error))}") from None
    if done.returncode or not (folder / made).is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), lines[0] if lines else f"exit code {done.returncode}")
        raise InputError(f"{command[0]}: cannot {task}: {first}")
    return folder / made


@lru_cache
def _folder_of_this_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="octrim-c-")


def _for_this_process(made: Path, key: str) -> Path:
    path = Path(_folder_of_this_process().name) / f"{key[:40]}.so"
    shutil.copyfile(made, path)
    return path


@lru_cache
def _version(program: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return ""


@lru_cache
def _processor() -> str:
    """What `native` may depend on: the same home may be mounted on several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return platform.machine() + "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
