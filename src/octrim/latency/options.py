"""Options of commands that plan to a budget of milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from octrim.options import File, Number, Range
from octrim.targets.options import Runtime, TimedPrecision


@dataclass(frozen=True)
class TimeOptions:
    """Options about the times that a budget of milliseconds is about."""

    latency_table: File = None
    """File of octrim bench --latency-table, from this machine or another; the times of networks are predicted by it (default: measured here)."""
    runtime: Runtime = None
    """Program that runs the network, whose times --budget latency=.. is about (default: the table's, or openvino)."""
    threads: Annotated[Number, Range(1, 1024)] = None
    """Number of processor threads that it has, for --budget latency=.. (default: the table's, or all)."""
    precision: TimedPrecision = None
    """Precision that the network computes in where --budget latency=.. is about its time (default: the table's, or fp32). A table of int8 is used
    only where this says int8: what the training itself leaves is no network of int8 yet."""
