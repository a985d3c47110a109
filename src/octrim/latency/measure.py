"""Makes a latency table: random networks are measured on this machine, and what their rows cost is fitted to them."""

from __future__ import annotations

from itertools import islice
from time import perf_counter

import numpy as np
from rich.console import Console

from octrim.latency.fit import Fit, fitted
from octrim.latency.samples import random_networks, reference_network
from octrim.latency.stopwatch import Conditions, Stopwatch, this_machine
from octrim.latency.table import Check, LatencyTable, Machine
from octrim.latency.terms import Rows, rows_of
from octrim.network.rows import Network
from octrim.progress import progress_bar

NETWORKS = 200
"""Networks that a table is fitted to, where time allows; thirty more are measured to check it."""

CHECKED = 30

SECONDS = 180.0
"""Seconds after which no further network is measured."""

_FEWEST = 24  # networks that are measured however long it takes

_WHOLE = 4  # times that the whole network counts: fractions are of its time


def measured_table(
    whole: Network,
    name: str,
    conditions: Conditions,
    console: Console | None = None,
    networks: int = NETWORKS,
    checked: int = CHECKED,
    seconds: float = SECONDS,
    seed: int = 0,
) -> LatencyTable:
    """Measure random networks that can be cut from `whole`, and return the table of their rows.

    name: name of the network for people. checked: random networks on which the table states its error; they are fitted only after that. seconds: time
    after which no further network is measured. Raises InputError for a runtime that is not here or cannot run the network.
    """
    began = perf_counter()
    conditions.require()
    watch = Stopwatch(conditions, reference_network(whole))
    found: list[tuple[Network, float]] = [(whole, watch.relative(whole, 8))]
    with progress_bar("measuring networks", networks + checked, console) as bar:
        for network in islice(random_networks(whole, seed), networks + checked):
            if perf_counter() - began > seconds and len(found) > _FEWEST:
                break
            found.append((network, watch.relative(network)))
            bar.advance()
        checked = min(checked, len(found) // 4)
        for number in range(len(found) - checked, len(found)):  # an error is of the table alone where the time that it is compared with has settled
            found[number] = (found[number][0], watch.settled(found[number][0]))
    milliseconds = watch.milliseconds()
    rows = [rows_of(network, conditions.height, conditions.width) for network, _ in found]
    times = [milliseconds * share for _, share in found]
    fit, check = _fitted_and_checked(rows, times, checked)
    processor, cores = this_machine()
    machine = Machine(processor, cores, conditions.runtime, watch.version, conditions.precision, conditions.threads)
    reference = (watch.reference, milliseconds)
    return LatencyTable(machine, conditions.height, conditions.width, name, fit, _widths(rows), reference, check, perf_counter() - began)


def _fitted_and_checked(rows: list[Rows], times: list[float], checked: int) -> tuple[Fit, Check]:
    """The fit to all networks, and the error on the last ones of a fit to the others. The first network is the whole one."""
    count = len(rows) - checked
    fit = fitted([rows[0]] * (_WHOLE - 1) + rows[:count], [times[0]] * (_WHOLE - 1) + times[:count])
    known = set(fit.kinds)
    errors = [abs(fit.times(one)[0] / time - 1) for one, time in zip(rows[count:], times[count:], strict=True) if known.issuperset(one.kinds)]
    check = Check(len(errors), float(np.median(errors)) if errors else 0.0, float(np.max(errors, initial=0)))
    return fitted([rows[0]] * (_WHOLE - 1) + rows, [times[0]] * (_WHOLE - 1) + times, [fit.blocks]), check


def _widths(networks: list[Rows]) -> dict[str, tuple[int, int]]:
    """The most channels that rows of each kind read and write."""
    widths: dict[str, tuple[int, int]] = {}
    for rows in networks:
        for index, kind in enumerate(rows.kinds):
            read, written = widths.get(kind, (1, 1))
            widths[kind] = (max(read, int(rows.read[0, index])), max(written, int(rows.written[0, index])))
    return widths
