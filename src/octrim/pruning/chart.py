"""The plan as a picture: channels of every convolution before and after."""

from __future__ import annotations

from pathlib import Path

from octrim.figures import new_figure, save_figure
from octrim.pruning.plan import Plan


def save_channel_chart(plan: Plan, path: Path) -> None:
    """Write a PNG with a bar per convolution: light before, dark after."""
    names = list(plan.before.convs)
    before = [plan.before.convs[name].channels for name in names]
    after = [len(plan.kept.get(name, ())) for name in names]
    figure = new_figure(max(8, 0.17 * len(names) + 1.5), 4.8)
    axes = figure.add_subplot()
    positions = range(len(names))
    axes.bar(positions, before, 0.85, color="#c6d4e1", label="before")
    axes.bar(positions, after, 0.85, color="#0b5394", label="after")
    axes.set_xticks(list(positions), [name.removeprefix("model.") for name in names], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel("channels")
    axes.set_xlabel("convolution")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    totals = [f"{getattr(plan.before, key):,} → {getattr(plan.after, key):,} {key}" for key in ("channels", "parameters")]
    axes.set_title(f"{totals[0]}, {totals[1]}, {plan.before.macs / 1e6:,.0f} → {plan.after.macs / 1e6:,.0f} M MACs", fontsize=10)
    save_figure(figure, path)
