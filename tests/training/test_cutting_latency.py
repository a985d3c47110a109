"""Cuts within a training, and in steps, to a budget of milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octrim.cli import main
from octrim.compression.options import Compression
from octrim.compression.planning import planned
from octrim.compression.presets import resolved
from octrim.compression.start import with_times
from octrim.errors import InputError
from octrim.latency.table import LatencyTable, read_table, write_table
from octrim.network.adapt import with_activation
from octrim.network.loading import load
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.cut import prune
from octrim.training import finetune
from octrim.training.checkpoint import CHECKPOINT, State, load_state, save_state
from octrim.training.cutting import Cutting, GradualCut, told_of_the_last_cut
from octrim.training.hyper import RECIPES
from octrim.training.options import Finetuning
from octrim.training.parallel import World
from octrim.training.schedule import Schedule
from octrim.training.setup import Setup
from tests.latency.analytic import exact_table, exact_time
from tests.latency.test_budget import FakeWatch
from tests.networks import lively_model, variant
from tests.training.cut_states import learner_of, state_of

pytestmark = pytest.mark.usefixtures("unrendered")


def begun(tmp_path: Path, **options: Any) -> tuple[Model, State, LatencyTable]:
    from tests.latency.test_fit import CHAIN

    rows = tuple(replace(row, channels=row.channels * 4) if row.op == "conv" and row.name != "head" else row for row in CHAIN.rows)
    model = replace(lively_model(Network(rows, CHAIN.anchors), 1), image_size=64)
    state, table = state_of(model), exact_table(model.network, 64, 0.001)
    GradualCut(2, align=8, latency=table, **options).begin(model, state)
    return model, state, table


def test_a_training_ends_with_a_network_within_its_time(tmp_path: Path) -> None:
    model, state, table = begun(tmp_path, budget="latency=1/2")
    save_state(state, tmp_path / "state.safetensors")
    remembered = GradualCut.remembered(load_state(tmp_path / "state.safetensors"))
    assert remembered is not None and remembered.latency is not None and remembered.latency.to_json() == table.to_json()
    cut_to_the_end(state)
    (line,) = told_of_the_last_cut(state)
    assert "another machine" in line
    whole = exact_time(model.network, 64, 0.001)
    assert 0.35 * whole < exact_time(state.network, 64, 0.001) <= whole / 2
    assert all(row.channels % 8 == 0 for row in state.network.convs if row.name != "head")


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.2])
def test_the_last_shape_is_measured_and_fits(factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine where every network takes a multiple of what the table predicts."""
    model, state, _ = begun(tmp_path, budget="latency=1/2")
    watch = FakeWatch(factor)
    monkeypatch.setattr("octrim.latency.budget.stopwatch_of", lambda _: watch)
    cut_to_the_end(state)
    limit = exact_time(model.network, 64, 0.001) / 2
    assert 0.7 * limit < factor * exact_time(state.network, 64, 0.001) <= limit
    assert 3 <= watch.asked <= 15  # in the last cut only
    (line,) = told_of_the_last_cut(state)
    assert line.startswith("measured on this machine")
    save_state(state, tmp_path / "state.safetensors")
    assert told_of_the_last_cut(load_state(tmp_path / "state.safetensors")) == [line]


def test_a_last_shape_that_cannot_be_measured_is_as_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing fits any more: the training ends with the predicted shape all the same, and says so."""
    model, state, _ = begun(tmp_path, budget="latency=1/2")
    monkeypatch.setattr("octrim.latency.budget.stopwatch_of", lambda _: FakeWatch(100.0))
    cut_to_the_end(state)
    whole = exact_time(model.network, 64, 0.001)
    assert 0.35 * whole < exact_time(state.network, 64, 0.001) <= whole / 2
    (line,) = told_of_the_last_cut(state)
    assert line.startswith("the last shape is as predicted, because measuring it failed: budget latency=1/2 cannot be met")


def cut_to_the_end(state: State) -> None:
    """All cuts of a training of 60 steps, without training."""
    remembered = GradualCut.remembered(state)
    assert remembered is not None
    cutting = Cutting(remembered, state, Schedule(replace(RECIPES["low"], warmup_epochs=0.0), epochs=3, batches=20, accumulate=1))
    learner = learner_of(state, "taylor")
    for step in range(1, 61):
        learner.optimizer.steps, state.epoch, state.batch = step, (step - 1) // 20, (step - 1) % 20 + 1
        if cutting.due(state, step):
            cutting.cut(state, learner)


def test_a_damaged_table_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    _, state, _ = begun(tmp_path, budget="latency=1/2")
    state.extra["cutting"]["latency"]["overhead"] = -1
    save_state(state, tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="damaged"):
        load_state(tmp_path / "state.safetensors")


def test_a_budget_in_milliseconds_needs_a_table(tmp_path: Path) -> None:
    model, state, _ = begun(tmp_path, budget="latency=1/2")
    with pytest.raises(InputError, match="give a latency table"):
        GradualCut(2, budget="latency=1/2").begin(model, state)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [[], ["--activation", "relu"]])
def test_finetune_cuts_to_a_budget_of_milliseconds(activation: list[str], shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """With ReLU in place of SiLU, too, of which the whole network's table knows nothing: its rows are taken for as slow as those of SiLU."""
    network = load(tiny_weights).network
    table = exact_table(network, 64, 0.001)
    write_table(table, tmp_path / "table.json")
    options = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--align", "1", "--cut-epochs", "1", "--epochs", "1"]
    options += ["--budget", "latency=4/5", "--latency-table", str(tmp_path / "table.json"), "--project", str(tmp_path), "--name", "run", *activation]
    assert main(["finetune", "--weights", str(tiny_weights), "--data", str(shapes), *options]) == 0
    left = load(tmp_path / "run" / "last.safetensors").network
    assert {row.activation for row in left.convs} == {None, activation[-1] if activation else "silu"}
    table = table.with_activation("relu")
    assert 0.7 * table.predict(network) < table.predict(left) <= 0.8 * table.predict(network)
    assert "another machine" in (tmp_path / "run" / "log.txt").read_text()
    used = table if activation else read_table(tmp_path / "table.json")
    assert json.loads(json.dumps(load_state(tmp_path / "run" / CHECKPOINT).extra["cutting"]["latency"])) == json.loads(json.dumps(used.to_json()))


@pytest.mark.parametrize("devices", [None, 2])
def test_several_processes_measure_nothing_and_say_so(devices: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that a launcher has started on several machines, without --devices: each would correct its table by times of its own."""
    model, state, table = begun(tmp_path, budget="latency=1/2")
    monkeypatch.setattr("octrim.latency.budget.stopwatch_of", lambda _: pytest.fail("something is measured"))
    told: list[str] = []
    run: Any = SimpleNamespace(print=told.append)
    nothing: Any = None
    setup = Setup(Finetuning(devices=devices), RECIPES["low"], model, nothing, nothing, state, run, World(0, 2))
    cut = GradualCut(2, align=8, latency=table, budget="latency=1/2")
    assert finetune._settled(cut, setup) == cut
    assert told[0].endswith("ms; several processes train, so it was not measured") and ["--drop auto" in line for line in told] == [False, True]


@pytest.mark.parametrize("command", ["prune", "finetune", "compress"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere", "--widths", "variance"], "nowhere"),
        (["--exclude", "nothing"], "exclude: 'nothing' matches no convolution"),
        (["--keep-map", "map.json"], "keep-map: 'nothing' matches no convolution"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_told_before_a_table_is_measured(
    command: str,
    options: list[str],
    message: str,
    shapes: Path,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command == "prune" and "--data" in options and "--widths" not in options:
        pytest.skip("prune reads data only where a criterion or a choice needs them")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.json").write_text('{"nothing": 0.5}')
    monkeypatch.setattr("octrim.latency.budget.measured_table", lambda *_: pytest.fail("a table is measured"))
    data = [] if command == "prune" or "--data" in options else ["--data", str(shapes)]
    assert main([command, "--weights", str(tiny_weights), "--imgsz", "64", "--budget", "latency=1/2", "--project", "runs", *data, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["prune", "compress"])
@pytest.mark.parametrize("option", [["--threads", "1"], ["--runtime", "c"]])
def test_options_about_times_that_nothing_is_planned_by_are_refused(
    command: str, option: list[str], shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(shapes)] if command == "compress" else []
    assert main([command, "--weights", str(tiny_weights), "--keep", "1/2", "--project", str(tmp_path / "runs"), *data, *option]) == 2
    assert f"{option[0]} is about the network's time: say with --budget latency=.." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_cuts_in_steps_take_the_same_share_of_the_time_each(tmp_path: Path) -> None:
    model = replace(variant("yolov5n"), image_size=64)
    table = exact_table(model.network, 64, 0.001)
    write_table(table, tmp_path / "table.json")
    config = Compression(budget="latency=1/4", latency_table=str(tmp_path / "table.json"), cut_steps=2, cut_epochs=0)
    whole, small = table.predict(model.network), model
    for step in (1, 2):
        made = planned(config, resolved(config), {}, small, model.network, step, "l2")
        small = prune(small, made)
        wanted = whole * 0.25 ** float(Fraction(step, 2))
        assert 0.97 * wanted < table.predict(small.network) <= wanted


@pytest.mark.parametrize("cut_epochs", [0, 2])
def test_a_compression_plans_the_time_of_the_activation_that_is_trained(cut_epochs: int, tmp_path: Path) -> None:
    """What is planned is measured, too, so it has the activation of the network in the end; the budget is of the whole network as it is."""
    model = replace(variant("yolov5n"), image_size=64)
    table = exact_table(model.network, 64, 0.001)
    write_table(table, tmp_path / "table.json")
    budget = {"budget": "latency=1/4", "latency_table": str(tmp_path / "table.json"), "cut_epochs": cut_epochs}
    plain, relu = Compression(**budget), Compression(**budget, activation="relu")
    made, other = (planned(config, resolved(config), {}, model, model.network, 1, "l2") for config in (plain, relu))
    assert {row.activation for row in other.network.convs} == {None, "relu"}
    assert other.milliseconds == made.milliseconds
    assert prune(model, other).network == made.network


def test_a_table_with_another_activation() -> None:
    table = exact_table(variant("yolov5n").network, 64, 0.001)
    with pytest.raises(InputError, match="no row like model.0 .*relu"):
        table.predict(with_activation(variant("yolov5n"), "relu").network)
    for activation in ("relu", "leaky_relu:0.1", "hardswish", "silu"):
        other = with_activation(variant("yolov5n"), activation).network
        assert table.with_activation(activation).predict(other) == pytest.approx(exact_time(other, 64, 0.001))
    assert table.with_activation("silu").to_json() == table.to_json()
    both = table.with_activation("relu").with_activation("relu")
    assert LatencyTable.from_json(json.loads(json.dumps(both.to_json()))).to_json() == table.with_activation("relu").to_json()


def test_a_compression_begins_with_a_number_to_align_to(tmp_path: Path) -> None:
    """In multiples of 8 where a fraction says what every layer keeps, of 4 where the variance of maps says it, or as the table's kernels want."""
    plain = Compression(cfg="yolov5n", align="auto")
    for options, align in ((replace(plain, keep="1/4"), 8), (plain, 4), (replace(plain, budget="macs=1/4", widths="importance"), 8)):
        assert with_times(options, resolved(options)).align == align
    table = exact_table(yolov5_network("yolov5n"), 64, 0.001)
    there = replace(table, machine=replace(table.machine, runtime="c"), fit=replace(table.fit, blocks=(1, 4)))
    write_table(there, tmp_path / "table.json")
    timed = replace(plain, imgsz=(64,), budget="latency=1/2", latency_table=str(tmp_path / "table.json"))
    assert with_times(timed, resolved(timed)) == replace(timed, align=4)
    with pytest.raises(InputError, match="of 64x64 pixels, and the network is planned for 96x96"):
        with_times(replace(timed, imgsz=(96,)), resolved(timed))
