"""Budgets of milliseconds that only the prediction meets are refused before the first training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from octrim.cli import main
from octrim.compression import pipeline
from octrim.latency.table import write_table
from octrim.network.loading import load
from octrim.network.rows import Network
from octrim.pruning.plan import plan
from octrim.stages import TRAIN
from tests.latency.analytic import exact_table, exact_time


class _Watch:
    """A stopwatch on a machine where every network takes a known multiple of what the table predicts; the reference takes 1 ms."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def settled(self, network: Network) -> float:
        return self.factor * exact_time(network)

    def milliseconds(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("share", "factor", "more", "told"),
    [
        (1.05, 1.0, [], None),  # measured as predicted
        (1.05, 1.5, ["--drop", "none"], r"the least possible is latency=.* \(milliseconds\), as measured on this machine"),
        (0.99, 1.0, ["--drop", "none"], "the least possible is latency="),  # not even predicted
        (0.99, 1.0, [], None),  # in OpenVINO blocks are dropped by themselves
        (0.99, 1.0, ["--levels", "auto", "--drop", "auto"], None),  # with rows dropped it fits
        (0.99, 9.0, ["--levels", "auto", "--drop", "auto"], "with all blocks and levels dropped that may go, as measured on this machine"),
    ],
)
def test_a_budget_that_only_the_prediction_meets(
    share: float,
    factor: float,
    more: list[str],
    told: str | None,
    shapes: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """share: of what the least network without dropped rows is predicted to take."""
    model, table = load(weights), exact_table(load(weights).network)
    write_table(table, tmp_path / "table.json")
    least = exact_time(plan(model, "1/1000", 2, image_size=(64, 64)).network)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline._WORK, TRAIN, interrupted)
    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    monkeypatch.setattr("octrim.latency.budget.stopwatch_of", lambda _: _Watch(factor))
    command = ["compress", "--weights", str(weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), "--name", "run"]
    command += ["--imgsz", "64", "--align", "2", "--budget", f"latency={share * least:.6f}", "--latency-table", str(tmp_path / "table.json"), *more]
    code, error = main(command), capsys.readouterr().err
    if told is None:
        assert code == 130 and (tmp_path / "runs" / "run").is_dir()
        return
    assert code == 2 and error.count("\n") == 1 and not (tmp_path / "runs").exists()
    assert error.startswith("octrim compress: error: budget latency=") and "cannot be met" in error
    assert re.search(told, error), error
