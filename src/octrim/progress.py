"""Progress bar for everything that takes longer than two seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from octrim.runs import wide_console

WORK_AHEAD: ContextVar[Callable[[float], float]] = ContextVar("WORK_AHEAD", default=lambda pace: 0.0)
"""Function that estimates the seconds of all that follows a training, by the seconds that one of its epochs takes."""


@contextlib.contextmanager
def work_ahead(seconds: Callable[[float], float]) -> Iterator[None]:
    """Let trainings within the block tell the remaining time of a longer job. seconds: as `WORK_AHEAD` takes it."""
    token = WORK_AHEAD.set(seconds)
    try:
        yield
    finally:
        WORK_AHEAD.reset(token)


def remaining(seconds: float) -> str:
    """A remaining time for people, to 10 seconds below ten minutes and to whole minutes above, as in `0:04:20`."""
    step = 10 if seconds < 600 else 60
    return str(timedelta(seconds=step * round(seconds / step)))


@dataclass(frozen=True)
class Bar:
    """A progress bar that is shown on a terminal. start: time of `monotonic` from which the bar is shown."""

    progress: Progress
    task: TaskID
    start: float

    def advance(self, steps: int = 1, title: str | None = None) -> None:
        """Count `steps` more steps as done. title: new text before the bar."""
        self.progress.update(self.task, advance=steps, description=title)
        self.show()

    def restart(self, total: int, done: int = 0) -> None:
        """Start over with `total` steps, of which `done` are done, and a new time."""
        self.progress.reset(self.task, total=total, completed=done)
        self.show()

    def phase(self, title: str, done: int, total: int) -> None:
        """Count `done` of `total` steps of the phase `title` as done; a new title starts a new phase with a new time."""
        if self.progress.tasks[0].description != title:
            self.progress.reset(self.task, description=title)
        self.progress.update(self.task, completed=done, total=total)
        self.show()

    def show(self) -> None:
        """Show the bar once its time `start` has come."""
        if self.progress.console.is_terminal and not self.progress.live.is_started and monotonic() >= self.start:
            self.progress.start()


@contextlib.contextmanager
def progress_bar(title: str, total: int | None, console: Console | None = None, after: float = 0.0) -> Iterator[Bar]:
    """Show a progress bar while the block runs, on a terminal; nothing where output goes elsewhere.

    total: number of steps, None where it is unknown. console: standard output by default. after: seconds before the bar is shown.
    """
    console = wide_console() if console is None else console
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True)
    bar = Bar(progress, progress.add_task(title, total=total), monotonic() + after)
    bar.show()
    try:
        yield bar
    finally:
        if progress.live.is_started:  # stop() prints an empty line for a bar that was never shown
            progress.stop()
