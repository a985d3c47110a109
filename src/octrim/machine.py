"""Facts about this machine, or about the container that it is, and about what a process may use of it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_STDERR_LOCK = threading.Lock()


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1.

    `taskset` and a container's CPU quota can make it smaller than the machine's. A quota of one and a half cores counts as two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(math.ceil(quota), 1) if quota < cores else cores


def cores_of_quota() -> int | None:
    """Number of cores that a quota leaves of those that this process may run on; None where no quota makes them fewer.

    Runtimes count the cores themselves, each in the way that suits it, but know nothing of quotas: under one they must be told.
    """
    cores = usable_cores()
    return cores if cpu_quota() <= cores else None


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that control groups grant this process; infinity where none sets a quota. root: folder of `proc` and `sys`.

    A group's quota holds for the groups below it, so the least of the process's own group and of those above it counts.
    """
    quotas = [_quota(folder) for folder in _control_groups(root, "cpu")]
    return min(quotas, default=math.inf)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can use without swapping, by this machine and by the container that it may be; None where the system does not tell.

    What a container holds of files counts as free: the system gives it up when memory is wanted. root: folder of `proc` and `sys`.
    """
    free = [_left(folder) for folder in _control_groups(root, "memory")]
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        free.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    except (OSError, ValueError, IndexError, StopIteration):
        free.append(_free_pages_of_macos() if sys.platform == "darwin" else None)
    known = [value for value in free if value is not None]
    return max(min(known), 0) if known else None


def _left(folder: Path) -> int | None:
    """Bytes that one control group may still take, of version 2 or 1; None without a limit."""
    names = ("memory.max", "memory.current") if (folder / "memory.max").is_file() else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        limit, used = (int((folder / name).read_text("ascii")) for name in names)
    except (OSError, ValueError):  # "max", or no such file
        return None
    with contextlib.suppress(OSError, ValueError):
        held = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        # Version 1 counts a group's own files without "total_", and those of the groups below with it.
        used -= sum(int(held.get(f"total_{name}", held.get(name, 0))) for name in ("inactive_file", "active_file"))
    return limit - max(used, 0)


def _free_pages_of_macos() -> int | None:
    """Bytes of macOS that are free or given up when memory is wanted, as `vm_stat` tells them."""
    try:
        told = subprocess.run(["vm_stat"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return pages_of_vm_stat(told)


def pages_of_vm_stat(told: str) -> int | None:
    """Bytes that are free, inactive, speculative or purgeable, from what `vm_stat` prints; None where that is not understood."""
    size = re.search(r"page size of (\d+) bytes", told)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", told, re.MULTILINE)
    return sum(map(int, pages)) * int(size[1]) if size and pages else None


def _quota(folder: Path) -> float:
    """Cores' worth of time that one control group grants, of version 2 (`cpu.max`) or 1 (`cpu.cfs_quota_us`); infinity without a quota."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text("ascii").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return math.inf
    return share if share > 0 else math.inf  # -1 is version 1's "none"


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's control groups that rule `controller`, each with the groups above it, in versions 2 and 1.

    A container often sees its own group at the mount point but is told the path that the group has outside: a folder that is not there says
    nothing, the mount point does.
    """
    mounts = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2 has one hierarchy for all controllers
            places = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            places = [mounts / controllers, mounts / controller]
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        for place in places:
            if ".." not in own.parts:
                yield from (place / above for above in (own, *own.parents))
            else:  # a group outside of what is mounted here
                yield place


def cache_folder() -> Path:
    """OcTrim's folder for what can be made again: `$XDG_CACHE_HOME/octrim`, or `~/.cache/octrim`. It need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if Path(cache).is_absolute() else os.path.expanduser("~/.cache"), "octrim")  # noqa: PTH111 (stays relative without a home)


def processor_name() -> str:
    """The processor's name as the system tells it, or the name of its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model\t")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what C code prints on standard error to nowhere, for as long as the block lasts.

    One block at a time: threads would otherwise restore each other's silence.
    """
    with _STDERR_LOCK, contextlib.ExitStack() as cleanup:
        try:
            saved = os.dup(2)
        except OSError:  # the process has none
            yield
            return
        cleanup.callback(os.close, saved)
        silence = os.open(os.devnull, os.O_WRONLY)
        cleanup.callback(os.close, silence)
        os.dup2(silence, 2)
        cleanup.callback(os.dup2, saved, 2)
        yield


def set_paddle_environment() -> None:
    """Set the environment in which Paddle is fast on processors, before it is imported. What the user set stays.

    Its bundled MKL takes the slowest path on AMD unless MKL_DEBUG_CPU_TYPE=5, and it defaults to one thread: together a factor of
    two in training steps.
    """
    _keep_freed_memory()
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text("utf-8", "replace")[:4000]:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor, unless the user has told it what to do.

    It gives blocks of megabytes back to the system, which hands them out again page by page, zeroed: an operation on all parameters then takes
    up to fifteen times as long as its arithmetic (docs/performance.md).
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    if not any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        with contextlib.suppress(OSError, TypeError, AttributeError):  # elsewhere than on glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(mmap_threshold, 32 << 20)  # the most that it takes
            mallopt(trim_threshold, 1 << 30)
