"""Compiles the C of a network to WebAssembly, by clang and its linker lld."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from octrim.errors import InputError, shown
from octrim.targets.c.compiler import run_compiler

_KNOWN = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))

_FLAGS = (
    *("--target=wasm32", "-std=c11", "-O3", "-msimd128", "-mbulk-memory", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-DOCTRIM_FREESTANDING", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--stack-first", "-Wl,-z,stack-size=262144"),
)

_EXPORTS = (
    *("octrim_weights", "octrim_open", "octrim_source", "octrim_input", "octrim_fitted", "octrim_fit", "octrim_run"),
    *("detector_message", "detector_sizes", "detector_names"),
)


def clang() -> str:
    """Path of a clang whose WebAssembly linker is there, too. Raises InputError where there is none."""
    missing = "the format web needs clang and its linker lld, which compile C to WebAssembly, and there is no"
    found = next((path for path in map(shutil.which, _KNOWN) if path), None)
    if found is None:
        raise InputError(f"{missing} clang here (looked for clang, clang-22 .. clang-14); Debian: apt install clang lld")
    beside = Path(found).resolve().parent / "wasm-ld"
    if not beside.exists() and shutil.which("wasm-ld") is None:
        raise InputError(f"{missing} wasm-ld here; Debian: apt install lld")
    return found


def version() -> str:
    """The first line of what clang says of itself. Raises InputError where there is none."""
    found = clang()
    try:
        told = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{found}: {shown(str(error))}") from None
    return (told.splitlines() or ["no version"])[0]


def compiled(folder: Path, sources: tuple[str, ...]) -> bytes:
    """The WebAssembly module of C files in `folder`. Raises InputError with the first line of what a compiler says that fails."""
    command = [clang(), *_FLAGS, *(f"-Wl,--export={name}" for name in _EXPORTS), "-o", "detector.wasm", *sources]
    return run_compiler(command, folder, "detector.wasm", "compile the network to WebAssembly").read_bytes()
