"""OpenVINO's core object, of which there is one per process."""

from __future__ import annotations

import functools
import threading

import openvino as ov

_LOCK = threading.Lock()


def core() -> ov.Core:
    """The core that every graph of this process is read and compiled by; it lives until the process ends.

    The plugin of each further core gives the calling thread a stack for signal handlers, and takes it back in the wrong order when it goes
    (2026.4): the next Ctrl-C then runs on memory that is freed, and the process crashes.
    """
    with _LOCK:  # two threads that come first together would otherwise make two
        return _made()


@functools.cache
def _made() -> ov.Core:
    return ov.Core()
