"""Shapes that cost the same, among which `octrim compress --search` looks for the best: where the channels go, and which blocks and levels stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from octrim.compression.options import Compression
from octrim.compression.planning import keep_of
from octrim.errors import InputError
from octrim.network.cost import shapes as map_shapes
from octrim.network.dropping import LEVEL, droppable
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.budget import EVEN, Latency
from octrim.pruning.labels import channel_labels
from octrim.pruning.plan import Plan, plan
from octrim.pruning.spectra import fraction_align

_STEPS = 32  # the fraction that all convolutions keep is a multiple of 1/_STEPS
_EARLY = 4  # largest stride of the layers that a thin start makes thin
_DRAWS = 4  # random shapes that are drawn per shape that is asked for


@dataclass(frozen=True)
class Shape:
    """A way to cut, in the options of a plan. name: a few words for people. keep: least fraction that any group keeps, None for none.

    drop, levels, keep_map: as `octrim.pruning.plan.plan` takes them. widths: what says how many channels each group keeps, importance or variance.
    macs, parameters: cost of the network that is planned, by its weights alone.
    """

    name: str
    drop: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    keep: str | None = None
    budget: str | None = None
    keep_map: Mapping[str, Any] = field(default_factory=dict)
    widths: str = "importance"
    macs: int = 0
    parameters: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "drop": list(self.drop), "levels": list(self.levels), "keep_map": dict(self.keep_map)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Shape:
        """The shape that `to_json` has written. Raises KeyError and TypeError for anything else."""
        return cls(**{**content, "drop": tuple(content["drop"]), "levels": tuple(content["levels"])})


def equal_shapes(
    config: Compression, keep_map: Mapping[str, Any], base: Model, count: int, latency: Latency | None = None, widths: str = "importance"
) -> list[Shape]:
    """Return `count` different shapes for one budget, that of the options, or of what the options leave in MACs where they name none.

    The first is what the options ask for. Then come, where they fit the network: by the variance of feature maps; least important steps first;
    without the coarsest level; wide and shallow (no bottlenecks); thin at the start and deep; some of these together; and shapes drawn by the seed.
    Where not importance alone decides, every group keeps as large a fraction as the budget allows, and what is left over goes to the most important
    channels. latency: what predicts milliseconds, for a budget of them. widths: what says how many channels each group keeps in the first shape.
    Maps are not measured here: a shape by their variance has the cost of one by importance, whatever its own will be within the same budget.
    Raises InputError where the budget cannot be met, and where fewer shapes than asked for are different and cost the same.
    """
    maker = _Maker(config, keep_map, base, latency, widths)
    found: list[Shape] = []
    networks: list[tuple[str, Network]] = []
    for shape in maker.candidates():
        made = maker.plan(shape)
        if made is None or (shape.widths, made.network) in networks:
            continue
        networks.append((shape.widths, made.network))
        found.append(replace(shape, macs=made.after.macs, parameters=made.after.parameters))
        if len(found) == count:
            return found
    raise InputError(f"search is {count}; only {len(found)} shapes of this network differ and cost the same")


class _Maker:
    """Plans of shapes of one network for one budget, by the sizes of the weights: what a shape may cost does not depend on the ranking."""

    def __init__(self, config: Compression, keep_map: Mapping[str, Any], base: Model, latency: Latency | None, widths: str) -> None:
        self.config, self.keep_map, self.base, self.latency = config, dict(keep_map), base, latency
        table_align = EVEN if latency is None else latency.align
        self.align = table_align if config.align == "auto" else config.align
        self.asked = Shape("as asked", config.patterns, config.strides, keep_of(config), config.budget, self.keep_map, widths)
        counted = fraction_align(self.align, self.keep_map) if widths == "variance" else self.align
        self.budget = config.budget or self._planned(self.asked, counted).macs_budget(base.network)
        if widths == "variance":
            self.asked = replace(self.asked, keep=config.keep if config.budget else None, budget=self.budget)

    def _planned(self, shape: Shape, align: int | None = None) -> Plan:
        size, config = (self.base.image_size, self.base.image_size), self.config
        options: dict[str, Any] = {"drop": shape.drop, "levels": shape.levels, "nearest": True, "latency": self.latency}
        return plan(self.base, shape.keep, align or self.align, "l2", config.exclude, shape.keep_map, config.seed, size, shape.budget, **options)

    def plan(self, shape: Shape) -> Plan | None:
        """The plan of a shape; None where its rows cannot go, its patterns contradict the options', or it cannot be as cheap as asked."""
        try:
            return self._planned(shape)
        except InputError:
            return None

    def filled(self, name: str, drop: Sequence[str] = (), levels: Sequence[int] = (), keep_map: Mapping[str, Any] | None = None) -> Shape:
        """The shape that keeps the largest fraction of every group that the budget allows, and spends the rest of the budget by importance."""
        dropped = (*self.config.patterns, *drop)
        shape = Shape(name, dropped, tuple(levels) or self.config.strides, None, self.budget, {**(keep_map or {}), **self.keep_map})
        low, high = 0, _STEPS  # the budget can be met with low / _STEPS at least, and not with high / _STEPS
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.plan(replace(shape, keep=str(Fraction(middle, _STEPS)))) is not None
            low, high = (middle, high) if fits else (low, middle)
        return replace(shape, keep=str(Fraction(low, _STEPS))) if low else shape

    def candidates(self) -> Iterator[Shape]:
        """Shapes in the order in which they are tried; some may be impossible, or the same as an earlier one."""
        network, config = self.base.network, self.config
        yield self.asked
        if self.asked.widths != "variance" and not config.sparsify_epochs:  # which has set channels to zero by importance
            yield Shape("by variance", config.patterns, config.strides, None, self.budget, self.keep_map, "variance")
        yield Shape("by importance", config.patterns, config.strides, None, self.budget, self.keep_map)
        levels = config.strides or network.strides
        fewer = tuple(sorted(levels)[:-1])
        coarsest = f"without stride {max(levels)}"
        if fewer:
            yield Shape(f"{coarsest}, by importance", config.patterns, fewer, None, self.budget, self.keep_map)
        chains = bottlenecks(network)
        if chains:
            yield self.filled("wide and shallow", chains)
        yield self.filled("thin start, deep", keep_map=self._thin_start())
        if fewer:
            yield self.filled(f"{coarsest}, every layer alike", levels=fewer)
            if chains:
                yield self.filled(f"{coarsest}, wide and shallow", chains, fewer)
        yield self.filled("every layer alike")
        generator = np.random.default_rng((config.seed, 7))
        for number in range(_DRAWS * (config.search or 1)):
            chosen = [name for name in chains if generator.random() < 0.5]
            some = fewer if fewer and generator.random() < 0.5 else ()
            shape = self.filled(f"drawn {number + 1}", chosen, some)
            if shape.keep is not None and generator.random() < 0.5:
                shape = replace(shape, keep=None)
            yield shape

    def _thin_start(self) -> dict[str, str]:
        """A keep-map that leaves the layers of the smallest strides as few channels as may be."""
        network, align = self.base.network, self.align
        side = 1024
        maps = map_shapes(network, side, side)
        early = [group for group in channel_labels(network).groups if group.reason is None and side // maps[group.convs[0]][1] <= _EARLY]
        return {name: str(Fraction(min(align, len(group)), len(group))) for group in early for name in group.convs}


def bottlenecks(network: Network) -> list[str]:
    """Names of the smallest blocks of more than one row, with convolutions in them, that can be dropped."""
    blocks = {name: set(gone) for name, gone in droppable(network).items() if not name.startswith(LEVEL) and len(gone) > 1}
    convs = {row.name for row in network.convs}
    smallest = [name for name, gone in blocks.items() if not any(other < gone for other in blocks.values())]
    return [name for name in smallest if blocks[name] & convs]
