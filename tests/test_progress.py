"""The progress bar: what it shows, and where it shows nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from octrim.progress import progress_bar


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def shown(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def test_a_terminal_sees_steps_and_titles() -> None:
    terminal = console(True)
    with progress_bar("calibrate", 4, terminal) as bar:
        bar.advance(3)
        bar.advance(title="almost")
    assert "calibrate" in shown(terminal) and "almost" in shown(terminal) and "4/4" in shown(terminal)


def test_phases_count_by_themselves() -> None:
    terminal = console(True)
    with progress_bar("tensorrt", None, terminal) as bar:
        bar.phase("layers", 2, 3)
        assert (bar.progress.tasks[0].completed, bar.progress.tasks[0].total) == (2, 3)
        bar.phase("tactics", 1, 7)
        assert (bar.progress.tasks[0].completed, bar.progress.tasks[0].total) == (1, 7)
    assert "tactics" in shown(terminal)


def test_files_and_pipes_see_nothing() -> None:
    pipe = console(False)
    with progress_bar("calibrate", 4, pipe) as bar:
        bar.advance(4)
    assert shown(pipe) == ""


def test_what_ends_soon_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("octrim.progress.monotonic", lambda: now[0])
    terminal = console(True)
    with progress_bar("reading", 4, terminal, after=2) as bar:
        bar.advance()
        now[0] = 101.9
        bar.advance()
        assert shown(terminal) == ""
        now[0] = 102.0
        bar.advance()
    assert "reading" in shown(terminal)


def test_an_error_ends_the_bar() -> None:
    terminal = console(True)
    with pytest.raises(ValueError, match="broken"), progress_bar("calibrate", 4, terminal) as bar:
        raise ValueError("broken")
    assert not bar.progress.live.is_started
