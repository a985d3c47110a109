"""A machine whose times are known exactly, for tests: every row costs a fixed time, and its channels read times those written."""

from __future__ import annotations

import numpy as np

from octrim.latency.fit import Fit
from octrim.latency.table import Check, LatencyTable, Machine
from octrim.latency.terms import TERMS, rows_of
from octrim.network.cost import shapes
from octrim.network.rows import Network

MACHINE = Machine("a processor", 4, "openvino", "1.0", "fp32", 2)


def exact_table(network: Network, side: int = 64, fixed: float = 0.01, product: float = 1e-6) -> LatencyTable:
    """A table that needs no measurement: milliseconds of a row are `fixed`, of a convolution also `product` per channel read, written and pixel."""
    rows, maps = rows_of(network, side, side), shapes(network, side, side)
    kinds = tuple(dict.fromkeys(rows.kinds))
    coefficients = np.zeros((len(kinds), len(TERMS)))
    widths: dict[str, tuple[int, int]] = dict.fromkeys(kinds, (0, 0))
    for place, (kind, row) in enumerate(zip(rows.kinds, network.rows[1:-1], strict=True)):
        _, height, width = maps[row.name]
        coefficients[kinds.index(kind), TERMS.index("fixed")] = fixed
        coefficients[kinds.index(kind), TERMS.index("product")] = 256 * product * height * width * (row.op == "conv")
        widths[kind] = (max(widths[kind][0], int(rows.read[0, place])), max(widths[kind][1], int(rows.written[0, place])))
    fit = Fit(0.1, kinds, coefficients, (1, 1))
    return LatencyTable(MACHINE, side, side, "a network", fit, widths, (network, 1.0), Check(0, 0.0, 0.0))


def exact_time(network: Network, side: int = 64, fixed: float = 0.01, product: float = 1e-6) -> float:
    """The milliseconds of a network on that machine, added up row by row."""
    maps = shapes(network, side, side)
    total = 0.1
    for row in network.rows[1:-1]:
        total += fixed
        if row.op == "conv":
            channels, height, width = maps[row.name]
            total += product * channels * maps[row.inputs[0]][0] / row.groups * height * width
    return total
