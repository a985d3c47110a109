"""Facts about this machine, or the container in which the process runs, and about the part of it that the process may use."""

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

    Runtimes count the cores themselves, each in its own way, but do not know of quotas, so under a quota they must be given a number.
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
    """Bytes that this process can use without swapping, on this machine and in its container, if any; None where the system does not tell.

    Memory in which a container caches files counts as free, because the system gives it up on demand. root: folder of `proc` and `sys`.
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
    """Bytes that one control group, of version 2 or 1, may still take; None without a limit."""
    names = ("memory.max", "memory.current") if (folder / "memory.max").is_file() else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        limit, used = (int((folder / name).read_text("ascii")) for name in names)
    except (OSError, ValueError):  # "max", or no such file
        return None
    with contextlib.suppress(OSError, ValueError):
        held = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        # Version 1 has two counts of cached files: without "total_" the group's own, with it also those of the groups below.
        used -= sum(int(held.get(f"total_{name}", held.get(name, 0))) for name in ("inactive_file", "active_file"))
    return limit - max(used, 0)


def _free_pages_of_macos() -> int | None:
    """Bytes of memory that are free on macOS or given up on demand, as `vm_stat` prints them; None where it does not."""
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
    """Cores' worth of time that one control group of version 2 (`cpu.max`) or 1 (`cpu.cfs_quota_us`) grants; infinity without a quota."""
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

    A container often sees its own group at the mount point but is told the path that the group has outside. So a folder that does not exist
    is passed over, and the mount point is looked at as well.
    """
    mounts = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:  # only Linux has this file
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
            else:  # the path is that of a group outside of the mounted part
                yield place


def cache_folder() -> Path:
    """OcTrim's folder for files that can be made again: `$XDG_CACHE_HOME/octrim`, or `~/.cache/octrim`. It need not exist."""
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
    """Suppress whatever is printed on standard error within the block, by C code, too.

    Only one block runs at a time, because threads would otherwise restore each other's redirected stream.
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
    """Set environment variables with which Paddle is fast on processors, before it is imported. Variables that the user has set stay.

    Paddle's bundled MKL takes the slowest path on AMD unless MKL_DEBUG_CPU_TYPE=5, and Paddle defaults to one thread: together a factor of
    two in training steps.
    """
    _keep_freed_memory()
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text("utf-8", "replace")[:4000]:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor, unless the user has set its options.

    By default glibc gives blocks of megabytes back to the system, which hands them out again page by page, zeroed: an operation on all parameters
    then takes up to fifteen times as long as its arithmetic (docs/measurements/performance.md).
    """
    trim_threshold, mmap_threshold = -1, -3  # numbers of these options in malloc.h
    if not any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library has no mallopt
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(mmap_threshold, 32 << 20)  # the largest value that glibc accepts
            mallopt(trim_threshold, 1 << 30)
