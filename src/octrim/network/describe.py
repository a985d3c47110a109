"""`octrim info`: a network for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from octrim.network.cost import network_cost, shapes
from octrim.network.options import image_size, model_from
from octrim.network.yolov5 import anchors_to_fit
from octrim.runs import wide_console

if TYPE_CHECKING:
    from octrim.commands import Info


def info(config: Info) -> None:
    from octrim.pruning.labels import channel_labels  # looks up, as a description of the whole must

    to_fit = config.cfg is not None and anchors_to_fit(config.cfg)
    model = model_from(config, anchors_to_fit=True)
    network = model.network
    height, width = image_size(config.imgsz, model.image_size, network.stride)
    cost, maps = network_cost(network, height, width), shapes(network, height, width)
    coupled = {name: group.name for group in channel_labels(network).groups if len(group.convs) > 1 for name in group.convs}
    table = Table(title=f"{config.weights or config.cfg} at {height}x{width}")
    for column in ("row", "op", "reads", "output", "kernel", "activation", "coupled in"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "MACs, M"):
        table.add_column(column, justify="right")
    for row in network.rows:
        kernel = f"{row.kernel}x{row.kernel} / {row.stride}" + f", {row.groups} groups" * (row.groups > 1) if row.op in ("conv", "maxpool") else ""
        output = "x".join(map(str, maps[row.name])) if row.name in maps else f"strides {', '.join(map(str, network.strides))}"
        conv = cost.convs.get(row.name)
        numbers = (f"{conv.parameters:,}", f"{conv.macs / 1e6:,.1f}") if conv else ("", "")
        table.add_row(row.name, row.op, ", ".join(row.inputs), output, kernel, row.activation or "", coupled.get(row.name, ""), *numbers)
    console = wide_console()
    console.print(table)
    anchors = "; ".join(" ".join(f"{w:g},{h:g}" for w, h in level) for level in network.anchors)
    if to_fit:
        anchors = f"{len(network.anchors[0])} per level, fitted to the data before training"
    lines = [
        f"parameters    {cost.parameters:,}",
        f"MACs          {cost.macs:,} ({2 * cost.macs / 1e9:.2f} GFLOPs)",
        f"convolutions  {len(cost.convs)} with {cost.channels:,} output channels",
        f"feature maps  {cost.activation_bytes / 2**20:.1f} MiB in all, {cost.peak_bytes / 2**20:.1f} MiB alive at once (float32)",
        f"strides       {', '.join(map(str, network.strides))}",
        f"anchors       {anchors}",
        f"classes       {network.classes}: {', '.join(model.names)}",
        *(f"lineage       {', '.join(f'{key} {value}' for key, value in step.items())}" for step in model.lineage),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
