"""Decide which channels go, before anything is cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
from rich.table import Table

from octrim.errors import InputError, shown
from octrim.network.cost import Cost, network_cost
from octrim.network.dropping import missing_rows, rows_to_drop, told, without, without_rows
from octrim.network.model import Model
from octrim.network.rows import Network, Row
from octrim.options import Range, Seed, from_python, plain
from octrim.pruning.budget import EVEN, Budget, Choice, Latency
from octrim.pruning.fractions import LIVE, aligned_count, group_fraction, mapped_fractions, matching_convs, parse_fraction
from octrim.pruning.importance import Criterion, channel_scores, criterion_name, live_channels
from octrim.pruning.labels import ChannelLabels, Group, channel_labels, group_key, is_depthwise
from octrim.runs import plain_text


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
    """What `prune` will cut. kept: per convolution, the channels that stay, ascending. network: the table after the cut.

    removed: share of the importance of all groups that may be cut, 0..1: what the cut is predicted to cost. dropped: rows that vanish as a whole,
    in the table's order; `groups` and `kept` are of the other rows, `before` of all. dropping: a line for people about these rows. milliseconds:
    predicted time of one picture in the original and after the cut, where something predicts it.
    """

    groups: tuple[PlannedGroup, ...]
    kept: Mapping[str, np.ndarray]
    network: Network
    before: Cost
    after: Cost
    removed: float
    settings: Mapping[str, Any]
    dropped: tuple[str, ...] = ()
    dropping: str = ""
    milliseconds: tuple[float, float] | None = None

    def keep_map(self) -> dict[str, str]:
        """The channels that every group keeps, as a keep-map of fractions; with it, `keep` 1 and the same `align`, `plan` leaves the same counts."""
        groups_of = Counter(name for group in self.groups for name in group.convs)
        found: dict[str, str] = {}
        for group in self.groups:
            if group.reason is None:
                alone = all(groups_of[name] == 1 for name in group.convs)
                found[group.name if alone else group_key(group.name)] = f"{group.after}/{group.before}"
        return found

    def macs_budget(self, original: Network) -> str:
        """The budget of MACs that this plan's network just meets, as a fraction of those of `original`."""
        whole = network_cost(original, self.before.height, self.before.width).macs
        return f"macs={math.ceil(self.after.macs / whole * 1e9) / 1e9:.9f}"

    def to_json(self) -> dict[str, Any]:
        totals = {key: {"before": getattr(self.before, key), "after": getattr(self.after, key)} for key in ("parameters", "macs", "channels")}
        groups = [{**vars(group), "convs": list(group.convs), "removed": round(group.removed, 6)} for group in self.groups]
        convs = {}
        for name, cost in self.before.convs.items():
            kept = self.kept[name].tolist() if name in self.kept else []
            convs[name] = {"before": cost.channels, "after": len(kept), "kept": kept}
        content: dict[str, Any] = {"settings": dict(self.settings), "image_size": [self.before.height, self.before.width]}
        if self.dropped:
            macs = {name: self.before.convs[name].macs for name in self.dropped if name in self.before.convs}
            content["dropped"] = {"rows": list(self.dropped), "shown": self.dropping, "macs": macs}
        if self.milliseconds is not None:
            totals["milliseconds"] = dict(zip(("before", "after"), self.milliseconds, strict=True))
        return {**content, "removed": round(self.removed, 6), **totals, "groups": groups, "convs": convs}

    def table(self) -> Table:
        """Return a table for people, with a row per group and totals below."""
        totals = [f"{key} {getattr(self.before, key):,} → {getattr(self.after, key):,}" for key in ("channels", "parameters", "macs")]
        if self.milliseconds is not None:
            totals.append("predicted milliseconds {:.3g} → {:.3g}".format(*self.milliseconds))
        caption = "; ".join([*totals, f"importance removed {100 * self.removed:.1f} %"]).replace("macs", "MACs")
        if self.dropped:
            caption += f"\ndropped: {self.dropping}"
        table = Table(title=f"Plan at {self.before.height}x{self.before.width}", caption=caption)
        table.add_column("group", no_wrap=True)
        table.add_column("channels", justify="right", no_wrap=True)
        table.add_column("importance\nremoved", justify="right")
        table.add_column("MACs, M", justify="right", no_wrap=True)
        table.add_column("coupled with, or why it is kept whole", overflow="fold")
        for group in self.groups:
            changed = group.after != group.before
            channels = f"{group.before} → {group.after}" if changed else f"{group.before}"
            macs = f"{group.macs_before / 1e6:,.1f} → {group.macs_after / 1e6:,.1f}"
            note = [", ".join(group.convs[1:])] if len(group.convs) > 1 else []
            if group.reason is not None:
                note.append(f"whole: {group.reason}")
            table.add_row(group.name, channels, f"{100 * group.removed:.1f} %" if changed else "", macs, "; ".join(note))
        for name in self.dropped:
            if name in self.before.convs:
                cost = self.before.convs[name]
                table.add_row(name, f"{cost.channels} → 0", "", f"{cost.macs / 1e6:,.1f} → 0.0", "dropped")
        return table

    def text(self) -> str:
        """Return the table for people as plain text."""
        return plain_text(self.table())


def plan(
    model: Model,
    keep: float | str | Fraction | None = None,
    align: int | str = 8,
    criterion: str | Criterion = "signal",
    exclude: str | Sequence[str] = (),
    keep_map: Mapping[str, float | str] | None = None,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    budget: str | None = None,
    original: Network | None = None,
    nearest: bool = False,
    drop: str | Sequence[str] = (),
    levels: int | Sequence[int] = (),
    latency: Latency | None = None,
) -> Plan:
    """Choose channels: the same fraction of every convolution, or globally, by importance, down to a budget.

    keep: 0 < keep <= 1, also as text ("1/8", which is the default). Counts are rounded down to a multiple of `align`, with one `align` (or
    the full width, where that is less) as the floor; 1 changes nothing. Or "live": every group keeps the channels that sparsity training has left
    alive (`octrim.pruning.importance.live_channels`), and dead ones only up to the next multiple of `align`. criterion: a name in `CRITERIA`, or a
    function like those.
    align "auto" is 8, or what the kernels of the machine that `latency` is of want.
    exclude: patterns of convolutions whose groups stay whole (`model.0`, `model.2.*`; a row's name also stands for what is below it).
    keep_map: pattern to fraction, instead of `keep` for the groups it matches. seed: for the criterion random. image_size: a side, or (height,
    width), for the MACs; what the network was made for by default.
    budget: `channels=F`, `params=F` or `macs=F`, the fraction of the whole network's that may stay, or `latency=2`, milliseconds, or `latency=1/6`,
    a fraction of the whole network's time, as `latency` predicts it. Aligned steps of all groups go, those first that take the least importance
    with them for what they save in the budget's unit, until the cost is at or below the budget; no group's last step back would leave it there. No
    group then goes below `keep`, where that is given, and groups in `keep_map` have their fraction.
    original: the network that all fractions are of, where the model was cut from it before; the model's own by default. With a budget, groups that
    were cut before to a count that is no multiple of `align` are cut to one.
    nearest: whether counts are rounded to the nearest multiple of `align` instead of down, of two equally near ones to the lower.
    drop, levels: rows that vanish, whose readers read what came before, and strides of the detection levels that stay, as
    `octrim.network.dropping.rows_to_drop` takes them; scores, groups and the other patterns are those of the network without these rows.
    Where several patterns or strides are taken, one may be given by itself.
    latency: what predicts milliseconds, such as a latency table (`octrim.latency.table`); the plan then tells them, whatever its budget is.
    Raises InputError for values out of range or of another type, patterns that match nothing, a keep_map that contradicts itself, a budget that
    cannot be met, saying what the least is, an original that the model was not cut from, and a criterion that fails or gives anything but finite
    numbers.
    """
    given = {"exclude": exclude, "seed": seed, "image_size": image_size, "budget": budget, "nearest": nearest, "drop": drop, "levels": levels}
    asked = from_python(_Wishes, given)
    exclude, seed, budget, nearest, drop, levels = asked.exclude, asked.seed, asked.budget, asked.nearest, asked.drop, asked.levels
    align = plain(align)
    if align == "auto":
        align = EVEN if latency is None else latency.align
    if type(align) is not int or align < 1:
        raise InputError(f"align is {shown(align)}, expected 1 or more")
    if criterion == "taylor":
        raise InputError("criterion 'taylor' needs gradients of the loss: criterion=taylor(gradients), or octrim prune --criterion taylor --data D")
    wants_live = isinstance(keep, str) and keep == LIVE
    fraction = None if keep is None or wants_live else parse_fraction(keep, "keep")
    if keep is None and budget is None:
        fraction = Fraction(1, 8)
    whole, original = model.network, original or model.network
    side = -(-model.image_size // whole.stride) * whole.stride
    sides = (side,) if asked.image_size is None else asked.image_size
    if len(sides) not in (1, 2):
        raise InputError(f"image_size is {shown(sides)}, expected a side, or height and width")
    height, width = sides[0], sides[-1]
    model, dropped = _without_rows(model, original, drop, levels)
    network = model.network
    labels = channel_labels(network)
    scores = channel_scores(criterion, model, labels, seed)
    widths = _widths(network, original)
    # A depthwise convolution that is cut to one channel is an ordinary one, and begins a group of its own.
    if any(widths.get(group.name, 1) < len(group) for group in labels.groups):
        raise InputError("the original has other channels than a network that this model was cut from")
    live = live_channels(model, labels) if wants_live else None
    candidates = _candidates(network, labels, scores, exclude, keep_map or {}, fraction, align, widths, nearest, live)

    def cut(counts: Sequence[int]) -> tuple[dict[str, np.ndarray], Network]:
        gone = np.zeros(labels.count, bool)
        for candidate, count in zip(candidates, counts, strict=True):
            gone[candidate.order[count:]] = True
        kept = kept_channels(network, labels, gone)
        return kept, cut_network(network, labels, kept)

    if latency is not None:
        latency.require_size(height, width)
    if budget is None:
        counts = [candidate.least for candidate in candidates]
    else:
        choices = [Choice(candidate.group.labels, candidate.scores, candidate.most, candidate.least) for candidate in candidates]
        counts = Budget(budget, original, height, width, latency).counts(choices, align, labels, network)
    kept, smaller = cut(counts)
    before, after = network_cost(whole, height, width), network_cost(smaller, height, width)
    groups = tuple(candidate.planned(count, before, after) for candidate, count in zip(candidates, counts, strict=True))
    total = sum(float(candidate.scores.sum()) for candidate in candidates if candidate.reason is None)
    gone = sum(float(candidate.scores[count:].sum()) for candidate, count in zip(candidates, counts, strict=True))
    settings = {
        "keep": LIVE if live is not None else None if fraction is None else str(fraction),
        "align": align,
        "criterion": criterion_name(criterion),
    }
    settings |= {"exclude": list(exclude), "keep_map": {key: str(value) for key, value in (keep_map or {}).items()}, "seed": seed, "budget": budget}
    if drop or levels:
        settings |= {"drop": list(drop), "levels": list(levels)}
    removed = gone / max(total, np.finfo(float).tiny)
    # The original's time is the one that fractions are of, which a correction by measuring small networks does not move.
    times = None if latency is None else (latency.limit("1/1", original), latency.predict(smaller))
    return Plan(groups, kept, smaller, before, after, removed, settings, dropped, told(whole, dropped) if dropped else "", times)


@dataclass(frozen=True)
class _Wishes:
    """What those arguments of `plan` may hold that are not checked where they are read."""

    command: ClassVar[str] = "plan"

    exclude: tuple[str, ...] = ()
    seed: Seed = 0
    image_size: Annotated[tuple[int, ...] | None, Range(1)] = None
    budget: str | None = None
    nearest: bool = False
    drop: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()


def _without_rows(model: Model, original: Network, drop: Sequence[str], levels: Sequence[int]) -> tuple[Model, tuple[str, ...]]:
    """The model without the rows that go, and those of them that it has. original: the network that the patterns are about."""
    there = {row.name for row in model.network.rows}
    gone = tuple(name for name in rows_to_drop(original, drop, levels) if name in there)
    return without_rows(model, gone), gone


def _widths(network: Network, original: Network) -> dict[str, int]:
    """Channels that each group of a network had in the original, which may have rows that the network lacks."""
    missing = missing_rows(original, network)
    if missing:
        original = without(original, missing)
    return {group.name: len(group) for group in channel_labels(original).groups}


def composed(first: Plan, second: Plan) -> Plan:
    """One plan for a cut in two steps, the second of what the first has left, and without dropping rows; settings are the second's.

    Importance removed: what neither step left, each by its own scores, 1 - (1 - first)(1 - second).
    """
    later = {group.name: group for group in second.groups}
    groups = tuple(
        replace(
            group,
            after=later[group.name].after,
            removed=1 - (1 - group.removed) * (1 - later[group.name].removed),
            macs_after=later[group.name].macs_after,
        )
        for group in first.groups
    )
    kept = {name: channels[second.kept[name]] for name, channels in first.kept.items()}
    removed = 1 - (1 - first.removed) * (1 - second.removed)
    times = None if first.milliseconds is None or second.milliseconds is None else (first.milliseconds[0], second.milliseconds[1])
    return Plan(groups, kept, second.network, first.before, second.after, removed, second.settings, first.dropped, first.dropping, times)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A group as the plan sees it: its labels by falling score, those scores, and the most and fewest channels it may keep."""

    group: Group
    order: np.ndarray
    scores: np.ndarray
    most: int
    least: int
    reason: str | None

    def removed(self, count: int) -> float:
        """Return the share of the group's importance that goes when `count` channels stay."""
        return float(self.scores[count:].sum() / max(self.scores.sum(), np.finfo(float).tiny))

    def planned(self, count: int, before: Cost, after: Cost) -> PlannedGroup:
        """Return the group in a plan where `count` of its channels stay. before, after: cost of the network before and after all cuts."""
        convs = self.group.convs
        macs_before, macs_after = (sum(cost.convs[name].macs for name in convs) for cost in (before, after))
        return PlannedGroup(self.group.name, convs, len(self.group), count, self.removed(count), macs_before, macs_after, self.reason)


def _candidates(
    network: Network,
    labels: ChannelLabels,
    scores: np.ndarray,
    exclude: Sequence[str],
    keep_map: Mapping[str, float | str],
    fraction: Fraction | None,
    align: int,
    widths: Mapping[str, int],
    nearest: bool,
    live: np.ndarray | None,
) -> list[_Candidate]:
    """Return every group as the plan sees it. widths: group name to the number of channels that the fractions are of. nearest: as in `plan`.

    live: bool `[labels]`, the channels that stay where no fraction is wanted, before all others; None where that is left to scores.
    """
    excluded = {name: pattern for pattern in exclude for name in matching_convs(network, pattern, "exclude")}
    fractions = mapped_fractions(network, keep_map)
    found = []
    for group in labels.groups:
        reason = group.reason or next((f"excluded by {excluded[name]}" for name in group.convs if name in excluded), None)
        wanted = group_fraction(group, fractions, fraction)
        width = widths.get(group.name, 1)
        alive = np.zeros(len(group), bool) if live is None else live[group.labels]
        floor = max(math.ceil(alive.sum() / align), 1) * align if wanted is None else aligned_count(width, wanted, align, nearest)
        least = len(group) if reason else min(floor, len(group))
        own = scores[group.labels]
        order = np.lexsort((-own, ~alive))  # equal scores: the earlier channel stays
        if any(name in fractions for name in (group_key(group.name), *group.convs)):
            most = least
        elif len(group) == width:
            most = width
        else:  # cut before, perhaps to a count between two multiples
            most = max(len(group) // align * align, least)
        found.append(_Candidate(group, group.labels[order], own[order], most, least, reason))
    return found


def kept_channels(network: Network, labels: ChannelLabels, gone: np.ndarray) -> dict[str, np.ndarray]:
    """Return the channels of every convolution that stay, ascending. gone: bool `[labels.count]`, mask of the labels that go."""
    return {row.name: np.flatnonzero(~gone[labels.labels[row.name]]) for row in network.convs}


def cut_network(network: Network, labels: ChannelLabels, kept: Mapping[str, np.ndarray]) -> Network:
    """Return the network's table with the numbers of kept channels in it."""
    rows: list[Row] = []
    for row in network.rows:
        if row.op != "conv":
            rows.append(row)
            continue
        channels = len(kept[row.name])
        groups = channels if is_depthwise(row, len(labels.labels[row.inputs[0]])) else row.groups
        rows.append(replace(row, channels=channels, groups=groups))
    return Network(tuple(rows), network.anchors)
