"""The commands that choose what is dropped: what they leave, what they tell, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

from octrim.cli import main
from octrim.network.cost import network_cost
from octrim.network.dropping import rows_to_drop, without
from octrim.network.loading import load
from tests.training.known_losses import LOSSES, KnownLosses


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octrim.training.dropping.Measuring", KnownLosses.by(LOSSES))


BUDGET = ["--budget", "macs=0.3", "--align", "1", "--imgsz", "64"]


@pytest.mark.usefixtures("measured")
def test_prune_drops_what_is_missed_least(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prune", "--weights", str(tiny_weights), "--data", str(shapes), *BUDGET, "--project", str(tmp_path)]
    assert main([*command, "--name", "run", "--levels", "auto", "--drop", "auto"]) == 0
    found = json.loads((tmp_path / "run/dropping.json").read_text())
    whole, small = load(tiny_weights), load(tmp_path / "run/model.safetensors")
    chosen = [one["name"] for one in found["candidates"] if one["chosen"]]
    assert chosen[0] == "level 4"
    assert (found["levels"], small.network.strides) == ([8], (8,))
    assert {row.name for row in whole.network.rows} - {row.name for row in small.network.rows} == set(
        rows_to_drop(whole.network, found["drop"], (8,))
    )
    assert network_cost(small.network, 64).macs <= 0.3 * network_cost(whole.network, 64).macs
    assert found["mAP50-95"] == 0.8
    assert found["pictures"] == 22
    assert found["unit"] == "M MACs"
    level = found["candidates"][0]
    without_level = network_cost(without(whole.network, rows_to_drop(whole.network, levels=[8])), 64)
    assert level["mAP50-95"] == pytest.approx(0.79)
    assert level["saved"] == pytest.approx((network_cost(whole.network, 64).macs - without_level.macs) / 1e6)
    assert level["strain"] < found["strain"]
    told = (tmp_path / "run/dropping.txt").read_text()
    assert told.startswith("blocks and levels that are missed least: level 4")
    assert told.splitlines()[0] in (tmp_path / "run/log.txt").read_text()
    assert json.loads((tmp_path / "run/plan.json").read_text())["dropped"]["rows"] == list(rows_to_drop(whole.network, found["drop"], (8,)))
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "Blocks and levels that could go" in page
    assert "<th>level 4</th>" in page
    capsys.readouterr()
    for damage in ('{"candidates": [1]}', told, "[" * 100_000, json.dumps({**found, "mAP50-95": "many"})):
        (tmp_path / "run/dropping.json").write_text(damage)
        assert main(["report", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert "dropping.json: damaged" in error and error.count("\n") == 1
    (tmp_path / "run/dropping.json").write_text(json.dumps(found, indent=1))
    # The same again, and levels alone.
    assert main([*command, "--name", "again", "--levels", "auto", "--drop", "auto"]) == 0
    assert (tmp_path / "again/dropping.json").read_bytes() == (tmp_path / "run/dropping.json").read_bytes()
    assert main([*command, "--name", "levels", "--levels", "auto", "--dry-run"]) == 0
    names = [one["name"] for one in json.loads((tmp_path / "levels/dropping.json").read_text())["candidates"]]
    assert sorted(names) == ["level 4", "level 8"]


def test_without_data_only_channels_are_cut(tiny_weights: Path, tmp_path: Path) -> None:
    command = ["prune", "--weights", str(tiny_weights), *BUDGET, "--project", str(tmp_path), "--name"]
    assert main([*command, "run", "--levels", "auto", "--drop", "auto"]) == 0
    assert main([*command, "plain"]) == 0
    assert "need --data, on which blocks and levels are measured: only channels are cut" in (tmp_path / "run/log.txt").read_text()
    assert not (tmp_path / "run/dropping.json").exists()
    assert load(tmp_path / "run/model.safetensors").network == load(tmp_path / "plain/model.safetensors").network


ONLY_WITHOUT = ["--budget", "macs=0.085", "--align", "1", "--imgsz", "64"]
"""A budget that TINY meets only without its level of stride 4 and a block: the least with everything is 0.092, without that level 0.0864."""


@pytest.mark.usefixtures("measured")
def test_budgets_that_only_dropped_rows_meet(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prune", "--weights", str(tiny_weights), *ONLY_WITHOUT, "--project", str(tmp_path), "--name", "run"]
    auto = ["--levels", "auto", "--drop", "auto"]
    for options, told in [
        ([], "the least possible is macs=0.092 (125,952 macs)\n"),
        (["--levels", "8"], "the least possible is macs=0.0864 (118,272 macs)\n"),
        (auto, "(125,952 macs); --drop auto and --levels auto need --data, on which blocks and levels are measured\n"),
    ]:
        assert main([*command, *options]) == 2
        assert told in capsys.readouterr().err
    whole = load(tiny_weights).network
    limit = 0.085 * network_cost(whole, 64).macs
    assert main([*command, "--levels", "8", "--drop", "model.2", "model.4.m"]) == 0
    assert network_cost(load(tmp_path / "run/model.safetensors").network, 64).macs <= limit
    assert main([*command, "--exist-ok", "--data", str(shapes), *auto]) == 0
    assert network_cost(load(tmp_path / "run/model.safetensors").network, 64).macs <= limit
    found = json.loads((tmp_path / "run/dropping.json").read_text())
    assert found["strain"] is None
    assert found["levels"] == [8]
    assert "with all of them the budget cannot be met; mAP50-95 of the whole network without them" in (tmp_path / "run/dropping.txt").read_text()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "With all blocks and levels the budget cannot be met" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("options", [["--levels", "auto", "--drop", "auto"], ["--levels", "8", "--drop", "model.2", "model.4.m"]])
def test_finetune_meets_budgets_that_only_dropped_rows_meet(options: list[str], shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    training = ["--batch", "4", "--nominal-batch", "4", "--workers", "0", "--epochs", "1", "--cut-epochs", "1", "--project", str(tmp_path)]
    assert main(["finetune", "--weights", str(tiny_weights), "--data", str(shapes), *ONLY_WITHOUT, *training, "--name", "run", *options]) == 0
    small = load(tmp_path / "run/last.safetensors").network
    assert network_cost(small, 64).macs <= 0.085 * network_cost(load(tiny_weights).network, 64).macs


def test_a_network_that_finds_nothing_keeps_everything(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """Fresh weights, measured for real: mAP50-95 is 0."""
    command = ["prune", "--weights", str(tiny_weights), "--data", str(shapes), *BUDGET, "--project", str(tmp_path), "--name", "run", "--dry-run"]
    assert main([*command, "--levels", "auto", "--pictures", "3"]) == 0
    assert "the network finds nothing on 3 training pictures, so nothing was measured and all stay" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_finetune_drops_what_is_missed_least_and_notes_it(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = [*BUDGET, "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--epochs", "1", "--cut-epochs", "1", "--project", str(tmp_path)]
    command = ["finetune", "--weights", str(tiny_weights), "--data", str(shapes), *options, "--name", "run", "--levels", "auto"]
    assert main(command) == 0
    assert load(tmp_path / "run/last.safetensors").network.strides == (8,)
    assert "levels:\n- 8\n" in (tmp_path / "run/config.yaml").read_text()
    assert json.loads((tmp_path / "run/dropping.json").read_text())["levels"] == [8]
    assert "level 4" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("prune", ["--levels", "auto"], "--levels auto needs a --budget, for which blocks or levels make room"),
        ("finetune", ["--drop", "auto", "--keep", "1/2"], "--drop auto needs a --budget, for which blocks or levels make room"),
        ("compress", ["--drop", "auto"], "--drop auto needs a --budget, for which blocks or levels make room"),
        ("prune", ["--levels", "auto", "8", "--budget", "macs=1/2"], "levels is ('auto', 8): give strides, or auto alone"),
        ("compress", ["--levels", "auto", "--budget", "macs=1/2", "--search", "2"], "--search tries shapes without blocks and levels by itself"),
        ("prune", ["--drop", "auto", "nothing", "--budget", "macs=1/2"], "drop: 'nothing' matches no row"),
        ("prune", ["--levels", "auto", "--budget", "macs=0.00001"], "possible is macs=0.8543 (1,170,432 macs), with all levels dropped that may go"),
        ("finetune", ["--drop", "auto", "--budget", "macs=0.00001"], "macs), with all blocks dropped that may go"),
        ("compress", ["--drop", "auto", "--levels", "auto", "--budget", "macs=0.00001"], "macs), with all blocks and levels dropped that may go"),
    ],
)
@pytest.mark.usefixtures("measured")
def test_what_is_refused(
    command: str, options: list[str], message: str, shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, "--weights", str(tiny_weights), "--data", str(shapes), "--imgsz", "64", "--project", str(tmp_path), "--name", "run"]
    assert main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
