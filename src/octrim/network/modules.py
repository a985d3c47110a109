"""Writes the modules that layouts may name as rows: `Conv`, `C3`, `SPPF` and others that YOLOv5 publishes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from octrim.errors import InputError, shown
from octrim.network.rows import Row
from octrim.network.table import Call, Stored, Table

TORCH_ACTIVATIONS = {
    "SiLU": "silu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "Hardswish": "hardswish",
    "Mish": "mish",
    "MemoryEfficientMish": "mish",
    "Sigmoid": "sigmoid",
    "Identity": None,
}
"""Class names, in PyTorch and YOLOv5, of activations that need no argument, and their names in rows."""


def activation_of(value: object, default: str | None, place: str) -> str | None:
    """Return the name in rows of an activation in YAML: True (the default), False or None (none), or text such as `nn.LeakyReLU(0.1)`.

    place: file and line for errors. Raises InputError for an activation that is not supported.
    """
    if value is True:
        return default
    if value is False or value is None:
        return None
    match = re.fullmatch(r"(?:torch\.)?(?:nn\.)?(\w+)\(([^()]*)\)", value.strip()) if isinstance(value, str) else None
    if match and match[1] in TORCH_ACTIVATIONS:
        return TORCH_ACTIVATIONS[match[1]]
    if match and match[1] == "LeakyReLU":
        slope = re.match(r"\s*(?:negative_slope\s*=\s*)?([0-9.eE+-]+)", match[2])
        try:
            return f"leaky_relu:{float(slope[1]) if slope else 0.01:g}"
        except ValueError:
            pass
    known = ", ".join(f"nn.{name}()" for name in [*TORCH_ACTIVATIONS, "LeakyReLU"])
    raise InputError(f"{place}: activation {shown(value)} is not supported; supported are {known}")


def _undilated(call: Call, dilation: object) -> None:
    if dilation != 1:
        raise InputError(f"{call.place}: dilation {shown(dilation)} is not supported")


def _grouped(call: Call, groups: int, *channels: int) -> None:
    if any(count % groups for count in channels):
        counts = " and ".join(map(str, channels))
        raise InputError(f"{call.place}: {groups} groups do not divide {counts} channels")


def _conv(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", "s", "p", "g", "d", "act", k=1, s=1, p=None, g=1, d=1, act=True)
    channels = call.channels(table, a["c2"])
    kernel, stride = call.integer(a["k"], "kernel"), call.integer(a["s"], "stride")
    padding = None if a["p"] is None else call.integer(a["p"], "padding", least=0)
    groups = call.integer(a["g"], "groups")
    _undilated(call, a["d"])
    activation = activation_of(a["act"], table.activation, call.place)

    def build(name: str, x: str) -> str:
        if channels % groups or table.channels[x] % groups:
            raise InputError(f"{call.place}: {groups} groups do not divide {table.channels[x]} input and {channels} output channels")
        return table.conv(name, x, channels, kernel, stride, padding, groups, activation)

    return call.chain(table, build)


def _depthwise(table: Table, name: str, x: str, channels: int, kernel: int, stride: int, act: object) -> str:
    """Add the rows of YOLOv5's `DWConv`, a convolution with as many groups as input and output channels allow."""
    groups = math.gcd(table.channels[x], table.width_of(f"{name}.conv", channels))
    return table.conv(name, x, channels, kernel, stride, groups=groups, act=act)


def _dwconv(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", "s", "d", "act", k=1, s=1, d=1, act=True)
    channels = call.channels(table, a["c2"])
    kernel, stride = call.integer(a["k"], "kernel"), call.integer(a["s"], "stride")
    _undilated(call, a["d"])
    activation = activation_of(a["act"], table.activation, call.place)
    return call.chain(table, lambda name, x: _depthwise(table, name, x, channels, kernel, stride, activation))


def _focus(table: Table, call: Call) -> str:
    """Add the rows of `Focus`, which stacks the four pixels of every 2x2 square as channels, as a convolution of twice the size over the pixels."""
    a = call.bind("c2", "k", "s", "p", "g", "act", k=1, s=1, p=None, g=1, act=True)
    channels = call.channels(table, a["c2"])
    kernel, stride = call.integer(a["k"], "kernel"), call.integer(a["s"], "stride")
    padding = kernel // 2 if a["p"] is None else call.integer(a["p"], "padding", least=0)
    if a["g"] != 1:
        raise InputError(f"{call.place}: Focus with {shown(a['g'])} groups is not supported")
    activation = activation_of(a["act"], table.activation, call.place)

    def build(name: str, x: str) -> str:
        conv = f"{name}.conv"
        stored = Stored(f"{conv}.conv", f"{conv}.bn", f"{conv}.act", focus=True)
        return table.conv(conv, x, channels, 2 * kernel, 2 * stride, 2 * padding, act=activation, stored=stored)

    return call.chain(table, build)


def _hidden(call: Call, channels: int, expansion: float) -> int:
    """Return the channels inside a block. Raises InputError where none are left."""
    hidden = int(channels * expansion)
    if hidden < 1:
        raise InputError(f"{call.place}: no channels left at expansion {expansion}")
    return hidden


def _bottleneck(table: Table, call: Call, name: str, x: str, channels: int, shortcut: bool, groups: int, expansion: float) -> str:
    hidden = _hidden(call, channels, expansion)
    _grouped(call, groups, hidden, channels)
    y = table.conv(f"{name}.cv2", table.conv(f"{name}.cv1", x, hidden), channels, 3, groups=groups)
    return table.shortcut(name, shortcut, x, y)


def _block_arguments(table: Table, call: Call) -> tuple[int, bool, int, float]:
    a = call.bind("c2", "shortcut", "g", "e", shortcut=True, g=1, e=0.5)
    if type(a["shortcut"]) is not bool:
        raise InputError(f"{call.place}: shortcut is {shown(a['shortcut'])}, expected True or False")
    if type(a["e"]) not in (int, float) or not 0 < a["e"] <= 100:
        raise InputError(f"{call.place}: expansion is {shown(a['e'])}, expected a positive number")
    return call.channels(table, a["c2"]), a["shortcut"], call.integer(a["g"], "groups"), float(a["e"])


def _bottlenecks(table: Table, call: Call) -> str:
    channels, shortcut, groups, expansion = _block_arguments(table, call)
    return call.chain(table, lambda name, x: _bottleneck(table, call, name, x, channels, shortcut, groups, expansion))


def _c3_of(table: Table, call: Call, inner: Callable[[str, str, int, bool, int], str]) -> str:
    """Add the rows of a `C3` whose middle is a sequence of `inner(name, input, channels, shortcut, groups)`."""
    channels, shortcut, groups, expansion = _block_arguments(table, call)
    hidden, source = _hidden(call, channels, expansion), call.inputs[0]
    x = table.conv(f"{call.name}.cv1", source, hidden)
    for index in range(table.repeated(call.repeats, f"{call.name}.m")):
        x = inner(f"{call.name}.m.{index}", x, hidden, shortcut, groups)
    y = table.conv(f"{call.name}.cv2", source, hidden)
    joined = table.add(Row(f"{call.name}.concat", "concat", (x, y)))
    return table.conv(f"{call.name}.cv3", joined, channels)


def _c3(table: Table, call: Call) -> str:
    return _c3_of(table, call, lambda name, x, channels, shortcut, groups: _bottleneck(table, call, name, x, channels, shortcut, groups, 1.0))


def _bottleneck_csp(table: Table, call: Call) -> str:
    """Add the rows of `BottleneckCSP` of YOLOv5 v1 to v3, whose batch norm over the concatenation of two bare convolutions is split between them."""
    channels, shortcut, groups, expansion = _block_arguments(table, call)
    hidden, name, source = _hidden(call, channels, expansion), call.name, call.inputs[0]
    x = table.conv(f"{name}.cv1", source, hidden)
    for index in range(table.repeated(call.repeats, f"{call.name}.m")):
        x = _bottleneck(table, call, f"{name}.m.{index}", x, hidden, shortcut, groups, 1.0)
    norm, activation = f"{name}.bn", f"{name}.act"
    left = table.conv(f"{name}.cv3", x, hidden, stored=Stored(f"{name}.cv3", norm, activation))
    right = table.conv(f"{name}.cv2", source, hidden, stored=Stored(f"{name}.cv2", norm, activation, first=table.channels[left]))
    joined = table.add(Row(f"{name}.concat", "concat", (left, right)))
    return table.conv(f"{name}.cv4", joined, channels)


def _ghost(table: Table, call: Call, name: str, x: str, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: object = True) -> str:
    """Add the rows of `GhostConv` (Han et al. 2020): a convolution gives half of the channels, and a depthwise 5x5 one makes the rest from them."""
    half = table.width_of(f"{name}.cv1.conv", channels // 2)
    if half < 1:
        raise InputError(f"{call.place}: {channels} channels have no half")
    _grouped(call, groups, table.channels[x], half)
    y = table.conv(f"{name}.cv1", x, half, kernel, stride, groups=groups, act=act)
    cheap = table.conv(f"{name}.cv2", y, half, 5, groups=half, act=act)
    return table.add(Row(f"{name}.concat", "concat", (y, cheap)))


def _ghost_conv(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", "s", "g", "act", k=1, s=1, g=1, act=True)
    channels = call.channels(table, a["c2"])
    kernel, stride, groups = (call.integer(a[key], what) for key, what in (("k", "kernel"), ("s", "stride"), ("g", "groups")))
    activation = activation_of(a["act"], table.activation, call.place)
    return call.chain(table, lambda name, x: _ghost(table, call, name, x, channels, kernel, stride, groups, activation))


def _ghost_bottleneck(table: Table, call: Call, name: str, x: str, channels: int, kernel: int = 3, stride: int = 1) -> str:
    y = _ghost(table, call, f"{name}.conv.0", x, channels // 2)
    other = x
    if stride == 2:
        y = _depthwise(table, f"{name}.conv.1", y, table.channels[y], kernel, stride, None)
        other = _depthwise(table, f"{name}.shortcut.0", x, table.channels[x], kernel, stride, None)
        other = table.conv(f"{name}.shortcut.1", other, channels, act=None)
    y = _ghost(table, call, f"{name}.conv.2", y, channels, act=None)
    if table.channels[y] != table.channels[other]:
        raise InputError(f"{call.place}: GhostBottleneck adds {table.channels[other]} channels to {table.channels[y]}")
    return table.add(Row(f"{name}.add", "add", (y, other)))


def _ghost_bottlenecks(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", "s", k=3, s=1)
    channels, kernel, stride = call.channels(table, a["c2"]), call.integer(a["k"], "kernel"), call.integer(a["s"], "stride")
    if stride > 2:
        raise InputError(f"{call.place}: GhostBottleneck with stride {stride}, expected 1 or 2")
    return call.chain(table, lambda name, x: _ghost_bottleneck(table, call, name, x, channels, kernel, stride))


def _c3_ghost(table: Table, call: Call) -> str:
    return _c3_of(table, call, lambda name, x, channels, _shortcut, _groups: _ghost_bottleneck(table, call, name, x, channels))


def _shuffle_stage(table: Table, call: Call) -> str:
    """Add the rows of a stage of ShuffleNetV2 (Ma et al. 2018): a unit that halves the map, and units of which each passes on half of its channels.

    A map is four rows, each a quarter of the channels, until the stage's end: halves are then passed on without an op that splits, and the channel
    shuffle between the halves moves whole quarters where the published one moves single channels.
    """
    a = call.bind("c2", "k", k=3)
    channels, kernel = call.channels(table, a["c2"]), _odd_kernel(call, a["k"])
    if channels % 4:
        raise InputError(f"{call.place}: ShuffleNetV2 has {channels} channels, expected a multiple of 4")

    def quarters(name: str, x: str, stride: int) -> tuple[str, str]:
        """Add a depthwise convolution and two 1x1 ones that read it, each a quarter of the stage's channels."""
        y = table.conv(f"{name}.cv2", x, table.channels[x], kernel, stride, groups=table.channels[x], act=None)
        return table.conv(f"{name}.cv3", y, channels // 4), table.conv(f"{name}.cv4", y, channels // 4)

    source = call.inputs[0]
    first, second = quarters(f"{call.name}.0.side", source, 2)
    for index in range(table.repeated(call.repeats, call.name)):
        name = f"{call.name}.{index}"
        half = table.conv(f"{name}.cv1", source, channels // 2)
        one, other = quarters(name, half, 1 if index else 2)
        passed, mixed = (first, one), (second, other)
        source = table.add(Row(f"{name}.concat", "concat", mixed))
        first, second = passed
    return table.add(Row(f"{call.name}.concat", "concat", (first, second, source)))


def _maxpool(table: Table, call: Call) -> str:
    a = call.bind("kernel_size", "stride", "padding", stride=None, padding=0)
    kernel, padding = call.integer(a["kernel_size"], "kernel"), call.integer(a["padding"], "padding", least=0)
    stride = kernel if a["stride"] is None else call.integer(a["stride"], "stride")
    return call.chain(table, lambda name, x: table.add(Row(name, "maxpool", (x,), kernel=kernel, stride=stride, padding=padding)))


def _zero_pad(table: Table, call: Call) -> str:
    """Add zero padding as a depthwise convolution: `b` zeros around the map and a window of b - a + 1 give a zeros before it and b behind it."""
    sides = call.bind("padding")["padding"]
    sides = [sides] * 4 if type(sides) is int else sides
    if not isinstance(sides, list) or len(sides) != 4 or sides[:2] != sides[2:]:
        raise InputError(f"{call.place}: nn.ZeroPad2d pads by {shown(sides)}, expected [left, right, top, bottom], the same on both axes")
    before, behind = (call.integer(side, "padding", least=0) for side in sides[:2])
    if before > behind or behind == 0:
        raise InputError(f"{call.place}: nn.ZeroPad2d by {before} before the map and {behind} behind it; rows can say no less behind it than before")

    def build(name: str, x: str) -> str:
        table.stored[name] = Stored(name, pads=(before, behind))
        channels = table.channels[x]
        return table.add(Row(name, "conv", (x,), channels, behind - before + 1, 1, behind, channels))

    return call.chain(table, build)


def _pool(table: Table, name: str, x: str, kernel: int) -> str:
    return table.add(Row(name, "maxpool", (x,), kernel=kernel, padding=kernel // 2))


def _odd_kernel(call: Call, value: object) -> int:
    kernel = call.integer(value, "kernel")
    if kernel % 2 == 0:
        raise InputError(f"{call.place}: a pooling window of {kernel} changes the map's size; expected an odd one")
    return kernel


def _sppf(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", k=5)
    channels, kernel = call.channels(table, a["c2"]), _odd_kernel(call, a["k"])

    def build(name: str, x: str) -> str:
        maps = [table.conv(f"{name}.cv1", x, table.channels[x] // 2)]
        for index in range(3):
            maps.append(_pool(table, f"{name}.m.{index}", maps[-1], kernel))
        return table.conv(f"{name}.cv2", table.add(Row(f"{name}.concat", "concat", tuple(maps))), channels)

    return call.chain(table, build)


def _spp(table: Table, call: Call) -> str:
    a = call.bind("c2", "k", k=[5, 9, 13])
    channels = call.channels(table, a["c2"])
    if not isinstance(a["k"], list) or not a["k"]:
        raise InputError(f"{call.place}: SPP windows are {shown(a['k'])}, expected a list such as [5, 9, 13]")
    kernels = [_odd_kernel(call, kernel) for kernel in a["k"]]

    def build(name: str, x: str) -> str:
        y = table.conv(f"{name}.cv1", x, table.channels[x] // 2)
        maps = [y, *(_pool(table, f"{name}.m.{index}", y, kernel) for index, kernel in enumerate(kernels))]
        return table.conv(f"{name}.cv2", table.add(Row(f"{name}.concat", "concat", tuple(maps))), channels)

    return call.chain(table, build)


def _concat(table: Table, call: Call) -> str:
    if call.bind("dimension", dimension=1)["dimension"] != 1 or call.repeats != 1:
        raise InputError(f"{call.place}: Concat joins channels (dimension 1), once")
    return table.add(Row(call.name, "concat", tuple(call.inputs)))


def _upsample(table: Table, call: Call) -> str:
    a = call.bind("size", "scale_factor", "mode", size=None, scale_factor=2, mode="nearest")
    if a["size"] is not None or a["mode"] != "nearest" or call.repeats != 1:
        raise InputError(f"{call.place}: nn.Upsample is supported as [None, factor, nearest], once")
    return table.add(Row(call.name, "upsample", tuple(call.inputs), stride=call.integer(a["scale_factor"], "factor")))


def add_detect(table: Table, name: str, inputs: list[str]) -> None:
    """Add the rows of Detect: one convolution per level, and the last row, which reads them."""
    heads = []
    for level, x in enumerate(inputs):
        head = f"{name}.m.{level}"
        table.stored[head] = Stored(head)
        heads.append(table.add(Row(head, "conv", (x,), table.head_channels, bias=True)))
    table.add(Row(name, "detect", tuple(heads)))


MODULES: Mapping[str, Callable[[Table, Call], str]] = {
    "Conv": _conv,
    "DWConv": _dwconv,
    "Focus": _focus,
    "Bottleneck": _bottlenecks,
    "BottleneckCSP": _bottleneck_csp,
    "C3": _c3,
    "GhostConv": _ghost_conv,
    "GhostBottleneck": _ghost_bottlenecks,
    "C3Ghost": _c3_ghost,
    "ShuffleNetV2": _shuffle_stage,
    "SPP": _spp,
    "SPPF": _sppf,
    "Concat": _concat,
    "nn.Upsample": _upsample,
    "nn.MaxPool2d": _maxpool,
    "nn.ZeroPad2d": _zero_pad,
}
"""The modules that a layout may name besides Detect, and the functions that write them as rows."""

PRUNED = {"C3Pruned": "C3", "SPPFPruned": "SPPF", "SPPPruned": "SPP", "BottleneckPruned": "Bottleneck", "BottleneckCSPPruned": "BottleneckCSP"}
"""Modules of pruned forks, and the published ones that they equal but for channel counts, which only a checkpoint's tensors tell."""

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("nn.ConvTranspose2d", "ConvTranspose", "DWConvTranspose2d"), "a transposed convolution, which rows cannot say"),
    **dict.fromkeys(("C3TR", "TransformerBlock", "TransformerLayer", "C3STR", "SwinTransformerBlock"), "a transformer, which rows cannot say"),
    **dict.fromkeys(("CrossConv", "C3x", "MixConv2d"), "a convolution with windows that are not square or of several sizes, which rows cannot say"),
    **dict.fromkeys(("Contract", "Expand"), "a regrouping of pixels and channels, which rows cannot say"),
    **dict.fromkeys(("Segment", "Proto"), "the head of a segmentation network; OcTrim has detectors only"),
    "Classify": "the head of a classification network; OcTrim has detectors only",
    **dict.fromkeys(("IDetect", "IAuxDetect", "IBin", "IKeypoint", "RepConv", "SPPCSPC", "MP", "ReOrg"), "a module of YOLOv7"),
    **dict.fromkeys(("C2f", "C2", "C3k2", "C2PSA", "A2C2f", "Pose", "OBB"), "a module of YOLOv8 or newer"),
}
"""Modules that are known but not supported, and the reason for each."""
