"""Plans of a compression: what the options ask for, in one cut, in several, or within fine-tuning, and the latency table that they are made by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from octrim.compression.options import Compression
from octrim.compression.presets import Preset
from octrim.latency.budget import wants_times
from octrim.latency.table import LatencyTable, read_table
from octrim.network.adapt import with_activation
from octrim.network.dropping import rows_to_drop, without
from octrim.network.model import Model
from octrim.network.rows import Network
from octrim.pruning.budget import EVEN, LATENCY, parsed_budget
from octrim.pruning.dropped_for_budget import dropped_for_budget, names_that_may_go
from octrim.pruning.fractions import parse_fraction
from octrim.pruning.importance import Criterion
from octrim.pruning.plan import Plan, plan
from octrim.pruning.spectra import fraction_align


def keep_of(config: Compression) -> str | None:
    """Fraction of its channels that every convolution keeps, by default 1/8; None where a budget alone, or no cut at all, says what is left."""
    return "1/8" if config.keep is None and config.budget is None and config.student is None else config.keep


def cuts_channels(config: Compression) -> bool:
    """Whether channels are cut, and not only rows dropped."""
    return config.budget is not None or config.keep_map is not None or parse_fraction(keep_of(config), "keep") != 1


def planned(
    config: Compression,
    preset: Preset,
    keep_map: dict[str, Any],
    model: Model,
    original: Network,
    step: int,
    criterion: str | Criterion,
    latency: LatencyTable | None = None,
) -> Plan:
    """The plan of one cut of `model`, to the fraction keep^(step / steps) of the original; a budget and a keep-map get the same power.

    latency: the table for a budget of milliseconds, by default that of the options.
    """
    share = Fraction(step, preset.cut_steps)
    keep, latency = keep_of(config), latency or times_of(config)
    if latency is not None and config.activation is not None:
        model = with_activation(model, config.activation)  # whose time the budget is about
    keep = None if keep is None else stepped(keep, share)
    budget = None if config.budget is None else _stepped_budget(config.budget, share, original, latency)
    fractions = {pattern: stepped(value, share) for pattern, value in keep_map.items()}
    size = (model.image_size, model.image_size)
    nearest = preset.cut_epochs > 0  # cuts within a training round to the nearest multiple
    options: dict[str, Any] = {"drop": config.patterns, "levels": config.strides, "nearest": nearest, "latency": latency}
    return plan(model, keep, config.align, criterion, config.exclude, fractions, config.seed, size, budget, original, **options)


def with_macs(config: Compression, preset: Preset, keep_map: dict[str, Any], whole: Model) -> Compression:
    """The options with the budget of MACs that a plan by variance spends where a fraction alone says what is left; others as they are.

    whole: the network before the first cut. Raises InputError as `planned` does.
    """
    if preset.widths != "variance" or config.budget is not None:
        return config
    counted = replace(config, align=fraction_align(EVEN if config.align == "auto" else config.align, keep_map))
    uniform = planned(counted, preset, keep_map, whole, whole.network, preset.cut_steps, "random")
    return replace(config, keep=None, budget=uniform.macs_budget(whole.network))


def with_what_must_go(
    config: Compression, preset: Preset, keep_map: dict[str, Any], base: Model, criterion: str, latency: LatencyTable | None = None
) -> Compression:
    """The options with rows to drop in place of `auto`: none where the budget can be met without, else as many as may go, some of which will.

    latency: as for `planned`.

    Raises UnmetBudgetError where nothing meets the budget, and InputError as `planned` does.
    """
    if not any(config.chooses):
        return config
    left = without(base.network, rows_to_drop(base.network, config.patterns, config.strides))

    def with_rows_gone(drop: Sequence[str], levels: Sequence[int]) -> Compression:
        return replace(config, drop=(*config.patterns, *drop), levels=tuple(levels) or config.strides)

    def make(drop: Sequence[str], levels: Sequence[int]) -> Plan:
        return planned(with_rows_gone(drop, levels), preset, keep_map, base, base.network, preset.cut_steps, criterion, latency)

    return with_rows_gone(*dropped_for_budget(left, names_that_may_go(left, *config.chooses), make))


def checking_criterion(config: Compression, preset: Preset) -> str:
    """The criterion that a plan is checked with before anything trains; how many channels go does not depend on the ranking, or hardly.

    taylor needs gradients of training pictures: a criterion that needs batch norm where taylor does takes its place.
    """
    if preset.cut_epochs:
        criterion, instead = config.criterion or preset.gradual_criterion, "signal"  # as for `octrim.training.cutting.GradualCut.check`
    else:
        criterion, instead = config.criterion or ("bn" if preset.sparsify_epochs else preset.criterion), "bn"
    return instead if criterion == "taylor" else criterion


def times_of(config: Compression) -> LatencyTable | None:
    """The latency table of a run with a budget of milliseconds, for networks with the activation of the options, too."""
    path = table_of(config)
    if path is None:
        return None
    table = read_table(path)
    return table if config.activation is None else table.with_activation(config.activation)


def table_of(config: Compression) -> str | None:
    """The file of that table. A run of an OcTrim that did not refuse a table of no use may name one without such a budget."""
    return config.latency_table if wants_times(config.budget) else None


def sparsity(config: Compression, preset: Preset, keep_map: dict[str, Any]) -> dict[str, Any]:
    """Options of a sparsity training that sets to zero as many channels as the plan will cut.

    Groups with their own fraction in the keep-map are left alone, because the target does not hold for them.
    """
    if config.budget is None:
        aim = {"scope": "group", "target": str(1 - parse_fraction(keep_of(config), "keep"))}
    else:
        aim = {"scope": "network", "target": preset.dead}
    mapped = [name.partition("~")[0] for name in keep_map]  # of a group's key the convolution that it begins with
    return {**aim, "align": config.align, "exclude": (*config.exclude, *mapped)}


def stepped(value: object, share: Fraction) -> str:
    """The power value^share as text; `value` itself as text where the share is 1."""
    if share == 1:
        return str(value)
    return str(Fraction(float(parse_fraction(value, "fraction")) ** float(share)).limit_denominator(10_000))


def _stepped_budget(budget: str, share: Fraction, original: Network, latency: LatencyTable | None) -> str:
    """The budget of one of several cuts: its fraction of the whole network to the power `share`."""
    what, value = parsed_budget(budget)
    if what != LATENCY or share == 1 or latency is None:
        return f"{what}={stepped(value, share)}"
    whole = replace(latency, correction=1.0).predict(original)
    return f"{what}={whole * (latency.limit(value, original) / whole) ** float(share):.9f}"
