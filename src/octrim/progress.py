"""The progress bar of everything that takes longer than two seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from octrim.runs import wide_console


@dataclass(frozen=True)
class Bar:
    """A bar that is being shown."""

    progress: Progress
    task: TaskID

    def advance(self, steps: int = 1, title: str | None = None) -> None:
        """So many more steps are done. title: what stands before the bar from now on."""
        self.progress.update(self.task, advance=steps, description=title)

    def restart(self, total: int, done: int = 0) -> None:
        """Count another `total` steps, `done` of which are done."""
        self.progress.reset(self.task, total=total, completed=done)

    def phase(self, title: str, done: int, total: int) -> None:
        """`done` of `total` steps of the phase `title` are done; a new title starts a new phase, and its time."""
        if self.progress.tasks[0].description != title:
            self.progress.reset(self.task, description=title)
        self.progress.update(self.task, completed=done, total=total)


@contextlib.contextmanager
def progress_bar(title: str, total: int | None, console: Console | None = None) -> Iterator[Bar]:
    """A bar while the block runs, on a terminal; nothing where output goes elsewhere.

    total: number of steps, None where nobody knows it. console: by default standard output.
    """
    console = wide_console() if console is None else console
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(title, total=total))
