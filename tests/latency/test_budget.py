"""Plans to a budget of milliseconds: corrected where the machine is the table's, predicted where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octrim.errors import InputError
from octrim.latency import budget as module
from octrim.latency.budget import Timed, advice, chosen_table, fitted_plan, stopwatch_of, wants_times
from octrim.latency.options import TimeOptions
from octrim.latency.stopwatch import Stopwatch, this_machine
from octrim.latency.table import LatencyTable, write_table
from octrim.network.rows import Network
from octrim.network.yolov5 import yolov5_network
from octrim.pruning.plan import Plan, plan
from octrim.runs import wide_console
from tests.latency.analytic import exact_table, exact_time
from tests.networks import variant

SIZE = (64, 64)


class FakeWatch:
    """A stopwatch on a machine where every network takes a known multiple of what the table predicts; the reference takes 1 ms."""

    def __init__(self, factor: float, drift: float = 1.0) -> None:
        self.factor, self.drift, self.asked = factor, drift, 0

    settled = Stopwatch.settled

    def relative(self, network: Network, bursts: int = 0) -> float:
        self.asked += 1
        return self.factor * exact_time(network, 64, 0.001)

    def milliseconds(self) -> float:
        return self.drift


def table_of_yolov5n() -> LatencyTable:
    return exact_table(variant("yolov5n").network, 64, 0.001)


def planned(table: LatencyTable, budget: str = "latency=1/3") -> Plan:
    return plan(variant("yolov5n"), budget=budget, image_size=SIZE, latency=table)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.04, 1.3])
def test_a_plan_is_corrected_until_its_measured_time_fits(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    table, watch = table_of_yolov5n(), FakeWatch(factor)
    monkeypatch.setattr(module, "stopwatch_of", lambda _: watch)
    found = fitted_plan(table, "latency=1/3", variant("yolov5n").network, planned)
    limit = table.limit("1/3", variant("yolov5n").network)
    assert found.measured is not None and 0.97 * limit < found.measured <= 0.985 * limit
    assert found.measured == pytest.approx(factor * exact_time(found.plan.network, 64, 0.001))
    assert found.plan.milliseconds is not None
    assert found.plan.milliseconds[0] == pytest.approx(3 * limit) == exact_time(variant("yolov5n").network, 64, 0.001)
    assert watch.asked <= 15
    assert "measured on this machine" in found.told[0] and len(found.told) == 1


def test_a_machine_that_is_slower_now_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "stopwatch_of", lambda _: FakeWatch(1.0, 1.3))
    found = fitted_plan(table_of_yolov5n(), "latency=1/3", variant("yolov5n").network, planned)
    assert "30 % slower now" in found.told[1]


def test_a_budget_that_only_the_prediction_met_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "stopwatch_of", lambda _: FakeWatch(100.0))
    with pytest.raises(InputError, match="cannot be met: the least possible is latency="):
        fitted_plan(table_of_yolov5n(), "latency=1/3", variant("yolov5n").network, planned)


def test_one_disturbed_measurement_of_three_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disturbed(FakeWatch):
        def relative(self, network: Network, bursts: int = 0) -> float:
            return super().relative(network) * (20 if self.asked % 3 == 1 else 1)

    found = []
    for watch in (FakeWatch(1.04), Disturbed(1.04)):
        monkeypatch.setattr(module, "stopwatch_of", lambda _, watch=watch: watch)
        found.append(fitted_plan(table_of_yolov5n(), "latency=1/3", variant("yolov5n").network, planned))
    assert found[0].measured == found[1].measured and found[0].plan.network == found[1].plan.network


def test_the_least_possible_plan_may_take_the_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured at 99.9 % of the budget, it is more than a plan is corrected to, and there is no smaller one."""
    least = exact_time(plan(variant("yolov5n"), "1/1000", image_size=SIZE).network, 64, 0.001)
    table, budget = table_of_yolov5n(), f"latency={1.01 * least:.9f}"
    monkeypatch.setattr(module, "stopwatch_of", lambda _: FakeWatch(1.009))
    found = fitted_plan(table, budget, variant("yolov5n").network, lambda table: planned(table, budget))
    assert found.measured == pytest.approx(1.009 * least)
    assert "99.9 % of the" in found.told[0]
    monkeypatch.setattr(module, "stopwatch_of", lambda _: FakeWatch(1.011))
    with pytest.raises(InputError, match="cannot be met: the least possible is latency="):
        fitted_plan(table, budget, variant("yolov5n").network, lambda table: planned(table, budget))


def test_dropping_blocks_is_advised_where_rows_cost_their_start() -> None:
    whole, table = variant("yolov5n"), table_of_yolov5n()

    def dropped(table: LatencyTable) -> Plan:
        return plan(whole, budget="latency=1/3", image_size=SIZE, latency=table, drop="model.8.m.0")

    def advised(table: LatencyTable, make: Callable[[LatencyTable], Plan], budget: str | None = "latency=1/3") -> list[str]:
        return advice(fitted_plan(table, budget, whole.network, make), budget, (), whole.network)

    (line,) = advised(table, planned)
    assert "--drop auto" in line and "in openvino every row costs its start" in line
    assert advised(table, dropped) == advised(table, planned, None) == []
    assert advised(replace(table, machine=replace(table.machine, runtime="c")), planned) == []
    assert advice(Timed(planned(table)), "latency=1/3", (), whole.network) == []
    timed = fitted_plan(table, "latency=1/3", whole.network, planned)
    assert advice(timed, "latency=1/3", ("auto",), whole.network) == advice(timed, "latency=1/3", ("none",), whole.network) == []


def test_another_machine_is_predicted_and_not_measured() -> None:
    found = fitted_plan(table_of_yolov5n(), "latency=1/3", variant("yolov5n").network, planned)
    assert found.measured is None and "another machine" in found.told[0]
    found = fitted_plan(table_of_yolov5n(), None, variant("yolov5n").network, lambda table: plan(variant("yolov5n"), image_size=SIZE, latency=table))
    assert len(found.told) == 1 and found.told[0].startswith("predicted for a processor, openvino 1.0, fp32, 2 threads: ")


def test_a_runtime_of_another_version_is_refused() -> None:
    processor, cores = this_machine()
    table = table_of_yolov5n()
    table = replace(table, machine=replace(table.machine, processor=processor, cores=cores))
    with pytest.raises(InputError, match=r"of openvino 1\.0, and this machine has 20\d\d\.\S+: make a new table"):
        stopwatch_of(table)
    assert stopwatch_of(replace(table, machine=replace(table.machine, cores=cores + 1))) is None


def test_tables_that_do_not_fit_the_options_are_refused(tmp_path: Path) -> None:
    path, network, console = tmp_path / "table.json", variant("yolov5n").network, wide_console()
    write_table(table_of_yolov5n(), path)

    def chosen(size: tuple[int, int] = SIZE, of: Network = network, **options: object) -> LatencyTable | None:
        return chosen_table(replace(TimeOptions(str(path)), **options), "latency=1/3", of, size, console)

    found = chosen(runtime="openvino", threads=2)
    assert found is not None and found.to_json() == table_of_yolov5n().to_json()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"runtime": "c"}, r"table\.json: was measured with --runtime openvino; c was asked for"),
        ({"threads": 1}, r"table\.json: was measured with --threads 2; 1 was asked for"),
        ({"size": (320, 320)}, "of 64x64 pixels, and the network is planned for 320x320: give --imgsz 64"),
        ({"of": variant("yolov5s").network}, "has at most"),
        ({"latency_table": str(tmp_path / "none.json")}, r"none\.json: No such file"),
    ]
    for options, says in cases:
        with pytest.raises(InputError, match=says):
            chosen(**options)
    assert chosen_table(TimeOptions(), "macs=0.5", network, SIZE, console) is None
    with pytest.raises(InputError, match="a latency table is of openvino, "):
        chosen_table(TimeOptions(runtime="numpy"), "latency=1/3", network, SIZE, console)


def test_which_budgets_are_of_time() -> None:
    assert wants_times("latency=2") and wants_times("latency=1/6")
    assert not wants_times("macs=0.5") and not wants_times(None)
    with pytest.raises(InputError, match="budget is 'speed=2', expected channels=FRACTION, params=FRACTION, macs=FRACTION or latency=MILLISECONDS"):
        wants_times("speed=2")


def test_a_kept_table_that_knows_too_few_channels_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two networks that differ in their classes only, the first one's table serves the second where that has no more channels."""
    made: list[int] = []

    def measured(network: Network, *_: object) -> LatencyTable:
        made.append(network.classes)
        return exact_table(network, 64, 0.001)

    monkeypatch.setattr(module, "measured_table", measured)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    for classes in (80, 3, 120, 100):
        network = yolov5_network("yolov5n", classes)
        table = chosen_table(TimeOptions(), "latency=1/3", network, SIZE, wide_console())
        assert table is not None and table.predict(network) == pytest.approx(exact_time(network, 64, 0.001))
    assert made == [80, 120]
    (path,) = (tmp_path / "latency").iterdir()
    path.write_text("{}")
    assert chosen_table(TimeOptions(), "latency=1/3", yolov5_network("yolov5n", 3), SIZE, wide_console()) is not None
    assert made == [80, 120, 3]
