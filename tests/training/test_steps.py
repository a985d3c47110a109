"""Optimizer steps of whole trainings: incomplete ones, and gradients and weights that are no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octrim.cli import main
from octrim.network.loading import load
from octrim.training.checkpoint import CHECKPOINT, load_state
from octrim.training.learner import Learner
from tests.training.conftest import stopped_after
from tests.training.running import arguments, results, same_weights, without_warmup

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.mark.slow
def test_batches_that_never_fill_an_accumulation_still_train(
    shapes: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """12 batches of 4 pictures, where an optimizer step takes 16 batches: the gradient that waits at the end is applied."""
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", "--nominal-batch", "64", *without_warmup(tmp_path))) == 0
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert (state.steps, state.updates, state.waiting) == (1, 1, 0) and not state.arrays["gradient"].any()
    before, after = load(tiny_weights), load(tmp_path / "run" / "best.safetensors")
    for name, tensor in before.tensors.items():
        if name.endswith("conv.weight"):
            assert (after.tensors[name] != tensor).any(), name
    assert "an optimizer step takes 16 batches and an epoch has 6" in capfd.readouterr().out


@pytest.mark.slow
def test_the_last_step_is_that_of_the_pictures_it_really_has(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """All 12 batches are one step, whether a step takes 12 batches or would take 13: nothing is scaled to pictures that are not there."""
    states = []
    for nominal in ("48", "52"):
        options = without_warmup(tmp_path)
        Path(options[1]).write_text("warmup_epochs: 0\nweight_decay: 0\n")
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", nominal, "--nominal-batch", nominal, *options)) == 0
        states.append(load_state(tmp_path / nominal / CHECKPOINT))
    assert states[0].steps == states[1].steps == 1
    for name, array in states[0].arrays.items():
        np.testing.assert_array_equal(array, states[1].arrays[name], err_msg=name)


@pytest.mark.slow
def test_a_run_stopped_before_its_incomplete_last_step_resumes_to_the_same_bits(shapes: Path, tiny_weights: Path, tmp_path: Path) -> None:
    """5 batches are a step: the third, incomplete step has the last 2 of 12, of which the run is stopped after the first."""
    options = ["--nominal-batch", "20", *without_warmup(tmp_path)]
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "whole", *options)) == 0
    assert load_state(tmp_path / "whole" / CHECKPOINT).steps == 3
    with stopped_after(1, 5):
        assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", *options)) == 130
    stopped = load_state(tmp_path / "run" / CHECKPOINT)
    assert (stopped.epoch, stopped.batch, stopped.waiting, stopped.steps) == (1, 5, 1, 2)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    same_weights(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_divergence_keeps_a_finite_checkpoint(shapes: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyper = tmp_path / "wild.yaml"
    hyper.write_text("lr0: 10\nweight_decay: 1\nwarmup_epochs: 0\n")  # weights grow tenfold with every step
    assert main(arguments(shapes, tiny_weights, tmp_path, "--epochs", "60", "--name", "run", "--hyp", str(hyper), "--noval")) == 2
    error = capsys.readouterr().err
    assert "not finite any more" in error and error.count("\n") == 1
    assert all(np.isfinite(array).all() for array in load_state(tmp_path / "run" / CHECKPOINT).arrays.values())


@pytest.mark.slow
def test_a_gradient_that_is_no_number_is_not_kept(
    shapes: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for a step in the next epoch: a checkpoint with it could never go on."""
    add, calls = Learner.add, []

    def poisoned(self: Learner, total: Any) -> None:
        calls.append(1)
        add(self, total * float("nan") if len(calls) == 6 else total)

    monkeypatch.setattr(Learner, "add", poisoned)
    assert main(arguments(shapes, tiny_weights, tmp_path, "--name", "run", "--nominal-batch", "64", *without_warmup(tmp_path))) == 2
    error = capsys.readouterr().err
    assert "not finite any more (epoch 1, batch 6)" in error and error.count("\n") == 1
    assert all(np.isfinite(array).all() for array in load_state(tmp_path / "run" / CHECKPOINT).arrays.values())
