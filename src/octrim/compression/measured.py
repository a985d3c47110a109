"""Budgets of milliseconds that only the prediction meets: a compression measures, before its first training, what its cut will leave."""

from __future__ import annotations

from octrim.compression.planning import checking_criterion, planned, times_of, with_what_must_go
from octrim.compression.start import Start
from octrim.errors import InputError
from octrim.latency.budget import fitted_plan
from octrim.latency.table import LatencyTable
from octrim.pruning.budget import UnmetBudgetError
from octrim.pruning.plan import Plan


def require_measured(start: Start) -> None:
    """Plan the whole cut and measure it, where this machine is the latency table's: seconds, which may save the hours of a training.

    Raises InputError where measuring shows that the least possible network takes longer than the budget allows.
    """
    config, preset, uncut = start.config, start.preset, start.uncut
    table = times_of(config)
    if table is None:
        return
    criterion = checking_criterion(config, preset)

    def make(table: LatencyTable) -> Plan:
        asked = with_what_must_go(config, preset, start.keep_map, uncut, criterion, table)
        return planned(asked, preset, start.keep_map, uncut, uncut.network, preset.cut_steps, criterion, table)

    try:
        fitted_plan(table, config.budget, uncut.network, make)
    except UnmetBudgetError as error:
        raise InputError(f"{error}, as measured on this machine") from None
