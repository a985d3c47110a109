"""How well a latency table predicts times, and how well budgets of milliseconds are met, on a quiet machine.

    python -m benchmarks.latency_prediction make --runtime c --threads 1 --imgsz 320 --table c.json
    python -m benchmarks.latency_prediction plans --table c.json
    python -m benchmarks.latency_prediction budgets --table c.json --classes 3

`make` measures a table, as `octrim bench --latency-table` does. `plans` measures 30 random plans, with blocks and levels left out, that no table was
fitted to, each opened three times. `budgets` plans ten budgets between the least and the whole network's time, and measures what was planned three
times anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice

import numpy as np

from octrim.errors import InputError
from octrim.latency.budget import fitted_plan, stopwatch_of
from octrim.latency.measure import measured_table
from octrim.latency.samples import random_networks
from octrim.latency.stopwatch import OPENINGS, Conditions
from octrim.latency.table import LatencyTable, read_table, write_table
from octrim.network.initialize import fresh_model
from octrim.network.model import Model
from octrim.pruning.plan import Plan, plan


def make(arguments: argparse.Namespace) -> None:
    conditions = Conditions(arguments.runtime, "fp32", arguments.threads, arguments.imgsz, arguments.imgsz)
    table = measured_table(fresh_model(arguments.cfg).network, arguments.cfg, conditions, seconds=arguments.seconds)
    write_table(table, arguments.table)
    print(f"{table.machine}, {table.seconds:.0f} s, blocks {table.fit.blocks}, check {table.check}")


def plans(arguments: argparse.Namespace) -> None:
    table = read_table(arguments.table)
    watch = stopwatch_of(table)
    if watch is None:
        raise InputError("the table is of another machine")
    errors = []
    for network in islice(random_networks(fresh_model(arguments.cfg).network, 12345), arguments.count):
        try:
            predicted = table.predict(network)
        except InputError as error:
            print(f"not predicted: {error}")
            continue
        measured = table.reference[1] * watch.settled(network)
        errors.append(predicted / measured - 1)
        print(
            f"{len(network.rows):3} rows, {network.classes:2} classes: predicted {predicted:.3f}, measured {measured:.3f}, {100 * errors[-1]:+.1f} %"
        )
    off = np.abs(errors)
    print(f"{table.machine}: {len(errors)} plans, median error {100 * np.median(off):.1f} %, largest {100 * off.max():.1f} %")
    print(f"the reference takes {watch.milliseconds() / table.reference[1]:.3f} of what it took when the table was made")


def budgets(arguments: argparse.Namespace) -> None:
    table = read_table(arguments.table)
    model = replace(fresh_model(arguments.cfg, arguments.classes), image_size=table.height)
    whole = table.predict(model.network)
    least = table.predict(plan(model, "1/1000", image_size=(table.height, table.width)).network)
    over = []
    for share in np.linspace(0.02, 0.85, arguments.count):
        budget = f"latency={least + share * (whole - least):.3f}"
        timed = fitted_plan(table, budget, model.network, lambda latency, text=budget: planned(model, text, latency))
        watch = stopwatch_of(table)
        if watch is None:
            raise InputError("the table is of another machine")
        again = [table.reference[1] * watch.relative(timed.plan.network) for _ in range(OPENINGS)]
        limit = table.limit(budget.partition("=")[2], model.network)
        over.append(float(np.median(again)) / limit - 1)
        found = ", ".join(f"{one:.3f}" for one in again)
        measured = table.predict(timed.plan.network) if timed.measured is None else timed.measured
        print(f"{budget}: planned {measured:.3f}, measured anew {found}; median {100 * over[-1]:+.1f} %", flush=True)
    print(f"{table.machine}: {len(over)} budgets, at most {100 * max(over):+.1f} % over, at least {100 * min(over):+.1f} %")


def planned(model: Model, budget: str, latency: LatencyTable) -> Plan:
    return plan(model, budget=budget, image_size=(latency.height, latency.width), latency=latency)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "plans", "budgets"])
    parser.add_argument("--table", required=True)
    parser.add_argument("--cfg", default="yolov5n")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--runtime", default="c")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--count", type=int, default=None)
    arguments = parser.parse_args()
    arguments.count = arguments.count or {"make": 0, "plans": 30, "budgets": 10}[arguments.what]
    {"make": make, "plans": plans, "budgets": budgets}[arguments.what](arguments)


if __name__ == "__main__":
    main()
