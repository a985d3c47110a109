"""The frontier's pure parts: uniform networks that fit a time, options of its rows, and what is read from finished ones."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import pytest

from benchmarks.frontier import draw, finished, labelled, measure, options_of, row, uniform_keep
from octrim.cli import parse
from octrim.commands import Compress
from octrim.errors import InputError
from octrim.latency.table import write_table
from octrim.network.rows import Network
from octrim.pruning.plan import plan
from tests.latency.analytic import exact_table, exact_time
from tests.networks import lively_model, three_levels, variant


def test_the_largest_uniform_network_that_fits() -> None:
    """Against all fractions, on a machine whose times are known exactly."""
    model = replace(lively_model(three_levels(2)), image_size=64)
    table = exact_table(model.network, 64, 0.001)
    times = {
        step: exact_time(plan(model, str(Fraction(step, 64)), 8, "l2", image_size=(64, 64), nearest=True).network, 64, 0.001) for step in range(1, 65)
    }
    assert times[1] < times[40] < times[64]
    for limit in (times[64], times[40], (times[64] + times[1]) / 2):
        assert uniform_keep(model, table, limit + 1e-9) == str(Fraction(max(step for step in times if times[step] <= limit + 1e-9), 64))
    assert uniform_keep(model, table, 0.99 * times[1]) is None
    assert options_of("uniform", model, table, "c.json", 0.99 * times[1], []) is None
    for kind in ("uniform", "planned"):
        config = parse(["compress", *(options_of(kind, model, table, "c.json", 2.5, ["--levels", "8", "16"]) or [])])
        assert isinstance(config, Compress)
        assert (config.keep, config.budget, config.levels) == (("1", None, ()) if kind == "uniform" else (None, "latency=2.5", (8, 16)))


def test_finished_rows_and_their_picture(tmp_path: Path) -> None:
    for name, score in [("my-data-planned-0.4", 0.5), ("my-data-uniform-0.4", 0.45), ("my-data-planned-2.5", 0.6)]:
        (tmp_path / name).mkdir()
        content = {"stages": {"finetuned": {"mAP50-95": score, "interval": [score - 0.02, score + 0.03]}}}
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
    (tmp_path / "my-data-uniform-2.5").mkdir()  # not done yet
    assert [path.name for path in finished(tmp_path)] == ["my-data-planned-0.4", "my-data-planned-2.5", "my-data-uniform-0.4"]
    expected = {"data": "my-data", "kind": "planned", "budget": 2.5, "mAP50-95": 0.6, "interval": [0.58, pytest.approx(0.63)]}
    assert row(tmp_path / "my-data-planned-2.5") == expected
    (tmp_path / "times.json").write_text(json.dumps({"my-data-planned-0.4": {"measured": 0.41, "predicted": 0.4}}))
    draw(argparse.Namespace(out=tmp_path, also=[]))
    alone = cv2.imread(str(tmp_path / "frontier.png"))
    assert alone is not None
    (tmp_path / "whole").mkdir()
    with pytest.raises(argparse.ArgumentTypeError, match="expected LABEL=RUN"):
        labelled(f"whole={tmp_path / 'whole'}")
    (tmp_path / "whole/metrics.json").write_text(json.dumps({"mAP50-95": 0.7, "interval": {"mAP50-95": [0.68, 0.73]}}))
    also = [labelled(f"whole={tmp_path / 'whole'}")]
    with pytest.raises(InputError, match="whole: its time was not measured"):
        draw(argparse.Namespace(out=tmp_path, also=also))
    (tmp_path / "times.json").write_text(json.dumps({"whole": {"measured": 9.8, "predicted": 9.7}}))
    draw(argparse.Namespace(out=tmp_path, also=also))
    assert (cv2.imread(str(tmp_path / "frontier.png")) != alone).any()


class HalfSpeed:
    """A stopwatch on which everything takes half as long as the table's reference."""

    def relative(self, network: Network) -> float:
        return 0.5


def test_networks_of_other_layouts_are_timed_and_not_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(lively_model(three_levels(2)), image_size=64)
    table = exact_table(model.network, 64, 0.001)
    write_table(table, tmp_path / "table.json")
    small = tmp_path / "my-data-planned-0.4"
    (small / "4-finetune").mkdir(parents=True)
    (small / "summary.json").write_text(json.dumps({"stages": {"finetuned": {"mAP50-95": 0.5, "interval": [0.4, 0.6]}}}))
    model.save(small / "4-finetune" / "last.safetensors")
    (tmp_path / "rival").mkdir()
    variant("yolov5n").save(tmp_path / "rival" / "last.safetensors")
    monkeypatch.setattr("benchmarks.frontier.stopwatch_of", lambda table: HalfSpeed())
    measure(argparse.Namespace(table=tmp_path / "table.json", out=tmp_path, also=[("rival", tmp_path / "rival")]))
    half = table.reference[1] / 2
    expected = {small.name: {"measured": half, "predicted": pytest.approx(table.predict(model.network))}, "rival": {"measured": half}}
    assert json.loads((tmp_path / "times.json").read_text()) == expected
