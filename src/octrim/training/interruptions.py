"""SIGINT and SIGTERM during a training."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Inside, SIGINT and SIGTERM are remembered until the loop comes to a place where it can stop; a second one stops at once."""
    received: list[int] = []

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            if hasattr(signal, "siginterrupt"):  # calls go on afterwards: an interrupted answer of another process would be lost
                signal.siginterrupt(number, False)
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
