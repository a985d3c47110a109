"""`octrim info`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from octrim.options import ImageSize, OneNetwork

if TYPE_CHECKING:
    from rich.table import Table

    from octrim.network.cost import Cost
    from octrim.network.model import Model
    from octrim.network.rows import Network


@dataclass(frozen=True)
class Info(OneNetwork):
    """Show a network: its rows, parameters, MACs, coupled channels and lineage."""

    command: ClassVar[str] = "info"

    imgsz: ImageSize = None
    """Side, or height and width, in pixels, that MACs are counted for (default: what the network was made for)."""

    def run(self) -> None:
        from octrim.network.cost import network_cost, shapes
        from octrim.network.options import image_size, model_from
        from octrim.network.yolov5 import anchors_to_fit
        from octrim.pruning.labels import channel_labels
        from octrim.runs import wide_console

        to_fit = self.cfg is not None and anchors_to_fit(self.cfg)
        model = model_from(self, anchors_to_fit=True)
        network = model.network
        size = image_size(self.imgsz, model.image_size, network.stride)
        cost = network_cost(network, *size)
        coupled = {name: group.name for group in channel_labels(network).groups if len(group.convs) > 1 for name in group.convs}
        console = wide_console()
        console.print(_table(f"{self.weights or self.cfg} at {size[0]}x{size[1]}", network, cost, shapes(network, *size), coupled))
        for line in _lines(model, cost, to_fit):
            console.print(line, soft_wrap=True)


def _table(title: str, network: Network, cost: Cost, maps: Mapping[str, tuple[int, ...]], coupled: Mapping[str, str]) -> Table:
    """A line per row. maps: shapes of the outputs by row. coupled: by convolution the group of channels that it shares with others."""
    from rich.table import Table

    table = Table(title=title)
    for column in ("row", "op", "reads", "output", "kernel", "activation", "coupled in"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "MACs, M"):
        table.add_column(column, justify="right")
    for row in network.rows:
        kernel = f"{row.kernel}x{row.kernel} / {row.stride}" if row.op in ("conv", "maxpool") else ""
        if row.op == "conv" and row.groups > 1:
            kernel += f", {row.groups} groups"
        output = "x".join(map(str, maps[row.name])) if row.name in maps else f"strides {', '.join(map(str, network.strides))}"
        conv = cost.convs.get(row.name)
        numbers = (f"{conv.parameters:,}", f"{conv.macs / 1e6:,.1f}") if conv else ("", "")
        table.add_row(row.name, row.op, ", ".join(row.inputs), output, kernel, row.activation or "", coupled.get(row.name, ""), *numbers)
    return table


def _lines(model: Model, cost: Cost, to_fit: bool) -> list[str]:
    """Lines about the network as a whole. to_fit: whether its anchors are provisional, because the layout gives only their number."""
    network = model.network
    anchors = "; ".join(" ".join(f"{width:g},{height:g}" for width, height in level) for level in network.anchors)
    if to_fit:
        anchors = f"{len(network.anchors[0])} per level, fitted to the data before training"
    return [
        f"parameters    {cost.parameters:,}",
        f"MACs          {cost.macs:,} ({2 * cost.macs / 1e9:.2f} GFLOPs)",
        f"convolutions  {len(cost.convs)} with {cost.channels:,} output channels",
        f"feature maps  {cost.activation_bytes / 2**20:.1f} MiB in all, {cost.peak_bytes / 2**20:.1f} MiB alive at once (float32)",
        f"strides       {', '.join(map(str, network.strides))}",
        f"anchors       {anchors}",
        f"classes       {network.classes}: {', '.join(model.names)}",
        *(f"lineage       {', '.join(f'{key} {_setting(value)}' for key, value in step.items())}" for step in model.lineage),
    ]


def _setting(value: object) -> str:
    """A setting of a step of the lineage. A keep-map of a whole plan has a line's length in every few of its groups: only their number is shown."""
    return f"of {len(value)} groups" if isinstance(value, Mapping) and len(value) > _FEW else str(value)


_FEW = 6
"""Most entries of a keep-map that are shown."""
