"""Curves and results.csv of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from octrim.commands import Train
from octrim.errors import InputError
from octrim.network.initialize import fresh_model
from octrim.runs import new_run
from octrim.training.checkpoint import State
from octrim.training.record import Record, results_csv

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.mark.slow
def test_curves_are_drawn_at_the_end_and_hide_no_other_error(tmp_path: Path) -> None:
    config = Train(project=str(tmp_path))
    run = new_run(config)
    state = State(fresh_model("yolov5n").network, ("a",) * 80, 64, (), "", {}, epoch=2, batch=1)
    state.rows = [{"epoch": epoch, "train/box_loss": 1.0} for epoch in range(2)]
    with Record(run, config, None) as record:
        record.write_results(state)
        (run.path / "results.png").unlink()
        record.write_results(state)  # sooner than it is drawn again
        assert not (run.path / "results.png").exists()
    assert (run.path / "results.png").is_file()
    for kind in (KeyboardInterrupt, InputError):
        with pytest.raises(kind), Record(run, config, None) as record:
            record.write_results(state)
            record.write_results(state)
            (run.path / "results.csv").unlink()
            raise kind("this")


def test_columns_stand_in_one_order_whatever_a_checkpoint_has_done_to_the_rows() -> None:
    """A checkpoint keeps the keys of its rows sorted, so a resumed run has them in another order than an undisturbed one."""
    row = {"epoch": 0, "train/output_loss": 0.5, "train/feature_loss": 0.25}
    assert results_csv([row]) == results_csv([dict(sorted(row.items()))])
    assert results_csv([row]).splitlines()[0].endswith(",train/feature_loss,train/output_loss")
