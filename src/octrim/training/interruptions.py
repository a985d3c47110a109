"""Handling of SIGINT and SIGTERM during a training."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGINT and SIGTERM are only remembered, until the loop comes to a place where it can stop; a second one stops at once."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            if hasattr(signal, "siginterrupt"):  # system calls go on after the signal: an interrupted answer of another process would be lost
                signal.siginterrupt(number, False)
    except ValueError:  # only the main thread may handle signals
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
