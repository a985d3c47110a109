"""`octrim bench --share`: one block about a machine, with a row per network and a column per runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.cli import main
from octrim.deploy.bench import Timings
from octrim.deploy.share import block
from octrim.network.initialize import fresh_model
from octrim.targets.table import live_targets, program


def times(network: str, p50: float, p90: float) -> dict[str, object]:
    return {"name": network, "parameters": 34280, "macs": 42_400_000, "network_p50_ms": p50, "network_p90_ms": p90}


def test_the_block_puts_every_time_where_it_belongs() -> None:
    header = {"processor": "Arm Cortex-A76", "threads": 1, "height": 320, "width": 320, "precision": "fp32", "system": "Linux", "batch": 1}
    header |= {"runtime": "openvino 2026.4, c gcc", "iterations": 100}
    rows = [times("whole", 21.5, 22.25), times("whole", 18.0, 18.5), times("small", 4.0, 4.125), times("small", 1.5, 1.625)]
    lines = block(Timings(header, rows), ["whole", "small"], ["openvino", "c"]).splitlines()
    assert lines[0] == "### Arm Cortex-A76, 1 thread, 320 px, fp32"
    assert lines[4] == "| network | parameters | MACs | OpenVINO | C |"
    assert lines[6] == "| whole | 34,280 | 42 M | 21.50 (22.25) | 18.00 (18.50) |"
    assert lines[7] == "| small | 34,280 | 42 M | 4.00 (4.12) | 1.50 (1.62) |"
    assert "openvino 2026.4, c gcc" in lines[2]


@pytest.mark.slow
def test_a_machine_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_model("yolov5n", classes=1).save("mine.safetensors")
    assert main(["bench", "--share", "--weights", "mine.safetensors", "--imgsz", "64", "--rounds", "1", "--warmup", "0"]) == 0
    told = capsys.readouterr().out
    written = (tmp_path / "runs/bench/exp/share.md").read_text("utf-8")
    assert written in told
    header, _, row = written.splitlines()[4:7]
    columns = [cell.strip() for cell in header.strip("|").split("|")][3:]
    assert columns[0] == "OpenVINO"
    assert set(columns) <= {program(runtime) for runtime in live_targets()}
    assert row.startswith("| mine | ")
    assert str(tmp_path) not in written  # what is sent to others says nothing about the user's folders


def test_a_runtime_that_cannot_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--share", "--cfg", "yolov5n", "--runtime", "onnxruntime", "--precision", "bf16"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ONNX Runtime" in error
    assert not (tmp_path / "runs").exists()
