"""The network is a table of rows, and `walk` is the one function that reads it.

Paddle, NumPy, ONNX, OpenVINO, cost, shapes and channel labels are each a small class with one method per op (`Ops`):

    heads = walk(network, NumpyOps(model), image)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, TypeVar

from octrim.errors import InputError, shown

T = TypeVar("T")

BATCH_NORM_EPS = 1e-3  # YOLOv5's value, not the 1e-5 that PyTorch and Paddle default to

MOST_ROWS = 10_000

_PROBE_SIDE = 1024

# Row names have no slash, and are not `output0`, `head0`, `head1`, ..: backends derive names with a slash and call their results so.
_NAME = re.compile(r"(?!(output0|head\d+)$)[\w.]{1,200}")

INPUTS = {"image": (0, 0), "conv": (1, 1), "add": (2, 2), "concat": (1, 64), "maxpool": (1, 1), "upsample": (1, 1), "detect": (1, 16)}
"""Every op, with the fewest and the most inputs that it takes."""

ACTIVATIONS = ("silu", "relu", "relu6", "leaky_relu", "hardswish", "mish", "sigmoid")


@dataclass(frozen=True)
class Row:
    """One step of the network. Fields that an op does not use keep their defaults.

    A convolution's tensors are named after the row, as in the official checkpoints: with batch norm `{name}.conv.weight` and
    `{name}.bn.{weight,bias,running_mean,running_var}`, without it `{name}.weight` and, where `bias`, `{name}.bias`.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    channels: int = 0  # conv and image: output channels; those of other ops follow from their inputs
    kernel: int = 1  # conv, maxpool: square window
    stride: int = 1  # conv, maxpool; upsample: the integer factor by which the map grows (nearest neighbour)
    padding: int = 0
    groups: int = 1
    bias: bool = False
    norm: bool = False
    activation: str | None = None  # one of ACTIVATIONS; `leaky_relu:0.1` carries its slope

    @property
    def weight_name(self) -> str:
        return f"{self.name}.conv.weight" if self.norm else f"{self.name}.weight"

    @property
    def pads(self) -> bool:
        """Whether the row is zero padding said as a convolution: depthwise, without batch norm, bias and activation. Its weights are `pad_weight`."""
        return self.op == "conv" and self.groups == self.channels and self.padding > 0 and not (self.norm or self.bias or self.activation)

    @property
    def norm_names(self) -> tuple[str, ...]:
        """Names of its batch norm's tensors: gamma, beta, running mean and running variance, each `[channels]`; none without batch norm."""
        return tuple(f"{self.name}.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")) if self.norm else ()

    @property
    def activation_name(self) -> str:
        """The activation without its slope, one of ACTIVATIONS; empty where there is none."""
        return (self.activation or "").partition(":")[0]

    @property
    def slope(self) -> float:
        """Slope below zero of a `leaky_relu` activation."""
        return float((self.activation or "").partition(":")[2])

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the row that differ from their defaults."""
        values = dataclasses.asdict(self)
        return {field.name: values[field.name] for field in dataclasses.fields(self) if values[field.name] != field.default}


class Ops(Protocol[T]):
    """The methods that a reader of the table supplies, one per op. T is the reader's value for one feature map."""

    def conv(self, row: Row, x: T) -> T: ...
    def add(self, row: Row, a: T, b: T) -> T: ...
    def concat(self, row: Row, xs: Sequence[T]) -> T: ...
    def maxpool(self, row: Row, x: T) -> T: ...
    def upsample(self, row: Row, x: T) -> T: ...
    def detect(self, row: Row, heads: Sequence[T]) -> list[T]: ...


@dataclass(frozen=True)
class Network:
    """Rows in topological order, from one `image` row to one `detect` row, and the anchors of each detection level.

    anchors: `[level][anchor] = (width, height)` in pixels of the network's input.
    Raises InputError when the table is not a network: unknown op or input, dead rows, channels or sizes that do not fit together.
    """

    rows: tuple[Row, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]

    def __post_init__(self) -> None:
        _check_rows(self.rows)
        _check_anchors(self)
        _ = self.strides  # infers all shapes, so that a table which loads also runs

    @cached_property
    def dying(self) -> tuple[tuple[str, ...], ...]:
        """The inputs of every row that no later row reads, in the order of rows."""
        last = {name: index for index, row in enumerate(self.rows) for name in row.inputs}
        return tuple(tuple(name for name in dict.fromkeys(row.inputs) if last[name] == index) for index, row in enumerate(self.rows))

    @cached_property
    def convs(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.op == "conv")

    @cached_property
    def heads(self) -> frozenset[str]:
        """Names of the convolutions that Detect reads; their outputs have fixed meanings and are never cut."""
        return frozenset(self.rows[-1].inputs)

    @cached_property
    def sizes_checked(self) -> set[tuple[int, int]]:
        """Heights and widths of pictures that sessions have checked; they are kept because walking the table takes longer than some batches."""
        return set()

    @cached_property
    def classes(self) -> int:
        return next(row.channels for row in self.convs if row.name == self.rows[-1].inputs[0]) // len(self.anchors[0]) - 5

    @cached_property
    def _probe(self) -> tuple[dict[str, Shape], list[Shape]]:
        """Shapes of every row and of the levels for a square picture that any sensible stride divides."""
        ops = ShapeOps()
        ops.shapes[self.rows[0].name] = image = (self.rows[0].channels, _PROBE_SIDE, _PROBE_SIDE)
        return ops.shapes, walk(self, ops, image)

    @property
    def channels(self) -> dict[str, int]:
        """Output channels of every row but the last."""
        return {name: shape[0] for name, shape in self._probe[0].items()}

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each detection level."""
        for channels, height, width in self._probe[1]:
            if _PROBE_SIDE % height or height != width:
                raise InputError(
                    f"{self.rows[-1].name}: a level of {height}x{width} cells for {_PROBE_SIDE}x{_PROBE_SIDE} pixels has no whole stride"
                )
            if channels != len(self.anchors[0]) * (5 + self.classes):
                raise InputError(f"{self.rows[-1].name}: levels of different channel counts")
        return tuple(_PROBE_SIDE // height for _, height, _ in self._probe[1])

    @cached_property
    def stride(self) -> int:
        """Number of pixels that divides the sides of every valid picture: the largest stride inside the network, in YOLOv5 that of its last level."""
        return max(*self.strides, *(_PROBE_SIDE // shape[1] for shape in self._probe[0].values()))

    def to_json(self) -> list[dict[str, Any]]:
        return [row.to_json() for row in self.rows]

    @classmethod
    def from_json(cls, table: object, anchors: object) -> Network:
        """Return the network of a table and anchors in parsed JSON. Raises InputError for anything that `to_json` would not have written."""
        if not isinstance(table, list) or not isinstance(anchors, list):
            raise InputError("the table and the anchors must be lists")
        if len(table) > MOST_ROWS:
            raise InputError(f"a table of {len(table)} rows is longer than any network ({MOST_ROWS})")
        rows = tuple(_row_from_json(index, entry) for index, entry in enumerate(table))
        try:
            levels = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"anchors must be pairs of numbers per level, found {shown(anchors)}") from None
        return cls(rows, levels)


def walk(network: Network, ops: Ops[T], image: T) -> list[T]:
    """Read the table from top to bottom with `ops`, starting from `image`, and return the result of `ops.detect`.

    A value is dropped as soon as no later row needs it, so peak memory is that of the live feature maps.
    """
    values = {network.rows[0].name: image}
    del image
    for row, dying in zip(network.rows[1:-1], network.dying[1:-1], strict=True):
        inputs = [values[name] for name in row.inputs]
        for name in dying:
            del values[name]
        if row.op == "conv":
            values[row.name] = ops.conv(row, inputs[0])
        elif row.op == "add":
            values[row.name] = ops.add(row, inputs[0], inputs[1])
        elif row.op == "concat":
            values[row.name] = ops.concat(row, inputs)
        elif row.op == "maxpool":
            values[row.name] = ops.maxpool(row, inputs[0])
        else:
            values[row.name] = ops.upsample(row, inputs[0])
    detect = network.rows[-1]
    return ops.detect(detect, [values[name] for name in detect.inputs])


Shape = tuple[int, int, int]


class ShapeOps:
    """`Ops` that infer the channels, height and width of every map into `shapes`, by row name. Raises InputError where they do not fit together."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}

    def _keep(self, row: Row, channels: int, height: int, width: int) -> Shape:
        if min(channels, height, width) < 1:
            raise InputError(f"{row.name}: output of {channels} channels, {height}x{width} is empty; the picture is too small")
        if max(channels, height, width) > 10_000_000:
            raise InputError(f"{row.name}: a map of more than 10,000,000 channels, lines or columns")
        self.shapes[row.name] = (channels, height, width)
        return channels, height, width

    def conv(self, row: Row, x: Shape) -> Shape:
        if x[0] % row.groups or row.channels % row.groups:
            raise InputError(f"{row.name}: {row.groups} groups do not divide {x[0]} input and {row.channels} output channels")
        return self._keep(row, row.channels, *_window(row, x))

    def add(self, row: Row, a: Shape, b: Shape) -> Shape:
        if a != b:
            raise InputError(f"{row.name}: cannot add maps of shapes {a} and {b}")
        return self._keep(row, *a)

    def concat(self, row: Row, xs: Sequence[Shape]) -> Shape:
        for a, b in pairwise(xs):
            if a[1:] != b[1:]:
                raise InputError(f"{row.name}: cannot concatenate maps of sizes {a[1]}x{a[2]} and {b[1]}x{b[2]}")
        return self._keep(row, sum(x[0] for x in xs), *xs[0][1:])

    def maxpool(self, row: Row, x: Shape) -> Shape:
        return self._keep(row, x[0], *_window(row, x))

    def upsample(self, row: Row, x: Shape) -> Shape:
        return self._keep(row, x[0], x[1] * row.stride, x[2] * row.stride)

    def detect(self, row: Row, heads: Sequence[Shape]) -> list[Shape]:
        return list(heads)


def _window(row: Row, x: Shape) -> tuple[int, int]:
    height, width = ((side + 2 * row.padding - row.kernel) // row.stride + 1 for side in x[1:])
    return height, width


def parse_activation(text: str) -> bool:
    """Tell whether `text` names an activation that every backend knows: one of ACTIVATIONS, `leaky_relu` with a slope in [0, 1)."""
    name, _, slope = text.partition(":")
    if name != "leaky_relu":
        return text in ACTIVATIONS
    try:
        return 0.0 <= float(slope) < 1.0
    except ValueError:
        return False


def _row_from_json(index: int, entry: object) -> Row:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(f"table row {index}: expected an object with a name, found {shown(entry)}")
    fields = {field.name: field for field in dataclasses.fields(Row)}
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in fields:
            raise InputError(f"table row {index} ({entry['name']}): unknown field {shown(key)}")
        if key == "inputs":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise InputError(f"table row {index} ({entry['name']}): inputs must be a list of names, found {shown(value)}")
            value = tuple(value)
        elif key != "activation" and type(value) is not type({**_REQUIRED, **_DEFAULTS}[key]):
            raise InputError(f"table row {index} ({entry['name']}): {key} is {shown(value)}")
        elif key == "activation" and not isinstance(value, str):
            raise InputError(f"table row {index} ({entry['name']}): activation is {shown(value)}")
        values[key] = value
    if "op" not in values:
        raise InputError(f"table row {index} ({entry['name']}): no op")
    return Row(**values)


_REQUIRED = {"name": "", "op": ""}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Row) if field.name not in _REQUIRED}


# The limits are wide enough for any detector, and so narrow that a hostile table cannot ask for absurd memory or loop for hours.
_LIMITS: Mapping[str, tuple[int, int]] = {
    "channels": (0, 1_000_000),
    "kernel": (1, 255),
    "stride": (1, 64),
    "padding": (0, 255),
    "groups": (1, 1_000_000),
}


def _check_rows(rows: tuple[Row, ...]) -> None:
    if len(rows) < 3 or rows[0].op != "image" or rows[-1].op != "detect":
        raise InputError("a network starts with an image row, ends with a detect row and has rows between them")
    if (rows[0].name, rows[0].channels) != ("images", 3):
        raise InputError(f"the image row is {shown(rows[0].name)} with {rows[0].channels} channels, expected images with 3")
    seen: dict[str, Row] = {}
    for index, row in enumerate(rows):
        if row.op not in INPUTS or (row.op == "image") != (index == 0) or (row.op == "detect") != (index == len(rows) - 1):
            raise InputError(f"{row.name}: unexpected op {shown(row.op)} in row {index} of {len(rows)}; ops are {', '.join(INPUTS)}")
        fewest, most = INPUTS[row.op]
        if not fewest <= len(row.inputs) <= most:
            raise InputError(f"{row.name}: {row.op} with {len(row.inputs)} inputs")
        for name in row.inputs:
            if name not in seen:
                raise InputError(f"{row.name}: input {shown(name)} is not an earlier row")
        if row.name in seen or not _NAME.fullmatch(row.name):
            raise InputError(f"row {index}: the name {shown(row.name)} is reserved, used twice, or not made of letters, digits, dots and underscores")
        for field, (low, high) in _LIMITS.items():
            value = getattr(row, field)
            if not low <= value <= high:
                raise InputError(f"{row.name}: {field} is {value}, expected {low} to {high}")
        if row.op in ("conv", "image") and row.channels < 1:
            raise InputError(f"{row.name}: {row.op} without channels")
        if row.norm and row.bias:
            raise InputError(f"{row.name}: batch norm makes a bias redundant; a convolution has one or the other")
        if row.op == "maxpool" and 2 * row.padding > row.kernel:
            raise InputError(f"{row.name}: padding {row.padding} is more than half of the pooling window {row.kernel}")
        if row.activation is not None and not parse_activation(row.activation):
            raise InputError(f"{row.name}: unknown activation {shown(row.activation)}; known are {', '.join(ACTIVATIONS)}")
        seen[row.name] = row
    unread = set(seen) - {name for row in rows for name in row.inputs} - {rows[-1].name}
    if unread:
        raise InputError(f"{min(unread)}: no later row reads this one")
    for name in rows[-1].inputs:
        head = seen[name]
        if head.op != "conv" or head.norm or not head.bias or head.activation or head.groups > 1:
            raise InputError(f"{name}: detect reads plain convolutions with bias, without batch norm and activation")
        if sum(row.inputs.count(name) for row in rows) > 1:
            raise InputError(f"{name}: detect must be the only reader of its convolutions")


def _check_anchors(network: Network) -> None:
    detect = network.rows[-1]
    anchors = network.anchors
    if len(anchors) != len(detect.inputs) or not anchors[0] or len({len(level) for level in anchors}) != 1:
        raise InputError(f"{detect.name}: {len(detect.inputs)} levels need as many non-empty, equally long lists of anchors, found {shown(anchors)}")
    if not all(0 < side < 1e6 for level in anchors for pair in level for side in pair):
        raise InputError(f"{detect.name}: anchors must be positive pixels, found {shown(anchors)}")
    for name in detect.inputs:
        channels = next(row.channels for row in network.convs if row.name == name)
        if channels % len(anchors[0]) or channels // len(anchors[0]) < 6:
            raise InputError(f"{name}: {channels} channels are not {len(anchors[0])} anchors x (5 + classes)")
