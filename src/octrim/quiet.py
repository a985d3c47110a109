"""Libraries that print straight to the process's standard error, where our own line should stand alone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_LOCK = threading.Lock()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send what C code prints on standard error to nowhere, for as long as the block lasts.

    One block at a time: threads would otherwise restore each other's silence.
    """
    with _LOCK, contextlib.ExitStack() as cleanup:
        try:
            saved = os.dup(2)
        except OSError:  # the process has none
            yield
            return
        cleanup.callback(os.close, saved)
        silence = os.open(os.devnull, os.O_WRONLY)
        cleanup.callback(os.close, silence)
        os.dup2(silence, 2)
        cleanup.callback(os.dup2, saved, 2)
        yield
