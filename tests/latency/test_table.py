"""Latency tables: what they predict, what they refuse, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from octrim.errors import InputError
from octrim.latency.table import LatencyTable, read_table, write_table
from octrim.network.rows import Network, Row
from octrim.pruning.budget import UnmetBudgetError
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import cut_network, plan
from tests.latency.analytic import exact_table, exact_time
from tests.latency.test_fit import CHAIN, cut, without_sum
from tests.networks import lively_model


def test_a_table_predicts_cut_networks_and_such_with_rows_left_out() -> None:
    table = exact_table(CHAIN)
    for network in (CHAIN, cut(CHAIN, {"a": 8, "c": 8, "b": 3}), without_sum(CHAIN)):
        assert table.predict(network) == pytest.approx(exact_time(network), rel=1e-12)
    assert replace(table, correction=1.1).predict(CHAIN) == pytest.approx(1.1 * exact_time(CHAIN), rel=1e-12)


DEPTHWISE = Network(
    (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 8, 3, 1, 1, 8, norm=True, activation="silu"),
        Row("c", "conv", ("b",), 8, 3, 1, 1, norm=True, activation="silu"),
        Row("d", "conv", ("c",), 8, 3, 1, 1, 8, norm=True, activation="silu"),
        Row("head", "conv", ("d",), 14, bias=True),
        Row("detect", "detect", ("head",)),
    ),
    (((4.0, 5.0), (9.0, 7.5)),),
)
"""Depthwise convolutions beside an ordinary one of the same window and size."""


def with_cheap_depthwise(network: Network) -> LatencyTable:
    """A table where depthwise convolutions take a hundredth of the fixed time of others."""
    table = exact_table(network)
    coefficients = table.fit.coefficients.copy()
    for place, kind in enumerate(table.fit.kinds):
        coefficients[place, 0] *= 0.01 if "depthwise" in kind else 1
    return replace(table, fit=replace(table.fit, coefficients=coefficients))


def test_a_depthwise_convolution_with_one_channel_left_is_an_ordinary_one() -> None:
    """Networks that are looked at together take the times that each has by itself, as it is when it has been cut."""
    table = replace(with_cheap_depthwise(DEPTHWISE), correction=1.2)
    labels = channel_labels(DEPTHWISE)
    cuts = []
    for first, second in product((8, 2, 1), repeat=2):
        kept = {row.name: np.arange(first if row.name in ("a", "b") else second) for row in DEPTHWISE.convs} | {"head": np.arange(14)}
        cuts.append(cut_network(DEPTHWISE, labels, kept))
    channels = {row.name: np.array([one.channels[row.name] for one in cuts]) for row in DEPTHWISE.convs}
    assert table.variants(DEPTHWISE, channels) == pytest.approx([table.predict(one) for one in cuts], rel=1e-12)


@pytest.mark.parametrize("share", ["0.45", "0.55", "0.7", "0.9"])
def test_plans_that_may_leave_single_channels_are_within_the_budget(share: str) -> None:
    table = with_cheap_depthwise(DEPTHWISE)
    limit = float(share) * table.predict(DEPTHWISE)
    try:
        made = plan(lively_model(DEPTHWISE), align=1, criterion="l2", budget=f"latency={limit}", image_size=(64, 64), latency=table)
    except UnmetBudgetError:
        least = min(table.predict(cut_network(DEPTHWISE, channel_labels(DEPTHWISE), kept)) for kept in all_cuts())
        assert least > limit
    else:
        assert table.predict(made.network) <= limit


def all_cuts() -> Iterator[dict[str, np.ndarray]]:
    """What convolutions keep in every network that can be cut from DEPTHWISE."""
    for first, second in product(range(1, 9), repeat=2):
        yield {row.name: np.arange(first if row.name in ("a", "b") else second) for row in DEPTHWISE.convs} | {"head": np.arange(14)}


def test_a_file_holds_all_of_a_table(tmp_path: Path) -> None:
    table = replace(exact_table(CHAIN), correction=1.25, seconds=12.0)
    write_table(table, tmp_path / "table.json")
    again = read_table(tmp_path / "table.json")
    assert again.to_json() == table.to_json()
    assert again.machine == table.machine and again.predict(without_sum(CHAIN)) == table.predict(without_sum(CHAIN))
    assert again.reference == (CHAIN, 1.0)


def test_networks_that_a_table_does_not_know_are_refused() -> None:
    table = exact_table(CHAIN)
    with pytest.raises(InputError, match=r"table is of a network, where conv 3/2 of the picture silu at 32x32 has at most 3 channels to 16"):
        table.predict(cut(CHAIN, {"a": 32, "c": 32}))
    other = replace(CHAIN, rows=tuple(replace(row, activation="relu") if row.name == "d" else row for row in CHAIN.rows))
    with pytest.raises(InputError, match=r"no row like d \(conv 3/2 relu at 16x16\)"):
        table.predict(other)
    with pytest.raises(InputError, match=r"of 64x64 pixels, and the network is planned for 64x96: give --imgsz 64"):
        table.require_size(64, 96)


def test_budgets_are_milliseconds_or_fractions_of_the_whole() -> None:
    table, whole = exact_table(CHAIN), exact_time(CHAIN)
    for text in ("0.2", ".2", "0.2ms", "0.2 ms"):
        assert table.limit(text, CHAIN) == 0.2
    assert table.limit("1/4", CHAIN) == pytest.approx(whole / 4)
    assert replace(table, correction=1.5).limit("1/4", CHAIN) == pytest.approx(whole / 4)  # a correction moves predictions, not what was asked for


@pytest.mark.parametrize(("value", "says"), [
    ("0", "expected more than 0"), ("-1", "expected more than 0"), ("0/4", "more than 0"), ("3/2", "at most 1"), ("1e3", "expected milliseconds"),
    ("nan", "expected milliseconds"), ("", "expected milliseconds"), ("2 s", "expected milliseconds"), ("99", r"above the 0\.\d+ ms that the net"),
])  # fmt: skip
def test_budgets_that_make_no_sense(value: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        exact_table(CHAIN).limit(value, CHAIN)


@pytest.mark.parametrize(("change", "says"), [
    ({"octrim_latency_table": 2}, "format 2, and this OcTrim reads format 1"),
    ({"octrim_latency_table": None}, "format None"),
    ({"threads": 0}, "found 0, expected a whole number from 1"),
    ({"threads": True}, "found True"),
    ({"overhead": -1.0}, "expected a number of 0 or more"),
    ({"overhead": "1"}, "expected a number"),
    ({"rows": []}, "damaged"),
    ({"rows": {"conv": {}}}, "damaged"),
    ({"blocks": [8]}, "damaged"),
    ({"processor": 3}, "processor is 3"),
    ({"reference": {"milliseconds": 1.0, "table": [], "anchors": []}}, "a network starts with an image row"),
    ({"check": None}, "damaged"),
])  # fmt: skip
def test_damaged_files_are_refused_in_one_line(change: dict[str, object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(exact_table(CHAIN).to_json() | change))
    with pytest.raises(InputError, match=says) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_tables(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match="is no latency table"):
        read_table(path)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(b" " * 4_000_001)
    with pytest.raises(InputError, match="more than 4,000,000 bytes"):
        read_table(path)
    path.write_text('{"octrim_latency_table": ' + "1" * 5000 + "}")
    with pytest.raises(InputError, match="no latency table|format"):
        read_table(path)


def test_every_missing_part_is_told() -> None:
    content = exact_table(CHAIN).to_json()
    for name in content:
        with pytest.raises(InputError, match="latency table"):
            LatencyTable.from_json({key: value for key, value in content.items() if key != name})
