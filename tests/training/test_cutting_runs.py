"""Whole trainings that cut: stopped between cuts they go on to the same bits, and what makes no sense is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from octrim.cli import main
from octrim.data.loader import TrainingBatch
from octrim.data.open import open_labelled
from octrim.data.pictures import network_input, read_picture
from octrim.network.cost import network_cost
from octrim.network.dropping import rows_to_drop, without_rows
from octrim.network.loading import load
from octrim.pruning.plan import plan
from octrim.pruning.spectra import by_variance, held_variance
from octrim.training.checkpoint import CHECKPOINT, State, load_state
from octrim.training.record import Record

pytest.importorskip("paddle", reason="PaddlePaddle is not installed (extra octrim[cpu])")


pytestmark = pytest.mark.usefixtures("unrendered")


OPTIONS = ["--imgsz", "64", "--batch", "4", "--nominal-batch", "4", "--workers", "0", "--keep", "1/2", "--align", "2", "--cut-epochs", "2"]


def arguments(shapes: Path, weights: Path, project: Path, *more: str) -> list[str]:
    return ["finetune", "--weights", str(weights), "--data", str(shapes), "--project", str(project), "--epochs", "3", *OPTIONS, *more]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "activation"), [("SGD", "silu"), ("Muon", "silu"), ("AdamW", "relu"), ("SGD", "leaky_relu:0.1")])
def test_a_training_stopped_between_cuts_goes_on_to_the_same_bits(
    shapes: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, activation: str
) -> None:
    more = ["--optimizer", optimizer, "--teacher", str(tiny_weights), "--box-weight", "4"]
    more += ["--activation", activation] if activation != "silu" else []
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "whole", *more)) == 0
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (epoch, state.batch) in ((0, 4), (1, 3)):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", *more)) == 130
        first = load_state(tmp_path / "run" / CHECKPOINT)
        assert main(["finetune", "--resume", str(tmp_path / "run")]) == 130
        second = load_state(tmp_path / "run" / CHECKPOINT)
    channels = [network_cost(network, 64).channels for network in (load(tiny_weights).network, first.network, second.network)]
    assert channels[0] > channels[1] > channels[2]
    assert main(["finetune", "--resume", str(tmp_path / "run")]) == 0
    whole, run = (load_state(tmp_path / name / CHECKPOINT) for name in ("whole", "run"))
    assert whole.network == run.network
    assert whole.arrays.keys() == run.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, run.arrays[name], err_msg=name)
    assert {**whole.extra, "teacher": None} == {**run.extra, "teacher": None}
    for name in ("results.csv", "best.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    counts = {row.name: row.channels for row in load(tmp_path / "run" / "best.safetensors").network.convs}
    assert {row.activation for row in load(tmp_path / "run" / "last.safetensors").network.convs} == {activation, None}  # None is Detect's
    original = load(tiny_weights).network
    assert all(counts[row.name] == row.channels // 2 for row in original.convs if row.name not in original.heads)
    assert run.steps == 3 * 6  # no step was lost, and the schedule went on


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "drop"), [(None, []), ("params=0.4", ["model.2.m"])])
def test_a_training_leaves_the_shape_that_the_variance_of_maps_plans(
    shapes: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None, drop: list[str]
) -> None:
    """The shape of the network before the first cut, whatever training does to it, also of a run that was stopped between two cuts."""
    more = ["--widths", "variance", *(["--budget", budget] if budget else ["--keep", "1/2"]), *(["--drop", *drop] if drop else [])]
    options = [option for option in OPTIONS if option not in ("--keep", "1/2")]
    command = ["finetune", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path), "--epochs", "2", *options, *more]
    assert main([*command, "--name", "whole"]) == 0
    whole = load(small_weights)
    model = without_rows(whole, rows_to_drop(whole.network, drop, ()))
    paths = open_labelled(str(shapes), "train", whole.names, "learn").paths
    held = held_variance(model, [network_input(read_picture(path), 64, 64)[0] for path in paths])
    limit = budget or plan(model, "1/2", 8, nearest=True).macs_budget(whole.network)
    planned = plan(model, None, 2, by_variance("signal", held), budget=limit, original=whole.network, nearest=True)
    small = load(tmp_path / "whole" / "last.safetensors")
    assert small.network == planned.network
    settings = next(step for step in small.lineage[::-1] if step["action"] == "prune")
    assert settings["planned_by"] == f"variance of feature maps, {limit}"
    assert settings["keep_map"] == planned.keep_map()
    keep = Record.batch

    def stopping(self: Record, epoch: int, batch: TrainingBatch, side: int, state: State) -> None:
        keep(self, epoch, batch, side, state)
        if (epoch, state.batch) == (0, 4):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "batch", stopping)
        assert main([*command, "--name", "run"]) == 130
    assert main(["finetune", "--resume", str(tmp_path / "run")]) == 0
    for name in ("results.csv", "last.safetensors", "plan.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--widths", "variance"], "--widths is about cutting"),
        (["--cut-epochs", "3"], "--cut-epochs is about cutting"),
        (["--criterion", "signal"], "--criterion is about cutting"),
        (["--align", "4"], "--align is about cutting"),
        (["--cut-interval", "2"], "--cut-interval is about cutting"),
        (["--runtime", "c"], "--runtime is about cutting"),
        (["--threads", "1"], "--threads is about cutting"),
        (["--latency-table", "table.json"], "--latency-table is about cutting"),
        (["--keep", "1/2", "--threads", "1"], "--threads is about the network's time: say with --budget latency=.. what it may take"),
        (["--budget", "macs=1/2", "--latency-table", "table.json"], "--latency-table is about the network's time"),
        (["--keep", "live"], "--keep live is for octrim prune"),
        (["--keep", "1/2", "--cut-epochs", "9"], "cut-epochs is 9, more than all 5 epochs"),
        (["--keep", "1"], "nothing would be cut"),
        (["--keep", "2"], "keep is 2"),
        (["--keep", "1/2", "--exclude", "nothing"], "exclude: 'nothing' matches no convolution"),
        (["--budget", "macs=0.001"], "cannot be met"),
    ],
)
def test_what_is_refused(
    shapes: Path, small_weights: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "--weights", str(small_weights), "--data", str(shapes), "--project", str(tmp_path / "runs"), "--epochs", "5", *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
