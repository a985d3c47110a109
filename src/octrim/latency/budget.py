"""Plans to a budget of milliseconds: the table that the options name or that is measured here, and plans corrected by measuring what they lead to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from rich.console import Console

from octrim.errors import InputError
from octrim.latency.measure import measured_table
from octrim.latency.options import TimeOptions
from octrim.latency.stopwatch import Conditions, Stopwatch, this_machine
from octrim.latency.table import FORMAT, LatencyTable, read_table, write_table
from octrim.machine import cache_folder, usable_cores
from octrim.network.rows import Network
from octrim.pruning.budget import EVEN, FINE, LATENCY, UnmetBudgetError, parsed_budget
from octrim.pruning.plan import Plan
from octrim.targets.table import DEFAULT_RUNTIME, live_targets

_ROUNDS = 5  # plans that are measured at most

_AIM = 0.985  # share of the budget that a measured plan may take: what is measured again differs by a percent or two

_ENOUGH = 0.97  # share of the budget from which on a measured plan is good enough

_BY_ROWS = ("openvino", "onnxruntime")
"""Runtimes in which starting a row takes most of a small network's time."""

_DRIFT = 1.15  # factor between the reference's time now and in the table from which on it is told


def wants_times(budget: str | None) -> bool:
    """Whether a budget is one of milliseconds. Raises InputError for a budget that is not understood."""
    return budget is not None and parsed_budget(budget)[0] == LATENCY


def aligned_by(table: LatencyTable | None, widths: str = "importance") -> int:
    """Number that `--align auto` makes counts of channels multiples of: what the table's machine wants; without a table 8, by variance 4."""
    if table is not None:
        return table.align
    return FINE if widths == "variance" else EVEN


def costs_by_rows(table: LatencyTable) -> bool:
    """Whether a table is of a runtime in which starting a row takes most of a small network's time, so that dropping whole blocks pays."""
    return table.machine.runtime in _BY_ROWS


def refuse_unused_times(options: TimeOptions, budget: str | None, predicts: bool = False) -> None:
    """Raise InputError for options about times where nothing is planned by them.

    predicts: whether a latency table is of use without a budget of milliseconds, because times are predicted by it.
    """
    if wants_times(budget) or (predicts and options.latency_table is not None):
        return
    for name in ("latency_table", "runtime", "threads", "precision"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} is about the network's time: say with --budget latency=.. what it may take")


def chosen_table(
    options: TimeOptions, budget: str | None, network: Network, size: tuple[int, int], console: Console, check: Callable[[], object] | None = None
) -> LatencyTable | None:
    """The latency table that the options name, or one that is measured now where the budget needs one; None where nothing asks for times.

    network: the whole network. size: height and width of pictures. check: called before a table is measured, which takes minutes; it may raise
    InputError for what is wrong with other options. Raises InputError for a table of another size, runtime or network.
    """
    path = table_file(options, budget, network, size, console, check)
    return None if path is None else read_table(path)


def table_file(
    options: TimeOptions, budget: str | None, network: Network, size: tuple[int, int], console: Console, check: Callable[[], object] | None = None
) -> str | None:
    """The file of the table that `chosen_table` gives. A table that is measured is kept in OcTrim's cache folder for the next time."""
    if options.latency_table is not None:
        table = read_table(options.latency_table)
        _require(table, options)
        table.require_size(*size)
        table.predict(network)
        return options.latency_table
    if not wants_times(budget):
        return None
    conditions = Conditions(options.runtime or DEFAULT_RUNTIME, options.precision or "fp32", options.threads or usable_cores(), *size)
    conditions.require()
    path = _kept(network, conditions)
    if _serves(path, network):
        console.print(f"latency table, measured here before: {path}")
        return str(path)
    if check is not None:
        check()
    console.print(f"no --latency-table: measuring {conditions.runtime} with {conditions.threads} threads at {size[0]}x{size[1]}, up to four minutes")
    table = measured_table(network, "this network", conditions, console)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path)
    console.print(f"latency table, kept for the next time: {path}")
    return str(path)


def _kept(network: Network, conditions: Conditions) -> Path:
    """Where a table that is measured on this machine is kept. The file's name depends on all that times depend on."""
    rows = [row.to_json() for row in network.rows if row.name not in network.heads]
    version = live_targets()[conditions.runtime].version()
    about = json.dumps([FORMAT, rows, network.anchors, asdict(conditions), version, this_machine()])
    return cache_folder() / "latency" / f"{conditions.runtime}-{sha256(about.encode()).hexdigest()[:16]}.json"


def _serves(path: Path, network: Network) -> bool:
    """Whether a table is kept in a file that predicts this network. One that was measured for fewer classes may know too few channels."""
    try:
        read_table(path).predict(network)
    except InputError:
        return False
    return True


def _require(table: LatencyTable, options: TimeOptions) -> None:
    """Raise InputError where the table was measured in another runtime or precision, or with another number of threads, than the options ask for.

    int8 has to be asked for: it is another network's time than that of the network that a plan leaves.
    """
    made = table.machine
    for name in ("runtime", "threads", "precision"):
        asked, found = getattr(options, name), getattr(made, name)
        if asked is not None and asked != found:
            raise InputError(f"{options.latency_table}: was measured with --{name} {found}; {asked} was asked for")
    if made.precision == "int8" and options.precision is None:
        raise InputError(f"{options.latency_table}: was measured with --precision int8; say --precision int8 where the budget is about that time")


def stopwatch_of(table: LatencyTable) -> Stopwatch | None:
    """The stopwatch for networks of a table that was made on this machine; None for a table of another machine.

    Raises InputError where this machine has another version of the runtime than it had then.
    """
    made = table.machine
    if this_machine() != (made.processor, made.cores):
        return None
    watch = Stopwatch(Conditions(made.runtime, made.precision, made.threads, table.height, table.width), table.reference[0])
    if watch.version != made.version:
        raise InputError(f"the latency table is of {made.runtime} {made.version}, and this machine has {watch.version}: make a new table")
    return watch


@dataclass(frozen=True, eq=False)
class Timed:
    """A plan, and what is known of the time of its network.

    table: the table that it was made by in the end. measured: milliseconds of its network, None where that was not measured. told: lines for people.
    """

    plan: Plan
    table: LatencyTable | None = None
    measured: float | None = None
    told: tuple[str, ...] = ()


def fitted_plan(table: LatencyTable, budget: str | None, whole: Network, make: Callable[[LatencyTable], Plan]) -> Timed:
    """The plan that `make` gives with a table, corrected until its network takes the time that it may, where this machine is the table's.

    After each measurement the table is corrected by what was measured of the last plan, and a new plan is made. whole: the network that fractions are
    of. Without a budget of milliseconds the plan is as `make` gives it. Raises InputError as `make` does.
    """
    made = make(table)
    if not wants_times(budget):
        return Timed(made, table, None, (f"predicted for {table.machine}: {table.predict(made.network):.3g} ms",))
    limit = table.limit(parsed_budget(budget or "")[1], whole)
    watch = stopwatch_of(table)
    if watch is None:
        about = f"predicted for {table.machine}: {_of(table.predict(made.network), limit)}; this is another machine, so it was not measured"
        return Timed(made, table, None, (about,))
    measured, made, table = _corrected(table, limit, watch, made, make)
    lines = [f"measured on this machine ({table.machine}): {_of(measured, limit)}"]
    now = watch.milliseconds() / table.reference[1]
    if not 1 / _DRIFT < now < _DRIFT:
        way = "slower" if now > 1 else "faster"
        lines.append(f"this machine is {100 * abs(now - 1):.0f} % {way} now than when the table was made: times are those of then")
    return Timed(made, table, measured, tuple(lines))


def advice(timed: Timed, budget: str | None, drop: Sequence[str], whole: Network) -> list[str]:
    """A line about dropping blocks where a plan for milliseconds drops nothing of the network `whole`, and that would pay; else none.

    drop: what the options say of blocks; where they say something, nobody needs the advice. docs/latency.md has numbers.
    """
    if timed.table is None or drop or not wants_times(budget) or len(timed.plan.network.rows) < len(whole.rows):
        return []
    if not costs_by_rows(timed.table):
        return []
    return [f"--drop auto lets whole blocks go, too, which makes room for channels: in {timed.table.machine.runtime} every row costs its start"]


def _corrected(
    table: LatencyTable, limit: float, watch: Stopwatch, made: Plan, make: Callable[[LatencyTable], Plan]
) -> tuple[float, Plan, LatencyTable]:
    """Measured milliseconds of the slowest plan that takes at most _AIM of the limit, the plan, and the table that it was made by; of the last plan
    where none does. Raises InputError as `make` does."""
    best: tuple[float, Plan, LatencyTable] | None = None
    last = (0.0, made, table)
    for _ in range(_ROUNDS):
        measured = table.reference[1] * watch.settled(made.network)
        last = (measured, made, table)
        if measured <= _AIM * limit and (best is None or measured > best[0]):
            best = last
        if _ENOUGH * limit <= measured <= _AIM * limit:
            break
        table = replace(table, correction=table.correction * measured / table.predict(made.network))
        again, table = _again(table, make)
        if again.network == made.network:
            break
        made = again
    return best or last


def _again(table: LatencyTable, make: Callable[[LatencyTable], Plan]) -> tuple[Plan, LatencyTable]:
    """The plan that a corrected table gives for a little less than the budget, or for all of it where the least possible plan takes that; and the
    table that it was made by. Raises InputError as `make` does."""
    tighter = replace(table, correction=table.correction / _AIM)
    try:
        return make(tighter), tighter
    except UnmetBudgetError:
        return make(table), table


def _of(milliseconds: float, limit: float) -> str:
    return f"{milliseconds:.3g} ms, {100 * milliseconds / limit:.1f} % of the {limit:.3g} ms of the budget"
