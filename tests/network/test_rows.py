"""The table: what it accepts, how `walk` reads it, and what it costs."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from octrim.backends.numpy import NumpyOps
from octrim.errors import InputError
from octrim.network.cost import network_cost, shapes, tensor_shapes
from octrim.network.rows import Network, Row, walk
from octrim.network.yolov5 import yolov5_network
from tests.networks import lively_model, random_networks


class Map:
    """A value that can be watched; ndarrays cannot."""

    def __init__(self, size: int, alive: list[weakref.ref[Map]]) -> None:
        self.size = size
        alive.append(weakref.ref(self))


class CountingOps:
    """Counts how many bytes of maps are alive while each row is computed."""

    def __init__(self, network: Network, side: int) -> None:
        self.sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes(network, side, side).items()}
        self.alive: list[weakref.ref[Map]] = []
        self.peak = 0

    def make(self, row: Row, *_: object) -> Map:
        made = Map(self.sizes[row.name], self.alive)
        self.peak = max(self.peak, sum(found.size for ref in self.alive if (found := ref()) is not None))
        return made

    conv = maxpool = upsample = add = concat = make

    def detect(self, row: Row, heads: object) -> list[Map]:
        return list(heads)  # type: ignore[call-overload]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 keeps the arguments of a call alive until it returns")
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s6"])
def test_walk_frees_maps_after_their_last_use(name: str) -> None:
    network = yolov5_network(name)
    ops = CountingOps(network, 640)
    gc.disable()  # reference counts must suffice
    try:
        walk(network, ops, Map(ops.sizes["images"], ops.alive))
    finally:
        gc.enable()
    cost = network_cost(network, 640)
    assert ops.peak == cost.peak_bytes < cost.activation_bytes / 5


def test_costs_by_hand() -> None:
    rows = (
        Row("images", "image", channels=3),
        Row("a", "conv", ("images",), 4, 3, 2, 1, norm=True, activation="silu"),
        Row("b", "conv", ("a",), 4, 3, 1, 1, groups=4, norm=True),
        Row("c", "add", ("a", "b")),
        Row("level", "conv", ("c",), 6, bias=True),
        Row("detect", "detect", ("level",)),
    )
    cost = network_cost(Network(rows, (((8.0, 8.0),),)), 8, 16)
    assert {name: (conv.parameters, conv.macs) for name, conv in cost.convs.items()} == {
        "a": (4 * 3 * 9 + 8, 4 * 3 * 9 * 4 * 8),
        "b": (4 * 9 + 8, 4 * 9 * 4 * 8),
        "level": (6 * 4 + 6, 6 * 4 * 4 * 8),
    }
    cells = 4 * 8
    assert cost.activation_bytes == 4 * cells * (4 + 4 + 4 + 6)
    assert cost.peak_bytes == 4 * (3 * 8 * 16 + 4 * cells)  # the picture and the first map


@pytest.mark.slow
@given(random_networks())
def test_json_round_trip(network: Network) -> None:
    text = json.dumps({"table": network.to_json(), "anchors": network.anchors})
    read = json.loads(text)
    assert Network.from_json(read["table"], read["anchors"]) == network


@pytest.mark.slow
@given(random_networks())
def test_shapes_are_what_numpy_computes(network: Network) -> None:
    model = lively_model(network)
    seen: dict[str, tuple[int, ...]] = {}

    class Recording(NumpyOps):
        def conv(self, row: Row, x: np.ndarray) -> np.ndarray:
            y = super().conv(row, x)
            seen[row.name] = y.shape[1:]
            return y

    walk(network, Recording(model), np.zeros((1, 3, 64, 64), np.float32))
    assert seen == {row.name: shapes(network, 64, 64)[row.name] for row in network.convs}
    assert set(model.tensors) == set(tensor_shapes(network))


ROWS = (
    Row("images", "image", channels=3),
    Row("a", "conv", ("images",), 8, 3, 2, 1, norm=True, activation="silu"),
    Row("b", "conv", ("a",), 8, 3, 1, 1, norm=True, activation="silu"),
    Row("c", "add", ("a", "b")),
    Row("level", "conv", ("c",), 14, bias=True),
    Row("detect", "detect", ("level",)),
)
ANCHORS = (((4.0, 5.0), (9.0, 7.5)),)


@pytest.mark.parametrize(
    ("index", "change", "told"),
    [
        (1, {"op": "deform"}, "a: unexpected op 'deform'"),
        (1, {"inputs": ("b",)}, "a: input 'b' is not an earlier row"),
        (1, {"inputs": ()}, "a: conv with 0 inputs"),
        (1, {"channels": 0}, "a: conv without channels"),
        (1, {"channels": 10**9}, "a: channels is 1000000000"),
        (1, {"kernel": 0}, "a: kernel is 0"),
        (1, {"activation": "gelu"}, "a: unknown activation 'gelu'"),
        (1, {"activation": "leaky_relu:x"}, "a: unknown activation"),
        (1, {"groups": 2}, "a: 2 groups do not divide 3 input"),
        (1, {"bias": True}, "a: batch norm makes a bias redundant"),
        (2, {"name": "a"}, "row 2: the name 'a' is reserved, used twice"),
        (2, {"name": "a/b"}, "row 2: the name 'a/b' is reserved"),
        (2, {"name": "output0"}, "row 2: the name 'output0' is reserved"),
        (2, {"channels": 4}, "c: cannot add maps of shapes"),
        (2, {"stride": 2}, "c: cannot add maps of shapes"),
        (3, {"inputs": ("a", "a")}, "b: no later row reads this one"),
        (4, {"channels": 13}, "level: 13 channels are not 2 anchors"),
        (4, {"channels": 10}, "level: 10 channels are not 2 anchors"),
        (4, {"activation": "silu"}, "level: detect reads plain convolutions"),
        (4, {"inputs": ("images",)}, "c: no later row reads this one"),
    ],
)
def test_tables_that_make_no_sense(index: int, change: dict[str, object], told: str) -> None:
    rows = list(ROWS)
    rows[index] = replace(rows[index], **change)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        Network(tuple(rows), ANCHORS)
    assert told in str(caught.value)


@pytest.mark.parametrize("anchors", [(), ((),), (((1.0, 0.0),),), (((float("nan"), 1.0), (1.0, 1.0)),), (ANCHORS[0], ANCHORS[0])])
def test_anchors_that_make_no_sense(anchors: object) -> None:
    with pytest.raises(InputError, match="anchors"):
        Network(ROWS, anchors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "entry",
    [7, {}, {"name": "x"}, {"name": 3, "op": "conv"}, {"name": "x", "op": "conv", "inputs": "images"}, {"name": "x", "op": "conv", "kernel": "3"},
     {"name": "x", "op": "conv", "kernel": True}, {"name": "x", "op": "conv", "kernel": 3.5}, {"name": "x", "op": "conv", "speed": 3},
     {"name": "x", "op": "conv", "activation": 1}],
)  # fmt: skip
def test_json_that_is_no_table(entry: object) -> None:
    table = [row.to_json() for row in ROWS]
    with pytest.raises(InputError, match="row 1|unknown|unexpected"):
        Network.from_json([table[0], entry, *table[2:]], [[[4, 5], [9, 7.5]]])
