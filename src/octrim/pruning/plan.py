"""Decide which channels go, before anything is cut."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from octrim.errors import InputError, shown
from octrim.network.cost import Cost, network_cost
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.pruning.importance import CRITERIA
from octrim.pruning.labels import ChannelLabels, Group, channel_labels, is_depthwise


@dataclass(frozen=True)
class PlannedGroup:
    """One group of coupled channels in the plan.

    removed: share of the group's importance that goes, 0..1. macs_before, macs_after: of the group's convolutions, which also shrink
    with their inputs. reason: why it is kept whole, or None.
    """

    name: str
    convs: tuple[str, ...]
    before: int
    after: int
    removed: float
    macs_before: int
    macs_after: int
    reason: str | None


@dataclass(frozen=True, eq=False)
class Plan:
    """What `prune` will cut. kept: per convolution, the channels that stay, ascending. network: the table after the cut."""

    groups: tuple[PlannedGroup, ...]
    kept: Mapping[str, np.ndarray]
    network: Network
    before: Cost
    after: Cost
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        totals = {key: {"before": getattr(self.before, key), "after": getattr(self.after, key)} for key in ("parameters", "macs", "channels")}
        groups = [{**vars(group), "convs": list(group.convs), "removed": round(group.removed, 6)} for group in self.groups]
        convs = {name: {"before": self.before.convs[name].channels, "after": len(kept), "kept": kept.tolist()} for name, kept in self.kept.items()}
        size = [self.before.height, self.before.width]
        return {"settings": dict(self.settings), "image_size": size, **totals, "groups": groups, "convs": convs}

    def table(self) -> Table:
        """For people: a row per group, totals below."""
        totals = [f"{key} {getattr(self.before, key):,} → {getattr(self.after, key):,}" for key in ("channels", "parameters", "macs")]
        table = Table(title=f"Plan at {self.before.height}x{self.before.width}", caption="; ".join(totals).replace("macs", "MACs"))
        table.add_column("group", no_wrap=True)
        table.add_column("channels", justify="right", no_wrap=True)
        table.add_column("importance\nremoved", justify="right")
        table.add_column("MACs, M", justify="right", no_wrap=True)
        table.add_column("coupled with, or why it is kept whole", overflow="fold")
        for group in self.groups:
            changed = group.after != group.before
            channels = f"{group.before} → {group.after}" if changed else f"{group.before}"
            macs = f"{group.macs_before / 1e6:,.1f} → {group.macs_after / 1e6:,.1f}"
            note = [", ".join(group.convs[1:])] * (len(group.convs) > 1) + [f"whole: {group.reason}"] * (group.reason is not None)
            table.add_row(group.name, channels, f"{100 * group.removed:.1f} %" if changed else "", macs, "; ".join(note))
        return table

    def text(self) -> str:
        """The table as plain text."""
        buffer = io.StringIO()
        Console(file=buffer, width=150).print(self.table())
        return buffer.getvalue()


def plan(
    model: Model,
    keep: float | str | Fraction = "1/8",
    align: int = 8,
    criterion: str = "bn",
    exclude: Sequence[str] = (),
    keep_map: Mapping[str, float | str] | None = None,
    seed: int = 0,
    image_size: tuple[int, int] | None = None,
) -> Plan:
    """Choose channels so that every convolution keeps the fraction `keep`, in multiples of `align`.

    keep: 0 < keep <= 1, also as text ("1/8"). Counts are rounded down to a multiple of `align`, with one `align` (or the full width,
    where that is less) as the floor; 1 changes nothing. criterion: a name in `CRITERIA`. exclude: patterns of convolutions whose groups
    stay whole (`model.0`, `model.2.*`; a row's name also stands for what is below it). keep_map: pattern to fraction, instead of `keep`
    for the groups it matches. seed: for the criterion random. image_size: (height, width) for the MACs; what the network was made for
    by default.
    Raises InputError for values out of range, patterns that match nothing, and a keep_map that contradicts itself.
    """
    fraction = parse_fraction(keep, "keep")
    if type(align) is not int or align < 1:
        raise InputError(f"align is {shown(align)}, expected 1 or more")
    if criterion not in CRITERIA:
        raise InputError(f"criterion {shown(criterion)} is unknown; known are {', '.join(CRITERIA)}")
    network = model.network
    labels = channel_labels(network)
    excluded = {name: pattern for pattern in exclude for name in _matching(network, pattern, "exclude")}
    fractions = _mapped_fractions(network, keep_map or {})
    side = -(-model.image_size // network.stride) * network.stride
    height, width = (side, side) if image_size is None else image_size
    cut = np.zeros(labels.count, bool)
    chosen: list[tuple[Group, int, float, str | None]] = []
    for group in labels.groups:
        reason = group.reason or next((f"excluded by {excluded[name]}" for name in group.convs if name in excluded), None)
        wanted = _group_fraction(group, fractions, fraction)
        after = len(group) if reason else aligned_count(len(group), wanted, align)
        removed = 0.0
        if after < len(group):
            scores = CRITERIA[criterion](model, labels, group, seed)
            order = np.argsort(-scores, kind="stable")  # equal scores: the earlier channel stays
            cut[group.labels[order[after:]]] = True
            removed = float(scores[order[after:]].sum() / max(scores.sum(), np.finfo(float).tiny))
        chosen.append((group, after, removed, reason))
    kept = {row.name: np.flatnonzero(~cut[labels.labels[row.name]]) for row in network.convs}
    smaller = cut_network(network, labels, kept)
    before, after_cost = network_cost(network, height, width), network_cost(smaller, height, width)
    groups = tuple(
        PlannedGroup(
            group.name,
            group.convs,
            len(group),
            after,
            removed,
            sum(before.convs[name].macs for name in group.convs),
            sum(after_cost.convs[name].macs for name in group.convs),
            reason,
        )
        for group, after, removed, reason in chosen
    )
    settings = {"keep": str(fraction), "align": align, "criterion": criterion, "exclude": list(exclude)}
    settings |= {"keep_map": {key: str(value) for key, value in (keep_map or {}).items()}, "seed": seed}
    return Plan(groups, kept, smaller, before, after_cost, settings)


def parse_fraction(value: object, what: str) -> Fraction:
    """A fraction of 0 < f <= 1 from a number or from text such as `1/8` and `0.125`."""
    try:
        fraction = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{what} is {shown(value)}, expected a fraction such as 1/8 or 0.125") from None
    if not 0 < fraction <= 1:
        raise InputError(f"{what} is {value}, expected more than 0 and at most 1")
    return fraction


def aligned_count(channels: int, fraction: Fraction, align: int) -> int:
    """Channels that stay: rounded down to a multiple of `align`, at least one `align`, at most all."""
    if fraction == 1:
        return channels
    return min(max(int(channels * fraction) // align * align, align), channels)


def cut_network(network: Network, labels: ChannelLabels, kept: Mapping[str, np.ndarray]) -> Network:
    """The table with the kept channel counts in it."""
    rows: list[Row] = []
    for row in network.rows:
        if row.op != "conv":
            rows.append(row)
            continue
        channels = len(kept[row.name])
        groups = channels if is_depthwise(row, len(labels.labels[row.inputs[0]])) else row.groups
        rows.append(replace(row, channels=channels, groups=groups))
    return Network(tuple(rows), network.anchors)


def _matching(network: Network, pattern: str, what: str) -> list[str]:
    names = [row.name for row in network.convs if fnmatch.fnmatchcase(row.name, pattern) or row.name.startswith(f"{pattern}.")]
    if not names:
        raise InputError(f"{what}: {shown(pattern)} matches no convolution; their names look like {network.convs[0].name}, {network.convs[-1].name}")
    return names


def _mapped_fractions(network: Network, keep_map: Mapping[str, float | str]) -> dict[str, Fraction]:
    """Fraction per convolution; where several patterns match, the last one counts, so that exceptions can follow the rule."""
    if not isinstance(keep_map, Mapping):
        raise InputError(f"keep-map is {shown(keep_map)}, expected a mapping of patterns to fractions")
    found: dict[str, Fraction] = {}
    for pattern, value in keep_map.items():
        fraction = parse_fraction(value, f"keep-map: {pattern}")
        found |= dict.fromkeys(_matching(network, str(pattern), "keep-map"), fraction)
    return found


def _group_fraction(group: Group, fractions: Mapping[str, Fraction], default: Fraction) -> Fraction:
    named = {name: fractions[name] for name in group.convs if name in fractions}
    if len(set(named.values())) > 1:
        (one, first), (other, second) = next((a, b) for a in named.items() for b in named.items() if a[1] != b[1])
        raise InputError(f"keep-map: {one} and {other} are coupled and must keep the same fraction, found {first} and {second}")
    return next(iter(named.values()), default)
