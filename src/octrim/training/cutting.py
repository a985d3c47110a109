"""Cutting within a training: every few optimizer steps the least important channels go, along a cubic curve (Zhu and Gupta 2017) from all channels to
what is to be left; weights, momentum, moving average and schedule go on with those that stay.

The network is never far from one that works, and what it has learnt is kept. Counts along the way are any numbers; only the last ones are aligned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from octrim.errors import InputError
from octrim.latency.budget import fitted_plan
from octrim.latency.table import LatencyTable
from octrim.network.cost import network_cost, tensor_shapes
from octrim.network.dropping import missing_rows, told, without
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.fractions import matching_convs
from octrim.pruning.importance import Criterion, channel_scores
from octrim.pruning.labels import channel_labels
from octrim.pruning.merging import read_maps
from octrim.pruning.plan import Plan, PlannedGroup, kept_channels, plan
from octrim.training.checkpoint import State
from octrim.training.cut_state import cut_state
from octrim.training.freezing import frozen
from octrim.training.learner import Learner
from octrim.training.maps import map_moments
from octrim.training.schedule import Schedule
from octrim.training.vectors import kind_of, unflattened

AT_ONCE = 0.02
"""Share of the channels there are that goes in one cut; every cut builds a new network, which takes as long as a few steps."""

WINDOW = 0.05
"""Share of the curve's optimizer steps over which the moving average reaches back at most, as long as channels go."""

_KEY = "cutting"  # key of State.extra


@dataclass(frozen=True)
class GradualCut:
    """What a training is to leave of its network, and how fast.

    epochs: epochs after which the network has its final shape. keep, align, budget, exclude, keep_map: as `octrim.pruning.plan.plan` takes them, but
    final counts are rounded to the nearest multiple of `align`. criterion: a name of `CRITERIA`, or "taylor" for the gradients of the training
    itself. interval: least number of optimizer steps between two cuts. latency: the latency table that a budget of milliseconds is planned by.
    planned: what the keep-map was planned by before the training began, for lineages; None where it was given.
    """

    epochs: int
    keep: str | None = None
    align: int = 8
    budget: str | None = None
    criterion: str = "taylor"
    exclude: tuple[str, ...] = ()
    keep_map: Mapping[str, float | str] = field(default_factory=dict)
    interval: int = 1
    seed: int = 0
    latency: LatencyTable | None = None
    planned: str | None = None

    def goal(self, model: Model, original: Network, criterion: str | Criterion) -> Plan:
        """The plan that cuts `model`, which may have lost channels already, to what is to be left of `original`. Raises InputError as `plan` does."""
        options: dict[str, Any] = {"original": original, "nearest": True, "latency": self.latency}
        return plan(model, self.keep, self.align, criterion, self.exclude, self.keep_map, self.seed, budget=self.budget, **options)

    def sparing(self, network: Network, freeze: Sequence[str]) -> GradualCut:
        """The same, with the convolutions whose weights or scales do not train kept whole. freeze: layers and patterns as of `--freeze`."""
        still = set(frozen([name for name in tensor_shapes(network) if kind_of(name) < 3], freeze))
        rows = [row.name for row in network.convs if still.intersection((row.weight_name, f"{row.name}.bn.weight", f"{row.name}.bn.bias"))]
        return replace(self, exclude=(*self.exclude, *rows))

    @property
    def known_criterion(self) -> str:
        """A criterion that needs no training: the cut's own, or in place of the training's gradients one that needs batch norm as these do."""
        return "signal" if self.criterion == "taylor" else self.criterion

    def check(self, model: Model, whole: Network | None = None) -> Plan:
        """The plan as the network's weights alone tell it. whole: the network's table before rows were dropped from it, where they were.

        Raises InputError where nothing would be dropped or cut, and as `plan` does.
        """
        # The scores of the training do not exist yet; whatever they are, the counts are the same, or with a budget similar.
        goal = self.goal(model, whole or model.network, self.known_criterion)
        if goal.after.channels == goal.before.channels and whole is None:
            raise InputError("nothing would be cut: every convolution keeps all of its channels")
        return goal

    def shaped(self, made: Plan, planned: str) -> GradualCut:
        """The same, with the number of channels that every group keeps in a plan, whatever the training finds. planned: what made that plan."""
        return replace(self, keep="1", budget=None, keep_map=made.keep_map(), latency=None, planned=planned)

    def begin(self, model: Model, state: State, whole: Network | None = None) -> None:
        """Note in the state of a training that is about to start what it cuts. whole, and what is raised: as for `check`."""
        goal = self.check(model, whole)
        share = goal.after.channels / goal.before.channels
        kept = {row.name: list(range(row.channels)) for row in model.network.convs}
        # A checkpoint sorts the keys of a mapping, and of a keep-map's patterns the last one that matches counts.
        wanted = {**vars(self), "keep_map": [[pattern, value] for pattern, value in self.keep_map.items()], "exclude": list(self.exclude)}
        wanted.pop("latency")
        table = json.loads(json.dumps((whole or model.network).to_json()))  # with lists for tuples, as a checkpoint gives it back
        state.extra[_KEY] = {"wanted": wanted, "table": table, "kept": kept, "share": share, "level": 0, "step": 0, "done": False}
        if self.latency is not None:
            state.extra[_KEY]["latency"] = json.loads(json.dumps(self.latency.to_json()))
        if whole is not None:
            state.extra[_KEY]["anchors"] = [[list(pair) for pair in level] for level in whole.anchors]
        state.extra[_KEY]["removed"] = {"": 0.0, **{group.name: 0.0 for group in goal.groups}}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for plans and lineages, named as those of a plan."""
        keep_map = {pattern: str(value) for pattern, value in self.keep_map.items()}
        settings = {"keep": self.keep, "align": self.align, "criterion": self.criterion, "exclude": list(self.exclude), "keep_map": keep_map}
        settings |= {"seed": self.seed, "budget": self.budget, "cut_epochs": self.epochs}
        return settings if self.planned is None else {**settings, "planned_by": self.planned}

    @classmethod
    def remembered(cls, state: State) -> GradualCut | None:
        """What the training in `state` cuts; None where it cuts nothing."""
        if _KEY not in state.extra:
            return None
        noted = state.extra[_KEY]
        latency = LatencyTable.from_json(noted["latency"]) if "latency" in noted else None
        wanted = noted["wanted"]  # its keep-map is a mapping in older checkpoints
        return cls(**{**wanted, "exclude": tuple(wanted["exclude"]), "keep_map": dict(wanted["keep_map"]), "latency": latency})


class Cutting:
    """The cuts of one training. What it has to know of earlier ones stands in the state, so that a resumed training cuts the same channels."""

    def __init__(self, wanted: GradualCut, state: State, schedule: Schedule, pictures: Sequence[np.ndarray] = ()) -> None:
        """Prepare the cuts of a training in `state`, where `begin` has noted what they need.

        pictures: sets of pictures as of `octrim.training.maps.cut_pictures`, on which channels are merged into those that stay; where there are none,
        only their constants go into their consumers.
        """
        self.wanted, self.pictures = wanted, pictures
        self.original, self.first = _original(state), _first(state)
        self.batches = schedule.batches
        self.end = wanted.epochs * schedule.batches
        self.start = min(schedule.warmup, self.end // 4)
        # What the weights were long before a cut is another network's: the average must reach back less than the network takes to become another.
        self.window = max(WINDOW * (self.end - self.start) / schedule.accumulate, 2.0)

    def share(self, iteration: int) -> float:
        """Share of the curve that is over after `iteration` batches, 0..1. It begins after the warm-up, or after a quarter of its epochs."""
        return min(max((iteration - self.start) / (self.end - self.start), 0.0), 1.0)

    def due(self, state: State, steps: int) -> bool:
        """Whether channels are to go now, right after an optimizer step. steps: number of optimizer steps so far."""
        noted = state.extra[_KEY]
        if noted["done"]:
            return False
        share = self.share(state.epoch * self.batches + state.batch)
        return share == 1 or (steps - noted["step"] >= self.wanted.interval and _level(share, noted["share"]) > noted["level"])

    def cut(self, state: State, learner: Learner) -> None:
        """Cut the channels that are due, in the state and in the learner."""
        learner.snapshot(state)
        noted = state.extra[_KEY]
        share = self.share(state.epoch * self.batches + state.batch)
        model = Model(state.network, unflattened(state.network, state.arrays["average"]), state.names, state.image_size)
        gone, goal, removed = self._choice(model, state, learner, share)
        if noted["step"] == 0:  # the first cut
            state.lineage = (*state.lineage, {"action": "prune", **self.wanted.settings}, {"action": "merge" if self.pictures else "compensate"})
        noted |= {"share": goal.after.channels / _channels(self.first), "step": learner.optimizer.steps, "done": share == 1}
        noted["level"] = _level(share, noted["share"])
        if gone.any():
            stays = kept_channels(state.network, channel_labels(state.network), gone)
            noted["kept"] = {name: np.asarray(noted["kept"][name])[own].tolist() for name, own in stays.items()}
            noted["removed"] = {name: 1 - (1 - noted["removed"].get(name, 0.0)) * (1 - part) for name, part in removed.items()}
            state.best = (-1.0, state.epoch)  # earlier epochs are of other networks
            steps = learner.optimizer.steps
            maps = None
            if self.pictures:
                maps = map_moments(learner, self.pictures[steps % len(self.pictures)], read_maps(model, gone), steps)
            cut_state(state, gone, maps)
            most = learner.average.averaging.updates_within(self.window)
            state.updates = state.updates if most is None else min(state.updates, most)
            learner.go_on_with(state)
            # The same sums may differ in the last bits on other machines.
            learner.world.average_in_place(learner.weights.vector)
            learner.world.average_in_place(learner.average.values)

    def _goal(self, model: Model, scores: np.ndarray, latency: LatencyTable | None = None) -> Plan:
        """The plan of what is left in the end, by today's scores. latency: a corrected table for a budget of milliseconds."""
        wanted = self.wanted if latency is None else replace(self.wanted, latency=latency)
        return wanted.goal(model, self.original, lambda *_: scores)

    def _last_goal(self, model: Model, scores: np.ndarray, state: State) -> Plan:
        """The plan of the last cut; with a budget of milliseconds it is measured and corrected, where this machine is the table's."""
        table = self.wanted.latency
        if table is None:
            return self._goal(model, scores)
        try:
            timed = fitted_plan(table, self.wanted.budget, self.original, partial(self._goal, model, scores))
        except InputError as error:  # a training of hours is not lost for what cannot be measured now
            state.extra[_KEY]["told"] = [f"the last shape is as predicted, because measuring it failed: {error}"]
            return self._goal(model, scores)
        state.extra[_KEY]["told"] = list(timed.told)
        return timed.plan

    def _choice(self, model: Model, state: State, learner: Learner, share: float) -> tuple[np.ndarray, Plan, dict[str, float]]:
        """Mask of the labels that go now, bool `[labels.count]`; the plan of what is left in the end, by today's scores; and the share of the
        importance that goes now, by group, and under "" of all groups that may be cut."""
        labels = channel_labels(model.network)
        criterion = learner.taylor.criterion if learner.taylor is not None else self.wanted.criterion
        scores = channel_scores(criterion, model, labels, self.wanted.seed)
        goal = self._goal(model, scores) if share < 1 or learner.world.size > 1 else self._last_goal(model, scores, state)
        widths = {group.name: len(group) for group in channel_labels(self.first).groups}
        gone = np.zeros(labels.count, bool)
        for index, (group, planned) in enumerate(zip(labels.groups, goal.groups, strict=True)):
            count = count_at(share, widths.get(group.name, 1), planned.after, index)  # 1: see `plan`
            gone[group.labels[np.argsort(-scores[group.labels], kind="stable")[count:]]] = True
        parts = {group.name: _part(scores, group.labels, gone) for group in labels.groups}
        free = [group.labels for group, planned in zip(labels.groups, goal.groups, strict=True) if planned.reason is None]
        parts[""] = _part(scores, np.concatenate(free), gone)
        return gone, goal, parts

    def columns(self, state: State) -> dict[str, float]:
        """Columns of results.csv: shares of the original's channels and MACs that the network has now."""
        now, whole = (network_cost(network, _side(network, state.image_size)) for network in (state.network, self.original))
        return {"cut/channels": now.channels / whole.channels, "cut/macs": now.macs / whole.macs}


def told_of_the_last_cut(state: State) -> list[str]:
    """Lines for people about the time of the network that the training in `state` has cut to a budget of milliseconds."""
    return [str(line) for line in state.extra.get(_KEY, {}).get("told", [])]


def whole_cut(state: State) -> Plan:
    """The plan of everything that the training in `state` has dropped and cut, from the network that it was given; settings are those of the cutting.

    The importance removed is what no cut left, each by the scores of its time, as where plans are `octrim.pruning.plan.composed`.
    """
    noted, side = state.extra[_KEY], _side(state.network, state.image_size)
    original, first = _original(state), _first(state)
    before, after = (network_cost(network, side) for network in (original, state.network))
    left = {group.name: len(group) for group in channel_labels(state.network).groups}
    wanted = GradualCut.remembered(state)
    assert wanted is not None
    excluded = {name for pattern in wanted.exclude for name in matching_convs(first, pattern, "exclude")}
    groups = tuple(
        PlannedGroup(
            group.name,
            group.convs,
            len(group),
            left[group.name],
            noted["removed"][group.name],
            sum(before.convs[name].macs for name in group.convs),
            sum(after.convs[name].macs for name in group.convs),
            group.reason or ("excluded" if excluded.intersection(group.convs) else None),
        )
        for group in channel_labels(first).groups
    )
    # A checkpoint sorts its keys: the table's order makes the plan of a resumed run that of an undisturbed one, byte for byte.
    kept = {row.name: np.asarray(noted["kept"][row.name]) for row in first.convs}
    dropped = missing_rows(original, first)
    return Plan(
        groups, kept, state.network, before, after, noted["removed"][""], wanted.settings, dropped, told(original, dropped) if dropped else ""
    )


def count_at(share: float, width: int, final: int, group: int) -> int:
    """Number of channels that a group of `width` channels has when `share` (0..1) of the curve is over, and `final` at its end.

    Cubic: final + (width - final) (1 - share)^3. group: number of the group. It decides how the count is rounded, so that not all groups of the same
    width lose a channel at the same time.
    """
    rounding = (group + 1) * _GOLDEN % 1
    return final + math.floor((width - final) * (1 - share) ** 3 + rounding)


_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are spread evenly however many there are


def _level(share: float, final: float) -> int:
    """Number of cuts of AT_ONCE that the curve is worth when `share` of it is over. final: share of all channels that is left at the end."""
    return math.floor(-math.log(final + (1 - final) * (1 - share) ** 3) / AT_ONCE)


def _original(state: State) -> Network:
    """The network that the training in `state` was given, before rows were dropped from it."""
    noted = state.extra[_KEY]
    return Network.from_json(noted["table"], noted.get("anchors", [list(level) for level in state.network.anchors]))


def _first(state: State) -> Network:
    """The network that the training in `state` began with, after rows were dropped."""
    original = _original(state)
    dropped = missing_rows(original, state.network)
    return without(original, dropped) if dropped else original


def _part(scores: np.ndarray, labels: np.ndarray, gone: np.ndarray) -> float:
    """Share of the labels' importance that goes, 0..1."""
    return float(scores[labels[gone[labels]]].sum() / max(scores[labels].sum(), np.finfo(float).tiny))


def _channels(network: Network) -> int:
    return sum(row.channels for row in network.convs)


def _side(network: Network, side: int) -> int:
    """The smallest multiple of the network's stride from `side` on."""
    return -(-side // network.stride) * network.stride
