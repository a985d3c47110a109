"""Two thousand damaged files through the readers: the first of the inputs that `benchmarks/fuzz_readers.py` makes by the hundred thousand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.fuzz_readers import campaign
from tests.fuzz.readers import READERS

ROOT = Path(__file__).parents[1]
INPUTS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "Paddle Inference":
        pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    count = -(-READERS[name][1] * INPUTS // sum(inputs for _, inputs in READERS.values()))
    *_, state = campaign(name, None, count, seconds=10, memory=2048)
    assert state["violations"] == []
    assert state["inputs"] == state["read"] + state["refused"] == count
