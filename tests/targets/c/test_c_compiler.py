"""The compiler of the runtime and its cache: what is missing, fails, is full or cannot be written."""

from __future__ import annotations

import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.network.rows import Row
from octrim.targets.c import compiler
from octrim.targets.c.engine import Engine, Library
from octrim.targets.c.program import program
from octrim.targets.c.session import CSession
from octrim.targets.c.source import assembled
from tests.networks import lively_model
from tests.targets.c.material import picture
from tests.targets.c.test_c_exact import after_stem, found_by
from tests.targets.test_threads import at_once

SOURCE = "int answer(void);\nint answer(void) { return %d; }\n"

needs_compiler = pytest.mark.skipif(not compiler.has_compiler(), reason="no C compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "octrim" / "c"


def tool(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert not compiler.has_compiler()
    with pytest.raises(InputError, match="needs a C compiler, and there is none"):
        compiler.built(SOURCE % 1)
    for name in ("clang", "gcc", "cc"):  # the order in which they are looked for, backwards
        found = tool(tmp_path, name, "exit 1")
        assert compiler.compiler() == (str(found),)
    monkeypatch.setenv("CC", "none -m64")
    with pytest.raises(InputError, match="CC is 'none -m64': no such program"):
        compiler.compiler()
    monkeypatch.setenv("CC", f"{tmp_path / 'clang'} -m64")
    assert compiler.compiler() == (str(tmp_path / "clang"), "-m64")
    monkeypatch.setenv("CC", "'")
    with pytest.raises(InputError, match="CC is"):
        compiler.compiler()


def test_a_compiler_that_fails(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first error, and nothing left in the cache."""
    failing = tool(tmp_path, "failing", "echo 'octrim.c: in a function' >&2; echo 'octrim.c:7:1: error: it is too hot' >&2; exit 1")
    monkeypatch.setenv("CC", str(failing))
    with pytest.raises(InputError, match=r"failing: cannot compile the network's C code: octrim.c:7:1: error: it is too hot"):
        compiler.built(SOURCE % 1)
    monkeypatch.setenv("CC", str(tool(tmp_path, "silent", "exit 0")))
    with pytest.raises(InputError, match="cannot compile the network's C code: exit code 0"):
        compiler.built(SOURCE % 1)
    assert not cache.exists()


@needs_compiler
def test_the_cache_is_named_by_contents(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = compiler.built(SOURCE % 1)
    before = one.stat().st_mtime_ns
    assert compiler.built(SOURCE % 1) == one and one.stat().st_mtime_ns == before
    assert compiler.built(SOURCE % 2) != one
    monkeypatch.setenv("CC", f"{compiler.compiler()[0]} -DOTHER")
    assert compiler.built(SOURCE % 1) != one
    assert len(list(cache.iterdir())) == 3


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files end at 100 kB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@needs_compiler
@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder that even root cannot write to")
def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and the session runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/sys/octrim")
    path = compiler.built(SOURCE % 3)
    assert path.is_file() and not str(path).startswith("/sys")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "/sys/octrim" in told[0] and "not kept" in told[0]
    # Written again, a library that is loaded would change under the code that runs it.
    before = path.stat()
    assert compiler.built(SOURCE % 3) == path and not capsys.readouterr().err
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@needs_compiler
def test_threads_wait_for_one_compilation(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    counting = tool(tmp_path, "counting", f'[ "$1" = --version ] || echo once >> {calls}\nexec {compiler.compiler()[0]} "$@"')
    monkeypatch.setenv("CC", str(counting))
    assert len(set(at_once(8, lambda _: compiler.built(SOURCE % 4)))) == 1
    assert calls.read_text() == "once\n"


@pytest.mark.slow
@needs_compiler
def test_a_full_disk(cache: Path, no_room: None) -> None:
    """The compiler's first line, and no half library."""
    with pytest.raises(InputError, match="cannot compile"):
        compiler.built(assembled("library.c", {}))
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.slow
@needs_compiler
def test_a_size_that_does_not_fit() -> None:
    model = lively_model(after_stem(Row("a", "conv", ("stem",), 6, 2, 2, 0, bias=True), cell=4))
    session = CSession(model, "fp32", 1)
    with pytest.raises(InputError, match="multiples of the stride 4"):
        session(picture(32, 32)[:, :30])
    with pytest.raises(InputError, match="uint8"):
        session(picture(32, 32).astype(np.float32))


@pytest.mark.slow
@needs_compiler
def test_engines_side_by_side() -> None:
    """Many instances with many threads, opened and closed in any order, none of which changes another's result."""
    model = lively_model(after_stem(Row("a", "conv", ("stem",), 6, 3, 2, 1, norm=True, activation="silu"), cell=4))
    made, batch = program(model, 64, 64), picture(64, 64)
    expected = found_by(model, batch)
    library = Library(compiler.built(assembled("library.c", {})))
    engines = [Engine(library, made, threads) for threads in (1, 2, 7, 64)]
    for _ in range(20):
        assert all(np.array_equal(engine(batch), expected) for engine in engines)
    engines[1].close()
    engines[1].close()
    assert np.array_equal(engines[2](batch), expected)
