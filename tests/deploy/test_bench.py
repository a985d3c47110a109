"""`octrim bench` with engines, in the stand-in: as graphs and enqueued, at several batch sizes, beside other runtimes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from octrim.cli import main
from tests.deploy.test_formats import failed, made
from tests.targets.tensorrt_standin import VERSIONS, installed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    made().save("small.safetensors")
    return tmp_path


@pytest.mark.slow
def test_engines_beside_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Stand-in, 550.54, 900 MHz, 1590 MHz, 5000 MHz, 5001 MHz, 70.00 W'\n")
    program.chmod(0o755)
    with installed(VERSIONS[0]) as fake:
        assert main(["export", "--weights", "small.safetensors", "--format", "tensorrt", "--dynamic", "--batch", "4"]) == 0
        engine = "runs/export/exp/model.engine"
        capsys.readouterr()
        assert main(["bench", "--weights", engine, "small.safetensors", "--batch", "1", "4", "--iterations", "3", "--warmup", "1"]) == 0
        assert not fake.errors
    told = capsys.readouterr().out
    for part in ("Stand-in (compute capability 8.7), CUDA 12.9", "driver 550.54", "sm clock 900 MHz", "launched as", "batch 1,", "batch 4,"):
        assert part in told
    written = json.loads(Path("runs/bench/exp/bench.json").read_text())
    header, rows = written["header"], written["networks"]
    assert (header["gpu"], header["gpu_driver"], header["batch"]) == ("Stand-in", "550.54", [1, 4])
    assert f"tensorrt {VERSIONS[0]}" in header["runtime"]
    expected = [(engine, batch, way) for batch in (1, 4) for way in ("graph", "enqueue")]
    assert [(row["name"], row["batch"], row["execution"]) for row in rows if row["execution"]] == expected
    others = [row for row in rows if row["name"] == "small.safetensors"]
    assert [(row["batch"], row["execution"], row["mac_reduction"]) for row in others] == [(1, None, 1), (4, None, 1)]
    for row in rows:
        assert row["pictures_per_second"] == pytest.approx(1000 * row["batch"] / row["total_p50_ms"], rel=1e-2)
        first = next(other for other in rows if other["batch"] == row["batch"])
        assert row["network_speedup"] == pytest.approx(first["network_p50_ms"] / row["network_p50_ms"], rel=1e-3)
    with Path("runs/bench/exp/bench.csv").open() as file:
        assert [row["batch"] for row in csv.DictReader(file)] == ["1"] * 3 + ["4"] * 3


@pytest.mark.slow
def test_a_capture_that_failed_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with installed(VERSIONS[1]) as fake:
        assert main(["export", "--weights", "small.safetensors", "--format", "tensorrt"]) == 0
        fake.device.fail_capture = True
        assert main(["bench", "--weights", "runs/export/exp/model.engine", "--iterations", "1", "--warmup", "0"]) == 0
        written = json.loads(Path("runs/bench/exp/bench.json").read_text())
        assert [row["execution"][:9] for row in written["networks"]] == ["enqueue: ", "enqueue"]
        assert "gpu_driver" not in written["header"]  # no nvidia-smi
        capsys.readouterr()
        assert "built for batches of 1; use --batch 1" in failed(capsys, "bench", "--weights", "runs/export/exp/model.engine", "--batch", "1", "8")
        assert main(["export", "--weights", "small.safetensors", "--format", "tensorrt", "--batch", "2", "2", "4", "--name", "some"]) == 0
        capsys.readouterr()
        assert "built for batches of 2 to 4" in failed(capsys, "bench", "--weights", "runs/export/some/model.engine")
    assert "--batch is 0, expected 1" in failed(capsys, "bench", "--weights", "small.safetensors", "--batch", "0")
