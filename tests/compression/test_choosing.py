"""A compression that chooses blocks and levels by measuring: the stage, what follows from it, and a run that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octrim.cli import main
from octrim.compression import pipeline
from octrim.compression.options import Compression
from octrim.compression.presets import resolved
from octrim.compression.start import with_times
from octrim.errors import InputError
from octrim.latency.table import write_table
from octrim.network.cost import network_cost
from octrim.network.loading import load
from octrim.report.files import read_run
from octrim.stages import EXPORT
from tests.compression.running import SMALL
from tests.latency.analytic import exact_table
from tests.training.known_losses import LOSSES, KnownLosses

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")

OPTIONS = [*SMALL, "--align", "1"]
BUDGET = ["--budget", "macs=0.15"]
EPOCHS = ["--train-epochs", "0", "--finetune-epochs", "1"]


def test_the_stage_is_there_where_it_is_asked_for() -> None:
    titles = ["train", "finetune", "export", "bench"]
    assert [stage.title for stage in resolved(Compression(budget="macs=1/2")).stages(False)] == titles
    assert [stage.title for stage in resolved(Compression(budget="macs=1/2", levels=("auto",))).stages(False)] == ["train", "choose", *titles[1:]]
    assert resolved(Compression(budget="macs=1/2", drop=("model.8", "auto"))).choose


@pytest.mark.parametrize(
    ("runtime", "options", "drop"),
    [
        ("openvino", {}, ("auto",)),
        ("onnxruntime", {"levels": (8, 16)}, ("auto",)),
        ("c", {}, ()),
        ("openvino", {"drop": ("none",)}, ("none",)),
        ("openvino", {"drop": ("model.8",)}, ("model.8",)),
        ("openvino", {"search": 4}, ()),
    ],
)
def test_blocks_are_chosen_by_themselves_where_every_row_costs_its_start(
    runtime: str, options: dict[str, Any], drop: tuple[str, ...], shapes: Path, weights: Path, tmp_path: Path
) -> None:
    table = exact_table(load(weights).network)
    write_table(replace(table, machine=replace(table.machine, runtime=runtime)), tmp_path / "table.json")
    asked = Compression(
        weights=str(weights), data=str(shapes), imgsz=(64,), budget="latency=1/2", latency_table=str(tmp_path / "table.json"), **options
    )
    found = with_times(asked, resolved(asked))
    assert found.drop == drop
    assert resolved(found).choose == (drop == ("auto",))


def test_a_budget_of_something_else_drops_nothing_by_itself(weights: Path, shapes: Path) -> None:
    asked = Compression(weights=str(weights), data=str(shapes), imgsz=(64,), budget="macs=1/2")
    assert with_times(asked, resolved(asked)).drop == ()


def test_none_stands_alone() -> None:
    assert Compression(drop=("none",)).patterns == ()
    with pytest.raises(InputError, match=r"drop is \('none', 'model.8'\): give none alone, or leave it out"):
        assert Compression(drop=("none", "model.8")).patterns


@pytest.fixture
def until_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressions with known losses that are interrupted when they come to their exports, which they do not rehearse either."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("octrim.compression.start.rehearse", lambda *_: None)
    monkeypatch.setitem(pipeline._WORK, EXPORT, interrupted)
    monkeypatch.setattr("octrim.training.dropping.Measuring", KnownLosses.by(LOSSES))


@pytest.mark.slow
@pytest.mark.usefixtures("until_export")
@pytest.mark.parametrize("cut_epochs", ["0", "1"])
def test_a_compression_drops_what_is_missed_least(
    cut_epochs: str, shapes: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut before fine-tuning and within it; the run goes on with what was chosen, and does not choose again."""
    command = ["compress", "--weights", str(weights), "--data", str(shapes), *OPTIONS, *BUDGET, *EPOCHS, "--cut-epochs", cut_epochs]
    assert main([*command, "--project", str(tmp_path), "--name", "run", "--levels", "auto", "--drop", "model.2.m"]) == 130
    run = tmp_path / "run"
    found = json.loads((run / "choose/stage.json").read_text())["dropping"]
    assert found == json.loads((run / "choose/dropping.json").read_text())
    assert (found["drop"], found["levels"]) == (["model.2.m"], [8])
    assert [one["name"] for one in found["candidates"] if one["chosen"]] == ["level 4"]
    small = load(run / "4-finetune/last.safetensors").network
    assert small.strides == (8,)
    assert not any(row.name.startswith("model.2.m.") for row in small.rows)
    assert "levels:\n- auto\n" in (run / "config.yaml").read_text()
    choice = read_run(run).choice
    assert choice is not None
    assert [one.name for one in choice.candidates if one.chosen] == ["level 4"]

    monkeypatch.setattr("octrim.compression.choosing.choose_rows", None)
    capsys.readouterr()
    assert main(["compress", "--resume", str(run), "--workers", "0"]) == 130
    assert "stopped in export" in capsys.readouterr().out
    (run / "choose/stage.json").write_text('{"seconds": 1, "dropping": {"drop": 3}}')
    assert main(["compress", "--resume", str(run), "--workers", "0"]) == 2
    assert "stage.json: damaged; delete it, and the stage is done again" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("until_export")
@pytest.mark.parametrize("options", [["--levels", "auto", "--drop", "auto"], ["--levels", "8", "--drop", "model.2", "model.4.m"]])
def test_a_budget_that_only_dropped_rows_meet(options: list[str], shapes: Path, weights: Path, tmp_path: Path) -> None:
    """The least with everything is macs=0.092: a compression that may drop rows begins nevertheless, and comes to what was asked for."""
    command = ["compress", "--weights", str(weights), "--data", str(shapes), *OPTIONS, "--budget", "macs=0.085", *EPOCHS, "--cut-epochs", "1"]
    assert main([*command, "--project", str(tmp_path), "--name", "run", *options]) == 130
    small = load(tmp_path / "run/4-finetune/last.safetensors").network
    assert network_cost(small, 64).macs <= 0.085 * network_cost(load(weights).network, 64).macs
