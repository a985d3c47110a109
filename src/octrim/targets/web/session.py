"""Sessions that run an exported page's WebAssembly in Node, whose engine is that of Chromium."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from octrim.errors import InputError, shown
from octrim.targets.metadata import file_info, read_header
from octrim.targets.session import Session
from octrim.targets.web.folder import HEADER, PAGE

_MOST_BYTES = 500_000_000  # most bytes of a file that is read


def node() -> str | None:
    """Path of Node; None where it is not installed."""
    return shutil.which("node") or shutil.which("nodejs")


@lru_cache
def version() -> str:
    """Node's version, without the v. Raises InputError where it is not installed or does not run."""
    found = node()
    if found is None:
        raise InputError("node is not installed; Debian: apt install nodejs")
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{found}: {shown(str(error))}") from None
    return done.stdout.strip().removeprefix("v")


class WebSession(Session):
    """Runs the detector.wasm of an exported folder, by OcTrim's own program for Node; the folder's scripts are not executed."""

    def __init__(self, path: Path, precision: str, threads: int | None) -> None:
        if precision != "fp32":
            raise InputError(f"{path}: it was exported in fp32; {precision} was asked for")
        if threads not in (None, 1):
            raise InputError(f"{path}: a page runs in one thread; {threads} were asked for")
        names = [name for name in ("detector.wasm", "weights.bin") if name == "detector.wasm" or (path / name).is_file()]
        described = read_header(path / HEADER, {name: _bytes(path / name) for name in names})
        if "weights.bin" in described["sha256"] and "weights.bin" not in names:
            raise InputError(f"{path / 'weights.bin'}: no such file, and {HEADER} names it")
        self.path = path
        command = [node() or "node", str(PAGE / "node.mjs"), *(str(path / name) for name in names)]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise InputError(f"{command[0]}: {error.strerror}; Node runs a page outside of a browser (Debian: apt install nodejs)") from None
        width, height, *self.result = np.frombuffer(self._read(16), np.int32).tolist()
        super().__init__(file_info(path, described, (None, 3, height, width), (None, *self.result), "node", version(), "fp32"))

    def run(self, batch: np.ndarray) -> np.ndarray:
        boxes, values = self.result
        found = np.empty((len(batch), boxes, values), np.float32)
        answered = False
        try:
            for picture, place in zip(np.ascontiguousarray(batch), found, strict=True):
                self._write(picture.data)
                place[:] = np.frombuffer(self._read(4 * boxes * values), np.float32).reshape(boxes, values)
            answered = True
        finally:
            if not answered:  # after Ctrl-C the next call would read the rest of this one's answer
                self._closed = True
                self.end()
        return found

    def end(self) -> None:
        """End Node."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            _closed(pipe)
        self.process.wait()

    def __del__(self) -> None:
        if getattr(self, "process", None) is not None and self.process.returncode is None:
            self.end()

    def _write(self, content: memoryview) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(content)
            self.process.stdin.flush()
        except OSError:
            raise self._failure() from None

    def _read(self, count: int) -> bytes:
        assert self.process.stdout is not None
        found = self.process.stdout.read(count)
        if len(found) < count:
            raise self._failure()
        return found

    def _failure(self) -> InputError:
        """An error with the line in which Node says what went wrong."""
        assert self.process.stderr is not None
        told = self.process.stderr.read().decode("utf-8", "replace").splitlines()
        first = next((line.strip() for line in told if "Error" in line), f"exit code {self.process.wait()}")
        return InputError(f"{self.path}: Node cannot run detector.wasm: {shown(first)}")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes, larger than any export ({_MOST_BYTES:,})")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; a page's folder has index.html, detector.wasm, detector.js and {HEADER}") from None


def _closed(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        try:
            pipe.close()
        except OSError:  # Node has gone before it read everything
            return
