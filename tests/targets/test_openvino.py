"""OpenVINO's sessions."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

_TWO_SESSIONS = """
import signal

import numpy as np

from octrim.network.initialize import fresh_model
from octrim.targets.opening import open_session

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background with SIGINT ignored
model = fresh_model("yolov5n", classes=1)
sessions = [open_session(model, "openvino") for _ in range(2)]
for session in sessions:
    session(np.zeros((1, 64, 64, 3), np.uint8))
del session
while sessions:
    del sessions[0]
try:
    signal.raise_signal(signal.SIGINT)
    print("nothing happened")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
def test_ctrl_c_after_two_sessions() -> None:
    """With a core per session OpenVINO left the main thread a freed stack for signal handlers, and Ctrl-C crashed the process."""
    done = subprocess.run([sys.executable, "-c", _TWO_SESSIONS], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr[-2000:]
