"""Real measurements of tiny networks, and the commands that make and use tables."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from octrim.cli import main
from octrim.errors import InputError
from octrim.latency.measure import measured_table
from octrim.latency.samples import random_networks, reference_network
from octrim.latency.stopwatch import Conditions, _with_some_scales
from octrim.latency.table import Check, LatencyTable, read_table, write_table
from octrim.network.rows import Network
from octrim.network.scales import Scales
from octrim.network.yolov5 import yolov5_network
from octrim.quantization.calibration import quantize
from tests.latency.analytic import exact_table
from tests.latency.test_fit import CHAIN
from tests.networks import lively_model, variant
from tests.networks import random_networks as random_tables


@pytest.fixture(scope="module")
def tiny_table() -> LatencyTable:
    return measured_table(CHAIN, "a chain", Conditions("openvino", "fp32", 1, 32, 32), networks=16, checked=4, seconds=60)


def test_a_measured_table_predicts_what_it_measured(tiny_table: LatencyTable) -> None:
    network, milliseconds = tiny_table.reference
    assert network == reference_network(CHAIN) and milliseconds > 0
    assert tiny_table.machine.runtime == "openvino" and tiny_table.machine.threads == 1 and tiny_table.check.networks == 4
    assert 0 < tiny_table.predict(network) < 100 * milliseconds
    assert LatencyTable.from_json(json.loads(json.dumps(tiny_table.to_json()))).predict(CHAIN) == tiny_table.predict(CHAIN)


def test_a_table_of_int8_is_of_networks_of_int8() -> None:
    """Made for int8, the table's networks have scales, and compute other logits than in float32."""
    conditions = Conditions("openvino", "int8", 1, 32, 32)
    table = measured_table(CHAIN, "a chain", conditions, networks=8, checked=2, seconds=60)
    assert (table.machine.precision, str(table.machine).count("int8")) == ("int8", 1)
    integers, floats = conditions.detector(CHAIN), replace(conditions, precision="fp32").detector(CHAIN)
    assert (integers.info.precision, floats.info.precision) == ("int8", "fp32")
    batch, _ = integers.prepare(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    assert np.abs(integers.session(batch) - floats.session(batch)).max() > 1e-5


@settings(max_examples=30)
@given(random_tables())
def test_scales_that_are_made_up_are_those_of_quantize(network: Network) -> None:
    model = _with_some_scales(lively_model(network))
    Scales(network, model.scales)  # refuses scales that do not belong together
    pictures = [np.zeros((64, 64, 3), np.uint8)]
    assert set(model.scales) == set(quantize(lively_model(network), pictures, imgsz=64).scales)


@pytest.mark.parametrize(
    ("runtime", "precision", "says"),
    [
        ("c", "int8", "a latency table of int8 is of openvino, onnxruntime, litert; c would compile each of its networks for seconds"),
        ("ncnn", "int8", "ncnn runs in fp32, fp16; int8 was asked for"),
        ("onnxruntime", "bf16", "onnxruntime runs in fp32, fp16, int8; bf16 was asked for"),
    ],
)
def test_precisions_that_no_table_is_made_of_are_refused(
    runtime: str, precision: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--runtime", runtime, "--precision", precision]
    assert main(["bench", "--latency-table", str(tmp_path / "t.json"), "--imgsz", "64", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert main(["prune", "--cfg", "yolov5n", "--imgsz", "64", "--budget", "latency=1/2", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_random_networks_are_drawn_by_the_seed_and_of_all_kinds() -> None:
    whole = variant("yolov5n").network
    some = list(islice(random_networks(whole, 5), 24))
    assert some == list(islice(random_networks(whole, 5), 24)) != list(islice(random_networks(whole, 6), 24))
    names = {row.name for row in whole.rows}
    assert all(names.issuperset(row.name for row in network.rows) for network in some)
    assert any(len(network.rows) < len(whole.rows) for network in some)
    assert any(len(network.anchors) < 3 for network in some)
    assert {network.classes for network in some} >= {1, 3, 80}
    assert any(row.channels % 8 for network in some for row in network.convs if row.name not in network.heads)


@pytest.mark.parametrize("runtime", ["numpy", "paddle"])
def test_runtimes_that_are_no_targets_are_refused(runtime: str) -> None:
    with pytest.raises(InputError, match="a latency table is of openvino"):
        measured_table(CHAIN, "a chain", Conditions(runtime, "fp32", 1, 32, 32))


def yolov5n_of_80_classes() -> Network:
    from octrim.network.yolov5 import yolov5_network

    return yolov5_network("yolov5n")


def test_prune_by_a_table_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    table = exact_table(yolov5n_of_80_classes(), 64, 0.001)
    write_table(table, tmp_path / "pi.json")
    command = ["prune", "--cfg", "yolov5n", "--imgsz", "64", "--latency-table", "pi.json"]
    assert main([*command, "--budget", "latency=1/3", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "predicted milliseconds" in told and "this is another machine, so it was not measured" in told
    plan = json.loads((tmp_path / "runs/prune/exp/plan.json").read_text())
    whole = table.predict(yolov5n_of_80_classes())
    assert 0.98 * whole / 3 < plan["milliseconds"]["after"] <= whole / 3
    assert read_table(tmp_path / "runs/prune/exp/latency.json").to_json() == table.to_json()
    assert main([*command, "--align", "auto", "--budget", "latency=1/3", "--dry-run"]) == 0
    again = json.loads((tmp_path / "runs/prune/exp2/plan.json").read_text())
    assert again["settings"]["align"] == 8 and again["groups"] == plan["groups"]  # the table is of OpenVINO
    integers = replace(table, machine=replace(table.machine, precision="int8"))
    write_table(integers, tmp_path / "int8.json")
    of_integers = ["prune", "--cfg", "yolov5n", "--imgsz", "64", "--latency-table", "int8.json", "--budget", "latency=1/3", "--dry-run"]
    assert main([*of_integers, "--precision", "int8", "--name", "integers"]) == 0
    assert "predicted for a processor, openvino 1.0, int8, 2 threads" in capsys.readouterr().out
    assert main(of_integers) == 2
    assert "int8.json: was measured with --precision int8; say --precision int8 where the budget is about that" in capsys.readouterr().err
    assert main([*of_integers, "--precision", "fp32"]) == 2
    assert "int8.json: was measured with --precision int8; fp32 was asked for" in capsys.readouterr().err
    for arguments, says in (
        (["--budget", "latency=1/3", "--precision", "int8"], "was measured with --precision fp32; int8 was asked for"),
        (["--align", "even"], "--align is 'even', expected auto or a whole number, 1 or more"),
        (["--align", "0"], "expected 1 or more"),
        (["--budget", "latency=0"], "expected more than 0 milliseconds"),
        (["--budget", "latency=-3"], "expected more than 0 milliseconds"),
        (["--budget", "latency=50"], "is above the"),
        (["--budget", "latency=0.00001"], "the least possible is latency="),
        (["--budget", "latency=1/3", "--imgsz", "96"], "of 64x64 pixels"),
        (["--budget", "latency=1/3", "--runtime", "c"], "was measured with --runtime openvino"),
    ):
        assert main([*command, *arguments]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "runs/prune").iterdir()) == ["exp", "exp2", "integers"]


@pytest.mark.parametrize(("arguments", "says"), [
    (["--runtime", "numpy"], "a latency table is of openvino"),
    (["--weights", "a.pt", "b.pt"], "is of one network"),
    (["--device", "gpu"], "a processor's runtimes"),
])  # fmt: skip
def test_bench_refuses_what_no_table_can_be_of(arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--latency-table", str(tmp_path / "t.json"), "--imgsz", "64", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()


def test_bench_asks_for_a_place_before_it_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "none" / "t.json"):
        assert main(["bench", "--latency-table", str(path)]) == 2
        assert "expected the name of a file in a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize(("median", "largest", "told"), [(0.03, 0.16, False), (0.09, 0.16, True), (0.03, 0.93, True)])
def test_bench_tells_of_a_table_that_other_work_disturbed(
    median: float, largest: float, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from octrim.latency import measure

    table = replace(exact_table(yolov5_network("yolov5n")), check=Check(30, median, largest))
    monkeypatch.setattr(measure, "measured_table", lambda *_: table)
    assert main(["bench", "--latency-table", str(tmp_path / "here.json"), "--imgsz", "64"]) == 0
    assert ("something else was computing, so measure again" in capsys.readouterr().out) == told


@pytest.mark.slow
def test_bench_makes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from octrim.latency import measure

    monkeypatch.setattr(measure.measured_table, "__defaults__", (None, 20, 5, 60.0, 0))
    path = tmp_path / "here.json"
    assert main(["bench", "--latency-table", str(path), "--imgsz", "64", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "error on 5 random plans" in told and str(path) in told
    assert read_table(path).name == "yolov5n"
