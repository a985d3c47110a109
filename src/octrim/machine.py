"""What this machine, or the container that it is, gives a process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1.

    `taskset` and a container's CPU quota can make it smaller than the machine's. A quota of one and a half cores counts as two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(math.ceil(quota), 1) if quota < cores else cores


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that control groups grant this process; infinity where none sets a quota. root: folder of `proc` and `sys`.

    A group's quota holds for the groups below it, so the least of the process's own group and of those above it counts.
    """
    quotas = [_quota(folder) for folder in _control_groups(root, "cpu")]
    return min(quotas, default=math.inf)


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
