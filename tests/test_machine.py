"""What a process may use of a machine, as control groups of both versions say it."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest

from octrim import machine
from octrim.machine import cpu_quota, free_memory, pages_of_vm_stat, usable_cores


def made(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with `/proc/self/cgroup` and files below `/sys/fs/cgroup`."""
    for name, content in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": content for name, content in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1 = "12:memory:/docker/ab\n5:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # Version 2: a container that sees its own group as the root.
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        # Version 2 on the machine itself: systemd's CPUQuota stands in the unit's folder, and a slice above it may allow less.
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "400000 100000\n"}, 4.0),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "400000 100000\n", "a.slice/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "max 100000\n", "a.slice/cpu.max": "300000 100000\n"}, 3.0),
        # Version 1: told the path outside, and sees its own group at the mount point.
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "300000\n", "cpu/docker/ab/cpu.cfs_period_us": "100000\n"}, 3.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        # Both versions mounted; processors ruled by version 1, by version 2.
        (f"{V1}0::/\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ("4:memory:/\n0::/\n", {"unified/cpu.max": "200000 100000\n"}, 2.0),
        # Nothing to read, or nonsense.
        ("0::/\n", {}, math.inf),
        ("", {"cpu.max": "100000 100000\n"}, math.inf),
        ("0::/../other\n", {"cpu.max": "100000 100000\n"}, 1.0),
        ("0::/\n", {"cpu.max": "100000 0\n"}, math.inf),
        ("0::/\n", {"cpu.max": "a b c\n"}, math.inf),
        ("nonsense\n", {"cpu.max": "100000 100000\n"}, math.inf),
    ],
)
def test_cpu_quota(tmp_path: Path, groups: str, files: dict[str, str], expected: float) -> None:
    assert cpu_quota(made(tmp_path, groups, files)) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 8), (9.0, 8), (8.0, 8), (7.5, 8), (7.0, 7), (1.2, 2), (0.3, 1)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, quota: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert usable_cores() == expected


def test_free_memory_here() -> None:
    found = free_memory()
    assert found is not None and 2**20 < found < 2**46


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4096 * 1024),
        ({"memory.max": "max\n", "memory.current": "900\n"}, 4096 * 1024),
        ({"memory.max": "2000000\n", "memory.current": "1500000\n"}, 500_000),
        # 1.2 of the 1.5 MB are files that the system holds as long as nobody wants the memory.
        (
            {
                "memory.max": "2000000\n",
                "memory.current": "1500000\n",
                "memory.stat": "anon 300000\nfile 1200000\ninactive_file 1000000\nactive_file 200000\n",
            },
            1_700_000,
        ),
        ({"memory.max": "1000\n", "memory.current": "1500\n"}, 0),
        ({"memory.max": "nonsense\n", "memory.current": "1500\n"}, 4096 * 1024),
        (
            {
                "memory/memory.limit_in_bytes": "2000000\n",
                "memory/memory.usage_in_bytes": "1500000\n",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 700000\ntotal_active_file 300000\n",
            },
            1_500_000,
        ),
    ],
)
def test_free_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    groups = V1 if any(name.startswith("memory/") for name in files) else "0::/\n"
    root = made(tmp_path, groups, files)
    (root / "proc/meminfo").write_text("MemTotal:  8192 kB\nMemAvailable:    4096 kB\n")
    assert free_memory(root) == expected


def test_free_memory_where_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "win32")
    assert free_memory(tmp_path) is None


def test_free_memory_of_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:                               100.\n"
        "Pages active:                           9000.\nPages inactive:                          200.\n"
        "Pages speculative:                        30.\n"
        "Pages throttled:                           0.\nPages wired down:                       5000.\nPages purgeable:                          4.\n"
    )
    assert pages_of_vm_stat(told) == 334 * 16384
    assert pages_of_vm_stat("nothing of the kind") is None
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, told, ""))
    assert free_memory(tmp_path) == 334 * 16384
