"""OpenVINO's sessions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from octrim.network.rows import Network, Row
from octrim.targets.opening import open_session
from tests.networks import lively_model
from tests.targets.c.material import assert_within, picture, reference

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


_BEHIND = {
    "maxpool": Row("last", "maxpool", ("a",), kernel=3, stride=1, padding=1),
    "upsample": Row("last", "upsample", ("a",), stride=2),
    "concat": Row("last", "concat", ("a", "a")),
    "add": Row("last", "add", ("a", "a")),
}


@pytest.mark.parametrize("op", _BEHIND)
@pytest.mark.parametrize("window", [{}, {"kernel": 3, "stride": 2, "padding": 1}])
def test_detect_reads_any_row(op: str, window: dict[str, Any]) -> None:
    """Behind a max-pool, too, and with a head that is a window of its own."""
    first = Row("a", "conv", ("images",), 8, 3, 4, 1, norm=True, activation="silu")
    head = Row("level", "conv", ("last",), 14, bias=True, **window)
    rows = (Row("images", "image", channels=3), first, _BEHIND[op], head, Row("detect", "detect", ("level",)))
    model = lively_model(Network(rows, (((4.0, 5.0), (9.0, 7.5)),)))
    batch = picture(64, 96)
    assert_within(open_session(model, "openvino", threads=1)(batch), reference(model, batch))
